"""What a host says of its sites, and the threads that find it out, on a made-up cgroup tree."""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from agent import config
from agent.layout.attached import Attached
from agent.signals import DiskSigns, HostSigns, Signals, SiteSigns
from agent.usage import keep, report
from agent.usage.happened import Happened
from agent.usage.keep import Usage
from agent.usage.ledger import SLOT_S
from agent.usage.report import CAPS_TURNS, SITES_AT_ONCE, Held, Tellings, Word
from agent.usage.sampler import Sampler
from controller.api.capviews import share
from deploy.demo.plans import STANDARD
from fleet import messages
from fleet.caps import Attachment, IoLimit, Level, Limits, Penalty, Resource, Tenant
from fleet.messages import (
    BEAT_LIMIT_BYTES,
    BESIDE_MAX,
    DEVICES_MAX,
    HAPPENINGS,
    SHORT_MAX,
    Beside,
    FromAgent,
    Orders,
    Past,
    SiteUse,
)
from fleet.model import Epoch, HostId, SiteId, Why
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime.supervise import SWITCH_S, tune
from tests.unit.cgroups import State, Tree
from tests.unit.test_usage_ledger import PLANS, SMALL

A, B, C = SiteId("a"), SiteId("b"), SiteId("c")
HOST = HostId("h1")
CALM = HostSigns(cores=4, memory_total_bytes=1 << 36, memory_available_bytes=1 << 35)
LIMITS = Limits(
    cpu_weight=100,
    cpu_quota_us=1_500_000,
    memory_high_bytes=900 << 20,
    memory_max_bytes=1 << 30,
    memory_low_bytes=96 << 20,
    swap_max_bytes=100 << 20,
    tasks_max=120,
    io={
        "8:0": IoLimit(
            read_bytes_per_s=20 << 20,
            write_bytes_per_s=10 << 20,
            read_ops_per_s=2000,
            write_ops_per_s=1000,
        )
    },
)


def signs(cores: float | None = None, **values: float) -> SiteSigns:
    return msgspec.convert(
        {"attachment": "slice", "cpu_cores": cores, **values}, SiteSigns, strict=False
    )


def crowd(count: int) -> Signals:
    sites = {SiteId(f"s{n:04}"): signs(n / 100, memory_bytes=n) for n in range(count)}
    return Signals(at=1.0, host=CALM, sites=sites)


def penalty(site: SiteId, *, enforced: bool = False) -> Penalty:
    return Penalty(
        site=site,
        level=Level.SOFT,
        resource=Resource.CPU,
        since=0.0,
        until=1e10,
        why=Why("x"),
        enforced=enforced,
    )


def test_a_thousand_sites_are_told_in_messages_that_delay_no_beat() -> None:
    """Each site once; a message is small even with all that is held; penalties are in every one."""
    signals = crowd(1050)
    held = {site: Held(slice="user-1.slice", wanted=LIMITS, held=LIMITS) for site in signals.sites}
    word = Word(penalties=(penalty(A),), driver="systemd", held=held)
    told = list(Tellings(HOST).all(signals, word, {}))
    assert len(told) == 11
    assert sorted(site for message in told for site in message.sites) == sorted(signals.sites)
    sizes = [len(msgspec.json.encode(message)) for message in told]
    assert max(sizes) < 120_000 < BEAT_LIMIT_BYTES
    assert all(message.penalties == word.penalties for message in told)
    assert all(msgspec.json.decode(msgspec.json.encode(m), type=FromAgent) == m for m in told)


def test_a_host_without_sites_tells_that_it_lives_and_what_it_can_hold() -> None:
    """One message, with nothing of any site."""
    nothing = Signals(at=1.0, host=CALM)
    long = Why("unable-egress", {"error": "no nft, " * 1000})
    (told,) = Tellings(HOST).all(
        nothing, Word(unable="cgroup v1" * 100, lacks=(Why("unable-v1"), *[long] * 20)), {}
    )
    assert told.sites == {} and len(told.unable) == messages.LINE_MAX
    assert told.lacks[0] == Why("unable-v1")
    assert len(told.lacks) == messages.LACKS_MAX and len(msgspec.json.encode(told)) < 4096
    assert msgspec.json.decode(msgspec.json.encode(told), type=FromAgent) == told


