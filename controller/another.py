"""The configuration of one more controller as text, made from the one that there is; what is in it otherwise stays."""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from controller.starting import listen_on, url_of
from runtime.config import BadConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Another:
    """`text`: its controller.toml. `lines`: what every controller's must say.

    `endpoints`: the line of [store], where a member of etcd was named by the address that this controller had.
    """

    text: str
    lines: Mapping[str, str]
    endpoints: str = ""


def another(
    text: str, id: str, address: str, port: int, *, known: Mapping[str, str] | None = None
) -> Another:
    """Make it from the first one's `text`, comments too; `known`: URLs that this text may not have yet.

    Raises BadConfig where that can't be done surely.
    """
    before = tomllib.loads(text)
    urls = {**before.get("urls", {}), **(known or {})}
    ids = list(dict.fromkeys([*before.get("controllers", [before["id"]]), *(known or {}), id]))
    store = _moved(before.get("store", {}), urls.get(id), url_of(address, port))
    urls = {**urls, id: url_of(address, port)}
    lines = {
        "controllers": f"controllers = {json.dumps(ids)}",
        "urls": f"[urls]\n{''.join(f'{name} = {json.dumps(url)}' + chr(10) for name, url in urls.items())}",
    }
    top, *sections = re.split(r"(?m)^(?=\[)", text)
    top = _with(top, "id", json.dumps(id))
    top = _with(top, "controllers", json.dumps(ids))
    kept = []
    for section in sections:
        if section.startswith("[urls]"):
            continue
        if section.startswith("[listen]"):
            section = _with(section, "address", json.dumps(listen_on(address)))  # noqa: PLW2901
            section = _with(section, "port", str(port))  # noqa: PLW2901
        if section.startswith("[store]"):
            section = _renamed(section, before["store"], store)  # noqa: PLW2901
        kept.append(section)
    after = "".join([top, f"{lines['urls']}\n", *kept])
    listen = {**before.get("listen", {}), "address": listen_on(address), "port": port}
    wanted = {**before, "id": id, "controllers": ids, "urls": urls, "listen": listen}
    if store:
        wanted["store"] = store
    if _read(after) != wanted:
        raise BadConfig(
            "this controller.toml is not one that can be rewritten; copy and edit it by hand"
        )
    changed = store != before.get("store", {})
    endpoints = f"endpoints = {json.dumps(store['endpoints'])}" if changed else ""
    return Another(text=after, lines=lines, endpoints=endpoints)


def _moved(store: Mapping[str, object], old_url: str | None, new_url: str) -> Mapping[str, object]:
    """[store] with the member beside this controller at its new address."""
    endpoints = store.get("endpoints")
    if old_url is None or not isinstance(endpoints, list):
        return store
    old, new = _host(old_url), _host(new_url)
    return {**store, "endpoints": [_at(one, old, new) for one in endpoints]}


def _host(url: str) -> str:
    """As it stands in a URL: an IPv6 literal in its brackets."""
    return urlsplit(url).netloc.rpartition(":")[0]


def _at(endpoint: str, old: str, new: str) -> str:
    scheme, _, place = endpoint.partition("://")
    host, _, port = place.rpartition(":")
    return f"{scheme}://{new}:{port}" if host == old else endpoint


def _renamed(section: str, before: Mapping[str, object], after: Mapping[str, object]) -> str:
    old, new = before.get("endpoints"), after.get("endpoints")
    if isinstance(old, list) and isinstance(new, list):
        for was, is_now in zip(old, new, strict=True):
            section = section.replace(json.dumps(was), json.dumps(is_now))
    return section


def _read(text: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}


def _with(section: str, name: str, value: str) -> str:
    """`section` with `name = value` in the place of its line, or at its end."""
    line = re.compile(rf"(?m)^{name}\s*=[^\n]*$")
    if line.search(section):
        return line.sub(lambda _: f"{name} = {value}", section, count=1)
    return f"{section.rstrip()}\n{name} = {value}\n\n"
