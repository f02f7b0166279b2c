"""What each site uses: readings of a made-up cgroup tree, and the rates between them."""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.layout.attached import Attached
from agent.signals import DiskSigns, HostSigns, Signals, SiteSigns
from agent.usage import kernel, processes, rates, report
from agent.usage.happened import Happened
from agent.usage.kernel import Brief, Full, Io
from agent.usage.sampler import FULL_S, Round, Sampler
from fleet.caps import Attachment
from fleet.messages import FromAgent, Usage
from fleet.model import HostId, SiteId, Why
from tests.unit.cgroups import State, Tree

A, B = SiteId("a"), SiteId("b")
GIB = 1 << 30


def sliced(*folders: Path) -> Attached:
    return Attached(attachment=Attachment.SLICE, why=Why("own-unit"), cgroups=folders)


def pooled(*uids: int) -> Attached:
    return Attached(attachment=Attachment.POOL, why=Why("shared-master"), uids=uids)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def sampler(tree: Tree, descriptors: int = 100) -> Sampler:
    return Sampler(descriptors=descriptors, proc=tree.proc, sys=tree.sys)


def rounds(of: Sampler, begin: float, end: float, every_s: float = 2.0) -> Round:
    """The last of the rounds from `begin` to `end`."""
    last, now = None, begin
    while now <= end:
        last, now = of.round(now), now + every_s
    assert last
    return last


def test_a_site_is_read_with_all_that_its_kernel_tells(tree: Tree) -> None:
    """CPU, throttling, memory by kind, swap, I/O, tasks, stalls and events, as rates of the time between."""
    one = sampler(tree)
    one.follow({A: sliced(tree.put("a", State(io={"8:0": (0, 0, 0, 0)})))}, close=[A])
    one.round(100.0)
    tree.put(
        "a",
        State(
            cpu_us=3_000_000,
            throttled_us=500_000,
            memory=2 * GIB,
            anon=GIB,
            file=5,
            swap=7,
            tasks=12,
            cpu_wait_us=1_500_000,
            memory_wait_us=250_000,
            io_wait_us=500_000,
            pgscan=400,
            pgsteal=20,
            io={"8:0": (4096, 8192, 2, 4)},
            tasks_refused=3,
            high=5,
            max=2,
            oom=4,
            oom_kill=1,
            throttled=6,
        ),
    )
    seen = one.round(102.0)
    assert seen.fresh == {A}
    assert seen.signals.sites[A] == SiteSigns(
        attachment=Attachment.SLICE,
        every_s=2.0,
        cpu_cores=1.5,
        throttled_ratio=0.25,
        cpu_stall=0.5,
        memory_bytes=2 * GIB,
        anon_bytes=GIB,
        file_bytes=5,
        swap_bytes=7,
        memory_stall=0.125,
        scanned_per_s=200.0,
        stolen_per_s=10.0,
        read_bytes_per_s=2048.0,
        write_bytes_per_s=4096.0,
        read_ops_per_s=1.0,
        write_ops_per_s=2.0,
        disks={
            "8:0": DiskSigns(
                read_bytes_per_s=2048.0,
                write_bytes_per_s=4096.0,
                read_ops_per_s=1.0,
                write_ops_per_s=2.0,
            )
        },
        io_stall=0.25,
        tasks=12,
        tasks_refused=3,
        memory_high_hits=5,
        memory_max_hits=2,
        oom_hits=4,
        oom_kills=1,
        throttled_periods=6,
    )


def test_what_a_kernel_does_not_tell_is_none_and_never_zero(tree: Tree) -> None:
    """Controllers that are switched off, PSI that is not there: the rest is told all the same."""
    folder = tree.put("a", State())
    tree.lacks("a", "memory.current", "memory.stat", "io.stat", "cpu.pressure", "pids.events")
    one = sampler(tree)
    one.follow({A: sliced(folder)}, close=[A])
    one.round(100.0)
    tree.change("a", cpu_us=1_000_000)
    signs = one.round(102.0).signals.sites[A]
    assert signs.cpu_cores == 0.5
    assert (signs.memory_bytes, signs.anon_bytes, signs.read_bytes_per_s, signs.cpu_stall) == (
        None,
        None,
        None,
        None,
    )


