"""The keeper against a kernel in memory: what should be held is, drift is repaired, shadow holds nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Never

import msgspec
import pytest

from agent.caps import keeper as keeping
from agent.caps import stops as stopping
from agent.caps.driver import EVERY
from agent.caps.egress import Rules
from agent.caps.keeper import Find, Keeper
from agent.caps.kernel import jobs, only, services
from agent.caps.limits import FREE, HostFacts
from agent.caps.linger import is_manager
from agent.caps.telling import Kept
from agent.layout.attached import Attached
from agent.ports import DriverError
from fleet.caps import Attachment, Level, Limits, Override, Penalty, Resource, Tenant
from fleet.messages import Orders
from fleet.model import Caps, Epoch, HostId, Note, PlanId, SiteId, Why
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime.pulse import Pulse
from tests.unit.test_caps_limits import GB, MB, STANDARD, penalty

SHOP, NEWS = SiteId("shop"), SiteId("news")
ONE, TWO = "user-1001.slice", "user-1002.slice"
UNIT, DOOR = "php@shop.service", "php@shop.socket"
PEOPLE = {"shop": 1001, "news": 1002, "ana": 1003}
changed = msgspec.structs.replace


@dataclass
class Kernel:
    """A driver whose slices are in memory. `there`: those that are up; `runs`: their units; `kills`: how one ends.

    `own`: what slices hold by themselves once they come.
    """

    reloaded: Pulse
    there: set[str] = field(default_factory=lambda: {ONE, TWO})
    holds: dict[str, Limits] = field(default_factory=dict)
    own: dict[str, Limits] = field(default_factory=dict)
    applied: list[tuple[str, Limits]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    lacks: frozenset[str] = frozenset()
    reachable: tuple[str, ...] = ()
    steps: int = 0
    broken: str = ""
    jobs: dict[str, tuple[str, ...]] = field(default_factory=dict)
    runs: dict[str, tuple[str, ...]] = field(default_factory=lambda: {ONE: (UNIT,)})
    kills: Callable[[], Awaitable[object]] | None = None
    lingers: set[str] = field(default_factory=set)
    visits: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    stuck: str = ""
    name: str = "memory"

    async def keep(self) -> Never:
        await asyncio.Event().wait()
        raise AssertionError

    def reach(self, addresses: Collection[str]) -> bool:
        before, self.reachable = self.reachable, tuple(addresses)
        return self.reachable != before

    async def apply(
        self, slice: str, limits: Limits, fields: Collection[str] = EVERY
    ) -> tuple[Why, ...]:
        if self.broken == slice:
            raise DriverError("refused")
        self.applied.append((slice, limits))
        if self.steps:
            self.steps -= 1
            return (Why("cap-in-steps", {"limit": "memory.high"}),)
        told = only(limits, fields, self.holds.get(slice, self.own.get(slice, FREE)))
        self.holds[slice] = changed(told, **{name: getattr(FREE, name) for name in self.lacks})
        return ()

    async def held(self, slices: Collection[str]) -> Mapping[str, Limits]:
        there = {s: self.holds.get(s, FREE) for s in slices if s in self.there}
        # A kernel that has the file shows its default where nobody speaks of it.
        return {s: changed(held, io_weight=held.io_weight or 100) for s, held in there.items()}

    async def by_itself(self, slice: str) -> Limits:
        if self.broken == slice:
            raise DriverError("refused")
        return self.own.get(slice, FREE)

    async def units(self, slice: str) -> tuple[str, ...]:
        runs = self.runs.get(slice, ())
        return tuple(unit for unit in runs if unit in self.lingers or not is_manager(unit))

    async def visited(self, slice: str) -> bool:
        return slice in self.visits

    async def kill(self, slice: str, units: Collection[str]) -> None:
        self.runs[slice] = ()  # what was told to stop is not seen any more
        if self.kills is not None:
            await self.kills()
        self.events.append(f"kill {slice}")

    async def end_jobs(self, slice: str) -> tuple[str, ...]:
        if self.stuck:
            raise DriverError(self.stuck)
        ended = self.jobs.pop(slice, ())
        self.events += [f"end {job}" for job in ended]
        return ended

    async def start(self, units: Collection[str]) -> Mapping[str, str]:
        started = [unit for unit in units if unit not in self.refused]
        if started:
            self.events.append(f"start {' '.join(started)}")
        return {unit: self.refused[unit] for unit in units if unit in self.refused}


@dataclass
class Wall:
    """A firewall that remembers."""

    rules: list[Rules] = field(default_factory=list)
    missing: str = ""
    waits: Callable[[], Awaitable[object]] | None = None

    async def hold(self, rules: Rules) -> bool:
        if self.waits is not None:
            await self.waits()
        if self.missing:
            raise DriverError(self.missing)
        if self.rules[-1:] != [rules]:
            self.rules.append(rules)
        return False


def attached(slice: str | None, *uids: int) -> Attached:
    kind = Attachment.SLICE if slice else Attachment.POOL
    return Attached(attachment=kind, why=Why("x"), slice=slice, uids=uids)


def orders(enforced_from: float | None = 0.0, **tenants: Tenant) -> Orders:
    found = {SiteId(name): tenant for name, tenant in tenants.items()}
    both = {
        site: Tenant(plan=PlanId("standard"), users=(site,), enforced_from=enforced_from)
        for site in (SHOP, NEWS)
    }
    return Orders(
        epoch=Epoch(1, 1),
        cluster="c",
        host=HostId("h1"),
        plans={PlanId("standard"): STANDARD},
        tenants=found or both,
    )


@dataclass
class Host:
    path: Path
    kernel: Kernel
    wall: Wall
    keeper: Keeper
    now: float = 100.0
    servers: Rules = field(default_factory=Rules)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Let it look a few times more."""
        await asyncio.sleep(0.1)

    def held(self, slice: str = ONE) -> Limits:
        return self.kernel.holds.get(slice, FREE)


