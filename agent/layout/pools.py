"""The text of php-fpm's pools: one cut out of its file, made to listen elsewhere, put back. Pure.

Source: php-fpm's own php-fpm.conf and www.conf; php-src, sapi/fpm/fpm/fpm_conf.c.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agent.discover.php import SECTION, SETTING, sections

LINE = re.compile(r"[^\n]*\n|[^\n]+")  # as php-fpm ends them, and nobody else
LISTEN = re.compile(r"^[ \t]*listen[ \t]*=.*$", re.M)
# Of the shared master's [global], what changes how a pool runs.
KEPT = (
    *("rlimit_files", "rlimit_core", "process.priority", "log_level"),
    *("emergency_restart_threshold", "emergency_restart_interval"),
)
UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
# Requests under way have this long when its master is restarted or reloaded.
CONTROL_S = 30


@dataclass(frozen=True, slots=True)
class Cut:
    """`section`: the pool's lines; `rest`: what its file, the `whole`, says without them."""

    section: str
    rest: str
    whole: str

    @property
    def is_all(self) -> bool:
        """Whether the file said nothing else."""
        lines = (line.strip() for line in self.rest.splitlines())
        return all(not line or line.startswith((";", "#")) for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """Who may ask a pool, as systemd says it."""

    user: str = "root"
    group: str = "root"
    mode: str = "0660"
    backlog: int = 4096


def cut(text: str, pool: str) -> Cut | None:
    """The pool's section, up to the next one; None where there is none, or several of its name."""
    lines = LINE.findall(text)
    heads = [n for n, line in enumerate(lines) if SECTION.match(line.strip())]
    mine = [n for n in heads if _name(lines[n]) == pool]
    if len(mine) != 1:
        return None
    end = next((n for n in heads if n > mine[0]), len(lines))
    section = "".join(lines[mine[0] : end])
    return Cut(section, "".join(lines[: mine[0]] + lines[end:]), text)


def _name(line: str) -> str:
    found = SECTION.match(line.strip())
    return found[1].strip() if found else ""


def settings(section: str) -> Mapping[str, str]:
    """What the section sets, $pool filled in; the last word counts."""
    found = [(name, said) for name, _, said in sections(section) if name != "global"]
    name, said = found[0]
    return {key: value.replace("$pool", name) for key, value in said.items()}


def globals_of(text: str) -> Mapping[str, str]:
    """What the master's main file sets for itself."""
    merged: dict[str, str] = {}
    for name, _, said in sections(text):
        if name == "global":
            merged |= said
    return merged


def strange_lines(section: str) -> list[str]:
    """Lines that are no setting, such as an include, or set something that is not the pool's alone."""
    found = []
    for raw in section.splitlines():
        line = raw.strip()
        if not line or line.startswith((";", "#")) or SECTION.match(line):
            continue
        setting = SETTING.match(line)
        if setting is None or setting[1] in {"include", "prefix"}:
            found.append(line)
    return found


def listening(section: str, at: str) -> str:
    """The section with another `listen`."""
    first, *rest = LISTEN.split(section)
    return first + f"listen = {at}" + "".join(rest)


def seconds(said: str) -> int:
    """php-fpm's way to write a time: "10", "10s", "2m"; 0 for what is none."""
    found = re.fullmatch(r"(\d{1,9})([smhd]?)", said.strip())
    return int(found[1]) * UNITS_S[found[2]] if found else 0


def socket_of(said: Mapping[str, str]) -> Socket:
    """Source: php-src, fpm_unix_resolve_socket_permissions: by default the master's own user and 0660."""
    backlog = said.get("listen.backlog", "")
    user = said.get("listen.owner", "root")
    return Socket(
        user=user,
        group=said.get("listen.group", "root"),
        mode=said.get("listen.mode", "0660"),
        backlog=int(backlog) if backlog.isdecimal() else 4096,
    )


def own(section: str, site: str, given: str, shared: Mapping[str, str]) -> str:
    """The configuration of a master for this pool alone, which is given its socket under the name `given`."""
    kept = "".join(f"{key} = {shared[key]}\n" for key in KEPT if key in shared)
    return (
        f"; The PHP of {site}, by relevo layout convert; relevo layout undo {site} puts it back.\n"
        "[global]\nerror_log = syslog\n"
        f"syslog.ident = relevo-php-{site}\n"
        f"process_control_timeout = {CONTROL_S}\n"
        f"{kept}\n{listening(section, given)}"
    )
