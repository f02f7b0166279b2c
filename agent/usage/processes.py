"""Who runs what, by Unix user: CPU time, memory and tasks of those whose pool shares its cgroup with others.

Source: proc(5).
"""

import os
import time
from pathlib import Path

import msgspec

# A fork bomb must not make its observer the next one: what is beyond says nothing about anybody this time.
PROCESSES_MAX = 20_000
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
STAT_BYTES = 1024  # a line of some 350 bytes


class Seen(msgspec.Struct, frozen=True, gc=False):
    """One process. `cpu_ticks` with those of its children that it has waited for; memory is its own alone."""

    uid: int
    parent: int
    begun: int
    cpu_ticks: int
    threads: int
    memory_bytes: int


class Look(msgspec.Struct, frozen=True):
    """All at one moment: monotonic s, and clock ticks since the boot, which `Seen.begun` is told in."""

    at: float
    ticks: int
    seen: dict[int, Seen]


class Used(msgspec.Struct, frozen=True):
    """Of one user. None: not known before a second look."""

    cpu_cores: float | None
    memory_bytes: int
    tasks: int


class TooMany(Exception):
    """More processes than can be looked at."""


def look(uids: frozenset[int], at: float, proc: Path = Path("/proc")) -> Look:
    """The processes of `uids` by pid; those that end meanwhile are left out. Raises TooMany, OSError."""
    found = {}
    ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) / TICK_S)
    with os.scandir(proc) as entries:
        pids = [entry.name for entry in entries if entry.name.isdigit()]
    if len(pids) > PROCESSES_MAX:
        raise TooMany(f"{len(pids)} processes, above {PROCESSES_MAX}")
    for pid in pids:
        folder = f"{proc}/{pid}"
        try:
            # The folder is always its effective user's, also where a change of user made the files inside root's.
            if (uid := os.stat(folder).st_uid) in uids:
                found[int(pid)] = parse(uid, _read(f"{folder}/stat"), _read(f"{folder}/statm"))
        except (OSError, ValueError, IndexError):
            continue
    return Look(at, ticks, found)


def parse(uid: int, stat: bytes, statm: bytes) -> Seen:
    """`stat` and `statm` of one process. Raises ValueError, IndexError.

    A command may hold spaces and brackets: the fields begin after the last one. Shared pages (opcache) are left out
    of its memory: each worker of all sites would count them again.
    """
    fields = stat[stat.rindex(b")") + 2 :].split()
    pages = statm.split()
    return Seen(
        uid=uid,
        parent=int(fields[1]),
        begun=int(fields[19]),
        cpu_ticks=sum(int(field) for field in fields[11:15]),
        threads=int(fields[17]),
        memory_bytes=max(0, int(pages[1]) - int(pages[2])) * PAGE_BYTES,
    )


def by_user(before: Look | None, after: Look) -> dict[int, Used]:
    """What each user used between two looks. A user without processes is not in it: it uses nothing.

    The time of a process that has ended is not lost where its parent is of the same user: the parent's grew by it.
    """
    passed_s = after.at - before.at if before else 0.0
    ticks: dict[int, int] = {}
    for uid, change in _changes(before, after) if before else ():
        ticks[uid] = ticks.get(uid, 0) + change
    memory: dict[int, int] = {}
    tasks: dict[int, int] = {}
    for seen in after.seen.values():
        memory[seen.uid] = memory.get(seen.uid, 0) + seen.memory_bytes
        tasks[seen.uid] = tasks.get(seen.uid, 0) + seen.threads
    return {
        uid: Used(
            max(0, ticks.get(uid, 0)) * TICK_S / passed_s if passed_s > 0 else None,
            memory[uid],
            count,
        )
        for uid, count in tasks.items()
    }


def grown(before: Look, pid: int, now: Seen) -> int:
    """By how many ticks process `pid` grew since `before`. One that was there and not looked at then: nobody knows."""
    was = before.seen.get(pid)
    if was is not None and was.begun == now.begun:
        return now.cpu_ticks - was.cpu_ticks
    return now.cpu_ticks if now.begun >= before.ticks else 0


def _changes(before: Look, after: Look) -> list[tuple[int, int]]:
    changes = [(now.uid, grown(before, pid, now)) for pid, now in after.seen.items()]
    for pid, was in before.seen.items():
        if pid in after.seen and after.seen[pid].begun == was.begun:
            continue
        parent = after.seen.get(was.parent)
        if parent is not None and parent.uid == was.uid:
            changes.append((was.uid, -was.cpu_ticks))  # counted before, and now again by its parent
    return changes


def _read(path: str) -> bytes:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(opened, STAT_BYTES)
    finally:
        os.close(opened)
