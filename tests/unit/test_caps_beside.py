"""Many sites: what is worked out of all of them is beside the loop, in turn, and the same as of a few."""

import asyncio
import os
import sys
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from agent import caps
from agent.caps import cgroupfs, egress
from agent.caps import keeper as keeping
from agent.caps.cgroupfs import CgroupFs
from agent.caps.coming import AT_ONCE
from agent.caps.driver import EVERY
from agent.caps.egress import Nft, Rules
from agent.caps.keeper import BIG
from agent.caps.limits import FREE, HostFacts
from agent.caps.telling import Kept
from agent.caps.wants import World, shares
from agent.hosting import Helds
from agent.layout.attached import Attached
from agent.ports import DriverError
from agent.usage.report import Held
from fleet.caps import Held as Armed
from fleet.caps import Level, Limits, Override, Tenant
from fleet.messages import Orders
from fleet.model import Caps, Epoch, HostId, Note, PlanId, SiteId, Why
from fleet.quota import DiskUse
from runtime.pulse import Pulse
from tests.unit.test_caps_keeper import (
    BOTH,
    NEWS,
    ONE,
    SHOP,
    TWO,
    Kernel,
    attached,
    changed,
    keeping_house,
    orders,
    penalty_of,
)
from tests.unit.test_caps_limits import GB, STANDARD

MANY = tuple(SiteId(f"s{n}") for n in range(BIG + 50))
# What these say is of all sites together; the keeper's own lines are of one slice after another.
WHOLE = {
    str(Path(caps.__file__).with_name(f"{name}.py"))
    for name in ("reckon", "wants", "outward", "telling", "limits", "egress")
}


def slices() -> dict[SiteId, str]:
    return {site: f"{site}.slice" for site in MANY}


def everybody() -> dict[SiteId, Attached]:
    return {site: attached(slice) for site, slice in slices().items()}


def ordered() -> Orders:
    tenant = Tenant(plan=PlanId("standard"), enforced_from=0.0)
    return changed(orders(), tenants=dict.fromkeys(MANY, tenant))