FACTS = HostFacts(cores=16, has_swap=True, memory_total_bytes=64 * GB, devices=("8:0",))


@asynccontextmanager
async def keeping_house(
    path: Path,
    *,
    kernel: Kernel | None = None,
    driver: bool = True,
    verify_s: float = 0.03,
    now: float = 100.0,
    facts: HostFacts | None = None,
    find: Find | None = None,
    boot: str = "first",
) -> AsyncIterator[Host]:
    pulse = Pulse()
    kernel = kernel or Kernel(pulse)
    kernel.reloaded = pulse
    wall = Wall()
    keeper = Keeper(
        kernel if driver else None,
        wall,
        unable=None if driver else Why("unable-controllers"),
        people=lambda: PEOPLE,
        facts=lambda: facts or FACTS,
        find=find,
        state=path / "caps.json",
        servers=lambda: host.servers,
        exporter=Exporter(AGENT),
        changed=pulse,
        wall=lambda: host.now,
        verify_s=verify_s,
        boot=boot,
    )
    host = Host(path, kernel, wall, keeper, now)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(keeper.keep())
        yield host
        task.cancel()
    # A process has ended once its threads have: what this one still writes must not come after the next one's.
    await host.until(lambda: not keeper._memory._disk.hangs)


BOTH = {SHOP: attached(ONE, 1001), NEWS: attached(TWO, 1002)}
PLAN = 1_500_000  # the quota of Standard


async def test_sites_in_force_hold_their_plan(tmp_path: Path) -> None:
    """Each slice its own, verified with the kernel, and told with reasons; who may send mail is told by user."""
    async with keeping_house(tmp_path) as host:
        host.keeper.follow(orders())
        await host.settled()
        assert host.kernel.applied == [], "not before it is known where they are"
        host.keeper.attach(BOTH)
        await host.until(lambda: host.keeper.state().keys() == {SHOP, NEWS})
        kept = host.keeper.state()[SHOP]
        assert (kept.slice, kept.held, kept.short) == (ONE, kept.wanted, ()) and host.keeper.looked
        assert kept.held is not None and kept.held.cpu_quota_us == PLAN
        assert kept.because["cpu_quota_us"] == Why("cap-plan")
        assert host.wall.rules == [Rules(sites=frozenset({1001, 1002}))]
        await host.settled()
        assert len(host.kernel.applied) == 2, "what holds is let be"
        assert host.keeper.drift == 0


async def test_where_nothing_of_io_is_held_it_is_told(tmp_path: Path) -> None:
    """A site on a network's disk among others: of it alone; of a site in shadow nothing is held anyway."""
    away = Why("cap-no-disk", {"mount": "/home", "kind": "nfs4"})
    facts = replace(FACTS, diskless={SHOP: away})
    async with keeping_house(tmp_path, facts=facts) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.keeper.state().keys() == {SHOP, NEWS})
        kept = host.keeper.state()
        assert (kept[SHOP].short, kept[NEWS].short) == ((away,), ())
        host.keeper.follow(orders(None))
        await host.until(lambda: not any(one.short for one in host.keeper.state().values()))


UNSEEN = Why("cap-disks-unseen", {"error": "no /proc/1"})


@pytest.mark.parametrize(
    ("controllers", "short", "code"),
    [
        (FACTS.controllers, (UNSEEN,), UNSEEN.code),
        (FACTS.controllers - {"io"}, (), "cap-no-controller"),
    ],
)
async def test_without_any_disk_every_site_is_told_so(
    tmp_path: Path, controllers: frozenset[str], short: tuple[Why, ...], code: str
) -> None:
    """In the place of "as the plan says"; where the kernel has no such controller, that is what is said."""
    facts = replace(FACTS, devices=(), no_disk=UNSEEN, controllers=controllers)
    async with keeping_house(tmp_path, facts=facts) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.keeper.state().keys() == {SHOP, NEWS})
        for kept in host.keeper.state().values():
            assert (kept.short, kept.because["io"].code) == (short, code)


