"""What the kernel should hold for one slice: plan, override, penalties and the host, in one table.

A row whose `when` holds puts its value in the place of what the rows above it gave, and leaves its reason. In shadow
the plan's rows are skipped: what a person holds a site at is then all that is held.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from agent.caps.sparing import some
from fleet.caps import IoLimit, Level, Limits, Override, Penalty, Resource
from fleet.model import Caps, SiteId, Why

# What a slice holds of which nobody says anything: the kernel's own defaults.
FREE = Limits(
    cpu_weight=100,
    cpu_quota_us=None,
    memory_high_bytes=None,
    memory_max_bytes=None,
    memory_low_bytes=0,
    swap_max_bytes=None,
    tasks_max=None,
)

S_US = 1_000_000  # the second that a quota is a part of
PERCENT_US = S_US // 100  # systemd's period is 100 ms: whole percents are whole microseconds of it
PAGE_BYTES = 4096  # what the kernel rounds memory down to
SOFT_WEIGHT = (
    20  # a fifth of a neighbour's turn when there is a queue, all of the CPU when there is none
)
IO_WEIGHT = 100  # the kernel's default: plans have no weights of I/O
LEAST_CPU_US = 20 * PERCENT_US  # under 20 % of a core a request outlives every timeout
LEAST_TASKS = 16  # a master, a few workers and a way in for its owner
LEAST_BYTES_PER_S = 1 << 20  # under 1 MiB/s what is held waits longer than anybody
LEAST_OPS_PER_S = 50
LEAST_MEMORY_BYTES = 64 << 20  # one worker and what it maps
NO_DISK = Why("cap-no-disk")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What of a host bears on its sites' limits.

    `controllers`: of cgroup v2, that can be used. `devices`: physical, "major:minor"; `no_disk`: why there are none.
    `diskless`: sites that have files on no disk that could be limited, and where. `has_swap`: or zswap.
    `low_ratio`: what of the promised `memory.low` this host can keep for all its sites together.
    """

    cores: float
    memory_total_bytes: int = 0
    controllers: frozenset[str] = frozenset({"cpu", "memory", "io", "pids"})
    devices: tuple[str, ...] = ()
    no_disk: Why = NO_DISK
    diskless: Mapping[SiteId, Why] = field(default_factory=dict)
    has_swap: bool = False
    has_io_weight: bool = False
    low_ratio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`says`: of which fields; all others are the host's own. `because`: why a field is as it is, or not as asked."""

    limits: Limits
    because: Mapping[str, Why]
    says: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a row decides from.

    `sites`: how many share the slice; `among`: all of whom something runs in it; `spared`: penalties that hold it less
    than they say, for those. `as_armed`: caps that its plan has made stricter.
    """

    caps: Caps
    facts: HostFacts
    penalties: tuple[Penalty, ...] = ()
    override: Override | None = None
    sites: int = 1
    among: tuple[SiteId, ...] = ()
    spared: tuple[Penalty, ...] = ()
    as_armed: frozenset[str] = frozenset()

    def is_at(self, level: Level) -> bool:
        return any(each.level >= level for each in self.penalties if not each.is_relief)

    def capped(self, resource: Resource) -> bool:
        """Whether a share of `resource` is taken away; a share of 1 takes nothing."""
        return self.share(resource) < 1

    def share(self, resource: Resource) -> float:
        """What penalties leave of the plan, 0..1: the strictest counts."""
        shares = (
            p.share for p in self.penalties if p.level >= Level.CAP and p.resource is resource
        )
        return min(shares, default=1.0)

    def is_futile(self) -> bool:
        """Whether the memory watchdog spoke: what is over the maximum is to end inside the site."""
        return any(each.is_relief for each in self.penalties)


Kind = Literal["plan", "penalty", "host"]


@dataclass(frozen=True, slots=True)
class Row:
    """`rests_on`: the caps that the value comes from; an override of one of them is then the reason."""

    field: str
    kind: Kind
    when: Callable[[Case], bool]
    value: Callable[[Case], object]
    why: Callable[[Case], Why]
    rests_on: tuple[str, ...] = ()


def limits(case: Case, *, in_force: bool = True) -> Wanted:
    """What to hold; not `in_force` (shadow): by penalties alone, and what they leave alone is the host's own."""
    draft, because = FREE, dict[str, Why]()
    says = set(OPEN if in_force else ())
    for row in TABLE:
        if (in_force or row.kind == "penalty") and row.when(case):
            draft = msgspec.structs.replace(draft, **{row.field: row.value(case)})
            because[row.field] = _reason(row, case)
            says.add(row.field)
    because |= _mercy(case, draft)
    for controller, fields in CONTROLLERS.items():
        if controller not in case.facts.controllers:
            says -= fields
            for field in fields & because.keys():
                draft = msgspec.structs.replace(draft, **{field: getattr(FREE, field)})
                because[field] = Why("cap-no-controller", {"controller": controller})
    return Wanted(limits=draft, because=because, says=frozenset(says))


