"""What is known of each host, by whom, and how old it is: the whole input of the judge."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from fleet.messages import AgentState, Service
from fleet.model import ControllerId, Health, HostId


class Witness(Enum):
    EDGE = "edge"
    NEIGHBOUR = "neighbour"
    CONTROLLER = "controller"  # its own probe of the service, where a co-op has no edges


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One controller's word on its link to a host. `age_s`: since its last beat; None: none since it began.

    `trusted` is False while that controller doubts itself (rule R5): it then counts as 'don't know'.
    `watched_s`: how long it has been in a position to hear, so that 'never heard' has a meaning.
    """

    age_s: float | None
    trusted: bool
    watched_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """One witness' word on whether a host answers; `since_s`: how long it has said so."""

    kind: Witness
    health: Health
    since_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A host's own last words. Its claims about itself may be lies (rule R15); they never convict another."""

    boot_id: str
    state: AgentState
    service: Service | None = None
    package_run: bool = False
    memory_available_ratio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All observers' views of one host. `known`: it has reported to this cluster at least once."""

    reach: Mapping[ControllerId, Reach] = field(default_factory=dict)
    opinions: Mapping[str, Opinion] = field(default_factory=dict)
    report: Report | None = None
    known: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at the world. `controllers`: all configured ones, the ground of every majority.

    `has_edges`: the fleet declares edges; then only live ones are witnesses beside the controllers (rule R4).
    """

    controllers: frozenset[ControllerId]
    hosts: Mapping[HostId, Evidence]
    live_edges: frozenset[HostId] = frozenset()
    has_edges: bool = True
