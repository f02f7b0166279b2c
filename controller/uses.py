"""What each host said last of its sites' use and penalties, and when: one controller's memory; decides nothing.

A host speaks of the sites that are placed there; what it says of others is dropped and counted (rule R15).
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from controller.fits import Machine
from controller.happened import Happened
from controller.mirror import Mirror
from fleet.caps import Evidence, Level, Penalty, Resource
from fleet.messages import BEAT_LIMIT_BYTES, SiteUse, Usage, usage_limit_bytes
from fleet.model import HostId, SiteId, Why
from fleet.penalized import KEPT_S, ORDERED_S, STANDING_MAX, TERM_S
from metrics.exporter import Exporter
from runtime import log
from runtime.clock import wall

_log = log.logger("uses")
AHEAD_S = 60.0  # a host's clock may be
# A reason's values stand in the store and in letters: as many and as long as a sentence can hold.
REASONS_MAX = 32  # of one site: one for each limit
VALUES_MAX, VALUE_CHARACTERS, CODE_CHARACTERS = 12, 200, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteWord:
    """What `host` said of a site at `at` (loop clock)."""

    host: HostId
    use: SiteUse
    at: float


@dataclass(slots=True, kw_only=True)
class HostWord:
    """The last word of one host, at `at` (loop clock)."""

    at: float
    driver: str = ""
    unable: str = ""
    lacks: tuple[Why, ...] = ()
    drift: int = 0
    help: tuple[Why, ...] = ()
    machine: Machine = field(default_factory=Machine)
    sites: dict[SiteId, SiteWord] = field(default_factory=dict)
    penalties: Mapping[SiteId, tuple[Penalty, ...]] = field(default_factory=dict)
    evidence: dict[SiteId, Evidence] = field(default_factory=dict)
    happened: Happened = field(default_factory=Happened)


class Uses:
    """Bounded by the fleet: declared hosts, and the sites placed on each."""

    def __init__(self, mirror: Mirror, exporter: Exporter) -> None:
        self.hosts: dict[HostId, HostWord] = {}
        self.count = 0  # grows with every word
        self._mirror, self._exporter = mirror, exporter
        self._counted: tuple[object, object] | None = None
        self._near: Counter[HostId] = Counter()
        self._strange: set[HostId] = set()

    def limit_bytes(self, host: HostId) -> int:
        """Of a frame of this host: it has more to say the more sites it has, or had a moment ago."""
        if not self._mirror.ready:
            return BEAT_LIMIT_BYTES
        return usage_limit_bytes(self._sites_near(host))

    def _sites_near(self, host: HostId) -> int:
        """At home there or served there; counted once for each change, and only where somebody says much."""
        mirror = self._mirror
        of = (mirror.fleet, mirror.places)
        if self._counted is None or self._counted[0] is not of[0] or self._counted[1] is not of[1]:
            here = Counter(place.host for place in mirror.places.values())
            self._counted = of
            self._near = here + Counter(site.home for site in mirror.fleet.sites.values())
        return self._near[host]

    def take(self, host: HostId, usage: Usage) -> None:
        """Remember what `host` said about itself and the sites that are placed there."""
        if host not in self._mirror.fleet.hosts:
            return
        now, places = asyncio.get_running_loop().time(), self._mirror.places
        word = self.hosts.setdefault(host, HostWord(at=now))
        mine = {id for id in usage.sites if id in places and places[id].host == host}
        told = {p.site for p in usage.penalties} | {e.site for e in usage.evidence}
        here = {id for id in told if id in places and places[id].host == host}
        self._strangers(host, len(usage.sites) - len(mine) + len(told) - len(here))
        word.at, word.driver = now, usage.driver
        word.unable, word.drift = usage.unable, usage.drift
        word.help, word.lacks = tuple(map(tidy, usage.help)), tuple(map(tidy, usage.lacks))
        word.machine = Machine(
            cores=usage.cores, memory_bytes=usage.memory_total_bytes, has_swap=usage.has_swap
        )
        for id in mine:
            before = known.use if (known := word.sites.get(id)) else None
            word.sites[id] = SiteWord(host=host, use=_grown(before, usage.sites[id]), at=now)
            word.happened.add(id, usage.sites[id], now)
        word.penalties = self._penalties(usage, here)
        self._prove(word, (evidence for evidence in usage.evidence if evidence.site in here))
        self._forget(host, word)
        self.count += 1

    def _prove(self, word: HostWord, told: Iterable[Evidence]) -> None:
        """The newest of each site, for two weeks (rule R16); nothing is from tomorrow."""
        at = wall()
        for evidence in told:
            older = word.evidence.get(evidence.site)
            if evidence.at <= at + AHEAD_S and (older is None or evidence.at >= older.at):
                word.evidence[evidence.site] = _without_queries(evidence)
        for site in [id for id, kept in word.evidence.items() if kept.at <= at - KEPT_S]:
            del word.evidence[site]

    def _penalties(self, usage: Usage, here: set[SiteId]) -> dict[SiteId, tuple[Penalty, ...]]:
        """By site, the newest of each resource; the memory watchdog's relief beside what is taken of memory."""
        at = wall()
        found: dict[SiteId, dict[tuple[Resource, bool], Penalty]] = {}
        for penalty in usage.penalties:
            if penalty.site in here and penalty.level > Level.BASELINE:
                kept = found.setdefault(penalty.site, {})
                kept[penalty.resource, penalty.is_relief] = self._bounded(penalty, at)
        return {id: tuple(kept.values())[:STANDING_MAX] for id, kept in found.items()}

    def _bounded(self, penalty: Penalty, at: float) -> Penalty:
        """Nothing lasts for ever, and nobody's name is borrowed: what a person ordered stands in the store."""
        ruling, kept = (
            self._mirror.rulings.get(penalty.site),
            self._mirror.penalties.get(penalty.site),
        )
        ordered = ruling is not None and ruling.note.owner == penalty.owner
        # A word that was taken back a moment ago: its host has not heard of it yet.
        was = (
            any((p.owner, p.since) == (penalty.owner, penalty.since) for p in kept.penalties)
            if kept
            else False
        )
        return msgspec.structs.replace(
            penalty,
            # By its own clock: another instant at each telling would be another penalty.
            since=max(at - KEPT_S, min(penalty.since, at + AHEAD_S)),
            until=min(penalty.until, at + (ORDERED_S if ordered else TERM_S)),
            owner=penalty.owner if ordered or was else "relevo",
            why=tidy(penalty.why),
        )

    def _strangers(self, host: HostId, count: int) -> None:
        """Sites that moved a moment ago are told once more by their old host: that is no crime, and not believed."""
        if count:
            self._exporter.count("relevo_usage_foreign_sites_total", count)
        if count and host not in self._strange:
            _log.warning("a host tells of sites that are not there", host=host, sites=count)
        (self._strange.add if count else self._strange.discard)(host)

    def _forget(self, host: HostId, word: HostWord) -> None:
        """What is placed elsewhere, and hosts that are no longer declared."""
        places = self._mirror.places
        for kept in (word.sites, word.evidence):
            for id in [id for id in kept if id not in places or places[id].host != host]:
                kept.pop(id)
        word.happened.keep(lambda id: id in places and places[id].host == host)
        for gone in self.hosts.keys() - self._mirror.fleet.hosts.keys():
            del self.hosts[gone]
            self._strange.discard(gone)

    def happened(self, site: SiteId) -> dict[str, int]:
        """What the host that serves `site` now said to have happened to it in the last hour."""
        place = self._mirror.places.get(site)
        word = self.hosts.get(place.host) if place else None
        return word.happened.of(site, asyncio.get_running_loop().time()) if word else {}

    def machines(self) -> dict[HostId, Machine]:
        """What each host said of itself."""
        return {host: word.machine for host, word in self.hosts.items()}

    def of(self, site: SiteId) -> SiteWord | None:
        """The last word on `site` by the host that serves it now."""
        place = self._mirror.places.get(site)
        word = self.hosts.get(place.host) if place else None
        return word.sites.get(site) if word else None


