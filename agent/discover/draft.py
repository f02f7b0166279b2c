"""A fleet document of one host, with a mark wherever the host could not tell: YAML, refused until it is filled."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from agent.discover.found import Doubt, Seen
from agent.discover.host import is_public, served_ports
from agent.discover.sites import Group, Grouped, group
from fleet.documents import write
from fleet.model import (
    NAMED,
    Domain,
    Fleet,
    Host,
    HostId,
    LocationId,
    Member,
    MemberId,
    PlanId,
    Site,
    SiteId,
)
from fleet.names import address

UNKNOWN = "?"  # no id and no address: a fleet with it is refused, with its line
ID_LIMIT = 63
TEXT_CHARS = 4000  # what a mark may hold: it is read by people
LISTED = 100  # loose databases, by name


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the person who asks knows already. None: to be told from the host, or marked."""

    host: str | None = None
    location: str | None = None
    member: str | None = None
    plan: str | None = None
    route: str = "direct"


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """`marks`: what could not be told, by the fleet's field or the file. `places`: where each site is configured."""

    fleet: Fleet
    marks: tuple[Doubt, ...]
    not_sites: tuple[Doubt, ...]
    loose_databases: tuple[str, ...]
    places: dict[SiteId, str]


@dataclass(frozen=True, slots=True)
class _Drawn:
    site: Site
    found: Group


def draft(seen: Seen, wishes: Wishes) -> Draft:
    """Pure: the same host gives the same document."""
    grouped = group(seen)
    host, marks = _host(seen, wishes)
    drawn = _sites(grouped.sites, host.id, wishes)
    sites = {d.site.id: d.site for d in drawn}
    members = _members(sites.values(), seen, wishes)
    each = (Doubt(about=f"sites.{d.site.id}", what=what) for d in drawn for what in d.found.marks)
    general = _general(sites.values(), members, seen, grouped)
    return Draft(
        fleet=Fleet(hosts={host.id: host}, members=members, sites=sites),
        marks=_plain((*marks, *general, *each, *seen.doubts)),
        not_sites=_plain(grouped.not_sites),
        loose_databases=tuple(map(plain, grouped.loose)),
        places={d.site.id: plain(_together(d.found.places)) for d in drawn},
    )


def _plain(doubts: Iterable[Doubt]) -> tuple[Doubt, ...]:
    return tuple(Doubt(about=plain(doubt.about), what=plain(doubt.what)) for doubt in doubts)


def _together(places: Iterable[str]) -> str:
    """Each file once, with all its lines."""
    lines: dict[str, list[str]] = {}
    for place in places:
        file, _, line = place.rpartition(":")
        if line not in lines.setdefault(file, []):
            lines[file].append(line)
    return ", ".join(f"{file}:{','.join(found)}" for file, found in lines.items())


def plain(text: str) -> str:
    """On one line, short, of characters that can be printed, whatever the configuration held."""
    said = "".join(c if c.isprintable() else f"<{ord(c):X}>" for c in text[: TEXT_CHARS + 1])
    return said if len(said) <= TEXT_CHARS else said[:TEXT_CHARS] + "…"


def _host(seen: Seen, wishes: Wishes) -> tuple[Host, list[Doubt]]:
    name = wishes.host or next((n for n in seen.hostnames if NAMED.match(n)), UNKNOWN)
    host = Host(
        id=HostId(name),
        tag=name,
        location=LocationId(wishes.location or UNKNOWN),
        addresses=seen.addresses or (UNKNOWN,),
    )
    return _with_port(host, seen, [*_host_marks(host, seen)])


def _host_marks(host: Host, seen: Seen) -> Iterator[Doubt]:
    at = f"hosts.{host.id}"
    if host.id == UNKNOWN:
        yield Doubt(about=at, what="the host has no name that is usable as an id: choose one")
    yield Doubt(about=f"{at}.tag", what="visitors and members read it: is it the name to show?")
    if host.location == UNKNOWN:
        yield Doubt(
            about=f"{at}.location", what="the id of its data centre, declared under locations"
        )
    if not seen.addresses:
        yield Doubt(about=f"{at}.addresses", what="none could be seen: where is it reached?")
    elif not all(is_public(address(a)) for a in seen.addresses):
        yield Doubt(
            about=f"{at}.addresses", what="only private ones were seen: where do visitors reach it?"
        )
    elif len({address(a).version for a in seen.addresses}) < len(seen.addresses):
        what = (
            "it has several; direct sites get all of them in DNS: keep those that serve every site"
        )
        yield Doubt(about=f"{at}.addresses", what=what)


def _with_port(host: Host, seen: Seen, marks: list[Doubt]) -> tuple[Host, list[Doubt]]:
    ports = [port for port in served_ports(seen.virtual_hosts) if 0 < port <= 65535]
    if not ports or host.port in ports:
        return host, marks
    port = next((p for p in ports if p != 443), host.port)
    what = f"not 80, but {', '.join(map(str, ports))} is served: which one without TLS?"
    return msgspec.structs.replace(host, port=port), [
        *marks,
        Doubt(about=f"hosts.{host.id}.port", what=what),
    ]


def _sites(groups: Iterable[Group], home: HostId, wishes: Wishes) -> list[_Drawn]:
    drawn: dict[SiteId, _Drawn] = {}
    for found in groups:
        id = site_id(found.domains[0], drawn)
        owner = found.users[0] if len(found.users) == 1 else UNKNOWN
        site = Site(
            id=id,
            member=MemberId(wishes.member or owner),
            plan=PlanId(wishes.plan or UNKNOWN),
            domains=tuple(map(Domain, found.domains)),
            home=home,
            route="edges" if wishes.route == "edges" else "direct",
            users=found.users,
            databases=found.databases,
        )
        drawn[id] = _Drawn(site, found)
    return [drawn[id] for id in sorted(drawn)]


