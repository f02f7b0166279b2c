"""Keeps what the kernel holds as it should be: after every order, penalty and daemon-reload, and each 30 s at least."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Never, TypeVar

from agent.caps.aims import Aim, laid, noted, unseen
from agent.caps.coming import AT_ONCE, coming
from agent.caps.driver import Driver
from agent.caps.egress import Firewall, Rules
from agent.caps.guard import Guard
from agent.caps.kernel import look
from agent.caps.limits import HostFacts
from agent.caps.ours import Memory
from agent.caps.reckon import Firewalled, Reckoned, differing, reckon, told
from agent.caps.steps import STEP_S
from agent.caps.stops import FREEZE_S, Stops
from agent.caps.telling import Kept
from agent.caps.verified import Verified
from agent.caps.wants import World
from agent.lane import Lane
from agent.layout.attached import Attached
from agent.ports import DriverError
from fleet.caps import Limits, Penalty
from fleet.messages import Orders
from fleet.model import SiteId, Why
from metrics.exporter import Exporter
from runtime import clock, log
from runtime.pulse import Pulse

VERIFY_S = 30.0
# A look at a few slices costs nothing and may come soon; at a thousand it takes 0.1 s of a core.
SOONEST_S, LOOK_SHARE = 5.0, 0.0025
RETRY_S, DOUBLED = 1.0, 5  # then each 32 s, or with the next look
SOON_S = 0.02  # what ends in less is looked at together
BIG = 100  # from so many they are reckoned with in a thread: the loop has beats to send

_log = log.logger("caps")

Find = Callable[[Orders, Mapping[SiteId, Attached]], Awaitable[None]]

T = TypeVar("T")


class Keeper:
    """`driver`: None where nothing can be enforced, and `unable` says why. `changed` is the drivers' pulse too.

    `find`: looks where sites' files are, before `facts` are read; bounded, and raises nothing. `boot`: as in Memory.
    """

    def __init__(
        self,
        driver: Driver | None,
        firewall: Firewall | None,
        *,
        unable: Why | None,
        facts: Callable[[], HostFacts],
        people: Callable[[], Mapping[str, int]],
        state: Path,
        exporter: Exporter,
        changed: Pulse,
        find: Find | None = None,
        servers: Callable[[], Rules] = Rules,
        common: Callable[[], Mapping[str, int]] = dict,
        wall: Callable[[], float] = clock.wall,
        verify_s: float = VERIFY_S,
        boot: str = "",
    ) -> None:
        self.told = Pulse()  # beats when `state` has changed
        self.looked = False  # before that `state` knows of nobody
        self._driver, self._facts, self._find = driver, facts, find
        shut = state.with_name("outward.json")
        self._guard = Guard(firewall, exporter, state=shut, verify_s=verify_s) if firewall else None
        self._unable = unable
        self._people, self._common = people, common
        self._exporter, self._changed = exporter, changed
        self._servers, self._wall = servers, wall
        self._verify_s = verify_s
        self._memory = Memory(state, boot)
        self._lane, self._reckoning = Lane(), Lane()
        self._stops = Stops(driver, self._memory, changed, exporter) if driver else None
        self._orders: Orders | None = None
        self._attached: Mapping[SiteId, Attached] | None = None
        self._penalties: tuple[Penalty, ...] = ()
        self._looked_s = 0.0
        self._tries = 0  # rounds in a row in which something failed
        self._kept: Mapping[SiteId, Kept] = {}
        self._verified = Verified(exporter)
        self.company: Mapping[SiteId, frozenset[SiteId]] = {}  # who is held with each site

    @property
    def lacks(self) -> tuple[Why, ...]:
        """What of the caps can't be held on this host: all, without a driver, what leaves it, or what is to be kept."""
        if self._unable is not None:
            return (self._unable,)
        guard = self._guard
        if guard is None or not guard.failed:
            return self._memory.lacks
        return (Why("unable-egress", {"error": guard.failed}), *self._memory.lacks)

    @property
    def drift(self) -> int:
        """How often somebody else had changed what was held."""
        return self._verified.drift + (self._guard.drift if self._guard else 0)

    @property
    def driver(self) -> str:
        """Which one holds the caps; "": none."""
        return self._driver.name if self._driver else ""

    def follow(self, orders: Orders) -> None:
        self._orders = orders
        self._changed.beat()

    def attach(self, attached: Mapping[SiteId, Attached]) -> None:
        self._attached = attached
        self._changed.beat()

    def penalize(self, penalties: Iterable[Penalty]) -> None:
        """All that there are now; who is not among them is free of any."""
        if (now := tuple(penalties)) != self._penalties:
            self._penalties = now
            self._changed.beat()

    def state(self) -> Mapping[SiteId, Kept]:
        """Of the sites that something is held of, or something not that should be, as of the last look."""
        return self._kept

    async def keep(self) -> Never:
        """Eternal."""
        async with asyncio.TaskGroup() as group:
            if self._driver is not None:
                group.create_task(self._driver.keep())
                group.create_task(self._memory.keep())
            if self._stops is not None:
                group.create_task(self._stops.keep())
            if self._guard is not None:
                group.create_task(self._guard.keep())
            while True:
                count = self._changed.count
                wait_s = await self._round()
                await self._changed.within(count, wait_s)

    async def _round(self) -> float:
        """Compare what should be with what is, close the difference; gives in how many seconds to look again."""
        if self._orders is None or (self._attached is None and self._orders.tenants):
            return self._verify_s  # not seen yet is not gone (rule R7)
        try:
            if self._find is not None:
                await self._find(self._orders, self._attached or {})
            facts = await look(self._lane, self._facts)
            world = World(
                orders=self._orders,
                attached=self._attached or {},
                penalties=self._penalties,
                people=await look(self._lane, self._people),
                common=await look(self._lane, self._common),
                facts=facts,
                now=self._wall(),
            )
            servers = await look(self._lane, self._servers)
            reckoned = await self._reckon(world, servers)
            self._reach((*servers.resolvers, *servers.mail, *servers.databases))
            if self._guard is not None and reckoned.closing is not None:
                self._guard.follow(reckoned.closing)
            await self._hold(reckoned)
        except DriverError as error:
            self._verified.fail("", error)
            return self._again_s()
        self._verified.failed.pop("", None)
        return self._wait_s(reckoned.change_s)

    async def _reckon(self, world: World, servers: Rules) -> Reckoned:
        guard, firewall = self._guard, None
        if guard is not None:
            firewall = Firewalled(servers=servers, shut=guard.shut, holds=not guard.failed)
        work = partial(reckon, world, self._memory.slices, firewall)
        return await self._beside(len(world.orders.tenants), work)

    async def _beside(self, size: int, work: Callable[[], T]) -> T:
        """Do what only computes, beside the loop where there is much of it.

        One at a time, in turn, from what nobody changes meanwhile: a round's is done before the next round begins.
        """
        return await self._reckoning.run(None, work) if size > BIG else work()

    def _wait_s(self, change_s: float) -> float:
        often_s = max(SOONEST_S, self._looked_s / LOOK_SHARE)
        waits = [min(self._verify_s, often_s), change_s]
        if self._verified.in_steps:
            waits.append(STEP_S)
        if self._stops is not None and self._stops.is_waiting:
            waits.append(FREEZE_S)
        if self._verified.failed or (self._stops is not None and self._stops.failed):
            waits.append(self._again_s())
        else:
            self._tries = 0
        return max(SOON_S, min(waits))

    def _again_s(self) -> float:
        """After a round in which something failed, which may be what the host is short of."""
        self._tries += 1
        return RETRY_S * 2.0 ** min(self._tries - 1, DOUBLED)

    async def _hold(self, reckoned: Reckoned) -> None:
        aims, beyond = reckoned.aims, reckoned.beyond
        self.company = reckoned.company
        if self._driver is None or self._stops is None:
            own = {name: aim for name, aim in aims.items() if not aim.beside}
            await self._report(own, {}, beyond)
            return
        began = asyncio.get_running_loop().time()
        held = await self._driver.held(aims)
        self._looked_s = asyncio.get_running_loop().time() - began
        new = await coming(self._driver, unseen(aims, held, reckoned.known))
        known = {**reckoned.known, **new.known}
        aims = await self._beside(len(aims), partial(laid, aims, held, known, new.failed))
        aims = {
            name: self._stops.judge(name, aim, adopted=name in reckoned.adopted)
            for name, aim in aims.items()
        }
        self._verified.forget_others(aims)
        self._verified.fail_all(new.failed)
        self._stops.forget_others(aims)
        self._note(aims)
        differs = await self._beside(len(aims), partial(differing, aims, held))
        wrong = await self._verified.wrong(aims, held, differs)
        if wrong := {name: aim for name, aim in wrong.items() if name not in new.failed}:
            await self._close(self._driver, wrong)
            held = {**held, **await self._driver.held(wrong)}
            differs = await self._beside(len(aims), partial(differing, aims, held))
        await self._verified.verify(aims, held, differs)
        self._note({name: aim for name, aim in aims.items() if self._stays(name, aim)})
        self._memory.soon()
        await self._report(aims, held, beyond)

    def _note(self, aims: Mapping[str, Aim]) -> None:
        self._memory.slices = noted(aims, self._memory.slices, self._memory.boot)

    async def _close(self, driver: Driver, wrong: Mapping[str, Aim]) -> None:
        """A disk may be what a cap is to relieve: only what the next agent would not know waits to be written down."""
        known_ones = {name: aim for name, aim in wrong.items() if self._may_be_late(name, aim)}
        await self._apply_all(driver, known_ones)
        if others := {name: aim for name, aim in wrong.items() if name not in known_ones}:
            await self._memory.save()
            await self._apply_all(driver, others)

    def _may_be_late(self, name: str, aim: Aim) -> bool:
        """Whether it may be written down after it was done: what is held then is taken away all the same."""
        return self._memory.knows(name, aim.fields) and not aim.stops

    def _stays(self, name: str, aim: Aim) -> bool:
        mine = self._memory.slices.get(name)
        is_stopped = mine is not None and mine.stopped is not None
        return not aim.release or is_stopped or not self._verified.holds(name, aim)

    async def _apply_all(self, driver: Driver, aims: Mapping[str, Aim]) -> None:
        todo = iter(aims.items())
        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(aims))):
                group.create_task(self._apply(driver, todo))

    async def _apply(self, driver: Driver, todo: Iterator[tuple[str, Aim]]) -> None:
        """One after another of those that nobody else has begun."""
        for name, aim in todo:
            try:
                short = await driver.apply(name, aim.limits, aim.fields)
            except DriverError as error:
                self._verified.fail(name, error)
            else:
                self._verified.applied(name, short)

    def _reach(self, addresses: Collection[str]) -> None:
        if self._driver is not None and self._driver.reach(addresses):
            self._verified.reach_others()

    async def _report(
        self,
        aims: Mapping[str, Aim],
        held: Mapping[str, Limits],
        beyond: Mapping[SiteId, tuple[Why, ...]],
    ) -> None:
        short = self._verified.short(aims, self._stops.failed if self._stops is not None else {})
        kept = await self._beside(len(aims), partial(told, aims, held, short, beyond, self._kept))
        self.looked = True
        if kept is not self._kept:
            self._kept = kept
            self.told.beat()
        if self._driver is None:
            return
        self._exporter.set("relevo_caps_slices", len(aims) - len(short), state="held")
        self._exporter.set("relevo_caps_slices", len(short), state="short")
