"""What a store that was rewound has forgotten, from what agents and edges still hold of it (rule R2).

Edges say where visitors go today, and traffic that works is not moved on doubt: their newest word decides for sites
behind them. For other sites it is the hosts' own orders, within what the fleet allows them (rule R15).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fleet.model import Domain, Epoch, Fleet, HostId, Placement, Site, SiteId


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The newest orders that one host has accepted: its own sites; of an edge also where each domain goes."""

    epoch: Epoch
    sites: frozenset[SiteId] = frozenset()
    domains: Mapping[Domain, HostId] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Words on one site that can't all be true. It is left at `kept`, and nothing automatic happens to it."""

    site: SiteId
    kept: HostId
    said: Mapping[
        HostId, tuple[HostId, Epoch]
    ]  # witness: where it says that the site is, since when


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What to write. `strays`: domains that edges serve and the fleet does not declare; `silent`: who said nothing."""

    generation: int
    moved: Mapping[SiteId, HostId]
    conflicts: tuple[Conflict, ...]
    strays: tuple[Domain, ...]
    silent: tuple[HostId, ...]


def recover(
    fleet: Fleet,
    places: Mapping[SiteId, Placement],
    claims: Mapping[HostId, Claim],
    generation: int,
) -> Recovery:
    """Where each site of the fleet is, as `claims` have it; `places` and `generation` are the store's own."""
    declared = {host: claim for host, claim in claims.items() if host in fleet.hosts}
    edges = {
        host: claim
        for host, claim in declared.items()
        if fleet.hosts[host].is_edge and claim.domains is not None
    }
    moved: dict[SiteId, HostId] = {}
    conflicts = []
    for id, site in sorted(fleet.sites.items()):
        stored = places[id].host if id in places else site.home
        said = _said(site, stored, declared, edges)
        host, agreed = _decide(site, stored, said, edges)
        if host != stored:
            moved[id] = host
        if not agreed:
            conflicts.append(Conflict(site=id, kept=host, said=said))
    served = {domain for edge in edges.values() for domain in edge.domains or {}}
    known = {domain for site in fleet.sites.values() for domain in site.domains}
    return Recovery(
        generation=max(generation, *(c.epoch.generation for c in declared.values()), 0) + 1,
        moved=moved,
        conflicts=tuple(conflicts),
        strays=tuple(sorted(served - known)),
        silent=tuple(sorted(fleet.hosts.keys() - declared.keys())),
    )


def _said(
    site: Site, stored: HostId, claims: Mapping[HostId, Claim], edges: Mapping[HostId, Claim]
) -> dict[HostId, tuple[HostId, Epoch]]:
    """Everybody's word on one site: the edges' where they route it, and that of each host that may serve it."""
    words = {
        host: (host, claim.epoch)
        for host, claim in claims.items()
        if site.id in claim.sites and host in {stored, site.home, *site.standbys}
    }
    if site.route == "edges":
        for edge, claim in edges.items():
            goes = {d: h for d, h in (claim.domains or {}).items() if d in site.domains}
            if target := goes.get(site.domains[0]):
                words[edge] = (target, claim.epoch)
    return words


def _decide(
    site: Site,
    stored: HostId,
    said: Mapping[HostId, tuple[HostId, Epoch]],
    edges: Mapping[HostId, Claim],
) -> tuple[HostId, bool]:
    """(where the site is, whether that is beyond doubt)."""
    routed = {witness: word for witness, word in said.items() if witness in edges}
    if routed:
        newest = max(epoch for _, epoch in routed.values())
        targets = {host for host, epoch in routed.values() if epoch == newest}
        if len(targets) > 1:
            return stored, False
        (target,) = targets
        newer = any(
            host != target and epoch > newest
            for witness, (host, epoch) in said.items()
            if witness not in edges
        )
        return target, not newer
    hosts = {host for host, _ in said.values()}
    if len(hosts) == 1:
        (host,) = hosts
        return host, True
    return stored, not hosts
