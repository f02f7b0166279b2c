"""Two readings become what a site did between them.

A counter that fell is a restart: nobody knows what was before it, so there is no rate, and never a negative one. What
is not told is None. A site of several cgroups is their sum, as far as each of them tells, and so is what it does on
several disks: but for a mirror, that is what it moves.
"""

from collections.abc import Sequence
from functools import reduce

import msgspec

from agent.signals import DiskSigns, SiteSigns
from agent.usage.kernel import Brief, Full, Io
from fleet.caps import Attachment
from fleet.messages import HAPPENINGS

# Two readings closer than this (a round after a late one) say nothing about a rate.
SHORTEST_S = 0.05


def rate(before: int | None, after: int | None, passed_s: float) -> float | None:
    """Per second; None if either is not known, or if the counter fell."""
    if before is None or after is None or after < before or passed_s < SHORTEST_S:
        return None
    return (after - before) / passed_s


def share(before_us: int | None, after_us: int | None, passed_s: float) -> float | None:
    """Which part of the time passed a total of µs grew by, 0..1."""
    found = rate(before_us, after_us, passed_s)
    return None if found is None else min(1.0, found / 1e6)


def events(before: int | None, after: int | None) -> int:
    """How many more there are; after a restart, those since then. At first sight none: they are of another time."""
    if before is None or after is None:
        return 0
    return after if after < before else after - before


def brief(before: Brief | None, after: Brief, attachment: Attachment) -> SiteSigns:
    """What is looked at often. Without an earlier reading there are sizes and no rates."""
    was = before or Brief(after.at)
    passed_s = after.at - was.at
    used = rate(was.cpu_us, after.cpu_us, passed_s)
    throttled = share(was.throttled_us, after.throttled_us, passed_s)
    waited = share(was.cpu_wait_us, after.cpu_wait_us, passed_s)
    return SiteSigns(
        attachment=attachment,
        every_s=passed_s,
        cpu_cores=None if used is None else used / 1e6,
        throttled_ratio=throttled,
        cpu_stall=None if waited is None else max(0.0, waited - (throttled or 0.0)),
        memory_bytes=after.memory_bytes,
        memory_stall=share(was.memory_wait_us, after.memory_wait_us, passed_s),
        io_stall=share(was.io_wait_us, after.io_wait_us, passed_s),
        tasks=after.tasks,
        tasks_refused=events(was.tasks_refused, after.tasks_refused),
        memory_high_hits=events(was.memory_high_hits, after.memory_high_hits),
        memory_max_hits=events(was.memory_max_hits, after.memory_max_hits),
        oom_hits=events(was.oom_hits, after.oom_hits),
        oom_kills=events(was.oom_kills, after.oom_kills),
        throttled_periods=events(was.throttled_periods, after.throttled_periods),
    )


def full(before: Full | None, after: Full, signs: SiteSigns) -> SiteSigns:
    """`signs`, and beside them what is looked at seldom."""
    was = before or Full(after.at)
    passed_s = after.at - was.at
    disks = io(was.io, after.io, passed_s)
    return msgspec.structs.replace(
        signs,
        anon_bytes=after.anon_bytes,
        file_bytes=after.file_bytes,
        swap_bytes=after.swap_bytes,
        scanned_per_s=rate(was.scanned, after.scanned, passed_s),
        stolen_per_s=rate(was.stolen, after.stolen, passed_s),
        disks=disks or {},
        **{name: _sum(disks, name) for name in ON_DISK},
    )


ON_DISK = DiskSigns.__struct_fields__
AT_REST = DiskSigns(**dict.fromkeys(ON_DISK, 0.0))


def io(
    before: dict[str, Io] | None, after: dict[str, Io] | None, passed_s: float
) -> dict[str, DiskSigns] | None:
    """Rates by device. A device seen first began at nothing.

    A site's line appears with its first request to a device, so what it says was done since the last reading.
    """
    if before is None or after is None or passed_s < SHORTEST_S:
        return None
    if after is before:  # the file said the same again
        return dict.fromkeys(after, AT_REST)
    found: dict[str, DiskSigns] = {}
    for device, now in after.items():
        was = before.get(device, Io())
        read = rate(was.read_bytes, now.read_bytes, passed_s)
        written = rate(was.write_bytes, now.write_bytes, passed_s)
        reads = rate(was.read_ops, now.read_ops, passed_s)
        writes = rate(was.write_ops, now.write_ops, passed_s)
        if read is None or written is None or reads is None or writes is None:
            return None
        found[device] = DiskSigns(
            read_bytes_per_s=read,
            write_bytes_per_s=written,
            read_ops_per_s=reads,
            write_ops_per_s=writes,
        )
    return found


def _sum(disks: dict[str, DiskSigns] | None, which: str) -> float | None:
    return None if disks is None else sum(getattr(disk, which) for disk in disks.values())


EVENTS = (*HAPPENINGS, "workers_short")
# A stall is a share of the time: two of them don't add up, the worse one counts.
WORST = ("every_s", "throttled_ratio", "cpu_stall", "memory_stall", "io_stall")
SUMS = (
    "cpu_cores",
    "memory_bytes",
    "anon_bytes",
    "file_bytes",
    "swap_bytes",
    "scanned_per_s",
    "stolen_per_s",
    "read_bytes_per_s",
    "write_bytes_per_s",
    "read_ops_per_s",
    "write_ops_per_s",
    "tasks",
    *EVENTS,
)


def together(parts: Sequence[SiteSigns]) -> SiteSigns:
    """One site of several cgroups. What one of them does not tell is not told of the whole. Raises on an empty one."""
    return parts[0] if len(parts) == 1 else reduce(_both, parts)


def _both(one: SiteSigns, other: SiteSigns) -> SiteSigns:
    changes: dict[str, float | dict[str, DiskSigns] | None] = {}
    for name in SUMS:
        a, b = getattr(one, name), getattr(other, name)
        changes[name] = None if a is None or b is None else a + b
    for name in WORST:
        told = [x for x in (getattr(one, name), getattr(other, name)) if x is not None]
        changes[name] = max(told, default=None)
    changes["disks"] = _added(one.disks, other.disks)
    return msgspec.structs.replace(one, **changes)


def _added(one: dict[str, DiskSigns], other: dict[str, DiskSigns]) -> dict[str, DiskSigns]:
    """Parts of a site on the same disk do together what one would."""
    return {
        device: _same_disk(one[device], other[device])
        if device in one and device in other
        else one.get(device) or other[device]
        for device in (*one, *other)
    }


def _same_disk(one: DiskSigns, other: DiskSigns) -> DiskSigns:
    return DiskSigns(**{name: getattr(one, name) + getattr(other, name) for name in ON_DISK})


SELDOM = (
    "anon_bytes",
    "file_bytes",
    "swap_bytes",
    "scanned_per_s",
    "stolen_per_s",
    "read_bytes_per_s",
    "write_bytes_per_s",
    "read_ops_per_s",
    "write_ops_per_s",
    "disks",
)


def carried(before: SiteSigns, signs: SiteSigns) -> SiteSigns:
    """`signs` of a brief look, with what an earlier full one said."""
    told = {name: getattr(before, name) for name in SELDOM}
    return msgspec.structs.replace(signs, **told)


def quiet(signs: SiteSigns) -> SiteSigns:
    """The same said again: sizes and rates stand until the next look, events were told already."""
    if any(getattr(signs, name) for name in EVENTS):
        return msgspec.structs.replace(signs, **dict.fromkeys(EVENTS, 0))
    return signs