async def test_where_sites_are_is_looked_for_before_the_host_is_read(tmp_path: Path) -> None:
    """With what is ordered and attached now."""
    seen: list[object] = []

    async def find(orders: Orders, attached: Mapping[SiteId, Attached]) -> None:
        seen.append((orders.tenants.keys(), attached))

    async with keeping_house(tmp_path, find=find) as host:
        host.keeper.follow(orders())
        host.keeper.attach(BOTH)
        await host.until(host.keeper.state)
        assert seen[-1] == ({SHOP, NEWS}, BOTH)


@pytest.mark.parametrize("restarts", [False, True])
async def test_the_weight_of_io_of_a_penalty_ends_with_it(tmp_path: Path, restarts: bool) -> None:
    """In shadow too, where no plan puts another in its place: the kernel's default is set back. Then it is nobody's."""
    facts = replace(FACTS, has_io_weight=True)
    soft = penalty_of(SHOP, Level.SOFT)
    async with keeping_house(tmp_path, facts=facts) as host:
        kernel, keeper = host.kernel, host.keeper
        keeper.attach(BOTH)
        keeper.follow(orders(None))
        keeper.penalize((soft,))
        await host.until(lambda: host.held().io_weight == 20)
        await host.until(lambda: keeper.state()[SHOP].held == keeper.state()[SHOP].wanted)
        assert keeper.state().keys() == {SHOP}
        if not restarts:
            keeper.penalize(())
            await host.until(lambda: host.held().io_weight == 100)
    async with keeping_house(tmp_path, facts=facts, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held().io_weight == 100)
        await host.until(lambda: host.keeper.looked and not host.keeper.state())
        assert host.held() == changed(FREE, io_weight=100)
        kernel.holds[ONE] = changed(FREE, io_weight=500)
        await host.settled()
        assert host.held().io_weight == 500, "an admin's own word"


@pytest.mark.parametrize("removed", [False, True])
async def test_a_weight_of_io_ends_where_caps_go_back_to_shadow(
    tmp_path: Path, removed: bool
) -> None:
    """Also of a site that is removed; and where the disks are scheduled otherwise meanwhile."""
    async with keeping_house(tmp_path, facts=replace(FACTS, has_io_weight=True)) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.SOFT),))
        await host.until(lambda: host.held().io_weight == 20)
        kernel = host.kernel
    gone = changed(orders(), tenants={}, removed_sites=(SHOP, NEWS))
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(gone if removed else orders(None))
        await host.until(lambda: host.held() == changed(FREE, io_weight=100))


@pytest.mark.parametrize("enforced_from", [None, 1000.0])
async def test_shadow_holds_nothing_and_lifts_what_was_held(
    tmp_path: Path, enforced_from: float | None
) -> None:
    """Nothing is set for a site in shadow; one that goes back to shadow is free, after a restart in between too."""
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(enforced_from))
        await host.settled()
        assert host.kernel.applied == []
        host.keeper.follow(orders())
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        kernel = host.kernel
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(enforced_from))
        await host.until(lambda: host.held() == FREE and host.held(TWO) == FREE)
        count = len(kernel.applied)
        await host.settled()
        assert len(kernel.applied) == count, "and then it is nobody's business any more"
        kernel.holds[ONE] = changed(FREE, tasks_max=7)
        await host.settled()
        assert host.held().tasks_max == 7, "an admin's own cap is none of ours"
        assert host.wall.rules[-1].sites == frozenset()


async def test_a_date_turns_caps_on(tmp_path: Path) -> None:
    """At its hour, without any new order."""
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(100.5))
        await host.settled()
        assert host.held() == FREE
        host.now = 100.5
        await host.until(lambda: host.held().cpu_quota_us == PLAN)


async def test_drift_is_repaired_and_counted(tmp_path: Path) -> None:
    """After a reload at once; what was ordered is no drift."""
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: SHOP in host.keeper.state())
        host.kernel.holds[ONE] = FREE
        host.kernel.reloaded.beat()
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        await host.until(lambda: host.keeper.drift == 1)
        host.keeper.penalize((penalty_of(SHOP, Level.SOFT),))
        await host.until(lambda: host.held().cpu_weight == 20)
        host.keeper.penalize(())
        await host.until(lambda: host.held().cpu_weight == 100)
        assert host.keeper.drift == 1


def penalty_of(site: SiteId, level: Level, until: float = 200.0) -> Penalty:
    return changed(penalty(level, Resource.CPU), site=site, until=until)


async def test_a_penalty_ends_by_itself_and_touches_nobody_else(tmp_path: Path) -> None:
    """Its end is its own word; one that is not enforced holds nothing."""
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        shadow = changed(penalty_of(NEWS, Level.STOP), enforced=False)
        host.keeper.penalize((penalty_of(SHOP, Level.ISOLATE), shadow))
        await host.until(lambda: host.held().egress_closed)
        assert not host.held(TWO).egress_closed and host.held(TWO).cpu_weight == 100
        assert host.wall.rules[-1].isolated == frozenset({1001})
        host.now = 200.0
        await host.until(lambda: not host.held().egress_closed)
        await host.until(lambda: host.wall.rules[-1].isolated == frozenset())


