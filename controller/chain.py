"""From plan to kernel, cap by cap, as people ask for it: what the plan says, what stands above it, what is held."""

from collections.abc import Callable, Mapping

import msgspec

from fleet.caps import Limits
from fleet.messages import SiteUse
from fleet.model import Caps, Why
from fleet.quota import DiskUse, Quota, quota_of

Value = int | bool | None
US_PER_PERCENT = 10_000  # of one core, in a second

# What a plan says of each limit before its host is asked: that may have fewer cores, or no swap.
OF_PLAN: Mapping[str, Callable[[Caps], Value]] = {
    "cpu_weight": lambda caps: caps.cpu_weight,
    "cpu_quota_us": lambda caps: caps.cpu_percent * US_PER_PERCENT,
    "memory_high_bytes": lambda caps: int(caps.memory_max_bytes * caps.memory_high_ratio),
    "memory_max_bytes": lambda caps: caps.memory_max_bytes,
    "memory_low_bytes": lambda caps: caps.memory_low_bytes,
    "swap_max_bytes": lambda caps: int(caps.memory_max_bytes * caps.swap_max_ratio),
    "tasks_max": lambda caps: caps.tasks,
    "read_bytes_per_s": lambda caps: caps.read_bytes_per_s,
    "write_bytes_per_s": lambda caps: caps.write_bytes_per_s,
    "read_ops_per_s": lambda caps: caps.read_iops,
    "write_ops_per_s": lambda caps: caps.write_iops,
}
OF_IO = frozenset({"read_bytes_per_s", "write_bytes_per_s", "read_ops_per_s", "write_ops_per_s"})
BESIDE = ("io_weight", "egress_closed", "frozen")  # no plan speaks of them


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One cap on its way: `plan` -> `override` (null: none) -> `wanted` -> `held`. Null there: no limit, or not known.

    `because`: why `wanted` is as it is. `differs`: the kernel holds something else than what is wanted.
    """

    cap: str
    plan: Value = None
    override: Value = None
    wanted: Value = None
    held: Value = None
    because: Why | None = None
    differs: bool = False


def chain(
    plans: Caps,
    changed: Caps,
    wanted: Limits | None,
    held: Limits | None,
    because: Mapping[str, Why],
) -> tuple[Link, ...]:
    """Every cap: the plan's, and `changed` by an override. `wanted`, `held`: as the host told them last, or None."""
    links = []
    for cap in (*OF_PLAN, *BESIDE):
        plan, over = (OF_PLAN[cap](of) if cap in OF_PLAN else None for of in (plans, changed))
        want, have = value(wanted, cap), value(held, cap)
        links.append(
            Link(
                cap=cap,
                plan=plan,
                override=over if over != plan else None,
                wanted=want,
                held=have,
                because=because.get("io" if cap in OF_IO else cap),
                differs=wanted is not None and held is not None and want != have,
            )
        )
    return tuple(links)


def of_disk(plan: Caps, changed: Caps, disk: DiskUse | None) -> tuple[Link, ...]:
    """What may be kept on disk: the plan's, which has a grace, and the hard limits, at which writing fails."""
    plans, overs = quota_of(plan), quota_of(changed)
    disk = disk or DiskUse()
    return tuple(
        Link(
            cap=cap,
            plan=(plan := getattr(plans, cap)),
            override=over if (over := getattr(overs, cap)) != plan else None,
            wanted=getattr(disk.wanted, cap, None),
            held=getattr(disk.held, cap, None),
            because=disk.because.get(cap),
            differs=cap in unlike(disk.wanted, disk.held),
        )
        for cap in Quota.__struct_fields__
    )


def value(limits: Limits | None, cap: str) -> Value:
    """Of all disks the tightest: each is told the same, and one that is not shows."""
    if limits is None:
        return None
    if cap not in OF_IO:
        found: Value = getattr(limits, cap)
        return found
    return min((getattr(disk, cap) for disk in limits.io.values()), default=None)


def differing(use: SiteUse) -> tuple[str, ...]:
    """The caps that the kernel holds otherwise than it should; of what is not known none."""
    disk = use.disk or DiskUse()
    return (*unlike(use.wanted, use.held), *unlike(disk.wanted, disk.held))


def unlike(wanted: Limits | Quota | None, held: Limits | Quota | None) -> tuple[str, ...]:
    """The fields that are held otherwise than they should be; none where either is not known."""
    if wanted is None or held is None or wanted == held:
        return ()
    fields = type(wanted).__struct_fields__
    return tuple(name for name in fields if getattr(wanted, name) != getattr(held, name))
