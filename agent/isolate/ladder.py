"""The ladder of penalties, decided: what a host saw becomes who is held, how tightly, until when and why.

Rules: a site is held for what its neighbours suffer, or for what no plan allows (R14), by this host's own proof (R15);
every step ends (R11) and carries its reason (R13); what helped nobody is undone; people win.
"""

from dataclasses import dataclass

import msgspec

from agent.isolate import rise, trial
from agent.isolate.case import Case, Change
from agent.isolate.climb import Climb
from agent.isolate.house import House
from agent.isolate.look import look
from agent.isolate.own import Own
from agent.isolate.policy import Policy
from agent.isolate.proof import proofs
from agent.isolate.queues import plead, queued_since
from agent.isolate.ruled import ordered, quarantine, taken
from agent.isolate.state import Clock, State, Step, told
from agent.isolate.table import Finding
from agent.signals import Signals
from fleet.caps import Evidence, Level, Penalty, Resource
from fleet.model import SiteId, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What holds from now on, whole; `changes` says what is new of it.

    `asks`: what this host needs people for, for as long as it stands. A CAP of memory with a share of 1 takes nothing:
    it lifts memory.high, so that the OOM killer ends what reclaim can't. `evidence`: of what begins, or
    gets harder, without its processes.
    """

    state: State
    penalties: tuple[Penalty, ...] = ()
    asks: tuple[Why, ...] = ()
    changes: tuple[Change, ...] = ()
    evidence: tuple[Evidence, ...] = ()


def decide(
    state: State, signals: Signals, house: House, policy: Policy, now: float, wall: float
) -> Decision:
    """Judge one round, seen at `now` (monotonic s) and `wall` (Unix s), and say who is held from now on."""
    clock = told(state.clock, now, wall)
    own = Own(state.records, house, wall, state.taken)
    seen = look(state, signals, policy, clock, own)
    seen = msgspec.structs.replace(seen, queued=queued_since(seen, signals, own, clock.at))
    climb = Climb(seen, signals, house, policy, wall)
    _obey(climb)
    trial.judge(climb)
    rise.signs(climb)
    rise.contention(climb)
    plead(climb, own)
    climb.narrow()
    after = msgspec.structs.replace(climb.state, ordered=ordered(house, wall), taken=taken(climb))
    return Decision(
        state=after,
        penalties=standing(after, house, policy, wall),
        asks=tuple(climb.asks),
        changes=tuple(climb.changes),
        evidence=proofs(state, climb),
    )


def _obey(climb: Climb) -> None:
    """People's words: what they release is let go; what another host suspected is looked at (rule R15)."""
    for site, ruling in climb.house.rulings.items():
        step = climb.record(site).step
        if step is not None and climb.is_ruled(site, "release"):
            case = Case(resource=step.resource, nature=step.nature)
            climb.move(site, Finding.RELEASED, case)
        if step is None and climb.is_ruled(site, "suspect"):
            case = Case(resource=Resource.CPU, nature=ruling.nature)
            climb.move(site, Finding.FOLLOWED, case)


def standing(state: State, house: House, policy: Policy, wall: float) -> tuple[Penalty, ...]:
    """Everything that holds at `wall` (Unix s), by site: of a state from disk too, before its first round.

    A person's quarantine stands in the place of what relevo decided.
    """
    if state.clock is None:
        return ()
    found = {
        site: _penalties(site, record.step, state.clock, enforced=house.enforced(site, wall))
        for site, record in state.records.items()
        if record.step is not None
    }
    for site in house.rulings:
        ruling = house.ruling(site, wall)
        if ruling is not None and ruling.word == "quarantine":
            found[site] = quarantine(site, ruling, state)
    relieved = (
        _relief(site, until, state.clock, policy, enforced=house.enforced(site, wall))
        for site, until in state.relieved.items()
    )
    return (*(one for site in sorted(found) for one in found[site]), *relieved)


def _penalties(site: SiteId, step: Step, clock: Clock, *, enforced: bool) -> tuple[Penalty, ...]:
    """What a step was last for, and what it holds beside that, as a cap."""
    first = Penalty(
        site=site,
        level=step.level,
        resource=step.resource,
        nature=step.nature,
        share=step.share,
        since=clock.wall(step.since),
        until=clock.wall(step.until),
        why=step.why,
        enforced=step.enforced and enforced,
    )
    beside = (
        msgspec.structs.replace(
            first,
            level=min(step.level, Level.CAP),
            resource=on,
            share=part.share,
            since=clock.wall(part.since),
            why=part.why,
        )
        for on, part in step.also.items()
    )
    return (first, *beside)


def _relief(site: SiteId, until: float, clock: Clock, policy: Policy, *, enforced: bool) -> Penalty:
    """The memory watchdog's word: no level of the ladder, and nothing is taken."""
    return Penalty(
        site=site,
        level=Level.CAP,
        resource=Resource.MEMORY,
        since=clock.wall(until - policy.term(policy.terms.soft_s)),
        until=clock.wall(until),
        why=Why("isolation-futile"),
        enforced=enforced,
    )
