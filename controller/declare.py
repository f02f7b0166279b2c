"""Changes of the declared fleet: compared, refused or made as one atomic commit of any size, logged, taken back."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from controller import incidents, settle
from controller.audited import Audited, NotLeading, Person, Unknown
from controller.fits import Machine, misfits
from controller.mirror import Mirror
from controller.objections import Scene, Words, named, objections, still_serving
from controller.sight import Refused
from controller.store import Cmp, Delete, Op, Put, StoreError
from controller.store.protocol import MAX_REQUEST_BYTES
from failover.policy import Policy
from fleet import keys
from fleet.caps import Enforcement
from fleet.chunks import CHUNK_LIMIT_BYTES, split
from fleet.diff import Changes, apply, diff, tombstone
from fleet.enforcement import changed, waiting
from fleet.findings import Finding
from fleet.history import (
    LoggedChange,
    LostDetails,
    kept,
    logged,
    pack,
    to_undo,
    touching,
    unpack,
)
from fleet.kinds import Item, id_of, items
from fleet.model import Fleet, HostId, Tombstone, Why
from fleet.single import BadItem, canonical, raise_if_bad, tag_of, with_item, without_item
from runtime import log
from runtime.clock import wall

_log = log.logger("fleet")

STAGED_BYTES = 4 * CHUNK_LIMIT_BYTES  # in one request of at most 1.5 MiB
STAGED_AT_ONCE = 100  # of 128 operations
assert STAGED_BYTES < MAX_REQUEST_BYTES
SWEPT_AT_ONCE = 100  # of 128 operations
COMPARED_MOST = 100  # of 128 compares


class Outdated(Refused):
    """The order was for something that is not so any more. `tag`: the present one, empty where there is none."""

    def __init__(self, why: Why, tag: str) -> None:
        super().__init__(why)
        self.tag = tag


class NoChange(Unknown):
    """The log holds no such change."""

    def __init__(self, number: int | None) -> None:
        Exception.__init__(
            self, f"no change {number} in the log" if number else "no change in the log"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What would change from the fleet at `revision`, and why that would be refused without further words."""

    revision: int
    changes: Changes
    refused: tuple[Why, ...]
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """`revision` is the fleet's now; `number` the change's in the log, None where nothing changed."""

    revision: int
    number: int | None
    changes: Changes
    warnings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class _Basis:
    """What an order is judged against, from before any await; `unchanged` holds while it is so."""

    fleet: Fleet
    enforcement: Enforcement
    unchanged: tuple[Cmp, ...]


