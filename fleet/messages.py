"""What travels between an agent and a controller: JSON frames on one WebSocket, told apart by `type`."""

from enum import Enum
from typing import Annotated

import msgspec
from msgspec import Meta

from fleet.model import Domain, Epoch, Health, HostId, Role, SiteId, Why

PROTOCOL = 1
# An agent's largest frame is an edge's beat: 300 hosts' checks are 30 kB. Orders with 20,000 domains are 1.2 MB.
BEAT_LIMIT_BYTES = 1 << 20
ORDERS_LIMIT_BYTES = 16 << 20

Ratio = Annotated[float, Meta(ge=0)]


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
    read_bytes_per_s: float
    write_bytes_per_s: float
    busy_ratio: Ratio


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the last 10 s in which some task was stalled (0..1). Source: kernel, accounting/psi."""

    cpu: Ratio = 0.0
    memory: Ratio = 0.0
    io: Ratio = 0.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """A host's load; `pressure` is None where the kernel does not tell it."""

    cpu_ratio: Ratio
    load_1min: Ratio
    memory_total_bytes: int
    memory_available_bytes: int
    swap_used_bytes: int
    receive_bytes_per_s: float
    transmit_bytes_per_s: float
    disks: dict[str, Disk] = {}
    pressure: Pressure | None = None


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender saw of a service: `since_s` seconds ago it took this value."""

    health: Health
    since_s: Annotated[float, Meta(ge=0)]
    detail: Annotated[str, Meta(max_length=200)] = ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """The host's own view of the service its sites need, and what it tried."""

    check: Check
    restart: RestartState = RestartState.NONE


class EdgeReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an edge serves: the epoch of the routes that HAProxy follows, and what it did not expect there."""

    haproxy_up: bool
    routes: Epoch = Epoch()
    domains: int = 0
    sessions: int = 0
    strays: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    error: Annotated[str, Meta(max_length=500)] = ""


class Beat(msgspec.Struct, frozen=True, kw_only=True, tag="beat"):
    """What an agent says of itself, twice a second.

    `checks` are its views of other hosts: HAProxy's on an edge, its own probes elsewhere.
    `doubts_itself` marks views that must not count (rule R5). `orders` is the newest epoch it has applied; `newest`
    and `commit` are those of the newest orders it has accepted.
    """

    host: HostId
    cluster: str = ""
    sequence: int
    boot_id: str
    uptime_s: Annotated[float, Meta(ge=0)]
    kernel: str
    version: str
    state: AgentState = AgentState.RUNNING
    load: Load
    service: Service | None = None
    package_run: bool = False
    checks: dict[HostId, Check] = {}
    doubts_itself: bool = False
    orders: Epoch = Epoch()
    newest: Epoch = Epoch()
    commit: str = ""
    edge: EdgeReport | None = None


class Applied(msgspec.Struct, frozen=True, kw_only=True, tag="applied"):
    """Orders of this epoch are in force; `refused` says what of them was not done."""

    epoch: Epoch
    refused: Annotated[tuple[str, ...], Meta(max_length=100)] = ()


class Ack(msgspec.Struct, frozen=True, kw_only=True, tag="ack"):
    """The beat with this sequence was heard."""

    sequence: int


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A host as an edge's backend or a neighbour's probe sees it: one address and what to ask there."""

    address: str
    port: int
    check: str = "/"


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    """Where each domain goes. `removed` lists what was told to be removed: what is in neither stays (rule R7)."""

    hosts: dict[HostId, Target] = {}
    domains: dict[Domain, HostId] = {}
    removed_domains: tuple[Domain, ...] = ()
    removed_hosts: tuple[HostId, ...] = ()
    proof: str = ""  # a request that carries it is told which host answered


class Orders(msgspec.Struct, frozen=True, kw_only=True, tag="orders"):
    """The complete desired state of one agent, a pure function of the store at `epoch`'s revision.

    `commit` names the newest commit that they are made from: a store that was rewound does not know it (rule R2).
    `addressed`: DNS names this host's own address for some site, or may have: visitors come while caches last.
    """

    epoch: Epoch
    cluster: str
    commit: str = ""
    host: HostId
    roles: tuple[Role, ...] = ()
    sites: tuple[SiteId, ...] = ()
    removed_sites: tuple[SiteId, ...] = ()
    addressed: bool = False
    probes: dict[HostId, Target] = {}
    routes: Routes | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """The controller ends the link, and says why."""

    why: Why


FromAgent = Beat | Applied
FromController = Ack | Orders | Refusal
