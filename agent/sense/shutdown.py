"""The machine's shutdown, as logind announces it: a delay inhibitor buys the seconds in which the sites move away.

Source: org.freedesktop.login1(5), systemd's "Inhibitor Locks".
"""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Never

from dbus_fast import BusType, DBusFastError, Message, MessageType
from dbus_fast.aio import MessageBus

from agent.ports import DriverError
from agent.systembus import BUS, CALL_S, call, listen, until_gone
from fleet.messages import AgentState, Orders
from runtime import log, supervise

LOGIND = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"

RETRY_S = 30.0
# The edges get their new routes in the same moment as we hear that our sites are gone: let what is in flight end.
DRAIN_S = 0.5

_log = log.logger("shutdown")


def may_go(orders: Orders | None) -> bool:
    """Whether the machine may go: its sites are served elsewhere, by the newest orders' word.

    One that DNS names stays as long as it may: resolvers send it visitors until their caches end.
    """
    return orders is not None and not orders.sites and not orders.addressed


class Shutdown:
    """Watches logind. `changed` is called whenever `state` has changed; `orders` gives the newest ones."""

    def __init__(
        self,
        *,
        wait_s: float,
        orders: Callable[[], Orders | None],
        changed: Callable[[], None],
    ) -> None:
        self.state = AgentState.RUNNING
        self._wait_s, self._orders, self._changed = wait_s, orders, changed
        self._preparing = False
        self._owner = ""
        self._signals = 0
        self._news = asyncio.Event()
        self._inhibitor: int | None = None
        self._logged = ""

    def orders_arrived(self) -> None:
        """The newest orders are other ones now."""
        self._news.set()

    async def keep(self) -> Never:
        """Eternal: watch logind; where there is none the agent works without, and asks again from time to time."""
        while True:
            try:
                await self._watch()
            except* (OSError, EOFError, DBusFastError, DriverError) as group:
                if (error := repr(group.exceptions[0])) != self._logged:
                    _log.warning("can't watch for the machine's shutdown", error=error)
                self._logged = error
            finally:
                self._release()
            supervise.end_if_cancelled()
            await asyncio.sleep(RETRY_S)

    async def _watch(self) -> None:
        bus = MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
        try:
            async with asyncio.timeout(CALL_S):
                await bus.connect()
            bus.add_message_handler(self._hear)
            async with asyncio.TaskGroup() as group:
                group.create_task(until_gone(bus))
                await self._follow(bus)
        finally:
            bus.disconnect()

    async def _follow(self, bus: MessageBus) -> Never:
        """From RUNNING to LEAVING and, if the shutdown is cancelled, back."""
        await self._subscribe(bus)
        self._logged = ""
        while True:
            if not self._preparing:
                await self._inhibit(bus)
            await self._until(lambda: self._preparing)
            self._become(AgentState.LEAVING)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await self._until(lambda: not self._preparing or may_go(self._orders()))
                    await asyncio.sleep(DRAIN_S if self._preparing else 0)
            self._release()
            await self._until(lambda: not self._preparing)
            self._become(AgentState.RUNNING)

    async def _subscribe(self, bus: MessageBus) -> None:
        match = "type='signal',sender='{}',interface='{}',member='{}'"
        announced = match.format(LOGIND, MANAGER, "PrepareForShutdown")
        owned = match.format(BUS, BUS, "NameOwnerChanged") + f",arg0='{LOGIND}'"
        await listen(bus, (announced, owned))
        pong = await call(bus, LOGIND, PATH, "org.freedesktop.DBus.Peer", "Ping")
        self._owner, signals = pong.sender or "", self._signals
        properties = "org.freedesktop.DBus.Properties"
        answer = await call(
            bus, LOGIND, PATH, properties, "Get", "ss", MANAGER, "PreparingForShutdown"
        )
        if self._signals == signals:  # a signal that has overtaken the answer knows better
            self._preparing = bool(answer.body[0].value)
        if not self._preparing:
            self._become(AgentState.RUNNING)

    def _hear(self, message: Message) -> None:
        """Signals. Anyone on the bus may send us one directly: only logind's own count."""
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "PrepareForShutdown" and message.sender == self._owner:
            if message.signature == "b":
                self._preparing = bool(message.body[0])
                self._signals += 1
                self._news.set()
        elif message.member == "NameOwnerChanged" and message.sender == BUS:
            name, _, owner = message.body
            if name == LOGIND and owner != self._owner:
                self._owner = ""
                self._news.set()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._news.wait()
            self._news.clear()
            if not self._owner:
                raise DriverError("logind is gone")

    async def _inhibit(self, bus: MessageBus) -> None:
        """Take the delay inhibitor. Without it a shutdown is still announced, only not waited for."""
        what = ("shutdown", "relevo", "moving this host's sites away", "delay")
        self._release()
        try:
            answer = await call(bus, LOGIND, PATH, MANAGER, "Inhibit", "ssss", *what)
        except DriverError as error:
            _log.warning("no inhibitor: a shutdown will not wait for us", error=str(error))
            return
        self._inhibitor = answer.unix_fds[answer.body[0]]

    def _release(self) -> None:
        if self._inhibitor is not None:
            os.close(self._inhibitor)
            self._inhibitor = None
            _log.info("inhibitor released", preparing=self._preparing)

    def _become(self, state: AgentState) -> None:
        if state is self.state:
            return
        _log.warning("the machine's shutdown", old=self.state.value, new=state.value)
        self.state = state
        self._changed()
