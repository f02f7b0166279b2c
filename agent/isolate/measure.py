"""What a round's signals mean for attribution: how much a site uses of a resource, and how much its victims wait."""

import math
from collections.abc import Iterator, Sequence

from agent.isolate.house import House
from agent.isolate.own import Own
from agent.isolate.policy import CONTENDED, Policy
from agent.isolate.state import Frame
from agent.signals import HostSigns, Signals, SiteSigns
from fleet.caps import Attachment, Resource
from fleet.model import SiteId

PAGE_BYTES = 4096
# What one operation costs a device beside its bytes: 20,000 a second fill one that moves 640 MB/s.
OPERATION_BYTES = 32 << 10
BUSY = 0.02  # of a core, all victims together: less is not enough to suffer with
GIVES = 0.2  # of the pages that are looked at: of what nobody uses reclaim gets nearly all
GROWN = 0.1  # of what it holds, within the window: less is what comes and goes with its visitors
HEAVIEST = 0.2  # of a core: beyond it a victim's word weighs no more than its neighbour's
# Of sites whose plans are not known.
NOBODYS = Own({}, House(plans={}, tenants={}, rulings={}), 0.0)
PARTED = 0.5  # under this part of an alarm nobody is asked whether they suffer


def use(signs: SiteSigns, resource: Resource) -> float | None:
    """How much of `resource` a site uses: cores, cost of I/O (bytes/s), tasks, tries to go out (1/s); None: not known.

    Of memory it is what reclaim does for it (bytes/s looked at); see `series` for what it adds to itself.
    """
    if resource is Resource.CPU:
        return signs.cpu_cores
    if resource is Resource.TASKS:
        return None if signs.tasks is None else float(signs.tasks)
    if resource is Resource.IO:
        moved = (signs.read_bytes_per_s, signs.write_bytes_per_s)
        if moved == (None, None):
            return None
        operations = (signs.read_ops_per_s or 0.0) + (signs.write_ops_per_s or 0.0)
        return _io_cost(sum(part or 0.0 for part in moved), operations)
    if resource is Resource.EGRESS:
        tries = (signs.new_destinations_per_s, signs.direct_mail_per_s, signs.refused_mail_per_s)
        return sum(told or 0.0 for told in tries)
    if held(signs) is None:
        return None
    return (signs.scanned_per_s or 0.0) * PAGE_BYTES


def _io_cost(moved_bytes: float, operations: float) -> float:
    return moved_bytes + operations * OPERATION_BYTES


def busy(host: HostSigns) -> dict[Resource, float]:
    """What the whole host uses, in the units of `use`: its own work, databases and backups beside the sites'."""
    found = {}
    if host.busy_cores is not None:
        found[Resource.CPU] = host.busy_cores
    if host.io_bytes_per_s is not None and host.io_ops_per_s is not None:
        found[Resource.IO] = _io_cost(host.io_bytes_per_s, host.io_ops_per_s)
    return found


def held(signs: SiteSigns) -> float | None:
    """Memory that only this site can give back (bytes): page cache apart, where the kernel tells."""
    own = signs.memory_bytes if signs.anon_bytes is None else signs.anon_bytes
    return None if own is None else float(own + (signs.swap_bytes or 0))


def taken(signs: SiteSigns, resource: Resource) -> float:
    """What a site has of `resource` now, as far as a step can take it away: of memory what it holds."""
    if resource is Resource.MEMORY:
        return held(signs) or 0.0
    return use(signs, resource) or 0.0


def series(
    window: Sequence[Frame], site: SiteId, resource: Resource, last: int = 0
) -> list[float | None]:
    """A site's use in each frame, or in the `last` ones, oldest first.

    Memory: what it grew by and what reclaim did for it, bytes/s.

    The host's own reclaim looks at everybody, and most at who has most cache: of a site that has not grown it counts
    only where the site is at a limit of its own, or does not give what is taken.
    """
    found: list[float | None] = []
    before: tuple[float, float] | None = None
    has_grown = resource is Resource.MEMORY and _has_grown(window, site)
    for frame in window[-last:]:
        signs = frame.sites.get(site)
        value = None if signs is None else use(signs, resource)
        if resource is Resource.MEMORY and signs is not None and value is not None:
            size = held(signs) or 0.0
            if not (has_grown or _reclaims(signs)):
                value = 0.0
            if before is not None and frame.at > before[0]:
                value += max(0.0, size - before[1]) / (frame.at - before[0])
            before = (frame.at, size)
        found.append(value)
    return found


def _reclaims(signs: SiteSigns) -> bool:
    """Whether what reclaim looks at of it is its own doing: by a limit of its own, or it holds on to what it has.

    Who holds on gives little of what is looked at, or reads again what was taken.
    """
    if signs.memory_high_hits or signs.memory_max_hits:
        return True
    stolen = signs.stolen_per_s or 0.0
    if stolen < GIVES * (signs.scanned_per_s or 0.0):
        return True
    return stolen * PAGE_BYTES <= (signs.read_bytes_per_s or 0.0)