def _reason(row: Row, case: Case) -> Why:
    if row.kind == "penalty":
        return _with_others(row.why(case), case)
    if (
        row.kind == "plan"
        and case.override
        and not case.override.caps.keys().isdisjoint(row.rests_on)
    ):
        note = case.override.note
        return Why("cap-override", {"owner": note.owner, "reason": note.reason})
    why = row.why(case)
    # What the host can't give is said first: it holds whatever was armed.
    if why.code == "cap-plan" and not case.as_armed.isdisjoint(row.rests_on):
        return Why("cap-as-armed")
    return why


def _with_others(why: Why, case: Case) -> Why:
    """A penalty of one site holds all that run in its slice: each is told whose it is."""
    of = {penalty.site for penalty in case.penalties}
    if others := frozenset(case.among) - of:
        named = {"of": some(of), "others": some(others)}
        return Why("cap-with-others", {"because": why.code, **named, **why.values})
    return why


def _mercy(case: Case, held: Limits) -> dict[str, Why]:
    """Why a penalty does not hold all that it says, by the field that would."""
    said = {}
    for penalty in case.spared:
        field = "frozen" if penalty.level is Level.STOP else "egress_closed"
        if not getattr(held, field):
            others = some(site for site in case.among if site != penalty.site)
            said[field] = Why("cap-spares", {"site": penalty.site, "others": others})
    return said


def roomiest(caps: Sequence[Caps]) -> Caps:
    """Of sites that share a slice, by field: none of them gets less than its own plan says."""
    fields = Caps.__struct_fields__
    return Caps(**{name: max(getattr(cap, name) for cap in caps) for name in fields})


def _always(_: Case) -> bool:
    return True


def _plan(case: Case) -> Why:
    return Why("cap-shared", {"sites": case.sites}) if case.sites > 1 else Why("cap-plan")


def _percent(resource: Resource) -> Callable[[Case], Why]:
    return lambda case: Why("cap-share", {"percent": round(100 * case.share(resource))})


def _soft(case: Case) -> Why:
    return Why("cap-soft")


def _half_host_us(case: Case) -> int:
    """One core at least: with less, throttling costs more than it saves."""
    return max(S_US, int(case.facts.cores * 50) * PERCENT_US)


def _quota_us(case: Case) -> int:
    return min(case.caps.cpu_percent * PERCENT_US, _half_host_us(case))


def _quota_share_us(case: Case) -> int:
    share_us = _quota_us(case) * case.share(Resource.CPU)
    return max(LEAST_CPU_US, int(share_us / PERCENT_US) * PERCENT_US)


def _max_bytes(case: Case, share: float = 1.0) -> int:
    return _pages(
        max(min(LEAST_MEMORY_BYTES, case.caps.memory_max_bytes), case.caps.memory_max_bytes * share)
    )


def _high_bytes(case: Case, share: float = 1.0) -> int:
    return _pages(_max_bytes(case, share) * case.caps.memory_high_ratio)


def _swap_bytes(case: Case) -> int:
    return _pages(case.caps.memory_max_bytes * case.caps.swap_max_ratio)


def _can_swap(case: Case) -> bool:
    """What is in zswap counts as swapped: a slice without swap has none of that either. Source: cgroup-v2, zswap."""
    return case.facts.has_swap and _swap_bytes(case) > 0


def _pages(size_bytes: float) -> int:
    return int(size_bytes) // PAGE_BYTES * PAGE_BYTES


def _io(case: Case, share: float = 1.0) -> dict[str, IoLimit]:
    def part(whole: int, least: int) -> int:
        return max(min(least, whole), int(whole * share))

    caps = case.caps
    each = IoLimit(
        read_bytes_per_s=part(caps.read_bytes_per_s, LEAST_BYTES_PER_S),
        write_bytes_per_s=part(caps.write_bytes_per_s, LEAST_BYTES_PER_S),
        read_ops_per_s=part(caps.read_iops, LEAST_OPS_PER_S),
        write_ops_per_s=part(caps.write_iops, LEAST_OPS_PER_S),
    )
    return dict.fromkeys(case.facts.devices, each)


# What each controller of cgroup v2 holds.
CONTROLLERS = {
    "cpu": {"cpu_weight", "cpu_quota_us"},
    "memory": {"memory_high_bytes", "memory_max_bytes", "memory_low_bytes", "swap_max_bytes"},
    "io": {"io", "io_weight"},
    "pids": {"tasks_max"},
}