def test_caps_are_told_when_they_change_and_each_minute() -> None:
    """None in between means: as last told."""
    tellings, signals = Tellings(HOST), Signals(at=1.0, host=CALM, sites={A: signs()})

    def tell(limits: Limits) -> SiteUse:
        word = Word(held={A: Held(slice="s.slice", wanted=limits, held=limits)})
        (told,) = tellings.all(signals, word, {})
        return told.sites[A]

    other = msgspec.structs.replace(LIMITS, tasks_max=5)
    assert tell(LIMITS).wanted == LIMITS
    said = [tell(LIMITS) for _ in range(CAPS_TURNS * 3)]
    assert [use.wanted for use in said].count(LIMITS) == 3
    assert {use.slice for use in said} == {"s.slice"}
    assert tell(other).held == other


def test_what_is_not_held_is_told_with_the_limits_and_so_is_that_all_is() -> None:
    """Within what a message takes; that nothing is told for now differs from nothing being short."""
    tellings, signals = Tellings(HOST), Signals(at=1.0, host=CALM, sites={A: signs()})
    why = Why("cap-no-file", {"file": "memory.swap.max"})
    beside = Beside(slice="user-1.slice", wanted=LIMITS)

    def tell(*short: Why) -> SiteUse:
        held = Held(short=short, beside=(beside,) * 9)
        (told,) = tellings.all(signals, Word(held={A: held}), {})
        assert msgspec.json.decode(msgspec.json.encode(told), type=FromAgent) == told
        return told.sites[A]

    first = tell(*[why] * 9)
    assert (first.told, first.short, len(first.beside)) == (True, (why,) * SHORT_MAX, BESIDE_MAX)
    again = [tell(*[why] * 9) for _ in range(CAPS_TURNS)]
    assert [(use.told, bool(use.short)) for use in again].count((True, True)) == 1
    assert [(use.told, bool(use.short)) for use in again].count((False, False)) == CAPS_TURNS - 1
    now = tell()
    assert (now.told, now.short) == (True, ())
    (message,) = Tellings(HOST).all(signals, Word(looked=False), {})
    assert not message.sites[A].told, "nobody has looked yet"


def test_what_was_killed_between_two_tellings_is_told_once() -> None:
    """Five rounds lie between them; the last one alone would know of none."""
    tellings, happened = Tellings(HOST), Happened()
    rounds = [Signals(at=n, host=CALM, sites={A: signs(oom_kills=n % 2)}) for n in range(5)]
    for one in rounds:
        happened.add(one, {A})
    tellings.count(happened.totals)
    said = [next(tellings.all(rounds[-1], Word(), {})).sites[A].oom_kills for _ in range(2)]
    assert said == [2, 0]


def test_all_that_a_kernel_counts_for_a_site_is_told() -> None:
    """Each by its name; of a site that was gone meanwhile what it counted since it is back."""
    tellings, happened = Tellings(HOST), Happened()

    def tell(counts: dict[str, int] | None) -> SiteUse | None:
        sites = {} if counts is None else {A: signs(**counts)}
        one = Signals(at=1.0, host=CALM, sites=sites)
        happened.add(one, sites.keys())
        tellings.count(happened.totals)
        return next(tellings.all(one, Word(), {})).sites.get(A)

    def said(counts: dict[str, int] | None) -> dict[str, int]:
        told = tell(counts)
        return {name: n for name in HAPPENINGS if told and (n := getattr(told, name))}

    every = {name: n for n, name in enumerate(HAPPENINGS, 1)}
    assert said(every) == every
    assert said({"oom_kills": 2}) == {"oom_kills": 2}
    assert said({}) == {}
    assert said(None) == {} and not happened.totals
    assert said({"oom_kills": 2}) == {"oom_kills": 2}


