"""What relevo speaks of: the declared fleet, and what became of it. Frozen structs, keyed by id."""

import re
from enum import Enum
from typing import Annotated, Literal, NewType

import msgspec
from msgspec import UNSET, Meta, UnsetType

LocationId = NewType("LocationId", str)
HostId = NewType("HostId", str)
MemberId = NewType("MemberId", str)
PlanId = NewType("PlanId", str)
SiteId = NewType("SiteId", str)
ZoneName = NewType("ZoneName", str)  # lower case, no trailing dot
Domain = NewType("Domain", str)  # lower case A-label form, no trailing dot
ControllerId = NewType("ControllerId", str)
IncidentId = NewType("IncidentId", str)

# Ids reach HAProxy's socket, store keys and file names: nothing in them may need quoting there.
# `$` alone would let a line end through.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$(?!\n)"
NAMED = re.compile(NAME)
Name = Annotated[str, Meta(pattern=NAME)]
# A unit's name, never the root slice. Source: systemd.unit(5), systemd.slice(5).
SLICE = r"^[A-Za-z0-9][A-Za-z0-9_.:@\\-]{0,248}\.slice$(?!\n)"
Slice = Annotated[str, Meta(pattern=SLICE)]
# A label may begin with "_" (service names) but never ends in "-". Source: RFC 1035 §2.3.1, RFC 5891 §4.4.
DOMAIN = re.compile(
    r"^(?=.{1,253}$)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)+(?!-)(?:[a-z][a-z0-9-]{0,61})(?<!-)$(?!\n)"
)


# What travels fits 64 bits: arithmetic with it can't overflow a float.
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Epoch(msgspec.Struct, frozen=True, order=True, array_like=True):
    """The fencing token: compared generation first. `Epoch(0, 0)` is older than every real one."""

    generation: Count = 0
    revision: Count = 0

    def __str__(self) -> str:
        return f"{self.generation}.{self.revision}"

    @classmethod
    def parse(cls, text: str) -> "Epoch":
        """Read what `str` wrote. Raises ValueError."""
        generation, revision = text.split(".")
        return cls(int(generation), int(revision))


class Why(msgspec.Struct, frozen=True):
    """A reason as a code and its values; the catalogues render it in each language (rule R13)."""

    code: str
    values: dict[str, str | int | float] = {}


class Role(Enum):
    WEB = "web"
    EDGE = "edge"
    DATABASE = "database"
    MAIL = "mail"


class Mode(Enum):
    """How a site may fail over. A site that declares none is gated."""

    AUTOMATIC = "automatic"
    GATED = "gated"
    MANUAL = "manual"


class Health(Enum):
    """Not seen is never seen down."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"


class Location(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A data centre. `country` is ISO 3166-1 alpha-2."""

    id: LocationId
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$(?!\n)")]
    name: str = ""


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hosting server. `tag` is its public name; `addresses` are IPv4 or IPv6 literals, the first is preferred.

    `port` is where it serves its sites; an edge, or a controller, asks `check` there.
    `max_sites` bounds what a failover may bring onto it; None: no bound.
    """

    id: HostId
    tag: Name
    location: LocationId
    addresses: tuple[str, ...]
    roles: tuple[Role, ...] = (Role.WEB,)
    port: Annotated[int, Meta(ge=1, le=65535)] = 80
    check: str = "/"
    max_sites: Annotated[int, Meta(ge=0)] | None = None

    @property
    def is_edge(self) -> bool:
        return Role.EDGE in self.roles


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`amount` in the currency's smallest unit (ISO 4217)."""

    amount: Annotated[int, Meta(ge=0)]
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)")]
    per: Literal["month", "year"] = "year"


