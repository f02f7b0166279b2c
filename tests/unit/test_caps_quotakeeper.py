"""The keeper of quotas against a disk in memory: what should be held is, drift is repaired, shadow holds nobody."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from agent.caps.quota import Kept, Seen, World, paths
from agent.caps.quotakeeper import NOBODY, Files, QuotaKeeper
from agent.caps.quotaunit import Talk, Wish
from agent.layout.attached import Attached
from agent.ports import DriverError
from fleet.messages import Orders
from fleet.model import SiteId, Why
from fleet.quota import NO_QUOTA, Quota, quota, quota_of
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime.words import explain
from tests.unit.test_caps_limits import GB
from tests.unit.test_caps_quota import LARGE, NEWS, PEOPLE, SHOP, SMALL, SRV, tenant, world
from tests.unit.test_caps_quotalook import host as made_up_host

PLAN = quota_of(SMALL)
SHOPS, NEWSS = 1001, 1002


@dataclass
class Disk:
    """/srv in memory: what users keep there and are held to. `asked`: each wish; `broken`: what goes wrong."""

    state: str = "enforced"
    keeps: dict[int, int] = field(default_factory=dict)
    holds: dict[int, Quota] = field(default_factory=dict)
    set: list[dict[int, Quota]] = field(default_factory=list)
    refuses: frozenset[int] = frozenset()
    broken: str = ""
    talks: int = 0

    @asynccontextmanager
    async def talk(self) -> AsyncGenerator[Talk, None]:
        self.talks += 1
        if self.broken:
            raise DriverError(self.broken)
        yield self

    async def ask(self, wish: Wish) -> dict[str, Seen]:
        assert wish.keys() == {"/srv"}
        if self.state not in ("enforced", "counted"):
            return {"/srv": Seen(state=self.state)}
        users = wish["/srv"]
        wished = {uid: held for uid, held in users.items() if held is not None}
        if wished:
            self.set.append(wished)
        self.holds |= {uid: held for uid, held in wished.items() if uid not in self.refuses}
        refused = dict.fromkeys(self.refuses & wished.keys(), "Operation not permitted")
        return {"/srv": Seen(state=self.state, users=self._users(users), refused=refused)}

    def _users(self, uids: Mapping[int, object]) -> dict[int, Kept]:
        return {
            uid: Kept(
                used_bytes=self.keeps.get(uid, 1 * GB),
                used_inodes=100,
                quota=self.holds.get(uid, NO_QUOTA),
            )
            for uid in uids
        }


class MadeUp(Files):
    """A host whose sites are all on /srv."""

    async def look(
        self,
        orders: Orders,
        attached: Mapping[SiteId, Attached],
        now: float,
        places: Collection[str] = (),
    ) -> World:
        known = paths(orders.tenants, attached, PEOPLE) | {Path(place) for place in places}
        return World(
            orders=orders,
            attached=attached,
            people=PEOPLE,
            mounts=dict.fromkeys(known, SRV),
            now=now,
        )


@dataclass
class Host:
    disk: Disk
    keeper: QuotaKeeper
    exporter: Exporter
    now: float = 100.0

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.002)

    async def settled(self) -> None:
        """Let it look a few times more."""
        talks = self.disk.talks
        await self.until(lambda: self.disk.talks > talks + 3)

    def follow(self, of: World) -> None:
        self.keeper.follow(of.orders)
        self.keeper.attach(of.attached)

    def measured(self, name: str) -> list[str]:
        lines = self.exporter.render().decode().splitlines()
        return [line for line in lines if line.startswith((f"{name}{{", f"{name} "))]


@asynccontextmanager
async def keeping(
    path: Path, disk: Disk | None = None, most: int | None = None, every_s: float = 0.01
) -> AsyncIterator[Host]:
    disk, exporter = disk or Disk(), Exporter(AGENT)
    keeper = QuotaKeeper(
        disk,
        MadeUp(),
        state=path / "quota.json",
        exporter=exporter,
        most=most,
        wall=lambda: host.now,
        every_s=every_s,
        soonest_s=0.001,
    )
    host = Host(disk, keeper, exporter)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.keep())
        yield host
        task.cancel()


BOTH = world({SHOP: tenant("shop"), NEWS: tenant("news", plan="large")})


async def test_sites_in_force_are_held_to_their_plan(tmp_path: Path) -> None:
    """Each user to its own, in one go, once; verified, told and measured."""
    async with keeping(tmp_path) as host:
        host.follow(BOTH)
        await host.until(lambda: host.keeper.state().keys() == {SHOP, NEWS})
        use = host.keeper.state()[SHOP]
        assert (use.wanted, use.held, use.used_bytes, use.ratio) == (PLAN, PLAN, 1 * GB, 0.1)
        await host.settled()
        assert host.disk.set == [{SHOPS: PLAN, NEWSS: quota_of(LARGE)}]
        assert (host.keeper.drift, host.keeper.lacks) == (0, ())
        assert host.measured("relevo_caps_quotas") == [
            'relevo_caps_quotas{state="held"} 2.0',
            'relevo_caps_quotas{state="short"} 0.0',
        ]
        assert host.measured("relevo_site_disk_ratio") == [
            'relevo_site_disk_ratio{site="shop"} 0.1',
            'relevo_site_disk_ratio{site="news"} 0.05',
        ]


async def test_series_are_of_the_fullest(tmp_path: Path) -> None:
    """As many as the host's configuration says."""
    async with keeping(tmp_path, Disk(keeps={NEWSS: 19 * GB}), most=1) as host:
        host.follow(BOTH)
        await host.until(host.keeper.state)
        (told,) = host.measured("relevo_site_disk_bytes")
        assert told.startswith('relevo_site_disk_bytes{site="news"} ')
        assert float(told.split()[-1]) == 19 * GB


