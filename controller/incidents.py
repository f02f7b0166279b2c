"""Incidents as values: begun, continued and closed by pure functions; the leader writes what they give."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from failover.guards import Guarded
from failover.judge import Verdict
from fleet.model import Entry, Epoch, HeldSite, Incident, IncidentId, Phase, Why
from runtime.clock import iso
from runtime.words import explain

DECIDED = "decided"  # the code of a decision that acts; a stretch of the timeline begins with it


SAME_TROUBLE_S = 600.0  # an outage that returns within ten minutes goes on
LINES = 300  # of one timeline; a host that flaps for days does not fill the store
REASONS = 6  # told one by one of why sites are held; the list of held sites has each site's own


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Instants of one round: `wall` is Unix s and `now` the loop's clock, read together."""

    wall: float
    now: float

    def wall_of(self, instant: float) -> float:
        """Unix s of an instant of the loop's clock."""
        return self.wall - (self.now - instant)


def new_id(subject: str, wall: float) -> IncidentId:
    """Sorts by time, names its subject: 20261121T040506.789-mx1-web-01."""
    return IncidentId(iso(wall).replace("-", "").replace(":", "").rstrip("Z") + f"-{subject}")


def begin(guarded: Guarded, verdict: Verdict, times: Times, testimony: tuple[Why, ...]) -> Incident:
    """The incident of a cause that has none open: symptom and verdict are its first lines."""
    cause = guarded.proposal.cause
    symptom = verdict.since if verdict.symptom_at is None else verdict.symptom_at
    if cause.human:
        symptom = times.now
    began_at = times.wall_of(symptom)
    incident = Incident(
        id=new_id(cause.host, times.wall),
        cause=cause.id,
        subject=cause.host,
        verdict=cause.verdict,
        began_at=began_at,
        evidence=in_english(testimony),
        testimony=testimony,
    )
    first = cause.why if cause.human or verdict.symptom is None else verdict.symptom
    incident = add(incident, Phase.SYMPTOM, began_at, first)
    at = times.wall if cause.human else times.wall_of(verdict.since)
    return add(incident, Phase.VERDICT, at, Why("verdict", {"verdict": cause.verdict}))


def in_english(testimony: Iterable[Why]) -> dict[str, str | int | float | None]:
    """Who says what, for those who read no reasons: other releases, and scripts."""
    lines = (explain(word).partition(": ") for word in testimony)
    return {who: what for who, _, what in lines}


def decide(incident: Incident, guarded: Guarded, times: Times) -> Incident:
    """What was decided in this round, added to what the incident already holds.

    A decision that acts begins a new stretch of the timeline, whose effect is to be proven anew.
    """
    before = () if incident.observed else incident.moved
    acts = guarded.acts or bool(before)
    moved = {move.site: move for move in (*before, *(guarded.moves if acts else guarded.would))}
    incident = msgspec.structs.replace(
        incident,
        observed=not acts and bool(guarded.would),
        moved=tuple(moved.values()),
        held=_held(guarded, acts=acts),
        epoch=Epoch() if guarded.acts else incident.epoch,
        complete=False if guarded.acts else incident.complete,
    )
    counts: dict[str, str | int | float] = {
        "moved": len(guarded.moves),
        "would": len(guarded.would),
        "held": len(guarded.held),
    }
    said = any(entry.phase is Phase.DECIDED for entry in incident.timeline)
    if said and not guarded.acts:
        return incident  # only reasons changed: `held` says the present ones
    if guarded.withdraw is True:
        why = Why("edge-withdrawn", {"host": guarded.proposal.cause.host})
        incident = add(incident, Phase.NOTE, times.wall, why)
    code = DECIDED if guarded.acts else "observed" if incident.observed else "held"
    incident = add(incident, Phase.DECIDED, times.wall, Why(code, counts))
    for why in _because(guarded):
        incident = add(incident, Phase.NOTE, times.wall, why)
    return incident