def test_what_did_not_happen_takes_no_room() -> None:
    """A quiet site is told in as few bytes as before there were counts and devices."""
    (told,) = Tellings(HOST).all(
        Signals(at=1.0, host=CALM, sites={A: signs(0.5, memory_bytes=1 << 28)}), Word(), {}
    )
    assert len(msgspec.json.encode(told.sites[A])) < 80 and told.sites[A].took_s is None
    busy = signs(0.5, file_bytes=5)
    disks = {f"8:{n}": DiskSigns(write_bytes_per_s=float(n)) for n in range(99)}
    busy = msgspec.structs.replace(busy, disks=disks)
    (told,) = Tellings(HOST).all(Signals(at=1.0, host=CALM, sites={A: busy}), Word(), {})
    assert told.sites[A].file_bytes == 5
    assert min(told.sites[A].devices.values()) == 99 - DEVICES_MAX, "the busiest"


def test_a_share_of_a_plan_is_of_the_busiest_disk() -> None:
    """Shown as use is the sum; of one disk the share is of that."""
    plan = msgspec.structs.replace(STANDARD.caps, write_bytes_per_s=8 << 20)
    member = DiskSigns(write_bytes_per_s=2 << 20)
    for disks, written, ratio in (
        ({"8:0": member}, 2 << 20, 0.25),
        ({"8:0": member, "8:16": member}, 4 << 20, 0.25),
    ):
        site = signs(0.5, write_bytes_per_s=written, read_bytes_per_s=0)
        site = msgspec.structs.replace(site, disks=disks)
        (told,) = Tellings(HOST).all(Signals(at=1.0, host=CALM, sites={A: site}), Word(), {})
        said = told.sites[A]
        assert (said.write_bytes_per_s, share(said, plan).write_ratio) == (written, ratio)


def test_how_long_requests_take_is_told_where_the_log_says_it() -> None:
    """To controllers and to Prometheus; more than they take is cut, and what is not known is no zero."""
    sites = {A: signs(took_s=0.25), B: signs(took_s=1e300), C: signs(requests_per_s=1.0)}
    seen = Signals(at=1.0, host=CALM, sites=sites)
    (told,) = Tellings(HOST).all(seen, Word(), {})
    again = msgspec.json.decode(msgspec.json.encode(told), type=messages.Usage)
    assert [again.sites[site].took_s for site in sites] == [0.25, messages.SECONDS_MAX, None]
    series = report.series(seen, sites, {})["relevo_site_request_seconds"]
    assert series == {(A,): 0.25, (B,): 1e300}


def test_what_a_host_has_is_told_with_its_sites() -> None:
    """Plans are compared with it where they are written."""
    (told,) = Tellings(HOST).all(Signals(at=1.0, host=CALM), Word(), {})
    assert (told.cores, told.memory_total_bytes, told.has_swap) == (4, 1 << 36, False)


def test_everybodys_past_is_told_within_an_hour() -> None:
    """A few sites in each telling, each of them once before the first comes again."""
    tellings, signals = Tellings(HOST), crowd(95)
    asked: list[SiteId] = []
    for _ in range(10):
        turn = tellings.turn(signals)
        asked += turn
        past = {site: Past(days=1.0) for site in turn}
        told = list(tellings.all(signals, Word(), past))
        assert {s for m in told for s, use in m.sites.items() if use.past} == set(turn)
    assert sorted(set(asked)) == sorted(signals.sites)
    assert len(tellings.turn(crowd(10_000))) == 28, "360 tellings are an hour"


