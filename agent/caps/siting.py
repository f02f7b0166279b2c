"""Which disks are under the sites of this host: under what is named, sites' homes and their document roots."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.caps.devices import in_order, is_diskless, mounts, places_of, real, under
from agent.caps.limits import NO_DISK
from agent.caps.mountinfo import MOUNTS, Mounted
from agent.discover.accounts import SHARED, accounts, is_person
from agent.lane import Lane
from agent.layout.attached import Attached
from agent.ports import DriverError
from fleet.caps import Tenant
from fleet.messages import Orders
from fleet.model import Name, SiteId, Why
from runtime import log

AGAIN_S = 300.0  # a link that leads elsewhere is nobody's event
# A disk that hangs must not hold up what caps are to relieve; a thousand sites' links take some 0.1 s.
LOOK_S = 1.0

_log = log.logger("caps")

Users = Mapping[SiteId, tuple[Name, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sited:
    """Where each site's files are, links followed, `roots` its document roots; and from what that was seen."""

    paths: Mapping[SiteId, frozenset[Path]] = field(default_factory=dict)
    roots: Mapping[SiteId, frozenset[Path]] = field(default_factory=dict)
    users: Users = field(default_factory=dict)
    attached: Mapping[SiteId, Attached] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disks:
    """`numbers`: "major:minor", sorted; without any `why` says what is missing. `diskless`: as in HostFacts."""

    numbers: tuple[str, ...] = ()
    why: Why = NO_DISK
    diskless: Mapping[SiteId, Why] = field(default_factory=dict)


class Siting:
    """`named`: paths whose disks count wherever sites are."""

    def __init__(self, named: Iterable[Path], root: Path = Path("/")) -> None:
        self._named, self._root = frozenset(named), root
        self._lane = Lane()
        self._sited = Sited()  # set by a thread, as a whole
        self._again = 0.0
        self._mounts: tuple[str, Sited] | None = None  # what `_places` was made of
        self._places: Mapping[Path, frozenset[Path]] = {}
        self._last: Disks | None = None
        self._logged = ""

    async def look(self, orders: Orders, attached: Mapping[SiteId, Attached]) -> None:
        """Follow links where users or attachments have changed, and each five minutes.

        At most LOOK_S: what is late counts as soon as it is there, and until then what was seen before.
        """
        users = {site: tenant.users for site, tenant in orders.tenants.items()}
        now, seen = asyncio.get_running_loop().time(), self._sited
        if seen.attached is attached and seen.users == users and now < self._again:
            return
        self._again = now + AGAIN_S
        try:
            await self._lane.run(LOOK_S, lambda: self._follow(orders.tenants, attached))
            self._logged = ""
        except (DriverError, OSError) as error:
            if self._logged != str(error):
                _log.warning("where sites' files are can't be told in time", error=str(error))
            self._logged = str(error)

    def _follow(
        self, tenants: Mapping[SiteId, Tenant], attached: Mapping[SiteId, Attached]
    ) -> None:
        found = accounts((self._root / "etc/passwd").read_text(errors="replace"))
        homes = {
            name: Path("/") / account.home
            for name, account in found.items()
            if is_person(account) and name not in SHARED
        }
        roots, paths = {}, {}
        for site, tenant in tenants.items():
            roots[site] = self._roots(site, attached.get(site))
            mine = (homes[user] for user in tenant.users if user in homes)
            paths[site] = roots[site].union(real(home, self._root) for home in mine)
        users = {site: tenant.users for site, tenant in tenants.items()}
        self._sited = Sited(paths=paths, roots=roots, users=users, attached=attached)

    def _roots(self, site: SiteId, at: Attached | None) -> frozenset[Path]:
        """Who is served no more may run on, and is held where it was; and not seen is not gone (rule R7)."""
        if at is None or not at.roots:
            return self._sited.roots.get(site, frozenset())
        return frozenset(real(root, self._root) for root in at.roots)

    def disks(self) -> Disks:
        """In a thread; no file system is touched that sites are on. What can't be seen now is as it was (rule R7)."""
        try:
            self._last = self._disks()
        except OSError as error:
            return self._last or Disks(why=Why("cap-disks-unseen", {"error": str(error)}))
        return self._last

    def _disks(self) -> Disks:
        sited, text = self._sited, (self._root / MOUNTS).read_text()
        known = mounts(text)
        if self._mounts is None or self._mounts[0] != text or self._mounts[1] is not sited:
            paths = self._named.union(*sited.paths.values())
            self._places, self._mounts = places_of(paths, known), (text, sited)
        used = frozenset[Path]().union(*self._places.values())
        off = {place for place in used if is_diskless(place, known, self._root)}
        return Disks(
            numbers=in_order(each for place in used for each in under(place, known, self._root)),
            diskless=dict(self._diskless(sited, known, off)) if off else {},
        )

    def _diskless(
        self, sited: Sited, known: Mapping[Path, Mounted], off: set[Path]
    ) -> Iterator[tuple[SiteId, Why]]:
        """One place of each is told."""
        for site, paths in sited.paths.items():
            if mine := [place for path in paths for place in self._places[path] & off]:
                place = min(mine)
                yield (
                    site,
                    Why("cap-no-disk", {"mount": str(place), "kind": known[place].kind}),
                )