class Caps(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan allows one site. CPU in percent of one core, times in s, rates as named.

    As it travels: a cap that only a newer release knows is left out, and said (fleet.skew). A cap that comes later has
    a default, for an older release does not say it.
    """

    cpu_weight: Annotated[int, Meta(ge=1, le=10000)]
    cpu_percent: Annotated[int, Meta(ge=100)]  # below one core, throttling costs more than it saves
    cpu_base_percent: Annotated[int, Meta(ge=1)]
    cpu_bank_s: Annotated[int, Meta(ge=0)]
    memory_max_bytes: Annotated[int, Meta(ge=64 << 20)]
    memory_high_ratio: Annotated[float, Meta(gt=0, le=1)] = 0.9
    memory_low_bytes: Annotated[int, Meta(ge=0)]
    swap_max_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.1
    tasks: Annotated[int, Meta(ge=16)]
    read_bytes_per_s: Annotated[int, Meta(ge=1 << 20)]
    write_bytes_per_s: Annotated[int, Meta(ge=1 << 20)]
    read_iops: Annotated[int, Meta(ge=1)]
    write_iops: Annotated[int, Meta(ge=1)]
    php_workers: Annotated[int, Meta(ge=1)]
    in_flight: Annotated[int, Meta(ge=1)]
    queue: Annotated[int, Meta(ge=0)]
    queue_wait_s: Annotated[float, Meta(gt=0)]
    requests_per_s: Annotated[int, Meta(ge=1)]
    requests_burst: Annotated[int, Meta(ge=1)]
    client_requests_per_min: Annotated[int, Meta(ge=1)]
    egress_bits_per_s: Annotated[int, Meta(ge=1)]
    egress_bytes_per_month: Annotated[int, Meta(ge=1)]
    disk_bytes: Annotated[int, Meta(ge=1)]
    inodes: Annotated[int, Meta(ge=1)]
    database_connections: Annotated[int, Meta(ge=1)]
    statement_s: Annotated[float, Meta(gt=0)]
    database_cpu_percent: tuple[int, int, int, int]  # over 1, 5, 60 and 300 s
    mails_per_hour: Annotated[int, Meta(ge=0)]
    background_tasks: Annotated[int, Meta(ge=1)]
    background_cpu_s_per_day: Annotated[int, Meta(ge=1)]


class PlanCaps(Caps, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Caps as people declare them and the store keeps them: one that is not known is a mistake, never dropped."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: PlanId
    name: str
    price: Price
    caps: PlanCaps


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An organization that owns sites. `dues_paid_until` is an ISO date."""

    id: MemberId
    name: str
    language: Literal["en", "es"] = "es"
    email: str = ""
    dues_paid_until: str | None = None


class SiteCheck(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to see that a site answers: GET `path` gives a status in [200, 500) unless `status` names one."""

    path: Annotated[str, Meta(pattern=r"^/[!-~]*$(?!\n)", max_length=1000)] = "/"
    status: Annotated[int, Meta(ge=100, le=599)] | None = None

    def accepts(self, status: int) -> bool:
        return status == self.status if self.status else 200 <= status < 500


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One member's website. The first domain is its principal one.

    `route`: behind the edges, or direct (its A and AAAA are its host's).
    `standbys`: where it may go, best first. `slice`: where its processes are, if not in those of its users; what was
    not said is not written, for a release that does not know it reads the same store.
    """

    id: SiteId
    member: MemberId
    plan: PlanId
    domains: tuple[Domain, ...]
    home: HostId
    standbys: tuple[HostId, ...] = ()
    mode: Mode | None = None
    route: Literal["edges", "direct"] = "edges"
    users: tuple[Name, ...] = ()
    databases: tuple[Name, ...] = ()
    slice: Slice | UnsetType = UNSET
    check: SiteCheck = SiteCheck()
    # Declared only: what a move would lose is measured by nobody yet (rule R9).
    max_data_loss_s: Annotated[float, Meta(ge=0)] = 300.0

    @property
    def effective_mode(self) -> Mode:
        return self.mode or Mode.GATED


class NameServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One authoritative server: an IP literal and its port."""

    address: str
    port: Annotated[int, Meta(ge=1, le=65535)] = 53

    def __str__(self) -> str:
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


class Zone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A DNS zone that relevo may write into. `key` names a TSIG key of the controller's configuration.

    Updates go to `primary`; it and each of `secondaries` must answer with what was written.
    """

    name: ZoneName
    primary: NameServer
    secondaries: tuple[NameServer, ...] = ()
    key: Name
    ttl_s: Annotated[int, Meta(ge=5, le=86400)] = 60

    @property
    def servers(self) -> tuple[NameServer, ...]:
        return (self.primary, *self.secondaries)


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """The declared intent, whole. Keys equal the ids of their values."""

    locations: dict[LocationId, Location] = {}
    hosts: dict[HostId, Host] = {}
    plans: dict[PlanId, Plan] = {}
    members: dict[MemberId, Member] = {}
    sites: dict[SiteId, Site] = {}
    zones: dict[ZoneName, Zone] = {}

    def zone_of(self, domain: str) -> Zone | None:
        """The most specific declared zone that holds `domain`."""
        labels = domain.split(".")
        for start in range(len(labels)):
            if zone := self.zones.get(ZoneName(".".join(labels[start:]))):
                return zone
        return None


class StoreId(msgspec.Struct, frozen=True, kw_only=True):
    """Whose store this is, and how often it was rebuilt from what agents remembered (rule R2)."""

    cluster: str
    generation: int = 1


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a site is served now, since when (ISO 8601, UTC) and why."""

    host: HostId
    since: str
    why: Why
    incident: IncidentId | None = None


class Placements(msgspec.Struct, frozen=True, kw_only=True):
    """Every site at home on one host, and where it is served now: one document, so one put fails a host over."""

    sites: dict[SiteId, Placement] = {}


class Arming(Enum):
    OBSERVE = "observe"
    ARM = "arm"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Who did it, why, and until when (Unix s): nothing that restricts lasts for ever (rule R11)."""

    owner: str
    reason: str
    since: float
    until: float


class Switches(msgspec.Struct, frozen=True, kw_only=True):
    """What people have armed: the most specific word wins (site, host, location, all). Begins in observe."""

    all: Arming = Arming.OBSERVE
    locations: dict[LocationId, Arming] = {}
    hosts: dict[HostId, Arming] = {}
    sites: dict[SiteId, Arming] = {}
    paused: Note | None = None

    def armed(self, site: SiteId, host: HostId, location: LocationId) -> bool:
        """Whether a failover of `site`, served now at `host` in `location`, may act."""
        if (word := self.sites.get(site)) is None:
            word = self.host_word(host, location)
        return word is Arming.ARM

    def host_armed(self, host: HostId, location: LocationId) -> bool:
        return self.host_word(host, location) is Arming.ARM

    def host_word(self, host: HostId, location: LocationId) -> Arming:
        return self.hosts.get(host) or self.locations.get(location) or self.all


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """One cause that automatic action was spent on, at a wall-clock time (Unix s)."""

    at: float
    cause: str
    incident: IncidentId


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What the brake has spent (rule R8), oldest first."""

    spent: tuple[Spent, ...] = ()


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A host that has reported at least once: only such a host can be judged dead."""

    boot_id: str
    at: float


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet change removed; kept until every live edge has acknowledged it (rule R7)."""

    domains: tuple[Domain, ...] = ()
    hosts: tuple[HostId, ...] = ()
    sites: tuple[SiteId, ...] = ()


class RecordSet(msgspec.Struct, frozen=True, order=True):
    """The addresses that a name should have: sorted literals; never both empty (rule R10)."""

    a: tuple[str, ...] = ()
    aaaa: tuple[str, ...] = ()


class ZoneIntent(msgspec.Struct, frozen=True, kw_only=True):
    """What a zone should say for the names that relevo manages; `removed` names were told to be removed."""

    names: dict[Domain, RecordSet] = {}
    removed: tuple[Domain, ...] = ()
    incident: IncidentId | None = None


class Phase(Enum):
    """The steps of an incident's timeline, in their usual order."""

    SYMPTOM = "symptom"
    VERDICT = "verdict"
    DECIDED = "decided"
    COMMITTED = "committed"
    EDGE = "edge"
    EDGES = "edges"
    DNS_SENT = "dns-sent"
    DNS_SERVER = "dns-server"
    DNS = "dns"
    PROVEN = "proven"
    COMPLETE = "complete"
    NOTE = "note"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a timeline: `at` is Unix s, `offset_s` counts from the first symptom."""

    phase: Phase
    at: float
    offset_s: float
    why: Why
    subject: str = ""


class MovedSite(msgspec.Struct, frozen=True, kw_only=True):
    site: SiteId
    source: HostId
    target: HostId


class HeldSite(msgspec.Struct, frozen=True, kw_only=True):
    """A move that was wanted and not made, with its reason. `target` is None where there was none to choose."""

    site: SiteId
    source: HostId
    target: HostId | None
    why: Why


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """From first symptom to proven recovery. `observed`: relevo watched and would have moved `moved`.

    `testimony`: each witness' word when it was decided; `evidence` the same in English, as before there were reasons.
    """

    id: IncidentId
    cause: str
    subject: str
    verdict: str
    observed: bool = False
    began_at: float
    moved: tuple[MovedSite, ...] = ()
    held: tuple[HeldSite, ...] = ()
    epoch: Epoch = Epoch()
    timeline: tuple[Entry, ...] = ()
    evidence: dict[str, str | int | float | None] = {}
    testimony: tuple[Why, ...] = ()
    complete: bool = False
    closed_at: float | None = None


class Word(Enum):
    """What a controller says of a host that it does not hear as it should."""

    SILENT = "silent"  # no beat for `suspect_s`; an edge: for `live_edge_s`
    UNREACHABLE = "unreachable"  # none for `unreachable_s`, or none since it watches
    UNSURE = "unsure"  # it has not watched for long enough to say


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What one controller tells the others. A declared host without a word is heard well.

    Written when it changes, under a lease: a dead controller's word ends with it. `trusted`: it does not doubt itself
    (rule R5).
    """

    trusted: bool = False
    words: dict[HostId, Word] = {}


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed what, when (Unix s) and why; `before` and `after` in a few words, where that can be told so."""

    at: float
    who: str
    what: str
    subject: str
    reason: str = ""
    before: str = ""
    after: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """Something that waits for a human or for its reason to go away."""

    id: str
    kind: Literal["move", "dns", "brake", "store"]
    subject: str
    why: Why
    since: float
    sites: tuple[HeldSite, ...] = ()
