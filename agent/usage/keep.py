"""The use of every site, kept current and told: to whoever isolates, to controllers, to Prometheus, to the history.

Threads do the reading. The event loop gets each finished round, the newest only, and waits for none of them.
"""

import asyncio
import resource
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Never

from agent import config
from agent.layout.attached import Attached
from agent.signals import Signals
from agent.usage import report
from agent.usage.archive import Archive
from agent.usage.habits import Observer
from agent.usage.ledger import SLOT_S, Row, terms
from agent.usage.looking import Looking, Seen, Wanted
from agent.usage.report import Tellings, Word
from agent.usage.sampler import Sampler
from agent.usage.web import WebSide
from fleet import messages
from fleet.caps import Attachment, Resource, Tenant
from fleet.messages import Orders
from fleet.model import Caps, HostId, PlanId, SiteId
from fleet.pastuse import PastAsked, PastTold
from metrics.exporter import Exporter
from runtime import clock
from runtime.pulse import Pulse

TELL_S = 10.0
SOONEST_S = 0.5  # penalties that change one after another are told together
DAY_SLOTS = 86_400 // SLOT_S
DESCRIPTORS_ELSE = 512  # for links, logs, sockets and the history: the rest may hold cgroups' files

Send = Callable[[Sequence[messages.Usage]], None]
"""Takes a telling, one message after another; it takes the place of one that has not been sent yet."""