def test_a_restarted_site_has_no_negative_use(tree: Tree) -> None:
    """Counters that fell begin anew: no rate for this round, and what happened since the restart is counted."""
    one = sampler(tree)
    one.follow(
        {A: sliced(tree.put("a", State(cpu_us=9_000_000, oom_kill=4, io={"8:0": (9, 9, 9, 9)})))},
        close=[A],
    )
    one.round(100.0)
    tree.put("a", State(cpu_us=1000, oom_kill=1, io={"8:0": (1, 1, 1, 1)}))
    signs = one.round(102.0).signals.sites[A]
    assert (signs.cpu_cores, signs.read_bytes_per_s, signs.oom_kills) == (None, None, 1)
    assert signs.memory_bytes == 64 << 20


def test_an_idle_site_that_begins_to_work_is_seen_in_the_same_round(tree: Tree) -> None:
    """A quiet site is only glanced at; the glance that shows work becomes a whole reading at once."""
    one = sampler(tree)
    one.follow({A: sliced(tree.put("a", State())), B: sliced(tree.put("b", State()))})
    calm = rounds(one, 100.0, 112.0)
    assert calm.signals.sites[A].cpu_cores == 0.0
    tree.change("a", cpu_us=1_900_000, tasks=30)
    seen = one.round(114.0)
    assert A in seen.fresh and B not in seen.fresh
    assert seen.signals.sites[A].cpu_cores and seen.signals.sites[A].tasks == 30


def test_idle_sites_are_read_each_ten_seconds_and_not_all_in_one_round(tree: Tree) -> None:
    """Over any ten seconds each is read once, a few in each round."""
    sites = {SiteId(f"s{n}"): sliced(tree.put(f"s{n}", State())) for n in range(50)}
    one = sampler(tree, descriptors=1000)
    one.follow(sites)
    rounds(one, 100.0, 110.0)
    fresh = [one.round(112.0 + 2 * n).fresh for n in range(5)]
    assert frozenset().union(*fresh) == sites.keys()
    assert max(map(len, fresh)) <= 20


def test_a_site_that_works_is_read_wholly_in_each_round(tree: Tree) -> None:
    """Also where nobody waits: its disks, and its memory in every kind, are as old as its CPU time."""
    one = sampler(tree)
    one.follow({A: sliced(tree.put("a", State())), B: sliced(tree.put("b", State()))})
    rounds(one, 100.0, 120.0)
    read = []
    for n in range(1, 6):
        tree.change("a", cpu_us=n * 50_000, anon=n, io={"8:0": (n << 21, 0, n * 2, 0)})
        signs = one.round(120.0 + 2 * n).signals.sites[A]
        read.append((signs.read_bytes_per_s, signs.anon_bytes))
    assert read[1:] == [(1 << 20, n) for n in range(2, 6)]


def test_while_others_wait_whoever_works_is_read_wholly(tree: Tree) -> None:
    """The attribution of I/O needs every site's I/O in each round; an idle site stays idle."""
    one = sampler(tree)
    one.follow({A: sliced(tree.put("a", State())), B: sliced(tree.put("b", State()))})
    rounds(one, 100.0, 120.0)
    read = []
    for n in range(1, 6):
        tree.host(io=n * 300_000)
        tree.change("a", cpu_us=n * 5000, io={"8:0": (n << 21, 0, n * 2, 0)})
        seen = one.round(120.0 + 2 * n)
        assert A in seen.fresh
        assert seen.signals.host.io_stall == pytest.approx(0.15)
        read.append(seen.signals.sites[A].read_bytes_per_s)
    assert read[1:] == [1 << 20] * 4


def test_while_others_wait_for_cpus_whoever_works_at_all_is_read(tree: Tree) -> None:
    """But not its memory in every kind and its disks: a busy host waits a little for CPUs all day."""
    one = sampler(tree)
    one.follow({A: sliced(tree.put("a", State())), B: sliced(tree.put("b", State()))})
    rounds(one, 100.0, 120.0)
    fresh, read = [], []
    for n in range(1, 6):
        tree.host(cpu=n * 300_000)
        tree.change("a", cpu_us=n * 5000, io={"8:0": (n << 21, 0, n * 2, 0)})
        seen = one.round(120.0 + 2 * n)
        fresh.append(A in seen.fresh)
        read.append(seen.signals.sites[A].read_bytes_per_s)
    assert all(fresh)
    assert len(set(read)) <= 3, "its disks were read once in ten seconds"