async def test_a_stopped_site_stands_still_then_ends_and_starts_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen for the evidence, killed, its services kept stopped and remembered through a restart, then started."""
    monkeypatch.setattr(stopping, "FREEZE_S", 0.3)
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.STOP),))
        await host.until(lambda: host.held().frozen)
        assert host.kernel.events == []
        await host.until(lambda: host.kernel.events == [f"kill {ONE}"])
        await host.until(lambda: not host.held().frozen)
        kernel = host.kernel
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.STOP),))
        await host.settled()
        assert kernel.events == [f"kill {ONE}"], "once"
        host.keeper.penalize((penalty_of(SHOP, Level.ISOLATE),))
        await host.until(lambda: kernel.events[1:] == ["start php@shop.service"])
        await host.settled()
        assert len(kernel.events) == 2


async def test_whom_an_isolated_site_may_ask_follows_the_host(tmp_path: Path) -> None:
    """Another resolver is let through by the firewall and by the slice, without a restart; that is no drift."""
    async with keeping_house(tmp_path) as host:
        host.servers = Rules(resolvers=("192.0.2.53",), mail=("192.0.2.25",))
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.ISOLATE),))
        await host.until(lambda: host.held().egress_closed)
        await host.settled()
        assert host.kernel.reachable == ("192.0.2.53", "192.0.2.25")
        before = len(host.kernel.applied)
        host.servers = Rules(resolvers=("198.51.100.53",), mail=("192.0.2.25",))
        await host.until(lambda: len(host.kernel.applied) > before)
        await host.settled()
        assert [name for name, _ in host.kernel.applied[before:]] == [ONE], "once, and no other"
        assert host.kernel.reachable == ("198.51.100.53", "192.0.2.25")
        assert host.wall.rules[-1].resolvers == ("198.51.100.53",)
        assert host.keeper.drift == 0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "FREEZE_S", 0.05)
    monkeypatch.setattr(keeping, "RETRY_S", 0.05)


def stop(host: Host) -> None:
    host.keeper.attach(BOTH)
    host.keeper.follow(orders())
    host.keeper.penalize((penalty_of(SHOP, Level.STOP),))


@pytest.mark.usefixtures("quick")
async def test_adopted_workers_never_stand_still_and_end_as_soon(tmp_path: Path) -> None:
    """One may hold the lock of an opcode cache that its neighbours wait for; another site's slice is frozen as ever."""
    async with keeping_house(tmp_path) as host:
        adopted = replace(attached(ONE, 1001), attachment=Attachment.POOL, adopted=True)
        host.keeper.attach({**BOTH, SHOP: adopted})
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.STOP), penalty_of(NEWS, Level.STOP)))
        await host.until(lambda: len(host.kernel.events) == 2)
        stood = {name for name, limits in host.kernel.applied if limits.frozen}
        assert stood == {TWO}
        assert set(host.kernel.events) == {f"kill {ONE}", f"kill {TWO}"}


@pytest.mark.usefixtures("quick")
async def test_a_kill_that_fails_half_way_forgets_nothing_that_it_stopped(tmp_path: Path) -> None:
    """The second time its units are not seen any more; at the end all of them start."""
    async with keeping_house(tmp_path) as host:
        host.kernel.runs[ONE] = (DOOR, UNIT)

        async def fails() -> None:
            host.kernel.kills = None
            raise DriverError("still has processes")

        host.kernel.kills = fails
        stop(host)
        await host.until(lambda: host.kernel.events == [f"kill {ONE}"])
        await host.until(lambda: not host.held().frozen)
        host.keeper.penalize(())
        await host.until(lambda: host.kernel.events[1:] == [f"start {DOOR} {UNIT}"])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("goes_on", [True, False])
async def test_an_agent_that_dies_while_it_stops_a_site_leaves_word_of_it(
    tmp_path: Path, goes_on: bool
) -> None:
    """The next one stops it to the end, or starts what was stopped where the penalty is over."""
    async with keeping_house(tmp_path) as host:
        kernel = host.kernel
        kernel.kills = asyncio.Event().wait  # for ever
        stop(host)
        await host.until(lambda: not kernel.runs[ONE])
        assert UNIT in (tmp_path / "caps.json").read_text(), "before it is stopped"
    kernel.kills = None
    async with keeping_house(tmp_path, kernel=kernel) as host:
        stop(host)
        if goes_on:
            await host.until(lambda: kernel.events == [f"kill {ONE}"])
        host.keeper.penalize(())
        await host.until(lambda: f"start {UNIT}" in kernel.events)
        await host.until(lambda: host.held().cpu_quota_us == PLAN and not host.held().frozen)