class Declaring:
    """People's word on what the fleet is. One change at a time: another one would sweep away staged chunks."""

    def __init__(
        self,
        mirror: Mirror,
        audited: Audited,
        policy: Policy,
        machines: Callable[[], Mapping[HostId, Machine]] = dict,
    ) -> None:
        self._mirror, self._audited, self._policy = mirror, audited, policy
        self._machines = machines
        self._turn = asyncio.Lock()

    # --- the whole

    def compare(self, fleet: Fleet) -> Comparison:
        """What `apply` would do, and what it would be refused for."""
        old = self._mirror.fleet
        changes = diff(old, fleet)
        refused = tuple(objections(old, fleet, changes, Words(), self._scene(), self._policy))
        armed = self._mirror.enforcement
        became = changed(armed, old.plans, fleet.plans, keep=False, now=wall())
        return Comparison(
            revision=self._mirror.fleet_revision,
            changes=changes,
            refused=refused,
            warnings=self._weighed(old, fleet, changes, became),
        )

    async def apply(
        self, fleet: Fleet, person: Person, *, base: int | None = None, words: Words
    ) -> Made:
        """Make `fleet` the declared one, as one atomic change of any size.

        `base`: the fleet revision it was compared with; another one since is refused. What was removed gets a
        tombstone (rule R7).
        """
        async with self._turn:
            self._audited.must_lead()
            if base is not None and base != self._mirror.fleet_revision:
                raise self._outdated(base)
            return await self._make(self._basis(), fleet, person, "apply fleet", words)

    def _outdated(self, base: int) -> Outdated:
        mirror = self._mirror
        values: dict[str, str | int | float] = {"base": base, "now": mirror.fleet_revision}
        if mirror.fleet_log:
            last = mirror.fleet_log[max(mirror.fleet_log)]
            values |= {"who": last.who, "change": last.number}
        return Outdated(Why("fleet-changed", values), str(mirror.fleet_revision))

    # --- one item

    async def put(
        self, kind: str, item: Item, expected: str | None, person: Person, *, much: bool
    ) -> tuple[Made, Item]:
        """Declare one item; gives it as it is declared now.

        `expected`: the tag that it has (`*`: any), None where it must be new.
        """
        async with self._turn:
            self._audited.must_lead()
            basis, item = self._basis(), canonical(item)
            before = items(basis.fleet, kind).get(id_of(item))
            _refuse_unexpected(kind, id_of(item), before, expected)
            fleet = with_item(basis.fleet, kind, item)
            warnings = await asyncio.to_thread(raise_if_bad, fleet)
            what = f"{'add' if before is None else 'change'} {kind.removesuffix('s')}"
            words = Words(remove=True, much=much)
            made = await self._make(
                basis, fleet, person, what, words, warnings=_about(warnings, kind, id_of(item))
            )
            return made, item

    async def delete(
        self, kind: str, id: str, expected: str, person: Person, *, much: bool
    ) -> Made:
        """Remove one item that nothing else names any more."""
        async with self._turn:
            self._audited.must_lead()
            basis = self._basis()
            before = items(basis.fleet, kind).get(id)
            if before is None:
                raise Unknown(kind.removesuffix("s"), id)
            _refuse_unexpected(kind, id, before, expected)
            fleet = without_item(basis.fleet, kind, id)
            self._refuse_removal_of_serving(fleet)  # says more than who names it
            try:
                await asyncio.to_thread(raise_if_bad, fleet)
            except BadItem as bad:
                places = [finding.field for finding in bad.findings]
                raise Refused(
                    Why(
                        "still-needed",
                        {"item": f"{kind}.{id}", "count": len(places), "by": named(places)},
                    )
                ) from bad
            words = Words(remove=True, much=much)
            return await self._make(basis, fleet, person, f"remove {kind.removesuffix('s')}", words)

    # --- what was

    def log(self) -> tuple[LoggedChange, ...]:
        """Newest first."""
        log = self._mirror.fleet_log
        return tuple(log[number] for number in sorted(log, reverse=True))

    def logged(self, number: int | None) -> LoggedChange:
        """One entry; the newest for None. Raises NoChange."""
        log = self._mirror.fleet_log
        if number is None:
            number = max(log, default=None)
        if number is None or number not in log:
            raise NoChange(number)
        return log[number]

    async def details(self, entry: LoggedChange) -> Changes:
        """What it did, item by item. Raises Refused where that is not kept any more."""
        try:
            return await asyncio.to_thread(unpack, entry, self._parts(entry))
        except LostDetails as lost:
            raise Refused(Why("details-gone", {"change": entry.number})) from lost

    def _parts(self, *entries: LoggedChange) -> dict[str, bytes]:
        digests = {digest for entry in entries for digest in entry.details}
        return self._mirror.details(digests)

    async def undo(self, number: int | None, person: Person, words: Words) -> Made:
        """Take one change back, as a change of its own; None: the last one.

        Refused where something that it touched was changed again since, with the changes that did.
        """
        async with self._turn:
            self._audited.must_lead()
            basis, entry = self._basis(), self.logged(number)
            did = await self.details(entry)
            back, other = to_undo(basis.fleet, did)
            if other:
                raise Refused(
                    await self._in_the_way(entry, "undo-conflict", [(c.kind, c.id) for c in other])
                )
            if not back:
                raise Refused(Why("undone-already", {"change": entry.number}))
            fleet = apply(basis.fleet, back)
            try:
                await asyncio.to_thread(raise_if_bad, fleet)
            except BadItem as bad:
                places = [(str(f.path[0]), str(f.path[1])) for f in bad.findings if len(f.path) > 1]
                raise Refused(await self._in_the_way(entry, "undo-leaves", places)) from bad
            what = f"undo change {entry.number}"
            return await self._make(basis, fleet, person, what, words, undoes=entry.number)

    async def _in_the_way(
        self, entry: LoggedChange, code: str, places: list[tuple[str, str]]
    ) -> Why:
        """Why `entry` can't be undone: `places` (kind, id), and which changes since have touched them."""
        since = [other for number, other in self._mirror.fleet_log.items() if number > entry.number]
        since.sort(key=lambda other: other.number)
        parts = self._parts(*since)
        later = await asyncio.to_thread(_unpacked, since, parts)
        numbers = ", ".join(map(str, touching(places, later)))
        names = named(dict.fromkeys(f"{kind}.{id}" for kind, id in places))
        return Why(code, {"change": entry.number, "items": names, "later": numbers})

    # --- making it true

    def _basis(self) -> _Basis:
        mirror = self._mirror
        unchanged = mirror.unchanged(keys.FLEET, keys.ENFORCEMENT)
        return _Basis(mirror.fleet, mirror.enforcement, unchanged)

    async def _make(
        self,
        basis: _Basis,
        fleet: Fleet,
        person: Person,
        what: str,
        words: Words,
        *,
        undoes: int | None = None,
        warnings: tuple[Finding, ...] = (),
    ) -> Made:
        mirror, armed = self._mirror, basis.enforcement
        changes = diff(basis.fleet, fleet)
        if not changes and not mirror.fleet_broken:
            return Made(
                revision=mirror.fleet_revision, number=None, changes=changes, warnings=warnings
            )
        scene = self._scene()
        for why in objections(basis.fleet, fleet, changes, words, scene, self._policy):
            raise Refused(why)
        await asyncio.sleep(0)  # a large fleet takes a while, and beats come in meanwhile
        now, number = wall(), max(mirror.fleet_log, default=0) + 1
        pointer, chunks = split(fleet, by=person.name, reason=person.reason, at=now)
        await asyncio.sleep(0)
        parts = pack(changes)
        entry = logged(
            changes,
            parts,
            number=number,
            at=now,
            who=person.name,
            reason=person.reason,
            undoes=undoes,
        )
        entries, details = kept((*mirror.fleet_log.values(), entry))
        await self._stage(chunks, parts)
        self._refuse_removal_of_serving(fleet)  # again: sites may have moved meanwhile
        operations: list[Op] = [
            Put(keys.FLEET, settle.encode(pointer)),
            Put(keys.fleet_log(number), settle.encode(entry)),
        ]
        enforced = changed(armed, basis.fleet.plans, fleet.plans, keep=words.keep, now=now)
        if enforced != armed:
            operations.append(Put(keys.ENFORCEMENT, settle.encode(enforced)))
        gone = sorted(mirror.fleet_log.keys() - {other.number for other in entries})
        operations += [Delete(keys.fleet_log(old)) for old in gone[:SWEPT_AT_ONCE]]
        stone = tombstone(basis.fleet, fleet)
        if stone != Tombstone():
            key = keys.TOMBSTONES + incidents.new_id("fleet", now).encode()
            operations.append(Put(key, settle.encode(stone)))
        when = (*basis.unchanged, *self._no_move_to_removed(basis.fleet, fleet))
        revision = await self._audited.commit(
            operations,
            when,
            person,
            what,
            str(changes)[:500],
            after=f"change {number}; in full: relevo fleet log {number}",
        )
        try:
            await self._sweep(pointer.digests, details)
        except (StoreError, NotLeading, Refused) as failed:
            # The change is made, and must not look as if it were not; the next one sweeps again.
            _log.info("swept nothing", error=repr(failed))
        warnings += self._weighed(basis.fleet, fleet, changes, enforced)
        return Made(revision=revision, number=number, changes=changes, warnings=warnings)

    def _weighed(
        self, old: Fleet, new: Fleet, changes: Changes, enforced: Enforcement
    ) -> tuple[Finding, ...]:
        """What people should know of plans that they change, beside what the plans themselves say."""
        serving = {site: place.host for site, place in self._mirror.places.items()}
        return (
            *waiting(old.plans, new.plans, enforced),
            *misfits(new, changes, serving, self._machines()),
        )

    def _no_move_to_removed(self, old: Fleet, new: Fleet) -> tuple[Cmp, ...]:
        """Holds while no site has just moved to a host that goes; first those that may go there by themselves."""
        gone = old.hosts.keys() - new.hosts.keys()
        if not gone:
            return ()
        drawn = {s.home for s in old.sites.values() if not gone.isdisjoint((s.home, *s.standbys))}
        homes = sorted(self._mirror.placements, key=lambda home: (home not in drawn, home))
        return self._mirror.unchanged(*(keys.placements(home) for home in homes[:COMPARED_MOST]))

    async def _stage(self, chunks: Mapping[str, bytes], parts: Mapping[str, bytes]) -> None:
        mirror = self._mirror
        named = {keys.CHUNKS + digest.encode(): chunk for digest, chunk in chunks.items()}
        named |= {keys.FLEET_DETAILS + digest.encode(): part for digest, part in parts.items()}
        missing = {key: named[key] for key in sorted(named) if not mirror.holds_key(key)}
        for puts in staged(missing):
            await self._audited.txn(puts, ())

    async def _sweep(self, chunks: frozenset[str], details: frozenset[str]) -> None:
        """Drop chunks that no fleet, and details that no entry to keep names any more."""
        mirror = self._mirror
        unused = [keys.CHUNKS + d.encode() for d in sorted(mirror.chunk_digests() - chunks)]
        unused += [
            keys.FLEET_DETAILS + d.encode() for d in sorted(mirror.detail_digests() - details)
        ]
        for start in range(0, len(unused), SWEPT_AT_ONCE):
            some = unused[start : start + SWEPT_AT_ONCE]
            await self._audited.txn([Delete(key) for key in some], mirror.unchanged(keys.FLEET))

    def _refuse_removal_of_serving(self, fleet: Fleet) -> None:
        if why := still_serving(fleet, self._scene().serving):
            raise Refused(why)

    def _scene(self) -> Scene:
        mirror = self._mirror
        return Scene(
            serving={site: place.host for site, place in mirror.places.items()},
            withdrawn=mirror.withdrawn.keys(),
            zones=mirror.dns,
        )


