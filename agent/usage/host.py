"""What the whole host suffers and does: stalls by PSI's totals, memory that is left, what its CPUs and disks do."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.signals import HostSigns
from agent.usage import kernel
from agent.usage.cgroup import Devices
from agent.usage.kernel import Io
from agent.usage.rates import rate, share

RESOURCES = ("cpu", "memory", "io")
TICKS_PER_S = float(os.sysconf("SC_CLK_TCK"))


class Look(msgspec.Struct, frozen=True):
    """What the kernel tells at one moment. Stalls are totals in µs; `disks` are whole ones, by "major:minor"."""

    at: float
    cpu_wait_us: int | None = None  # some
    memory_wait_us: int | None = None  # full
    io_wait_us: int | None = None  # full
    forks: int | None = None
    busy_ticks: int | None = None
    disks: Mapping[str, Io] | None = None
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    swap_total_bytes: int = 0
    cores: float = 1.0


def between(before: Look | None, after: Look) -> HostSigns:
    """The host's signs over the time between two looks; after the first there are no stalls yet."""
    was = before or Look(after.at)
    passed_s = after.at - was.at
    busy = rate(was.busy_ticks, after.busy_ticks, passed_s)
    io_bytes, io_ops = moved(was.disks, after.disks, passed_s)
    return HostSigns(
        cores=after.cores,
        memory_total_bytes=after.memory_total_bytes,
        memory_available_bytes=after.memory_available_bytes,
        has_swap=after.swap_total_bytes > 0,
        cpu_stall=share(was.cpu_wait_us, after.cpu_wait_us, passed_s),
        memory_stall=share(was.memory_wait_us, after.memory_wait_us, passed_s),
        io_stall=share(was.io_wait_us, after.io_wait_us, passed_s),
        busy_cores=None if busy is None else busy / TICKS_PER_S,
        io_bytes_per_s=io_bytes,
        io_ops_per_s=io_ops,
        forks_per_s=rate(was.forks, after.forks, passed_s),
    )


def moved(
    before: Mapping[str, Io] | None, after: Mapping[str, Io] | None, passed_s: float
) -> tuple[float | None, float | None]:
    """Bytes and requests per second of all disks; None unless both looks saw the same ones, and no count fell."""
    if not before or not after or before.keys() != after.keys():
        return None, None

    def total(*names: str) -> float | None:
        rates = [
            rate(getattr(before[disk], name), getattr(after[disk], name), passed_s)
            for disk in after
            for name in names
        ]
        known = [one for one in rates if one is not None]
        return sum(known) if len(known) == len(rates) else None

    return total("read_bytes", "write_bytes"), total("read_ops", "write_ops")


class Host:
    """Looks at the host, or at the cgroup `parent` of all sites where stalls of the system's own don't matter."""

    def __init__(
        self, proc: Path = Path("/proc"), parent: Path | None = None, devices: Devices | None = None
    ) -> None:
        self._proc, self._devices = proc, devices or Devices()
        folder, name = (parent, "{}.pressure") if parent else (proc / "pressure", "{}")
        self._pressure = {resource: folder / name.format(resource) for resource in RESOURCES}

    def look(self, at: float) -> Look:
        memory = parse_meminfo(_text(self._proc / "meminfo"))
        stalls = {resource: _text(path) for resource, path in self._pressure.items()}
        stat = _text(self._proc / "stat")
        return Look(
            at=at,
            cpu_wait_us=kernel.some(stalls["cpu"]),
            memory_wait_us=kernel.full(stalls["memory"]),
            io_wait_us=kernel.full(stalls["io"]),
            forks=kernel.value(stat, b"\nprocesses "),
            busy_ticks=kernel.busy_ticks(stat),
            disks=kernel.disks(_text(self._proc / "diskstats"), self._devices.whole),
            memory_total_bytes=memory.get("MemTotal", 0),
            memory_available_bytes=memory.get("MemAvailable", 0),
            swap_total_bytes=memory.get("SwapTotal", 0),
            cores=float(os.cpu_count() or 1),
        )


def parse_meminfo(data: bytes | None) -> Mapping[str, int]:
    """`/proc/meminfo` in bytes; lines of another shape are left out."""
    found = {}
    for line in (data or b"").decode("ascii", "replace").splitlines():
        name, _, rest = line.partition(":")
        number, *unit = rest.split() or [""]
        if number.isdigit():
            found[name] = int(number) * (1024 if unit == ["kB"] else 1)
    return found


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
