"""A host's load: two looks at the kernel's counters become rates; a counter that fell gives no rate at all."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import psutil

from fleet.messages import DISKS_MAX, LOAD_MAX, RATE_MAX, Disk, Load, Pressure
from fleet.model import NAMED
from metrics.exporter import Exporter
from runtime import log

# PSI's averages change every 2 s; a beat repeats the last look.
SAMPLE_S = 2.0

_log = log.logger("load")


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskCounters:
    read_bytes: int
    write_bytes: int
    busy_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the kernel counts and says at one moment. CPU times in s over all CPUs; links: bytes in, bytes out."""

    at: float
    cpu_total_s: float = 0.0
    cpu_idle_s: float = 0.0
    links: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    disks: Mapping[str, DiskCounters] = field(default_factory=dict)
    load_1min: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    swap_used_bytes: int = 0
    pressure: Pressure | None = None


def between(before: Look, after: Look) -> Load:
    """The load over the time between two looks. What wrapped, restarted or is new counts as nothing."""
    passed_s = max(after.at - before.at, 1e-3)
    total_s = after.cpu_total_s - before.cpu_total_s
    idle_s = after.cpu_idle_s - before.cpu_idle_s
    sums = [0.0, 0.0]
    for name, counted in after.links.items():
        for way, was in enumerate(before.links.get(name, counted)):
            sums[way] += rate(was, counted[way], passed_s)
    return Load(
        cpu_ratio=min(1.0, max(0.0, 1 - idle_s / total_s)) if total_s > 0 else 0.0,
        load_1min=min(after.load_1min, LOAD_MAX),
        memory_total_bytes=max(0, after.memory_total_bytes),
        memory_available_bytes=max(0, after.memory_available_bytes),
        swap_used_bytes=max(0, after.swap_used_bytes),
        receive_bytes_per_s=min(sums[0], RATE_MAX),
        transmit_bytes_per_s=min(sums[1], RATE_MAX),
        disks={
            name: disk_between(before.disks.get(name, counted), counted, passed_s)
            for name, counted in islice(sorted(after.disks.items()), DISKS_MAX)
        },
        pressure=after.pressure,
    )


def disk_between(before: DiskCounters, after: DiskCounters, passed_s: float) -> Disk:
    return Disk(
        read_bytes_per_s=rate(before.read_bytes, after.read_bytes, passed_s),
        write_bytes_per_s=rate(before.write_bytes, after.write_bytes, passed_s),
        busy_ratio=min(1.0, rate(before.busy_ms, after.busy_ms, passed_s) / 1000),
    )


def rate(before: int, after: int, passed_s: float) -> float:
    """Per second; 0 for a counter that fell: it restarted or wrapped, and nobody knows by how much."""
    return min(max(0, after - before) / passed_s, RATE_MAX)


def parse_pressure(text: str) -> float:
    """The share of the last 10 s in which some task was stalled, 0..1. Raises ValueError.

    Source: kernel, Documentation/accounting/psi.rst.
    """
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind == "some":
            values = dict(field.split("=", 1) for field in fields)
            return min(max(0.0, float(values["avg10"]) / 100), 1.0)
    raise ValueError(f"no 'some' line in {text[:80]!r}")


def look(at: float, proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Look:
    """Look at the kernel's counters now: under half a millisecond. Raises OSError."""
    cpu, memory = psutil.cpu_times(), psutil.virtual_memory()
    # Linux counts guests' time also as user time.
    total_s = sum(cpu) - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0)
    return Look(
        at=at,
        cpu_total_s=total_s,
        cpu_idle_s=cpu.idle + getattr(cpu, "iowait", 0.0),
        links=_links(sys),
        disks=_disks(sys),
        load_1min=os.getloadavg()[0],
        memory_total_bytes=memory.total,
        memory_available_bytes=memory.available,
        swap_used_bytes=psutil.swap_memory().used,
        pressure=pressure(proc),
    )


def pressure(proc: Path) -> Pressure | None:
    """PSI of the whole machine; None where the kernel does not tell it."""
    try:
        cpu, memory, io = (
            parse_pressure((proc / "pressure" / name).read_text())
            for name in ("cpu", "memory", "io")
        )
    except (OSError, ValueError, KeyError):
        return None
    return Pressure(cpu=cpu, memory=memory, io=io)


def _links(sys: Path) -> dict[str, tuple[int, int]]:
    """Bytes of the physical links: bridges and bonds would count them twice. Where there are none, all but loopback."""
    links = {
        name: (count.bytes_recv, count.bytes_sent)
        for name, count in psutil.net_io_counters(pernic=True).items()
        if name != "lo"
    }
    physical = {
        name: count
        for name, count in links.items()
        if (sys / "class/net" / name / "device").exists()
    }
    return physical or links


def _disks(sys: Path) -> dict[str, DiskCounters]:
    """The physical disks: neither their partitions nor what is built on them."""
    try:
        counters = psutil.disk_io_counters(perdisk=True)
    except NotImplementedError:  # no /proc/diskstats in this container
        return {}
    return {
        name: DiskCounters(
            read_bytes=count.read_bytes,
            write_bytes=count.write_bytes,
            busy_ms=getattr(count, "busy_time", 0),
        )
        for name, count in counters.items()
        if NAMED.match(name) and (sys / "block" / name / "device").exists()
    }


class LoadSense:
    """The load as last sampled; looks again when that is SAMPLE_S old."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._before: Look | None = None
        self._load = Load(
            cpu_ratio=0.0,
            load_1min=0.0,
            memory_total_bytes=0,
            memory_available_bytes=0,
            swap_used_bytes=0,
            receive_bytes_per_s=0.0,
            transmit_bytes_per_s=0.0,
        )
        self._failing = False

    def load(self, now: float) -> Load:
        if self._before is not None and now - self._before.at < SAMPLE_S:
            return self._load
        try:
            after = look(now)
        except OSError as error:
            if not self._failing:
                _log.warning("can't see the load: the last one is repeated", error=str(error))
            self._failing = True
            return self._load
        self._failing = False
        self._load = between(self._before or after, after)
        self._before = after
        _measure(self._exporter, self._load)
        return self._load


def _measure(exporter: Exporter, load: Load) -> None:
    put = exporter.set
    put("relevo_host_cpu_ratio", load.cpu_ratio)
    put("relevo_host_load1", load.load_1min)
    put("relevo_host_memory_total_bytes", load.memory_total_bytes)
    put("relevo_host_memory_available_bytes", load.memory_available_bytes)
    put("relevo_host_swap_used_bytes", load.swap_used_bytes)
    put("relevo_host_network_bytes_per_second", load.receive_bytes_per_s, direction="receive")
    put("relevo_host_network_bytes_per_second", load.transmit_bytes_per_s, direction="transmit")
    if load.pressure:
        put("relevo_host_pressure_ratio", load.pressure.cpu, resource="cpu")
        put("relevo_host_pressure_ratio", load.pressure.memory, resource="memory")
        put("relevo_host_pressure_ratio", load.pressure.io, resource="io")
    for device, disk in load.disks.items():
        bytes_per_s = "relevo_host_disk_bytes_per_second"
        put(bytes_per_s, disk.read_bytes_per_s, device=device, direction="read")
        put(bytes_per_s, disk.write_bytes_per_s, device=device, direction="write")
        put("relevo_host_disk_busy_ratio", disk.busy_ratio, device=device)
