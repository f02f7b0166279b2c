"""Slices held by their cgroups' own files, in a subtree that whoever started the agent has delegated to it.

For containers and for hosts without systemd. Slices are directories, one inside another as systemd would have them; one
that is not there is made, so that what will live in it is held from its first moment. Address rules have no file:
egress is held by user alone. Source: kernel, admin-guide/cgroup-v2, "Delegation".
"""

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Never, TypeVar

import msgspec

from agent.caps import kernel
from agent.caps.driver import EVERY
from agent.caps.kernel import look
from agent.caps.limits import CONTROLLERS, FREE, S_US
from agent.caps.steps import Steps, short_of
from agent.lane import Lane
from agent.ports import DriverError
from fleet.caps import IoLimit, Limits
from fleet.model import Why
from runtime.pulse import Pulse

T = TypeVar("T")

# A look for a few slices costs nothing; for a thousand 3 ms of a core, 10 where it is short of time.
LOOK_AGAIN_S, LOOK_AGAIN_LATEST_S, LOOK_SHARE = 1.0, 3.0, 0.002
NO_EGRESS = Why("cap-egress-by-user")


class CgroupFs:
    """The driver of a delegated subtree at `root`."""

    name = "cgroupfs"

    def __init__(self, root: Path, changed: Pulse) -> None:
        self._root = root
        self._reading, self._steps = Lane(), Steps()
        # By slice, while something is written: reclaim may hold it up.
        self._writing: dict[str, Lane] = {}
        self._idle: list[Lane] = []  # to begin a thread for each of a thousand holds up the loop
        self.reloaded = changed
        self._known: frozenset[str] = frozenset()

    async def keep(self) -> Never:
        """Eternal: notice slices that come, go or come back."""
        now = asyncio.get_running_loop().time
        while True:
            began = now()
            try:
                seen = await look(self._reading, self._names)
            except DriverError:
                seen = frozenset()  # told by whoever applies
            if seen != self._known:
                self._known = seen
                self.reloaded.beat()
            often_s = min(LOOK_AGAIN_LATEST_S, (now() - began) / LOOK_SHARE)
            await asyncio.sleep(max(LOOK_AGAIN_S, often_s))

    def _names(self) -> frozenset[str]:
        return frozenset(_below(str(self._root)))

    def reach(self, addresses: Collection[str]) -> bool:
        return False  # it knows no addresses

    async def apply(
        self, slice: str, limits: Limits, fields: Collection[str] = EVERY
    ) -> tuple[Why, ...]:
        at = asyncio.get_running_loop().time()
        return await self._write(slice, lambda: self._apply(slice, limits, fields, at))

    def _apply(
        self, slice: str, limits: Limits, fields: Collection[str], at: float
    ) -> tuple[Why, ...]:
        group = self._group(slice)
        try:
            self._make(group)
            used = kernel.in_use(group)
            held = kernel.held(group)
            assert held is not None
            step = self._steps.next(slice, limits, used, held, at)
            now = kernel.only(step, fields, held)
            refused = _write_all(group, now, held)
        except OSError as error:
            raise DriverError(f"can't hold {slice}: {error}") from error
        told = (*short_of(limits, now, used), *refused)
        return (*told, NO_EGRESS) if limits.egress_closed else told

    def _group(self, slice: str) -> Path:
        return self._root / kernel.slice_path(slice)

    def _make(self, group: Path) -> None:
        """With the controllers that we were given; no process may be in a group above a slice."""
        if not group.is_dir():
            given = (self._root / "cgroup.controllers").read_text().split()
            path = self._root
            for part in group.relative_to(self._root).parts:
                for each in given:
                    if each in CONTROLLERS:
                        _write(path / "cgroup.subtree_control", f"+{each}")
                path /= part
                path.mkdir(exist_ok=True)

    async def held(self, slices: Collection[str]) -> Mapping[str, Limits]:
        return await look(self._reading, self._held, slices)

    def _held(self, slices: Collection[str]) -> Mapping[str, Limits]:
        found = ((name, kernel.held(self._group(name))) for name in slices)
        return {name: held for name, held in found if held is not None}

    async def by_itself(self, slice: str) -> Limits:
        return FREE  # nobody else makes it

    async def units(self, slice: str) -> tuple[str, ...]:
        """None: whoever keeps its processes starts them again."""
        return ()

    async def visited(self, slice: str) -> bool:
        return False  # sessions are systemd's

    async def kill(self, slice: str, units: Collection[str]) -> None:
        await self._write(slice, lambda: _write(self._group(slice) / "cgroup.kill", "1"))

    async def _write(self, slice: str, writing: Callable[[], T]) -> T:
        """One that hangs holds up no other slice's. Raises DriverError."""
        if (lane := self._writing.get(slice)) is None:
            lane = self._writing[slice] = self._idle.pop() if self._idle else Lane()
        try:
            return await look(lane, writing)
        finally:
            if not lane.hangs and self._writing.pop(slice, None) is lane:
                self._idle.append(lane)

    async def end_jobs(self, slice: str) -> tuple[str, ...]:
        """None: sessions are systemd's."""
        return ()

    async def start(self, units: Collection[str]) -> Mapping[str, str]:
        return {}


