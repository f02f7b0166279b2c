"""The API's answers as the command line needs them; what it does not know in them it ignores."""

import msgspec


class Reason(msgspec.Struct, frozen=True):
    code: str
    text: str = ""
    values: dict[str, str | int | float] = {}


class Note(msgspec.Struct, frozen=True, kw_only=True):
    owner: str
    reason: str
    until: float


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    spent: int
    allowed: int


class SiteCounts(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    away: int
    held: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    cluster: str
    version: str
    controller: str
    leader: bool
    ready: bool
    arming: str
    paused: Note | None
    rewound: Reason | None
    doubts_itself: bool
    store_error: str | None = None
    budget: Spending
    hosts: dict[str, int]
    sites: SiteCounts
    incidents_open: int
    revision: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    cpu_ratio: float = 0.0
    load_1min: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0

    @property
    def memory_used_ratio(self) -> float:
        total = self.memory_total_bytes
        return 1 - self.memory_available_bytes / total if total else 0.0


class Site(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    member: str
    domains: tuple[str, ...]
    home: str
    host: str | None
    mode: str
    route: str
    since: str | None
    why: Reason | None
    armed: bool
    standbys: tuple[str, ...]
    hold: Reason | None = None
    plan: str = ""
    incidents: tuple[str, ...] = ()


class Sites(msgspec.Struct, frozen=True):
    sites: tuple[Site, ...]


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    age_s: float | None
    trusted: bool


class Opinion(msgspec.Struct, frozen=True, kw_only=True):
    witness: str
    health: str
    since_s: float


class Evidence(msgspec.Struct, frozen=True):
    reach: dict[str, Reach] = {}
    opinions: dict[str, Opinion] = {}


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    kernel: str
    uptime_s: float
    state: str
    orders: str


class Host(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    tag: str
    location: str
    roles: tuple[str, ...]
    addresses: tuple[str, ...]
    verdict: str
    since_s: float | None
    why: Reason
    connected: bool
    beat_age_s: float | None
    sites_home: int
    sites_here: int
    draining: Note | None
    withdrawn: Note | None
    load: Load | None
    agent: Agent | None = None
    evidence: Evidence = Evidence()
    sites: tuple[Site, ...] = ()


class Hosts(msgspec.Struct, frozen=True):
    hosts: tuple[Host, ...]


class Move(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    source: str
    target: str | None
    why: Reason | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    phase: str
    offset_s: float
    why: Reason
    subject: str = ""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    subject: str
    verdict: str
    observed: bool
    began_at: float
    moved: tuple[Move, ...]
    held: tuple[Move, ...]
    timeline: tuple[Entry, ...]
    evidence: dict[str, str | int | float | None]
    testimony: tuple[Reason, ...] = ()
    complete: bool
    closed_at: float | None

    @property
    def state(self) -> str:
        """In a word; what only was watched says so."""
        if self.closed_at is not None:
            return "closed"
        if self.observed:
            return "observed"
        return "complete" if self.complete else "open"


class Incidents(msgspec.Struct, frozen=True):
    incidents: tuple[Incident, ...]


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    subject: str
    why: Reason
    since: float
    sites: tuple[Move, ...] = ()


class Holds(msgspec.Struct, frozen=True):
    holds: tuple[Hold, ...]


class Words(msgspec.Struct, frozen=True, kw_only=True):
    all: str
    locations: dict[str, str] = {}
    hosts: dict[str, str] = {}
    sites: dict[str, str] = {}


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    arming: Words
    paused: Note | None
    rewound: Reason | None
    budget: Spending


class Warned(msgspec.Struct, frozen=True, kw_only=True):
    """Of a file there is a line."""

    said: str
    file: str = ""
    line: int = 0


class Field(msgspec.Struct, frozen=True, kw_only=True):
    field: str
    old: object = None
    new: object = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    kind: str
    id: str
    fields: tuple[Field, ...] = ()


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What was changed in the fleet."""

    revision: int
    change: int | None = None
    summary: str
    changes: tuple[Change, ...]
    warnings: tuple[Warned, ...] = ()


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet file would change."""

    revision: int
    summary: str
    changes: tuple[Change, ...]
    refused: tuple[Reason, ...] = ()
    warnings: tuple[Warned, ...] = ()


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    change: int
    at: float
    who: str
    reason: str
    summary: str
    first: tuple[str, ...] = ()
    undoes: int | None = None


class LoggedTold(Logged, frozen=True, kw_only=True):
    changes: tuple[Change, ...]


class Log(msgspec.Struct, frozen=True):
    log: tuple[Logged, ...]


class Done(msgspec.Struct, frozen=True, kw_only=True):
    revision: int
    moved: tuple[Move, ...] = ()


class Event(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    event: str
    data: dict[str, object]


class Events(msgspec.Struct, frozen=True):
    events: tuple[Event, ...]


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A token, told once. `url`: where a host joins."""

    token: str
    until: float
    url: str = ""


class Token(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    role: str
    member: str | None
    by: str
    since: float | None
    until: float | None


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    by: str
    since: float | None
    revoked: bool
    changing: bool
    joining: float | None
    linked: bool


class Access(msgspec.Struct, frozen=True, kw_only=True):
    tokens: tuple[Token, ...]
    hosts: tuple[Credential, ...]


class Audited(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    who: str
    what: str
    subject: str
    reason: str
    before: str
    after: str


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    entries: tuple[Audited, ...]


class RecoveredWord(msgspec.Struct, frozen=True, kw_only=True):
    witness: str
    host: str
    epoch: str


class RecoveryConflict(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    kept: str
    said: tuple[RecoveredWord, ...]


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    generation: int
    moved: dict[str, str]
    conflicts: tuple[RecoveryConflict, ...]
    strays: tuple[str, ...]
    heard: tuple[str, ...]
    silent: tuple[str, ...]
    strangers: tuple[str, ...]
