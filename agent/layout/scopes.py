"""Scopes of systemd that hold adopted workers: made, filled and ended over D-Bus, never by writing to a cgroup.

Delegated, because systemd lets processes be moved only into what is delegated. Source: org.freedesktop.systemd1(5),
systemd.scope(5), systemd's CGROUP_DELEGATION.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from dbus_fast import BusType, DBusFastError, Variant
from dbus_fast.aio import MessageBus

from agent.layout.adopt import Begin, End, Step, Take
from agent.ports import DriverError
from agent.systembus import CALL_S, call
from fleet.model import SiteId

SYSTEMD = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
# Workers whose master is gone have nobody to answer to: what systemd gives its others, and no minute and a half.
STOP_US = 10_000_000
IN_A_ROW = (
    3  # calls that fail one after another: systemd itself is in trouble, the next round tries again
)


class Scopes(Protocol):
    """What moves processes."""

    async def carry_out(self, steps: Iterable[tuple[SiteId, Step]]) -> Mapping[SiteId, str]:
        """Do each; gives what failed, by site, for people. Idempotent. Raises DriverError: nothing was done."""
        ...


class SystemdScopes:
    """On the system bus, on a connection for each round in which there is something to do."""

    async def carry_out(self, steps: Iterable[tuple[SiteId, Step]]) -> Mapping[SiteId, str]:
        failed: dict[SiteId, str] = {}
        in_a_row = 0
        async with _bus() as bus:
            for site, step in steps:
                if in_a_row >= IN_A_ROW:
                    failed.setdefault(site, "systemd refused several sites: not tried")
                    continue
                try:
                    await _do(bus, step)
                    in_a_row = 0
                except DriverError as error:
                    failed[site] = str(error)
                    in_a_row += 1
        return failed


async def _do(bus: MessageBus, step: Step) -> None:
    match step:
        case Begin():
            properties = [[name, value] for name, value in _properties(step)]
            begin = (bus, SYSTEMD, PATH, MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))")
            await call(*begin, step.scope, "fail", properties, [])
        case Take():
            take = (bus, SYSTEMD, PATH, MANAGER, "AttachProcessesToUnit", "ssau")
            await call(*take, step.scope, "", list(step.pids))
        case End():
            await call(bus, SYSTEMD, PATH, MANAGER, "StopUnit", "ss", step.scope, "replace")


def _properties(step: Begin) -> Iterable[tuple[str, Variant]]:
    """The scope lives no longer than the service, and would never start a php-fpm that somebody has stopped.

    PartOf= ends it when the service is stopped, StopPropagatedFrom= also when the master dies; Before= lets the master
    go first, which ends its workers by itself. A restart does not reach a scope, which systemd starts only once: there
    the master's own word to its workers counts, and what it has left behind is the agent's to end.
    """
    yield "Description", Variant("s", f"Workers of {step.unit}, held by relevo")
    yield "Slice", Variant("s", step.slice)
    yield "PIDs", Variant("au", list(step.pids))
    yield "Delegate", Variant("b", True)
    yield "PartOf", Variant("as", [step.unit])
    yield "StopPropagatedFrom", Variant("as", [step.unit])
    yield "Before", Variant("as", [step.unit])
    yield "TimeoutStopUSec", Variant("t", STOP_US)
    # One that failed must not keep its name.
    yield "CollectMode", Variant("s", "inactive-or-failed")


@asynccontextmanager
async def _bus() -> AsyncIterator[MessageBus]:
    """Raises DriverError when there is no bus."""
    bus = MessageBus(bus_type=BusType.SYSTEM)
    try:
        try:
            async with asyncio.timeout(CALL_S):
                await bus.connect()
        except (OSError, EOFError, DBusFastError) as error:  # OSError includes TimeoutError
            raise DriverError(f"systemd can't be reached: {error!r}") from error
        yield bus
    finally:
        bus.disconnect()