def test_the_busiest_have_series_and_what_is_not_known_has_none() -> None:
    """At most as many sites as configured; a site whose memory is not told has no series of memory."""
    signals = crowd(100)
    assert report.busiest(signals, 2) == ("s0099", "s0098")
    of_two = msgspec.structs.replace(
        signs(0.5),
        disks={
            "8:0": DiskSigns(read_bytes_per_s=5.0),
            "8:16": DiskSigns(),
            "9:0": DiskSigns(read_bytes_per_s=1.5, write_bytes_per_s=1.0),
        },
    )
    one = Signals(at=1.0, host=CALM, sites={A: of_two})
    tables = report.series(one, [A], {A: {"oom_kills": 2}, B: {"oom_kills": 9}})
    assert tables["relevo_site_cpu_cores"] == {("a",): 0.5}
    assert tables["relevo_site_memory_bytes"] == {}
    exporter = Exporter(AGENT)
    for name, table in tables.items():
        exporter.replace(name, table)
    text = exporter.render().decode()
    assert 'relevo_site_cpu_cores{site="a"} 0.5' in text
    assert "# TYPE relevo_site_events_total counter" in text
    assert 'relevo_site_events_total{site="a",event="oom_kills"} 2.0' in text
    assert 'relevo_site_device_bytes_per_second{site="a",device="9:0"} 2.5' in text
    assert 'device="8:16"' not in text and 'site="b"' not in text


class Host:
    """A Usage at work on a made-up tree, ten rounds a second."""

    def __init__(self, tree: Tree, state: Path, per_site: str = "top") -> None:
        self.tree, self.exporter = tree, Exporter(AGENT)
        self.word, self.wall = Word(), 6000.0 * SLOT_S
        self.told: list[messages.Usage] = []
        self.arrived = asyncio.Event()
        self.usage = Usage(
            HOST,
            config.Usage(every_s=0.1, per_site=per_site),  # type: ignore[arg-type]
            state,
            send=self._send,
            word=lambda: self.word,
            exporter=self.exporter,
            wall=lambda: self.wall,
            sampler=Sampler(descriptors=1000, proc=tree.proc, sys=tree.sys),
        )

    def _send(self, told: Sequence[messages.Usage]) -> None:
        self.told += told
        self.arrived.set()

    def rendered(self) -> str:
        return self.exporter.render().decode()

    async def telling(self) -> messages.Usage:
        self.arrived.clear()
        await self.arrived.wait()
        return self.told[-1]

    async def rounds(self, count: int) -> Signals:
        await self.usage.signals.after(self.usage.signals.count + count - 1)
        assert self.usage.latest
        return self.usage.latest


@asynccontextmanager
async def living(host: Host) -> AsyncIterator[Host]:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        task = group.create_task(host.usage.keep())
        yield host
        task.cancel()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def orders(**tenants: Tenant) -> Orders:
    sites = {SiteId(id): tenant for id, tenant in tenants.items()}
    return Orders(epoch=Epoch(1, 1), cluster="c", host=HOST, plans=PLANS, tenants=sites)


def sliced(folder: Path, *logs: Path) -> Attached:
    return Attached(attachment=Attachment.SLICE, why=Why("x"), cgroups=(folder,), logs=logs)


async def test_a_hosts_use_is_found_told_measured_and_kept(tree: Tree, tmp_path: Path) -> None:
    """From cgroup files and a log to signals, a message, Prometheus and the history."""
    log = tmp_path / "a.log"
    log.write_text("")
    host = Host(tree, tmp_path)
    host.usage.follow(orders(a=Tenant(plan=SMALL)))
    host.usage.attach({A: sliced(tree.put("a", State()), log)})
    async with living(host):
        told = await host.telling()
        assert told.sites[A].attachment is Attachment.SLICE
        tree.change("a", cpu_us=60_000_000, tasks=9)
        with log.open("a") as file:
            file.write('::1 - - [now] "GET /x?y HTTP/1.1" 200 5 "-" "x" 0.25\n' * 50)
        while ((seen := (await host.rounds(1)).sites[A]).cpu_cores or 0.0) <= 1:
            pass
        assert seen.tasks == 9
        while host.usage.urls(A) != {"/x": 50}:
            await host.rounds(1)
        while (await host.rounds(1)).sites[A].took_s != 0.25:
            pass
        host.wall += SLOT_S
        await host.rounds(3)
        (row,) = await host.usage.rows(A, days=1)
        assert row.measures["cpu_cores"].max > 1 and row.shadow_s >= 0
        text = host.exporter.render().decode()
        assert 'relevo_site_tasks{site="a"}' in text
        assert 'relevo_usage_sites{attachment="slice"} 1.0' in text
        assert 'relevo_usage_rows_total{outcome="kept"} 1.0' in text
    assert not [t for t in threading.enumerate() if t.name.startswith(("usage", "history"))]


