"""Slices that are to stop: they stand still for the evidence, end, stay ended, and start again when that is over.

What keeps a site running is written down before it is stopped: whatever fails or dies on the way, it starts again.
Where that can't be written down it stands still, and nothing of it ends. It is done beside everything else that is
held, for what makes a site worth stopping makes stopping it slow. A boot, or the upgrade of a package, starts units
that were stopped: for as long as the term lasts they are stopped anew, and cron's jobs ended. Those of a site that is
isolated end too: what its visitors may not do, its crontab may not either.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Never

from agent.caps.aims import Aim
from agent.caps.driver import Driver
from agent.caps.linger import is_manager
from agent.caps.ours import Memory
from agent.ports import DriverError
from metrics.exporter import Exporter
from runtime import log
from runtime.pulse import Pulse

FREEZE_S = 5.0  # a stopped site stands still for the evidence, which takes 2 s, then it ends
AT_ONCE = 4  # more at a time than a host may stop without a person

Work = Callable[[str], Awaitable[bool]]
"""What is done to a slice, by its name; gives whether anything was. Raises DriverError."""

_log = log.logger("caps")


class Stops:
    """`changed` beats when something was stopped or started; `failed`: what could not be, by slice."""

    def __init__(self, driver: Driver, memory: Memory, changed: Pulse, exporter: Exporter) -> None:
        self.failed: dict[str, str] = {}
        self._driver, self._memory = driver, memory
        self._changed, self._exporter = changed, exporter
        self._still_since: dict[str, float] = {}
        self._due: dict[str, Work] = {}
        self._busy: set[str] = set()
        self._asked = Pulse()

    @property
    def is_waiting(self) -> bool:
        """Whether a slice stands still now, and is to end soon."""
        return bool(self._still_since)

    def judge(self, slice: str, aim: Aim, *, adopted: bool = False) -> Aim:
        """What of `aim` is to be held now; what is due is begun.

        `adopted`: there are workers of a shared php-fpm in it. One that stands still may hold the lock of the opcode
        cache, which all pools of its master wait for: they work on until they end.
        """
        mine = self._memory.slices.get(slice)
        if not aim.stops:
            self._still_since.pop(slice, None)
            if mine is not None and mine.stopped is not None:
                self._begin(slice, self._start)
            elif aim.closes:
                self._begin(slice, self._quiet)
            else:
                self.failed.pop(slice, None)
            return aim
        if mine is not None and mine.is_stopped:
            self._still_since.pop(slice, None)
            self._begin(slice, self._stay)
            return aim.thawed()
        now = asyncio.get_running_loop().time()
        if mine is not None and now - self._still_since.setdefault(slice, now) >= FREEZE_S:
            self._begin(slice, self._end)
        return aim.thawed() if adopted else aim

    def forget_others(self, slices: Collection[str]) -> None:
        """What was known of slices that are not ours any more."""
        for known in (self.failed, self._still_since):
            for slice in known.keys() - set(slices):
                del known[slice]

    def _begin(self, slice: str, work: Work) -> None:
        if slice not in self._busy:
            self._due[slice] = work
            self._asked.beat()

    async def keep(self) -> Never:
        """Eternal."""
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                count = self._asked.count
                for slice, work in self._due.items():
                    self._busy.add(slice)
                    group.create_task(self._do(gate, slice, work))
                self._due.clear()
                await self._asked.after(count)

    async def _do(self, gate: asyncio.Semaphore, slice: str, work: Work) -> None:
        known, moved = self.failed.get(slice), True
        async with gate:
            try:
                moved = await work(slice)
                self.failed.pop(slice, None)
            except DriverError as error:
                self._exporter.count("relevo_caps_failures_total")
                self.failed[slice] = str(error)
        self._busy.discard(slice)
        now = self.failed.get(slice)
        if now == known and (now is not None or not moved):
            return  # it was said, and is tried again with the next look; or all is as it was
        if now is not None:
            _log.error("a site is not stopped, or not started again", slice=slice, error=now)
        self._changed.beat()

    async def _stay(self, slice: str) -> bool:
        """Whether a stopped site ran again, beside its cron's jobs; who logs in looks at what happened, and may.

        A user that lingers has a manager that starts what the site runs, at a boot too; and one for who is logged in.
        """
        found = await self._driver.units(slice)
        mine = self._memory.slices.get(slice)
        if mine is None or not mine.is_stopped:
            return False
        if all(map(is_manager, found)) and (not found or await self._driver.visited(slice)):
            await self._end_jobs(slice)
            return False
        _log.warning("a stopped site ran again: it is stopped anew", slice=slice, units=found)
        return await self._end(slice)

    async def _quiet(self, slice: str) -> bool:
        """Of an isolated site only its units run, and who logged in."""
        mine = self._memory.slices.get(slice)
        if mine is not None and mine.limits.egress_closed and "egress_closed" in mine.says:
            await self._end_jobs(slice)
        return False

    async def _end_jobs(self, slice: str) -> None:
        if jobs := await self._driver.end_jobs(slice):
            _log.warning("jobs of a site that may run none are ended", slice=slice, jobs=jobs)

    async def _end(self, slice: str) -> bool:
        """What was stopped already, and is not seen any more, is to start again too."""
        found = await self._driver.units(slice)
        if (mine := self._memory.slices.get(slice)) is None:
            return False
        units = tuple(dict.fromkeys((*(mine.stopped or ()), *found)))
        self._memory.stop(slice, units, ended=False)
        await self._memory.commit()
        await self._driver.kill(slice, units)
        self._memory.stop(slice, units, ended=True)
        await self._memory.save()
        _log.warning("a site was stopped", slice=slice, sites=mine.sites, units=units)
        return True

    async def _start(self, slice: str) -> bool:
        mine = self._memory.slices.get(slice)
        if mine is None or mine.stopped is None:
            return False
        refused = await self._driver.start(mine.stopped)
        self._memory.stop(slice, tuple(refused) or None, ended=False)
        await self._memory.save()
        if refused:
            raise DriverError("; ".join(f"{unit}: {why}" for unit, why in refused.items()))
        _log.info("a site that was stopped runs again", slice=slice, sites=mine.sites)
        return True