def growth(sizes: Sequence[float | None]) -> float:
    """By how much the last of `sizes` (bytes) is above the least of them."""
    known = [size for size in sizes if size is not None]
    return known[-1] - min(known) if known else 0.0


def sizes(window: Sequence[Frame], site: SiteId) -> list[float | None]:
    """What a site holds in each frame, bytes."""
    found = (frame.sites.get(site) for frame in window)
    return [None if signs is None else held(signs) for signs in found]


def _has_grown(window: Sequence[Frame], site: SiteId) -> bool:
    held_now = sizes(window, site)
    return growth(held_now) >= GROWN * (held_now[-1] or math.inf)


def suffered(signals: Signals, policy: Policy, own: Own = NOBODYS) -> dict[Resource, float]:
    """What the sites of this host suffer by each other (0..1), for every contended resource that is known."""
    found = {}
    for resource in CONTENDED:
        stall = host_stall(signals.host, resource, policy)
        if stall is None:
            continue
        asked = stall >= policy.alarm(resource).stall_ratio * PARTED
        victims = victims_stall(signals, resource, policy, own) if asked else None
        if asked and victims is None:
            stall = max(0.0, stall - _own_stall(signals, resource, own))
        # Memory that runs out hurts everyone in a moment, who suffers already or not.
        if resource is Resource.MEMORY and is_scarce(signals.host, policy):
            stall, victims = max(stall, policy.memory.stall_ratio), None
        found[resource] = stall if victims is None else victims
    return found


def is_scarce(host: HostSigns, policy: Policy) -> bool:
    return host.memory_available_bytes < host.memory_total_bytes * policy.scarce_ratio


def host_stall(host: HostSigns, resource: Resource, policy: Policy) -> float | None:
    """Of the whole host; forks are told as a share of what no busy machine does."""
    if resource is Resource.TASKS:
        forks = host.forks_per_s
        return None if forks is None else min(1.0, forks / policy.forks_per_s)
    return {
        Resource.CPU: host.cpu_stall,
        Resource.MEMORY: host.memory_stall,
        Resource.IO: host.io_stall,
    }[resource]


def victims_stall(signals: Signals, resource: Resource, policy: Policy, own: Own) -> float | None:
    """The share of their busy time that sites wait, without the one that they may wait for; None: it can't be told.

    That is who uses most, unless it is hardly any of what the host does: then it waits for somebody else, too. Who
    waits for a limit of its own is no victim. Where some active site's wait is not known, or those that are known
    do nothing beside others of whom nothing is told, the host's must do.
    """
    if resource is Resource.TASKS:
        return None
    uses = {id: use(signs, resource) or 0.0 for id, signs in signals.sites.items()}
    most = max(uses, key=lambda id: uses[id], default=None)
    if most is not None and uses[most] <= policy.share / 2 * busy(signals.host).get(resource, 0.0):
        most = None
    total, weight, is_dark = 0.0, 0.0, False
    for site, signs in signals.sites.items():
        cores = signs.cpu_cores or 0.0
        if site == most or own.waits(site, signs, resource):
            continue
        if (stall := _site_stall(signs, resource)) is None:
            if cores >= BUSY:
                return None
            is_dark = is_dark or _is_dark(signs)
            continue
        if active := stall + min(cores, 1.0):
            total += min(active, HEAVIEST) * stall / active
            weight += min(active, HEAVIEST)
    if weight < BUSY:
        return None if is_dark else 0.0
    return total / weight


def _own_stall(signals: Signals, resource: Resource, own: Own) -> float:
    """At most so much of the host's stall is what sites wait for limits of their own."""
    return sum(
        (_site_stall(signs, resource) or 0.0)
        + ((signs.throttled_ratio or 0.0) if resource is Resource.CPU else 0.0)
        for site, signs in signals.sites.items()
        if own.waits(site, signs, resource)
    )


def _is_dark(signs: SiteSigns) -> bool:
    """Whether it may do anything, unseen; a slice that is not there does nothing."""
    return signs.cpu_cores is None and signs.attachment is not Attachment.SLICE


def _site_stall(signs: SiteSigns, resource: Resource) -> float | None:
    stalls_ = {
        Resource.CPU: signs.cpu_stall,
        Resource.MEMORY: signs.memory_stall,
        Resource.IO: signs.io_stall,
    }
    return stalls_.get(resource)  # forks are nobody's wait


def stalls(window: Sequence[Frame], resource: Resource) -> Iterator[float]:
    """The victims' stall in each frame, oldest first; a round that could not tell counts as none."""
    return (frame.stall.get(resource, 0.0) for frame in window)


def latest(window: Sequence[Frame], resource: Resource, for_s: float) -> float:
    """The victims' mean stall over the last `for_s`, the newest frame at least."""
    if not window:
        return 0.0
    newest = window[-1].at
    recent = [f.stall.get(resource, 0.0) for f in window if f.at > newest - for_s - 0.5]
    return sum(recent) / len(recent)
