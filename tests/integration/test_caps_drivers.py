"""What both drivers promise, systemd's over a real dbus-daemon: slices hold what they were told, whenever they come."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import pytest
from dbus_fast import BusType, Message, Variant
from dbus_fast.aio import MessageBus

from agent.caps.cgroupfs import NO_EGRESS, CgroupFs
from agent.caps.driver import Driver
from agent.caps.keeper import Keeper
from agent.caps.kernel import UNLIMITED, slice_path
from agent.caps.limits import FREE, HostFacts
from agent.caps.linger import lingering
from agent.caps.systemd import Systemd
from agent.ports import DriverError
from deploy.demo.logind import private_bus
from fleet.caps import IoLimit, Level, Limits, Tenant
from fleet.model import PlanId, SiteId
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime.clock import wall
from runtime.pulse import Pulse
from tests.integration import systemds
from tests.integration.systemds import MANAGER, PATH, PLAIN
from tests.unit.test_caps_keeper import attached, orders
from tests.unit.test_caps_limits import penalty

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="no dbus-daemon here"),
]

MB = 1 << 20
SHOP = "user-1001.slice"
DISK = IoLimit(
    read_bytes_per_s=20 * MB, write_bytes_per_s=10 * MB, read_ops_per_s=2000, write_ops_per_s=1000
)
CAPPED = Limits(
    cpu_weight=50,
    cpu_quota_us=1_500_000,
    memory_high_bytes=900 * MB,
    memory_max_bytes=1024 * MB,
    memory_low_bytes=96 * MB,
    swap_max_bytes=100 * MB,
    tasks_max=120,
    io={"8:0": DISK},
)
changed = msgspec.structs.replace


@dataclass
class Host:
    """One kind of host with its driver; `appear` brings a slice up and gives its cgroup."""

    driver: Driver
    appear: Callable[[str], Path]
    systemd: systemds.Systemd | None = None

    async def holds(self, limits: Limits, slice: str = SHOP) -> None:
        held = (await self.driver.held((slice,)))[slice]
        if limits.io_weight is None:
            held = changed(held, io_weight=None)
        assert held == limits


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a Unix socket's has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="relevo-") as path:
        yield Path(path)


@asynccontextmanager
async def under_systemd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    async with private_bus(folder) as address, systemds.stand_in(address, folder) as systemd:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        (folder / "linger").mkdir()
        (folder / "passwd").write_text("shop:x:1001:1001::/home/shop:/bin/sh\n")
        lingers = partial(lingering, folder / "linger", folder / "passwd")
        driver = Systemd(systemd.cgroups, systemd.run, Pulse(), folder / "proc", lingers)
        driver.reach(("192.0.2.53",))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(driver.keep())
            await driver.reloaded.after(0)
            yield Host(driver, systemd.appear, systemd)
            task.cancel()


@asynccontextmanager
async def in_a_subtree(folder: Path, _: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    (folder / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (folder / "cgroup.subtree_control").touch()

    def appear(slice: str) -> Path:
        group = folder / slice_path(slice)
        group.mkdir(parents=True, exist_ok=True)
        for name, text in PLAIN.items():
            (group / name).write_text(f"{text}\n")
        return group

    yield Host(CgroupFs(folder, Pulse()), appear)


@pytest.fixture(params=[under_systemd, in_a_subtree])
async def host(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Host]:
    async with request.param(folder, monkeypatch) as made:
        yield made


@pytest.fixture
async def machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    async with under_systemd(folder, monkeypatch) as made:
        yield made


async def test_a_slice_holds_what_it_was_told(host: Host) -> None:
    """Every field, read back from the kernel's own files; then free of all of it again."""
    host.appear(SHOP)
    for limits in (CAPPED, changed(CAPPED, cpu_quota_us=None, frozen=True, io_weight=20)):
        assert await host.driver.apply(SHOP, limits) == ()
        await host.holds(limits)
    await host.driver.apply(SHOP, FREE)
    assert (await host.driver.held((SHOP,)))[SHOP].io_weight == 20, "of which nothing was said"
    await host.driver.apply(SHOP, changed(FREE, io_weight=100))
    held = (await host.driver.held((SHOP,)))[SHOP]
    no_io = {device: msgspec.structs.asdict(limit) for device, limit in held.io.items()}
    assert all(set(limit.values()) == {UNLIMITED} for limit in no_io.values())
    assert changed(held, io={}) == changed(FREE, io_weight=100)


