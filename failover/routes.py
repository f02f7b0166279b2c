"""The complete desired state of one agent, from the store at one revision: any controller computes the same."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from failover.limits import edge_limits
from fleet.caps import Enforcement, Override, Penalty, Ruling, Tenant
from fleet.inforce import Force, Forces
from fleet.messages import ALIVE, EdgeLimit, Orders, Routes, Target
from fleet.model import (
    Caps,
    Epoch,
    Fleet,
    Host,
    HostId,
    Placement,
    PlanId,
    Role,
    Site,
    SiteId,
    Tombstone,
)
from fleet.penalized import Penalized

NEIGHBOURS = (
    3  # probes of each host where there are no edges: a majority survives one liar (rule R15)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What orders are made from; all of it read at one store revision. `penalties`: the enforced ones that stand."""

    cluster: str
    commit: str
    fleet: Fleet
    places: Mapping[SiteId, Placement]
    tombstones: tuple[Tombstone, ...] = ()
    proof: str = ""
    enforcement: Enforcement = field(default_factory=Enforcement)
    overrides: Mapping[SiteId, Override] = field(default_factory=dict)
    rulings: Mapping[SiteId, Ruling] = field(default_factory=dict)
    penalties: Mapping[SiteId, tuple[Penalty, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the orders of many agents have in common, computed once for a revision."""

    routes: Routes
    sites: Mapping[HostId, tuple[SiteId, ...]]
    has_edges: bool
    addressed: frozenset[HostId]
    plans: dict[PlanId, Caps]
    forces: Forces


def shared(intent: Intent) -> Shared:
    """The part of all orders that does not depend on whose they are."""
    here: dict[HostId, list[SiteId]] = {}
    for id, place in sorted(intent.places.items()):
        here.setdefault(place.host, []).append(id)
    forces = Forces(intent.enforcement, intent.fleet.plans)
    return Shared(
        routes=routes(intent, forces),
        sites={host: tuple(sites) for host, sites in here.items()},
        has_edges=any(host.is_edge for host in intent.fleet.hosts.values()),
        addressed=frozenset(
            host
            for site in intent.fleet.sites.values()
            if site.route == "direct"
            for host in (site.home, *site.standbys)
        ),
        plans={id: plan.caps for id, plan in sorted(intent.fleet.plans.items())},
        forces=forces,
    )


def routes(intent: Intent, forces: Forces | None = None) -> Routes:
    """Where every domain behind the edges goes, the same for every edge; a site without a place has no route."""
    hosts = {
        id: target(host)
        for id, host in sorted(intent.fleet.hosts.items())
        if host.addresses and (Role.WEB in host.roles or host.is_edge)
    }
    domains = {
        domain: intent.places[id].host
        for id, site in sorted(intent.fleet.sites.items())
        if site.route == "edges" and id in intent.places
        for domain in site.domains
        if intent.places[id].host in hosts
    }
    limits = limited(intent, forces or Forces(intent.enforcement, intent.fleet.plans))
    gone = {d for stone in intent.tombstones for d in stone.domains} - domains.keys()
    gone_hosts = {h for stone in intent.tombstones for h in stone.hosts} - hosts.keys()
    return Routes(
        hosts=hosts,
        domains=domains,
        removed_domains=tuple(sorted(gone)),
        removed_hosts=tuple(sorted(gone_hosts)),
        proof=intent.proof,
        limits=limits,
        sites={
            domain: id
            for id in limits
            for domain in intent.fleet.sites[id].domains
            if domain in domains
        },
    )


def limited(intent: Intent, forces: Forces) -> dict[SiteId, tuple[EdgeLimit, ...]]:
    """What the edges hold of each site behind them; a site in shadow that nobody holds is not in it."""
    # Most sites have what their plan says, and no more.
    usual: dict[Force, tuple[EdgeLimit, ...]] = {}
    found: dict[SiteId, tuple[EdgeLimit, ...]] = {}
    for id, site in sorted(intent.fleet.sites.items()):
        plan = intent.fleet.plans.get(site.plan)
        if site.route != "edges" or id not in intent.places or plan is None:
            continue
        force = forces.of(id, site.plan, intent.places[id].host)
        words = intent.overrides.get(id), intent.rulings.get(id), intent.penalties.get(id, ())
        if (steps := None if any(words) else usual.get(force)) is None:
            override, ruling, penalties = words
            steps = edge_limits(
                plan.caps,
                override=override,
                enforced_from=force.enforced_from,
                held=force.held,
                penalties=penalties,
                ruling=ruling,
            )
            if not any(words):
                usual[force] = steps
        if steps:
            found[id] = steps
    return found


def enforced(penalized: Mapping[SiteId, Penalized]) -> dict[SiteId, tuple[Penalty, ...]]:
    """What hosts hold of their sites, and the edges with them."""
    return {
        site: holding
        for site, it in penalized.items()
        if (holding := tuple(penalty for penalty in it.penalties if penalty.enforced))
    }


def target(host: Host) -> Target:
    """How others ask this host whether it answers; an edge answers for itself at a path of its own."""
    check = ALIVE if host.is_edge else host.check
    return Target(address=host.addresses[0], port=host.port, check=check)


def orders(
    host: HostId, intent: Intent, common: Shared, epoch: Epoch, known: Orders | None = None
) -> Orders:
    """The orders of one declared host; `common` is `shared(intent)`.

    `known`: orders of this host of which all that tenants are made from, but the places, is as it was: ten thousand
    tenants take 30 ms, and who moves a host's sites has no such time.
    """
    declared = intent.fleet.hosts[host]
    here = common.sites.get(host, ())
    removed = {id for stone in intent.tombstones for id in stone.sites} - set(here)
    return Orders(
        epoch=epoch,
        cluster=intent.cluster,
        commit=intent.commit,
        host=host,
        roles=declared.roles,
        sites=here,
        removed_sites=tuple(sorted(removed)),
        addressed=host in common.addressed or declared.is_edge,
        probes={} if common.has_edges else probes(host, intent.fleet),
        routes=common.routes if declared.is_edge else None,
        plans=common.plans,
        tenants=known.tenants
        if known is not None and known.sites == here
        else {
            id: tenant(intent.fleet.sites[id], host, intent, common.forces)
            for id in here
            if id in intent.fleet.sites
        },
        rulings={id: intent.rulings[id] for id in here if id in intent.rulings},
    )


def tenant(site: Site, host: HostId, intent: Intent, forces: Forces) -> Tenant:
    """What `host`, which serves `site`, must know to hold it inside its plan."""
    force = forces.of(site.id, site.plan, host)
    return Tenant(
        plan=site.plan,
        users=site.users,
        domains=site.domains,
        databases=site.databases,
        slice=site.slice or None,
        override=intent.overrides.get(site.id),
        enforced_from=force.enforced_from,
        held=force.held,
    )


def probes(host: HostId, fleet: Fleet) -> dict[HostId, Target]:
    """The next hosts round the ring of web hosts, for a co-op without edges."""
    ring = sorted(id for id, h in fleet.hosts.items() if Role.WEB in h.roles and h.addresses)
    if host not in ring:
        return {}
    at = ring.index(host)
    near = [ring[(at + step) % len(ring)] for step in range(1, min(NEIGHBOURS, len(ring) - 1) + 1)]
    return {id: target(fleet.hosts[id]) for id in near}
