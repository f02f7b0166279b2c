"""Whom to believe to be a master of php-fpm: what the kernel says of a process counts, not only what it says. Pure.

Whoever starts a program chooses its title and its name, also of one that is setuid root, such as su. So a master is
root's through and through and runs where nobody but systemd starts anything; and where several say that they are the
same one, it is who runs where that one belongs, or who was known.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OWN = "/etc/relevo/php"  # configuration of masters of one pool each, as `relevo layout convert` writes it
# What a master of php-fpm calls itself. Source: php-src, sapi/fpm/fpm/fpm_env.c.
TITLE = re.compile(r"php-fpm: master process \((/[^)]*)\)")
# Of Debian's own masters; another one's unit may have any name.
DEBIANS = re.compile(r"/etc/php/(\d[\w.]*)/fpm/php-fpm\.conf", re.ASCII)
ANY_UNIT = "php-fpm.service"
# Real, effective, saved and of the file system. Source: proc_pid_status(5).
UIDS = re.compile(r"^Uid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", re.M)
GIDS = re.compile(r"^Gid:\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", re.M)
PARENT = re.compile(r"^PPid:\s+(\d+)", re.M)
ROOTS = ("0",) * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Of one process: its effective uid, its parent, whether it is root and nobody else.

    sudo makes itself root before it asks for a password, but its real group stays that of who called it. Source: sudo,
    set_perms.c, PERM_ROOT.
    """

    uid: int
    parent: int
    is_root: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process: its effective uid, its cgroup, the main file if it may be a master of php-fpm."""

    pid: int
    uid: int
    cgroup: str
    parent: int = 0
    main: str | None = None


def status(text: str) -> Status | None:
    """What /proc/PID/status says; None: nothing, for it is gone."""
    uids, gids, parent = UIDS.search(text), GIDS.search(text), PARENT.search(text)
    if uids is None or gids is None or parent is None:
        return None
    is_root = uids.groups() == gids.groups() == ROOTS
    return Status(uid=int(uids[2]), parent=int(parent[1]), is_root=is_root)


def main_of(title: str, cgroup: str) -> str | None:
    """The main file of the master that a process which is root's may be, by its title; None: it is none."""
    found = TITLE.match(title)
    if found is None or _is_a_persons(cgroup):
        return None
    main = found[1]
    unit = cgroup.rpartition("/")[2]
    return main if not is_own(main) or unit == _unit(main) else None


def _is_a_persons(cgroup: str) -> bool:
    """Whether it is in a login, or below a user's own service manager. A site's unit is in its user's slice itself."""
    top, *slices = cgroup.strip("/").split("/")
    if top != "user.slice":
        return False
    unit = slices.pop() if slices else ""
    in_slices = all(name.endswith(".slice") for name in slices)
    return not in_slices or not unit.endswith(".service") or unit.startswith("user@")


def believed(
    seen: Iterable[Process], known: Mapping[str, Process], slices: Mapping[str, str]
) -> dict[str, Process]:
    """The master of each main file that one runs of. Of several nobody new, but who is where it belongs.

    `known`: who was believed before; `slices`: where files put masters of one pool each.
    """
    claims: dict[str, dict[int, Process]] = defaultdict(dict)
    for process in seen:
        if process.main:
            claims[process.main][process.pid] = process
    found = {}
    for main, by_pid in claims.items():
        # A worker that was forked a moment ago is still called what its parent is.
        those = [process for process in by_pid.values() if process.parent not in by_pid]
        one = _one(those, known.get(main), place_of(main, slices.get(main)))
        if one is not None:
            found[main] = one
    return found


def _one(those: list[Process], known: Process | None, place: str) -> Process | None:
    if len(those) == 1:
        return those[0]
    for cgroup in (place, known.cgroup if known else None):
        here = [process for process in those if process.cgroup == cgroup]
        if len(here) > 1:
            return next((process for process in here if known and process.pid == known.pid), None)
        if here:
            return here[0]
    return None


def is_own(main: str) -> bool:
    """Whether it is a configuration that `relevo layout convert` wrote."""
    return main.startswith(f"{OWN}/")


def place_of(main: str, slice: str | None) -> str:
    """The cgroup of the unit that a master of `main` belongs to, in `slice` if files name one; of any path."""
    return f"/{folder(slice or 'system.slice')}/{_unit(main)}"


def _unit(main: str) -> str:
    if is_own(main):
        return f"relevo-php@{main.rpartition('/')[2].removesuffix('.conf')}.service"
    debians = DEBIANS.fullmatch(main)
    return f"php{debians[1]}-fpm.service" if debians else ANY_UNIT


def folder(slice: str) -> str:
    """Where systemd puts a slice, below the root: "a-b.slice" is in "a.slice". Source: systemd.slice(5)."""
    parts = slice.removesuffix(".slice").split("-")
    return "/".join(f"{'-'.join(parts[: n + 1])}.slice" for n in range(len(parts)))


def slice_of(cgroup: str) -> str:
    """The innermost slice that `cgroup` is in; "-.slice" is the root."""
    return next(
        (part for part in reversed(cgroup.split("/")) if part.endswith(".slice")), "-.slice"
    )
