"""What a page says first: is all well; if not, what is wrong, what relevo does about it, what it wants of people."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from controller import calls
from controller.web.look import BAD, Look
from controller.web.words import CALLS, LEVELS, VERDICTS, Speech
from fleet.caps import Level
from fleet.model import Arming, Hold, HostId, Incident, LocationId, SiteId, Why

# `act`: a person is wanted. `bad`: something is broken. `watch`: relevo looks. `info`: good to know.
Tone = Literal["act", "bad", "watch", "info", "well"]
EACH = (
    2  # lost hosts of a location that are told one by one; more are a question about the location
)
NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """`wants` is empty where nobody need do anything; `path` leads to where it can be done or seen."""

    tone: Tone
    what: str
    does: str = ""
    wants: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    tone: Tone
    headline: str
    points: tuple[Point, ...]

    @property
    def wants(self) -> int:
        return sum(point.tone == "act" for point in self.points)


def summarise(look: Look, say: Speech) -> Summary:
    """Most urgent first."""
    points = (
        *_store(look, say),
        *_hosts(look, say),
        *_other_holds(look, say),
        *_contained(look, say),
        *_doubts(look, say),
        *_switches(look, say),
    )
    ranked = sorted(points, key=lambda point: ("act", "bad", "watch", "info").index(point.tone))
    return Summary(
        tone=ranked[0].tone if ranked and ranked[0].tone != "info" else "well",
        headline=_headline(look, ranked, say),
        points=tuple(ranked),
    )


def _headline(look: Look, points: Sequence[Point], say: Speech) -> str:
    tones = [point.tone for point in points]
    if wanted := tones.count("act"):
        return say.n("{n} thing needs you", "{n} things need you", wanted)
    if "bad" in tones:
        return say.t("relevo is on it; you need do nothing")
    if "watch" in tones:
        return say.t("relevo is watching something; you need do nothing")
    if not look.armed_anywhere:
        return say.t("All is well; relevo only observes")
    return say.t("All is well")


# --- the store and the controllers


def _store(look: Look, say: Speech) -> Iterable[Point]:
    if not look.ready:
        yield Point(
            tone="bad",
            what=say.t("This controller has not read its store yet."),
            does=say.t("What is shown may be missing or old. Traffic stays as it is."),
        )
    if look.rewound is not None:
        yield Point(
            tone="act",
            what=say.t("The store was rewound: {why}", why=say.why(look.rewound)),
            does=say.t("relevo gives no orders and moves nothing. Traffic stays as it is."),
            wants=say.t("Recover the store."),
        )
    if look.store_error:
        yield Point(
            tone="act",
            what=say.t("The store refuses: {error}", error=look.store_error),
            does=say.t(
                "Nothing can be ordered or moved. Traffic, limits and DNS stay as they are."
            ),
            wants=say.t("Look at the store: is it reachable, has it quorum, is it full?"),
        )
    if look.fleet_broken:
        yield Point(
            tone="act",
            what=say.t("The declared fleet can't be read: {error}", error=look.fleet_broken),
            does=say.t("The fleet that was known last stays in force."),
            wants=say.t("Apply the fleet file anew."),
        )
    if look.ready and not look.fleet.hosts and not look.fleet_broken:
        yield Point(
            tone="act",
            what=say.t("No fleet is declared yet."),
            does=say.t("relevo has nothing to look after."),
            wants=say.t("Declare your servers and sites: relevo fleet apply FILE"),
        )


def _contained(look: Look, say: Speech) -> Iterable[Point]:
    """Sites that relevo holds by itself, and hosts that call for people."""
    found = {site: standing[0] for site in look.penalties if (standing := look.standing(site))}
    ours = {s: p for s, p in found.items() if p.enforced and p.owner == "relevo"}
    grave = sorted(site for site, penalty in ours.items() if penalty.level >= Level.ISOLATE)
    for site in grave[:NAMED]:
        yield Point(
            tone="act",
            what=say.t(
                "{site}: {level}, by a penalty.",
                site=site,
                level=say.word(LEVELS, ours[site].level.name.lower()),
            ),
            does=say.why(ours[site].why),
            wants=say.t("Look at the proof; release it, or talk to its owner."),
            path=f"/ui/sites/{site}",
        )
    if (more := len(grave) - NAMED) > 0:
        yield Point(
            tone="act",
            what=say.n(
                "{n} more site is isolated or stopped.",
                "{n} more sites are isolated or stopped.",
                more,
            ),
            wants=say.t("relevo caps report names them."),
        )
    if slowed := len(ours) - len(grave):
        yield Point(
            tone="watch",
            what=say.n(
                "{n} site is slowed, for what its neighbours suffer.",
                "{n} sites are slowed, for what their neighbours suffer.",
                slowed,
            ),
            does=say.t("It ends by itself."),
        )
    for host, whys in sorted(look.help.items()):
        yield from (_call(look, say, host, alike) for alike in calls.grouped(whys))


def _call(look: Look, say: Speech, host: HostId, alike: Sequence[Why]) -> Point:
    """What a host calls people for: those of one kind, whatever sites they name, are one thing to do."""
    site = SiteId(calls.site_of(alike[0]))
    return Point(
        tone="act",
        what=f"{say.why(calls.headline(host, alike[0]))}.",
        does=" ".join(map(say.why, alike)),
        wants=_wanted(say, alike[0]),
        path=f"/ui/sites/{site}" if site in look.fleet.sites else f"/ui/hosts/{host}",
    )


def _wanted(say: Speech, why: Why) -> str:
    known = why.code in CALLS
    return say.word(CALLS, why.code) if known else say.t("Look at the host.")


def _doubts(look: Look, say: Speech) -> Iterable[Point]:
    if look.doubts_itself:
        yield Point(
            tone="watch",
            what=say.t("This controller doubts itself: its own loop or its links failed."),
            does=say.t("It decides nothing until they are well again. Traffic stays as it is."),
        )
    if look.ready and not look.leads and not look.leader:
        yield Point(
            tone="act",
            what=say.t("No controller leads."),
            does=say.t("Nothing is judged or moved. Traffic stays as it is."),
            wants=say.t(
                "If this lasts longer than ten seconds, look at the controllers and the store."
            ),
        )
    elif look.ready and not look.leads:
        yield Point(
            tone="info",
            what=say.t(
                "{leader} leads; this controller follows, and passes your orders on.",
                leader=look.leader,
            ),
        )


# --- hosts


def _hosts(look: Look, say: Speech) -> Iterable[Point]:
    open_now = {incident.subject: incident for incident in reversed(look.open_incidents)}
    bad = [id for id in sorted(look.fleet.hosts) if look.verdict(id) in BAD]
    for location in sorted({look.fleet.hosts[id].location for id in bad}):
        here = [id for id in bad if look.fleet.hosts[id].location == location]
        if len(here) <= EACH:
            yield from (_bad_host(look, say, id, open_now.get(id)) for id in here)
        else:
            yield _bad_location(look, say, location, here)
    for id in sorted(look.drains.keys() & look.fleet.hosts.keys()):
        if id not in bad:
            yield _drained(look, say, id)
    for kind in ("agent-lost", "suspect", "unknown"):
        ids = [id for id in sorted(look.fleet.hosts) if look.verdict(id) == kind]
        if ids and (kind != "unknown" or look.judges):
            yield _unsure(look, say, kind, ids)


def _bad_location(look: Look, say: Speech, id: LocationId, lost: Sequence[HostId]) -> Point:
    """Many hosts of one location: one thing to look at, not many."""
    location = look.fleet.locations.get(id)
    what = say.t(
        "{lost} of {hosts} hosts in {location} are lost.",
        lost=say.number(len(lost)),
        hosts=say.number(len(look.hosts_in(id))),
        location=location.name if location and location.name else id,
    )
    served = sum(look.here[host] for host in lost)
    does = say.n("{n} site is still served there.", "{n} sites are still served there.", served)
    held = sum(len(hold.sites) for hold in look.waiting if hold.subject in lost)
    if held:
        told = say.n("{n} site is held.", "{n} sites are held.", held)
        wants = say.t("Is it the network there? Then decide among the holds.")
        return Point(tone="act", what=what, does=f"{does} {told}", wants=wants, path="/holds")
    if any(incident.observed and incident.subject in lost for incident in look.open_incidents):
        wants = say.t("Move their sites by hand, or arm relevo to do it.")
        return Point(tone="act", what=what, does=does, wants=wants, path="/incidents")
    return Point(tone="bad", what=what, does=does, path="/incidents")


def _bad_host(look: Look, say: Speech, id: HostId, incident: Incident | None) -> Point:
    verdict = say.word(VERDICTS, look.verdict(id))
    what = say.t(
        "{host} ({tag}): {verdict}.", host=id, tag=look.fleet.hosts[id].tag, verdict=verdict
    )
    hold = look.holds.get(f"move-{id}")
    does = [_done(look, say, id, incident)]
    if hold is not None and (refusal := look.answered(hold)) is not None:
        does.append(
            say.t(
                "{owner} refused to move the rest: {reason}",
                owner=refusal.owner,
                reason=refusal.reason,
            )
        )
    elif hold is not None:
        return Point(
            tone="act",
            what=what,
            does=" ".join([*does, _held(say, hold)]),
            wants=_answer(say, hold),
            path=f"/holds/{hold.id}",
        )
    path = f"/incidents/{incident.id}" if incident else f"/hosts/{id}"
    told = " ".join(part for part in does if part)
    if incident is not None and incident.observed:
        wants = say.t("Move its sites by hand, or arm relevo to do it.")
        return Point(tone="act", what=what, does=told, wants=wants, path=path)
    return Point(tone="bad", what=what, does=told, path=path)


def _done(look: Look, say: Speech, id: HostId, incident: Incident | None) -> str:
    served = look.here[id]
    if incident is not None and incident.observed:
        count = len(incident.moved)
        return say.n(
            "relevo only observes: it would have moved {n} site.",
            "relevo only observes: it would have moved {n} sites.",
            count,
        )
    if incident is not None and incident.moved:
        moved = say.n("relevo moved {n} site", "relevo moved {n} sites", len(incident.moved))
        if incident.complete:
            return say.t("{moved}, proven by real requests.", moved=moved)
        return say.t("{moved}; their answers are being proven.", moved=moved)
    if not served:
        return say.t("No site is served there.")
    return say.n("{n} site is still served there.", "{n} sites are still served there.", served)


def _held(say: Speech, hold: Hold) -> str:
    if not hold.sites:
        return say.t("Held: {why}", why=say.why(hold.why))
    reasons = {held.why.code for held in hold.sites}
    if len(reasons) == 1 and len({say.why(held.why) for held in hold.sites}) == 1:
        return say.n(
            "{n} site is held. {why}",
            "{n} sites are held. {why}",
            len(hold.sites),
            why=say.why(hold.sites[0].why),
        )
    return say.t("{n} sites are held, for several reasons.", n=say.number(len(hold.sites)))


def _answer(say: Speech, hold: Hold) -> str:
    if hold.sites:
        return say.t("Decide: move them, or leave them where they are.")
    return say.t("Look at the hold.")


def _drained(look: Look, say: Speech, id: HostId) -> Point:
    note, hold = look.drains[id], look.holds.get(f"move-{id}")
    left = look.here[id]
    does = (
        say.n("{n} site is still there.", "{n} sites are still there.", left)
        if left
        else say.t("It is empty.")
    )
    what = say.t(
        "{host} is drained by {owner}: {reason}", host=id, owner=note.owner, reason=note.reason
    )
    if hold is not None and not look.answered(hold):
        does = f"{does} {_held(say, hold)}"
        return Point(
            tone="act", what=what, does=does, wants=_answer(say, hold), path=f"/holds/{hold.id}"
        )
    return Point(tone="info", what=what, does=does, path=f"/hosts/{id}")


def _unsure(look: Look, say: Speech, kind: str, ids: Sequence[HostId]) -> Point:
    named = ", ".join(ids[:NAMED])
    if len(ids) > NAMED:
        named = say.t("{named} and {n} more", named=named, n=say.number(len(ids) - NAMED))
    what = f"{say.word(VERDICTS, kind)}: {named}."
    what = what[:1].upper() + what[1:]
    path = f"/hosts/{ids[0]}" if len(ids) == 1 else ""
    why = say.why(look.why(ids[0])) if len(ids) == 1 else ""
    if kind == "agent-lost":
        does = say.t("The sites there go on answering; nothing is moved.")
        wants = say.t("Look at the agent on that server.")
        return Point(tone="act", what=what, does=f"{why} {does}".strip(), wants=wants, path=path)
    if kind == "suspect":
        does = say.t("relevo waits for proof before it moves anything.")
        return Point(tone="watch", what=what, does=f"{why} {does}".strip(), path=path)
    does = why or say.t("relevo moves nothing on doubt.")
    return Point(tone="watch", what=what, does=does, path=path)


def _other_holds(look: Look, say: Speech) -> Iterable[Point]:
    told = {f"move-{id}" for id in look.fleet.hosts if look.verdict(id) in BAD or id in look.drains}
    for hold in look.waiting:
        if hold.id not in told:
            what = say.t("Held for {subject}: {why}", subject=hold.subject, why=say.why(hold.why))
            does = say.t("relevo leaves it as it is until a person decides or the reason is gone.")
            wants = _answer(say, hold)
            yield Point(tone="act", what=what, does=does, wants=wants, path=f"/holds/{hold.id}")


# --- what people have switched


def _switches(look: Look, say: Speech) -> Iterable[Point]:
    if (note := look.paused) is not None:
        left = say.span(note.until - look.wall)
        yield Point(
            tone="watch",
            what=say.t(
                "Paused by {owner} for {left} more: {reason}",
                owner=note.owner,
                left=left,
                reason=note.reason,
            ),
            does=say.t("Nothing moves by itself; people can still act."),
            path="/failover",
        )
    if look.fleet.hosts and look.spent >= look.allowed:
        yield Point(
            tone="act",
            what=say.t(
                "The brake is on: {spent} of {allowed} causes in one hour.",
                spent=look.spent,
                allowed=look.allowed,
            ),
            does=say.t("The next failure is held for a person."),
            wants=say.t("Find out why so many hosts fail."),
            path="/failover",
        )
    if look.fleet.hosts and look.switches.all is not Arming.ARM:
        armed = look.armed_hosts
        what = (
            say.n(
                "Armed for {n} host; the others are only observed.",
                "Armed for {n} hosts; the others are only observed.",
                armed,
            )
            if armed
            else say.t(
                "relevo tells what it would move, and moves nothing. Arm what you have come to trust."
            )
        )
        yield Point(tone="info", what=what, path="/failover")
    if look.away:
        count = len(look.away)
        what = say.n("{n} site is away from home.", "{n} sites are away from home.", count)
        yield Point(tone="info", what=what, path="/sites?only=away")
