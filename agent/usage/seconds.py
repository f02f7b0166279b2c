"""What sites that are watched use, second by second: a minute of it stands beside a penalty. Rounds decide without it.

Only what takes four small reads is looked at, with counters of its own: what a round sees is the same with and without.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from agent.signals import SiteSigns
from agent.usage import rates
from agent.usage.cgroup import Cgroup, Vanished
from agent.usage.kernel import Brief, Full
from fleet.caps import Attachment, Resource
from fleet.model import SiteId

EVERY_S = 1.0
KEPT = 60
SITES_MAX = 32  # read so often: a twentieth of a ms each, on a thread that has rounds to make


class Seconds:
    """Used by one thread, but for `of`."""

    def __init__(self) -> None:
        self._before: dict[Path, tuple[Brief, Full]] = {}
        self._kept: dict[SiteId, deque[SiteSigns]] = {}
        self._told: Mapping[SiteId, tuple[SiteSigns, ...]] = {}  # replaced as a whole

    def look(self, now: float, sites: Mapping[SiteId, Sequence[Cgroup]]) -> None:
        """Read these, and no others, at `now` (monotonic s)."""
        watched = sorted(sites)[:SITES_MAX]
        for site in self._kept.keys() - set(watched):
            del self._kept[site]
        before, self._before = self._before, {}
        for site in watched:
            parts = [self._read(cgroup, before, now) for cgroup in sites[site]]
            told = [part for part in parts if part is not None]
            if told and len(told) == len(parts):
                self._kept.setdefault(site, deque(maxlen=KEPT)).append(rates.together(told))
        self._told = {site: tuple(kept) for site, kept in self._kept.items()}

    def of(self, site: SiteId, resource: Resource) -> tuple[float, ...]:
        """Oldest first: cores, bytes of memory, bytes/s of its disks, or processes; empty for all else."""
        return tuple(_told(self._told.get(site, ()), resource))

    def _read(
        self, cgroup: Cgroup, before: Mapping[Path, tuple[Brief, Full]], now: float
    ) -> SiteSigns | None:
        """None at first sight: there is no rate yet."""
        try:
            brief, full = self._before[cgroup.path] = cgroup.second(now)
        except Vanished:
            return None
        was = before.get(cgroup.path)
        if was is None:
            return None
        return rates.full(was[1], full, rates.brief(was[0], brief, Attachment.SLICE))


def _told(seconds: Iterable[SiteSigns], resource: Resource) -> Iterable[float]:
    for signs in seconds:
        value: float | None = None
        match resource:
            case Resource.CPU:
                value = signs.cpu_cores
            case Resource.MEMORY:
                value = signs.memory_bytes
            case Resource.TASKS:
                value = signs.tasks
            case Resource.IO if signs.read_bytes_per_s is not None:
                value = signs.read_bytes_per_s + (signs.write_bytes_per_s or 0.0)
        if value is not None:
            yield value