async def test_a_disk_that_is_not_limited_any_more_is_let_go(machine: Host) -> None:
    """systemd's arrays grow when they are set: what was in them is emptied first."""
    machine.appear(SHOP)
    both = changed(CAPPED, io={"8:0": DISK, "8:16": DISK})
    for limits in (both, CAPPED, both, changed(CAPPED, io={})):
        await machine.driver.apply(SHOP, limits)
        await machine.holds(limits)


async def test_what_is_so_already_is_not_written_again(host: Host) -> None:
    """The second time nothing is set; of a change only what changed."""
    group = host.appear(SHOP)
    await host.driver.apply(SHOP, CAPPED)
    before = {path: path.stat().st_mtime_ns for path in group.iterdir()}
    calls = len(host.systemd.sent) if host.systemd else 0
    await host.driver.apply(SHOP, CAPPED)
    assert {path: path.stat().st_mtime_ns for path in group.iterdir()} == before
    await host.driver.apply(SHOP, changed(CAPPED, tasks_max=80))
    assert (group / "pids.max").read_text().strip() == "80"
    if host.systemd:
        assert host.systemd.sent[calls:] == [["TasksMax"]]


async def test_a_slice_that_is_not_there_is_held_from_its_first_moment(host: Host) -> None:
    """It is not held now, and that is no error; when it comes it holds all."""
    assert await host.driver.held((SHOP,)) == {}
    told = await host.driver.apply(SHOP, CAPPED)
    if host.systemd:
        assert told == ()
        host.appear(SHOP)
        await host.holds(CAPPED)
    else:
        assert {why.code for why in told} == {"cap-no-file"}
        assert [why.values["file"] for why in told][:2] == ["cpu.weight", "cpu.max"]


async def test_what_nobody_speaks_of_is_not_set(host: Host) -> None:
    """Of a slice that is there, and of one that is not: a limit of the host's stays, through its whole life."""
    if host.systemd:
        await host.driver.apply(SHOP, changed(FREE, cpu_weight=20), {"cpu_weight"})
        assert host.systemd.sent == [["CPUWeight"]]
    group = host.appear(SHOP)
    (group / "pids.max").write_text("10813\n")
    squeezed = changed(FREE, cpu_weight=20, cpu_quota_us=750_000)
    await host.driver.apply(SHOP, squeezed, {"cpu_weight", "cpu_quota_us"})
    await host.holds(changed(squeezed, tasks_max=10_813))
    if host.systemd:
        assert host.systemd.sent[1:] == [["CPUQuotaPerSecUSec"]]


async def test_what_a_slice_will_hold_by_itself_is_told_by_systemd(machine: Host) -> None:
    """As its files say, before it is there and before anything is said of it; a disk by its number only."""
    systemd = machine.systemd
    assert systemd is not None
    assert await machine.driver.by_itself(SHOP) == FREE
    none, disks = Variant("t", UNLIMITED), [["/dev/block/8:0", 20 * MB], ["/dev/sdb", 5 * MB]]
    systemd.own["user_1001_slice"] = {
        "TasksMax": Variant("t", 10_813),
        "CPUQuotaPerSecUSec": Variant("t", 500_009),
        "MemoryHigh": Variant("t", 4096 * 1000 + 1),
        "CPUWeight": none,
        "IOWeight": none,
        "MemoryMax": none,
        "IOReadBandwidthMax": Variant("a(st)", disks),
        "IOWriteBandwidthMax": Variant("a(st)", []),
        "Description": Variant("s", "a slice"),
    }
    disk = IoLimit(
        read_bytes_per_s=20 * MB,
        write_bytes_per_s=UNLIMITED,
        read_ops_per_s=UNLIMITED,
        write_ops_per_s=UNLIMITED,
    )
    own = changed(FREE, tasks_max=10_813, cpu_quota_us=500_000, io={"8:0": disk})
    own = changed(own, memory_high_bytes=4096 * 1000)
    assert await machine.driver.by_itself(SHOP) == own
    systemd.refuses = "LoadUnit"
    with pytest.raises(DriverError, match="AccessDenied"):
        await machine.driver.by_itself(SHOP)


