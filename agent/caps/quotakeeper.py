"""Keeps users' quotas as plans say: looked at when orders change, and each five minutes; drift is repaired."""

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Never, ParamSpec, TypeVar

import msgspec

from agent.caps import quotaours
from agent.caps.quota import (
    Aim,
    Key,
    Ours,
    Person,
    Seen,
    World,
    aims,
    ask,
    holders,
    next_change_s,
    paths,
)
from agent.caps.quotamounts import mounts, unheld
from agent.caps.quotaunit import Quotas, Talk
from agent.caps.quotauses import uses
from agent.discover.accounts import SHARED, accounts, is_person
from agent.layout.attached import Attached
from agent.ports import DriverError
from fleet.messages import Orders
from fleet.model import SiteId, Why
from fleet.quota import DiskUse, Quota
from metrics.exporter import Exporter
from runtime import clock, log
from runtime.pulse import Pulse
from runtime.words import explain

EVERY_S = 300.0  # a disk fills in minutes at the rate that plans allow
SOONEST_S = 5.0  # orders that change one after another are followed together
RETRY_S, DOUBLED = 10.0, 5  # then as often as it is looked at anyway
LOOK_S = 10.0  # for passwd, and for where homes are; a network's file system may hang
NOBODY = Why("unable-quota-root")

_log = log.logger("quota")

P = ParamSpec("P")
T = TypeVar("T")


class Files:
    """This host's own files."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._looking = threading.Lock()  # one thread at most waits for a disk

    async def look(
        self,
        orders: Orders,
        attached: Mapping[SiteId, Attached],
        now: float,
        places: Collection[str] = (),
    ) -> World:
        """In a thread. `places`: where something was held before, whoever is there now. Raises DriverError."""
        return await bounded(self._look, orders, attached, now, places)

    def _look(
        self,
        orders: Orders,
        attached: Mapping[SiteId, Attached],
        now: float,
        places: Collection[str],
    ) -> World:
        if not self._looking.acquire(blocking=False):
            raise TimeoutError("the last look has not ended")
        try:
            people = self.people()
            asked = paths(orders.tenants, attached, people) | {Path(place) for place in places}
            found = mounts(asked, self._root)
            return World(orders=orders, attached=attached, people=people, mounts=found, now=now)
        finally:
            self._looking.release()

    def people(self) -> dict[str, Person]:
        """Who has an account that may be a site's, by name. Raises OSError."""
        found = accounts((self._root / "etc/passwd").read_text(errors="replace"))
        return {
            name: Person(uid=account.uid, home=Path("/") / account.home)
            for name, account in found.items()
            if is_person(account) and name not in SHARED
        }


