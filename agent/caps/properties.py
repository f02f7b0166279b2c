"""Limits in the words of systemd, both ways: what is set of a slice, and what one that is not there will hold. Pure.

Source: org.freedesktop.systemd1(5), "Slice Unit Objects"; systemd.resource-control(5).
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6

from dbus_fast import Variant
from msgspec.structs import replace

from agent.caps.limits import FREE, PAGE_BYTES
from fleet.caps import IoLimit, Limits

INFINITY = 2**64 - 1
NUMBERS = {
    "cpu_weight": "CPUWeight",
    "cpu_quota_us": "CPUQuotaPerSecUSec",
    "memory_max_bytes": "MemoryMax",
    "memory_high_bytes": "MemoryHigh",
    "memory_low_bytes": "MemoryLow",
    "swap_max_bytes": "MemorySwapMax",
    "tasks_max": "TasksMax",
}
# As the kernel rounds them down: to pages, and to microseconds of a tenth of a second.
ROUNDED = {
    "cpu_quota_us": 10,
    "memory_max_bytes": PAGE_BYTES,
    "memory_high_bytes": PAGE_BYTES,
    "memory_low_bytes": PAGE_BYTES,
    "swap_max_bytes": PAGE_BYTES,
}
# Of a disk.
IO = {
    "read_bytes_per_s": "IOReadBandwidthMax",
    "write_bytes_per_s": "IOWriteBandwidthMax",
    "read_ops_per_s": "IOReadIOPSMax",
    "write_ops_per_s": "IOWriteIOPSMax",
}
# By number: a disk's name may be another one after the next boot.
BLOCK = "/dev/block/"
NONE = dict.fromkeys(IO, INFINITY)
EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
LOCAL = ("127.0.0.0/8", "::1")

Property = tuple[str, Variant]
Networks = tuple[IPv4Network | IPv6Network, ...]


def of(
    limits: Limits, held: Limits | None, fields: Collection[str], reachable: Networks
) -> Iterator[Property]:
    """To set these `fields`. Arrays grow when they are set: each is emptied first, one by one."""
    for field, property in NUMBERS.items():
        if field in fields:
            value = getattr(limits, field)
            yield property, Variant("t", INFINITY if value is None else value)
    if "io_weight" in fields and limits.io_weight is not None:
        yield "IOWeight", Variant("t", limits.io_weight)
    if "io" in fields:
        devices = sorted({*limits.io, *(held.io if held else ())})
        for field, property in IO.items():
            values = (getattr(limits.io.get(each), field, INFINITY) for each in devices)
            array = [[f"{BLOCK}{d}", value] for d, value in zip(devices, values, strict=True)]
            yield property, Variant("a(st)", [])
            if array:
                yield property, Variant("a(st)", array)
    if "egress_closed" in fields:
        yield "IPAddressAllow", Variant("a(iayu)", [])
        yield "IPAddressDeny", Variant("a(iayu)", [])
        if limits.egress_closed:
            yield "IPAddressAllow", Variant("a(iayu)", [*map(_network, reachable)])
            yield "IPAddressDeny", Variant("a(iayu)", [*map(_network, EVERYWHERE)])


def networks(addresses: Collection[str]) -> Networks:
    """This machine, and they."""
    return tuple(map(ip_network, dict.fromkeys((*LOCAL, *addresses))))


def _network(network: IPv4Network | IPv6Network) -> list[object]:
    family = AF_INET if network.version == 4 else AF_INET6
    return [int(family), network.network_address.packed, network.prefixlen]


def told(properties: Mapping[str, object]) -> Limits:
    """From all properties of a slice; what is not among them, or not set, is the kernel's default.

    Of disks those that are named by number: other names are the host's, and are not to be seen from everywhere.
    """
    found = {field: properties.get(name) for field, name in NUMBERS.items()}
    numbers = {f: n for f, n in found.items() if isinstance(n, int) and n != INFINITY}
    weight = properties.get("IOWeight")
    return replace(
        FREE,
        **{
            field: n // ROUNDED.get(field, 1) * ROUNDED.get(field, 1)
            for field, n in numbers.items()
        },
        io=_disks({field: properties.get(name) for field, name in IO.items()}),
        io_weight=weight if isinstance(weight, int) and weight != INFINITY else None,
    )


def _disks(arrays: Mapping[str, object]) -> dict[str, IoLimit]:
    found: dict[str, dict[str, int]] = {}
    for field, array in arrays.items():
        for path, value in array if isinstance(array, Iterable) else ():
            if path.startswith(BLOCK):
                found.setdefault(path.removeprefix(BLOCK), {**NONE})[field] = value
    return {device: IoLimit(**limits) for device, limits in found.items() if limits != NONE}
