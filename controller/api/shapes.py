"""What the API answers, as types: names and units as in the fleet and the beats that they are made from.

Wherever a `Why` is answered, its sentence stands beside its code as `text`.
"""

from typing import Literal

import msgspec

from failover.policy import Policy
from fleet.messages import AgentState, EdgeReport, Load, Service
from fleet.model import (
    Arming,
    ControllerId,
    Domain,
    Health,
    Hold,
    Host,
    HostId,
    Incident,
    IncidentId,
    LocationId,
    MemberId,
    Mode,
    MovedSite,
    Note,
    PlanId,
    Role,
    Site,
    SiteCheck,
    SiteId,
    Spent,
    Why,
)


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """The brake: causes it counts within the last hour, and how many it lets pass."""

    spent: int
    allowed: int


class SiteCounts(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    away: int
    held: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The whole at a glance. `leader`: this controller decides; `led_by`: who does, by the store.

    `hosts`: how many have each verdict; `revision`: the store's, mirrored here.
    """

    cluster: str
    version: str
    controller: str
    leader: bool
    led_by: ControllerId | None
    ready: bool
    arming: Arming
    paused: Note | None
    rewound: Why | None
    store_error: str | None
    doubts_itself: bool
    budget: Spending
    hosts: dict[str, int]
    sites: SiteCounts
    incidents_open: int
    revision: int


class SiteItem(msgspec.Struct, frozen=True, kw_only=True):
    """A site, where it is served since when (ISO 8601) and why, and what holds it there."""

    id: SiteId
    member: MemberId
    domains: tuple[Domain, ...]
    home: HostId
    host: HostId | None
    mode: Mode
    route: Literal["edges", "direct"]
    since: str | None
    why: Why | None
    armed: bool
    standbys: tuple[HostId, ...]
    hold: Why | None


class SiteTold(SiteItem, frozen=True, kw_only=True):
    """One site, with the incidents that moved it, newest first. `declared` is what PUT takes."""

    declared: Site
    plan: PlanId
    check: SiteCheck
    incident: IncidentId | None
    incidents: tuple[IncidentId, ...]


class HostItem(msgspec.Struct, frozen=True, kw_only=True):
    """A host, its verdict since how many s and why, and what its last beat said."""

    id: HostId
    tag: str
    location: LocationId
    roles: tuple[Role, ...]
    addresses: tuple[str, ...]
    verdict: str
    since_s: float | None
    why: Why
    connected: bool
    beat_age_s: float | None
    sites_home: int
    sites_here: int
    draining: Note | None
    withdrawn: Note | None
    load: Load | None
    service: Service | None
    boot_id: str | None


class AgentTold(msgspec.Struct, frozen=True, kw_only=True):
    """A host's agent, by its last beat. `orders`: the epoch that it has applied."""

    version: str
    kernel: str
    uptime_s: float
    state: AgentState
    orders: str
    edge: EdgeReport | None


class ReachTold(msgspec.Struct, frozen=True, kw_only=True):
    """How long ago a controller heard the host, and whether its word counts."""

    age_s: float | None
    trusted: bool


class OpinionTold(msgspec.Struct, frozen=True, kw_only=True):
    """What a witness sees of the host's service, since how many s."""

    witness: str
    health: Health
    since_s: float | None


class EvidenceTold(msgspec.Struct, frozen=True, kw_only=True):
    """Every witness' word, as the last round saw it: by controller, and by host."""

    reach: dict[str, ReachTold] = {}
    opinions: dict[str, OpinionTold] = {}


class HostTold(HostItem, frozen=True, kw_only=True):
    """One host with the evidence on it and its sites, each with what holds it. `declared` is what PUT takes."""

    declared: Host
    max_sites: int | None
    agent: AgentTold | None
    evidence: EvidenceTold
    sites: tuple[SiteItem, ...]


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What is armed: the most specific word wins (site, host, location, all)."""

    all: Arming
    locations: dict[LocationId, Arming]
    hosts: dict[HostId, Arming]
    sites: dict[SiteId, Arming]


class SpendingTold(Spending, frozen=True, kw_only=True):
    causes: tuple[Spent, ...]


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    arming: Words
    paused: Note | None
    rewound: Why | None
    budget: SpendingTold
    policy: Policy


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """`revision`: the one at which the order became true, already to be read here."""

    revision: int


class DoneMoving(Done, frozen=True, kw_only=True):
    moved: tuple[MovedSite, ...]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """`next`: the cursor of the page that follows; null on the last one."""

    next: str | None


class Hosts(Page, frozen=True, kw_only=True):
    hosts: tuple[HostItem, ...]


class Sites(Page, frozen=True, kw_only=True):
    sites: tuple[SiteItem, ...]


class Incidents(Page, frozen=True, kw_only=True):
    incidents: tuple[Incident, ...]


class Holds(Page, frozen=True, kw_only=True):
    holds: tuple[Hold, ...]
