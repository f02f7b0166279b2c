"""What the agent's wiring asks of the parts that touch the world; each has its driver beside its wire."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fleet.messages import Check, EdgeReport, Routes
from fleet.model import Epoch, HostId


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
