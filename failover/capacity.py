"""Where a site may go: its standbys in their order, then home; the reason for each that may not have it."""

from collections.abc import Mapping
from dataclasses import dataclass

from failover.judge import Kind, Verdict
from failover.policy import Policy
from fleet.model import Fleet, HostId, Site, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuge:
    """What is known of the hosts that could take sites. `serves`: sites on each now, planned ones included."""

    verdicts: Mapping[HostId, Verdict]
    draining: frozenset[HostId]
    serves: Mapping[HostId, int]
    memory_available_ratio: Mapping[HostId, float]


def choose(
    site: Site, source: HostId, fleet: Fleet, refuge: Refuge, policy: Policy, now: float
) -> tuple[HostId | None, Why]:
    """The best host for `site` other than `source`, or None with the reason of the one that came closest."""
    candidates = [host for host in (*site.standbys, site.home) if host != source]
    refusals = []
    for host in dict.fromkeys(candidates):
        if (why := refusal(host, fleet, refuge, policy, now)) is None:
            return host, Why("chosen", {"host": host})
        refusals.append(why)
    return None, refusals[0] if refusals else Why("no-standby-declared")


def refusal(host: HostId, fleet: Fleet, refuge: Refuge, policy: Policy, now: float) -> Why | None:
    """Why `host` can't take one more site now; None: it can."""
    declared, verdict = fleet.hosts.get(host), refuge.verdicts.get(host)
    if declared is None or verdict is None:
        return Why("standby-not-in-fleet", {"host": host})
    if verdict.kind is not Kind.UP:
        return Why("standby-not-up", {"host": host, "verdict": verdict.kind.value})
    if host in refuge.draining:
        return Why("standby-draining", {"host": host})
    if verdict.recovered_at is not None and now - verdict.recovered_at < policy.settle_s:
        return Why("standby-just-returned", {"host": host, "of_s": policy.settle_s})
    if declared.max_sites is not None and refuge.serves.get(host, 0) >= declared.max_sites:
        return Why("standby-full", {"host": host, "max_sites": declared.max_sites})
    memory = refuge.memory_available_ratio.get(host, 1.0)
    if memory < policy.low_memory_ratio:
        return Why("standby-short-of-memory", {"host": host, "available": round(memory, 3)})
    return None
