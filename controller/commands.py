"""What people order: each is checked against what is, then one audited, fenced commit. Humans pass every brake.

Raises `Refused` when the order can't be followed, with the reason as a code; `NotLeading` where another decides.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from controller import incidents, settle
from controller.audited import Audited, NotLeading, Person, Unknown
from controller.declare import Declaring
from controller.fits import Machine
from controller.lead import Leader
from controller.mirror import Mirror
from controller.objections import Words
from controller.sight import Refused
from controller.store import Delete, Op, Put
from failover.policy import Policy
from fleet import keys
from fleet.diff import Changes
from fleet.model import (
    Arming,
    Fleet,
    HostId,
    Incident,
    IncidentId,
    LocationId,
    Mode,
    MovedSite,
    Note,
    Phase,
    SiteId,
    Switches,
    Why,
)
from runtime.clock import iso, wall

__all__ = ["Commands", "NotLeading", "Person", "Unknown"]

TOLD_MOVES = 10  # in one entry of the audit; the incident has all

K = TypeVar("K", LocationId, HostId, SiteId)


class Commands:
    """Orders of people. Each gives the revision at which it became true, already to be read in the mirror."""

    def __init__(
        self,
        mirror: Mirror,
        leader: Leader,
        policy: Policy,
        machines: Callable[[], Mapping[HostId, Machine]] = dict,
    ) -> None:
        self._mirror, self._leader = mirror, leader
        self._audited = Audited(mirror, leader)
        self.fleet = Declaring(mirror, self._audited, policy, machines)

    async def apply_fleet(
        self,
        fleet: Fleet,
        person: Person,
        *,
        base: int | None = None,
        remove: bool = False,
        much: bool = False,
    ) -> tuple[int, Changes]:
        """Make `fleet` the declared one; `Declaring.apply` says the rest."""
        words = Words(remove=remove, much=much)
        made = await self.fleet.apply(fleet, person, base=base, words=words)
        return made.revision, made.changes

    async def arm(self, scope: str, id: str, arming: Arming | None, person: Person) -> int:
        """Arm, or go back to observing: everything, a location, a host or a site. None forgets a special word."""
        mirror, old = self._mirror, self._mirror.switches
        new = _armed(old, mirror.fleet, scope, id, arming)
        what = f"{arming.value if arming else 'inherit'} {scope} {id}".strip()
        return await self._audited.commit(
            [Put(keys.SWITCHES, settle.encode(new))],
            mirror.unchanged(keys.SWITCHES),
            person,
            what,
            id,
            before=_word(old, scope, id),
            after=_word(new, scope, id),
        )

    async def pause(self, for_s: float, person: Person) -> int:
        """Stop everything automatic for a while; humans can still act."""
        now = wall()
        note = Note(owner=person.name, reason=person.reason, since=now, until=now + for_s)
        return await self._switch_pause(note, person, "pause")

    async def resume(self, person: Person) -> int:
        return await self._switch_pause(None, person, "resume")

    async def _switch_pause(self, note: Note | None, person: Person, what: str) -> int:
        old = self._mirror.switches
        new = msgspec.structs.replace(old, paused=note)
        return await self._audited.commit(
            [Put(keys.SWITCHES, settle.encode(new))],
            self._mirror.unchanged(keys.SWITCHES),
            person,
            what,
            "failover",
            before=_until(old.paused),
            after=_until(note),
        )

    async def drain(self, host: HostId, for_s: float, person: Person) -> int:
        """Empty a host and keep it empty until activated or until the time is over."""
        if host not in self._mirror.fleet.hosts:
            raise Unknown("host", host)
        now = wall()
        note = Note(owner=person.name, reason=person.reason, since=now, until=now + for_s)
        key = keys.drain(host)
        return await self._audited.commit(
            [Put(key, settle.encode(note))],
            self._mirror.unchanged(key),
            person,
            "drain",
            host,
            before=_until(self._mirror.drains.get(host)),
            after=_until(note),
        )

    async def activate(
        self, host: HostId, person: Person, *, bring_home: bool
    ) -> tuple[int, tuple[MovedSite, ...]]:
        """End a drain; with `bring_home` its own sites come back in one commit, if it is fit to serve."""
        mirror = self._mirror
        if host not in mirror.fleet.hosts:
            raise Unknown("host", host)
        operations: list[Op] = [Delete(keys.drain(host))] if host in mirror.drains else []
        revision = mirror.revision
        if operations:
            watched = mirror.unchanged(keys.drain(host))
            revision = await self._audited.commit(
                operations,
                watched,
                person,
                "activate",
                host,
                before=_until(mirror.drains.get(host)),
            )
        moves: tuple[MovedSite, ...] = ()
        if bring_home:
            away = self._away_from(host)
            if away:
                revision, moves = await self._move(away, person, "bring-home", subject=host)
        return revision, moves

    async def approve(
        self,
        host: HostId,
        targets: Mapping[SiteId, HostId],
        person: Person,
        *,
        old_host_stopped: bool = False,
        anyway: bool = False,
    ) -> tuple[int, tuple[MovedSite, ...]]:
        """Move sites that are served at `host`, as one incident: a person's answer to a hold.

        Raises Refused as `move` does, before anything is moved.
        """
        mirror, moves = self._mirror, []
        if host not in mirror.fleet.hosts:
            raise Unknown("host", host)
        for site, target in sorted(targets.items()):
            if (declared := mirror.fleet.sites.get(site)) is None:
                raise Unknown("site", site)
            if target not in mirror.fleet.hosts:
                raise Unknown("host", target)
            if (place := mirror.places.get(site)) is None or place.host != host or target == host:
                raise Refused(Why("changed-meanwhile"))
            if declared.effective_mode is Mode.GATED and not old_host_stopped:
                raise Refused(Why("gated-not-fenced", {"site": site, "host": host}))
            moves.append(MovedSite(site=site, source=host, target=target))
        if not moves:
            return mirror.revision, ()
        return await self._move(tuple(moves), person, "move", subject=host, anyway=anyway)

    async def refuse(self, host: HostId, for_s: float, person: Person) -> int:
        """Nothing automatic moves this host's sites, or takes it out of the DNS, for a while; people still can."""
        if host not in self._mirror.fleet.hosts:
            raise Unknown("host", host)
        now = wall()
        note = Note(owner=person.name, reason=person.reason, since=now, until=now + for_s)
        key = keys.refusal(host)
        return await self._audited.commit(
            [Put(key, settle.encode(note))],
            self._mirror.unchanged(key),
            person,
            "refuse",
            host,
            before=_until(self._mirror.refusals.get(host)),
            after=_until(note),
        )

    async def reconsider(self, host: HostId, person: Person) -> int:
        """Take a refusal back: relevo decides again as its guards let it."""
        if host not in self._mirror.fleet.hosts:
            raise Unknown("host", host)
        if host not in self._mirror.refusals:
            return self._mirror.revision
        key = keys.refusal(host)
        watched, before = self._mirror.unchanged(key), _until(self._mirror.refusals[host])
        return await self._audited.commit(
            [Delete(key)], watched, person, "reconsider", host, before=before
        )

    def _away_from(self, home: HostId) -> tuple[MovedSite, ...]:
        """Sites at home on `home` that are served elsewhere and may be moved without a word on fencing."""
        document = self._mirror.placements.get(home)
        sites = self._mirror.fleet.sites
        return tuple(
            MovedSite(site=id, source=place.host, target=home)
            for id, place in (document.sites.items() if document else ())
            if place.host != home and id in sites and sites[id].effective_mode is Mode.AUTOMATIC
        )

    async def move(
        self,
        site: SiteId,
        target: HostId,
        person: Person,
        *,
        old_host_stopped: bool = False,
        anyway: bool = False,
    ) -> tuple[int, tuple[MovedSite, ...]]:
        """Move one site now. A gated one only with a person's word that its old host no longer writes (rule R3).

        `anyway`: even though relevo does not see `target` up.
        """
        mirror = self._mirror
        if (declared := mirror.fleet.sites.get(site)) is None:
            raise Unknown("site", site)
        if target not in mirror.fleet.hosts:
            raise Unknown("host", target)
        if (place := mirror.places.get(site)) is None:
            raise Refused(Why("not-placed-yet", {"site": site}))
        if place.host == target:
            return mirror.revision, ()
        if declared.effective_mode is Mode.GATED and not old_host_stopped:
            raise Refused(Why("gated-not-fenced", {"site": site, "host": place.host}))
        moves = (MovedSite(site=site, source=place.host, target=target),)
        return await self._move(moves, person, "move", subject=site, anyway=anyway)

    async def _move(
        self,
        moves: tuple[MovedSite, ...],
        person: Person,
        verb: str,
        *,
        subject: str,
        anyway: bool = False,
    ) -> tuple[int, tuple[MovedSite, ...]]:
        if not anyway:
            self._leader.sight.refuse_unfit({move.target for move in moves})
        incident = _asked_for(moves, person, verb, subject)
        return await self._commit_moves(incident, moves, person, verb, subject), moves

    async def _commit_moves(
        self,
        incident: Incident,
        moves: tuple[MovedSite, ...],
        person: Person,
        verb: str,
        subject: str,
    ) -> int:
        mirror = self._mirror
        homes = {site: home for home, doc in mirror.placements.items() for site in doc.sites}
        documents = settle.moved(
            mirror.placements,
            homes,
            {move.site: move.target for move in moves},
            since=iso(wall()),
            why=Why(verb, {"owner": person.name, "reason": person.reason}),
            incident=incident.id,
        )
        operations: list[Op] = [
            Put(keys.placements(home), settle.encode(document))
            for home, document in documents.items()
        ]
        operations.append(Put(keys.incident(incident.id), settle.encode(incident)))
        # The fleet too: a host that is removed in this moment is no target.
        watched = mirror.unchanged(keys.FLEET, *(operation.key for operation in operations))
        return await self._audited.commit(
            operations,
            watched,
            person,
            verb,
            subject,
            before=", ".join(f"{move.site} on {move.source}" for move in moves[:TOLD_MOVES]),
            after=", ".join(f"{move.site} on {move.target}" for move in moves[:TOLD_MOVES]),
        )


