"""php-fpm's pools: whom each runs as, and where it listens. Source: php-fpm's own php-fpm.conf and www.conf."""

import re
from collections.abc import Iterator

from agent.discover.files import Files
from agent.discover.found import Doubt, Pool

MAINS = ("/etc/php/*/fpm/php-fpm.conf", "/etc/relevo/php/*.conf")
# A pool in a unit of its own is given the socket that systemd holds, by a name that begins so: php-fpm removes a file
# of that name when it ends, and there must be none.
GIVEN = "/run/relevo-php/given"
NESTED_LIMIT = 8
# In Apache's `proxy:unix:/run/php/x.sock|fcgi://localhost` and `fcgi://127.0.0.1:9000`, and bare.
SOCKET = re.compile(r"unix:([^|;\s\"']+)(?:\|\S*)?|fcgi://([\w.\[\]:-]+:\d+)|-socket\s+(\S+)")
SECTION = re.compile(r"\[([^\]]+)\]")
SETTING = re.compile(r"([\w.\[\]-]+)\s*=\s*(.*)")


def socket(found: tuple[str, ...] | str) -> str:
    """One way to write where a pool listens: a path below /run, or address:port."""
    said = next(filter(None, found), "") if isinstance(found, tuple) else found
    said = said.removeprefix("unix:").rstrip(":")
    if said.startswith("/"):
        return re.sub(r"^/var/run/", "/run/", re.sub(r"/+", "/", said))
    said = f"127.0.0.1:{said}" if said.isdecimal() else said
    return re.sub(r"^(?:localhost|\[::1?\]|0\.0\.0\.0|\*):", "127.0.0.1:", said)


class Pools:
    """All pools of all versions, from `mains` on."""

    def __init__(self, files: Files, mains: tuple[str, ...] = MAINS) -> None:
        self._files = files
        self._found: list[Pool] = []
        self._read: set[str] = set()
        self.doubts: list[Doubt] = []
        for main in [main for pattern in mains for main in files.glob(pattern)]:
            self._file(main, 0)

    @property
    def found(self) -> tuple[Pool, ...]:
        return tuple(self._found)

    @property
    def paths(self) -> frozenset[str]:
        """The files that were read."""
        return frozenset(self._read)

    def _file(self, path: str, nested: int) -> None:
        if path in self._read or nested > NESTED_LIMIT:
            return
        self._read.add(path)
        text = self._files.read(path) or ""
        for name, line, settings in sections(text):
            if name != "global":
                self._found.append(_pool(name, f"{path}:{line}", settings))
        for pattern in re.findall(r"^[ \t]*include[ \t]*=[ \t]*(\S+)", text, re.M):
            here = pattern.strip("\"'")
            # Relative to the prefix that PHP was built with, which Debian leaves at /usr.
            for more in self._files.glob(here if here.startswith("/") else f"/usr/{here}"):
                self._file(more, nested + 1)


def sections(text: str) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Each section's name, line and settings; the last word on a setting counts."""
    name, line, settings = "global", 1, dict[str, str]()
    for number, raw in enumerate(text.split("\n"), 1):
        said = raw.strip()
        if section := SECTION.match(said):
            yield name, line, settings
            name, line, settings = section[1].strip(), number, {}
        elif not said.startswith((";", "#")) and (setting := SETTING.match(said)):
            settings[setting[1]] = setting[2].partition(";")[0].strip().strip("\"'")
    yield name, line, settings


def _pool(name: str, place: str, settings: dict[str, str]) -> Pool:
    def filled(key: str) -> str | None:
        value = settings.get(key)
        return value.replace("$pool", name) if value else None

    listen = filled("listen")
    listen = socket(listen.removeprefix(GIVEN)) if listen else None
    told_at, path = filled("pm.status_listen"), filled("pm.status_path")
    asked = socket(told_at) if told_at else listen
    most = settings.get("pm.max_children", "")
    return Pool(
        name=name,
        place=place,
        user=filled("user"),
        listen=listen,
        status=(asked, path) if asked and path else None,
        workers=int(most) if most.isascii() and most.isdecimal() and len(most) < 10 else None,
    )
