"""What the whole host suffers: stalls by PSI's totals, memory that is left, how fast processes are born."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from agent.signals import HostSigns
from agent.usage import kernel
from agent.usage.rates import rate, share

RESOURCES = ("cpu", "memory", "io")


class Look(msgspec.Struct, frozen=True):
    """What the kernel tells at one moment. Stalls are totals in µs."""

    at: float
    cpu_wait_us: int | None = None  # some
    memory_wait_us: int | None = None  # full
    io_wait_us: int | None = None  # full
    forks: int | None = None
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    swap_total_bytes: int = 0
    cores: float = 1.0


def between(before: Look | None, after: Look) -> HostSigns:
    """The host's signs over the time between two looks; after the first there are no stalls yet."""
    was = before or Look(after.at)
    passed_s = after.at - was.at
    return HostSigns(
        cores=after.cores,
        memory_total_bytes=after.memory_total_bytes,
        memory_available_bytes=after.memory_available_bytes,
        has_swap=after.swap_total_bytes > 0,
        cpu_stall=share(was.cpu_wait_us, after.cpu_wait_us, passed_s),
        memory_stall=share(was.memory_wait_us, after.memory_wait_us, passed_s),
        io_stall=share(was.io_wait_us, after.io_wait_us, passed_s),
        forks_per_s=rate(was.forks, after.forks, passed_s),
    )


class Host:
    """Looks at the host, or at the cgroup `parent` of all sites where stalls of the system's own don't matter."""

    def __init__(self, proc: Path = Path("/proc"), parent: Path | None = None) -> None:
        self._proc = proc
        folder, name = (parent, "{}.pressure") if parent else (proc / "pressure", "{}")
        self._pressure = {resource: folder / name.format(resource) for resource in RESOURCES}

    def look(self, at: float) -> Look:
        memory = parse_meminfo(_text(self._proc / "meminfo"))
        stalls = {resource: _text(path) for resource, path in self._pressure.items()}
        return Look(
            at=at,
            cpu_wait_us=kernel.some(stalls["cpu"]),
            memory_wait_us=kernel.full(stalls["memory"]),
            io_wait_us=kernel.full(stalls["io"]),
            forks=kernel.value(_text(self._proc / "stat"), b"\nprocesses "),
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