def staged(missing: Mapping[bytes, bytes]) -> Iterator[list[Put]]:
    """All of `missing`, in as few requests as the store takes. No value is above CHUNK_LIMIT_BYTES."""
    puts: list[Put] = []
    total = 0
    for key, value in missing.items():
        if puts and (len(puts) == STAGED_AT_ONCE or total + len(value) > STAGED_BYTES):
            yield puts
            puts, total = [], 0
        puts.append(Put(key, value))
        total += len(value)
    if puts:
        yield puts


def _unpacked(
    entries: Iterable[LoggedChange], parts: Mapping[str, bytes]
) -> list[tuple[LoggedChange, Changes]]:
    """Those whose details are still kept."""
    found = []
    for entry in entries:
        try:
            found.append((entry, unpack(entry, parts)))
        except LostDetails:
            continue
    return found


def _refuse_unexpected(kind: str, id: str, before: Item | None, expected: str | None) -> None:
    name = f"{kind}.{id}"
    tag = tag_of(before) if before is not None else ""
    if expected is None and before is not None:
        raise Outdated(Why("item-exists", {"item": name}), tag)
    if expected is not None and before is None:
        raise Outdated(Why("item-gone", {"item": name}), tag)
    if expected not in (None, "*", tag):
        raise Outdated(Why("item-changed", {"item": name}), tag)


def _about(warnings: Iterable[Finding], kind: str, id: str) -> tuple[Finding, ...]:
    return tuple(warning for warning in warnings if warning.path[:2] == (kind, id))
