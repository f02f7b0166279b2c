"""What the store should say beside what people and failovers wrote: every site placed, every zone's intent current.

Pure and level-triggered: from what is to what is missing. Additions come before removals, so that a reader of any
revision between finds each site at least once (rule R7).
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from controller.store import Op, Put
from fleet import keys
from fleet.model import (
    Domain,
    Epoch,
    Fleet,
    HostId,
    IncidentId,
    Placement,
    Placements,
    RecordSet,
    SiteId,
    Tombstone,
    Why,
    ZoneIntent,
    ZoneName,
)


def place(
    fleet: Fleet, current: Mapping[HostId, Placements], since: str
) -> dict[HostId, Placements]:
    """Placement documents that must change: new sites begin at home; a site whose home changed stays where it is
    served and changes the document only; a site that left the fleet leaves its document.
    """
    places = {site: p for document in current.values() for site, p in document.sites.items()}
    documents: dict[HostId, dict[SiteId, Placement]] = {
        home: dict(document.sites) for home, document in current.items()
    }
    for id, site in fleet.sites.items():
        if id in documents.get(site.home, {}):
            continue
        begun = Placement(host=site.home, since=since, why=Why("placed-at-home"))
        documents.setdefault(site.home, {})[id] = places.get(id, begun)
    added = _changed(documents, current)
    if added:
        return added
    for home, sites in documents.items():
        for id in list(sites):
            declared = fleet.sites.get(id)
            if declared is None or declared.home != home:
                del sites[id]
    return _changed(documents, current)


def _changed(
    documents: Mapping[HostId, dict[SiteId, Placement]], current: Mapping[HostId, Placements]
) -> dict[HostId, Placements]:
    empty = Placements()
    return {
        home: Placements(sites=sites)
        for home, sites in documents.items()
        if sites != current.get(home, empty).sites
    }


def moved(
    current: Mapping[HostId, Placements],
    homes: Mapping[SiteId, HostId],
    targets: Mapping[SiteId, HostId],
    *,
    since: str,
    why: Why,
    incident: IncidentId,
) -> dict[HostId, Placements]:
    """The placement documents after moving `targets`' sites: one for each home that they have."""
    changed: dict[HostId, dict[SiteId, Placement]] = {}
    for site, target in targets.items():
        home = homes[site]
        sites = changed.setdefault(home, dict(current[home].sites))
        sites[site] = Placement(host=target, since=since, why=why, incident=incident)
    return {home: Placements(sites=sites) for home, sites in changed.items()}


def zones(
    current: Mapping[ZoneName, ZoneIntent], wanted: Mapping[ZoneName, ZoneIntent]
) -> dict[ZoneName, ZoneIntent]:
    """The zone intents to write; a zone that is no longer declared keeps what it has."""
    empty = ZoneIntent()
    changed = {}
    for zone, intent in wanted.items():
        before = current.get(zone, empty)
        if (before.names, before.removed) != (intent.names, intent.removed):
            changed[zone] = intent
    return changed


def acknowledged(applied: Iterable[Epoch], at: Epoch) -> int:
    """The oldest revision that all edges follow, of the store that stands `at`; where there are none, its newest.

    An epoch of another generation counts the revisions of another store, which say nothing of this one's.
    """
    same = (one.revision if one.generation == at.generation else 0 for one in applied)
    return min(same, default=at.revision)


def buried(
    tombstones: Mapping[str, Tombstone], created: Mapping[str, int], acknowledged: int | None
) -> tuple[str, ...]:
    """Tombstones that every edge has acknowledged, by the oldest revision that all edges follow; None: not known."""
    if acknowledged is None:
        return ()
    return tuple(id for id in tombstones if created[id] <= acknowledged)


# What orders are made from: a commit that touches any of these gets a name.
_ORDERED = (
    keys.FLEET,
    keys.PLACEMENTS,
    keys.TOMBSTONES,
    keys.PROOF,
    keys.ENFORCEMENT,
    keys.OVERRIDES,
    keys.RULINGS,
    keys.PENALTIES,  # the edges hold what a penalty says
)


def named(operations: Sequence[Op], name: str) -> tuple[Op, ...]:
    """The operations of one commit, with its random name if orders follow from it (rule R2)."""
    if not any(operation.key.startswith(_ORDERED) for operation in operations):
        return tuple(operations)
    return (*operations, Put(keys.COMMITS + name.encode(), b""))


class _Packed(msgspec.Struct, frozen=True):
    """A zone intent as stored: each distinct record set once, so that 20,000 names fit one request."""

    sets: tuple[RecordSet, ...]
    names: dict[Domain, int]
    removed: tuple[Domain, ...]
    incident: IncidentId | None


def pack(intent: ZoneIntent) -> bytes:
    sets = sorted(set(intent.names.values()))
    at = {records: index for index, records in enumerate(sets)}
    names = {name: at[records] for name, records in intent.names.items()}
    return msgspec.json.encode(_Packed(tuple(sets), names, intent.removed, intent.incident))


def unpack(stored: bytes) -> ZoneIntent:
    """What `pack` wrote."""
    packed = msgspec.json.decode(stored, type=_Packed)
    return ZoneIntent(
        names={name: packed.sets[index] for name, index in packed.names.items()},
        removed=packed.removed,
        incident=packed.incident,
    )


def encode(value: object) -> bytes:
    """The stored form of every document."""
    return msgspec.json.encode(value)