def _below(folder: str) -> Iterator[str]:
    """The names of slices in `folder`, and of those in these. Of a thousand each second: most are not even opened.

    A directory's links are its own two and one of each in it, where they are counted at all. Source: Linux kernfs,
    `kernfs_refresh_inode`; stat(2).
    """
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".slice") and entry.is_dir(follow_symlinks=False):
                yield entry.name
                with suppress(FileNotFoundError):  # it ends in this moment
                    if entry.stat().st_nlink != 2:
                        yield from _below(entry.path)


def _write_all(group: Path, now: Limits, held: Limits) -> tuple[Why, ...]:
    """Write what differs; give what this kernel has no file for."""
    missing = []
    for name, text in _lines(now, held):
        if (group / name).exists():
            _write(group / name, text)
        else:
            missing.append(name)
    if "io_weight" in kernel.unlike(now, held) and now.io_weight is not None:
        missing += _weigh(group, now.io_weight)
    return tuple(Why("cap-no-file", {"file": name}) for name in dict.fromkeys(missing))


def _weigh(group: Path, weight: int) -> list[str]:
    """By all that schedule I/O here; what is missing, if none does. What we hold, up to 100, means the same to each."""
    files = [group / name for name in kernel.IO_WEIGHTS if (group / name).exists()]
    for file in files:
        _write(file, f"default {weight}")
    return [] if files else ["io.weight"]


def _lines(now: Limits, held: Limits) -> list[tuple[str, str]]:
    changed = kernel.unlike(now, held)
    quota = "max" if now.cpu_quota_us is None else str(now.cpu_quota_us * PERIOD_US // S_US)
    texts = {
        "cpu_weight": ("cpu.weight", str(now.cpu_weight)),
        "cpu_quota_us": ("cpu.max", f"{quota} {PERIOD_US}"),
        "memory_low_bytes": ("memory.low", str(now.memory_low_bytes)),
        "memory_high_bytes": ("memory.high", _or_max(now.memory_high_bytes)),
        "memory_max_bytes": ("memory.max", _or_max(now.memory_max_bytes)),
        "swap_max_bytes": ("memory.swap.max", _or_max(now.swap_max_bytes)),
        "tasks_max": ("pids.max", _or_max(now.tasks_max)),
        "frozen": ("cgroup.freeze", str(int(now.frozen))),
    }
    lines = [text for field, text in texts.items() if field in changed]
    devices = (each for each in {*now.io, *held.io} if now.io.get(each) != held.io.get(each))
    return lines + [("io.max", f"{each} {_io_words(now.io.get(each))}") for each in sorted(devices)]


PERIOD_US = 100_000  # the kernel's default


def _or_max(value: int | None) -> str:
    return "max" if value is None else str(value)


def _io_words(limit: IoLimit | None) -> str:
    values = msgspec.structs.astuple(limit) if limit else [None] * len(kernel.IO_WORDS)
    words = zip(kernel.IO_WORDS, values, strict=True)
    return " ".join(f"{word}={_or_max(value)}" for word, value in words)


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