async def bounded(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what touches files, or takes long, in a thread. Raises DriverError."""
    try:
        async with asyncio.timeout(LOOK_S):
            return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:  # includes TimeoutError
        raise DriverError(f"quotas: this host's files: {str(error) or 'too slow'}") from error


class NotTaken(DriverError):
    """Some quotas were refused; the others are as they should be."""

    def __init__(self, why: Why) -> None:
        super().__init__(explain(why))
        self.why = why


class QuotaKeeper:
    """`quotas`: None where nobody may set them, or they are left to others. `lacks`: what can't be held, and why."""

    def __init__(
        self,
        quotas: Quotas | None,
        files: Files,
        *,
        unable: Why | None = None,
        state: Path,
        exporter: Exporter,
        most: int | None = None,
        wall: Callable[[], float] = clock.wall,
        every_s: float = EVERY_S,
        soonest_s: float = SOONEST_S,
    ) -> None:
        """`most`: of how many sites there are series; None: of all."""
        self.lacks: tuple[Why, ...] = ()
        self.drift, self._nobody = 0, unable
        self._quotas, self._files, self._path = quotas, files, state
        self._exporter, self._most, self._wall = exporter, most, wall
        self._every_s, self._soonest_s = every_s, soonest_s
        self._changed = Pulse()
        self._orders: Orders | None = None
        self._attached: Mapping[SiteId, Attached] | None = None
        self._ours = quotaours.read(state)
        self._good: dict[Key, Quota] = {}  # what was verified
        self._uses: Mapping[SiteId, DiskUse] = {}
        self._tries, self._failed = 0, ""

    def follow(self, orders: Orders) -> None:
        """Idempotent; soon."""
        self._orders = orders
        self._changed.beat()

    def attach(self, attached: Mapping[SiteId, Attached]) -> None:
        """Where sites are, from now on."""
        self._attached = attached
        self._changed.beat()

    def state(self) -> Mapping[SiteId, DiskUse]:
        """As of the last look."""
        return self._uses

    async def keep(self) -> Never:
        """Eternal."""
        while True:
            count = self._changed.count
            wait_s = await self._try()
            await asyncio.sleep(self._soonest_s)
            await self._changed.within(count, wait_s - self._soonest_s)

    async def _try(self) -> float:
        """Look, and set what is to be set; gives in how many seconds to look again."""
        orders, attached = self._orders, self._attached
        if orders is None or (attached is None and orders.tenants):
            return self._every_s  # not seen yet is not gone (rule R7)
        if self._quotas is None:
            has_users = any(t.users for t in orders.tenants.values())
            self.lacks = (self._nobody,) if self._nobody and has_users else ()
            return self._every_s
        if not orders.tenants and not self._ours:
            return self._every_s
        try:
            places = {place for place, _ in self._ours}
            world = await self._files.look(orders, attached or {}, self._wall(), places)
            await self._round(self._quotas, world)
        except DriverError as error:
            self._fail(error)
            self._tries += 1
            return min(self._every_s, RETRY_S * 2.0 ** min(self._tries - 1, DOUBLED))
        self._tries, self._failed = 0, ""
        return min(self._every_s, next_change_s(world))

    async def _round(self, quotas: Quotas, world: World) -> None:
        """Raises DriverError, also where some were not taken: the others are as they should be then."""
        found = await bounded(
            holders, world
        )  # of a thousand users: some ms, which a beat must not wait
        seen: Mapping[str, Seen] = {}
        wanted: Mapping[Key, Aim] = {}
        if wish := ask(world, (*found, *self._ours)):
            async with quotas.talk() as talk:
                seen = await talk.ask(wish)
                wanted = await bounded(aims, world, found, seen, self._ours)
                seen = await self._set(talk, wanted, seen)
        short = await self._settle(wanted, seen)
        self._uses = await bounded(uses, world, found, seen, wanted)
        self._measure()
        if short is not None:
            raise NotTaken(short)
        self._say(world, seen)

    async def _set(
        self, talk: Talk, wanted: Mapping[Key, Aim], seen: Mapping[str, Seen]
    ) -> Mapping[str, Seen]:
        """What differs; gives what is seen then."""
        wrong = {
            key: aim.quota
            for key, aim in wanted.items()
            if seen[key[0]].users[key[1]].quota != aim.quota
        }
        for key, quota in wrong.items():
            if self._good.get(key) == quota:
                self._drifted(key, seen[key[0]].users[key[1]].quota)
        await self._remember(wanted, seen)
        if not wrong:
            return seen
        wish: dict[str, dict[int, Quota | None]] = {
            place: dict.fromkeys(each.users) for place, each in seen.items() if each.users
        }
        for (place, uid), quota in wrong.items():
            wish[place][uid] = quota
        return {**seen, **await talk.ask(wish)}

    def _drifted(self, key: Key, found: Quota) -> None:
        self.drift += 1
        self._exporter.count("relevo_caps_drift_total")
        place, uid = key
        _log.warning(
            "somebody else changed a user's quota: repaired",
            mount=place,
            uid=uid,
            found=msgspec.to_builtins(found),
        )

    async def _remember(self, wanted: Mapping[Key, Aim], seen: Mapping[str, Seen]) -> None:
        """On disk before it is done: what we put on we must know to take off. What is not seen now stays ours."""
        new = dict(self._ours)
        for key, aim in wanted.items():
            mine = self._ours.get(key)
            was = mine.was if mine else seen[key[0]].users[key[1]].quota
            new[key] = Ours(sites=aim.sites, quota=aim.quota, was=was)
        await self._write(new)

    async def _settle(self, wanted: Mapping[Key, Aim], seen: Mapping[str, Seen]) -> Why | None:
        """Who is let go is forgotten; gives what was not taken, for people."""
        short = {key for key, aim in wanted.items() if not _holds(seen, key, aim.quota)}
        gone = {key for key, aim in wanted.items() if aim.release} - short
        self._good = {
            key: aim.quota for key, aim in wanted.items() if key not in short and not aim.release
        }
        await self._write({key: mine for key, mine in self._ours.items() if key not in gone})
        self._exporter.set("relevo_caps_quotas", len(self._good), state="held")
        self._exporter.set("relevo_caps_quotas", len(short), state="short")
        if not short:
            return None
        place, uid = min(short)
        error = seen[place].refused.get(uid) or seen[place].state
        values: dict[str, str | int | float] = {"mount": place, "uid": uid, "error": error}
        return Why("unable-quotas-refused", {"users": len(short), **values})

    async def _write(self, new: Mapping[Key, Ours]) -> None:
        if new != self._ours:
            await bounded(quotaours.write, self._path, new)
            self._ours = dict(new)

    def _fail(self, error: DriverError) -> None:
        """Logged on the edge, counted always."""
        self._exporter.count("relevo_caps_failures_total")
        if (text := str(error)) != self._failed:
            _log.error("quotas of disks are not as they should be", error=text)
        self._failed = text
        refused = error.why if isinstance(error, NotTaken) else None
        self.lacks = (refused or Why("unable-quota", {"error": text}),)

    def _say(self, world: World, seen: Mapping[str, Seen]) -> None:
        """Once, which file systems hold nobody, with the remedy."""
        present = {mount.place: mount for mount in world.mounts.values()}
        states = {place: seen[place].state if place in seen else "off" for place in present}
        whys = (unheld(present[place], states[place]) for place in sorted(present))
        lacks = tuple(why for why in whys if why)
        if lacks and lacks != self.lacks:
            _log.warning("disks are not held everywhere", why=" ".join(map(explain, lacks)))
        self.lacks = lacks

    def _measure(self) -> None:
        """Series of those that are nearest to their limit."""
        known = [(site, use) for site, use in self._uses.items() if use.ratio is not None]
        fullest = sorted(known, key=lambda each: each[1].ratio or 0.0, reverse=True)[: self._most]
        for name, tell in SERIES.items():
            self._exporter.replace(name, {(site,): float(tell(use) or 0) for site, use in fullest})


SERIES: Mapping[str, Callable[[DiskUse], float | None]] = {
    "relevo_site_disk_bytes": lambda use: use.used_bytes,
    "relevo_site_disk_inodes": lambda use: use.used_inodes,
    "relevo_site_disk_ratio": lambda use: use.ratio,
}


def _holds(seen: Mapping[str, Seen], key: Key, quota: Quota) -> bool:
    users = seen[key[0]].users if key[0] in seen else {}
    return key[1] in users and users[key[1]].quota == quota
