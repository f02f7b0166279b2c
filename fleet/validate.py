"""What must hold in a whole fleet, beyond each item's own types: references, addresses, names, plans."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from ipaddress import IPv4Address, IPv6Address
from re import compile as pattern

import msgspec

from fleet.findings import Finding, Findings, Path, Suggestions
from fleet.kinds import KINDS, id_of, items
from fleet.model import NAME, Caps, Fleet, Host, HostId, Mode, NameServer, Role, Site, Zone
from fleet.names import address, canonical_domain, readable

PHP_WORKER_BYTES = 32 << 20  # the least that a worker of a small site needs
SITE_BYTES, SITE_INODES = 100 << 20, 5000  # a WordPress with plug-ins, before its first picture
TASKS_BESIDE_WORKERS = 15  # threads, cron and a login beside the workers, as LVE's own rule has it
# A chunk of the store holds 256 KiB: an item must leave room for its neighbours.
ITEM_LIMIT_BYTES = 64 << 10

NAME_RULE = pattern(NAME)
PATH_RULE = pattern(r"/[!-~]{0,999}")
EMAIL_RULE = pattern(r"[!-?A-~]{1,64}@[!-?A-~]{1,255}")


def check(fleet: Fleet, declared: Mapping[str, frozenset[str]] | None = None) -> Findings:
    """Everything wrong with `fleet`, in the order of its items.

    `declared`: by kind, ids that exist although they are missing from `fleet`, since they could not be read.
    """
    checking = _Checking(fleet, declared or {})
    for rule in RULES:
        rule(checking)
    return Findings(problems=tuple(checking.problems), warnings=tuple(checking.warnings))


@dataclass(slots=True)
class _Checking:
    fleet: Fleet
    declared: Mapping[str, frozenset[str]]
    problems: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)
    suggest: Suggestions = field(default_factory=Suggestions)

    def problem(self, path: Path, message: str, value: str | None = None, remedy: str = "") -> None:
        self.problems.append(Finding(path=path, message=message, value=value, remedy=remedy))

    def warn(self, path: Path, message: str, value: str | None = None, remedy: str = "") -> None:
        self.warnings.append(Finding(path=path, message=message, value=value, remedy=remedy))

    def refer(self, path: Path, kind: str, id: str) -> bool:
        """Whether `id` is one of `kind`; else that is a problem."""
        known = items(self.fleet, kind)
        if id in known:
            return True
        if id not in self.declared.get(kind, ()):
            words = known.keys() | self.declared.get(kind, frozenset())
            remedy = self.suggest(id, words, among=kind, otherwise=f"declare it under {kind}")
            self.problem(path, f"is not a {kind.removesuffix('s')}", id, remedy)
        return False


def _repeated(values: Sequence[str]) -> set[int]:
    """Where a value stands that stood before."""
    first = {value: n for n, value in reversed(tuple(enumerate(values)))}
    return {n for n, value in enumerate(values) if first[value] != n}


def _ids(c: _Checking) -> None:
    for kind in KINDS:
        for key, item in items(c.fleet, kind).items():
            if id_of(item) != key:
                c.problem((kind, key), "is not the id of its item", key, f"use {id_of(item)!r}")
            if kind != "zones" and not NAME_RULE.fullmatch(key):
                rule = "letters, digits and _ . -, a letter or digit first, 63 at most"
                c.problem((kind, key), "is not usable as an id", key, rule)
            if len(msgspec.json.encode(item)) > ITEM_LIMIT_BYTES:
                c.problem(
                    (kind, key), f"is larger than {ITEM_LIMIT_BYTES} bytes", remedy="split it"
                )


def _texts(c: _Checking) -> None:
    for kind in ("locations", "plans", "members"):
        for key, item in items(c.fleet, kind).items():
            name = getattr(item, "name", "")
            if not name.isprintable():
                c.problem((kind, key, "name"), "holds a control character", name, "remove it")


def _members(c: _Checking) -> None:
    for id, member in c.fleet.members.items():
        if member.email and not EMAIL_RULE.fullmatch(member.email):
            path = ("members", id, "email")
            c.problem(path, "is not a mail address", member.email, "write name@domain")
        if (until := member.dues_paid_until) is not None and not _is_date(until):
            path = ("members", id, "dues_paid_until")
            c.problem(path, "is not a date", until, "write year-month-day: 2026-12-31")


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _hosts(c: _Checking) -> None:
    tags: dict[str, HostId] = {}
    for id, host in c.fleet.hosts.items():
        c.refer(("hosts", id, "location"), "locations", host.location)
        if host.tag in tags:
            c.problem(
                ("hosts", id, "tag"),
                f"is also the tag of {tags[host.tag]}",
                host.tag,
                "choose another",
            )
        tags.setdefault(host.tag, id)
        if not host.addresses:
            c.problem(("hosts", id, "addresses"), "a host needs an address")
        if not PATH_RULE.fullmatch(host.check):
            c.problem(
                ("hosts", id, "check"),
                "is not a path",
                host.check,
                'begin with "/", without spaces',
            )
        if len(set(host.roles)) < len(host.roles):
            c.problem(("hosts", id, "roles"), "names a role twice", remedy="keep one")


def _addresses(c: _Checking) -> None:
    users: dict[IPv4Address | IPv6Address, Host] = {}
    for id, host in c.fleet.hosts.items():
        again = _repeated(host.addresses)
        for index, literal in enumerate(host.addresses):
            path = ("hosts", id, "addresses", index)
            try:
                other = users.setdefault(address(literal), host)
            except ValueError as error:
                c.problem(path, str(error), literal)
                continue
            if other is host:
                if index in again:
                    c.problem(path, "is there twice", literal, "keep one")
            elif other.port == host.port:
                c.problem(
                    path, f"is also an address of {other.id}", literal, "one address, one host"
                )
            else:
                why = f"is also an address of {other.id}: DNS cannot tell their direct sites apart"
                c.warn(path, why, literal)


def _plans(c: _Checking) -> None:
    for id, plan in c.fleet.plans.items():
        for name, message in cap_rules(plan.caps):
            value = getattr(plan.caps, name)
            c.problem(("plans", id, "caps", name), message, _text(value))
        for name, least in (("disk_bytes", SITE_BYTES), ("inodes", SITE_INODES)):
            if (allowed := getattr(plan.caps, name)) < least:
                why = f"is less than one WordPress needs, some {least}"
                c.warn(("plans", id, "caps", name), why, str(allowed), "give more")
        # Reclaim that has nowhere to put pages would slow a site for ever: its host holds the maximum alone.
        if plan.caps.swap_max_ratio == 0 and (ratio := plan.caps.memory_high_ratio) < 1:
            why = f"leaves memory_high_ratio {ratio:g} without effect: the maximum alone holds"
            remedy = "allow some swap, or say memory_high_ratio: 1"
            c.warn(("plans", id, "caps", "swap_max_ratio"), why, "0", remedy)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def cap_rules(caps: Caps) -> Iterator[tuple[str, str]]:
    """Broken relations between caps: which one, and what it must be."""
    yield from _worker_rules(caps)
    yield from _memory_rules(caps)
    if caps.cpu_base_percent > caps.cpu_percent:
        yield "cpu_base_percent", f"must not exceed cpu_percent = {caps.cpu_percent}"
    if caps.background_tasks > caps.tasks:
        yield "background_tasks", f"must not exceed tasks = {caps.tasks}"
    if caps.requests_burst < caps.requests_per_s:
        yield "requests_burst", f"must be at least requests_per_s = {caps.requests_per_s}"
    windows = caps.database_cpu_percent
    if min(windows) < 1 or list(windows) != sorted(windows, reverse=True):
        yield "database_cpu_percent", "must be positive and never grow with the window"
    elif windows[-1] > caps.cpu_percent:
        yield "database_cpu_percent", f"over 300 s must not exceed cpu_percent = {caps.cpu_percent}"


def _worker_rules(caps: Caps) -> Iterator[tuple[str, str]]:
    workers = caps.php_workers
    if caps.tasks <= workers + TASKS_BESIDE_WORKERS:
        yield (
            "tasks",
            f"must be more than php_workers + {TASKS_BESIDE_WORKERS} = {workers + TASKS_BESIDE_WORKERS}",
        )
    if caps.in_flight < workers:
        yield "in_flight", f"must be at least php_workers = {workers}: the rest would never work"
    if caps.memory_max_bytes < workers * PHP_WORKER_BYTES:
        least = workers * PHP_WORKER_BYTES
        yield (
            "memory_max_bytes",
            f"must be at least 32 MiB for each of {workers} php_workers = {least}",
        )
    if caps.database_connections > workers:
        yield "database_connections", f"must not exceed php_workers = {workers}"


def _memory_rules(caps: Caps) -> Iterator[tuple[str, str]]:
    """What is protected must be under what is taken back."""
    most, ratio = caps.memory_max_bytes, caps.memory_high_ratio
    if caps.memory_low_bytes > most:
        yield "memory_low_bytes", f"must not exceed memory_max_bytes = {most}"
    elif caps.memory_low_bytes > (high := int(most * ratio)):
        yield "memory_low_bytes", f"must not exceed memory_high_ratio {ratio:g} of {most} = {high}"


def _sites(c: _Checking) -> None:
    for id, site in c.fleet.sites.items():
        c.refer(("sites", id, "member"), "members", site.member)
        c.refer(("sites", id, "plan"), "plans", site.plan)
        _server(c, ("sites", id, "home"), site.home)
        again = _repeated(site.standbys)
        for index, standby in enumerate(site.standbys):
            path: Path = ("sites", id, "standbys", index)
            if standby == site.home:
                c.problem(path, "is the home itself", standby, "name another host")
            elif index in again:
                c.problem(path, "is there twice", standby, "keep one")
            else:
                _server(c, path, standby)
        if not site.standbys and site.mode is Mode.AUTOMATIC:
            c.warn(
                ("sites", id, "mode"), "has no standby to move to", "automatic", "name a standby"
            )


# Their caps would be everybody's: the system's own services, all sessions, all containers.
SHARED_SLICES = frozenset({"system.slice", "user.slice", "machine.slice"})


def _slices(c: _Checking) -> None:
    for id, site in c.fleet.sites.items():
        if site.slice in SHARED_SLICES:
            remedy = "name a slice of the site's own"
            c.problem(("sites", id, "slice"), "holds more than a site", str(site.slice), remedy)


def _server(c: _Checking, path: Path, id: str) -> None:
    if c.refer(path, "hosts", id) and Role.WEB not in (host := c.fleet.hosts[HostId(id)]).roles:
        roles = ", ".join(role.value for role in host.roles) or "no role"
        c.problem(path, f"serves no sites: its roles are {roles}", id, "name a host with role web")


def _domains(c: _Checking) -> None:
    owners: dict[str, str] = {}
    for id, site in c.fleet.sites.items():
        if not site.domains:
            c.problem(("sites", id, "domains"), "a site needs a domain")
        again = _repeated(site.domains)
        for index, domain in enumerate(site.domains):
            path = ("sites", id, "domains", index)
            _domain(c, path, domain)
            shown = f"({unicode}) " if (unicode := readable(domain)) != domain else ""
            if (owner := owners.setdefault(domain, id)) != id:
                message = f"{shown}belongs to the site {owner} already"
                c.problem(path, message, domain, "one domain, one site")
            elif index in again:
                c.problem(path, f"{shown}is there twice", domain, "keep one")


def _domain(c: _Checking, path: Path, domain: str) -> None:
    try:
        canonical = canonical_domain(domain)
    except ValueError as error:
        c.problem(path, str(error), domain, "write it like www.example.org")
    else:
        if canonical != domain:
            c.problem(path, "is not in the form of the network", domain, f"write {canonical}")


def _routes(c: _Checking) -> None:
    """Sites behind edges need an edge; direct ones must keep their visitors when they move."""
    edges = any(host.is_edge for host in c.fleet.hosts.values())
    unseen = bool(c.declared.get("hosts"))
    for id, site in c.fleet.sites.items():
        if site.route == "direct":
            if site.mode is Mode.AUTOMATIC:
                _direct(c, site)
        elif not edges and not unseen:
            remedy = "give a host the role edge, or write route: direct"
            c.problem(("sites", id, "route"), "no host of the fleet is an edge", remedy=remedy)
            break  # one cause, told once


def _direct(c: _Checking, site: Site) -> None:
    home = c.fleet.hosts.get(site.home)
    for index, id in enumerate(site.standbys):
        if home and (standby := c.fleet.hosts.get(id)):
            for version in sorted(_families(home) - _families(standby)):
                record = "A" if version == 4 else "AAAA"
                why = f"has no IPv{version} address: a move there would take the site's {record} records away"
                c.warn(("sites", site.id, "standbys", index), why, id)
    if c.declared.get("zones"):
        return
    for index, domain in enumerate(site.domains):
        if c.fleet.zone_of(domain) is None:
            why = "is in no declared zone: a move would not change its address"
            c.warn(("sites", site.id, "domains", index), why, domain)


def _families(host: Host) -> set[int]:
    found: set[int] = set()
    for literal in host.addresses:
        try:
            found.add(address(literal).version)
        except ValueError:
            continue  # told by another rule
    return found


def _room(c: _Checking) -> None:
    homes = Counter(site.home for site in c.fleet.sites.values())
    for id, host in c.fleet.hosts.items():
        if host.max_sites is not None and homes[id] > host.max_sites:
            c.warn(("hosts", id, "max_sites"), f"is home to {homes[id]} sites", str(host.max_sites))


def _zones(c: _Checking) -> None:
    for name, zone in c.fleet.zones.items():
        _domain(c, ("zones", name), name)
        seen: defaultdict[object, int] = defaultdict(int)
        for path, server in _servers(zone):
            try:
                where = (address(server.address), server.port)
            except ValueError as error:
                c.problem((*path, "address"), str(error), server.address)
                continue
            seen[where] += 1
            if seen[where] > 1:
                c.problem((*path, "address"), "is there twice", server.address, "keep one")


def _servers(zone: Zone) -> Iterator[tuple[Path, NameServer]]:
    yield ("zones", zone.name, "primary"), zone.primary
    for index, server in enumerate(zone.secondaries):
        yield ("zones", zone.name, "secondaries", index), server


RULES: tuple[Callable[[_Checking], None], ...] = (
    _ids, _texts, _hosts, _addresses, _plans, _members, _sites, _slices, _domains, _routes, _room, _zones,
)  # fmt: skip
