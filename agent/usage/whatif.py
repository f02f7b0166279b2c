"""A site's use against a plan, its own or any other: what would have held it. Pure."""

from collections.abc import Iterable, Mapping

import msgspec

from agent.signals import SiteSigns
from fleet.caps import Resource
from fleet.model import Caps, PlanId

# A quota is enforced in slices of 100 ms, and readings are 2 s apart: what is held at its cap reads a little below.
AT_CAP_RATIO = 0.95


def at_cap(signs: SiteSigns, caps: Caps) -> frozenset[Resource]:
    """Of which resources it uses all that `caps` allow, as far as it can be seen.

    Memory is what is its own (anon), where that is told: the page cache fills whatever there is and hurts nobody. Of
    several disks each is held by itself.
    """
    memory = signs.memory_bytes if signs.anon_bytes is None else signs.anon_bytes
    used = (
        (Resource.CPU, signs.cpu_cores, caps.cpu_percent / 100),
        (Resource.MEMORY, memory, caps.memory_max_bytes),
        (Resource.TASKS, signs.tasks, caps.tasks),
        (Resource.IO, signs.on_busiest_disk("read_bytes_per_s"), caps.read_bytes_per_s),
        (Resource.IO, signs.on_busiest_disk("write_bytes_per_s"), caps.write_bytes_per_s),
        (Resource.IO, signs.on_busiest_disk("read_ops_per_s"), caps.read_iops),
        (Resource.IO, signs.on_busiest_disk("write_ops_per_s"), caps.write_iops),
    )
    return frozenset(
        resource for resource, use, cap in used if use is not None and use >= AT_CAP_RATIO * cap
    )


CAPS = (
    "cpu_percent",
    "memory_max_bytes",
    "tasks",
    "read_bytes_per_s",
    "write_bytes_per_s",
    "read_iops",
    "write_iops",
)


def least(plans: Iterable[Caps]) -> Caps | None:
    """The smallest of each cap that `at_cap` looks at: who reaches none of these reaches no plan's."""
    every = tuple(plans)
    if not every:
        return None
    smallest = {name: min(getattr(caps, name) for caps in every) for name in CAPS}
    return msgspec.structs.replace(every[0], **smallest)


def plans_reached(
    signs: SiteSigns, plans: Mapping[PlanId, Caps], smallest: Caps | None
) -> tuple[PlanId, ...]:
    """The plans that would hold it at this use. `smallest`: of all plans, as `least` gives it."""
    if smallest is None or not at_cap(signs, smallest):
        return ()
    return tuple(plan for plan, caps in plans.items() if at_cap(signs, caps))


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