def test_a_site_that_reclaims_in_vain_is_read_wholly(tree: Tree) -> None:
    """Though its host is calm and nobody has named it: within its own cap it harms nobody but itself."""
    one = sampler(tree)
    one.follow({A: sliced(tree.put("a", State()))})
    rounds(one, 100.0, 120.0)
    told = []
    for n in range(1, 6):
        tree.change("a", memory_wait_us=n * 800_000, pgscan=n * 2000, pgsteal=n * 20, high=n * 7)
        (tree.root / "a/cpu.stat").write_text(f"usage_usec {n * 100_000}\n")
        told.append(one.round(120.0 + 2 * n).signals.sites[A])
    assert [signs.memory_high_hits for signs in told] == [7] * 5
    assert [(signs.scanned_per_s, signs.stolen_per_s) for signs in told[2:]] == [(1000.0, 10.0)] * 3


def test_events_are_told_once(tree: Tree) -> None:
    """A round in which a site was not read anew repeats its sizes, not what happened to it."""
    one = sampler(tree)
    one.follow({A: sliced(tree.put("a", State()))})
    rounds(one, 100.0, 110.0)
    tree.change("a", oom_kill=2)
    told = [one.round(112.0 + 2 * n).signals.sites[A] for n in range(10)]
    assert sum(signs.oom_kills for signs in told) == 2
    assert {signs.memory_bytes for signs in told} == {64 << 20}


def test_a_site_that_vanishes_is_found_again_when_it_is_back(tree: Tree) -> None:
    """Its unit ends and begins at any moment; nothing of its time before counts as its use afterwards."""
    one = sampler(tree)
    site = sliced(tree.put("a", State(cpu_us=50)))
    one.follow({A: site}, close=[A])
    rounds(one, 100.0, 104.0)
    for rounds_away in (1, 2, 5):
        tree.remove("a")
        for n in range(rounds_away):
            gone = one.round((now := 106.0 + 100 * rounds_away) + 2 * n)
            nothing = SiteSigns(attachment=Attachment.SLICE)
            assert gone.signals.sites[A] == nothing and A not in gone.fresh
        tree.put("a", State(cpu_us=8_000_000, tasks=2))
        back = one.round(now + 20).signals.sites[A]
        assert (back.cpu_cores, back.tasks) == (None, 2)
        tree.change("a", cpu_us=9_000_000)
        assert one.round(now + 22).signals.sites[A].cpu_cores == 0.5


@pytest.mark.parametrize("closely", [True, False])
def test_a_cgroup_that_is_not_there_yet_is_seen_when_it_comes(tree: Tree, closely: bool) -> None:
    """A user's slice is followed before anybody is logged in; a spin in the session is the site's."""
    one = sampler(tree)
    site = sliced(tree.put("a", State(cpu_us=50)), tree.root / "user-1001.slice")
    one.follow({A: site}, close=[A] if closely else [])
    rounds(one, 100.0, 120.0)
    tree.put("user-1001.slice", State(cpu_us=50))
    rounds(one, 122.0, 140.0)
    tree.change("user-1001.slice", cpu_us=20_000_050)
    assert (one.round(142.0).signals.sites[A].cpu_cores or 0.0) > 2.0


def test_sites_come_and_go_between_rounds(tree: Tree) -> None:
    """What is not followed any more is let go of, descriptors too."""
    one, before = sampler(tree, descriptors=55), len(os.listdir("/proc/self/fd"))
    one.follow({SiteId(f"s{n}"): sliced(tree.put(f"s{n}", State())) for n in range(5)}, close=[])
    one.round(100.0)
    assert len(os.listdir("/proc/self/fd")) == before + 55
    one.follow({A: sliced(tree.put("a", State()))})
    assert one.round(102.0).signals.sites.keys() == {A}
    assert len(os.listdir("/proc/self/fd")) == before + 11
    one.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_with_few_descriptors_everything_is_read_all_the_same(tree: Tree) -> None:
    """What can't be held open is opened for each reading."""
    one, before = sampler(tree, descriptors=3), len(os.listdir("/proc/self/fd"))
    one.follow({A: sliced(tree.put("a", State())), B: sliced(tree.put("b", State()))}, close=[A, B])
    one.round(100.0)
    assert len(os.listdir("/proc/self/fd")) == before + 3
    tree.change("b", cpu_us=1_000_000, tasks=77)
    signs = one.round(102.0).signals.sites[B]
    assert (signs.cpu_cores, signs.tasks, signs.anon_bytes) == (0.5, 77, 48 << 20)
    one.close()


