"""What the store should say beside what people and failovers wrote, found by comparing; the leader writes it.

Derived documents, hosts that reported, edges that are fit again, and what had an end (R7, R11, R16).
"""

from collections.abc import Sequence

import msgspec

from controller import incidents, settle
from controller.incidents import Times
from controller.link import Heard, Link
from controller.mirror import Mirror
from controller.ports import Convergence
from controller.recorder import Recorder
from controller.store import Delete, Op, Put
from failover import dns
from failover.plan import Situation, returns
from failover.policy import Policy
from failover.rewound import forgotten
from fleet import keys
from fleet.model import Epoch, Known
from runtime.clock import iso

DAY_S = 24 * 3600.0
KNOWN_S = 60.0  # a host's boot is written down once a minute at most
INCIDENTS_KEPT = 2000
TOLD_S = DAY_S  # whoever comes late with a join token is told that it expired
KEPT_S = 14 * DAY_S  # evidence is deleted then (rule R16)


class Upkeep:
    """Compares the mirror with what it should be; remembers only what needs no second look."""

    def __init__(
        self, mirror: Mirror, link: Link, convergence: Convergence, policy: Policy
    ) -> None:
        self._mirror, self._link = mirror, link
        self._convergence, self._policy = convergence, policy
        self._recorder = Recorder(mirror, link.uses)
        self._settled_on: tuple[object, ...] = ()

    def begin(self) -> None:
        """A new leadership looks at everything anew."""
        self._settled_on = ()

    @property
    def settled(self) -> bool:
        """Whether the zones' intents were those of the last look, so that 'nothing to do' can be believed."""
        return bool(self._settled_on)

    def missing(self, situation: Situation, times: Times) -> Sequence[Op]:
        """Everything to write, most urgent first; each operation can be repeated."""
        return (
            *self._derived(times),
            *self._graves(),
            *self._known(times),
            *self._strangers(),
            *self._returned(situation, times),
            *self._expired(times),
            *self._recorder.missing(times),
        )

    def _derived(self, times: Times) -> list[Op]:
        """Placements and zones that follow from what changed; nothing is computed where nothing did."""
        mirror = self._mirror
        basis = (mirror.fleet, mirror.placements, mirror.withdrawn, mirror.known, mirror.dns)
        gone = any(
            self._convergence.removed(zone) & set(intent.removed)
            for zone, intent in mirror.dns.items()
            if intent.removed
        )
        if (self._same(basis) and not gone) or mirror.fleet_broken or not mirror.fleet_pointer:
            return []
        placed = settle.place(mirror.fleet, mirror.placements, iso(times.wall))
        operations: list[Op] = [
            Put(keys.placements(home), settle.encode(document)) for home, document in placed.items()
        ]
        operations += [] if placed else self._zones()
        self._settled_on = () if operations else basis
        return operations

    def _same(self, basis: tuple[object, ...]) -> bool:
        return bool(self._settled_on) and all(
            old is new for old, new in zip(self._settled_on, basis, strict=True)
        )

    def _known(self, times: Times) -> list[Op]:
        mirror, operations = self._mirror, list[Op]()
        for host, heard in self._link.heard.items():
            before = mirror.known.get(host)
            declared = mirror.fleet.hosts.get(host)
            if declared is None or (declared.is_edge and not _serves(heard)):
                continue
            if before is None or (
                before.boot_id != heard.beat.boot_id and times.wall - before.at >= KNOWN_S
            ):
                known = Known(boot_id=heard.beat.boot_id, at=times.wall)
                operations.append(Put(keys.known(host), settle.encode(known)))
        return operations

    def _strangers(self) -> list[Op]:
        """What was noted of hosts and sites that were told to leave: declared again, nothing is known of them."""
        mirror = self._mirror
        if mirror.fleet_broken or not mirror.fleet_pointer:
            return []
        gone = mirror.known.keys() - mirror.fleet.hosts.keys()
        withdrawn = mirror.withdrawn.keys() - mirror.fleet.hosts.keys()
        sites = mirror.fleet.sites.keys()
        return [
            *(Delete(keys.override(site)) for site in sorted(mirror.overrides.keys() - sites)),
            *(Delete(keys.ruling(site)) for site in sorted(mirror.rulings.keys() - sites)),
            *(Delete(keys.penalty(site)) for site in sorted(mirror.penalties.keys() - sites)),
            *(Delete(keys.known(host)) for host in sorted(gone)),
            *(Delete(keys.withdrawn(edge)) for edge in sorted(withdrawn)),
        ]

    def _returned(self, situation: Situation, times: Times) -> list[Op]:
        heard = self._link.heard
        return [
            Delete(keys.withdrawn(edge))
            for edge in returns(situation, self._policy, times.now)
            if edge in heard and _serves(heard[edge])
        ]

    def _expired(self, times: Times) -> list[Op]:
        """What had an end and has reached it (rules R11, R16)."""
        mirror = self._mirror
        operations: list[Op] = [
            Delete(keys.drain(host))
            for host, note in mirror.drains.items()
            if note.until <= times.wall
        ]
        operations += [
            Delete(keys.refusal(host))
            for host, note in mirror.refusals.items()
            if note.until <= times.wall
        ]
        operations += [
            Delete(keys.override(site))
            for site, override in mirror.overrides.items()
            if override.note.until <= times.wall
        ]
        operations += [
            Delete(keys.ruling(site))
            for site, ruling in mirror.rulings.items()
            if ruling.note.until <= times.wall
        ]
        operations += [
            Delete(keys.incident(id))
            for id, incident in mirror.incidents.items()
            if incident.closed_at is not None and incident.closed_at + KEPT_S < times.wall
        ]
        operations += [
            Delete(keys.incident(id))
            for id in incidents.too_many(mirror.incidents.values(), INCIDENTS_KEPT)
        ]
        operations += [
            Delete(keys.access_join(host))
            for host, token in mirror.joins.items()
            if token.until + TOLD_S < times.wall
        ]
        operations += [
            Delete(keys.access_token(name))
            for name, token in mirror.api_tokens.items()
            if token.until + KEPT_S < times.wall
        ]
        operations += [Delete(keys.COMMITS + name.encode()) for name in forgotten(mirror.commits)]
        paused = mirror.switches.paused
        if paused is not None and paused.until <= times.wall:
            switches = msgspec.structs.replace(mirror.switches, paused=None)
            operations.append(Put(keys.SWITCHES, settle.encode(switches)))
        return operations

    def _zones(self) -> list[Op]:
        mirror = self._mirror
        serving = {site: place.host for site, place in mirror.places.items()}
        unseen = {
            id for id, host in mirror.fleet.hosts.items() if host.is_edge and id not in mirror.known
        }
        down = frozenset(mirror.withdrawn.keys() | unseen)
        wanted = dns.intents(mirror.fleet, serving, down, mirror.dns)
        for zone, intent in wanted.items():
            if gone := self._convergence.removed(zone) & set(intent.removed):
                kept = tuple(name for name in intent.removed if name not in gone)
                wanted[zone] = msgspec.structs.replace(intent, removed=kept)
        changed = settle.zones(mirror.dns, wanted)
        return [Put(keys.dns(zone), settle.pack(intent)) for zone, intent in changed.items()]

    def _graves(self) -> list[Op]:
        """Tombstones that every declared edge has acknowledged are no longer needed."""
        mirror, heard = self._mirror, self._link.heard
        edges = [id for id, host in mirror.fleet.hosts.items() if host.is_edge]
        applied = [heard[e].applied if e in heard else Epoch() for e in edges]
        acknowledged = settle.acknowledged(applied, mirror.epoch)
        created = {id: mirror.created_at(keys.TOMBSTONES + id.encode()) for id in mirror.tombstones}
        gone = settle.buried(mirror.tombstones, created, acknowledged)
        return [Delete(keys.TOMBSTONES + id.encode()) for id in gone]


def _serves(heard: Heard) -> bool:
    """Whether an edge follows routes of ours: before that its address is no use to visitors."""
    report = heard.beat.edge
    return heard.applied > Epoch() and report is not None and report.haproxy_up
