"""Which virtual hosts, pools and logs are whose: what judging each site asks for, found once for all. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.discover.accounts import SHARED, is_person
from agent.discover.found import Pool, VirtualHost
from agent.layout.masters import is_own, slice_of
from agent.layout.running import Master, Running
from fleet.caps import Tenant
from fleet.model import SiteId


@dataclass(frozen=True, slots=True)
class Part:
    """A pool that serves a site, and the master that it runs under."""

    pool: Pool
    master: Master

    @property
    def is_alone(self) -> bool:
        return len(self.master.pools) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Sites by their users, pools, slices of their PHP, logs; `cgroups` is where the kernel shows its cgroups."""

    tenants: Mapping[SiteId, Tenant]
    running: Running
    cgroups: Path
    by_domain: Mapping[str, tuple[VirtualHost, ...]]
    by_socket: Mapping[str, Part]
    by_user: Mapping[str, frozenset[SiteId]]
    by_pool: Mapping[str, frozenset[SiteId]]
    by_slice: Mapping[str, frozenset[SiteId]]
    doubled: Mapping[str, Part]  # of the shared masters, by sockets that units of their own serve
    by_log: Mapping[str, frozenset[str]]  # virtual hosts' places

    def virtual_hosts(self, site: SiteId) -> tuple[VirtualHost, ...]:
        return _virtual_hosts(self.tenants[site], self.by_domain)

    def parts(self, site: SiteId) -> Mapping[str, Part]:
        """The pools that serve `site`, by the sockets that the web server asks them at.

        Where no virtual host of it is known: its users' own pools.
        """
        virtual, of = self.virtual_hosts(site), self.by_socket
        if virtual:
            return {s: of[s] for host in virtual for s in host.sockets if s in of}
        own = self.own_users(site)
        return {socket: part for socket, part in of.items() if part.pool.user in own}

    def own_users(self, site: SiteId) -> tuple[str, ...]:
        """Those of its users whom no other site has."""
        users = self.tenants[site].users
        return tuple(u for u in users if u not in SHARED and self.by_user[u] == {site})

    def own_logs(self, site: SiteId, virtual: VirtualHost) -> list[str]:
        """Logs that `virtual` writes, and no other site's virtual host."""
        mine = {one.place for one in self.virtual_hosts(site)}
        return [log for log in dict.fromkeys(virtual.logs) if self.by_log[log] <= mine]

    def logs(self, site: SiteId) -> tuple[Path, ...]:
        """One for each of its virtual hosts that has its own, first those that most of them write to.

        A log that repeats what another one says is left out, also that of a server in front of what runs the pages.
        """
        found: list[Path] = []
        virtual = self.virtual_hosts(site)
        running = (one for one in virtual if one.sockets or one.inside)
        behind = {name for one in running if self.own_logs(site, one) for name in _bare(one)}
        left = [
            self.own_logs(site, one)
            for one in virtual
            if one.sockets or not one.proxies or behind.isdisjoint(_bare(one))
        ]
        while every := [log for logs in left for log in logs]:
            best = max(every, key=every.count)
            found.append(Path(best))
            seen = {log for logs in left if best in logs for log in logs}
            left = [[log for log in logs if log not in seen] for logs in left]
        return tuple(found)

    def neighbours(self, site: SiteId) -> tuple[SiteId, ...]:
        """The other sites that have one of its users, in order."""
        users = (u for u in self.tenants[site].users if u not in SHARED)
        return tuple(sorted({other for user in users for other in self.by_user[user]} - {site}))

    def common_slice(self, site: SiteId, runs_as: str | None) -> str | None:
        """The slice of a user whose cap `site` shares with other sites; None: it has a user of its own, or none.

        Of several users the one that its PHP `runs_as` counts, else the first by uid.
        """
        accounts = self.running.accounts
        known = {u: accounts[u] for u in self.tenants[site].users if u in accounts}
        uids = {u: one.uid for u, one in known.items() if u not in SHARED and is_person(one)}
        if not uids or self.own_users(site):
            return None
        uid = uids[runs_as] if runs_as in uids else min(uids.values())
        return f"user-{uid}.slice"


def served(tenants: Mapping[SiteId, Tenant], running: Running, cgroups: Path) -> Served:
    """Everything of what runs here that `tenants` are judged by."""
    by_domain: dict[str, list[VirtualHost]] = defaultdict(list)
    by_log: dict[str, set[str]] = defaultdict(set)
    for virtual in running.virtual_hosts:
        for name in _bare(virtual):
            by_domain[name].append(virtual)
        for log in virtual.logs:
            by_log[log].add(virtual.place)
    # A pool in a unit of its own is the one that serves, whoever has it too.
    masters = sorted(running.masters, key=lambda master: is_own(master.main))
    every = [Part(pool, master) for master in masters for pool in master.pools]
    parts = {part.pool.listen: part for part in every if part.pool.listen}
    doubled = {p.pool.listen: p for p in every if p.pool.listen and parts[p.pool.listen] != p}
    # A socket whose name is a link is the one that the link leads to.
    parts |= {link: parts[real] for link, real in running.links.items() if real in parts}
    domains = {name: tuple(hosts) for name, hosts in by_domain.items()}
    by_user: dict[str, set[SiteId]] = defaultdict(set)
    by_pool: dict[str, set[SiteId]] = defaultdict(set)
    by_slice: dict[str, set[SiteId]] = defaultdict(set)
    for site, tenant in tenants.items():
        for user in tenant.users:
            by_user[user].add(site)
        for virtual in _virtual_hosts(tenant, domains):
            for part in (parts[s] for s in virtual.sockets if s in parts):
                by_pool[part.pool.place].add(site)
                by_slice[slice_of(part.master.cgroup)].add(site)
    return Served(
        tenants=tenants,
        running=running,
        cgroups=cgroups,
        by_domain=domains,
        by_socket=parts,
        by_user={user: frozenset(sites) for user, sites in by_user.items()},
        by_pool={place: frozenset(sites) for place, sites in by_pool.items()},
        by_slice={slice: frozenset(sites) for slice, sites in by_slice.items()},
        doubled=doubled,
        by_log={log: frozenset(places) for log, places in by_log.items()},
    )


def _bare(virtual: VirtualHost) -> list[str]:
    """Its names without ports."""
    return [name.partition(":")[0].lower() for name in virtual.names]


def _virtual_hosts(
    tenant: Tenant, domains: Mapping[str, tuple[VirtualHost, ...]]
) -> tuple[VirtualHost, ...]:
    found = {v.place: v for name in tenant.domains for v in domains.get(name.lower(), ())}
    return tuple(found.values())