def test_several_cgroups_are_one_site(tree: Tree) -> None:
    """Rates and sizes add up, of stalls the worst counts; what one of them does not tell is not told of the whole."""
    service, logins = tree.put("fpm", State(tasks=8)), tree.put("user", State(tasks=2))
    tree.lacks("user", "memory.stat")
    one = sampler(tree)
    one.follow({A: sliced(service, logins)}, close=[A])
    one.round(100.0)
    tree.change("fpm", cpu_us=1_000_000, cpu_wait_us=600_000)
    (tree.root / "user/cpu.stat").write_text("usage_usec 3000000\n")
    signs = one.round(102.0).signals.sites[A]
    assert (signs.cpu_cores, signs.tasks, signs.cpu_stall) == (2.0, 10, 0.3)
    assert signs.anon_bytes is None


def test_io_of_a_volume_is_counted_at_its_disks_only(tree: Tree) -> None:
    """A request to dm-0 is passed on to sda and counted there again."""
    tree.device("253:0", over=("sda",))
    tree.device("8:0")
    folder = tree.put("a", State(io={"253:0": (0, 0, 0, 0), "8:0": (0, 0, 0, 0), "8:16": (0,) * 4}))
    one = sampler(tree)
    one.follow({A: sliced(folder)}, close=[A])
    one.round(100.0)
    tree.change("a", io={"253:0": (2000, 0, 2, 0), "8:0": (2000, 0, 2, 0), "8:16": (0, 600, 0, 2)})
    signs = one.round(102.0).signals.sites[A]
    assert (signs.read_bytes_per_s, signs.write_bytes_per_s) == (1000.0, 300.0)
    assert signs.disks == {
        "8:0": DiskSigns(read_bytes_per_s=1000.0, read_ops_per_s=1.0),
        "8:16": DiskSigns(write_bytes_per_s=300.0, write_ops_per_s=1.0),
    }


def test_a_pools_site_is_told_by_its_users_processes(tree: Tree) -> None:
    """CPU, memory of its own and tasks by uid; a worker that ended under the shared master is no negative use."""
    me = os.getuid()
    tree.process(10, cpu_ticks=500)
    tree.process(11, cpu_ticks=50, threads=3, command="a b) c")
    one = sampler(tree)
    one.follow({A: pooled(me), B: pooled(me + 1)})
    one.round(100.0)
    tree.process(10, cpu_ticks=1000)
    tree.ended(11)
    seen = one.round(100.0 + FULL_S)
    signs = seen.signals.sites[A]
    assert (signs.cpu_cores, signs.tasks) == (0.5, 1)
    assert signs.memory_bytes == 4000 * os.sysconf("SC_PAGE_SIZE")
    assert (signs.cpu_stall, signs.read_bytes_per_s) == (None, None)
    assert seen.signals.sites[B].cpu_cores == 0.0, "nobody runs anything there, and that is known"


def test_a_part_of_a_site_is_not_called_the_whole(tree: Tree) -> None:
    """Where PHP runs as somebody whom many share, its own users' cron says nothing of what it costs."""
    tree.process(10)
    why = Why("layout-pool-of-all")
    of_all = Attached(attachment=Attachment.POOL, why=why, uids=(os.getuid(),))
    by_log = Attached(attachment=Attachment.LOG, why=Why("layout-log"), uids=(os.getuid(),))
    one = sampler(tree)
    one.follow({A: of_all, B: by_log})
    rounds(one, 100.0, 110.0)
    sites = one.round(112.0).signals.sites
    assert (sites[A].cpu_cores, sites[A].tasks, sites[B].cpu_cores) == (None, None, None)


def process(**values: int) -> processes.Seen:
    fields = {"uid": 1, "parent": 1, "begun": 10, "cpu_ticks": 0, "threads": 1, "memory_bytes": 0}
    return processes.Seen(**{**fields, **values})


def test_a_childs_time_is_counted_once(tree: Tree) -> None:
    """It was counted while it lived; its parent's own count grows by it when it has ended."""
    before = processes.Look(
        0.0, 100, {5: process(cpu_ticks=100), 6: process(parent=5, cpu_ticks=300)}
    )
    after = processes.Look(10.0, 1100, {5: process(cpu_ticks=450)})
    assert processes.by_user(before, after)[1].cpu_cores == pytest.approx(
        50 * processes.TICK_S / 10
    )


