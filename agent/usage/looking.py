"""The two threads that look at sites, round after round: one at the kernel, one at the web side, which may wait."""

import threading
import time
from collections.abc import Callable, Collection, Mapping

import msgspec

from agent.layout.attached import Attached
from agent.signals import Signals, SiteSigns
from agent.usage import habits, report, seconds
from agent.usage.accesslog import Web
from agent.usage.habits import Habits, Observer
from agent.usage.happened import Counts, Happened
from agent.usage.ledger import Ledger, Row, Terms
from agent.usage.sampler import BUSY_CORES, Sampler
from agent.usage.web import WebSide
from fleet.caps import Resource
from fleet.model import SiteId

TABLES_S = 10.0  # Prometheus asks each 15 s at most


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the threads follow; replaced as a whole. `close`: sites to be read closely."""

    attached: dict[SiteId, Attached] = {}
    close: frozenset[SiteId] = frozenset()
    terms: Terms = Terms()


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One finished round. `totals`: what happened since the beginning. `tables`: of Prometheus, when they are due."""

    signals: Signals
    took_s: float
    totals: Mapping[SiteId, Counts] = {}
    rows: tuple[Row, ...] = ()
    tables: dict[str, dict[tuple[str, ...], float]] | None = None


class Joined(msgspec.Struct, frozen=True, gc=False):
    """What the kernel and the web side say of a site, and both in one."""

    signs: SiteSigns
    web: Web
    whole: SiteSigns


class Looking:
    """`give` gets each finished round, in the sampling thread. `series`: whose tables are wanted of the sites."""

    def __init__(
        self,
        sampler: Sampler,
        web: WebSide,
        observer: Observer,
        *,
        every_s: float,
        wall: Callable[[], float],
        series: Callable[[Signals], Collection[SiteId]],
        give: Callable[[Seen], None],
    ) -> None:
        self.wanted = Wanted()
        self.stop = threading.Event()
        self._sampler, self._web, self._observer = sampler, web, observer
        self._every_s, self._wall, self._series, self._give = every_s, wall, series, give
        self._ledger = Ledger()
        self._happened = Happened()
        self._tables_at = float("-inf")
        self._told: dict[SiteId, Web] = {}  # the web side's last round
        self._merged: dict[SiteId, Web] = {}
        self._joined: dict[SiteId, Joined] = {}
        self._habits: dict[SiteId, Habits] = {}
        self._observed_at = float("-inf")
        self._awake: frozenset[SiteId] = frozenset()

    def sample(self) -> None:
        """The sampling thread, until `stop`."""
        try:
            self._each_round(lambda now: self._give(self.look(now)), self._sampler.second)
        finally:
            self._sampler.close()

    def watch(self) -> None:
        """The web side's thread, until `stop`."""
        try:
            self._each_round(self.look_at_web)
        finally:
            self._web.close()

    def look(self, now: float) -> Seen:
        """One round of the kernel's side, and all that is reckoned from it, at `now` (monotonic s)."""
        wanted = self.wanted
        self._sampler.follow(wanted.attached, wanted.close)
        self._sampler.second(now)
        began = time.monotonic()
        seen = self._sampler.round(now)
        told, again = self._told, self._told is self._merged
        self._merged = told
        odd = self._habits
        sites = dict(seen.signals.sites)
        self._joined = {
            site: self._join(site, sites[site], told[site], again=again)
            for site in told.keys() & sites.keys()
        }
        sites |= {site: joined.whole for site, joined in self._joined.items()}
        for site in odd.keys() & sites.keys():
            does = msgspec.structs.asdict(odd[site])
            sites[site] = msgspec.structs.replace(sites[site], **does)
        signals = msgspec.structs.replace(seen.signals, sites=sites)
        self._awake = frozenset(s for s, signs in sites.items() if is_awake(signs))
        rows = self._ledger.add(signals, seen.fresh, wanted.terms, self._wall())
        self._happened.add(signals, seen.fresh)
        totals = self._happened.totals
        tables = None
        if now >= self._tables_at:
            self._tables_at = now + TABLES_S
            tables = report.series(signals, self._series(signals), totals)
        took_s = time.monotonic() - began
        return Seen(signals=signals, took_s=took_s, totals=totals, rows=rows, tables=tables)

    def _join(self, site: SiteId, signs: SiteSigns, web: Web, *, again: bool) -> Joined:
        """Of most sites neither says anything new."""
        known = self._joined.get(site)
        if known and known.signs is signs and known.web is web and not web.workers_short:
            return known
        return Joined(signs, web, merged(signs, web, again=again))

    def look_at_web(self, now: float) -> None:
        """One round of the web side, and of what its users do besides."""
        self._web.follow(self.wanted.attached)
        if now - self._observed_at >= habits.EVERY_S:
            self._observed_at = now
            self._habits = self._observer.look(now, self.wanted.attached)
        self._told = self._web.round(now, self._awake, self.stop.is_set)

    def urls(self, site: SiteId) -> dict[str, int]:
        """What was asked for most of `site` in the last minute or two (rule R16); from any thread."""
        return self._web.urls(site)

    def last_rows(self) -> tuple[Row, ...]:
        """The rows in the making, when there will be no more."""
        return self._ledger.close()

    def seconds(self, site: SiteId, resource: Resource) -> tuple[float, ...]:
        """What `site` used each second of the last minute, if it is watched; from any thread."""
        return self._sampler.seconds.of(site, resource)

    def _each_round(
        self, look: Callable[[float], None], between: Callable[[float], None] | None = None
    ) -> None:
        """`between` is called each second in which no round begins, and never delays one that is due."""
        due = time.monotonic()
        while not self.stop.wait(max(0.0, due - time.monotonic())):
            now = time.monotonic()
            look(now)
            missed = (time.monotonic() - due) // self._every_s
            due += (missed + 1) * self._every_s
            while between and (now := now + seconds.EVERY_S) <= due - seconds.EVERY_S / 2:
                if self.stop.wait(max(0.0, now - time.monotonic())):
                    return
                between(now := time.monotonic())


def merged(signs: SiteSigns, web: Web, *, again: bool) -> SiteSigns:
    """`signs`, and what the web side says. `again`: it was said in the last round too, so it counts no event."""
    return msgspec.structs.replace(
        signs,
        requests_per_s=web.requests_per_s,
        errors_per_s=web.errors_per_s,
        clients=web.clients,
        busy=web.busy,
        took_s=web.took_s,
        queue=web.queue,
        workers_short=0 if again else web.workers_short,
    )


def is_awake(signs: SiteSigns) -> bool:
    """Whether something runs there, so that asking its php-fpm wakes nobody."""
    return (signs.cpu_cores or 0.0) >= BUSY_CORES or (signs.queue or 0) > 0
