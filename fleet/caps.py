"""How a host holds a site inside its plan: attachment, what is in force, penalties and their evidence."""

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum, IntEnum
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from fleet.model import Caps, Count, HostId, Name, Note, PlanCaps, PlanId, SiteId, Why

OWNER = "relevo"  # of a penalty that no person ordered


class Attachment(Enum):
    """How much of a site the kernel lets its host see and hold, best first."""

    SLICE = "slice"  # its processes are in one cgroup: every cap holds
    POOL = "pool"  # workers of a shared php-fpm master: seen by uid and FPM's status, held at the edges
    LOG = "log"  # mod_php and alike: requests and durations by virtual host, an estimate
    NONE = "none"  # nothing of it can be told from its neighbours


class Resource(Enum):
    CPU = "cpu"
    MEMORY = "memory"
    IO = "io"
    TASKS = "tasks"
    WEB = "web"
    EGRESS = "egress"


class Level(IntEnum):
    """The ladder of penalties; each step up is for a shorter time and by stronger proof."""

    BASELINE = 0  # the plan's caps
    WATCH = 1  # looked at more often, nothing is held
    SOFT = 2  # last in the queue when there is a queue
    CAP = 3  # a hard share of its plan
    ISOLATE = 4  # nothing goes out but DNS, mail by the local server and the database
    STOP = 5  # frozen for evidence, ended, kept stopped


class Nature(Enum):
    """What kind of trouble it is: each has its own way up the ladder."""

    HEAVY = "heavy"  # costs more than its plan, by its own code
    CRAWLED = "crawled"  # many requests, few clients
    VIRAL = "viral"  # many requests, many clients
    HACKED = "hacked"  # does what no web site does


class Penalty(msgspec.Struct, frozen=True, kw_only=True):
    """A time-limited restriction of one site (rules R11, R14).

    Times are Unix s. `share` of the plan is what a CAP leaves: 0.5, then 0.25. `enforced`: False in shadow, where it is
    decided, told and recorded, and nothing is held. `owner`: "relevo", or the person who ordered it.
    """

    site: SiteId
    level: Level
    resource: Resource
    nature: Nature = Nature.HEAVY
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    since: float
    until: float
    owner: Annotated[str, Meta(max_length=100)] = OWNER
    why: Why
    enforced: bool = False

    @property
    def is_relief(self) -> bool:
        """A CAP of memory that takes nothing is the memory watchdog's word, and no level of the ladder."""
        return (self.level, self.resource, self.share) == (Level.CAP, Resource.MEMORY, 1.0)


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process as evidence: its command without arguments that could name a visitor (rule R16)."""

    pid: Count
    user: Annotated[str, Meta(max_length=64)]
    command: Annotated[str, Meta(max_length=200)]
    cpu_cores: float = 0.0
    memory_bytes: Count = 0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What a penalty was decided from: the victims' stall and the site's use, oldest first, `every_s` apart.

    `use` is in the unit of `resource`: cores, bytes/s, tasks, connections/s. At `gaps` (places in both series) nothing
    was read: they repeat what is beside them, and say nothing. `own`: the stall is what the site does to itself, of
    the memory watchdog's relief. `signs`: what showed of a break-in. `urls` are paths without their query, with how
    often each was asked (rule R16). Kept for 14 days.
    """

    site: SiteId
    at: float
    every_s: float
    stall: Annotated[tuple[float, ...], Meta(max_length=120)] = ()
    use: Annotated[tuple[float, ...], Meta(max_length=120)] = ()
    score: float = 0.0
    processes: Annotated[tuple[Process, ...], Meta(max_length=10)] = ()
    urls: Annotated[dict[Annotated[str, Meta(max_length=200)], Count], Meta(max_length=10)] = {}
    resource: Resource | None = None
    signs: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=10)] = ()
    gaps: Annotated[tuple[Count, ...], Meta(max_length=120)] = ()
    own: bool = False
    # What it used in each second of the minute before, if it was watched then; of memory, what it had (bytes).
    seconds: Annotated[tuple[float, ...], Meta(max_length=60)] = ()


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """A word about one site that its host follows until `note.until`.

    quarantine: a person holds it at `level`; release: a person lifts what relevo decided, and keeps it lifted;
    suspect: it was penalized elsewhere, and is watched here until this host has its own proof (rule R15).
    """

    word: Literal["quarantine", "release", "suspect"]
    level: Level = Level.ISOLATE
    nature: Nature = Nature.HEAVY
    note: Note


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Caps of one site that differ from its plan's, by field of Caps, until `note.until` (rule R11)."""

    caps: dict[str, int | float]
    note: Note