def site_id(domain: str, taken: Iterable[SiteId]) -> SiteId:
    """The domain, which no other site of the fleet has, without its www; cut with a hash of it where it is too long."""
    held = set(taken)
    for name in (domain.removeprefix("www."), domain):
        id = name.lstrip("_-.")
        if len(id) > ID_LIMIT or not NAMED.match(id):
            digest = hashlib.sha256(domain.encode()).hexdigest()[:8]
            id = f"{id[: ID_LIMIT - 9].rstrip('.-_')}-{digest}".lstrip("-")
        if SiteId(id) not in held:
            return SiteId(id)
    digest = hashlib.sha256(domain.encode()).hexdigest()[:16]
    return SiteId(f"site-{digest}")


def _members(sites: Iterable[Site], seen: Seen, wishes: Wishes) -> dict[MemberId, Member]:
    """One for each Unix user that owns sites: those of one organization are for a person to join."""
    if wishes.member:
        return {}  # it is declared elsewhere
    found = {}
    for id in sorted({site.member for site in sites} - {UNKNOWN}):
        account = seen.accounts.get(id)
        name = account.name if account and account.name.isprintable() else ""
        found[id] = Member(id=id, name=name or id)
    return found


def _general(
    sites: Iterable[Site], members: dict[MemberId, Member], seen: Seen, grouped: Grouped
) -> Iterator[Doubt]:
    every = tuple(sites)
    if members:
        yield Doubt(
            about="members",
            what="taken from the Unix users: join those of one organization, correct names",
        )
    if lacking := sum(site.member == UNKNOWN for site in every):
        yield Doubt(about="sites", what=f"member: whose are they? ({lacking} of {len(every)})")
    if lacking := sum(site.plan == UNKNOWN for site in every):
        what = f"plan: what does each pay for? Declare the plans under plans ({lacking} of {len(every)})"
        yield Doubt(about="sites", what=what)
    if every:
        yield Doubt(
            about="sites",
            what="standbys: where may each go when this host dies? None is declared yet",
        )
    if seen.databases is None:
        what = "they could not be listed (run as root?): those that applications name are taken on trust"
        yield Doubt(about="databases", what=what)
    if grouped.loose:
        shown = ", ".join(grouped.loose[:LISTED])
        more = f" and {len(grouped.loose) - LISTED} more" if len(grouped.loose) > LISTED else ""
        yield Doubt(
            about="databases", what=f"whose are these? No site is known to use them: {shown}{more}"
        )


def text(drawn: Draft, only: str | None = None) -> str:
    """Always one YAML document; `fleet.documents.read` takes it once each mark is answered.

    `only`: the lines below one heading, to put below another document's.
    """
    written = _Text(drawn)
    if only:
        return "".join(f"{line}\n" for line in getattr(written, only)())
    return "\n".join(written.whole()) + "\n"


class _Text:
    """The document's lines, section by section; a mark that is told in one is not told again."""

    def __init__(self, drawn: Draft) -> None:
        self._drawn = drawn
        self._marks: dict[str, list[str]] = {}
        for mark in drawn.marks:
            self._marks.setdefault(mark.about, []).append(mark.what)

    def _told(self, about: str, field: str = "") -> Iterator[str]:
        for what in self._marks.pop(about, ()):
            yield comment(f"{field}{what}")

    def whole(self) -> Iterator[str]:
        (host,) = self._drawn.fleet.hosts
        yield f"# What `relevo discover` read on {host}; nothing was changed there."
        yield '# What it could not tell is marked: fill in each "?"; weigh each line with `# ?`, then remove it.'
        yield "version: 1"
        yield "\nlocations:"
        yield "  #  es1: {country: ES, name: Barcelona}"
        yield "\nhosts:"
        yield from self.hosts()
        yield "\nplans:"
        yield "  # those that the co-op offers; `relevo fleet export` prints what is declared already"
        yield "\nmembers:"
        yield from self.members()
        yield "\nsites:"
        yield from self.sites()

    def hosts(self) -> Iterator[str]:
        (id,) = self._drawn.fleet.hosts
        yield from self._told(f"hosts.{id}")
        for field in ("tag", "location", "addresses", "port"):
            yield from self._told(f"hosts.{id}.{field}", f"{field}: ")
        yield _item(Fleet(hosts=self._drawn.fleet.hosts))

    def members(self) -> Iterator[str]:
        yield from self._told("members")
        for id, member in self._drawn.fleet.members.items():
            yield _item(Fleet(members={id: member}))

    def sites(self) -> Iterator[str]:
        """And at their end, what was not taken as a site and what could not be read, since more may hide there."""
        yield from self._told("sites")
        for id, site in self._drawn.fleet.sites.items():
            yield f"  # {self._drawn.places[id]}"
            yield from self._told(f"sites.{id}")
            yield _item(Fleet(sites={id: site}))
        yield from self._told("databases", "databases: ")
        for doubt in self._drawn.not_sites:
            yield comment(f"not taken as a site: {doubt.about}: {doubt.what}")
        for about, whats in self._marks.items():
            if not about.startswith(("hosts.", "members")):
                yield from (comment(f"{about}: {what}") for what in whats)


def comment(what: str) -> str:
    return f"  # ? {what}"


def _item(only: Fleet) -> str:
    return write(only).splitlines()[-1]
