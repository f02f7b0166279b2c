"""What systemd would hold of a slice that is not there: its own files say so, which no kernel's do yet. Pure.

Source: org.freedesktop.systemd1(5), "Slice Unit Objects"; systemd.resource-control(5).
"""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from agent.caps.limits import FREE
from fleet.caps import IoLimit, Limits

INFINITY = 2**64 - 1
BLOCK = "/dev/block/"
# Of a limit of ours and of the property that tells it.
NUMBERS = {
    "cpu_weight": "CPUWeight",
    "cpu_quota_us": "CPUQuotaPerSecUSec",
    "memory_max_bytes": "MemoryMax",
    "memory_high_bytes": "MemoryHigh",
    "memory_low_bytes": "MemoryLow",
    "swap_max_bytes": "MemorySwapMax",
    "tasks_max": "TasksMax",
}
IO = {
    "read_bytes_per_s": "IOReadBandwidthMax",
    "write_bytes_per_s": "IOWriteBandwidthMax",
    "read_ops_per_s": "IOReadIOPSMax",
    "write_ops_per_s": "IOWriteIOPSMax",
}


def told(properties: Mapping[str, object]) -> Limits:
    """From all properties of a slice; what is not among them, or not set, is the kernel's default.

    Of disks those that are named by number: other names are the host's, and are not to be seen from everywhere.
    """
    numbers = {field: properties.get(name) for field, name in NUMBERS.items()}
    weight = properties.get("IOWeight")
    return replace(
        FREE,
        **{field: n for field, n in numbers.items() if isinstance(n, int) and n != INFINITY},
        io=_disks({field: properties.get(name) for field, name in IO.items()}),
        io_weight=weight if isinstance(weight, int) and weight != INFINITY else None,
    )


def _disks(arrays: Mapping[str, object]) -> dict[str, IoLimit]:
    none = dict.fromkeys(IO, INFINITY)
    found: dict[str, dict[str, int]] = {}
    for field, array in arrays.items():
        for path, value in array if isinstance(array, Iterable) else ():
            if path.startswith(BLOCK):
                found.setdefault(path.removeprefix(BLOCK), {**none})[field] = value
    return {device: IoLimit(**limits) for device, limits in found.items() if limits != none}
