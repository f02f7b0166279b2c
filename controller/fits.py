"""What a plan says and a host can't give: warnings for who changes plans, by what hosts said of themselves. Pure.

Nothing is refused for it: the host holds what it can, and a plan is for many hosts.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from controller.objections import named
from fleet.diff import Changes
from fleet.findings import Finding
from fleet.model import Caps, Fleet, HostId, PlanId, SiteId


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a host has; None: it has not said."""

    cores: float | None = None
    memory_bytes: int | None = None
    has_swap: bool | None = None


def misfits(
    fleet: Fleet,
    changes: Changes,
    serving: Mapping[SiteId, HostId],
    machines: Mapping[HostId, Machine],
) -> Iterator[Finding]:
    """Of each plan that `changes` touch, or of whose sites they touch some: what holds otherwise, and where."""
    for id, hosts in sorted(_hosts(fleet, _touched(fleet, changes), serving).items()):
        caps = fleet.plans[id].caps
        yield from _misfits(id, caps, {host: machines[host] for host in hosts if host in machines})


def _touched(fleet: Fleet, changes: Changes) -> set[PlanId]:
    plans = {PlanId(c.id) for c in changes.changes if c.kind == "plans"}
    sites = (fleet.sites.get(SiteId(c.id)) for c in changes.changes if c.kind == "sites")
    return (plans | {site.plan for site in sites if site}) & fleet.plans.keys()


def _hosts(
    fleet: Fleet, plans: set[PlanId], serving: Mapping[SiteId, HostId]
) -> dict[PlanId, list[HostId]]:
    found: defaultdict[PlanId, set[HostId]] = defaultdict(set)
    for id, site in fleet.sites.items():
        if site.plan in plans:
            found[site.plan] |= {site.home, serving.get(id, site.home)}
    return {plan: sorted(hosts) for plan, hosts in found.items()}


def _misfits(id: PlanId, caps: Caps, machines: Mapping[HostId, Machine]) -> Iterator[Finding]:
    small = [
        f"{host} ({machine.cores:g} cores)"
        for host, machine in machines.items()
        if machine.cores is not None and caps.cpu_percent > max(100, machine.cores * 50)
    ]
    if small:
        message = f"is more than half of the CPU of {named(small)}: half of it is what holds there"
        yield _finding(id, "cpu_percent", f"{caps.cpu_percent}", message)
    full = [
        host
        for host, machine in machines.items()
        if machine.memory_bytes and caps.memory_max_bytes > machine.memory_bytes
    ]
    if full:
        message = f"is more than all the memory of {named(full)}"
        yield _finding(id, "memory_max_bytes", f"{caps.memory_max_bytes}", message)
    dry = [host for host, machine in machines.items() if machine.has_swap is False]
    # Without any swap of its own a plan has no high mark anywhere, which its own file is told.
    if dry and caps.memory_high_ratio < 1 and caps.swap_max_ratio:
        message = f"needs swap or zram, which {named(dry)} has not: the maximum alone holds there"
        yield _finding(id, "memory_high_ratio", f"{caps.memory_high_ratio:g}", message)


def _finding(id: PlanId, cap: str, value: str, message: str) -> Finding:
    return Finding(path=("plans", id, "caps", cap), message=message, value=value)
