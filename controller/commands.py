"""What people order: each is checked against what is, then one audited, fenced commit. Humans pass every brake.

Raises `Refused` when the order can't be followed, with the reason as a code; `NotLeading` where another decides.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import TypeVar

import msgspec

from controller import incidents, settle
from controller.events import Events
from controller.lead import Leader, Refused
from controller.mirror import Mirror
from controller.store import Cmp, Op, Put
from controller.store.protocol import MAX_REQUEST_BYTES, Delete
from failover import dns
from failover.policy import Policy
from fleet import keys
from fleet.chunks import split
from fleet.diff import Changes, diff, tombstone
from fleet.model import (
    Arming,
    AuditEntry,
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
    Tombstone,
    Why,
)
from runtime.clock import iso, wall

K = TypeVar("K", LocationId, HostId, SiteId)
AUDIT_KEPT = 1000
REMOVALS_ALLOWED = 5  # hosts, or sites, that one fleet file may drop without saying that it knows
STAGE_OPERATIONS = 4  # chunks of up to 256 KiB in one request of at most 1.5 MiB
assert STAGE_OPERATIONS * (256 << 10) < MAX_REQUEST_BYTES


class NotLeading(Exception):
    """This controller does not decide now."""


class Unknown(Exception):
    """No such host, site or location in the fleet."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"no {kind} {id!r} in the fleet")


@dataclass(frozen=True, slots=True)
class Person:
    """Who gives an order, and why."""

    name: str
    reason: str


