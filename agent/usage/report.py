"""What this host says of its sites: to controllers in messages of a bounded size, to Prometheus in tables. Pure."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from zlib import crc32

import msgspec

from agent.signals import Signals, SiteSigns
from agent.usage.happened import Counts, since
from fleet.caps import Evidence, Limits, Penalty
from fleet.messages import (
    BESIDE_MAX,
    DEVICES_MAX,
    LACKS_MAX,
    LINE_MAX,
    LOAD_MAX,
    RATE_MAX,
    SECONDS_MAX,
    SHORT_MAX,
    Beside,
    Past,
    SiteUse,
    Usage,
)
from fleet.model import HostId, SiteId, Why
from fleet.quota import DiskUse

# Some 25 kB, or 80 when caps are told too: a beat behind it waits 10 ms on a line of 20 Mbit/s.
SITES_AT_ONCE = 100
EVIDENCE_MAX = 20
# What is wanted and held is told of each site when it changes, and of a sixth of them in each telling: each minute.
CAPS_TURNS = 6
VALUE_MAX = 300  # characters of a value in what a host lacks
# What the history says, of some sites in each telling: an hour has them all.
PAST_SITES, PAST_TURNS = 10, 360


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What one site's slice should hold and holds; fields as in SiteUse."""

    slice: str = ""
    wanted: Limits | None = None
    held: Limits | None = None
    because: Mapping[str, Why] = field(default_factory=dict)
    short: tuple[Why, ...] = ()
    beside: tuple[Beside, ...] = ()
    told: bool = False
    disk: DiskUse | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What the others on this host know: who is penalized and why, who holds the caps. Fields as in Usage.

    `looked`: who holds the caps has seen them since the agent began, so that nothing in `held` means nothing.
    """

    penalties: tuple[Penalty, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    help: tuple[Why, ...] = ()
    driver: str = ""
    unable: str = ""
    lacks: tuple[Why, ...] = ()
    drift: int = 0
    held: Mapping[SiteId, Held] = field(default_factory=dict)
    looked: bool = True


def within(told: float | None, most: float) -> float | None:
    """What a controller takes: it refuses the whole message for one value that is out of bounds."""
    return None if told is None else min(told, most)


def use(signs: SiteSigns, held: Held, past: Past | None, happened: Counts) -> SiteUse:
    return SiteUse(
        attachment=signs.attachment,
        cpu_cores=within(signs.cpu_cores, LOAD_MAX),
        throttled_ratio=signs.throttled_ratio,
        memory_bytes=signs.memory_bytes,
        anon_bytes=signs.anon_bytes,
        swap_bytes=signs.swap_bytes,
        read_bytes_per_s=within(signs.read_bytes_per_s, RATE_MAX),
        write_bytes_per_s=within(signs.write_bytes_per_s, RATE_MAX),
        tasks=signs.tasks,
        requests_per_s=within(signs.requests_per_s, RATE_MAX),
        took_s=within(signs.took_s, SECONDS_MAX),
        file_bytes=signs.file_bytes,
        devices=_devices(signs),
        busiest_read_bytes_per_s=_busiest(signs, "read_bytes_per_s"),
        busiest_write_bytes_per_s=_busiest(signs, "write_bytes_per_s"),
        **happened,
        slice=held.slice,
        wanted=held.wanted,
        held=held.held,
        because=dict(held.because),
        short=held.short[:SHORT_MAX],
        beside=held.beside[:BESIDE_MAX],
        told=held.told,
        past=past,
        disk=held.disk,
    )


def _busiest(signs: SiteSigns, which: str) -> float | None:
    """None where there is one disk: that is the sum."""
    return within(signs.on_busiest_disk(which), RATE_MAX) if len(signs.disks) > 1 else None


def _devices(signs: SiteSigns) -> dict[str, float]:
    """Bytes/s read and written on those that it works on most, where it has several."""
    if len(signs.disks) < 2:
        return {}
    both = {id: disk.read_bytes_per_s + disk.write_bytes_per_s for id, disk in signs.disks.items()}
    some = sorted(both.items(), key=lambda each: -each[1])[:DEVICES_MAX]
    return {device: min(rate, RATE_MAX) for device, rate in some if rate > 0}


class Tellings:
    """What one host tells, time after time: not everything needs to be said each time."""

    def __init__(self, host: HostId) -> None:
        self._host = host
        self._number = 0
        self._held: dict[SiteId, Held] = {}  # as last told
        self._totals: Mapping[SiteId, Counts] = {}
        self._told: dict[SiteId, Counts] = {}

    def count(self, totals: Mapping[SiteId, Counts]) -> None:
        """What happened to each site up to now; told is what is new of it."""
        self._totals = totals
        for gone in self._told.keys() - totals.keys():
            del self._told[gone]

    def turn(self, signals: Signals) -> tuple[SiteId, ...]:
        """Whose past is to be told next; PAST_TURNS have everybody's."""
        names = sorted(signals.sites)
        most = max(PAST_SITES, -(-len(names) // PAST_TURNS))
        turns = max(1, -(-len(names) // most))
        begin = (self._number % turns) * most
        return tuple(names[begin : begin + most])

    def all(self, signals: Signals, word: Word, past: Mapping[SiteId, Past]) -> Iterator[Usage]:
        """Every site, SITES_AT_ONCE in a message; one at least, for penalties are told also where no site is."""
        self._number += 1
        names = sorted(signals.sites)
        for begin in range(0, max(len(names), 1), SITES_AT_ONCE):
            yield self._message(signals, names[begin : begin + SITES_AT_ONCE], word, past)

    def penalized(self, signals: Signals, word: Word) -> Usage:
        """The penalties, and the sites that have one."""
        names = sorted({penalty.site for penalty in word.penalties} & signals.sites.keys())
        return self._message(signals, names[:SITES_AT_ONCE], word, {})

    def _message(
        self, signals: Signals, names: list[SiteId], word: Word, past: Mapping[SiteId, Past]
    ) -> Usage:
        return Usage(
            host=self._host,
            sites={
                site: use(
                    signals.sites[site],
                    self._news(site, word),
                    past.get(site),
                    self._happened(site),
                )
                for site in names
            },
            penalties=word.penalties,
            evidence=word.evidence[-EVIDENCE_MAX:],
            help=word.help,
            driver=word.driver,
            unable=word.unable[:LINE_MAX],
            lacks=tuple(map(_brief, word.lacks[:LACKS_MAX])),
            drift=word.drift,
            cores=min(signals.host.cores, LOAD_MAX) or None,
            memory_total_bytes=signals.host.memory_total_bytes,
            has_swap=signals.host.has_swap,
        )

    def _happened(self, site: SiteId) -> Counts:
        """Since it was told last."""
        totals = self._totals.get(site, {})
        news = since(self._told.get(site, {}), totals)
        if news:
            self._told[site] = totals
        return news

    def _news(self, site: SiteId, word: Word) -> Held:
        """What is held, where it changed or it is the site's turn; its slice is always said."""
        held = word.held.get(site, Held())
        mine = crc32(site.encode()) % CAPS_TURNS == self._number % CAPS_TURNS
        steady = _steady(held)
        if mine or self._held.get(site) != steady:
            self._held[site] = steady
            return replace(held, told=word.looked)
        return Held(slice=held.slice)


def _brief(why: Why) -> Why:
    """What went wrong may be told at length, by a program; it travels each time."""
    values = {k: v[:VALUE_MAX] if isinstance(v, str) else v for k, v in why.values.items()}
    return msgspec.structs.replace(why, values=values)


def _steady(held: Held) -> Held:
    """Without what changes by itself: a thousand sites' disks are looked at together, and told in their turns."""
    if held.disk is None:
        return held
    disk = msgspec.structs.replace(held.disk, used_bytes=None, used_inodes=None, ratio=None)
    return replace(held, disk=disk)


SERIES: Mapping[str, Callable[[SiteSigns], float | None]] = {
    "relevo_site_cpu_cores": lambda s: s.cpu_cores,
    "relevo_site_throttled_ratio": lambda s: s.throttled_ratio,
    "relevo_site_memory_bytes": lambda s: s.memory_bytes,
    "relevo_site_anon_memory_bytes": lambda s: s.anon_bytes,
    "relevo_site_file_memory_bytes": lambda s: s.file_bytes,
    "relevo_site_swap_bytes": lambda s: s.swap_bytes,
    "relevo_site_read_bytes_per_second": lambda s: s.read_bytes_per_s,
    "relevo_site_write_bytes_per_second": lambda s: s.write_bytes_per_s,
    "relevo_site_tasks": lambda s: s.tasks,
    "relevo_site_requests_per_second": lambda s: s.requests_per_s,
    "relevo_site_request_seconds": lambda s: s.took_s,
    "relevo_site_queue": lambda s: s.queue,
    "relevo_site_cpu_stall_ratio": lambda s: s.cpu_stall,
    "relevo_site_memory_stall_ratio": lambda s: s.memory_stall,
    "relevo_site_io_stall_ratio": lambda s: s.io_stall,
}


def busiest(signals: Signals, most: int) -> tuple[SiteId, ...]:
    """Those that take most: by CPU, then requests, then memory. Which they are changes slowly on a calm host."""

    def weight(site: SiteId) -> tuple[float, float, int]:
        signs = signals.sites[site]
        return signs.cpu_cores or 0.0, signs.requests_per_s or 0.0, signs.memory_bytes or 0

    return tuple(sorted(signals.sites, key=weight, reverse=True)[:most])


def series(
    signals: Signals, sites: Collection[SiteId], totals: Mapping[SiteId, Counts]
) -> dict[str, dict[tuple[str, ...], float]]:
    """Each metric's table for `sites`; of what is not known, and of what never happened, there is no row."""
    return {
        "relevo_site_events_total": {
            (site, name): float(count)
            for site in sites
            for name, count in totals.get(site, {}).items()
        },
        "relevo_site_device_bytes_per_second": {
            (site, device): rate
            for site in sites
            for device, rate in _devices(signals.sites[site]).items()
        },
        **{
            name: {
                (site,): float(told)
                for site in sites
                if (told := tell(signals.sites[site])) is not None
            }
            for name, tell in SERIES.items()
        },
    }
