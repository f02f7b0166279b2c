"""What the agent's wiring asks of the parts that touch the world; each has its driver beside its wire."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fleet.messages import AgentState, Check, EdgeReport, Load, Routes, Service
from fleet.model import ControllerId, Epoch, HostId


class DriverError(Exception):
    """An outside system could not be reached or refused; a later try may succeed. Says what and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeView:
    """HAProxy's view of each host, and how HAProxy itself is."""

    checks: Mapping[HostId, Check]
    report: EdgeReport


class Traffic(Protocol):
    """An edge's load balancer."""

    async def follow(self, routes: Routes, epoch: Epoch) -> tuple[str, ...]:
        """Make `routes` true: idempotent, one atomic map transaction, a reload only for new or gone hosts.

        Gives what was refused or left (strays), for people. Raises DriverError: nothing, or a safe part, was done.
        """
        ...

    async def look(self) -> EdgeView:
        """The view now; a silent HAProxy is `haproxy_up=False` and no checks, never an error."""
        ...

    async def keep(self) -> None:
        """Eternal: restore what HAProxy lost by a restart or by someone else's hand."""
        ...


class Connection(Protocol):
    """One open link to a controller, frame by frame. A real WebSocket, or memory in the simulation."""

    async def send(self, frame: bytes) -> None:
        """Raises DriverError once the link is gone."""
        ...

    async def receive(self) -> bytes:
        """The next frame. Raises DriverError once the link is gone, or for a frame that is too large."""
        ...

    async def close(self) -> None:
        """End the link, politely if the other end listens; bounded in time, idempotent, never raises."""
        ...


# Opens a link to one controller. Raises DriverError.
Dial = Callable[[ControllerId], Awaitable[Connection]]


class Senses(Protocol):
    """What the beat asks of the host, answered at once from what was last seen; `now` is the loop's time in s."""

    def state(self) -> AgentState: ...

    def load(self, now: float) -> Load: ...

    def uptime_s(self) -> float:
        """By CLOCK_BOOTTIME: a suspended machine's time counts."""
        ...

    def service(self, now: float) -> Service | None: ...

    def package_run(self) -> bool: ...

    def checks(self, now: float) -> Mapping[HostId, Check]:
        """This host's views of others."""
        ...

    def edge(self, now: float) -> EdgeReport | None: ...
