"""The store in memory, typed: one list and one watch; every read of the controller comes from here."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from controller.settle import unpack
from controller.store import KV, Cmp, Compacted, Denied, Event, Store, Unavailable
from fleet import keys
from fleet.access import ApiToken, HostCredential, JoinToken
from fleet.caps import Enforcement, Override, Ruling
from fleet.chunks import BrokenFleet, FleetPointer, join
from fleet.history import LoggedChange
from fleet.model import (
    AuditEntry,
    Budget,
    ControllerId,
    Domain,
    Epoch,
    Fleet,
    Hold,
    HostId,
    Incident,
    IncidentId,
    Known,
    Note,
    Observation,
    Placement,
    Placements,
    SiteId,
    StoreId,
    Switches,
    Tombstone,
    ZoneIntent,
    ZoneName,
)
from fleet.notified import Notified
from fleet.penalized import Penalized
from runtime import log
from runtime.pulse import Pulse

LIST_AGAIN_S = 0.5

_log = log.logger("mirror")
_placements = msgspec.json.Decoder(Placements).decode
_note = msgspec.json.Decoder(Note).decode
_known = msgspec.json.Decoder(Known).decode
_incident = msgspec.json.Decoder(Incident).decode
_hold = msgspec.json.Decoder(Hold).decode
_tombstone = msgspec.json.Decoder(Tombstone).decode
_loggedchange = msgspec.json.Decoder(LoggedChange).decode
_observation = msgspec.json.Decoder(Observation).decode
_auditentry = msgspec.json.Decoder(AuditEntry).decode
_apitoken = msgspec.json.Decoder(ApiToken).decode
_hostcredential = msgspec.json.Decoder(HostCredential).decode
_notified = msgspec.json.Decoder(Notified).decode
_override = msgspec.json.Decoder(Override).decode
_ruling = msgspec.json.Decoder(Ruling).decode
_penalized = msgspec.json.Decoder(Penalized).decode
_jointoken = msgspec.json.Decoder(JoinToken).decode
T = TypeVar("T")


class Mirror:
    """What the store says at `revision`. Values are replaced, never changed in place: hold on to them freely."""

    def __init__(self) -> None:
        self.revision = 0
        self.ready = False
        self.changed = Pulse()
        self.id = StoreId(cluster="", generation=0)
        self.fleet = Fleet()
        self.fleet_pointer: FleetPointer | None = None
        self.fleet_revision = 0
        self.fleet_broken = ""
        self.fleet_log: Mapping[int, LoggedChange] = {}
        self.commits: Mapping[str, int] = {}
        self.switches = Switches()
        self.budget = Budget()
        self.proof = ""
        self.placements: Mapping[HostId, Placements] = {}
        self.places: Mapping[SiteId, Placement] = {}
        self.drains: Mapping[HostId, Note] = {}
        self.refusals: Mapping[HostId, Note] = {}
        self.withdrawn: Mapping[HostId, Note] = {}
        self.known: Mapping[HostId, Known] = {}
        self.dns: Mapping[ZoneName, ZoneIntent] = {}
        self.incidents: Mapping[IncidentId, Incident] = {}
        self.holds: Mapping[str, Hold] = {}
        self.tombstones: Mapping[str, Tombstone] = {}
        self.audit: Mapping[str, AuditEntry] = {}
        self.api_tokens: Mapping[str, ApiToken] = {}
        self.credentials: Mapping[HostId, HostCredential] = {}
        self.joins: Mapping[HostId, JoinToken] = {}
        self.notified: Mapping[str, Notified] = {}
        self.enforcement = Enforcement()
        self.overrides: Mapping[SiteId, Override] = {}
        self.rulings: Mapping[SiteId, Ruling] = {}
        self.penalties: Mapping[SiteId, Penalized] = {}
        self.leader: ControllerId | None = None
        self.observers: Mapping[ControllerId, Observation] = {}
        self.site_of: Mapping[Domain, SiteId] = {}
        self._items: dict[bytes, KV] = {}
        self._decoded: dict[bytes, dict[bytes, tuple[int, Any]]] = {}

    @property
    def epoch(self) -> Epoch:
        return Epoch(self.id.generation, self.revision)

    def revision_of(self, key: bytes) -> int:
        """The revision that last wrote `key`; 0 if it does not exist."""
        return item.mod_revision if (item := self._items.get(key)) else 0

    def created_at(self, key: bytes) -> int:
        return item.create_revision if (item := self._items.get(key)) else 0

    def unchanged(self, *watched: bytes) -> tuple[Cmp, ...]:
        """Compares that hold only while `watched` keys are as this mirror has them (rule R1)."""
        return tuple(Cmp(key, "mod", "=", self.revision_of(key)) for key in watched)

    def holds_key(self, key: bytes) -> bool:
        return key in self._items

    def chunk_digests(self) -> frozenset[str]:
        return self._leaves(keys.CHUNKS)

    def detail_digests(self) -> frozenset[str]:
        return self._leaves(keys.FLEET_DETAILS)

    def _leaves(self, prefix: bytes) -> frozenset[str]:
        return frozenset(keys.leaf(key) for key in self._items if key.startswith(prefix))

    def details(self, digests: Iterable[str]) -> dict[str, bytes]:
        """The pieces of what fleet changes did, those that are kept."""
        named = {
            digest: self._items.get(keys.FLEET_DETAILS + digest.encode()) for digest in digests
        }
        return {digest: item.value for digest, item in named.items() if item is not None}

    async def reached(self, revision: int) -> None:
        """Wait until a write of ours, at `revision`, can be read here."""
        while self.revision < revision:
            await self.changed.after(self.changed.count)

    async def follow(self, store: Store) -> None:
        """Eternal: keep up with the store; what was compacted away is listed again. Raises Rewound (rule R2)."""
        while True:
            try:
                snapshot = await store.list(keys.PREFIX)
            except (Unavailable, Denied) as error:  # a permission may come back, too
                _log.warning("can't read the store", error=str(error))
                await asyncio.sleep(LIST_AGAIN_S)
                continue
            self._items = {item.key: item for item in snapshot.items}
            self._load({_section(key) for key in self._items} | _SECTIONS, snapshot.revision)
            try:
                async for batch in store.watch(keys.PREFIX, after=snapshot.revision):
                    self._take(batch.events, batch.revision)
            except Compacted as gone:
                _log.warning("watch compacted", oldest=gone.revision)
            except Denied as error:
                _log.warning("can't watch the store", error=str(error))
                await asyncio.sleep(LIST_AGAIN_S)

    def _take(self, events: tuple[Event, ...], revision: int) -> None:
        for event in events:
            if event.kind == "put":
                self._items[event.kv.key] = event.kv
            else:
                self._items.pop(event.kv.key, None)
        self._load({_section(event.kv.key) for event in events}, revision)

    def _load(self, sections: set[bytes], revision: int) -> None:
        """Decode what changed, then say so: readers see one revision or the next, nothing between."""
        for section in sections:
            if load := _LOADERS.get(section):
                load(self)
        self.revision, self.ready = revision, True
        self.changed.beat()

    def _one(self, key: bytes, kind: type[T]) -> T | None:
        return (
            msgspec.json.decode(item.value, type=kind) if (item := self._items.get(key)) else None
        )

    def _all(self, prefix: bytes, decode: Callable[[bytes], T]) -> dict[str, T]:
        """Everything under `prefix`; only what changed is decoded, so an unchanged value stays the same object."""
        before: dict[bytes, tuple[int, T]] = self._decoded.get(prefix, {})
        after: dict[bytes, tuple[int, T]] = {}
        for key, item in self._items.items():
            if key.startswith(prefix):
                known = before.get(key)
                same = known is not None and known[0] == item.mod_revision
                after[key] = (
                    known if known is not None and same else (item.mod_revision, decode(item.value))
                )
        self._decoded[prefix] = after
        return {keys.leaf(key): value for key, (_, value) in after.items()}

    def _load_id(self) -> None:
        self.id = self._one(keys.STORE, StoreId) or StoreId(cluster="", generation=0)

    def _load_fleet(self) -> None:
        """Chunks are staged before the pointer that makes them true: only a new pointer is worth reading."""
        revision = self.revision_of(keys.FLEET)
        if revision == self.fleet_revision:
            return
        found = self._all(keys.FLEET_LOG, _loggedchange)
        self.fleet_log = {int(number): entry for number, entry in found.items()}
        pointer = self._one(keys.FLEET, FleetPointer)
        if pointer is not None:
            chunks = {
                keys.leaf(key): item.value
                for key, item in self._items.items()
                if key.startswith(keys.CHUNKS)
            }
            try:
                self.fleet = join(pointer, chunks)
                self.fleet_broken = ""
            except BrokenFleet as error:
                # The fleet that was known last stays in force; applying a fleet anew mends the store.
                self.fleet_broken, self.fleet_revision = str(error), revision
                _log.critical("the declared fleet can't be read", error=str(error))
                return
            self.site_of = {d: id for id, site in self.fleet.sites.items() for d in site.domains}
        self.fleet_pointer, self.fleet_revision = pointer, revision

    def _load_placements(self) -> None:
        found = self._all(keys.PLACEMENTS, _placements)
        self.placements = {HostId(home): document for home, document in found.items()}
        self.places = {
            site: place for document in found.values() for site, place in document.sites.items()
        }

    def _load_commits(self) -> None:
        self.commits = {
            keys.leaf(key): item.create_revision
            for key, item in self._items.items()
            if key.startswith(keys.COMMITS)
        }

    def _load_switches(self) -> None:
        self.switches = self._one(keys.SWITCHES, Switches) or Switches()

    def _load_budget(self) -> None:
        self.budget = self._one(keys.BUDGET, Budget) or Budget()

    def _load_proof(self) -> None:
        self.proof = self._one(keys.PROOF, str) or ""

    def _load_drains(self) -> None:
        self.drains = {HostId(id): note for id, note in self._all(keys.DRAINS, _note).items()}

    def _load_refusals(self) -> None:
        self.refusals = {HostId(id): note for id, note in self._all(keys.REFUSALS, _note).items()}

    def _load_withdrawn(self) -> None:
        self.withdrawn = {HostId(id): note for id, note in self._all(keys.WITHDRAWN, _note).items()}

    def _load_known(self) -> None:
        self.known = {HostId(id): known for id, known in self._all(keys.KNOWN, _known).items()}

    def _load_dns(self) -> None:
        self.dns = {ZoneName(id): zone for id, zone in self._all(keys.DNS, unpack).items()}

    def _load_incidents(self) -> None:
        found = self._all(keys.INCIDENTS, _incident)
        self.incidents = {IncidentId(id): incident for id, incident in sorted(found.items())}

    def _load_holds(self) -> None:
        self.holds = self._all(keys.HOLDS, _hold)

    def _load_tombstones(self) -> None:
        self.tombstones = self._all(keys.TOMBSTONES, _tombstone)

    def _load_audit(self) -> None:
        self.audit = self._all(keys.AUDIT, _auditentry)

    def _load_access(self) -> None:
        self.api_tokens = self._all(keys.ACCESS_TOKENS, _apitoken)
        hosts = self._all(keys.ACCESS_HOSTS, _hostcredential)
        self.credentials = {HostId(id): credential for id, credential in hosts.items()}
        joins = self._all(keys.ACCESS_JOINS, _jointoken)
        self.joins = {HostId(id): token for id, token in joins.items()}

    def _load_notified(self) -> None:
        self.notified = self._all(keys.NOTIFIED, _notified)

    def _load_enforcement(self) -> None:
        self.enforcement = self._one(keys.ENFORCEMENT, Enforcement) or Enforcement()

    def _load_overrides(self) -> None:
        self.overrides = {SiteId(id): it for id, it in self._all(keys.OVERRIDES, _override).items()}

    def _load_rulings(self) -> None:
        self.rulings = {SiteId(id): it for id, it in self._all(keys.RULINGS, _ruling).items()}

    def _load_penalties(self) -> None:
        found = self._all(keys.PENALTIES, _penalized)
        self.penalties = {SiteId(id): it for id, it in found.items()}

    def _load_leader(self) -> None:
        item = self._items.get(keys.LEADER)
        self.leader = ControllerId(item.value.decode()) if item else None

    def _load_observers(self) -> None:
        found = self._all(keys.OBSERVERS, _observation)
        self.observers = {ControllerId(id): said for id, said in found.items()}


_LOADERS = {
    b"store": Mirror._load_id,
    b"fleet": Mirror._load_fleet,
    b"placements": Mirror._load_placements,
    b"commits": Mirror._load_commits,
    b"switches": Mirror._load_switches,
    b"budget": Mirror._load_budget,
    b"proof": Mirror._load_proof,
    b"drains": Mirror._load_drains,
    b"refusals": Mirror._load_refusals,
    b"withdrawn": Mirror._load_withdrawn,
    b"known": Mirror._load_known,
    b"dns": Mirror._load_dns,
    b"incidents": Mirror._load_incidents,
    b"holds": Mirror._load_holds,
    b"tombstones": Mirror._load_tombstones,
    b"audit": Mirror._load_audit,
    b"access": Mirror._load_access,
    b"notified": Mirror._load_notified,
    b"enforcement": Mirror._load_enforcement,
    b"overrides": Mirror._load_overrides,
    b"rulings": Mirror._load_rulings,
    b"penalties": Mirror._load_penalties,
    b"leader": Mirror._load_leader,
    b"observers": Mirror._load_observers,
}
_SECTIONS = set(_LOADERS)


def _section(key: bytes) -> bytes:
    return key.removeprefix(keys.PREFIX).split(b"/", 1)[0]