class Usage:
    """`follow` and `attach` say of which sites; `signals` beats with each round, which is then in `latest`.

    `word` is asked for what others know, at each telling; `hurry` makes one at once.
    """

    def __init__(
        self,
        host: HostId,
        settings: config.Usage,
        state: Path,
        *,
        send: Send,
        word: Callable[[], Word],
        exporter: Exporter,
        wall: Callable[[], float] = clock.wall,
        sampler: Sampler | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.signals = Pulse()
        self.latest: Signals | None = None
        self._host, self._settings = host, settings
        self._send, self._word, self._exporter, self._wall = send, word, exporter, wall
        self._tellings = Tellings(host)
        self._archive = Archive(state / "usage.sqlite", max_bytes=settings.history_max_bytes)
        self._attached: dict[SiteId, Attached] = {}
        self._tenants: Mapping[SiteId, Tenant] = {}
        self._plans: dict[PlanId, Caps] = {}
        self._watched: frozenset[SiteId] = frozenset()
        self._hurry = asyncio.Event()
        self._slot: Seen | None = None  # the newest round that the loop has not taken yet
        self._looking = Looking(
            sampler or Sampler(descriptors=descriptors(), parent=settings.parent),
            WebSide(),
            observer or Observer(),
            every_s=settings.every_s,
            wall=wall,
            series=self._series,
            give=self._give,
        )

    def follow(self, orders: Orders) -> None:
        """What the sites are measured against, from now on."""
        self._tenants, self._plans = orders.tenants, orders.plans
        self._settle()

    def attach(self, attached: Mapping[SiteId, Attached]) -> None:
        """Where they are, from now on."""
        self._attached = dict(attached)
        self._settle()

    def watch(self, sites: Iterable[SiteId]) -> None:
        """Read these closely, and no others; penalized ones are, without being named."""
        self._watched = frozenset(sites)
        self._settle()

    def hurry(self) -> None:
        """Tell at once: a penalty changed."""
        self._settle()
        self._hurry.set()

    def urls(self, site: SiteId) -> dict[str, int]:
        """What was asked for most of `site` in the last minute or two, without queries (rule R16)."""
        return self._looking.urls(site)

    def seconds(self, site: SiteId, resource: Resource) -> tuple[float, ...]:
        """What `site` used each second of the last minute, in cores, bytes, bytes/s or tasks; empty if not watched."""
        return self._looking.seconds(site, resource)

    async def rows(self, site: SiteId, days: float) -> tuple[Row, ...]:
        """The five-minute roll-ups of `site`, oldest first, without the one in the making."""
        return await self._archive.rows(site, self._now_slot() - round(days * DAY_SLOTS))

    async def told(self, asked: PastAsked) -> PastTold:
        """The answer to a controller's question about a site's past."""
        return await self._archive.told(asked)

    async def keep(self) -> Never:
        """Eternal."""
        self._loop = asyncio.get_running_loop()
        with self._archive, ThreadPoolExecutor(2, "usage") as threads:
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._thread(threads, self._looking.sample))
                    group.create_task(self._thread(threads, self._looking.watch))
                    await self._tell()
            finally:
                self._looking.stop.set()
                threads.shutdown()  # a round is short, and the web side looks at `stop`
                self._write(self._looking.last_rows())

    async def _thread(self, threads: ThreadPoolExecutor, work: Callable[[], None]) -> None:
        await self._loop.run_in_executor(threads, work)

    def _give(self, seen: Seen) -> None:
        """In the sampling thread."""
        if seen.rows:
            self._write(seen.rows)
        waiting, self._slot = self._slot is not None, seen
        if not waiting:
            self._loop.call_soon_threadsafe(self._take)

    def _write(self, rows: Collection[Row]) -> None:
        """From any thread. What became of them is known when the disk has answered."""

        def count(kept: bool) -> None:
            self._loop.call_soon_threadsafe(self._count_rows, kept, len(rows))

        if (writing := self._archive.keep(rows)) is None:
            count(False)
        else:
            writing.add_done_callback(lambda written: count(written.result()))

    def _count_rows(self, kept: bool, rows: int) -> None:
        outcome = "kept" if kept else "lost"
        self._exporter.count("relevo_usage_rows_total", rows, outcome=outcome)

    def _take(self) -> None:
        seen, self._slot = self._slot, None
        assert seen is not None
        self.latest = seen.signals
        self._tellings.count(seen.totals)
        self._measure(seen)
        self.signals.beat()

    def _measure(self, seen: Seen) -> None:
        put, sites = self._exporter, seen.signals.sites.values()
        put.observe("relevo_usage_round_seconds", seen.took_s)
        put.count("relevo_site_oom_kills_total", sum(signs.oom_kills for signs in sites))
        put.count("relevo_site_tasks_refused_total", sum(signs.tasks_refused for signs in sites))
        host = seen.signals.host
        stalls = (("cpu", host.cpu_stall), ("memory", host.memory_stall), ("io", host.io_stall))
        for name, stall in stalls:
            if stall is not None:
                put.set("relevo_host_stall_ratio", stall, resource=name)
        if seen.tables is not None:
            kinds = [signs.attachment for signs in sites]
            for kind in Attachment:
                put.set("relevo_usage_sites", kinds.count(kind), attachment=kind.value)
            for name, table in seen.tables.items():
                put.replace(name, table)

    def _series(self, signals: Signals) -> Collection[SiteId]:
        match self._settings.per_site:
            case "all":
                return tuple(signals.sites)
            case "top":
                return report.busiest(signals, self._settings.top)
            case "off":
                return ()

    def _settle(self) -> None:
        word, now = self._word(), self._wall()
        penalized = frozenset(penalty.site for penalty in word.penalties)
        self._looking.wanted = Wanted(
            attached=self._attached,
            close=self._watched | penalized,
            terms=terms(self._plans, self._tenants, word.penalties, now),
        )

    async def _tell(self) -> Never:
        """Eternal: each TELL_S, and of the penalized alone when told to hurry."""
        await self.signals.after(1)  # two rounds make rates
        while True:
            self._settle()
            assert self.latest is not None
            asked = self._tellings.turn(self.latest)
            past = await self._archive.past(asked, self._now_slot())
            told = []
            for message in self._tellings.all(self.latest, self._word(), past):
                told.append(message)
                await asyncio.sleep(0)  # a beat may be due
            self._send(told)
            await self._tell_in_haste(self._loop.time() + TELL_S)

    async def _tell_in_haste(self, until: float) -> None:
        while self._loop.time() < until:
            try:
                async with asyncio.timeout_at(until):
                    await self._hurry.wait()
            except TimeoutError:
                return
            self._hurry.clear()
            assert self.latest is not None
            self._send([self._tellings.penalized(self.latest, self._word())])
            await asyncio.sleep(SOONEST_S)

    def _now_slot(self) -> int:
        return int(self._wall() // SLOT_S)


def descriptors() -> int:
    """How many files of cgroups may be held open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, limit - DESCRIPTORS_ELSE)