@contextmanager
def watched() -> Iterator[set[str]]:
    """Which functions of WHOLE this thread enters."""
    seen: set[str] = set()

    def enters(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename in WHOLE:
            seen.add(frame.f_code.co_name)

    sys.setprofile(enters)
    try:
        yield seen
    finally:
        sys.setprofile(None)


async def test_what_is_worked_out_of_many_sites_holds_up_no_beat(tmp_path: Path) -> None:
    """From orders to what is told, and through a penalty, the loop's own thread enters none of it."""
    kernel = Kernel(Pulse(), there=set(slices().values()))
    async with keeping_house(tmp_path, kernel=kernel) as host:
        with watched() as seen:
            host.keeper.attach(everybody())
            host.keeper.follow(ordered())
            await host.until(lambda: host.keeper.state().keys() == set(MANY))
            host.keeper.penalize((penalty_of(MANY[3], Level.SOFT),))
            await host.until(lambda: host.held(f"{MANY[3]}.slice").cpu_weight == 20)
            other = f"{MANY[4]}.slice"
            host.kernel.holds[other] = changed(host.held(other), tasks_max=7)
            host.kernel.reloaded.beat()
            await host.until(lambda: host.keeper.drift == 1)
        assert seen == set()


async def test_what_is_worked_out_of_a_few_needs_no_thread(tmp_path: Path) -> None:
    """The other side of the same measure: it sees what the loop enters."""
    async with keeping_house(tmp_path) as host:
        with watched() as seen:
            host.keeper.attach(BOTH)
            host.keeper.follow(orders())
            await host.until(lambda: host.keeper.state().keys() == {SHOP, NEWS})
        assert {"reckon", "shares", "accounts", "tell"} <= seen


class Slow(dict[SiteId, Attached]):
    """What was found of sites, which a thread reads no further than this until `end`."""

    def __init__(self, found: Mapping[SiteId, Attached]) -> None:
        super().__init__(found)
        self.begun, self.end = threading.Event(), threading.Event()

    def get(self, site: SiteId, default: Attached | None = None) -> Attached | None:  # type: ignore[override]
        self.begun.set()
        assert self.end.wait(5)
        return super().get(site, default)


async def test_what_arrives_while_it_reckons_is_what_holds_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older word may be held first, and never again after the newer one; the firewall's too."""
    monkeypatch.setattr(keeping, "BIG", 0)
    async with keeping_house(tmp_path) as host:
        slow = Slow(BOTH)
        host.keeper.attach(slow)
        host.keeper.follow(orders())
        try:
            await host.until(slow.begun.is_set)
            host.keeper.penalize((penalty_of(SHOP, Level.ISOLATE),))
            host.keeper.follow(
                orders(shop=Tenant(plan=PlanId("standard"), users=("shop",), enforced_from=0.0))
            )
            assert host.keeper.state() == {} and not host.keeper.looked
        finally:
            slow.end.set()
        await host.until(lambda: host.held().egress_closed)
        await host.settled()
        closed = [limits.egress_closed for name, limits in host.kernel.applied if name == ONE]
        assert closed == sorted(closed) and closed[-1], "once closed it stays so"
        alone = [rules.isolated for rules in host.wall.rules]
        assert alone[-1] == {1001} and alone.count(frozenset({1001})) == 1
        assert host.keeper.state()[SHOP].held == host.held()


@dataclass
class Busy(Kernel):
    """Takes a moment for each slice, and counts how many it has at once."""

    at_once: int = 0
    most: int = 0

    async def apply(
        self, slice: str, limits: Limits, fields: Collection[str] = EVERY
    ) -> tuple[Why, ...]:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        return await super().apply(slice, limits, fields)


async def test_a_few_at_a_time_are_applied_and_one_that_fails_ends_none_of_them(
    tmp_path: Path,
) -> None:
    """Each once, and no task for each: a thousand of those would begin in one turn of the loop."""
    kernel = Busy(Pulse(), there=set(slices().values()), broken=f"{MANY[3]}.slice")
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(everybody())
        host.keeper.follow(ordered())
        await host.until(lambda: kernel.most)
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
        assert names.count("Keeper._apply") <= AT_ONCE
        await host.until(lambda: len(host.keeper.state()) == len(MANY))
        assert kernel.most == AT_ONCE
        assert {name for name, _ in kernel.applied} == kernel.there - {kernel.broken}
        assert len(kernel.applied) == len(MANY) - 1
        assert host.keeper.state()[MANY[3]].short


SMALL: Caps = changed(STANDARD, cpu_percent=50, tasks=30)
NOTE = Note(owner="ana", reason="campaign", since=0, until=200)
MIXED = {
    SiteId(f"{name}{n}"): tenant
    for n in range(3)
    for name, tenant in {
        "standard": Tenant(plan=PlanId("standard"), enforced_from=0.0),
        "small": Tenant(plan=PlanId("small"), enforced_from=0.0),
        "shadow": Tenant(plan=PlanId("small")),
        "armed": Tenant(
            plan=PlanId("small"), enforced_from=0.0, held=(Armed(since=1.0, caps={"tasks": 40}),)
        ),
        "more": Tenant(
            plan=PlanId("small"),
            enforced_from=0.0,
            override=Override(caps={"tasks": 30 + n}, note=NOTE),
        ),
    }.items()
}


def world(tenants: Mapping[SiteId, Tenant]) -> World:
    penalized = (penalty_of(SiteId("small1"), Level.CAP), penalty_of(SiteId("shadow2"), Level.CAP))
    return World(
        orders=Orders(
            epoch=Epoch(1, 1),
            cluster="c",
            host=HostId("h1"),
            plans={PlanId("standard"): STANDARD, PlanId("small"): SMALL},
            tenants=dict(tenants),
        ),
        attached={site: attached(f"{site}.slice") for site in tenants},
        people={},
        penalties=penalized,
        facts=HostFacts(cores=16, has_swap=True, memory_total_bytes=64 * GB, devices=("8:0",)),
        now=100.0,
    )


@pytest.mark.parametrize("site", MIXED)
def test_a_site_among_others_of_its_plan_holds_what_it_would_alone(site: SiteId) -> None:
    """What is reckoned once for all that are alike leaves out what makes one different, and its reason."""
    name = f"{site}.slice"
    among, alone = shares(world(MIXED))[name], shares(world({site: MIXED[site]}))[name]
    assert among == alone


def test_what_is_held_is_told_of_each_site_that_has_something() -> None:
    """In a slice, on a disk, or both; of nobody else."""
    kept = Kept(slice=ONE, short=(Why("x"),))
    disk = DiskUse(used_bytes=7)
    club = SiteId("club")
    helds = Helds({SHOP: kept, NEWS: Kept(slice=TWO)}, {SHOP: disk, club: disk})
    assert helds[SHOP] == Held(slice=ONE, short=(Why("x"),), disk=disk)
    assert helds[club] == Held(disk=disk) and helds[NEWS].disk is None
    assert set(helds) == {SHOP, NEWS, club} and len(helds) == 3
    assert helds.get(SiteId("nobody")) is None


async def test_slices_that_come_and_go_are_noticed_wherever_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the top and inside others; what else is in a slice, or named like one, is none."""
    monkeypatch.setattr(cgroupfs, "LOOK_AGAIN_S", 0.005)
    monkeypatch.setattr(cgroupfs, "LOOK_AGAIN_LATEST_S", 0.01)
    for name in ("a.slice", "user.slice/user-1.slice", "user.slice/user-2.slice/x.service"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a.slice/cpu.weight").touch()
    pulse = Pulse()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        task = group.create_task(CgroupFs(tmp_path, pulse).keep())
        count = await pulse.after(0)
        (tmp_path / "user.slice/user-2.slice/user-2-b.slice").mkdir()
        count = await pulse.after(count)
        (tmp_path / "user.slice/user-1.slice").rmdir()
        count = await pulse.after(count)
        (tmp_path / "a.slice/a-b.slice").mkdir()
        count = await pulse.after(count)
        (tmp_path / "no.slice").touch()
        (tmp_path / "a.slice/a-c.service").mkdir()
        await asyncio.sleep(0.05)
        assert pulse.count == count
        task.cancel()


def nft(folder: Path, *lines: str) -> Path:
    """A program in its place."""
    path = folder / "nft"
    path.write_text("\n".join(("#!/bin/sh", *lines)))
    path.chmod(0o700)
    return path


async def test_the_firewalls_command_is_begun_by_a_thread(tmp_path: Path) -> None:
    """A loop that forks stands still for as long as that takes; what it says arrives all the same."""
    path = nft(tmp_path, 'case "$1" in -f) cp "$2" "$0.held" ;; *) cat "$0.held" ;; esac')
    wall = Nft(tmp_path / "rules", str(path))
    with watched() as seen:
        assert not await wall.hold(Rules(sites=frozenset({1001})))
        assert "skuid" in (tmp_path / "nft.held").read_text()
        assert not await wall.hold(Rules(sites=frozenset({1001})))
        (tmp_path / "nft.held").write_text("flushed")
        assert await wall.hold(Rules(sites=frozenset({1001}))), "somebody else changed it"
    assert "hold" in seen and "_say" not in seen


async def test_a_firewalls_command_that_hangs_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next one has its turn."""
    monkeypatch.setattr(egress, "RUN_S", 0.1)
    path = nft(tmp_path, "echo $$ >> $0.pids", "exec sleep 60")
    wall = Nft(tmp_path / "rules", str(path))
    for _ in range(2):
        with pytest.raises(DriverError, match=r"no answer within 0\.1 s"):
            await wall.hold(Rules(sites=frozenset({1001})))
    for pid in map(int, (tmp_path / "nft.pids").read_text().split()):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class Writers(CgroupFs):
    """Notes which threads write."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, Pulse())
        self.threads: set[int] = set()

    def _apply(
        self, slice: str, limits: Limits, fields: Collection[str], at: float
    ) -> tuple[Why, ...]:
        self.threads.add(threading.get_native_id())
        return super()._apply(slice, limits, fields, at)


async def test_slice_after_slice_is_written_by_the_same_thread(tmp_path: Path) -> None:
    """To begin one for each of a thousand would hold up the loop."""
    (tmp_path / "cgroup.controllers").touch()
    driver = Writers(tmp_path)
    for slice in slices().values():
        await driver.apply(slice, FREE)
    assert len(driver.threads) == 1 and threading.get_native_id() not in driver.threads
    assert (await driver.held(slices().values())).keys() == set(slices().values())