@pytest.mark.usefixtures("quick")
async def test_what_a_boot_starts_again_of_a_stopped_site_is_stopped_anew(tmp_path: Path) -> None:
    """The term of a stop that has not ended holds on whatever started it; what was stopped first starts at its end."""
    async with keeping_house(tmp_path) as host:
        kernel = host.kernel
        kernel.runs[ONE] = (DOOR, UNIT)
        stop(host)
        await host.until(lambda: kernel.events == [f"kill {ONE}"])
    kernel.runs[ONE], kernel.holds = (DOOR, UNIT), {}  # what is enabled starts, before any agent
    async with keeping_house(tmp_path, kernel=kernel) as host:
        stop(host)
        await host.until(lambda: kernel.events == [f"kill {ONE}"] * 2)
        await host.settled()
        assert kernel.events == [f"kill {ONE}"] * 2, "once"
        kernel.runs[ONE] = ("php@other.service",)  # by an upgrade of its package
        await host.until(lambda: kernel.events == [f"kill {ONE}"] * 3)
        kernel.runs[ONE] = ("user@1001.service",)  # its owner looks at what happened
        await host.settled()
        assert kernel.events == [f"kill {ONE}"] * 3
        host.keeper.penalize(())
        await host.until(lambda: kernel.events[3:] == [f"start {DOOR} {UNIT} php@other.service"])


@pytest.mark.usefixtures("quick")
async def test_jobs_of_a_stopped_site_are_ended_and_leave_no_trace(tmp_path: Path) -> None:
    """Cron starts them again and again; they alone are ended, nothing of them is to start, and later they run."""
    async with keeping_house(tmp_path) as host:
        kernel = host.kernel
        stop(host)
        await host.until(lambda: kernel.events == [f"kill {ONE}"])
        kernel.runs[ONE] = ("user@1001.service",)
        for job in ("session-7.scope", "session-8.scope"):
            kernel.jobs = {ONE: (job,), TWO: ("session-1.scope",)}
            await host.until(lambda: ONE not in kernel.jobs)
        assert kernel.events[1:] == ["end session-7.scope", "end session-8.scope"]
        host.keeper.penalize(())
        await host.until(lambda: kernel.events[3:] == [f"start {UNIT}"])
        kernel.jobs = {ONE: ("session-9.scope",)}
        await host.settled()
        assert len(kernel.events) == 4


async def test_jobs_of_an_isolated_site_are_ended_and_its_units_run(tmp_path: Path) -> None:
    """What cron starts is cut short as at a stop, and failing at it is told; what is only capped works on."""
    async with keeping_house(tmp_path) as host:
        kernel = host.kernel
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.ISOLATE), penalty_of(NEWS, Level.CAP)))
        await host.until(lambda: host.held().egress_closed)
        for job in ("session-7.scope", "session-8.scope"):
            kernel.jobs = {ONE: (job,), TWO: ("session-1.scope",)}
            await host.until(lambda: ONE not in kernel.jobs)
        assert kernel.events == ["end session-7.scope", "end session-8.scope"]
        assert (kernel.runs[ONE], kernel.jobs) == ((UNIT,), {TWO: ("session-1.scope",)})
        kernel.stuck = "no answer"
        await host.until(lambda: shorts(host) == refused("no answer"))
        kernel.stuck = ""
        await host.until(lambda: shorts(host) == ())
        host.keeper.penalize(())
        await host.until(lambda: not host.held().egress_closed)
        await host.settled()
        kernel.jobs = {ONE: ("session-9.scope",)}
        await host.settled()
        assert len(kernel.events) == 2


def shorts(host: Host) -> tuple[Why, ...]:
    return host.keeper.state()[SHOP].short


@pytest.mark.usefixtures("quick")
async def test_a_boot_after_the_end_of_a_stop_prolongs_nothing(tmp_path: Path) -> None:
    """Its term over while the host was down, a site that was stopped runs: nothing of it is stopped again."""
    async with keeping_house(tmp_path) as host:
        kernel = host.kernel
        stop(host)
        await host.until(lambda: kernel.events == [f"kill {ONE}"])
    kernel.runs[ONE], kernel.holds = (UNIT,), {}
    async with keeping_house(tmp_path, kernel=kernel, now=86_500.0) as host:
        stop(host)
        await host.until(lambda: kernel.events[1:] == [f"start {UNIT}"])
        await host.settled()
        assert (len(kernel.events), kernel.runs[ONE]) == (2, (UNIT,))
        assert not host.held().frozen


@pytest.mark.usefixtures("quick")
async def test_a_slow_end_of_one_site_delays_no_other(tmp_path: Path) -> None:
    """While it is being stopped a new plan holds, drift is repaired, and what is held is told."""
    async with keeping_house(tmp_path) as host:
        ended = asyncio.Event()
        host.kernel.kills = ended.wait
        stop(host)
        await host.until(lambda: not host.kernel.runs[ONE])
        more = {PlanId("standard"): changed(STANDARD, cpu_percent=300)}
        host.keeper.follow(changed(orders(), plans=more))
        await host.until(lambda: host.keeper.state()[NEWS].held == host.keeper.state()[NEWS].wanted)
        await host.until(lambda: host.held(TWO).cpu_quota_us == 2 * PLAN)
        host.kernel.holds[TWO] = FREE
        await host.until(lambda: host.held(TWO).cpu_quota_us == 2 * PLAN)
        assert host.kernel.events == [], "it was being stopped all the time"
        ended.set()
        await host.until(lambda: host.kernel.events == [f"kill {ONE}"])


