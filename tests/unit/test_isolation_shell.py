"""Isolation at work: what it holds, tells, keeps and forgets, with a fake /proc and a real disk."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random

import msgspec
import pytest

from agent import isolation
from agent.evidence import FILES_MAX, KEEP_S, Shelf, processes
from agent.isolate import House, Policy
from agent.isolation import CLEAR_S, Isolation
from agent.lane import Lane
from agent.layout.attached import Attached
from agent.penalties import read, write
from agent.ports import DriverError
from agent.signals import Signals
from fleet.caps import Attachment, Evidence, Level, Penalty, Resource, Ruling
from fleet.messages import Orders
from fleet.model import Epoch, HostId, Note, SiteId, Why
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime.pulse import Pulse
from tests.hogs import HOGS, WALL, Machine, house
from tests.replay import recorded, replayed

ASKED = {"/index.php?id=7&mail=a@b.mx": 40, "/wp-login.php": 90, "/": 3}


class Senses:
    """What the sampler is to isolation."""

    def __init__(self) -> None:
        self.signals = Pulse()
        self.latest: Signals | None = None
        self.hurried = 0

    def urls(self, site: SiteId) -> dict[str, int]:
        return ASKED

    def seconds(self, site: SiteId, resource: Resource) -> tuple[float, ...]:
        return (0.25, 1.5) if resource is Resource.CPU else ()

    def hurry(self) -> None:
        self.hurried += 1

    def see(self, signals: Signals) -> None:
        self.latest = signals
        self.signals.beat()


class Host:
    """One host with a hog, and isolation on it."""

    def __init__(self, folder: Path, policy: Policy | None = None, blind_s: float = 30.0) -> None:
        self.machine = Machine(Random(3), busy=0.6, hog=HOGS["CPU spin"], starts_s=30.0)
        self.senses, self.exporter = Senses(), Exporter(AGENT)
        self.held: tuple[Penalty, ...] = ()
        self.ahead_s = 0.0  # of the wall's clock
        self.isolation = Isolation(
            policy or Policy(),
            folder,
            self.senses,
            self._hold,
            exporter=self.exporter,
            wall=lambda: WALL + self.machine.now + self.ahead_s,
            now=lambda: self.machine.now,
            blind_s=blind_s,
            proc=folder / "proc",
        )

    def _hold(self, penalties: Iterable[Penalty]) -> None:
        self.held = tuple(penalties)

    def follow(self, **rulings: Ruling) -> None:
        orders = self.orders
        self.isolation.follow(
            Orders(
                epoch=Epoch(1, 1),
                cluster="c",
                host=HostId("h1"),
                plans=dict(orders.plans),
                tenants=dict(orders.tenants),
                rulings={SiteId(site): ruling for site, ruling in rulings.items()},
            )
        )

    @property
    def orders(self) -> House:
        return house(self.machine)

    async def until_held(self) -> float:
        """Rounds until somebody is; gives when (s since the machine's start)."""
        for _ in range(40):
            await self.isolation.round(self.machine.round())
            if self.held:
                return self.machine.now
        raise AssertionError("nobody was held")


async def eventually(true: Callable[[], object]) -> None:
    """Within the 2 s that evidence may take."""
    async with asyncio.timeout(2):
        while not true():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def living(host: Host) -> AsyncIterator[None]:
    """`host`, with its isolation kept."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(host.isolation.keep())
        await asyncio.sleep(0)
        yield
        task.cancel()


def process(proc: Path, pid: int, name: str, *, ticks: int, pages: int) -> None:
    """One process as proc(5) shows it, with arguments that are nobody's business."""
    folder = proc / str(pid)
    folder.mkdir(parents=True, exist_ok=True)
    fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 8, str(pages), *["0"] * 28]
    (folder / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
    (folder / "cmdline").write_text(f"{name}\0--visitor\0ana@example.mx\0")


def attached(folder: Path, *pids: int) -> Attached:
    cgroup = folder / "cgroup" / "service"
    cgroup.mkdir(parents=True, exist_ok=True)
    (cgroup / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
    (cgroup.parent / "cgroup.procs").write_text("")
    return Attached(attachment=Attachment.SLICE, why=Why("layout-none"), cgroups=(cgroup.parent,))


async def test_a_hog_is_held_told_and_proven_within_two_seconds(tmp_path: Path) -> None:
    """The penalty goes to the caps at once; its evidence has both series, processes and paths, and nobody's name."""
    host = Host(tmp_path)
    host.follow()
    for pid in range(20):
        process(tmp_path / "proc", 100 + pid, "php-fpm8.2", ticks=0, pages=10 + pid)
    host.isolation.attach({host.machine.culprit: attached(tmp_path, *range(100, 120), 999)})
    async with living(host):
        await host.until_held()
        assert [(p.site, p.level, p.enforced) for p in host.held] == [
            (host.machine.culprit, Level.SOFT, True)
        ]
        assert host.isolation.penalties == host.held
        assert host.senses.hurried == 1
        await eventually(lambda: host.isolation.evidence)
        await eventually(lambda: [*(tmp_path / "evidence").glob("*.json")])
    [evidence] = host.isolation.evidence
    assert (evidence.site, evidence.every_s) == (host.machine.culprit, 2.0)
    assert len(evidence.stall) == len(evidence.use) >= 10
    assert evidence.seconds == (0.25, 1.5)
    assert evidence.use[-1] > 2 * evidence.use[0] and evidence.stall[-1] > 0.2
    assert [p.pid for p in evidence.processes] == [*range(119, 109, -1)]
    assert evidence.urls == {"/wp-login.php": 90, "/index.php": 40, "/": 3}
    [kept] = (tmp_path / "evidence").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    text = kept.read_bytes()
    assert msgspec.json.decode(text, type=Evidence) == evidence
    assert b"ana" not in text and b"mail=" not in text and b"--visitor" not in text


async def test_what_a_person_ordered_is_proven_once(tmp_path: Path) -> None:
    """A quarantine has its processes and paths as any step has; an agent that restarts has it on disk."""
    host = Host(tmp_path)
    host.machine.hog = None
    site = host.machine.culprit
    note = Note(owner="ana", reason="spam", since=WALL, until=WALL + 900)
    host.follow()
    for _ in range(40):  # what was learned is on disk by now
        await host.isolation.round(host.machine.round(0.1))
    host.follow(**{site: Ruling(word="quarantine", note=note)})
    process(tmp_path / "proc", 7, "sendmail", ticks=0, pages=10)
    host.isolation.attach({site: attached(tmp_path, 7)})
    async with living(host):
        for _ in range(3):
            await host.isolation.round(host.machine.round())
        await eventually(lambda: [*(tmp_path / "evidence").glob("*.json")])
    [evidence] = host.isolation.evidence
    assert (evidence.site, evidence.resource) == (site, Resource.CPU)
    assert [one.command for one in evidence.processes] == ["sendmail"]
    again = Host(tmp_path)
    again.machine.now = host.machine.now
    again.follow(**{site: Ruling(word="quarantine", note=note)})
    decision = await again.isolation.round(again.machine.round())
    assert [p.site for p in decision.penalties] == [site] and decision.evidence == ()


async def test_a_restart_forgets_nobody_and_prolongs_nothing(tmp_path: Path) -> None:
    """A new agent holds what the old one held as soon as it has its orders; the end is where it was."""
    old = Host(tmp_path)
    old.follow()
    async with living(old):
        await old.until_held()
        await eventually(lambda: old.isolation.evidence)
        await eventually(lambda: [*(tmp_path / "evidence").glob("*.json")])
    new = Host(tmp_path)
    new.machine.now = old.machine.now + 60
    new.follow()
    assert new.held == old.held == new.isolation.penalties
    async with living(new):
        await eventually(lambda: new.isolation.evidence)
        assert new.isolation.evidence == old.isolation.evidence
        await new.isolation.round(new.machine.round())
        assert new.held == old.held
        new.machine.hog = None
        new.machine.now = old.held[0].until - WALL
        await new.isolation.round(new.machine.round())
        assert [p.level for p in new.held] == [Level.WATCH]


async def test_what_is_over_ends_though_nobody_senses(tmp_path: Path) -> None:
    """R11: while the sampler gives no rounds nobody is accused, and terms end all the same."""
    host = Host(tmp_path, blind_s=0.02)
    host.follow()
    await host.until_held()
    host.machine.now += 299
    async with living(host):
        await asyncio.sleep(0.1)
        assert [p.level for p in host.held] == [Level.SOFT]
        host.machine.now += 2
        await eventually(lambda: [p.level for p in host.held] == [Level.WATCH])


async def test_what_is_lifted_is_told_no_more(tmp_path: Path) -> None:
    """A person's release ends the penalty in the next round, and its proof is kept on disk only."""
    host = Host(tmp_path)
    host.follow()
    async with living(host):
        await host.until_held()
        await eventually(lambda: host.isolation.evidence)
        hurried, now = host.senses.hurried, WALL + host.machine.now
        note = Note(owner="ana", reason="seen", since=now, until=now + 60)
        host.follow(**{host.machine.culprit: Ruling(word="release", note=note)})
        await host.isolation.round(host.machine.round())
    assert (host.held, host.isolation.penalties, host.isolation.evidence) == ((), (), ())
    assert host.senses.hurried == hurried + 1
    assert len([*(tmp_path / "evidence").iterdir()]) == 1


def test_one_kind_of_call_in_plenty_hides_no_other() -> None:
    """Ten are told at most: of each kind there is one among them, in their order."""
    many = [Why("isolation-too-many", {"site": f"s{n}"}) for n in range(20)]
    last = Why("isolation-no-culprit", {"resource": "cpu"})
    assert isolation.foremost((*many, last)) == (many[0], last, *many[1:9])
    assert isolation.foremost((last, many[0])) == (last, many[0])
    assert isolation.foremost(()) == ()


async def test_without_orders_nobody_is_held(tmp_path: Path) -> None:
    """An agent that knows no sites yet judges none, and writes nothing that could hold one later."""
    host = Host(tmp_path)
    for _ in range(30):
        await host.isolation.round(host.machine.round())
    assert host.held == ()
    assert host.isolation.penalties == ()


async def test_penalties_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    """Half a file of penalties stops no agent: it begins anew, and holds nobody by it."""
    (tmp_path / "penalties.json").write_text('{"records": {"shop": ')
    host = Host(tmp_path)
    host.follow()
    assert host.held == ()
    await host.until_held()


async def test_a_disk_that_refuses_stops_no_penalty(tmp_path: Path) -> None:
    """Where nothing can be kept, who harms others is held all the same; it is counted."""
    (tmp_path / "penalties.json.new").mkdir()
    host = Host(tmp_path)
    host.follow()
    await host.until_held()
    assert b"relevo_isolation_failures_total 1.0" in host.exporter.render()
    assert b'relevo_isolation_penalties{enforced="true",level="soft"} 1.0' in host.exporter.render()
    assert b'relevo_isolation_steps_total{level="soft"} 1.0' in host.exporter.render()


async def test_a_relief_of_the_memory_watchdog_is_counted_as_no_penalty(tmp_path: Path) -> None:
    """It is told and held, and takes nothing."""
    host = Host(tmp_path)
    host.machine.hog = None
    host.follow()
    await host.isolation.round(host.machine.round(0.1))
    state = read(tmp_path / "penalties.json")
    assert state.clock is not None
    relieved = {host.machine.culprit: state.clock.at + 300.0}
    write(tmp_path / "penalties.json", msgspec.structs.replace(state, relieved=relieved))
    again = Host(tmp_path)
    again.machine.now, again.machine.hog = host.machine.now, None
    again.follow()
    await again.isolation.round(again.machine.round(0.1))
    assert [penalty.is_relief for penalty in again.isolation.penalties] == [True]
    assert b'relevo_isolation_penalties{enforced="true",level="cap"} 0.0' in again.exporter.render()


async def test_work_that_hangs_takes_one_thread(tmp_path: Path) -> None:
    """While one piece hangs, the next fails at once; when it has ended, the lane is free again."""
    lane, end = Lane(), threading.Event()
    with pytest.raises(DriverError, match=r"no end within 0\.05 s"):
        await lane.run(0.05, end.wait)
    with pytest.raises(DriverError, match="still hangs"):
        await lane.run(1, end.wait)
    end.set()
    await asyncio.sleep(0.05)
    assert await lane.run(1, lambda: 7) == 7


async def test_a_disk_that_hangs_delays_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a large host they are made in a thread, and all those of the loop may hang."""
    monkeypatch.setattr(isolation, "BIG", 0)
    host, end = Host(tmp_path), threading.Event()
    host.follow()
    async with asyncio.TaskGroup() as group:
        for _ in range(40):  # the loop has 32 at most
            group.create_task(asyncio.to_thread(end.wait))
        await asyncio.sleep(0.05)
        try:
            async with asyncio.timeout(2):
                await host.isolation.round(host.machine.round())
        finally:
            end.set()


async def test_pieces_of_work_wait_for_their_turn(tmp_path: Path) -> None:
    """Two at once are done one after the other, and neither fails."""
    lane, done = Lane(), list[int]()
    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(lane.run(1, partial(done.append, number)))
    assert done == [0, 1, 2]


def test_r16_evidence_is_deleted_after_its_days(tmp_path: Path) -> None:
    """R16: what is older than 14 days goes, and the oldest of too many; the rest stays."""
    shelf = Shelf(tmp_path / "evidence")
    ages_s = (0.0, KEEP_S - 60, KEEP_S + 60, 3 * KEEP_S)
    for age_s in ages_s:
        shelf.keep(Evidence(site=SiteId("a-b.mx"), at=WALL - age_s, every_s=2))
    assert shelf.clear(WALL) == 2
    assert [one.at for one in shelf.of([SiteId("a-b.mx")], 0)] == [WALL]
    for number in range(FILES_MAX):
        (tmp_path / "evidence" / f"{WALL - 1000 - number:.0f}-s.json").touch()
    assert shelf.clear(WALL) == 2
    assert [one.at for one in shelf.of([SiteId("a-b.mx")], 0)] == [WALL]


async def test_r16_evidence_is_deleted_by_a_clock_that_goes_as_it_should(tmp_path: Path) -> None:
    """R16: one that was a year ahead when the machine began takes no proof; a while later what is old goes."""
    host, shelf, old = Host(tmp_path), Shelf(tmp_path / "evidence"), SiteId("old")
    for age_s in (0.0, KEEP_S + 60):
        shelf.keep(Evidence(site=old, at=WALL - age_s, every_s=2))
    host.ahead_s = 400 * 86_400.0
    left = []
    while host.machine.now < 3 * CLEAR_S:
        await host.isolation.round(host.machine.round())
        if host.machine.now > CLEAR_S / 2:
            host.ahead_s = 0.0
        host.machine.now += 50
        left.append(len([*(tmp_path / "evidence").glob("*old*")]))
    assert left[: len(left) // 2] == [2] * (len(left) // 2) and left[-1] == 1


def test_the_processes_of_a_site_are_told_by_user_where_it_has_no_cgroup(tmp_path: Path) -> None:
    """A pool's site is its users' processes; of one without users of its own nothing is told."""
    for pid in (7, 8):
        process(tmp_path, pid, "php", ticks=1, pages=pid)
    uid = (tmp_path / "7").stat().st_uid
    pool = Attached(attachment=Attachment.POOL, why=Why("layout-none"), uids=(uid,))
    assert [p.pid for p in processes(pool, tmp_path)] == [8, 7]
    nobody = Attached(attachment=Attachment.LOG, why=Why("layout-none"))
    assert processes(nobody, tmp_path) == () == processes(None, tmp_path)


async def test_a_recording_is_decided_as_it_was(tmp_path: Path) -> None:
    """[isolation] record keeps each round; read again, it leads to the same steps in the same seconds."""
    path = tmp_path / "record.jsonl"
    host = Host(tmp_path, policy=Policy(record=str(path)))
    host.follow()
    held_at = await host.until_held()
    rounds = [*recorded(path)]
    begun = rounds[0].at
    [(at, change)] = replayed(rounds, host.orders, Policy())
    assert (at, change.site, change.to) == (
        held_at - begun,
        host.machine.culprit,
        Level.SOFT,
    )


async def test_a_recording_that_cannot_go_on_ends(tmp_path: Path) -> None:
    """A recording is for tests: that it fails is said once, and nothing else stops."""
    host = Host(tmp_path, policy=Policy(record=str(tmp_path)))
    host.follow()
    await host.until_held()
    assert b"relevo_isolation_failures_total 1.0" in host.exporter.render()
