"""The plan of moves through the guards: what may happen now, what only would, and what waits for a human.

Rules: humans' acts pass every guard but a rewound store (R2, R8); automatic ones need arming, the brake's leave
and an observer that trusts itself; the unit of the brake is the cause, so a cause already paid for goes on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from failover.judge import Kind, Verdict
from failover.plan import Proposal
from failover.policy import Policy
from fleet.model import Budget, Fleet, HeldSite, HostId, MovedSite, Note, Switches, Why

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A proposal after the guards. `would`: moves that only arming keeps from happening.

    `withdraw` None: nothing to withdraw; True: do it; a Why: it is held for this reason.
    """

    proposal: Proposal
    moves: tuple[MovedSite, ...] = ()
    would: tuple[MovedSite, ...] = ()
    held: tuple[HeldSite, ...] = ()
    withdraw: bool | Why = False
    spends: bool = False

    @property
    def acts(self) -> bool:
        return bool(self.moves) or self.withdraw is True


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """What the guards look at. `wall` is Unix s, for what the store remembers.

    `refused`: hosts whose failover a person refused for a while.
    """

    fleet: Fleet
    switches: Switches
    budget: Budget
    verdicts: Mapping[HostId, Verdict]
    rewound: Why | None
    doubts_itself: bool
    wall: float
    refused: Mapping[HostId, Note] = field(default_factory=dict)


def guard(proposals: tuple[Proposal, ...], leave: Leave, policy: Policy) -> tuple[Guarded, ...]:
    """Each proposal with every move allowed, only shown, or held; causes draw on the budget in their order."""
    spent = spent_causes(leave.budget, leave.wall)
    allowed = policy.causes_allowed(len(leave.fleet.hosts))
    passed = []
    for proposal in proposals:
        guarded = _guard(proposal, leave, policy, spent, allowed)
        if guarded.spends:
            spent = spent | {proposal.cause.id}
        passed.append(guarded)
    return tuple(passed)


def spent_causes(budget: Budget, wall: float) -> frozenset[str]:
    """Causes paid for in the last hour. One from the future (a clock stepped back) counts: never too lenient."""
    return frozenset(item.cause for item in budget.spent if wall - item.at < HOUR_S)


def _guard(
    proposal: Proposal, leave: Leave, policy: Policy, spent: frozenset[str], allowed: int
) -> Guarded:
    stop = _stop(proposal, leave, policy)
    armed, would = _by_arming(proposal, leave)
    withdraw: bool | Why = proposal.withdraw
    if withdraw and not proposal.cause.human and not _host_armed(proposal.cause.host, leave):
        withdraw = Why("observing", {"host": proposal.cause.host})
    wants = bool(armed) or withdraw is True
    pays = wants and not proposal.cause.human and proposal.cause.id not in spent
    if stop is None and pays and len(spent) >= allowed:
        stop = Why("brake", {"spent": len(spent), "allowed": allowed})
    if stop is not None:
        held = tuple(_held(move, stop) for move in armed)
        return Guarded(
            proposal=proposal,
            would=would,
            held=(*proposal.held, *held),
            withdraw=stop if withdraw is True else withdraw,
        )
    return Guarded(
        proposal=proposal,
        moves=armed,
        would=would,
        held=proposal.held,
        withdraw=withdraw,
        spends=pays,
    )


def _stop(proposal: Proposal, leave: Leave, policy: Policy) -> Why | None:
    """The reason that stops the whole proposal, if there is one."""
    if leave.rewound is not None:
        return leave.rewound
    if proposal.cause.human:
        return None
    if (note := leave.switches.paused) is not None and leave.wall < note.until:
        return Why("paused", {"owner": note.owner, "reason": note.reason})
    note = leave.refused.get(proposal.cause.host)
    if note is not None and leave.wall < note.until:
        return Why("refused", {"owner": note.owner, "reason": note.reason})
    if leave.doubts_itself:
        return Why("leader-doubts-itself")
    return location_question(proposal.cause.host, leave, policy)


def location_question(host: HostId, leave: Leave, policy: Policy) -> Why | None:
    """Many hosts of one location lost at once ask about the location, not about the hosts: a human decides.

    Counted exactly: one host is never 'many', however small the location.
    """
    if (declared := leave.fleet.hosts.get(host)) is None:
        return None
    if leave.verdicts[host].kind is Kind.LEAVING:
        return None  # announced one by one, by themselves
    here = [id for id, h in leave.fleet.hosts.items() if h.location == declared.location]
    began = leave.verdicts[host].symptom_at
    lost = [id for id in here if _lost_with(began, leave.verdicts.get(id), policy)]
    if len(lost) >= 2 and len(lost) > policy.location_ratio * len(here):
        values: dict[str, str | int | float] = {
            "location": declared.location,
            "lost": len(lost),
            "hosts": len(here),
        }
        return Why("location-in-question", values)
    return None


# Doubts that hide a loss; a host that never reported hides none.
_SILENT = frozenset({"silent", "observers-doubt", "no-other-witness"})


def _lost_with(began: float | None, verdict: Verdict | None, policy: Policy) -> bool:
    """Whether this verdict's trouble began together with one that began at `began`, and lasts."""
    if verdict is None or began is None or verdict.symptom_at is None:
        return False
    silent = verdict.kind is Kind.DEAD or verdict.why.code in _SILENT
    return silent and abs(verdict.symptom_at - began) <= policy.location_window_s


def _by_arming(
    proposal: Proposal, leave: Leave
) -> tuple[tuple[MovedSite, ...], tuple[MovedSite, ...]]:
    if proposal.cause.human:
        return proposal.moves, ()
    armed: list[MovedSite] = []
    would: list[MovedSite] = []
    for move in proposal.moves:
        location = leave.fleet.hosts[move.source].location
        ready = leave.switches.armed(move.site, move.source, location)
        (armed if ready else would).append(move)
    return tuple(armed), tuple(would)


def _host_armed(host: HostId, leave: Leave) -> bool:
    return leave.switches.host_armed(host, leave.fleet.hosts[host].location)


def _held(move: MovedSite, why: Why) -> HeldSite:
    return HeldSite(site=move.site, source=move.source, target=move.target, why=why)
