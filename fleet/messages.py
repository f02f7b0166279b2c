"""What travels between an agent and a controller: JSON frames on one WebSocket, told apart by `type`."""

from enum import Enum
from typing import Annotated

import msgspec
from msgspec import Meta

from fleet.caps import Attachment, Evidence, Limits, Penalty, Ruling, Tenant
from fleet.model import NAME, Caps, Count, Domain, Epoch, Health, HostId, PlanId, Role, SiteId, Why
from fleet.pastuse import PastAsked, PastTold
from fleet.quota import DiskUse

PROTOCOL = 1
ALIVE = "/.relevo/alive"  # an edge answers for itself here, to other edges and to controllers; no site is asked
# An agent's largest frame is an edge's beat: 300 hosts' checks are 30 kB. Orders with 20,000 domains are 1.2 MB.
BEAT_LIMIT_BYTES = 1 << 20
FRAME_LIMIT_BYTES = 64 << 10  # of a host that is no edge: three neighbours, 256 disks
USAGE_BYTES = 256 << 10  # twenty penalties with all their evidence
SITE_USE_BYTES = 8 << 10  # one site with its limits on four disks, and those of two slices beside
SHORT_MAX, BESIDE_MAX, BESIDE_SHORT_MAX = 4, 2, 2
LACKS_MAX = 8  # of a host: file systems that hold nobody, and what a few others lack
ORDERS_LIMIT_BYTES = 16 << 20

# What an agent says is bounded field by field: it may be a compromised server's (rule R15).
CHECKS_MAX = 2000  # as many hosts as a fleet is measured for
SITES_MAX = 20_000
DISKS_MAX = 256
DEVICES_MAX = 16  # of one site
LINE_MAX = 500  # of a text for people
USAGE_OLD_S = 60.0  # a host tells how its sites are each 10 s: six words are missing
PLANS_TOLD_MAX = 100  # what a site's history is told against: those that it reached first
KERNEL_MAX, VERSION_MAX, ID_MAX = 128, 64, 64
SECONDS_MAX = 1e10  # three hundred years
RATE_MAX = 1e15  # bytes/s: a thousand times what a machine moves
LOAD_MAX = 1e9
LIMIT_MAX = 10_000_000  # of one site: ten times it still fits the 32 bits that HAProxy counts in
BOOT_ID = r"^[A-Za-z0-9-]{1,64}$(?!\n)"

Ratio = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]
Rate = Annotated[float, Meta(ge=0, le=RATE_MAX)]
Id = Annotated[str, Meta(max_length=ID_MAX)]
Line = Annotated[str, Meta(max_length=LINE_MAX)]
Lines = Annotated[tuple[Line, ...], Meta(max_length=100)]
Device = Annotated[str, Meta(pattern=r"^[0-9]{1,8}:[0-9]{1,8}$(?!\n)")]  # "major:minor"
Named = Annotated[HostId, Meta(pattern=NAME)]


class AgentState(Enum):
    RUNNING = "running"
    RESTARTING = "restarting"  # SIGTERM of the agent alone: nothing moves
    LEAVING = "leaving"  # the machine announced its shutdown: its sites move


class RestartState(Enum):
    """What became of the one local restart that a failed service gets."""

    NONE = "none"
    RUNNING = "running"
    FAILED = "failed"
    DONE = "done"
    UNAVAILABLE = "unavailable"


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    read_bytes_per_s: Rate
    write_bytes_per_s: Rate
    busy_ratio: Ratio


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the last 10 s in which some task was stalled (0..1). Source: kernel, accounting/psi."""

    cpu: Ratio = 0.0
    memory: Ratio = 0.0
    io: Ratio = 0.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A host's load; `pressure` is None where the kernel does not tell it."""

    cpu_ratio: Ratio
    load_1min: Annotated[float, Meta(ge=0, le=LOAD_MAX)]
    memory_total_bytes: Count
    memory_available_bytes: Count
    swap_used_bytes: Count
    receive_bytes_per_s: Rate
    transmit_bytes_per_s: Rate
    disks: Annotated[
        dict[Annotated[str, Meta(pattern=NAME)], Disk], Meta(max_length=DISKS_MAX)
    ] = {}
    pressure: Pressure | None = None

    @property
    def memory_available_ratio(self) -> float:
        """0..1, whatever the host claims; 1 where it says nothing of its memory."""
        total = self.memory_total_bytes
        return min(max(0, self.memory_available_bytes), total) / total if total > 0 else 1.0


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender saw of a service: `since_s` seconds ago it took this value."""

    health: Health
    since_s: Seconds
    detail: Annotated[str, Meta(max_length=200)] = ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The host's own view of the service its sites need, and what it tried."""

    check: Check
    restart: RestartState = RestartState.NONE


class EdgeReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an edge serves: the epoch of the routes that HAProxy follows, and what it did not expect there."""

    haproxy_up: bool
    routes: Epoch = Epoch()
    domains: Count = 0
    sessions: Count = 0
    strays: Lines = ()
    error: Line = ""


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """What an agent says of itself, twice a second.

    `checks` are its views of other hosts: HAProxy's on an edge, its own probes elsewhere.
    `doubts_itself` marks views that must not count (rule R5). `orders` is the newest epoch it has applied; `newest`
    and `commit` are those of the newest orders it has accepted. `metrics_port`: where its metrics can be had from
    elsewhere, over TLS; None: nowhere.
    """

    host: Named
    cluster: Id = ""
    sequence: Count
    boot_id: Annotated[str, Meta(pattern=BOOT_ID)]
    uptime_s: Seconds
    kernel: Annotated[str, Meta(max_length=KERNEL_MAX)]
    version: Annotated[str, Meta(max_length=VERSION_MAX)]
    state: AgentState = AgentState.RUNNING
    load: Load
    service: Service | None = None
    package_run: bool = False
    checks: Annotated[dict[Named, Check], Meta(max_length=CHECKS_MAX)] = {}
    doubts_itself: bool = False
    orders: Epoch = Epoch()
    newest: Epoch = Epoch()
    commit: Id = ""
    edge: EdgeReport | None = None
    metrics_port: Annotated[int, Meta(ge=1, le=65535)] | None = None


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    """Orders of this epoch are in force; `refused` says what of them was not done."""

    epoch: Epoch
    refused: Lines = ()


class Past(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a host's own history says of one site, which it has seen for `days` (at most 40).

    `at_cap_min`: the minutes of those days in which it was at a cap of each plan of the fleet, had that been its own;
    of a plan that is not in it nothing is known. `at_cap_days`: in how many of them a plan was compared, if not in all.
    Of the last week: `shadow_min`, in which its caps or a penalty would have held it and did not, and percentiles.
    """

    days: Annotated[float, Meta(ge=0, le=1000)]
    at_cap_min: Annotated[dict[PlanId, float], Meta(max_length=PLANS_TOLD_MAX)] = {}
    shadow_min: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    cpu_p95_cores: Annotated[float, Meta(ge=0, le=LOAD_MAX)] | None = None
    memory_p95_bytes: Count | None = None
    at_cap_days: Annotated[dict[PlanId, float], Meta(max_length=PLANS_TOLD_MAX)] = {}


# Counted by the kernel for a site's group: `memory.events` high, max, oom and oom_kill, `pids.events` max, and periods
# of 100 ms in which its own quota held it.
HAPPENINGS = (
    "memory_high_hits",
    "memory_max_hits",
    "oom_hits",
    "oom_kills",
    "tasks_refused",
    "throttled_periods",
)


