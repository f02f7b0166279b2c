"""Which virtual hosts are one site, whose it is, and what is no site at all. Pure: judges what was read."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.discover import names
from agent.discover.accounts import SHARED, is_person
from agent.discover.found import Configured, Doubt, Seen, VirtualHost
from fleet.model import NAMED

# Where packages put a first page: lying there together makes no site.
COMMON_ROOTS = frozenset(
    {
        "/",
        "/srv",
        "/srv/www",
        "/var/www",
        "/var/www/html",
        "/usr/share/nginx/html",
        "/usr/share/nginx/www",
    }
)
# Tools that Debian's packages bring, by the folder that they are served from.
TOOL_FOLDERS = ("/usr/share/", "/var/lib/", "/var/cache/")
TOOL_PACKAGES = names.TOOLS | {
    "roundcube",
    "squirrelmail",
    "rainloop",
    "snappymail",
    "icingaweb2",
    "zabbix",
}
LOCAL_PROXIES = ("127.", "localhost", "[::1]", "unix:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One site as found: its principal domain first. `marks` say what could not be told."""

    domains: tuple[str, ...]
    users: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """`not_sites`: virtual hosts that are none, and why. `loose`: databases that no site is known to use."""

    sites: tuple[Group, ...]
    not_sites: tuple[Doubt, ...] = ()
    loose: tuple[str, ...] = ()


@dataclass(slots=True)
class _Site:
    """Virtual hosts that belong together, so far. `domains`: by the place of each."""

    hosts: list[VirtualHost]
    domains: dict[str, tuple[str, ...]]
    users: set[str]
    roots: set[str]
    marks: list[str] = field(default_factory=list)

    def contradicts(self, other: "_Site") -> bool:
        """Whether they are clearly two: other users, and other files."""
        apart = self.users and other.users and not self.users & other.users
        return bool(apart and self.roots and other.roots and not self.roots & other.roots)

    def absorb(self, other: "_Site") -> None:
        self.hosts += other.hosts
        for place, domains in other.domains.items():
            self.domains[place] = (*self.domains.get(place, ()), *domains)
        self.users |= other.users
        self.roots |= other.roots
        self.marks += other.marks


def group(seen: Seen) -> Grouped:
    """The same for the same host, whatever the order of dicts: ids and lists do not change between runs."""
    found: list[_Site] = []
    not_sites: list[Doubt] = []
    pools = {pool.listen: pool.user for pool in seen.pools if pool.listen}
    for host in seen.virtual_hosts:
        site = _site(host, seen, pools)
        if isinstance(site, Doubt):
            not_sites.append(site)
        else:
            found.append(site)
    joined = _joined(found)
    by_users = [_finished(site, pools) for site in joined]
    return _with_databases(by_users, joined, seen, not_sites)


def _site(host: VirtualHost, seen: Seen, pools: Mapping[str, str | None]) -> _Site | Doubt:
    """A virtual host as a site of its own, or why it is none."""
    domains: list[str] = []
    refused: list[str] = []
    for name in host.names:
        try:
            domain = names.domain(name, seen.hostnames)
        except ValueError as error:
            refused.append(f"{name or '(no name)'} {error}")
        else:
            if domain not in domains:
                domains.append(domain)
    if package := _tool(host.root):
        what = f"{', '.join(domains) or 'it'} serves {package}, a tool of the host"
        return Doubt(about=host.place, what=what)
    if not domains:
        why = "; ".join(refused) or "it has no name, so it takes what no other one does"
        if any(map(names.is_open, host.names)) or host.doubts:
            why += ": if it serves sites, write each with its names"
        return Doubt(about=host.place, what="; ".join([why, *host.doubts]))
    site = _Site([host], {host.place: tuple(domains)}, _users(host, seen, pools), _roots(host))
    if refused:
        site.marks.append(
            f"it also answers for names that are no domain of a site: {'; '.join(refused)}"
        )
    site.marks += host.doubts
    return site