# Of a site in force only penalties close or freeze: what they left behind, whoever forgot it, is lifted.
OPEN = ("egress_closed", "frozen")
IO_CAPS = ("read_bytes_per_s", "write_bytes_per_s", "read_iops", "write_iops")

# fmt: off
TABLE = (
    Row("cpu_weight", "plan", _always, lambda c: c.caps.cpu_weight, _plan, ("cpu_weight",)),
    # Work-conserving first: it costs a site nothing while nobody else waits.
    Row("cpu_weight", "penalty", lambda c: c.is_at(Level.SOFT), lambda c: min(SOFT_WEIGHT, c.caps.cpu_weight), _soft),
    Row("io_weight", "plan", lambda c: c.facts.has_io_weight, lambda c: IO_WEIGHT, _plan),
    Row("io_weight", "penalty", lambda c: c.facts.has_io_weight and c.is_at(Level.SOFT), lambda c: SOFT_WEIGHT, _soft),
    Row("cpu_quota_us", "plan", _always, _quota_us, _plan, ("cpu_percent",)),
    Row("cpu_quota_us", "plan", lambda c: c.caps.cpu_percent * PERCENT_US > _half_host_us(c), _half_host_us,
        lambda c: Why("cap-half-host", {"cores": f"{c.facts.cores:g}"})),
    Row("cpu_quota_us", "penalty", lambda c: c.capped(Resource.CPU), _quota_share_us, _percent(Resource.CPU)),
    Row("memory_max_bytes", "plan", _always, _max_bytes, _plan, ("memory_max_bytes",)),
    # High under what a site needs, with nowhere to put pages, is an hour of reclaim that frees nothing.
    Row("memory_high_bytes", "plan", _can_swap, _high_bytes, _plan, ("memory_max_bytes", "memory_high_ratio")),
    Row("memory_high_bytes", "plan", lambda c: not _can_swap(c), lambda c: None,
        lambda c: Why("cap-no-swap-of-plan") if c.facts.has_swap else Why("cap-no-swap")),
    Row("memory_high_bytes", "penalty", lambda c: c.capped(Resource.MEMORY) and _can_swap(c),
        lambda c: _high_bytes(c, c.share(Resource.MEMORY)), _percent(Resource.MEMORY)),
    Row("memory_max_bytes", "penalty", lambda c: c.capped(Resource.MEMORY) and not _can_swap(c),
        lambda c: _max_bytes(c, c.share(Resource.MEMORY)), _percent(Resource.MEMORY)),
    Row("memory_high_bytes", "penalty", Case.is_futile, lambda c: None, lambda c: Why("cap-futile")),
    Row("memory_low_bytes", "plan", _always, lambda c: _pages(c.caps.memory_low_bytes * c.facts.low_ratio), _plan,
        ("memory_low_bytes",)),
    Row("memory_low_bytes", "plan", lambda c: c.facts.low_ratio < 1,
        lambda c: _pages(c.caps.memory_low_bytes * c.facts.low_ratio),
        lambda c: Why("cap-low-shared", {"percent": round(100 * c.facts.low_ratio)})),
    # Protection is for who lives within the plan.
    Row("memory_low_bytes", "penalty", lambda c: c.capped(Resource.MEMORY), lambda c: 0, _percent(Resource.MEMORY)),
    Row("swap_max_bytes", "plan", lambda c: c.facts.has_swap, _swap_bytes, _plan,
        ("memory_max_bytes", "swap_max_ratio")),
    Row("tasks_max", "plan", _always, lambda c: c.caps.tasks, _plan, ("tasks",)),
    Row("tasks_max", "penalty", lambda c: c.capped(Resource.TASKS),
        lambda c: max(min(LEAST_TASKS, c.caps.tasks), int(c.caps.tasks * c.share(Resource.TASKS))),
        _percent(Resource.TASKS)),
    Row("io", "plan", _always, _io, _plan, IO_CAPS),
    Row("io", "penalty", lambda c: c.capped(Resource.IO), lambda c: _io(c, c.share(Resource.IO)),
        _percent(Resource.IO)),
    # What holds nothing is nobody's word: neither the plan's nor a penalty's.
    Row("io", "plan", lambda c: not c.facts.devices, lambda c: {}, lambda c: c.facts.no_disk),
    Row("io", "penalty", lambda c: not c.facts.devices and c.capped(Resource.IO), lambda c: {},
        lambda c: c.facts.no_disk),
    Row("egress_closed", "penalty", lambda c: c.is_at(Level.ISOLATE), lambda c: True, lambda c: Why("cap-isolated")),
    Row("frozen", "penalty", lambda c: c.is_at(Level.STOP), lambda c: True, lambda c: Why("cap-stopped")),
)
# fmt: on
