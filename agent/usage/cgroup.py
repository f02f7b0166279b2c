"""One cgroup's files, held open: `pread` on a held descriptor costs a sixth of opening the file each time."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from agent.usage import kernel
from agent.usage.kernel import Brief, Full, Io
from agent.usage.refused import Refused

BRIEF = (
    "cpu.stat",
    "memory.current",
    "pids.current",
    "cpu.pressure",
    "memory.pressure",
    "io.pressure",
    "memory.events",
    "pids.events",
)
FULL = ("memory.stat", "memory.swap.current", "io.stat")
# memory.stat has some 60 lines, io.stat one for each device: both fit, or the rest is of no interest.
READ_BYTES = 8192
# What the kernel answers for a descriptor of a cgroup that was removed, and for a name that is not there.
GONE = (errno.ENODEV, errno.ENOENT)
FORGET_S = 60.0

T = TypeVar("T")


class Vanished(Exception):
    """The cgroup is not there (any more)."""


class Budget:
    """How many descriptors may be held: the process needs some for everything else."""

    def __init__(self, limit: int) -> None:
        self.left = limit


class Devices:
    """Which block devices are physical: what dm, md or a loop passes on is counted again by the device below it."""

    def __init__(self, sys: Path = Path("/sys")) -> None:
        self._blocks = sys / "dev/block"
        self._known: dict[str, bool] = {}
        self._whole: dict[str, bool] = {}
        self._forget_at = float("-inf")

    def forget_at(self, now: float) -> None:
        """Volumes come and go: what is known is forgotten each FORGET_S."""
        if now >= self._forget_at:
            self._known.clear()
            self._whole.clear()
            self._forget_at = now + FORGET_S

    def physical(self, device: str) -> bool:
        """Whether nothing lies under "major:minor", which is no memory either; True where nobody tells."""
        if (known := self._known.get(device)) is None:
            place = self._blocks / device
            try:
                known = not (
                    os.listdir(place / "slaves") or kernel.is_no_disk(place.resolve().name)
                )
            except OSError:
                known = True
            self._known[device] = known
        return known

    def whole(self, device: str) -> bool:
        """Whether "major:minor" is a disk by itself: no part of one, nothing built on others, and shown by sysfs."""
        if (known := self._whole.get(device)) is None:
            place = self._blocks / device
            known = place.is_dir() and not (place / "partition").exists() and self.physical(device)
            self._whole[device] = known
        return known


class Last(Generic[T]):
    """What one file was last taken apart into: of most sites it says what it said before."""

    __slots__ = ("_data", "_parse", "_told")

    def __init__(self, parse: Callable[[bytes | None], T]) -> None:
        self._parse = parse
        self._data: bytes | None = None
        self._told = parse(None)

    def of(self, data: bytes | None) -> T:
        if data != self._data:
            self._data, self._told = data, self._parse(data)
        return self._told


class Cgroup:
    """One directory. Files that its kernel or its controllers don't have are looked for again at `again`."""

    def __init__(self, path: Path, budget: Budget, devices: Devices) -> None:
        self.path = path
        self._budget, self._devices = budget, devices
        self._held: dict[str, int] = {}
        self._absent: set[str] = set()
        self._cpu_stat = Last(kernel.cpu)
        self._memory_events = Last(kernel.memory_events)
        self._memory_stat = Last(kernel.memory)
        self._io_stat = Last(self._disks)
        self._refused = Refused(path)

    def brief(self, at: float) -> Brief:
        """What is read often. Raises Vanished."""
        cpu_us, throttled_us, throttled_periods = self._cpu()
        tasks = kernel.size(self._read("pids.current"))
        refused = kernel.tasks_refused(self._read("pids.events"))
        return Brief(
            at,
            cpu_us,
            throttled_us,
            kernel.size(self._read("memory.current")),
            tasks,
            kernel.some(self._read("cpu.pressure")),
            kernel.full(self._read("memory.pressure")),
            kernel.full(self._read("io.pressure")),
            self._refused.total(refused, at=at, tasks=tasks, cpu_us=cpu_us),
            *self._memory_events.of(self._read("memory.events")),
            throttled_periods,
        )

    def second(self, at: float) -> tuple[Brief, Full]:
        """What is read each second of a few: CPU, memory, tasks and I/O. Raises Vanished."""
        cpu_us = self._cpu()[0]
        memory_bytes = kernel.size(self._read("memory.current"))
        tasks = kernel.size(self._read("pids.current"))
        io = self._io_stat.of(self._read("io.stat"))
        return Brief(at, cpu_us=cpu_us, memory_bytes=memory_bytes, tasks=tasks), Full(at=at, io=io)

    def glance(self) -> int | None:
        """The CPU time it has used, in µs: whether it does anything at all. Raises Vanished."""
        return self._cpu()[0]

    def full(self, at: float) -> Full:
        """What is read seldom. Raises Vanished."""
        anon_bytes, file_bytes, scanned, stolen = self._memory_stat.of(self._read("memory.stat"))
        return Full(
            at=at,
            anon_bytes=anon_bytes,
            file_bytes=file_bytes,
            scanned=scanned,
            stolen=stolen,
            swap_bytes=kernel.size(self._read("memory.swap.current")),
            io=self._io_stat.of(self._read("io.stat")),
        )

    def again(self) -> None:
        """Look anew for files that were not there: a controller may have been switched on."""
        self._absent.clear()

    def close(self) -> None:
        for held in self._held.values():
            os.close(held)
        self._budget.left += len(self._held)
        self._held.clear()
        self._absent.clear()  # what comes back has its files
        self._refused.forget()

    def _cpu(self) -> tuple[int | None, int | None, int | None]:
        # Each living cgroup has this file, with or without the controller: it tells whether there is one at all.
        if not (data := self._read("cpu.stat")):
            raise Vanished(f"{self.path} is not there")
        return self._cpu_stat.of(data)

    def _disks(self, data: bytes | None) -> dict[str, Io] | None:
        return kernel.io(data, self._devices.physical)

    def _read(self, name: str) -> bytes | None:
        """None: the file is not there, or tells nothing (PSI switched off). Raises Vanished."""
        if (held := self._held.get(name)) is None:
            if name in self._absent:
                return None
            return self._open(name)
        try:
            return os.pread(held, READ_BYTES, 0)
        except OSError as error:
            if error.errno in GONE:
                raise Vanished(f"{self.path} is not there") from error
            return None

    def _open(self, name: str) -> bytes | None:
        try:
            opened = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EMFILE:
                self._budget.left = 0  # somebody else needs more than was thought
            else:
                self._absent.add(name)
            return None
        data = None
        with suppress(OSError):
            data = os.pread(opened, READ_BYTES, 0)
        if data is not None and self._budget.left > 0:
            self._budget.left -= 1
            self._held[name] = opened
        else:
            os.close(opened)
        return data