async def test_nothing_is_done_before_it_is_known_where_sites_are(tmp_path: Path) -> None:
    """Not seen yet is not gone (rule R7)."""
    async with keeping(tmp_path) as host:
        host.keeper.follow(BOTH.orders)
        await asyncio.sleep(0.05)
        assert host.disk.talks == 0


async def test_shadow_holds_nobody_and_gives_back_what_was(tmp_path: Path) -> None:
    """Nothing is set; what a panel had set before is there again after caps were on, over a restart too."""
    panels = quota(2 * GB, 500)
    disk = Disk(holds={SHOPS: panels})
    shadow = world({SHOP: tenant("shop", since=None)})
    async with keeping(tmp_path, disk) as host:
        host.follow(shadow)
        await host.settled()
        assert disk.set == []
        assert host.keeper.state()[SHOP].held == panels
        host.follow(world({SHOP: tenant("shop")}))
        await host.until(lambda: disk.holds[SHOPS] == PLAN)
        await host.settled()
    async with keeping(tmp_path, disk) as host:
        host.follow(shadow)
        await host.until(lambda: disk.holds[SHOPS] == panels)
        await host.settled()
        disk.holds[SHOPS] = NO_QUOTA
        await host.settled()
        assert disk.holds[SHOPS] == NO_QUOTA, "it is nobody's business of ours any more"
        assert host.keeper.drift == 0


async def test_drift_is_repaired_and_counted(tmp_path: Path) -> None:
    """By whomever, once for each change; an order of ours is none."""
    async with keeping(tmp_path) as host:
        host.follow(BOTH)
        await host.until(host.keeper.state)
        host.disk.holds[SHOPS] = quota(1 << 40, 1 << 30)
        await host.until(lambda: host.disk.holds[SHOPS] == PLAN)
        await host.settled()
        assert host.keeper.drift == 1
        assert host.measured("relevo_caps_drift_total") == ["relevo_caps_drift_total 1.0"]
        host.follow(world({SHOP: tenant("shop", plan="large"), NEWS: tenant("news")}))
        await host.until(lambda: host.disk.holds[SHOPS] == quota_of(LARGE))
        assert host.keeper.drift == 1


async def test_the_last_site_of_a_host_leaves_nothing_behind(tmp_path: Path) -> None:
    """Its file system is asked although no site is on it any more; then nobody asks."""
    async with keeping(tmp_path) as host:
        host.follow(world({SHOP: tenant("shop")}))
        await host.until(lambda: host.disk.holds.get(SHOPS) == PLAN)
        host.follow(world({}, removed=(SHOP,)))
        await host.until(lambda: host.disk.holds[SHOPS] == NO_QUOTA)
        await asyncio.sleep(0.05)
        talks = host.disk.talks
        await asyncio.sleep(0.05)
        assert host.disk.talks == talks


async def test_a_restart_forgets_nobody_who_is_to_be_let_go(tmp_path: Path) -> None:
    """A host without sites has nothing to look for, and still knows whom it holds."""
    disk = Disk()
    async with keeping(tmp_path, disk) as host:
        host.follow(world({SHOP: tenant("shop")}))
        await host.until(lambda: disk.holds.get(SHOPS) == PLAN)
    async with keeping(tmp_path, disk) as host:
        host.keeper.follow(world({}, removed=(SHOP,)).orders)
        await host.until(lambda: disk.holds[SHOPS] == NO_QUOTA)


async def test_a_host_is_read_as_its_files_say(tmp_path: Path) -> None:
    """Who may own a site, where their files are, and where something was held before."""
    of = world({SHOP: tenant("shop"), NEWS: tenant("news")})
    found = await Files(made_up_host(tmp_path)).look(of.orders, of.attached, 7.0, {"/data"})
    assert found.people.keys() == {"shop", "news", "blog"}, "root is nobody's site"
    assert {str(path): mount.place for path, mount in found.mounts.items()} == {
        "/srv/shop": "/srv",
        "/home/news": "/",
        "/data": "/data",
    }
    (tmp_path / "etc/passwd").unlink()
    with pytest.raises(DriverError, match="passwd"):
        await Files(tmp_path).look(of.orders, of.attached, 7.0)