@pytest.mark.usefixtures("quick")
async def test_a_unit_that_does_not_start_holds_up_no_other_and_is_asked_again(
    tmp_path: Path,
) -> None:
    """What was refused is said beside its site, and remembered until it starts."""
    async with keeping_house(tmp_path) as host:
        host.kernel.runs[ONE] = (DOOR, UNIT)
        stop(host)
        await host.until(lambda: host.kernel.events == [f"kill {ONE}"])
        host.kernel.refused = {DOOR: "no such address"}
        host.keeper.penalize(())
        await host.until(lambda: host.kernel.events[1:] == [f"start {UNIT}"])
        told = refused(f"{DOOR}: no such address")
        await host.until(lambda: host.keeper.state()[SHOP].short == told)
        kernel = host.kernel
    kernel.refused = {}
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: kernel.events[2:] == [f"start {DOOR}"])
        await host.until(lambda: SHOP in host.keeper.state())
        await host.until(lambda: host.keeper.state()[SHOP].short == ())


async def test_absence_takes_no_cap_away(tmp_path: Path) -> None:
    """R7: a site that nobody speaks of keeps its cap; one that was told to be removed, or lives elsewhere, loses it."""
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held(TWO).cpu_quota_us == PLAN)
        only = orders(shop=Tenant(plan=PlanId("standard"), enforced_from=0.0))
        host.keeper.follow(only)
        host.keeper.attach({SHOP: BOTH[SHOP]})
        host.kernel.holds[TWO] = FREE
        await host.until(lambda: host.held(TWO).cpu_quota_us == PLAN)
        host.keeper.follow(changed(only, removed_sites=(NEWS,)))
        await host.until(lambda: host.held(TWO) == FREE)
        host.keeper.attach({SHOP: attached(None, 1001)})
        await host.until(lambda: host.held() == FREE)
        await host.until(lambda: host.keeper.state()[SHOP] == Kept(short=(Why("mail-open"),)))


async def test_sites_of_one_user_share_a_slice_and_wait_for_each_other(tmp_path: Path) -> None:
    """The roomier plan holds, and nothing before both are in force."""
    big = changed(STANDARD, cpu_percent=300)
    plans = {PlanId("standard"): STANDARD, PlanId("plus"): big}
    one = Tenant(plan=PlanId("standard"), enforced_from=0.0)
    two = Tenant(plan=PlanId("plus"), enforced_from=None)
    async with keeping_house(tmp_path) as host:
        host.keeper.attach({SHOP: attached(ONE), NEWS: attached(ONE)})
        host.keeper.follow(changed(orders(shop=one, news=two), plans=plans))
        await host.settled()
        assert host.held() == FREE
        waits = Why("cap-waits-for", {"slice": ONE, "sites": "news"})
        assert host.keeper.state()[SHOP].short[0] == waits, "it is in force, and not held"
        assert NEWS not in host.keeper.state()
        two = changed(two, enforced_from=0.0)
        host.keeper.follow(changed(orders(shop=one, news=two), plans=plans))
        await host.until(lambda: host.held().cpu_quota_us == 2 * PLAN)
        why = Why("cap-shared", {"sites": 2})
        await host.until(lambda: host.keeper.state()[SHOP].because.get("tasks_max") == why)


async def test_an_override_begins_and_ends(tmp_path: Path) -> None:
    """Between its hours its value holds, with its owner's word as the reason."""
    note = Note(owner="ana", reason="campaign", since=150, until=200)
    more = Override(caps={"cpu_percent": 300}, note=note)
    tenant = Tenant(plan=PlanId("standard"), enforced_from=0.0, override=more)
    async with keeping_house(tmp_path) as host:
        host.keeper.attach({SHOP: BOTH[SHOP]})
        host.keeper.follow(orders(shop=tenant))
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        host.now = 150
        await host.until(lambda: host.held().cpu_quota_us == 2 * PLAN)
        why = Why("cap-override", {"owner": "ana", "reason": "campaign"})
        await host.until(lambda: host.keeper.state()[SHOP].because["cpu_quota_us"] == why)
        host.now = 200
        await host.until(lambda: host.held().cpu_quota_us == PLAN)


def refused(error: str) -> tuple[Why, ...]:
    return (Why("cap-refused", {"error": error}),)


async def test_one_slice_that_fails_holds_up_no_other(tmp_path: Path) -> None:
    """What was refused is said beside its site, tried again, and mends."""
    async with keeping_house(tmp_path) as host:
        host.kernel.broken = ONE
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held(TWO).cpu_quota_us == PLAN)
        await host.until(lambda: SHOP in host.keeper.state())
        await host.until(lambda: host.keeper.state()[SHOP].short == refused("refused"))
        host.kernel.broken = ""
        host.kernel.reloaded.beat()
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        await host.until(lambda: host.keeper.state()[SHOP].short == ())


async def test_what_this_kernel_does_not_know_is_said_and_is_no_drift(tmp_path: Path) -> None:
    """Asked for again and again it stays a shortfall; nobody has changed anything."""
    async with keeping_house(tmp_path) as host:
        host.kernel.lacks = frozenset({"swap_max_bytes"})
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: SHOP in host.keeper.state())
        await host.settled()
        assert host.keeper.state()[SHOP].short == (Why("cap-not-held", {"caps": "swap_max_bytes"}),)
        assert host.keeper.drift == 0