def _without_queries(evidence: Evidence) -> Evidence:
    """Agents leave them out; what one of them did not is not kept here either (rule R16)."""
    if not any("?" in path for path in evidence.urls):
        return evidence
    found: Counter[str] = Counter()
    for path, count in evidence.urls.items():
        found[path.partition("?")[0]] += count
    return msgspec.structs.replace(evidence, urls=dict(found))


def _grown(before: SiteUse | None, use: SiteUse) -> SiteUse:
    """With what is told seldom as it was told last, where it is not told again: limits, the disk, and the past.

    Limits are told together: wanted without held is a slice that is not there now.
    """
    tells = use.told or use.wanted is not None or use.held is not None
    last = _tidied(use) if tells or before is None else before
    past = use.past or (before.past if before else None)
    disk = before.disk if before else None
    if use.disk is not None:
        disk = msgspec.structs.replace(use.disk, because=_tidy(use.disk.because))
    return msgspec.structs.replace(
        use,
        wanted=last.wanted,
        held=last.held,
        because=last.because,
        short=last.short,
        beside=last.beside,
        past=past,
        disk=disk,
    )


def _tidied(use: SiteUse) -> SiteUse:
    """With its reasons no longer than ours."""
    beside = tuple(
        msgspec.structs.replace(one, because=_tidy(one.because), short=tuple(map(tidy, one.short)))
        for one in use.beside
    )
    return msgspec.structs.replace(
        use, because=_tidy(use.because), short=tuple(map(tidy, use.short)), beside=beside
    )


def _tidy(because: Mapping[str, Why]) -> dict[str, Why]:
    said = list(because.items())[:REASONS_MAX]
    return {name[:CODE_CHARACTERS]: tidy(why) for name, why in said}


def tidy(why: Why) -> Why:
    """A host's reason, no longer than one of ours."""
    values = {
        name[:CODE_CHARACTERS]: value[:VALUE_CHARACTERS] if isinstance(value, str) else value
        for name, value in list(why.values.items())[:VALUES_MAX]
    }
    return msgspec.structs.replace(why, code=why.code[:CODE_CHARACTERS], values=values)