class Commands:
    """Orders of people. Each gives the revision at which it became true, already to be read in the mirror."""

    def __init__(self, mirror: Mirror, leader: Leader, events: Events, policy: Policy) -> None:
        self._mirror, self._leader, self._events, self._policy = mirror, leader, events, policy
        self._applying = asyncio.Lock()

    async def apply_fleet(
        self, fleet: Fleet, person: Person, *, base: int | None = None, much: bool = False
    ) -> tuple[int, Changes]:
        """Make `fleet` the declared one, as one atomic change of any size.

        `base`: the fleet revision it was compared with; another one since is refused. `much`: the person knows that
        it removes many hosts or sites, or changes many DNS names, at once. What was removed gets a tombstone (rule R7).
        """
        async with self._applying:  # another one would sweep away the chunks that this one stages
            mirror = self._mirror
            if base is not None and base != mirror.fleet_revision:
                why = Why("fleet-changed", {"base": base, "now": mirror.fleet_revision})
                raise Refused(why)
            unchanged = mirror.unchanged(
                keys.FLEET
            )  # from before any await: what all checks below look at
            changes = diff(mirror.fleet, fleet)
            if not changes.changes and not mirror.fleet_broken:
                return mirror.fleet_revision, changes
            self._refuse_removal_of_serving(fleet)
            if not much:
                _refuse_many_removals(mirror.fleet, changes)
                self._refuse_many_names(fleet)
            pointer, chunks = split(fleet, by=person.name, reason=person.reason, at=wall())
            stone = tombstone(mirror.fleet, fleet)
            await self._stage(chunks)
            operations: list[Op] = [Put(keys.FLEET, settle.encode(pointer))]
            if stone != Tombstone():
                key = keys.TOMBSTONES + incidents.new_id("fleet", wall()).encode()
                operations.append(Put(key, settle.encode(stone)))
            revision = await self._commit(
                operations, unchanged, person, "apply fleet", str(changes)[:500]
            )
            await self._sweep(pointer.digests)
            return revision, changes

    def _refuse_removal_of_serving(self, fleet: Fleet) -> None:
        for site, place in self._mirror.places.items():
            if site in fleet.sites and place.host not in fleet.hosts:
                raise Refused(Why("host-still-serves", {"host": place.host, "site": site}))

    def _refuse_many_names(self, fleet: Fleet) -> None:
        """Past the change limit a human decides (rule R10): the order must say that it knows."""
        mirror = self._mirror
        serving = {site: place.host for site, place in mirror.places.items()}
        wanted = dns.intents(fleet, serving, frozenset(mirror.withdrawn), mirror.dns)
        for name, intent in wanted.items():
            if (before := mirror.dns.get(name)) is not None:
                why = dns.too_much(fleet.zones[name], before, intent, self._policy)
                if why is not None:
                    raise Refused(why)

    async def _stage(self, chunks: dict[str, bytes]) -> None:
        missing = sorted(self._mirror.missing_chunks(frozenset(chunks)))
        for start in range(0, len(missing), STAGE_OPERATIONS):
            some = missing[start : start + STAGE_OPERATIONS]
            puts = [Put(keys.CHUNKS + digest.encode(), chunks[digest]) for digest in some]
            await self._txn(puts, ())

    async def _sweep(self, used: frozenset[str]) -> None:
        """Drop chunks that no fleet names any more."""
        unused = sorted(self._mirror.chunk_digests() - used)
        for start in range(0, len(unused), 100):
            await self._txn(
                [Delete(keys.CHUNKS + digest.encode()) for digest in unused[start : start + 100]],
                self._mirror.unchanged(keys.FLEET),
            )

    async def arm(self, scope: str, id: str, arming: Arming | None, person: Person) -> int:
        """Arm, or go back to observing: everything, a location, a host or a site. None forgets a special word."""
        mirror, old = self._mirror, self._mirror.switches
        new = _armed(old, mirror.fleet, scope, id, arming)
        what = f"{arming.value if arming else 'inherit'} {scope} {id}".strip()
        return await self._commit(
            [Put(keys.SWITCHES, settle.encode(new))],
            mirror.unchanged(keys.SWITCHES),
            person,
            what,
            id,
        )

    async def pause(self, for_s: float, person: Person) -> int:
        """Stop everything automatic for a while; humans can still act."""
        now = wall()
        note = Note(owner=person.name, reason=person.reason, since=now, until=now + for_s)
        return await self._switch_pause(note, person, "pause")

    async def resume(self, person: Person) -> int:
        return await self._switch_pause(None, person, "resume")

    async def _switch_pause(self, note: Note | None, person: Person, what: str) -> int:
        new = msgspec.structs.replace(self._mirror.switches, paused=note)
        return await self._commit(
            [Put(keys.SWITCHES, settle.encode(new))],
            self._mirror.unchanged(keys.SWITCHES),
            person,
            what,
            "failover",
        )

    async def drain(self, host: HostId, for_s: float, person: Person) -> int:
        """Empty a host and keep it empty until activated or until the time is over."""
        if host not in self._mirror.fleet.hosts:
            raise Unknown("host", host)
        now = wall()
        note = Note(owner=person.name, reason=person.reason, since=now, until=now + for_s)
        key = keys.drain(host)
        return await self._commit(
            [Put(key, settle.encode(note))], self._mirror.unchanged(key), person, "drain", host
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
            revision = await self._commit(operations, watched, person, "activate", host)
        moves: tuple[MovedSite, ...] = ()
        if bring_home:
            away = self._away_from(host)
            if away:
                revision, moves = await self._move(away, person, "bring-home", subject=host)
        return revision, moves

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
            self._leader.refuse_unfit({move.target for move in moves})
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
        watched = mirror.unchanged(*(operation.key for operation in operations))
        return await self._commit(operations, watched, person, verb, subject)

    async def _commit(
        self, operations: Sequence[Op], when: Sequence[Cmp], person: Person, what: str, subject: str
    ) -> int:
        """The one way in: audited, fenced, and visible before it is answered."""
        now = wall()
        entry = AuditEntry(
            at=now, who=person.name, what=what, subject=subject, reason=person.reason
        )
        # Two orders of one millisecond have two revisions, or one of them is refused: no entry is lost.
        key = keys.AUDIT + incidents.new_id(f"{self._mirror.revision}", now).encode()
        when = (*when, *self._mirror.unchanged(key))
        old = sorted(self._mirror.audit)[: max(0, len(self._mirror.audit) + 1 - AUDIT_KEPT)]
        forgotten = [Delete(keys.AUDIT + id.encode()) for id in old[:10]]
        revision = await self._txn([*operations, Put(key, settle.encode(entry)), *forgotten], when)
        self._events.publish(
            "audit", who=person.name, what=what, subject=subject, reason=person.reason
        )
        return revision

    async def _txn(self, operations: Sequence[Op], when: Sequence[Cmp]) -> int:
        if (leadership := self._leader.leadership) is None:
            raise NotLeading
        result = await leadership.txn(settle.named(operations, token_hex(8)), when)
        if not result.ok:
            raise Refused(Why("changed-meanwhile"))
        await self._mirror.reached(result.revision)
        return result.revision


def _refuse_many_removals(fleet: Fleet, changes: Changes) -> None:
    """A file that was cut short must not remove half a co-op: past a tenth the order must say that it knows."""
    for kind, declared in (("hosts", len(fleet.hosts)), ("sites", len(fleet.sites))):
        removed = sum(c.kind == kind and c.what == "removed" for c in changes.changes)
        allowed = max(REMOVALS_ALLOWED, declared // 10)
        if removed > allowed:
            values: dict[str, str | int | float] = {
                "removed": removed,
                "kind": kind,
                "of": declared,
                "allowed": allowed,
            }
            raise Refused(Why("fleet-too-many-removed", values))


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