async def test_without_a_driver_it_still_tells_what_should_be(tmp_path: Path) -> None:
    """And says why nothing is held."""
    async with keeping_house(tmp_path, driver=False) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: SHOP in host.keeper.state())
        kept: Kept = host.keeper.state()[SHOP]
        assert kept.wanted is not None and kept.wanted.cpu_quota_us == PLAN and kept.held is None
        assert (host.keeper.driver, host.keeper.lacks) == ("", (Why("unable-controllers"),))


async def test_a_memory_of_caps_that_cannot_be_read_takes_nothing_away(tmp_path: Path) -> None:
    """What is on the slices stays there until orders say otherwise."""
    (tmp_path / "caps.json").write_text("{")
    kernel = Kernel(Pulse(), holds={ONE: changed(FREE, tasks_max=7)})
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        await host.settled()
        assert host.held().tasks_max == 7


async def test_what_is_promised_to_all_is_what_the_host_can_keep(tmp_path: Path) -> None:
    """Protected memory of all sites in force together is a quarter of the host's at most."""
    lots: Caps = changed(STANDARD, memory_low_bytes=16 * GB, memory_max_bytes=32 * GB)
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(changed(orders(), plans={PlanId("standard"): lots}))
        await host.until(lambda: host.held(TWO).memory_low_bytes == 8 * GB)
        await host.until(lambda: SHOP in host.keeper.state())
        assert host.keeper.state()[SHOP].because["memory_low_bytes"].code == "cap-low-shared"


async def test_it_looks_again_when_something_ends_or_is_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A penalty's end and the next step of memory are not left to the half-minute's look."""
    monkeypatch.setattr(keeping, "STEP_S", 0.1)
    async with keeping_house(tmp_path, verify_s=600) as host:
        host.kernel.steps = 2
        host.keeper.attach({SHOP: BOTH[SHOP]})
        host.keeper.follow(orders(shop=Tenant(plan=PlanId("standard"), enforced_from=0.0)))
        await host.until(lambda: SHOP in host.keeper.state())
        assert host.keeper.state()[SHOP].short[0].values == {"limit": "memory.high"}
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        host.keeper.penalize((penalty_of(SHOP, Level.SOFT, until=100.2),))
        await host.until(lambda: host.held().cpu_weight == 20)
        host.now = 100.2
        await host.until(lambda: host.held().cpu_weight == 100)


async def test_sessions_beside_a_site_are_held_once_they_are_there(tmp_path: Path) -> None:
    """A site in a slice of its own, and one in a shared pool: their users' slices have the plan, with fewer tasks."""
    own = "site-shop.slice"
    async with keeping_house(tmp_path) as host:
        host.kernel.there = {own}
        host.keeper.attach({SHOP: attached(own, 1001), NEWS: attached(None, 1002)})
        host.keeper.follow(orders())
        await host.until(lambda: host.held(own).tasks_max == STANDARD.tasks)
        await host.settled()
        assert host.kernel.holds.keys() == {own}, "most users never log in"
        host.kernel.there |= {ONE, TWO}
        host.kernel.reloaded.beat()
        await host.until(lambda: host.held(TWO).tasks_max == STANDARD.background_tasks)
        await host.until(
            lambda: (
                all(one.held for kept in host.keeper.state().values() for one in kept.beside)
                and all(kept.beside for kept in host.keeper.state().values())
            )
        )
        assert host.held(ONE).cpu_quota_us == PLAN
        for site, slice in ((SHOP, ONE), (NEWS, TWO)):
            kept = host.keeper.state()[site]
            assert kept.slice == (own if site == SHOP else "")
            assert [(one.slice, one.wanted, one.held) for one in kept.beside] == [
                (slice, host.held(slice), host.held(slice))
            ], "what is beside a site is told as that"
        host.kernel.there = {own}
        count = len(host.kernel.applied)
        await host.settled()
        assert len(host.kernel.applied) == count, (
            "who logs out is not lifted: the next login finds it held"
        )
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held(ONE) == FREE and host.held(TWO) == FREE)


async def test_a_user_of_several_sites_sends_no_mail_and_is_shut_in_by_none(tmp_path: Path) -> None:
    """Port 25 is closed to every site's users; what a shared user sends is not one site's to pay for."""
    shared = Tenant(plan=PlanId("standard"), users=("ana", "www-data"), enforced_from=0.0)
    async with keeping_house(tmp_path) as host:
        host.keeper.attach({SHOP: attached(None), NEWS: attached(None)})
        host.keeper.follow(orders(shop=shared, news=shared))
        host.keeper.penalize((penalty_of(SHOP, Level.ISOLATE),))
        await host.until(lambda: host.wall.rules == [Rules(sites=frozenset({1003}))])