def _armed(old: Switches, fleet: Fleet, scope: str, id: str, arming: Arming | None) -> Switches:
    match scope:
        case "all":
            return msgspec.structs.replace(old, all=arming or Arming.OBSERVE)
        case "location":
            if id not in fleet.locations:
                raise Unknown("location", id)
            words = _with(old.locations, LocationId(id), arming)
            return msgspec.structs.replace(old, locations=words)
        case "host":
            if id not in fleet.hosts:
                raise Unknown("host", id)
            return msgspec.structs.replace(old, hosts=_with(old.hosts, HostId(id), arming))
        case "site":
            if id not in fleet.sites:
                raise Unknown("site", id)
            return msgspec.structs.replace(old, sites=_with(old.sites, SiteId(id), arming))
    raise Unknown("scope", scope)


def _word(of: Switches, scope: str, id: str) -> str:
    """For the audit: what a scope itself says."""
    found: Arming | None = of.all
    match scope:
        case "location":
            found = of.locations.get(LocationId(id))
        case "host":
            found = of.hosts.get(HostId(id))
        case "site":
            found = of.sites.get(SiteId(id))
    return found.value if found else "inherit"


def _until(note: Note | None) -> str:
    """For the audit."""
    return f"until {iso(note.until)}" if note else ""


def _with(words: dict[K, Arming], id: K, arming: Arming | None) -> dict[K, Arming]:
    others = {key: word for key, word in words.items() if key != id}
    return others if arming is None else {**others, id: arming}


def _asked_for(moves: tuple[MovedSite, ...], person: Person, verb: str, subject: str) -> Incident:
    """A move that a person ordered has a timeline and a proof like any other."""
    now = wall()
    why = Why(verb, {"owner": person.name, "reason": person.reason})
    incident = Incident(
        id=IncidentId(incidents.new_id(subject, now)),
        cause=f"{verb}:{subject}",
        subject=f"{verb}:{subject}",
        verdict=verb,
        began_at=now,
        moved=moves,
    )
    incident = incidents.add(incident, Phase.SYMPTOM, now, why)
    counts: dict[str, str | int | float] = {"moved": len(moves), "would": 0, "held": 0}
    return incidents.add(incident, Phase.DECIDED, now, Why(incidents.DECIDED, counts))
