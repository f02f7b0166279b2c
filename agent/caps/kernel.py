"""What the kernel says that a cgroup holds, in the words of Limits. Source: kernel, admin-guide/cgroup-v2."""

import os
from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import msgspec

from agent.caps.limits import FREE, IO_WEIGHT, S_US
from agent.caps.steps import InUse
from agent.lane import Lane
from agent.ports import DriverError
from fleet.caps import IoLimit, Limits

UNLIMITED = 2**64 - 1  # "max", of each of a device's four limits
# BFQ's where it schedules, which counts there, and iocost's: a kernel may have both.
IO_WEIGHTS = ("io.bfq.weight", "io.weight")
IO_WORDS = ("rbps", "wbps", "riops", "wiops")

# Debian's and others'; atd's jobs too.
CRONS = frozenset({"cron", "CRON", "crond", "atd", "anacron"})

READ_BYTES = 64 << 10  # io.max has a line for each disk
LOOK_S = 5.0  # cgroupfs answers at once, but where reclaim holds a lock

P = ParamSpec("P")
T = TypeVar("T")


async def look(lane: Lane, reading: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what reads files in the `lane` of whoever reads: a kernel under pressure holds up no beat, nor others' looks.

    Raises DriverError.
    """
    try:
        return await lane.run(LOOK_S, partial(reading, *args, **kwargs))
    except OSError as error:
        raise DriverError(f"can't read cgroups: {error!r}") from error


def slice_path(name: str) -> Path:
    """Where systemd puts a slice: `a-b.slice` is inside `a.slice`. Source: systemd.slice(5)."""
    parts = name.removesuffix(".slice").split("-")
    return Path(*(f"{'-'.join(parts[:n])}.slice" for n in range(1, len(parts) + 1)))


def held(group: Path) -> Limits | None:
    """None: there is no such cgroup. A file that is missing limits nothing."""
    if not group.is_dir():
        return None
    at = f"{group}/"  # joined by pathlib, the paths of a thousand slices take as long as reading them
    return Limits(
        cpu_weight=_number(f"{at}cpu.weight") or FREE.cpu_weight,
        cpu_quota_us=_quota_us(_words(f"{at}cpu.max")),
        memory_high_bytes=_number(f"{at}memory.high"),
        memory_max_bytes=_number(f"{at}memory.max"),
        memory_low_bytes=_number(f"{at}memory.low") or 0,
        swap_max_bytes=_number(f"{at}memory.swap.max"),
        tasks_max=_number(f"{at}pids.max"),
        io=_io(f"{at}io.max"),
        io_weight=_io_weight(at),
        frozen=_number(f"{at}cgroup.freeze") == 1,
    )


def in_use(group: Path) -> InUse | None:
    """Memory in use; None where it isn't told. Pages of files are those that can be dropped or written back."""
    if (used := _number(group / "memory.current")) is None:
        return None
    told = dict(line.split(" ", 1) for line in _lines(group / "memory.stat") if " " in line)
    files = sum(int(told.get(name, 0)) for name in ("active_file", "inactive_file"))
    return InUse(all_bytes=used, file_bytes=min(used, files))


def unlike(wanted: Limits, held: Limits) -> frozenset[str]:
    """The fields in which they differ; a device that is held and not wanted is a difference too."""
    if wanted == held:  # at once: of a thousand slices hardly any differs
        return frozenset()
    fields = Limits.__struct_fields__
    return frozenset(name for name in fields if getattr(wanted, name) != getattr(held, name))


def only(limits: Limits, fields: Collection[str], held: Limits) -> Limits:
    """What is `held`, but for these fields of `limits`."""
    return msgspec.structs.replace(held, **{field: getattr(limits, field) for field in fields})


def drop_in_denies(run: Path, slice: str) -> bool:
    """Whether systemd holds address rules for a slice, by its own files: the kernel's say nothing of them.

    `run`: /run/systemd. Set at run time, a property of a unit is a drop-in there, named after it.
    """
    for folder in ("system.control", "transient"):
        for line in _lines(run / folder / f"{slice}.d" / "50-IPAddressDeny.conf"):
            name, _, value = line.partition("=")
            if name == "IPAddressDeny" and value:
                return True
    return False


def comparable(wanted: Limits, held: Limits) -> Limits:
    """`held` as far as `wanted` speaks of it: a weight of I/O that we never set is nobody's word.

    A kernel that shows none any more has the default.
    """
    if wanted.io_weight == IO_WEIGHT and held.io_weight is None:
        return msgspec.structs.replace(held, io_weight=IO_WEIGHT)
    if wanted.io_weight is None and held.io_weight is not None:
        return msgspec.structs.replace(held, io_weight=None)
    return held


def _text(path: Path | str) -> str:
    """A small file at once: a dozen of each slice are read, and buffers would take twice as long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, READ_BYTES).decode()
    finally:
        os.close(descriptor)


def _lines(path: Path | str) -> list[str]:
    try:
        return _text(path).splitlines()
    except OSError:  # gone, or this kernel has no such file: it limits nothing
        return []


def _words(path: Path | str) -> list[str]:
    try:
        return _text(path).split()
    except OSError:  # as above
        return []


def _number(path: Path | str) -> int | None:
    words = _words(path)
    return int(words[0]) if words and words[0].isdigit() else None


def _quota_us(words: list[str]) -> int | None:
    """Of each second, from "quota period"."""
    if len(words) != 2 or not words[0].isdigit():
        return None
    return int(words[0]) * S_US // int(words[1])


def _io(path: str) -> dict[str, IoLimit]:
    return {line.split()[0]: _io_limit(line.split()[1:]) for line in _lines(path) if line.strip()}


def _io_limit(words: list[str]) -> IoLimit:
    told = dict(word.split("=", 1) for word in words)
    values = [told.get(word, "max") for word in IO_WORDS]
    read, write, reads, writes = (UNLIMITED if v == "max" else int(v) for v in values)
    return IoLimit(
        read_bytes_per_s=read,
        write_bytes_per_s=write,
        read_ops_per_s=reads,
        write_ops_per_s=writes,
    )


def _io_weight(at: str) -> int | None:
    for name in IO_WEIGHTS:
        words = _words(f"{at}{name}")
        if len(words) >= 2 and words[0] == "default":
            return int(words[1])
    return None


def services(group: Path) -> tuple[str, ...]:
    """The names of systemd's services in a slice and in the slices below it, sorted.

    What lies below a service is another manager's: a user's own dbus.service has the name of the host's.
    """
    found = (path for path in group.rglob("*.service") if path.is_dir())
    return tuple(sorted(p.name for p in found if not _is_below_a_service(p.relative_to(group))))


def _is_below_a_service(path: Path) -> bool:
    return any(folder.suffix == ".service" for folder in path.parents)


def jobs(group: Path, proc: Path) -> tuple[str, ...]:
    """The names of sessions' scopes in a slice that are nobody's login, sorted: cron's, or what a login left behind.

    Who logged in is known by the door that is still open: a process of root's, as sshd's, login's or su's, that waits
    for the end. Cron's waits as well, and what it started may go on without.
    """
    found = (path for path in group.glob("session-*.scope") if path.is_dir())
    return tuple(sorted(path.name for path in found if _is_job(path, proc)))


def is_visited(group: Path, proc: Path) -> bool:
    """Whether somebody is logged in."""
    scopes = (path for path in group.glob("session-*.scope") if path.is_dir())
    return any(_has_door(_members(scope, proc)) for scope in scopes)


def _is_job(scope: Path, proc: Path) -> bool:
    known = _members(scope, proc)
    return bool(known) and not _has_door(known)


def _members(scope: Path, proc: Path) -> list[tuple[int, str]]:
    return [found for pid in _words(scope / "cgroup.procs") if (found := _who(proc / pid))]


def _has_door(members: Iterable[tuple[int, str]]) -> bool:
    return any(uid == 0 and name not in CRONS for uid, name in members)


def _who(process: Path) -> tuple[int, str] | None:
    """Whose it is, not as whom it acts: a user's sudo is the user's. And its name. None: it is gone."""
    try:
        text = (process / "status").read_text(errors="replace")  # a name is any bytes
    except OSError:
        return None
    told = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    if "Uid" not in told:
        return None
    return int(told["Uid"].split()[0]), told.get("Name", "")


def is_populated(group: Path) -> bool:
    """Whether there is a process in it, or below it."""
    words = _words(group / "cgroup.events")
    return "populated" in words and words[words.index("populated") + 1] == "1"