async def test_a_date_turns_quotas_on(tmp_path: Path) -> None:
    """Without anybody's word at that moment."""
    async with keeping(tmp_path, every_s=60.0) as host:
        host.follow(world({SHOP: tenant("shop", since=100.1)}))
        await host.until(host.keeper.state)
        assert host.disk.set == []
        host.now = 101.0
        await host.until(lambda: host.disk.holds.get(SHOPS) == PLAN)


async def test_who_keeps_too_much_comes_down_as_it_shrinks(tmp_path: Path) -> None:
    """Over a restart too: what it was held at is remembered."""
    disk = Disk(keeps={SHOPS: 15 * GB})
    of = world({SHOP: tenant("shop")})
    async with keeping(tmp_path, disk) as host:
        host.follow(of)
        await host.until(lambda: disk.holds.get(SHOPS))
        first = disk.holds[SHOPS].disk_hard_bytes or 0
        assert 15 * GB < first < 16 * GB
        disk.keeps[SHOPS] = first - (1 << 20)
        await host.settled()
        assert disk.holds[SHOPS].disk_hard_bytes == first, "nobody's limit runs away before it"
    disk.keeps[SHOPS] = 12 * GB
    async with keeping(tmp_path, disk) as host:
        host.follow(of)
        await host.until(lambda: (disk.holds[SHOPS].disk_hard_bytes or 0) < 13 * GB)
        disk.keeps[SHOPS] = 3 * GB
        await host.until(lambda: disk.holds[SHOPS] == PLAN)
        assert host.keeper.drift == 0


async def test_what_is_refused_is_said_and_the_others_are_held(tmp_path: Path) -> None:
    """Counted each time; once it is taken nothing is said any more."""
    async with keeping(tmp_path, Disk(refuses=frozenset({SHOPS}))) as host:
        host.follow(BOTH)
        await host.until(lambda: host.keeper.lacks)
        (why,) = host.keeper.lacks
        assert (why.code, why.values["users"]) == ("unable-quotas-refused", 1)
        assert explain(why).endswith("of uid 1001 on /srv: Operation not permitted")
        assert host.disk.holds == {NEWSS: quota_of(LARGE)}
        assert host.keeper.state()[SHOP].held == NO_QUOTA, "what is held is what the kernel says"
        host.disk.refuses = frozenset()
        await host.until(lambda: host.disk.holds.get(SHOPS) == PLAN and not host.keeper.lacks)


async def test_what_fails_is_tried_again(tmp_path: Path) -> None:
    """The others of this host go on meanwhile, and what was told stays told."""
    async with keeping(tmp_path, Disk(broken="quotas: no answer within 30 s")) as host:
        host.follow(BOTH)
        await host.until(lambda: host.disk.talks > 3)
        assert host.keeper.lacks == (Why("unable-quota", {"error": host.disk.broken}),)
        assert host.measured("relevo_caps_failures_total") != ["relevo_caps_failures_total 0.0"]
        host.disk.broken = ""
        await host.until(lambda: host.disk.holds.get(SHOPS) == PLAN)


@pytest.mark.parametrize("state", ["off", "counted"])
async def test_a_file_system_without_quotas_is_named_with_its_remedy(
    tmp_path: Path, state: str
) -> None:
    """Once, and nothing is set; what it counts is told."""
    async with keeping(tmp_path, Disk(state=state)) as host:
        host.follow(BOTH)
        await host.until(lambda: host.keeper.lacks)
        (why,) = host.keeper.lacks
        for language, word in (("en", "Add usrquota"), ("es", "Añada usrquota")):
            said = explain(why, language)
            assert "/srv (ext4)" in said and word in said
        await host.settled()
        assert host.disk.set == []
        use = host.keeper.state()[SHOP]
        assert use.wanted is None and use.held is None
        assert (use.used_bytes is not None) == (state == "counted")


async def test_an_agent_that_may_not_says_so_where_there_is_somebody_to_hold(
    tmp_path: Path,
) -> None:
    """Of sites without users of their own there is nothing to be sorry for."""
    exporter = Exporter(AGENT)
    keeper = QuotaKeeper(
        None,
        MadeUp(),
        unable=NOBODY,
        state=tmp_path / "quota.json",
        exporter=exporter,
        every_s=0.01,
        soonest_s=0.001,
    )
    host = Host(Disk(), keeper, exporter)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.keep())
        host.follow(world({SHOP: tenant("shop")}))
        await host.until(lambda: keeper.lacks == (NOBODY,))
        host.follow(world({SHOP: tenant()}))
        await host.until(lambda: keeper.lacks == ())
        task.cancel()


async def test_a_spoilt_memory_takes_nothing_away(tmp_path: Path) -> None:
    """What was set before stays, and what is ordered is set all the same."""
    (tmp_path / "quota.json").write_text('{"/srv": {"one": 1}}')
    async with keeping(tmp_path, Disk(holds={77: PLAN})) as host:
        host.follow(world({SHOP: tenant("shop")}))
        await host.until(lambda: host.disk.holds.get(SHOPS) == PLAN)
        assert host.disk.holds[77] == PLAN
        assert msgspec.json.decode((tmp_path / "quota.json").read_bytes()).keys() == {"/srv"}
