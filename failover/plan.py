"""Verdicts to a plan of moves: for each cause, what should move where, and what can't be moved and why."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from failover.capacity import Refuge, choose
from failover.judge import MOVING, Kind, Verdict
from failover.policy import Policy
from fleet.model import Fleet, HeldSite, HostId, Mode, MovedSite, Note, Placement, Site, SiteId, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One host with everything that follows from its failure: the unit of the brake. `human`: someone asked."""

    id: str
    host: HostId
    verdict: str
    why: Why
    human: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What one cause asks for. `withdraw`: the host is an edge and leaves every record set."""

    cause: Cause
    moves: tuple[MovedSite, ...] = ()
    held: tuple[HeldSite, ...] = ()
    withdraw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is, as the planner sees it. `boots` tell a host's present trouble from an earlier one."""

    fleet: Fleet
    places: Mapping[SiteId, Placement]
    verdicts: Mapping[HostId, Verdict]
    drains: Mapping[HostId, Note]
    withdrawn: frozenset[HostId]
    boots: Mapping[HostId, str]
    memory_available_ratio: Mapping[HostId, float]


def propose(situation: Situation, policy: Policy, now: float) -> tuple[Proposal, ...]:
    """One proposal for each host that should be empty and is not, in the order in which trouble began.

    Later causes see where earlier ones put their sites, so that one standby is not filled twice.
    """
    serving: dict[HostId, list[SiteId]] = {}
    for site, place in situation.places.items():
        if site in situation.fleet.sites:
            serving.setdefault(place.host, []).append(site)
    refuge = Refuge(
        verdicts=situation.verdicts,
        draining=frozenset(situation.drains),
        serves={host: len(sites) for host, sites in serving.items()},
        memory_available_ratio=situation.memory_available_ratio,
    )
    proposals = []
    for cause in causes(situation):
        proposal, refuge = _proposal(cause, serving, situation, refuge, policy, now)
        if proposal.moves or proposal.held or proposal.withdraw:
            proposals.append(proposal)
    return tuple(proposals)


def causes(situation: Situation) -> tuple[Cause, ...]:
    """Every host that should be empty, oldest trouble first."""
    found = []
    for host, verdict in situation.verdicts.items():
        if host in situation.drains:  # a person's word passes what would stop ours (rule R8)
            note = situation.drains[host]
            why = Why("drained", {"owner": note.owner, "reason": note.reason})
            cause = Cause(id=f"drain:{host}", host=host, verdict="drain", why=why, human=True)
            found.append((verdict.since, cause))
        elif verdict.kind in MOVING:
            boot = situation.boots.get(host, "")
            id = f"host:{host}:{boot}"
            cause = Cause(id=id, host=host, verdict=verdict.kind.value, why=verdict.why)
            found.append((verdict.since, cause))
    return tuple(cause for _, cause in sorted(found, key=lambda pair: (pair[0], pair[1].host)))


def _proposal(
    cause: Cause,
    serving: Mapping[HostId, list[SiteId]],
    situation: Situation,
    refuge: Refuge,
    policy: Policy,
    now: float,
) -> tuple[Proposal, Refuge]:
    moves: list[MovedSite] = []
    held: list[HeldSite] = []
    serves = dict(refuge.serves)
    for id in sorted(serving.get(cause.host, ())):
        site = situation.fleet.sites[id]
        planned = replace(refuge, serves=serves)
        target, why = choose(site, cause.host, situation.fleet, planned, policy, now)
        if (mode_why := _mode_refusal(site)) is not None:
            held.append(HeldSite(site=id, source=cause.host, target=target, why=mode_why))
        elif target is None:
            held.append(HeldSite(site=id, source=cause.host, target=None, why=why))
        else:
            serves[target] = serves.get(target, 0) + 1
            moves.append(MovedSite(site=id, source=cause.host, target=target))
    host = situation.fleet.hosts.get(cause.host)
    withdraw = host is not None and host.is_edge and cause.host not in situation.withdrawn
    proposal = Proposal(cause=cause, moves=tuple(moves), held=tuple(held), withdraw=withdraw)
    return proposal, replace(refuge, serves=serves)


def _mode_refusal(site: Site) -> Why | None:
    """Gated sites wait for proof that the old host no longer writes; manual ones for a human (rule R3)."""
    match site.effective_mode:
        case Mode.AUTOMATIC:
            return None
        case Mode.GATED:
            return Why("gated-not-fenced")
        case Mode.MANUAL:
            return Why("manual")


def returns(situation: Situation, policy: Policy, now: float) -> tuple[HostId, ...]:
    """Withdrawn edges that have been up long enough to be given addresses again."""
    back = []
    for edge in sorted(situation.withdrawn):
        verdict = situation.verdicts.get(edge)
        if verdict is None or verdict.kind is not Kind.UP or edge in situation.drains:
            continue
        if now - max(verdict.since, verdict.recovered_at or verdict.since) >= policy.settle_s:
            back.append(edge)
    return tuple(back)
