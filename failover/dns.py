"""What each zone should say: every site's names at the addresses that serve it now; absence removes nothing."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from failover.policy import Policy
from fleet.model import (
    Domain,
    Fleet,
    Host,
    HostId,
    LocationId,
    RecordSet,
    Site,
    SiteId,
    Why,
    Zone,
    ZoneIntent,
    ZoneName,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What separates two intents, sorted by name."""

    created: tuple[Domain, ...]
    updated: tuple[Domain, ...]
    removed: tuple[Domain, ...]


def intents(
    fleet: Fleet,
    serving: Mapping[SiteId, HostId],
    down_edges: frozenset[HostId],
    previous: Mapping[ZoneName, ZoneIntent],
) -> dict[ZoneName, ZoneIntent]:
    """What each declared zone should say, given where each site is served; idempotent.

    A name whose addresses can't be told (its site is not in `serving`, no edge is left) keeps those of
    `previous`; a name whose site or domain left the fleet is among `removed`, and stays there until the
    caller takes it out. An intent that does not change is returned as it was, its incident included.
    """
    targets = _Targets(fleet, down_edges)
    declared: dict[ZoneName, dict[Domain, RecordSet | None]] = {name: {} for name in fleet.zones}
    domains: set[Domain] = set()
    for id in sorted(fleet.sites):
        site = fleet.sites[id]
        records = targets.of(site, serving.get(id))
        domains.update(site.domains)
        for domain in site.domains:
            if zone := fleet.zone_of(domain):
                declared[zone.name].setdefault(domain, records)
    return {
        name: _intent(declared[name], domains, previous.get(name, ZoneIntent()))
        for name in sorted(fleet.zones)
    }


def changes(previous: ZoneIntent, wanted: ZoneIntent) -> Changes:
    """What `wanted` would do to a zone that says `previous`."""
    return Changes(
        created=tuple(sorted(wanted.names.keys() - previous.names.keys())),
        updated=tuple(
            name
            for name in sorted(wanted.names.keys() & previous.names.keys())
            if wanted.names[name] != previous.names[name]
        ),
        removed=tuple(sorted(set(wanted.removed) - set(previous.removed))),
    )


def too_much(zone: Zone, previous: ZoneIntent, wanted: ZoneIntent, policy: Policy) -> Why | None:
    """Why a human must see this change first, if so: it updates or removes too many of the zone's names.

    For changes that come from intent. What follows from a proven cause is bounded by the brake instead.
    """
    difference = changes(previous, wanted)
    touched = len(difference.updated) + len(difference.removed)
    names = len(previous.names)
    allowed = max(policy.dns_change_minimum, int(policy.dns_change_ratio * names))
    if touched <= allowed:
        return None
    return Why(
        "dns-too-many-changes",
        {
            "zone": zone.name,
            "updated": len(difference.updated),
            "removed": len(difference.removed),
            "names": names,
            "allowed": allowed,
        },
    )


def records(addresses: Iterable[str]) -> RecordSet:
    """`addresses` (IP literals) as a record set: canonical, sorted, each once."""
    parsed = {ipaddress.ip_address(address) for address in addresses}
    return RecordSet(
        a=tuple(sorted(str(address) for address in parsed if address.version == 4)),
        aaaa=tuple(sorted(str(address) for address in parsed if address.version == 6)),
    )


class _Targets:
    """Whose addresses a site's names carry."""

    def __init__(self, fleet: Fleet, down_edges: frozenset[HostId]) -> None:
        self._hosts = fleet.hosts
        edges = [host for _, host in sorted(fleet.hosts.items()) if host.is_edge]
        live = [edge for edge in edges if edge.id not in down_edges]
        self._edgeless = not edges
        self._anywhere = _addresses(live)
        self._in: dict[LocationId, RecordSet] = {
            location: _addresses(edge for edge in live if edge.location == location)
            for location in {edge.location for edge in live}
        }

    def of(self, site: Site, host: HostId | None) -> RecordSet | None:
        """None: can't be told. A co-op without edges has its sites at their hosts' addresses."""
        server, home = self._hosts.get(host or site.home), self._hosts.get(site.home)
        if host is None or server is None:
            return None
        if site.route == "direct" or self._edgeless:
            found = _addresses([server])
        else:
            near = self._in.get(home.location, RecordSet()) if home else RecordSet()
            found = self._anywhere if near == RecordSet() else near
        return None if found == RecordSet() else found


def _addresses(hosts: Iterable[Host]) -> RecordSet:
    return records(chain.from_iterable(host.addresses for host in hosts))


def _intent(
    declared: Mapping[Domain, RecordSet | None],
    domains: set[Domain],
    previous: ZoneIntent,
) -> ZoneIntent:
    """`domains` are those of the whole fleet: one that another zone holds now was not told to be removed here."""
    kept = {name: found for name, found in previous.names.items() if name in domains}
    told = {name: found for name, found in declared.items() if found is not None}
    gone = {*previous.names, *previous.removed} - domains
    names = dict(sorted((kept | told).items()))
    removed = tuple(sorted(gone))
    if names == previous.names and removed == previous.removed:
        return previous
    return ZoneIntent(names=names, removed=removed)
