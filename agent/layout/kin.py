"""Looks at the processes of shared php-fpm masters and of the scopes beside them; a few small files each round."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from agent.layout.adopt import Kin, Seen, scope_of
from agent.layout.attached import Adoptable
from agent.layout.masters import folder, main_of, status
from fleet.model import SiteId

CROWD_MAX = 20_000  # more than this in one cgroup is a fork bomb before its first adoption: leave it to TasksMax
TEXT_CHARS = 4096  # of a status, or of a title


Crowd = tuple[int | None, tuple[Kin, ...]]  # the master, if it runs, and everyone in its cgroup


class Odd(Exception):
    """What was seen is not what a php-fpm looks like; the message says what."""


def see(
    wanted: Mapping[SiteId, Adoptable], cgroups: Path, proc: Path = Path("/proc")
) -> dict[SiteId, Seen | Odd]:
    """What there is of each; a master that many share is looked at once."""
    crowds: dict[tuple[str, str], Crowd | Odd] = {}
    found: dict[SiteId, Seen | Odd] = {}
    for site, of in wanted.items():
        if (key := (of.cgroup, of.main)) not in crowds:
            crowds[key] = _crowd_or_odd(of, cgroups, proc)
        known = crowds[key]
        if isinstance(known, Odd):
            found[site] = known
            continue
        master, everyone = known
        slice = cgroups / folder(of.slice)
        found[site] = Seen(
            master=master,
            outside=tuple(kin for kin in everyone if kin.uid in of.uids),
            inside=inside(slice / scope_of(site), proc, look=master is None),
            is_frozen=_text(slice / "cgroup.freeze").strip() == "1",
        )
    return found


def _crowd_or_odd(of: Adoptable, cgroups: Path, proc: Path) -> Crowd | Odd:
    try:
        return crowd(of, cgroups, proc)
    except Odd as odd:
        return odd


def crowd(of: Adoptable, cgroups: Path, proc: Path) -> Crowd:
    """Who runs in the master's own cgroup, and which is the master. Raises Odd."""
    pids = _pids(cgroups / of.cgroup.lstrip("/"))
    if len(pids) > CROWD_MAX:
        raise Odd(f"{of.unit} has {len(pids)} processes")
    everyone = tuple(kin for pid in pids if (kin := _kin(pid, proc, titled=False)) is not None)
    # Titles have been read of root's alone.
    claims = {kin.pid: kin for kin in everyone if main_of(kin.title, of.cgroup) == of.main}
    # A worker that was forked a moment ago is still called what its parent is.
    masters = [pid for pid, kin in claims.items() if kin.parent not in claims]
    if len(masters) > 1:
        raise Odd(f"{of.unit} has {len(masters)} masters of {of.main}")
    return (masters[0] if masters else None), everyone


def inside(scope: Path, proc: Path, *, look: bool = True) -> tuple[Kin, ...] | None:
    """Who runs in a scope, nobody without a `look`; None: it is not there."""
    if not scope.is_dir():
        return None
    pids = _pids(scope)[:CROWD_MAX] if look else ()
    return tuple(kin for pid in pids if (kin := _kin(pid, proc)) is not None)


def _pids(cgroup: Path) -> tuple[int, ...]:
    """Of processes in other PID namespaces the kernel tells 0."""
    return tuple(
        int(word) for word in _text(cgroup / "cgroup.procs", 1 << 20).split() if word != "0"
    )


def _kin(pid: int, proc: Path, *, titled: bool = True) -> Kin | None:
    """None: it is gone. A title is in the process's own memory: where that is swapped out, whoever reads it waits.

    So root's are read always, among whom is the master, and others' only if they are to be `titled`.
    """
    told = status(_text(proc / f"{pid}/status"))
    if told is None:
        return None
    kin = Kin(pid, told.uid, told.parent)
    if not (titled or told.is_root):
        return kin
    return replace(kin, title=_text(proc / f"{pid}/cmdline").replace("\0", " ").rstrip())


def _text(path: Path, limit: int = TEXT_CHARS) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(limit)
    except OSError:  # gone
        return ""