def _because(guarded: Guarded) -> tuple[Why, ...]:
    """Why an edge stays, and each reason with how many sites it holds, the most common first."""
    told, held = list[Why](), guarded.held
    if isinstance(guarded.withdraw, Why):
        why, edge = guarded.withdraw, guarded.proposal.cause.host
        told.append(Why("edge-kept", {**why.values, "edge": edge, "because": why.code}))
    codes = {_said(item.why): item.why for item in held}
    counts = Counter(_said(item.why) for item in held).most_common()
    told += [
        Why("held-because", {**codes[said].values, "sites": sites, "because": codes[said].code})
        for said, sites in counts[:REASONS]
    ]
    if rest := sum(sites for _, sites in counts[REASONS:]):
        told.append(Why("held-otherwise", {"sites": rest}))
    return tuple(told)


def _said(why: Why) -> tuple[object, ...]:
    return why.code, *sorted(why.values.items())


def add(incident: Incident, phase: Phase, at: float, why: Why, subject: str = "") -> Incident:
    """One more line of the timeline."""
    offset_s = round(at - incident.began_at, 3)
    entry = Entry(phase=phase, at=round(at, 3), offset_s=offset_s, why=why, subject=subject)
    return msgspec.structs.replace(incident, timeline=(*incident.timeline, entry))


def stretch(incident: Incident) -> tuple[Entry, ...]:
    """The timeline since the last decision that acted; empty: none did."""
    for at in range(len(incident.timeline) - 1, -1, -1):
        entry = incident.timeline[at]
        if entry.phase is Phase.DECIDED and entry.why.code == DECIDED:
            return incident.timeline[at:]
    return ()


def has(incident: Incident, phase: Phase, subject: str | None = None) -> bool:
    """Whether the present stretch has such a line."""
    return any(
        entry.phase is phase and (subject is None or entry.subject == subject)
        for entry in stretch(incident)
    )


def acted(incident: Incident) -> bool:
    """Something was decided and committed for it, and its effect is not proven yet."""
    return bool(stretch(incident)) and not incident.complete


def close(incident: Incident, at: float, why: Why) -> Incident:
    if len(incident.timeline) < LINES:
        incident = add(incident, Phase.NOTE, at, why)
    return msgspec.structs.replace(incident, closed_at=at)


def same_plan(incident: Incident, guarded: Guarded) -> bool:
    """Whether the incident already says what this round found: nothing is written twice."""
    acted_on = bool(incident.moved) and not incident.observed
    wanted = set() if acted_on else {move.site for move in guarded.would}
    held = {(h.site, h.target, h.why.code) for h in _held(guarded, acts=acted_on)}
    known = {(item.site, item.target, item.why.code) for item in incident.held}
    moved = {move.site for move in incident.moved}
    return held == known and wanted <= moved


def _held(guarded: Guarded, *, acts: bool) -> tuple[HeldSite, ...]:
    """What stays; beside sites that do move, one that is only observed is held for that."""
    observed = [
        HeldSite(
            site=m.site, source=m.source, target=m.target, why=Why("observing", {"host": m.source})
        )
        for m in guarded.would
    ]
    return (*guarded.held, *(observed if acts else ()))


def to_continue(all: Iterable[Incident], subject: str, wall: float) -> Incident | None:
    """The subject's open incident; else one that closed lately and moved nothing, open again.

    What was only seen can flap without end, and fills no store. What acted is bounded by the brake, and each time
    has a timeline and a proof of its own.
    """
    mine = [incident for incident in all if incident.subject == subject]
    for incident in reversed(mine):
        if incident.closed_at is None:
            return incident
    if not mine or mine[-1].epoch.revision or mine[-1].closed_at is None:
        return None
    if wall - mine[-1].closed_at < SAME_TROUBLE_S:
        return msgspec.structs.replace(mine[-1], closed_at=None)
    return None


def too_many(all: Iterable[Incident], kept: int) -> tuple[IncidentId, ...]:
    """The oldest closed incidents beyond `kept`."""
    closed = [incident.id for incident in all if incident.closed_at is not None]
    return tuple(closed[: max(0, len(closed) - kept)])


def by_subject(incidents: Iterable[Incident]) -> dict[str, Incident]:
    """The open incident of each subject; the newest where there are several."""
    return {incident.subject: incident for incident in incidents if incident.closed_at is None}
