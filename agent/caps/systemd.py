"""Slices held by systemd: its properties are set over D-Bus, at run time, and stay through reloads of its units.

What is written to a cgroup behind its back is undone by the next daemon-reload, so nothing is. A slice that is not
there yet is held from its first moment: what is set at run time waits for it below /run.
Source: org.freedesktop.systemd1(5), systemd.resource-control(5).
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from signal import SIGKILL
from typing import Never

import msgspec
from dbus_fast import BusType, DBusFastError, Message, MessageType
from dbus_fast.aio import MessageBus

from agent.caps import kernel, properties
from agent.caps.driver import EVERY
from agent.caps.kernel import look
from agent.caps.linger import is_manager, lingering
from agent.caps.steps import InUse, Steps, short_of
from agent.lane import Lane
from agent.ports import DriverError
from agent.systembus import BUS, CALL_S, call, listen, until_gone
from fleet.caps import Limits
from fleet.model import Why
from runtime import log, supervise
from runtime.pulse import Pulse

SYSTEMD = "org.freedesktop.systemd1"
PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
PROPERTIES = "org.freedesktop.DBus.Properties"
RETRY_S = 1.0  # systemd leaves the bus for a moment when it executes itself anew
# Source: org.freedesktop.systemd1(5), "Errors": nothing of that name, or an admin has masked it.
GONE = (f"{SYSTEMD}.NoSuchUnit", f"{SYSTEMD}.UnitMasked")
SHUT = ("inactive", "failed")  # states of a unit that does nothing
KILL_ROUNDS, KILL_ROUND_S = 20, 0.1  # two seconds for the kernel to end what it was told to

_log = log.logger("caps")


class Systemd:
    """The driver of hosts that run systemd."""

    name = "systemd"

    def __init__(
        self,
        root: Path,
        run: Path,
        changed: Pulse,
        proc: Path = Path("/proc"),
        lingering: Callable[[], frozenset[str]] = lingering,
    ) -> None:
        self._root, self._run, self._proc = root, run, proc
        self._lingering = lingering
        self._lane, self._steps = Lane(), Steps()
        self._reachable = properties.networks(())
        self._told_reachable: dict[str, properties.Networks] = {}
        self.reloaded = changed
        self._bus: MessageBus | None = None
        self._owner = ""
        # What we told systemd since we began, by slice and field.
        self._set: dict[str, dict[str, object]] = {}
        self._asked: frozenset[str] = frozenset()  # those whose coming is of interest
        self._logged = ""

    async def keep(self) -> Never:
        """Eternal: a connection to systemd, and ears for its reloads."""
        while True:
            try:
                await self._stay()
            except* (OSError, EOFError, DBusFastError, DriverError) as group:
                if (error := repr(group.exceptions[0])) != self._logged:
                    _log.warning("systemd can't be reached: caps stay as they are", error=error)
                self._logged = error
            supervise.end_if_cancelled()
            await asyncio.sleep(RETRY_S)

    async def _stay(self) -> None:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            async with asyncio.timeout(CALL_S):
                await bus.connect()
            bus.add_message_handler(self._hear)
            async with asyncio.TaskGroup() as group:
                group.create_task(until_gone(bus))
                await self._subscribe(bus)
                self._bus, self._logged = bus, ""
                self.reloaded.beat()
                await asyncio.Event().wait()
        finally:
            self._bus, self._owner = None, ""
            bus.disconnect()

    async def _subscribe(self, bus: MessageBus) -> None:
        signal = f"type='signal',sender='{SYSTEMD}',interface='{MANAGER}'"
        owner = f"type='signal',sender='{BUS}',member='NameOwnerChanged',arg0='{SYSTEMD}'"
        await listen(bus, (f"{signal},member='Reloading'", f"{signal},member='UnitNew'", owner))
        answer = await call(bus, SYSTEMD, PATH, MANAGER, "Subscribe")
        self._owner = answer.sender or ""

    def _hear(self, message: Message) -> None:
        """Signals. Anyone on the bus may send us one directly: only systemd's own count."""
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "NameOwnerChanged" and message.sender == BUS:
            if self._bus is not None:
                self._bus.disconnect()  # a new systemd has new subscribers: begin again
        elif message.sender != self._owner:
            return
        elif (message.member == "Reloading" and message.body == [False]) or (
            message.member == "UnitNew"
            and (message.body[0] in self._asked or message.body[0] in self._set)
        ):
            self.reloaded.beat()

    async def _call(self, member: str, signature: str, *body: object) -> Message:
        if self._bus is None:
            raise DriverError("systemd can't be reached")
        return await call(self._bus, SYSTEMD, PATH, MANAGER, member, signature, *body)

    def reach(self, addresses: Collection[str]) -> bool:
        before, self._reachable = self._reachable, properties.networks(addresses)
        return self._reachable != before

    async def apply(
        self, slice: str, limits: Limits, fields: Collection[str] = EVERY
    ) -> tuple[Why, ...]:
        held, used = await look(self._lane, self._look, slice)
        at = asyncio.get_running_loop().time()
        now = self._steps.next(slice, limits, used, held, at)
        told = self._set.setdefault(slice, {})
        if held is not None:
            now = kernel.only(now, fields, held)
            changed = kernel.unlike(now, held)
        else:  # what we said waits for it
            changed = frozenset(f for f in fields if f not in told or told[f] != getattr(now, f))
        reachable, closes = self._reachable, now.egress_closed and "egress_closed" in fields
        if closes and self._told_reachable.get(slice) != reachable:
            changed |= {"egress_closed"}  # the kernel's files do not tell to whom
        if found := [*properties.of(now, held, changed, reachable)]:
            body = [list(each) for each in found]
            await self._call("SetUnitProperties", "sba(sv)", slice, True, body)
        if held is not None and held.frozen != now.frozen:
            await self._call("FreezeUnit" if now.frozen else "ThawUnit", "s", slice)
        told |= {field: getattr(now, field) for field in fields}
        if closes:
            self._told_reachable[slice] = reachable
        else:
            self._told_reachable.pop(slice, None)
        return short_of(limits, now, used)

    def _look(self, slice: str) -> tuple[Limits | None, InUse | None]:
        """What it holds, and the memory that it uses."""
        group = self._root / kernel.slice_path(slice)
        return self._read({slice: group}).get(slice), kernel.in_use(group)

    async def held(self, slices: Collection[str]) -> Mapping[str, Limits]:
        self._asked |= frozenset(slices)
        groups = {name: self._root / kernel.slice_path(name) for name in slices}
        return await look(self._lane, self._read, groups)

    def _read(self, groups: Mapping[str, Path]) -> Mapping[str, Limits]:
        found = ((name, kernel.held(group)) for name, group in groups.items())
        closed = msgspec.structs.replace
        return {
            name: closed(held, egress_closed=kernel.drop_in_denies(self._run, name))
            for name, held in found
            if held is not None
        }

    async def by_itself(self, slice: str) -> Limits:
        path = (await self._call("LoadUnit", "s", slice)).body[0]
        if self._bus is None:
            raise DriverError("systemd can't be reached")
        asked = (PROPERTIES, "GetAll", "s", f"{SYSTEMD}.Slice")
        (told,) = (await call(self._bus, SYSTEMD, path, *asked)).body
        return properties.told({name: value.value for name, value in told.items()})

    async def units(self, slice: str) -> tuple[str, ...]:
        found = await look(self._lane, kernel.services, self._root / kernel.slice_path(slice))
        stays = await self._those_that_stay(found)
        services = [unit for unit in found if unit in stays]
        doors = [door for unit in services for door in await self._triggers(unit)]
        return (*dict.fromkeys(doors), *services)

    async def _those_that_stay(self, units: Collection[str]) -> Collection[str]:
        """Without the managers of who is only logged in."""
        if not any(map(is_manager, units)):
            return units
        staying = await look(self._lane, self._lingering)
        return [unit for unit in units if unit in staying or not is_manager(unit)]

    async def visited(self, slice: str) -> bool:
        group = self._root / kernel.slice_path(slice)
        return await look(self._lane, kernel.is_visited, group, self._proc)

    async def kill(self, slice: str, units: Collection[str]) -> None:
        group = self._root / kernel.slice_path(slice)
        managers = filter(is_manager, await look(self._lane, kernel.services, group))
        refused = await self._each("StopUnit", dict.fromkeys((*units, *managers)))
        for _ in range(KILL_ROUNDS):
            if not await look(self._lane, kernel.is_populated, group):
                break
            await self._call("KillUnit", "ssi", slice, "all", SIGKILL)
            await asyncio.sleep(KILL_ROUND_S)
        else:
            raise DriverError(f"{slice} still has processes after {KILL_ROUNDS} times SIGKILL")
        if refused:
            raise DriverError("; ".join(refused.values()))

    async def end_jobs(self, slice: str) -> tuple[str, ...]:
        group = self._root / kernel.slice_path(slice)
        jobs = await look(self._lane, kernel.jobs, group, self._proc)
        for scope in jobs:
            try:
                await self._call("KillUnit", "ssi", scope, "all", SIGKILL)
            except DriverError as error:
                if not any(gone in str(error) for gone in GONE):
                    raise
        return jobs

    async def start(self, units: Collection[str]) -> Mapping[str, str]:
        # A session is its person's to begin; an earlier release noted those too.
        return await self._each("StartUnit", await self._those_that_stay(units))

    async def _each(self, member: str, units: Collection[str]) -> dict[str, str]:
        """Those that were refused, and why; what is not there needs neither to be stopped nor to be started."""
        refused = {}
        for unit in units:
            try:
                await self._call(member, "ss", unit, "replace")
            except DriverError as error:
                if not any(gone in str(error) for gone in GONE):
                    refused[unit] = str(error)
        return refused

    async def _triggers(self, unit: str) -> list[str]:
        """What would start it again: sockets, timers, paths."""
        found = await self._property(unit, "TriggeredBy")
        doors = [str(each) for each in found] if isinstance(found, list) else []
        # One that is shut now stays so.
        return [each for each in doors if await self._property(each, "ActiveState") not in SHUT]

    async def _property(self, unit: str, name: str) -> object:
        path = (await self._call("LoadUnit", "s", unit)).body[0]
        if self._bus is None:
            raise DriverError("systemd can't be reached")
        asked = (PROPERTIES, "Get", "ss", f"{SYSTEMD}.Unit", name)
        told: object = (await call(self._bus, SYSTEMD, path, *asked)).body[0].value
        return told