async def test_memory_in_use_is_squeezed_in_steps(host: Host) -> None:
    """The maximum stays over what is used, the high mark a tenth under it, and what is not reached yet is said."""
    group = host.appear(SHOP)
    used = 2048 * MB
    (group / "memory.current").write_text(f"{used}\n")
    told = await host.driver.apply(SHOP, CAPPED)
    assert int((group / "memory.max").read_text()) >= used
    assert 0.89 * used < int((group / "memory.high").read_text()) <= 0.9 * used
    assert [(why.code, why.values["limit"]) for why in told] == [
        ("cap-in-steps", "memory.high"),
        ("cap-in-steps", "memory.max"),
    ]
    (group / "memory.current").write_text(f"{700 * MB}\n")
    assert await host.driver.apply(SHOP, CAPPED) == ()
    assert int((group / "memory.max").read_text()) == CAPPED.memory_max_bytes


async def test_without_swap_pages_of_files_make_room_for_a_lower_maximum(host: Host) -> None:
    """What is counted of them is the kernel's word; the mark that frees them is gone when the maximum holds."""
    group = host.appear(SHOP)
    (group / "memory.current").write_text(f"{2048 * MB}\n")
    (group / "memory.stat").write_text(
        f"anon {900 * MB}\nfile {1100 * MB}\ninactive_file {800 * MB}\nactive_file {300 * MB}\n"
    )
    wanted = changed(CAPPED, memory_high_bytes=None)
    told = await host.driver.apply(SHOP, wanted)
    assert 0.89 * 2048 * MB < int((group / "memory.high").read_text()) <= 0.9 * 2048 * MB
    assert [why.code for why in told] == ["cap-makes-room", "cap-in-steps"]
    (group / "memory.current").write_text(f"{1000 * MB}\n")
    assert await host.driver.apply(SHOP, wanted) == ()
    await host.holds(wanted)


