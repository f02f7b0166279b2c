"""A site's use against a plan, its own or any other: what would have held it on this host. Pure."""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

from agent.caps.limits import S_US, Case, HostFacts, limits
from agent.signals import SiteSigns
from fleet.caps import Resource
from fleet.model import Caps, PlanId

# A quota is enforced in slices of 100 ms, and readings are 2 s apart: what is held at its cap reads a little below.
AT_CAP_RATIO = 0.95
# Each disk is held by itself, and all alike: which they are is not asked.
DISK = "any"
KEPT = 4096  # 20 µs each: a thousand sites with caps of their own are reckoned once, not each ten seconds


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """The use from which on a site counts as held, by field of SiteSigns; infinite where nothing would hold it."""

    cpu_cores: float
    memory_bytes: float
    tasks: float
    read_bytes_per_s: float
    write_bytes_per_s: float
    read_ops_per_s: float
    write_ops_per_s: float


@lru_cache(KEPT)
def marks(caps: Caps, cores: float, *, has_swap: bool) -> Marks:
    """Of what the kernel of such a host holds for `caps`: not all that a plan says fits every host."""
    facts = HostFacts(cores=cores, has_swap=has_swap, devices=(DISK,))
    held = limits(Case(caps=caps, facts=facts)).limits
    quota_us, disk = held.cpu_quota_us, held.io[DISK]
    high_bytes = held.memory_high_bytes  # what is over it waits for pages to be swapped out
    return Marks(
        cpu_cores=_mark(None if quota_us is None else quota_us / S_US),
        memory_bytes=_mark(held.memory_max_bytes if high_bytes is None else high_bytes),
        tasks=_mark(held.tasks_max),
        read_bytes_per_s=_mark(disk.read_bytes_per_s),
        write_bytes_per_s=_mark(disk.write_bytes_per_s),
        read_ops_per_s=_mark(disk.read_ops_per_s),
        write_ops_per_s=_mark(disk.write_ops_per_s),
    )


def _mark(limit: float | None) -> float:
    return math.inf if limit is None else AT_CAP_RATIO * limit


def at_cap(signs: SiteSigns, mark: Marks) -> frozenset[Resource]:
    """Of which resources it uses all that it would get, as far as it can be seen.

    Memory is what is its own (anon), where that is told: the page cache fills whatever there is and hurts nobody. Of
    several disks each is held by itself.
    """
    memory = signs.memory_bytes if signs.anon_bytes is None else signs.anon_bytes
    used = (
        (Resource.CPU, signs.cpu_cores, mark.cpu_cores),
        (Resource.MEMORY, memory, mark.memory_bytes),
        (Resource.TASKS, signs.tasks, mark.tasks),
        (Resource.IO, signs.on_busiest_disk("read_bytes_per_s"), mark.read_bytes_per_s),
        (Resource.IO, signs.on_busiest_disk("write_bytes_per_s"), mark.write_bytes_per_s),
        (Resource.IO, signs.on_busiest_disk("read_ops_per_s"), mark.read_ops_per_s),
        (Resource.IO, signs.on_busiest_disk("write_ops_per_s"), mark.write_ops_per_s),
    )
    return frozenset(resource for resource, use, begin in used if use is not None and use >= begin)


def least(plans: Iterable[Marks]) -> Marks | None:
    """The smallest of each mark: who reaches none of these reaches no plan's."""
    every = tuple(plans)
    if not every:
        return None
    names = Marks.__struct_fields__
    return Marks(**{name: min(getattr(mark, name) for mark in every) for name in names})


def plans_reached(
    signs: SiteSigns, plans: Mapping[PlanId, Marks], smallest: Marks | None
) -> tuple[PlanId, ...]:
    """The plans that would hold it at this use. `smallest`: of all plans, as `least` gives it."""
    if smallest is None or not at_cap(signs, smallest):
        return ()
    return tuple(plan for plan, mark in plans.items() if at_cap(signs, mark))


def weighted(values: list[tuple[float, float]], ratio: float) -> float:
    """The value that the sum of weights reaches at `ratio` of all, from the least up; of (value, weight), not empty."""
    ranked = sorted(values)
    wanted = ratio * sum(weight for _, weight in ranked)
    reached = 0.0
    for value, weight in ranked:
        reached += weight
        if reached >= wanted:
            return value
    return ranked[-1][0]
