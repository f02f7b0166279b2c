"""Which sites have nearly filled what their plan lets them keep on disk, by their hosts' last words."""

from collections.abc import Mapping
from dataclasses import dataclass

from controller.uses import HostWord, Uses
from fleet.messages import SiteUse
from fleet.model import HostId, SiteId

NEAR_RATIO = 0.9  # of what the plan allows: some days before a site of the usual growth is full
EASED_RATIO = 0.85  # what is under it is over; between the two nobody is told twice
DISKS = "disks/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """What a held site keeps; `ratio`: of its plan's disk, 1 is all."""

    host: HostId
    ratio: float
    used_bytes: int
    used_inodes: int


class Fills:
    """Looks again only at hosts that have spoken since."""

    def __init__(self, uses: Uses) -> None:
        self._uses = uses
        self._heard: dict[HostId, float] = {}
        self._near: dict[HostId, dict[SiteId, Fill]] = {}

    def look(self) -> Mapping[SiteId, Fill]:
        """Those that are near their plan's disk, or past it."""
        hosts = self._uses.hosts
        for gone in self._heard.keys() - hosts.keys():
            del self._heard[gone], self._near[gone]
        for host, word in hosts.items():
            if self._heard.get(host) != word.at:
                self._heard[host], self._near[host] = word.at, _near(host, word)
        return {site: fill for those in self._near.values() for site, fill in those.items()}

    def doubts(self, key: str) -> bool:
        """Whether nobody can say that this matter is over: its site is unheard of, or still near."""
        if not key.startswith(DISKS):
            return False
        word = self._uses.of(SiteId(key.removeprefix(DISKS)))
        if word is None or word.use.disk is None:
            return True
        ratio = word.use.disk.ratio
        return _is_held(word.use) and (ratio is None or ratio >= EASED_RATIO)


def _near(host: HostId, word: HostWord) -> dict[SiteId, Fill]:
    return {
        site: Fill(
            host=host,
            ratio=disk.ratio,
            used_bytes=disk.used_bytes or 0,
            used_inodes=disk.used_inodes or 0,
        )
        for site, said in word.sites.items()
        if (disk := said.use.disk) and disk.ratio and disk.ratio >= NEAR_RATIO and disk.wanted
    }


def _is_held(use: SiteUse) -> bool:
    """In shadow nobody is called."""
    return use.disk is not None and use.disk.wanted is not None
