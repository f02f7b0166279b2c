"""The API's answers about caps as the command line needs them; what it does not know in them it ignores."""

import msgspec

from cli.answers import Note, Reason

Value = int | bool | None


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One cap on its way from plan to kernel."""

    cap: str
    plan: Value
    override: Value
    wanted: Value
    held: Value
    because: Reason | None
    differs: bool


class Penalty(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    level: int
    resource: str
    nature: str
    share: float
    since: float
    until: float
    owner: str
    why: Reason
    enforced: bool


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    penalty: Penalty
    host: str
    ended: float


class Process(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    user: str
    command: str
    cpu_cores: float = 0.0
    memory_bytes: int = 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    every_s: float
    stall: tuple[float, ...] = ()
    use: tuple[float, ...] = ()
    score: float = 0.0
    processes: tuple[Process, ...] = ()
    urls: dict[str, int] = {}
    resource: str | None = None
    signs: tuple[str, ...] = ()
    gaps: tuple[int, ...] = ()
    own: bool = False
    seconds: tuple[float, ...] = ()


class Override(msgspec.Struct, frozen=True, kw_only=True):
    caps: dict[str, int | float]
    note: Note


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    word: str
    level: int
    nature: str
    note: Note


class AtEdges(msgspec.Struct, frozen=True, kw_only=True):
    """What each edge lets through to a site now; None: no limit, and no end."""

    state: str
    until: float | None
    in_flight: int | None
    queue: int
    queue_wait_s: float
    requests_per_s: float | None
    requests_burst: int | None
    client_requests_per_min: int | None


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A cap that its plan made stricter since it was armed."""

    holds: object
    plan: object
    comes: float | None = None


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of a site's users beside its own."""

    slice: str
    known: bool
    chain: tuple[Link, ...]
    differs: tuple[str, ...]
    short: tuple[Reason, ...]


class Short(msgspec.Struct, frozen=True, kw_only=True):
    """What of a site's caps is not held, and why."""

    site: str
    slice: str
    short: tuple[Reason, ...]


class SiteCaps(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    host: str | None
    age_s: float | None
    driver: str
    unable: str
    plan: str
    attachment: str | None
    slice: str
    enforced_from: float | None
    enforced: bool
    override: Override | None
    ruling: Ruling | None
    penalties: tuple[Penalty, ...]
    evidence: Evidence | None
    known: bool
    chain: tuple[Link, ...]
    differs: tuple[str, ...]
    past: tuple[Ended, ...]
    edges: AtEdges | None = None
    waits: dict[str, Waiting] = {}
    last_hour: dict[str, int] = {}
    short: tuple[Reason, ...] = ()
    beside: tuple[Beside, ...] = ()
    held_by: tuple[str, ...] | None = None
    lacks: tuple[Reason, ...] = ()


class Differing(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    slice: str
    age_s: float
    chain: tuple[Link, ...]


class HostCaps(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    age_s: float | None
    driver: str
    unable: str
    drift: int
    sites: int
    enforced: int
    attachments: dict[str, int]
    differing: tuple[Differing, ...]
    unknown: tuple[str, ...]
    help: tuple[Reason, ...]
    short: tuple[Short, ...] = ()
    unheld: tuple[str, ...] = ()
    at_edges: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()
    lacks: tuple[Reason, ...] = ()


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    plan: str
    host: str | None
    attachment: str | None
    enforced: bool
    shadow_min: float
    penalized_min: float
    penalties: int
    level: str
    waits: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    days: float
    sites: tuple[Reported, ...]
    quiet: int
    unheard: int


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    since: float | None = None


class Words(msgspec.Struct, frozen=True, kw_only=True):
    all: Turn = Turn()
    hosts: dict[str, Turn] = {}
    plans: dict[str, Turn] = {}
    sites: dict[str, Turn] = {}


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    plan: str
    since: float | None
    sites: int


class Enforcement(msgspec.Struct, frozen=True, kw_only=True):
    words: Words
    enforced: int
    shadow: int
    waiting: int
    unable: int
    pending: tuple[Pending, ...] = ()
    at_edges: int = 0


class Past(msgspec.Struct, frozen=True, kw_only=True):
    days: float
    at_cap_min: dict[str, float] = {}
    shadow_min: float = 0.0
    cpu_p95_cores: float | None = None
    memory_p95_bytes: int | None = None
    at_cap_days: dict[str, float] = {}


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """What a site's users keep; `shared`: and those of other sites with them."""

    used_bytes: int | None = None
    used_inodes: int | None = None
    shared: bool = False


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """None: it can't be attributed."""

    attachment: str
    cpu_cores: float | None = None
    throttled_ratio: float | None = None
    memory_bytes: int | None = None
    anon_bytes: int | None = None
    swap_bytes: int | None = None
    read_bytes_per_s: float | None = None
    write_bytes_per_s: float | None = None
    tasks: int | None = None
    requests_per_s: float | None = None
    took_s: float | None = None
    file_bytes: int | None = None
    devices: dict[str, float] = {}
    oom_kills: int = 0
    past: Past | None = None
    disk: Disk | None = None


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Of what a plan allows."""

    cpu_ratio: float | None
    memory_ratio: float | None
    tasks_ratio: float | None
    read_ratio: float | None
    write_ratio: float | None
    requests_ratio: float | None
    disk_ratio: float | None = None
    inodes_ratio: float | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    plan: str
    host: str | None
    age_s: float | None
    use: Use | None
    against: dict[str, Share]
    last_hour: dict[str, int] = {}


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    average: float
    p95: float
    max: float


class PastStep(msgspec.Struct, frozen=True, kw_only=True):
    """None: not known; a step that nobody saw has `seen_s` 0."""

    at: float
    seen_s: float
    shadow_s: float | None
    at_cap_s: float | None
    cpu_cores: Spread | None = None
    memory_bytes: Spread | None = None
    read_bytes_per_s: Spread | None = None
    write_bytes_per_s: Spread | None = None
    tasks: Spread | None = None
    requests_per_s: Spread | None = None


class SitePast(msgspec.Struct, frozen=True, kw_only=True):
    site: str
    host: str
    attachment: str | None
    plan: str
    since: float
    until: float
    step_s: int
    p95_estimated: bool
    seen_since: float | None
    steps: tuple[PastStep, ...]
    overall: PastStep