async def test_rows_that_a_disk_does_not_take_are_counted_as_lost(
    tree: Tree, tmp_path: Path
) -> None:
    """By what came of the write, not by that somebody took them to it; once it works, they are kept."""
    state = tmp_path / "not/yet"
    host = Host(tree, state)
    host.usage.attach({A: sliced(tree.put("a", State()))})
    host.usage.watch([A])

    async def counted(outcome: str) -> None:
        while f'relevo_usage_rows_total{{outcome="{outcome}"}}' not in host.rendered():
            host.wall += SLOT_S
            await host.rounds(4)

    async with living(host):
        await host.telling()
        await counted("lost")
        assert 'outcome="kept"' not in host.rendered()
        state.mkdir(parents=True)
        await counted("kept")


async def test_how_long_a_thread_may_hold_up_the_loop_is_the_daemons_word(
    tree: Tree, tmp_path: Path
) -> None:
    """What `tune` has set stands while use is read."""
    before = sys.getswitchinterval(), gc.get_threshold()
    try:
        tune()
        async with living(host := Host(tree, tmp_path)):
            await host.rounds(1)
            assert sys.getswitchinterval() == SWITCH_S
    finally:
        sys.setswitchinterval(before[0])
        gc.set_threshold(*before[1])


async def test_a_penalty_is_told_at_once(tree: Tree, tmp_path: Path) -> None:
    """Not with the next telling; of the penalized site alone, which from now on is read closely."""
    host = Host(tree, tmp_path)
    host.usage.attach({A: sliced(tree.put("a", State())), B: sliced(tree.put("b", State()))})
    async with living(host):
        await host.telling()
        host.word = Word(penalties=(penalty(A),))
        host.usage.hurry()
        async with asyncio.timeout(1):
            told = await host.telling()
        assert told.penalties == host.word.penalties and told.sites.keys() == {A}
        assert host.usage._looking.wanted.close == {A}


async def test_series_can_be_switched_off(tree: Tree, tmp_path: Path) -> None:
    """Then no site is named to Prometheus."""
    host = Host(tree, tmp_path, per_site="off")
    host.usage.attach({A: sliced(tree.put("a", State()))})
    async with living(host):
        await host.telling()
        assert "relevo_site_tasks{" not in host.exporter.render().decode()


async def test_what_was_seen_is_kept_when_the_agent_ends(tree: Tree, tmp_path: Path) -> None:
    """The row in the making is written with the last breath, and joined by the next process' one."""
    for _ in range(2):
        host = Host(tree, tmp_path)
        host.usage.attach({A: sliced(tree.put("a", State()))})
        host.usage.watch([A])
        async with living(host):
            await host.rounds(8)
    async with living(host := Host(tree, tmp_path)):
        await host.rounds(1)
        (row,) = await host.usage.rows(A, days=1)
    assert row.seen_s >= 2.0


async def test_a_fault_of_ours_ends_the_agent(tree: Tree, tmp_path: Path) -> None:
    """A thread that dies is not a thread that is quietly missing."""
    host = Host(tree, tmp_path)
    broken = Attached(attachment=Attachment.SLICE, why=Why("x"), cgroups=(None,))  # type: ignore[arg-type]
    host.usage.attach({A: broken})
    with pytest.raises(ExceptionGroup):
        async with living(host):
            await asyncio.sleep(5)


def test_descriptors_leave_room_for_everything_else() -> None:
    """However few there are."""
    assert keep.descriptors() >= 0
    assert SITES_AT_ONCE <= 100