class IoLimit(msgspec.Struct, frozen=True, kw_only=True):
    """Of one physical device. Source: kernel, cgroup-v2 io.max."""

    read_bytes_per_s: Count
    write_bytes_per_s: Count
    read_ops_per_s: Count
    write_ops_per_s: Count


class Limits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one slice holds, or should. None: no limit. `io` by resolved physical device, "major:minor".

    `io_weight`: None where this kernel has no use for it: what it holds is let be. `egress_closed`: nothing goes out
    but DNS, mail by the local server and the database.
    """

    cpu_weight: Count
    cpu_quota_us: Count | None  # of CPU time per second
    memory_high_bytes: Count | None
    memory_max_bytes: Count | None
    memory_low_bytes: Count
    swap_max_bytes: Count | None
    tasks_max: Count | None
    io: dict[str, IoLimit] = {}
    io_weight: Count | None = None
    egress_closed: bool = False
    frozen: bool = False


class Renewal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From `since` (Unix s) these editions hold, by plan. `said`: when; 0: by a wider word."""

    since: float
    editions: dict[PlanId, str]
    said: float = 0.0


class Turn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From when (Unix s) caps hold; None: shadow, in which everything is measured and nothing enforced.

    `editions`: of which plans, each with the numbers that it had when this was said; None, of a release that named
    none: all plans as they are. `inherits`: until `since` the wider words count, for a date lifts nothing. `said`: when
    it was (Unix s); 0, of a release that did not note it. `stopped`: when the shadow was said whose place this took
    (Unix s), or 0: what was armed within it before counts again from `since`.
    """

    since: float | None = None
    said: float = 0.0
    stopped: float = 0.0
    editions: dict[PlanId, str] | None = None
    renewed: Renewal | None = None
    inherits: bool = False


class Enforcement(msgspec.Struct, frozen=True, kw_only=True):
    """Where caps hold: the most specific word wins (site, plan, host, all), and a shadow over all within it that was
    armed before. Begins in shadow.

    `editions`: the numbers that words name, by their digest. `since`: from when (Unix s) a plan has been at least as
    strict as it is now. What follows from all this: fleet.inforce.
    """

    all: Turn = Turn()
    hosts: dict[HostId, Turn] = {}
    plans: dict[PlanId, Turn] = {}
    sites: dict[SiteId, Turn] = {}
    editions: dict[str, PlanCaps] = {}
    since: dict[PlanId, float] = {}


T = TypeVar("T")
C = TypeVar("C", bound=Caps)

Cap = int | float | tuple[int, int, int, int]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """From `since` (Unix s) these caps hold in the place of the plan's, by field of Caps: as they were when armed."""

    since: float
    caps: dict[str, Cap] = {}


class Tenant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a host must know of a site that it holds. Empty `users`: nothing of it can be told by uid.

    `held`, oldest first: where its plan was made stricter since it was armed.
    """

    plan: PlanId
    users: tuple[Name, ...] = ()
    domains: tuple[str, ...] = ()
    databases: tuple[Name, ...] = ()
    slice: str | None = None
    override: Override | None = None
    enforced_from: float | None = None
    held: tuple[Held, ...] = ()

    def turns(self) -> Iterator[float]:
        """When (Unix s) what holds of it begins or ends by itself, past and to come."""
        if self.enforced_from is not None:
            yield self.enforced_from
        yield from (each.since for each in self.held)
        if self.override is not None:
            yield self.override.note.since
            yield self.override.note.until


def armed(plan: Caps, held: Sequence[Held], now: float) -> Caps:
    """The numbers of a plan that hold at `now` (Unix s): its own, and those of the newest of `held` in their place."""
    instead = as_armed(held, now)
    return msgspec.structs.replace(plan, **instead) if instead else plan


def as_armed(held: Sequence[Held], now: float) -> Mapping[str, Cap]:
    """Those of the newest of `held` at `now` (Unix s), as far as this release knows them."""
    return _known(next((each.caps for each in reversed(held) if each.since <= now), {}))


def effective(plan: Caps, override: Override | None, now: float) -> Caps:
    """The caps of a site at `now` (Unix s): its plan's, and what an override that has not ended puts in their place."""
    if override is None or not override.note.since <= now < override.note.until:
        return plan
    return msgspec.structs.replace(plan, **_known(override.caps))


def in_background(caps: C) -> C:
    """What sessions and jobs get beside a site's services; what is protected is the services'."""
    tasks = min(caps.tasks, caps.background_tasks)
    return msgspec.structs.replace(caps, tasks=tasks, memory_low_bytes=0)


def _known(caps: Mapping[str, T]) -> dict[str, T]:
    """Without what only a newer release can hold."""
    return {name: value for name, value in caps.items() if name in Caps.__struct_fields__}