def test_a_process_that_was_not_looked_at_before_brings_no_past(tree: Tree) -> None:
    """A site attached just now, or a process that changed its user: its hours before are not this round's."""
    before = processes.Look(0.0, 5000, {})
    old, young = process(begun=4000, cpu_ticks=90_000), process(begun=5500, cpu_ticks=20)
    after = processes.Look(10.0, 6000, {7: old, 8: young})
    assert processes.by_user(before, after)[1].cpu_cores == pytest.approx(
        20 * processes.TICK_S / 10
    )


def test_a_fork_bomb_is_not_counted_one_by_one(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound nothing is known by user, for that round; what cgroups tell goes on."""
    monkeypatch.setattr(processes, "PROCESSES_MAX", 3)
    for pid in range(10, 15):
        tree.process(pid)
    one = sampler(tree)
    one.follow({A: pooled(os.getuid()), B: sliced(tree.put("b", State()))})
    signals = one.round(100.0).signals
    assert signals.sites[A] == SiteSigns(attachment=Attachment.POOL)
    assert signals.sites[B].tasks == 4


def test_the_host_tells_its_stalls_its_memory_and_its_births(tree: Tree) -> None:
    """Shares of the time between two rounds; no share from one look alone."""
    one = sampler(tree)
    first = one.round(100.0).signals.host
    assert (first.cpu_stall, first.forks_per_s, first.has_swap) == (None, None, True)
    tree.host(cpu=400_000, memory=100_000, io=20_000, forks=3000, available=0.25)
    host = one.round(102.0).signals.host
    assert (host.cpu_stall, host.memory_stall, host.io_stall) == (0.2, 0.05, 0.01)
    assert (host.forks_per_s, host.memory_available_bytes) == (1000.0, 16 * GIB)


DISKS = """\
   8       0 sda {0} 0 0 0 {0} 0 {1} 0 0 0 0 0 0 0 0 0 0
   8       1 sda1 {0} 0 0 0 {0} 0 {1} 0 0 0 0 0 0 0 0 0 0
   8      16 sdb 100 20 4096 9 300 80 8192 9 0 9 9 0 0 0 0 0 0
 253       0 dm-0 {0} 0 0 0 {0} 0 {1} 0 0 0 0 0 0 0 0 0 0
   7       0 loop0 {0} 0 0 0 {0} 0 {1} 0 0 0 0 0 0 0 0 0 0
 259       0 nvme0c0n1 {0} 0 0 0 {0} 0 {1} 0 0 0 0 0 0 0 0 0 0
"""


def test_the_host_tells_what_its_cpus_and_its_whole_disks_do(tree: Tree) -> None:
    """Each byte once: no partition, no volume, no loop, no path of a disk that has several."""
    for number in ("8:0", "8:16", "7:0"):
        tree.device(number)
    tree.device("8:1", is_partition=True)
    tree.device("253:0", over=("sda",))
    one = sampler(tree)
    tree.host(busy_ticks=1000, disks=DISKS.format(0, 0))
    first = one.round(100.0).signals.host
    assert (first.busy_cores, first.io_bytes_per_s, first.io_ops_per_s) == (None, None, None)
    tree.host(busy_ticks=1300, disks=DISKS.format(100, 2000))
    host = one.round(102.0).signals.host
    assert (host.busy_cores, host.io_bytes_per_s, host.io_ops_per_s) == (1.5, 512_000.0, 100.0)
    # A count that fell is a restart, a disk that came or went no transfer.
    tree.host(busy_ticks=1300, disks=DISKS.format(50, 2000))
    fell = one.round(104.0).signals.host
    assert (fell.io_bytes_per_s, fell.io_ops_per_s) == (0.0, None)
    tree.host(busy_ticks=200, disks=DISKS.format(50, 2000).replace("8      16", "8      32"))
    gone = one.round(106.0).signals.host
    assert (gone.busy_cores, gone.io_bytes_per_s, gone.io_ops_per_s) == (None, None, None)


def test_what_a_site_swaps_into_memory_is_no_work_of_a_disk(tree: Tree) -> None:
    """Pages packed into zram, and a file that is mounted: of the one no disk knows, the other is on one already."""
    for number, name in (("253:0", "zram0"), ("7:3", "loop3"), ("8:0", "sda")):
        disk = tree.sys / "devices" / name
        (disk / "slaves").mkdir(parents=True)
        (tree.sys / "dev/block" / number).symlink_to(disk)
    one, moved = sampler(tree), (4096, 0, 1, 0)
    one.follow({A: sliced(tree.put("a", State(io=dict.fromkeys(("253:0", "7:3", "8:0"), moved))))})
    one.follow({A: sliced(tree.root / "a")}, close=[A])
    one.round(100.0)
    tree.change("a", io=dict.fromkeys(("253:0", "7:3", "8:0"), (8192, 0, 2, 0)))
    signs = one.round(102.0).signals.sites[A]
    assert (signs.read_bytes_per_s, [*signs.disks]) == (2048.0, ["8:0"])


def test_a_host_that_tells_nothing_of_its_disks_is_not_called_idle(tree: Tree) -> None:
    """In a container there may be none to be seen: what they do is not known."""
    one = sampler(tree)
    one.round(100.0)
    host = one.round(102.0).signals.host
    assert (host.io_bytes_per_s, host.io_ops_per_s) == (None, None)


def test_this_machines_own_kernel_can_be_read() -> None:
    """The files are what the kernel writes, not what we make up."""
    one = Sampler(descriptors=0)
    one.round(1.0)
    host = one.round(2.0).signals.host
    assert host.memory_total_bytes > host.memory_available_bytes > 0
    assert host.forks_per_s is not None
    assert host.busy_cores is not None and host.busy_cores >= 0
    mine = processes.look(frozenset({os.getuid()}), 1.0).seen[os.getpid()]
    assert mine.cpu_ticks > 0 and mine.memory_bytes > 1 << 20


counts = st.one_of(st.none(), st.integers(0, 1 << 62))
times = st.floats(0, 1e6, allow_nan=False)
briefs = st.builds(Brief, times, *[counts] * 11)
ios = st.one_of(
    st.none(),
    st.dictionaries(
        st.sampled_from(["8:0", "8:16"]),
        st.builds(Io, *[st.integers(0, 1 << 62)] * 4),
        max_size=2,
    ),
)
fulls = st.builds(Full, times, *[counts] * 5, ios)


@given(briefs, briefs, fulls, fulls)
def test_no_two_readings_make_a_negative_rate(a: Brief, b: Brief, c: Full, d: Full) -> None:
    """Whatever a kernel says: rates are at least zero, shares within 0..1, events whole numbers."""
    signs = rates.full(c, d, rates.brief(a, b, Attachment.SLICE))
    for name in (*rates.SUMS, "throttled_ratio", "cpu_stall", "memory_stall", "io_stall"):
        told = getattr(signs, name)
        assert told is None or told >= 0, name
        if name.endswith(("_ratio", "_stall")):
            assert told is None or told <= 1, name


@given(briefs, briefs, fulls, fulls)
@example(
    Brief(0.0, 0), Brief(1.0, 1 << 62), Full(0.0, io={}), Full(1.0, io={"8:0": Io(*[1 << 62] * 4)})
)
def test_whatever_is_seen_can_be_told(a: Brief, b: Brief, c: Full, d: Full) -> None:
    """A controller refuses a whole message for one value that is out of bounds: there is none."""
    signs = rates.full(c, d, rates.brief(a, b, Attachment.SLICE))
    happened = Happened()
    host = HostSigns(cores=1, memory_total_bytes=1, memory_available_bytes=1)
    happened.add(Signals(at=0.0, host=host, sites={A: signs}), {A})
    use = report.use(signs, report.Held(), None, happened.totals.get(A, {}))
    told = Usage(host=HostId("h1"), sites={A: use})
    assert msgspec.json.decode(msgspec.json.encode(told), type=FromAgent) == told


@given(st.lists(briefs, min_size=2, max_size=4))
def test_the_sum_of_cgroups_is_none_where_one_does_not_tell(parts: list[Brief]) -> None:
    """A part that is not known makes a whole that is not known; else nothing is lost."""
    signs = [rates.brief(None, part, Attachment.SLICE) for part in parts]
    whole = rates.together(signs)
    told = [part.tasks for part in parts]
    assert whole.tasks == (None if None in told else sum(count or 0 for count in told))


@given(st.binary(max_size=200))
@example(b"\n 8:0 rbytes=x\n")
def test_no_file_is_too_strange_to_be_read(data: bytes) -> None:
    """A number or nothing, for anything that a file may hold."""
    for read in (kernel.size, kernel.some, kernel.full, kernel.tasks_refused):
        assert isinstance(read(data), int | None)
    for several in (kernel.cpu, kernel.memory, kernel.memory_events):
        assert all(isinstance(told, int | None) for told in several(data))
    found = kernel.io(data, lambda device: True)
    assert found is None or all(isinstance(io, Io) for io in found.values())
