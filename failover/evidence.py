"""What is known of each host, by whom, and how old it is: the whole input of the judge."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import inf

from failover.policy import Policy
from fleet.messages import AgentState, Service
from fleet.model import ControllerId, Health, HostId, Observation, Word


class Witness(Enum):
    EDGE = "edge"
    NEIGHBOUR = "neighbour"
    CONTROLLER = "controller"  # its own probe of the service, where a co-op has no edges


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One controller's word on its link to a host. `age_s`: since its last beat; None: none since it began.

    `trusted` is False while that controller doubts itself (rule R5): it then counts as 'don't know'.
    `watched_s`: how long it has been in a position to hear, so that 'never heard' has a meaning. Of another
    controller only the least age is known that its word allows.
    """

    age_s: float | None
    trusted: bool
    watched_s: float


def word_on(reach: Reach, policy: Policy, *, is_edge: bool) -> Word | None:
    """What a controller tells the others of a host that it reaches so; None: it hears it well."""
    if reach.age_s is None:
        return Word.UNREACHABLE if reach.watched_s >= policy.first_beat_s else Word.UNSURE
    if reach.age_s >= policy.unreachable_s:
        return Word.UNREACHABLE
    late_s = policy.live_edge_s if is_edge else policy.suspect_s
    return Word.SILENT if reach.age_s >= late_s else None


def told(host: HostId, said: Observation, policy: Policy) -> Reach | None:
    """Another controller's word as evidence; None: it can't say."""
    match said.words.get(host):
        case None:
            return Reach(age_s=0.0, trusted=said.trusted, watched_s=inf)
        case Word.SILENT:
            return Reach(age_s=policy.suspect_s, trusted=said.trusted, watched_s=inf)
        case Word.UNREACHABLE:
            return Reach(age_s=None, trusted=said.trusted, watched_s=inf)
        case Word.UNSURE:
            return None


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