async def test_what_a_person_holds_in_shadow_is_held_alone_and_lifted_at_its_end(
    tmp_path: Path,
) -> None:
    """The penalty and nothing of the plan; then the slice is free, and nobody's business any more."""
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        host.keeper.penalize((penalty_of(SHOP, Level.ISOLATE),))
        only = changed(FREE, cpu_weight=20, egress_closed=True)
        await host.until(lambda: host.held() == only)
        assert host.held(TWO) == FREE
        host.now = 200
        await host.until(lambda: host.held() == FREE)
        await host.until(lambda: host.keeper.state() == {})


async def test_what_is_promised_is_protected_in_the_slices_above_too_and_nothing_else_there(
    tmp_path: Path,
) -> None:
    """A slice's protection is at most that of the slice around it; the rest of that one is an admin's."""
    above = "user.slice"
    async with keeping_house(tmp_path) as host:
        host.kernel.there.add(above)
        host.kernel.holds[above] = changed(FREE, cpu_weight=500)
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        promised = 2 * 96 * MB
        await host.until(lambda: host.held(above).memory_low_bytes == promised)
        assert host.held(above).cpu_weight == 500
        host.kernel.holds[above] = changed(host.held(above), cpu_weight=300)
        await host.settled()
        assert host.held(above) == changed(FREE, cpu_weight=300, memory_low_bytes=promised)
        assert host.keeper.drift == 0
        host.kernel.holds[above] = changed(host.held(above), memory_low_bytes=0)
        await host.until(lambda: host.held(above).memory_low_bytes == promised)
        await host.until(lambda: host.keeper.drift == 1)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held(above).memory_low_bytes == 0)
        assert host.held(above).cpu_weight == 300


async def test_a_host_without_nft_holds_the_rest_and_says_what_it_cannot(tmp_path: Path) -> None:
    """Egress stays open, and that is told for as long as it is so."""
    async with keeping_house(tmp_path) as host:
        host.wall.missing = "nft: No such file or directory: egress stays open"
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        lacks = (Why("unable-egress", {"error": host.wall.missing}),)
        assert (host.keeper.driver, host.keeper.lacks) == ("memory", lacks)
        host.wall.missing = ""
        host.kernel.reloaded.beat()
        await host.until(lambda: host.keeper.lacks == ())


async def test_a_firewall_that_hangs_delays_no_cap(tmp_path: Path) -> None:
    """Slices are held, and squeezed, while it does; then what leaves the host is held too."""
    async with keeping_house(tmp_path) as host:
        answers = asyncio.Event()
        host.wall.waits = answers.wait
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        host.keeper.penalize((penalty_of(SHOP, Level.SOFT),))
        await host.until(lambda: host.held().cpu_weight == 20)
        assert host.wall.rules == []
        answers.set()
        await host.until(lambda: host.wall.rules == [Rules(sites=frozenset({1001, 1002}))])


async def test_what_could_not_be_lifted_is_remembered_until_it_is(tmp_path: Path) -> None:
    """A release that fails is tried again, by the next agent too."""
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        host.kernel.broken = ONE
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held(TWO) == FREE)
        await host.settled()
        assert host.held().cpu_quota_us == PLAN
        kernel = host.kernel
    kernel.broken = ""
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held() == FREE)


def test_what_a_users_own_manager_runs_is_not_stopped_by_the_hosts(tmp_path: Path) -> None:
    """Who has logged in may have a dbus.service; to stop the host's of that name would be the end of it."""
    group = tmp_path / ONE
    for folder in (
        UNIT,
        "user@1001.service/app.slice/dbus.service",
        f"shop-php.slice/{DOOR}.service",
    ):
        (group / folder).mkdir(parents=True)
    assert services(group) == (UNIT, f"{DOOR}.service", "user@1001.service")


def test_a_job_is_told_from_a_login_by_who_waits_for_its_end(tmp_path: Path) -> None:
    """Cron's jobs and what a login left behind are jobs; who is logged in is none, whatever a user's sudo acts as."""
    group, proc = tmp_path / ONE, tmp_path / "proc"
    sessions = {
        "session-1.scope": [(0, "cron"), (1001, "miner")],
        "session-2.scope": [(1001, "\xff\xe9")],
        "session-3.scope": [(0, "sshd"), (1001, "bash")],
        "session-4.scope": [(0, "login"), (1001, "cron")],
        "session-5.scope": [],
        "session-6.scope": [(1001, "sshd"), (1001, "sudo")],
        f"{UNIT}/session-7.scope": [(1001, "miner")],
    }
    pids = iter(range(100, 200))
    for scope, members in sessions.items():
        (group / scope).mkdir(parents=True)
        mine = [next(pids) for _ in members]
        (group / scope / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in [*mine, 999]))
        for pid, (uid, name) in zip(mine, members, strict=True):
            (proc / str(pid)).mkdir(parents=True)
            told = f"Name:\t{name}\nState:\tS (sleeping)\nUid:\t{uid}\t0\t0\t0\n"
            (proc / str(pid) / "status").write_bytes(told.encode("latin-1"))
    assert jobs(group, proc) == ("session-1.scope", "session-2.scope", "session-6.scope")