def _tool(root: str | None) -> str | None:
    if root and root.startswith(TOOL_FOLDERS):
        return next((part for part in root.split("/") if part in TOOL_PACKAGES), None)
    return None


def _roots(host: VirtualHost) -> set[str]:
    """What tells a site by its files; a server that sends all its visitors elsewhere serves none."""
    return {host.root} - COMMON_ROOTS if host.root and not host.redirect else set()


def _users(host: VirtualHost, seen: Seen, pools: Mapping[str, str | None]) -> set[str]:
    """Whom its scripts run as, else whose its files are."""
    runs = {*host.users, *(user for s in host.sockets if (user := pools.get(s)))} - SHARED
    if runs or not host.root or host.root in COMMON_ROOTS:
        return runs
    if owner := seen.owners.get(host.root):
        return {owner}
    homes = [a for a in seen.accounts.values() if is_person(a) and _within(host.root, a.home)]
    return {max(homes, key=lambda a: (len(a.home), a.user)).user} if homes else set()


def _within(path: str, folder: str) -> bool:
    return folder.count("/") > 1 and f"{path}/".startswith(folder.rstrip("/") + "/")


def _joined(found: list[_Site]) -> list[_Site]:
    """Together what shares files, a name, its www, or is where the other sends everybody."""
    owner = list(range(len(found)))

    def head(index: int) -> int:
        while owner[index] != index:
            owner[index] = owner[owner[index]]
            index = owner[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, key in _keys(found):
        mine, other = head(index), head(first.setdefault(key, index))
        if mine == other or found[mine].contradicts(found[other]):
            continue
        # The earlier one leads: the order of the configuration is the servers' own.
        lead, follow = min(mine, other), max(mine, other)
        found[lead].absorb(found[follow])
        owner[follow] = lead
    return [site for index, site in enumerate(found) if owner[index] == index]


def _keys(found: list[_Site]) -> Iterator[tuple[int, tuple[str, str]]]:
    """By what each may be joined; the surest first. Taken before joining, since that changes them."""
    each = [
        (n, sorted(site.roots), _ordered(site), site.hosts[0].redirect)
        for n, site in enumerate(found)
    ]
    yield from [(n, ("root", root)) for n, roots, _, _ in each for root in roots]
    yield from [(n, ("name", name)) for n, _, domains, _ in each for name in domains]
    yield from [(n, ("apex", names.apex(name))) for n, _, domains, _ in each for name in domains]
    served = {names.apex(name) for _, _, domains, _ in each for name in domains}
    for n, _, _, redirect in each:
        if redirect and names.apex(redirect) in served:
            yield n, ("apex", names.apex(redirect))


def _ordered(site: _Site) -> tuple[str, ...]:
    """The one that a visitor ends at first: not of a server that sends everybody elsewhere."""
    hosts = sorted(site.hosts, key=lambda host: host.redirect is not None)
    return tuple(dict.fromkeys(d for host in hosts for d in site.domains[host.place]))


def _finished(site: _Site, pools: Mapping[str, str | None]) -> Group:
    marks = [*site.marks, *_marks(site, pools)]
    users = sorted(user for user in site.users if NAMED.match(user))
    if odd := sorted(site.users - set(users)):
        marks.append(f"its user {', '.join(odd)} has a name that a fleet cannot hold")
    if not users and not odd and any(host.root for host in site.hosts if not host.redirect):
        marks.append("it has no Unix user of its own: whose is it?")
    return Group(
        domains=_ordered(site),
        users=tuple(users),
        places=tuple(host.place for host in site.hosts),
        marks=tuple(dict.fromkeys(marks)),
    )


def _marks(site: _Site, pools: Mapping[str, str | None]) -> Iterator[str]:
    serving = [
        host for host in site.hosts if not (host.redirect and host.redirect not in _ordered(site))
    ]
    if not serving:
        targets = ", ".join(sorted({host.redirect for host in site.hosts if host.redirect}))
        yield f"it only sends its visitors to {targets}: add its domains to that site, if the fleet has it"
    if len(site.roots) > 1 and len(site.users) > 1:
        yield f"is it one site? It has several folders and users: {', '.join(sorted(site.roots))}"
    for host in serving:
        for socket in host.sockets:
            if socket not in pools:
                yield f"its PHP runs behind {socket}, where no pool of this host listens"
        for url in host.proxies:
            yield from _proxied(url, serving)


def _proxied(url: str, serving: list[VirtualHost]) -> Iterator[str]:
    """A server of this host that stands behind another one of it is told already."""
    where = url.partition("://")[2].split("/")[0]
    behind = {listen.rpartition(":")[2] for host in serving for listen in host.listens}
    if not where.startswith(LOCAL_PROXIES):
        yield f"its visitors are passed on to {url}: is it at home on another host?"
    elif where.rpartition(":")[2] not in behind:
        yield f"an application at {url} answers for it: as which user does that run?"


def _with_databases(
    groups: list[Group], sites: list[_Site], seen: Seen, not_sites: list[Doubt]
) -> Grouped:
    """Databases by what applications say, then by the name of the user whose only site it is; domains unique."""
    told = [_applications(site, seen) for site in sites]
    used = {c.database for applications in told for c in applications if not c.server}
    free = sorted((seen.databases or frozenset()) - used)
    owned = Counter(found.users for found in groups)
    guessed: set[str] = set()
    taken: dict[str, int] = {}
    finished = []
    for index, (found, applications) in enumerate(zip(groups, told, strict=True)):
        mine, marks = _judged(applications, seen.databases)
        if len(found.users) == 1 and owned[found.users] == 1:
            likely = [name for name in free if _belongs(name, found.users[0])]
            guessed |= set(likely)
            mine += likely
            if likely:
                marks.append(f"by its user's name, {', '.join(likely)} may be its database: is it?")
        mine, odd = _nameable(mine)
        marks += [f"its database {name!r} has a name that a fleet cannot hold" for name in odd]
        twice = [name for name in found.domains if taken.setdefault(name, index) != index]
        if twice:
            marks.append(
                f"another site of this host has its name too, and keeps it: {', '.join(twice)}"
            )
        finished.append(
            Group(
                domains=tuple(name for name in found.domains if name not in twice),
                users=found.users,
                databases=tuple(mine),
                places=found.places,
                marks=(*found.marks, *marks),
            )
        )
    nameless = [
        Doubt(about=g.places[0], what="; ".join(g.marks)) for g in finished if not g.domains
    ]
    return Grouped(
        sites=tuple(g for g in finished if g.domains),
        not_sites=(*not_sites, *nameless),
        loose=tuple(name for name in free if name not in guessed),
    )


def _applications(site: _Site, seen: Seen) -> tuple[Configured, ...]:
    roots = [host.root for host in site.hosts if host.root]
    found = {
        c.database: c for root in dict.fromkeys(roots) for c in seen.applications.get(root, ())
    }
    return tuple(found.values())


def _judged(
    applications: Iterable[Configured], known: frozenset[str] | None
) -> tuple[list[str], list[str]]:
    mine, marks = [], []
    for said in applications:
        if said.server:
            marks.append(f"its database {said.database} is at {said.server} (by {said.place})")
        elif known is not None and said.database not in known:
            marks.append(f"its database {said.database} (by {said.place}) is not on this host")
        else:
            mine.append(said.database)
    return mine, marks


def _belongs(database: str, user: str) -> bool:
    stem = user.replace("-", "_").replace(".", "_")
    return database in {user, stem} or database.startswith((f"{user}_", f"{stem}_"))


def _nameable(found: list[str]) -> tuple[list[str], list[str]]:
    return [n for n in found if NAMED.match(n)], [n for n in found if not NAMED.match(n)]
