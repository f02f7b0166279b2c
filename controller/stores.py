"""Which store a controller keeps its state in: its settings, and how it is opened."""

import ipaddress
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from controller.store import EmbeddedStore, Store
from runtime.config import secret


class Embedded(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="embedded",
):
    """A file below `state`, for a lone controller."""


class Etcd(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="etcd",
):
    """An etcd cluster, for one controller or several.

    `endpoints`: its members, the one that this controller prefers first. `ca` signed their certificates; `cert` and
    `key` are our own, if etcd asks for one. `prefix` goes before every key, for a cluster that others use too.
    """

    endpoints: Annotated[tuple[str, ...], Meta(min_length=1, max_length=9)]
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: Annotated[str, Meta(max_length=200)] = ""
    password_file: Path | None = None
    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_./-]*$", max_length=200)] = ""

    def __post_init__(self) -> None:
        for endpoint in self.endpoints:
            check_endpoint(endpoint)
        if len(set(self.endpoints)) < len(self.endpoints):
            raise ValueError(
                f"endpoints = {list(self.endpoints)}: one is named twice; name each member once"
            )
        secure = {endpoint.startswith("https:") for endpoint in self.endpoints}
        if len(secure) > 1:
            raise ValueError("endpoints with and without TLS; give all of them as https://")
        if secure != {self.ca is not None}:
            raise ValueError(
                "ca and https:// endpoints come together: set ca to the certificate that signed etcd's"
            )
        if (self.cert is None) != (self.key is None) or (self.cert and not self.ca):
            raise ValueError("cert and key come together, beside ca; set both or neither")
        if (self.user == "") != (self.password_file is None):
            raise ValueError("user and password_file come together; set both or neither")


def check_endpoint(endpoint: str) -> None:
    """Raises ValueError."""
    example = 'give scheme, host and port: "https://etcd1.example:2379"'
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"endpoint {endpoint!r}: {error}; {example}") from error
    bare = endpoint == f"{parts.scheme}://{parts.netloc}" and "@" not in endpoint
    if parts.scheme not in {"http", "https"} or not host or not port or not bare:
        raise ValueError(f"endpoint {endpoint!r} names no member; {example}")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError(
            f"endpoint {endpoint!r} is not loopback and has no TLS; give it as https:// and set ca"
        )


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def opening(settings: Embedded | Etcd, state: Path) -> AbstractAsyncContextManager[Store]:
    """The store that `settings` name, to be entered; an embedded one lies in `state`. Raises BadConfig."""
    if isinstance(settings, Embedded):
        return EmbeddedStore.open(state / "store.db")
    # Imported here: gRPC costs 20 MB and 0.1 s, which a lone controller has no use for.
    from controller.store.etcd import EtcdStore, Login, Tls  # noqa: PLC0415

    login = None
    if settings.password_file:
        login = Login(settings.user, secret(settings.password_file))
    return EtcdStore.open(
        settings.endpoints,
        tls=Tls(settings.ca, settings.cert, settings.key) if settings.ca else None,
        login=login,
        prefix=settings.prefix.encode(),
    )