class Beside(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One slice of a site's users, for their sessions and jobs beside its own. Fields as in SiteUse."""

    slice: Annotated[str, Meta(max_length=255)]
    wanted: Limits | None = None
    held: Limits | None = None
    because: dict[str, Why] = {}
    short: Annotated[tuple[Why, ...], Meta(max_length=BESIDE_SHORT_MAX)] = ()


class SiteUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one site used since its host's last word of it; None: it can't be attributed, which is not zero.

    `wanted`, `held`: what the kernel should hold and holds, told each minute and when it changes; None: as last told.
    `slice`: what is held; "" where nothing of it can be. `because`: why `wanted` is so, by its field, told with it.
    `past` is told each hour; None: as last told. `disk` is told with the limits; None: as last told. `devices`: bytes/s
    read and written by physical device, where there are several; `busiest_…` is what to compare with a cap then:
    the most on one of them, while `read_…` and `write_…` are their sum. What is in HAPPENINGS is counted since the last
    word.
    `short`: what of its caps is not held, and why; `beside`: what its users' slices hold beside its own, some of them.
    `told`: limits, and these two, are as they are now, also where they are empty. `took_s`: how long a request took on
    average in the last minute or two, an estimate by the access log; None: it does not say so, or nobody asked.
    """

    attachment: Attachment
    cpu_cores: Annotated[float, Meta(ge=0, le=LOAD_MAX)] | None = None
    throttled_ratio: Ratio | None = None
    memory_bytes: Count | None = None
    anon_bytes: Count | None = None
    swap_bytes: Count | None = None
    read_bytes_per_s: Rate | None = None
    write_bytes_per_s: Rate | None = None
    tasks: Count | None = None
    requests_per_s: Rate | None = None
    took_s: Seconds | None = None
    file_bytes: Count | None = None
    devices: Annotated[dict[Device, Rate], Meta(max_length=DEVICES_MAX)] = {}
    busiest_read_bytes_per_s: Rate | None = None
    busiest_write_bytes_per_s: Rate | None = None
    memory_high_hits: Count = 0
    memory_max_hits: Count = 0
    oom_hits: Count = 0
    oom_kills: Count = 0
    tasks_refused: Count = 0
    throttled_periods: Count = 0
    slice: Annotated[str, Meta(max_length=255)] = ""
    wanted: Limits | None = None
    held: Limits | None = None
    because: dict[str, Why] = {}
    short: Annotated[tuple[Why, ...], Meta(max_length=SHORT_MAX)] = ()
    beside: Annotated[tuple[Beside, ...], Meta(max_length=BESIDE_MAX)] = ()
    told: bool = False
    past: Past | None = None
    disk: DiskUse | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True, tag="usage"):
    """How a host's sites are: each 10 s, and at once when a penalty changes.

    A host of many sites tells a part of them at a time, so that no beat waits behind a large frame: a site that is not
    in `sites` is as last told. All the rest is whole in every message. `help`: what a person is needed for here.
    `driver` holds the caps; "": nothing can be enforced here. `lacks` says why, or what alone can't be, and `unable`
    the same in English. `drift` counts what was found changed by somebody else and repaired, since the agent's start.
    `cores`, `memory_total_bytes` and `has_swap` (or zswap) are the host's; None: not told.
    """

    host: Named
    sites: Annotated[dict[SiteId, SiteUse], Meta(max_length=SITES_MAX)] = {}
    penalties: Annotated[tuple[Penalty, ...], Meta(max_length=SITES_MAX)] = ()
    evidence: Annotated[tuple[Evidence, ...], Meta(max_length=20)] = ()
    driver: Annotated[str, Meta(max_length=20)] = ""
    unable: Line = ""
    lacks: Annotated[tuple[Why, ...], Meta(max_length=LACKS_MAX)] = ()
    drift: Count = 0
    cores: Annotated[float, Meta(gt=0, le=LOAD_MAX)] | None = None
    memory_total_bytes: Count | None = None
    has_swap: bool | None = None
    help: Annotated[tuple[Why, ...], Meta(max_length=10)] = ()


def usage_limit_bytes(sites: int) -> int:
    """The largest frame that a controller takes from a host that is no edge and has `sites`: more comes in pieces."""
    told = USAGE_BYTES + SITE_USE_BYTES * sites if sites else 0
    return min(FRAME_LIMIT_BYTES + told, BEAT_LIMIT_BYTES)


class Ack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="ack"):
    """The beat with this sequence was heard. `change_credential`: make yourself another one, until this is not said."""

    sequence: int
    change_credential: bool = False


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A host as an edge's backend or a neighbour's probe sees it: one address and what to ask there."""

    address: str
    port: int
    check: str = "/"


class LimitState(Enum):
    """What an edge does with one site's requests."""

    OPEN = "open"  # its plan's limits
    SLOWED = "slowed"  # less than its plan, under a penalty
    CLOSED = "closed"  # nothing reaches its host: a page says to come back later


class EdgeLimit(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What each edge lets through to one site from `since` until `until` (Unix s; None: no end).

    Above `in_flight` requests at a time, `queue` more wait for at most `queue_wait_s`. At most `requests_burst` begin
    in one second. `client_requests_per_min`: of one IPv4 address or one IPv6 /64.
    """

    since: float = 0.0
    until: float | None = None
    state: LimitState = LimitState.OPEN
    in_flight: Annotated[int, Meta(ge=1, le=LIMIT_MAX)]
    queue: Annotated[int, Meta(ge=0, le=LIMIT_MAX)]
    queue_wait_s: Annotated[float, Meta(ge=0, le=LIMIT_MAX)]
    requests_per_s: Annotated[float, Meta(gt=0, le=LIMIT_MAX)]
    requests_burst: Annotated[int, Meta(ge=1, le=LIMIT_MAX)]
    client_requests_per_min: Annotated[int, Meta(ge=1, le=LIMIT_MAX)]


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Where each domain goes. `removed` lists what was told to be removed: what is in neither stays (rule R7).

    `limits`: what the edges hold of a site, step after step in time, so that each step ends by itself (rule R11) also
    where no controller is reached. `sites`: whose a domain is, of limited sites only.
    """

    hosts: dict[HostId, Target] = {}
    domains: dict[Domain, HostId] = {}
    removed_domains: tuple[Domain, ...] = ()
    removed_hosts: tuple[HostId, ...] = ()
    proof: str = ""  # a request that carries it is told which host answered
    limits: dict[SiteId, tuple[EdgeLimit, ...]] = {}
    sites: dict[Domain, SiteId] = {}


class Orders(msgspec.Struct, frozen=True, kw_only=True, tag="orders"):
    """The complete desired state of one agent, a pure function of the store at `epoch`'s revision.

    `commit` names the newest commit that they are made from: a store that was rewound does not know it (rule R2).
    `addressed`: DNS names this host's own address for some site, or may have: visitors come while caches last.
    `plans` are all of the fleet's, so that use can be told against each; `tenants` and `rulings` are of the sites here.
    """

    epoch: Epoch
    cluster: Id
    commit: Id = ""
    host: HostId
    roles: tuple[Role, ...] = ()
    sites: tuple[SiteId, ...] = ()
    removed_sites: tuple[SiteId, ...] = ()
    addressed: bool = False
    probes: dict[HostId, Target] = {}
    routes: Routes | None = None
    plans: dict[PlanId, Caps] = {}
    tenants: dict[SiteId, Tenant] = {}
    rulings: dict[SiteId, Ruling] = {}


class Recall(msgspec.Struct, frozen=True, kw_only=True, tag="recall"):
    """The store was rewound: say what your newest orders were (rule R2)."""


class Recalled(msgspec.Struct, frozen=True, kw_only=True, tag="recalled"):
    """The newest orders that this host has accepted. `domains`, of an edge: host -> the domains that go there."""

    cluster: Id
    epoch: Epoch
    sites: Annotated[tuple[SiteId, ...], Meta(max_length=SITES_MAX)] = ()
    domains: (
        Annotated[
            dict[Named, Annotated[tuple[Domain, ...], Meta(max_length=SITES_MAX)]],
            Meta(max_length=CHECKS_MAX),
        ]
        | None
    ) = None


FromAgent = Beat | Applied | Recalled | Usage | PastTold
FromController = Ack | Orders | Recall | PastAsked