@pytest.mark.parametrize(
    "files", [("io.weight",), ("io.bfq.weight",), ("io.bfq.weight", "io.weight")]
)
async def test_a_weight_of_io_is_told_to_whatever_schedules_it(
    files: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BFQ has a file of its own; what was written is what is read, so that it is done once."""
    async with in_a_subtree(folder, monkeypatch) as host:
        group = host.appear(SHOP)
        (group / "io.weight").unlink()
        for name in files:
            (group / name).write_text("default 100\n")
        light = changed(CAPPED, io_weight=20)
        assert await host.driver.apply(SHOP, light) == ()
        await host.holds(light)
        assert {(group / name).read_text() for name in files} == {"default 20"}
        for name in files:
            (group / name).unlink()
        assert [why.values for why in await host.driver.apply(SHOP, light)] == [
            {"file": "io.weight"}
        ]


async def test_what_somebody_wrote_by_hand_is_seen_and_mended(host: Host) -> None:
    """The kernel's file counts, not what the driver remembers."""
    group = host.appear(SHOP)
    await host.driver.apply(SHOP, CAPPED)
    (group / "cpu.max").write_text("max 100000\n")
    assert (await host.driver.held((SHOP,)))[SHOP].cpu_quota_us is None
    await host.driver.apply(SHOP, CAPPED)
    assert (await host.driver.held((SHOP,)))[SHOP].cpu_quota_us == 1_500_000


async def test_a_slice_that_is_killed_is_empty(host: Host) -> None:
    """Under systemd its doors and its services are stopped first, so that nothing starts again."""
    group = host.appear(SHOP)
    (group / "cgroup.kill").write_text("")
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (group / "php-shop.service").mkdir()
    (group / "user@1001.service").mkdir()
    if host.systemd is None:
        assert await host.driver.units(SHOP) == ()
        await host.driver.kill(SHOP, ())
        assert (group / "cgroup.kill").read_text() == "1"
        return
    systemd = host.systemd
    systemd.sockets = {"php-shop.socket"}
    units = await host.driver.units(SHOP)
    assert units == ("php-shop.socket", "php-shop.service")
    await host.driver.kill(SHOP, units)
    ended = [call for call in systemd.calls if call[0] in ("StopUnit", "KillUnit")]
    both = (*units, "user@1001.service")
    assert ended == [*(("StopUnit", unit) for unit in both), ("KillUnit", SHOP)]
    assert await host.driver.start(both) == {}
    started = [unit for call, unit in systemd.calls if call == "StartUnit"]
    assert started == [*units], "a session is its owner's to begin"


async def test_a_user_that_lingers_has_a_unit_that_is_stopped_and_started_as_others(
    machine: Host, folder: Path
) -> None:
    """What runs below its manager needs nobody logged in; one that does not linger any more is not started."""
    systemd, group = machine.systemd, machine.appear(SHOP)
    assert systemd is not None
    for unit in ("php-shop.service", "user@1001.service", "user@1002.service"):
        (group / unit).mkdir()
    (folder / "linger/shop").touch()
    (folder / "linger/who").touch()  # whose account is gone
    units = await machine.driver.units(SHOP)
    assert units == ("php-shop.service", "user@1001.service")
    assert await machine.driver.start(units) == {}
    (folder / "linger/shop").unlink()
    assert await machine.driver.start(units) == {}
    started = [unit for call, unit in systemd.calls if call == "StartUnit"]
    assert started == [*units, "php-shop.service"]
    (folder / "linger/who").unlink()
    (folder / "linger").rmdir()
    assert await machine.driver.units(SHOP) == ("php-shop.service",)


async def test_who_is_logged_in_is_seen(machine: Host, folder: Path) -> None:
    """By the door that waits for the end; cron's jobs are nobody's visit."""
    scope = machine.appear(SHOP) / "session-1.scope"
    scope.mkdir()
    (scope / "cgroup.procs").write_text("1\n")
    (folder / "proc/1").mkdir(parents=True)
    for waits, visited in (("cron", False), ("sshd", True)):
        (folder / "proc/1/status").write_text(f"Name:\t{waits}\nUid:\t0\t0\t0\t0\n")
        assert await machine.driver.visited(SHOP) is visited


async def test_jobs_are_ended_beside_who_is_logged_in(machine: Host, folder: Path) -> None:
    """Each session by itself, and one that has just ended is no failure."""
    systemd, group = machine.systemd, machine.appear(SHOP)
    assert systemd is not None
    for number, waits in ((1, "sshd"), (2, "cron"), (3, "cron")):
        scope = group / f"session-{number}.scope"
        scope.mkdir()
        (scope / "cgroup.procs").write_text(f"{number}\n")
        (folder / f"proc/{number}").mkdir(parents=True)
        (folder / f"proc/{number}/status").write_text(f"Name:\t{waits}\nUid:\t0\t0\t0\t0\n")
    systemd.absent = {"session-2.scope"}
    assert await machine.driver.end_jobs(SHOP) == ("session-2.scope", "session-3.scope")
    ended = [unit for call, unit in systemd.calls if call == "KillUnit"]
    assert ended == ["session-2.scope", "session-3.scope"]


async def test_units_are_stopped_and_started_each_by_itself(machine: Host) -> None:
    """What is refused is told and holds up no other, nor the kill; what is gone, or shut, is nobody's to start."""
    systemd = machine.systemd
    assert systemd is not None
    group = machine.appear(SHOP)
    (group / "php-shop.service").mkdir()
    (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    systemd.sockets, systemd.shut = {"php-shop.socket"}, {"php_shop_socket"}
    assert await machine.driver.units(SHOP) == ("php-shop.service",)
    systemd.refuses = "StopUnit"
    with pytest.raises(DriverError, match="AccessDenied"):
        await machine.driver.kill(SHOP, ("php-shop.service",))
    assert ("KillUnit", SHOP) in systemd.calls
    systemd.refuses, systemd.absent = "", {"old.service"}
    await machine.driver.kill(SHOP, ("old.service", "php-shop.service"))
    assert await machine.driver.start(("old.service", "php-shop.service")) == {}
    assert systemd.calls[-1] == ("StartUnit", "php-shop.service")
    systemd.refuses = "StartUnit"
    refused = await machine.driver.start(("a.service", "b.service"))
    assert refused.keys() == {"a.service", "b.service"}


async def test_an_isolated_slice_speaks_with_this_machine_and_those_it_needs(machine: Host) -> None:
    """By systemd's address rules, seen in its own files; lifted, they are gone. Elsewhere that is said."""
    systemd = machine.systemd
    assert systemd is not None
    machine.appear(SHOP)
    closed = changed(FREE, egress_closed=True)
    await machine.driver.apply(SHOP, closed)
    await machine.holds(closed)
    assert [*map(tuple, systemd.arrays[SHOP, "IPAddressDeny"])] == [
        (2, bytes(4), 0),
        (10, bytes(16), 0),
    ]
    allowed = [prefix for _, _, prefix in systemd.arrays[SHOP, "IPAddressAllow"]]
    assert allowed == [8, 128, 32]
    sent = len(systemd.sent)
    assert not machine.driver.reach(("192.0.2.53",))
    await machine.driver.apply(SHOP, closed)
    assert len(systemd.sent) == sent, "nothing is new"
    assert machine.driver.reach(("192.0.2.54", "2001:db8::53"))
    await machine.driver.apply(SHOP, closed)
    addresses = [bytes(told) for _, told, _ in systemd.arrays[SHOP, "IPAddressAllow"]]  # type: ignore[call-overload]
    assert bytes((192, 0, 2, 54)) in addresses and bytes((192, 0, 2, 53)) not in addresses
    await machine.driver.apply(SHOP, FREE)
    await machine.holds(FREE)
    assert systemd.arrays[SHOP, "IPAddressDeny"] == []


async def test_a_subtree_says_that_it_knows_no_addresses(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Egress is held by user there, and the controllers that were given are passed on."""
    async with in_a_subtree(folder, monkeypatch) as host:
        (folder / "user.slice").mkdir()
        (folder / "user.slice/cgroup.subtree_control").touch()
        assert NO_EGRESS in await host.driver.apply(SHOP, changed(FREE, egress_closed=True))
        assert (folder / "user.slice" / SHOP).is_dir()
        for group in (folder, folder / "user.slice"):  # of a plain file the last word stays
            assert (group / "cgroup.subtree_control").read_text() == "+pids"


async def test_a_reload_and_a_slice_that_comes_are_heard(machine: Host) -> None:
    """Only systemd's own word counts, and of slices only those that are held."""
    systemd, driver = machine.systemd, machine.driver
    assert systemd is not None
    heard = driver.reloaded.count
    systemd.reload()
    heard = await driver.reloaded.after(heard)
    machine.appear("user-7.slice")
    await driver.apply(SHOP, CAPPED)  # answered after the signal: it was heard by now
    assert driver.reloaded.count == heard
    machine.appear(SHOP)
    heard = await driver.reloaded.after(heard)
    forger = await MessageBus(bus_type=BusType.SYSTEM).connect()
    try:
        for number in range(1, 9):  # straight to each who is on the bus
            signal = Message.new_signal(PATH, MANAGER, "Reloading", "b", [False])
            signal.destination = f":1.{number}"
            await forger.send(signal)
        await asyncio.sleep(0.2)
    finally:
        forger.disconnect()
    assert driver.reloaded.count == heard


async def test_what_systemd_refuses_is_told(machine: Host) -> None:
    """As the driver's error, with systemd's own words."""
    assert machine.systemd is not None
    machine.appear(SHOP)
    machine.systemd.refuses = "SetUnitProperties"
    with pytest.raises(DriverError, match="AccessDenied"):
        await machine.driver.apply(SHOP, CAPPED)


async def test_systemd_may_go_and_come_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nothing can be set, and that is an error; a new one is found, and told to look again."""
    async with private_bus(folder) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        driver = Systemd(folder / "cgroup", folder / "run", Pulse())
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(driver.keep())
            heard = 0
            for _ in range(2):
                async with systemds.stand_in(address, folder) as systemd:
                    heard = await driver.reloaded.after(heard)
                    await driver.apply(SHOP, changed(CAPPED, tasks_max=80 + heard))
                    assert ("SetUnitProperties", SHOP) in systemd.calls
                while True:
                    try:
                        await driver.apply(SHOP, changed(CAPPED, tasks_max=200))
                    except DriverError:
                        break
                    await asyncio.sleep(0.05)
            task.cancel()


async def test_a_squeeze_in_shadow_sends_systemd_what_it_is_about_and_nothing_else(
    machine: Host, folder: Path
) -> None:
    """And at its end what was there before: Debian's limit on tasks and an admin's quota are not even sent."""
    systemd, group = machine.systemd, machine.appear(SHOP)
    assert systemd is not None
    (group / "pids.max").write_text("10813\n")
    (group / "cpu.weight").write_text("70\n")
    changes = machine.driver.reloaded
    keeper = Keeper(
        machine.driver,
        None,
        unable=None,
        facts=lambda: HostFacts(cores=16, devices=("8:0",)),
        people=dict,
        state=folder / "caps.json",
        exporter=Exporter(AGENT),
        changed=changes,
    )
    keeper.follow(orders(shop=Tenant(plan=PlanId("standard"))))
    keeper.attach({SiteId("shop"): attached(SHOP)})
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(keeper.keep())
        for penalties, weight in (((penalty(Level.SOFT),), "20"), ((), "70")):
            sent = len(systemd.sent)
            keeper.penalize(tuple(changed(each, until=wall() + 60) for each in penalties))
            while (group / "cpu.weight").read_text().strip() != weight:
                await asyncio.sleep(0.02)
            assert systemd.sent[sent:] == [["CPUWeight"]]
        task.cancel()
    assert (group / "pids.max").read_text().strip() == "10813"
