"""Keeps the workers of shared pools in scopes of their sites, round by round; without a wish to, it does nothing."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Never

import msgspec

from agent.caps.kernel import look
from agent.lane import Lane
from agent.layout import kin
from agent.layout.adopt import ROUND_S, Adopted, Begin, End, Step, Take, Wishes, steps, wanted
from agent.layout.attached import Adoptable, Attached
from agent.layout.scopes import Scopes
from agent.ports import DriverError
from fleet.model import SiteId
from metrics.exporter import Exporter
from runtime import durable, log

WISHES, KEPT = "adopt.json", "adopted.json"  # in the agent's state: what people want, what is so
DOUBLED_MAX = 5  # after a failure the next try is in 2 s, then 4 … 64 s
TOLD = 3  # failures in a row: a worker that ends in the moment in which it is moved is no trouble
AGAIN = 2  # a master may be missed in the moment in which it executes itself anew: orphans are seen twice

_log = log.logger("adoption")


class Adoption:
    """`scopes`: None where systemd does not hold the caps: nothing is adopted there. `everywhere`: all that can be.

    `tell` gets what is adopted whenever that changes, first what was so before a restart.
    """

    def __init__(
        self,
        scopes: Scopes | None,
        *,
        everywhere: bool,
        state: Path,
        cgroups: Path,
        tell: Callable[[Mapping[SiteId, Adopted]], None],
        exporter: Exporter,
        proc: Path = Path("/proc"),
        every_s: float = ROUND_S,
    ) -> None:
        self._every_s = every_s
        self._scopes, self._everywhere = scopes, everywhere
        self._state, self._cgroups, self._proc = state, cgroups, proc
        self._tell, self._exporter = tell, exporter
        self._attached: Mapping[SiteId, Attached] | None = None
        self._failed: dict[SiteId, tuple[int, float]] = {}  # tries in a row, when to try again
        self._orphaned: dict[SiteId, int] = {}  # rounds in a row
        self._broken = ""
        self._disk, self._looking = (
            Lane(),
            Lane(),
        )  # a process whose memory is swapped out makes a look wait
        self.adopted: Mapping[SiteId, Adopted] = {} if scopes is None else kept(state)
        tell(self.adopted)

    def attach(self, attached: Mapping[SiteId, Attached]) -> None:
        """How all sites of this host are attached now."""
        self._attached = attached

    async def keep(self) -> Never:
        """Eternal."""
        if self._scopes is None:
            await self._nothing()
        while True:
            if self._attached is not None:  # not seen yet is not gone (rule R7)
                try:
                    await self._round(self._scopes, self._attached)
                except DriverError as error:
                    self._say(str(error))
                else:
                    self._say("")
            await asyncio.sleep(self._every_s)

    async def _nothing(self) -> Never:
        """Nor does `relevo layout` say so, whatever another driver has left."""
        try:
            if await look(self._disk, kept, self._state):
                await look(self._disk, write, self._state / KEPT, b"{}")
        except DriverError as error:
            self._say(str(error))
        await asyncio.Event().wait()
        raise AssertionError

    async def _round(self, scopes: Scopes, attached: Mapping[SiteId, Attached]) -> None:
        wishes = await look(self._disk, read_wishes, self._state)
        if wishes is None:
            raise DriverError(
                f"{self._state / WISHES} can't be read: what people want is not known"
            )
        those = wanted(attached, wishes, everywhere=self._everywhere)
        await self._settle({site: one for site, one in self.adopted.items() if site in those})
        if not those:
            return
        seen = await look(self._looking, kin.see, those, self._cgroups, self._proc)
        todo: list[tuple[SiteId, Step]] = []
        odd: dict[SiteId, str] = {}
        for site, of in those.items():
            one = seen[site]
            if isinstance(one, kin.Odd):
                odd[site] = str(one)
            else:
                todo += [(site, step) for step in self.due(site, steps(site, of, one))]
        failed = {**odd, **(await scopes.carry_out(todo) if todo else {})}
        self._count(todo, failed)
        await self._settle(self._judged(those, todo, failed))

    def due(self, site: SiteId, planned: tuple[Step, ...]) -> tuple[Step, ...]:
        """What of a round's plan is done in it: nothing soon after a failure, no end of what is first seen orphaned."""
        if site in self._failed and asyncio.get_running_loop().time() < self._failed[site][1]:
            return ()
        if not planned:
            self._failed.pop(site, None)
        if not any(isinstance(step, End) for step in planned):
            self._orphaned.pop(site, None)
            return planned
        self._orphaned[site] = self._orphaned.get(site, 0) + 1
        return planned if self._orphaned[site] >= AGAIN else ()

    def _judged(
        self,
        those: Mapping[SiteId, Adoptable],
        todo: list[tuple[SiteId, Step]],
        failed: Mapping[SiteId, str],
    ) -> dict[SiteId, Adopted]:
        """What is adopted after this round. A pool that sleeps is: its next worker will be."""
        done = {site for site, _ in todo} - failed.keys()
        for site in failed:
            tries = self._failed.get(site, (0, 0.0))[0] + 1
            again_s = self._every_s * 2.0 ** min(tries - 1, DOUBLED_MAX)
            self._failed[site] = (tries, asyncio.get_running_loop().time() + again_s)
        for site in [site for site in self._failed if site in done or site not in those]:
            del self._failed[site]
        return {site: self._one(site, of, failed.get(site, "")) for site, of in those.items()}

    def _one(self, site: SiteId, of: Adoptable, error: str) -> Adopted:
        was = self.adopted.get(site)
        same = was if was is not None and was.slice == of.slice else None
        tries, _ = self._failed.get(site, (0, 0.0))
        trouble = (error or (same.trouble if same else "")) if tries >= TOLD else ""
        held = not tries or (same is not None and same.held)
        return Adopted(slice=of.slice, unit=of.unit, held=held, trouble=trouble)

    async def _settle(self, after: dict[SiteId, Adopted]) -> None:
        """Told and kept when it changed; kept first, for after a restart its caps must still be known."""
        if after == self.adopted:
            return
        try:
            await look(self._disk, write, self._state / KEPT, msgspec.json.encode(after))
        except DriverError as error:
            _log.error("a restart would forget what is adopted", error=str(error))
        self._log_changes(after)
        self.adopted = after
        self._exporter.set("relevo_adoption_sites", sum(one.held for one in after.values()))
        self._tell(after)

    def _log_changes(self, after: Mapping[SiteId, Adopted]) -> None:
        for site in after.keys() | self.adopted.keys():
            old, new = self.adopted.get(site), after.get(site)
            if new is None:
                _log.info("a pool's workers are adopted no more", site=site)
            elif old != new:
                said = {"site": site, "slice": new.slice, "unit": new.unit}
                if new.trouble:
                    _log.warning("a pool's workers can't be adopted", **said, error=new.trouble)
                elif new.held:
                    _log.info("a pool's workers are adopted", **said)

    def _count(self, todo: list[tuple[SiteId, Step]], failed: Mapping[SiteId, str]) -> None:
        moved = sum(
            len(step.pids)
            for site, step in todo
            if site not in failed and isinstance(step, Begin | Take)
        )
        if moved:
            self._exporter.count("relevo_adoption_processes_total", moved)
        if failed:
            self._exporter.count("relevo_adoption_failures_total", len(failed))
        for site, step in todo:
            if isinstance(step, End):
                _log.warning("workers had outlived their master: ended", site=site)

    def _say(self, error: str) -> None:
        """Logged on the edge, counted always."""
        if error:
            self._exporter.count("relevo_adoption_failures_total")
        if error and error != self._broken:
            _log.warning("pools' workers stay where they are", error=error)
        self._broken = error


def kept(state: Path) -> dict[SiteId, Adopted]:
    """What was adopted when that was last kept; nothing where that can't be read."""
    try:
        return msgspec.json.decode((state / KEPT).read_bytes(), type=dict[SiteId, Adopted])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.error("what was adopted can't be read", path=str(state / KEPT), error=str(error))
        return {}


def read_wishes(state: Path) -> Wishes | None:
    """What people said of single sites; None: that can't be read."""
    try:
        return msgspec.json.decode((state / WISHES).read_bytes(), type=dict[SiteId, bool])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        return None


def write(path: Path, content: bytes) -> None:
    """Replaced as a whole. Raises DriverError."""
    try:
        durable.replace(path, content)
    except OSError as error:
        raise DriverError(f"can't write {path}: {error}") from error
