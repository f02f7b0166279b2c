"""What the controller's wiring asks of the parts that touch the world; each has its driver beside its wire."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Never, Protocol

from fleet.messages import Check, Target
from fleet.model import Domain, Hold, HostId, ZoneName


class ConnectionLost(Exception):
    """The other end is gone, or no longer worth listening to."""


class Connection(Protocol):
    """One agent's end of the link: whole frames, in order."""

    async def send(self, frame: bytes) -> None:
        """Raises ConnectionLost."""
        ...

    async def receive(self) -> bytes:
        """The next frame. Raises ConnectionLost."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a visitor would get: the status, and the host that an edge says it came from."""

    status: int
    served_by: str | None = None
    error: str = ""


class Visitor(Protocol):
    """Asks for a site as its visitors do."""

    async def ask(self, address: str, port: int, *, domain: str, path: str, proof: str) -> Answer:
        """GET `path` of `domain` at `address`. A failure is an answer with status 0 and its error, never raised."""
        ...


class Probing(Protocol):
    """The controller's own look at services, where a co-op has no edges (rule R4)."""

    def follow(self, probes: Mapping[HostId, Target]) -> tuple[str, ...]:
        """Ask these hosts from now on, and no others."""
        ...

    def checks(self, now: float) -> Mapping[HostId, Check]:
        """What they answered, at an instant of the loop's clock."""
        ...

    async def keep(self) -> Never: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Progress of one zone's current intent. Instants are Unix s; `servers` holds those that answer as intended."""

    revision: int
    idle: bool = False  # nothing of the zone may be written, or there is nothing to say
    sent_at: float | None
    servers: Mapping[str, float]
    done_at: float | None


class Convergence(Protocol):
    """How far the zones' intents are carried out."""

    def work(self, zone: str) -> Work | None: ...

    def removed(self, zone: ZoneName) -> frozenset[Domain]:
        """Names told to be removed that are gone from the zone's primary."""
        ...

    def holds(self) -> dict[str, Hold]:
        """Names and zones that wait for a human, by hold id."""
        ...
