"""Adoption of a shared pool's workers: decided from plain values, kept in a made-up /proc beside made-up cgroups."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from agent.caps.limits import HostFacts
from agent.caps.wants import World, shares
from agent.lane import Lane
from agent.layout import kin
from agent.layout.adopt import (
    MOST,
    Adopted,
    Begin,
    End,
    Kin,
    Seen,
    Step,
    Take,
    scope_of,
    steps,
    wanted,
)
from agent.layout.adoption import KEPT, WISHES, Adoption, kept
from agent.layout.attach import attach
from agent.layout.attached import Adoptable, Attached
from agent.layout.keep import Layout
from agent.layout.masters import folder
from agent.layout.running import Reader
from agent.layout.scopes import Scopes
from agent.layout.wishes import inside, leave, wish
from agent.ports import DriverError
from deploy.demo.plans import STANDARD
from fleet.caps import Attachment
from fleet.messages import Orders
from fleet.model import Epoch, HostId, SiteId, Why
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from tests.unit.hosttree import write
from tests.unit.test_layout_attach import (
    BASE,
    CGROUPS,
    HUERTO,
    LIBRO,
    SHARED_FPM,
    TWO,
    TWO_POOLS,
    TWO_VHOSTS,
    judged,
    pool,
    process,
    status,
    tenant,
)

MAIN = "/etc/php/8.2/fpm/php-fpm.conf"
MASTER, WORKER, SECOND, CHILD, OTHER = 700, 701, 702, 703, 704
OF = Adoptable(
    uids=(1001,),
    main=MAIN,
    cgroup=SHARED_FPM,
    unit="php8.2-fpm.service",
    slice="user-1001.slice",
)
changed = msgspec.structs.replace
SCOPE = "relevo-pool-huerto.scope"
UNIT = "php8.2-fpm.service"
EVERY_S = 0.02
ADOPTED = Adopted(slice=OF.slice, unit=OF.unit)


def seen(*outside: Kin, inside: tuple[Kin, ...] | None = None) -> Seen:
    return Seen(master=MASTER, outside=outside, inside=inside)


def worker(pid: int, parent: int = MASTER, uid: int = 1001) -> Kin:
    return Kin(pid, uid, parent, "php-fpm: pool huerto")


def test_workers_begin_their_scope_and_later_ones_are_taken_into_it() -> None:
    """What a worker had started before follows it, apart, once there is a scope; it makes none by itself."""
    born = (worker(WORKER), worker(SECOND), worker(CHILD, parent=WORKER))
    assert steps(HUERTO, OF, seen(*born)) == (
        Begin(SCOPE, "user-1001.slice", "php8.2-fpm.service", (WORKER, SECOND)),
    )
    assert steps(HUERTO, OF, seen(*born, inside=())) == (
        Take(SCOPE, (WORKER, SECOND)),
        Take(SCOPE, (CHILD,)),
    )
    assert steps(HUERTO, OF, seen(worker(CHILD, parent=WORKER))) == ()
    assert steps(HUERTO, OF, seen(inside=())) == ()


def test_nobody_elses_processes_are_touched() -> None:
    """Neither those of other users, nor a worker that is still root, nor the master; and of many only so many."""
    others = (worker(OTHER, uid=1004), worker(WORKER, uid=0), Kin(MASTER, 0, 1))
    assert steps(HUERTO, OF, seen(*others)) == ()
    (begin,) = steps(HUERTO, OF, seen(*(worker(n) for n in range(1000, 1000 + 2 * MOST))))
    assert isinstance(begin, Begin) and len(begin.pids) == MOST


def test_a_slice_that_stands_still_takes_nobody_in() -> None:
    """A worker would stand still too, with the request that it answers."""
    assert steps(HUERTO, OF, replace(seen(worker(WORKER)), is_frozen=True)) == ()


@pytest.mark.parametrize(
    ("inside", "ends"),
    [
        ((worker(WORKER, parent=1),), True),
        ((worker(WORKER, parent=1), Kin(CHILD, 1001, WORKER, "convert")), True),
        ((worker(WORKER, parent=1), worker(SECOND)), False),
        ((Kin(CHILD, 1001, 1, "nohup"),), False),
        ((), False),
        (None, False),
    ],
)
def test_only_workers_that_have_outlived_their_master_are_ended(
    inside: tuple[Kin, ...] | None, ends: bool
) -> None:
    """What a site left running is no worker; and one whose parent still lives, whoever it is, is no orphan."""
    alone = Seen(master=None, outside=(worker(OTHER),), inside=inside)
    assert steps(HUERTO, OF, alone) == ((End(SCOPE),) if ends else ())
    assert End(SCOPE) not in steps(HUERTO, OF, replace(alone, master=MASTER))


def test_a_persons_word_on_one_site_counts_before_the_hosts() -> None:
    """Of those that can be adopted at all."""
    attached = {
        HUERTO: Attached(attachment=Attachment.POOL, why=Why("layout-pool"), adoptable=OF),
        LIBRO: Attached(attachment=Attachment.POOL, why=Why("layout-pool")),
    }
    assert wanted(attached, {}, everywhere=False) == {}
    assert wanted(attached, {HUERTO: True, LIBRO: True}, everywhere=False) == {HUERTO: OF}
    assert wanted(attached, {}, everywhere=True) == {HUERTO: OF}
    assert wanted(attached, {HUERTO: False}, everywhere=True) == {}


def test_an_adopted_pool_is_attached_as_one_whose_caps_hold(tmp_path: Path) -> None:
    """Still a pool, in its slice, with the slice's cgroup to be read; its neighbour is as before, and could be too."""
    host = write(tmp_path, BASE | TWO_VHOSTS | TWO_POOLS)
    found = attach(TWO, Reader(str(host)).look(), CGROUPS, {HUERTO: ADOPTED})
    huerto, libro = found[HUERTO], found[LIBRO]
    assert (huerto.attachment, huerto.adopted) == (Attachment.POOL, True)
    assert (huerto.slice, huerto.why.code) == ("user-1001.slice", "layout-adopted")
    assert huerto.cgroups == (CGROUPS / "user.slice/user-1001.slice",)
    assert huerto.adoptable == OF
    assert (libro.slice, libro.adopted, libro.cgroups) == (None, False, ())
    assert libro.adoptable is not None and libro.adoptable.slice == "user-1004.slice"


def test_an_adopted_pools_plan_is_what_its_slice_holds(tmp_path: Path) -> None:
    """All of it, as of a site with a unit of its own; of its neighbour only what logins get, beside its pool."""
    host = write(tmp_path, BASE | TWO_VHOSTS | TWO_POOLS)
    found = attach(TWO, Reader(str(host)).look(), CGROUPS, {HUERTO: ADOPTED})
    armed = {site: changed(tenant, enforced_from=0.0) for site, tenant in TWO.items()}
    orders = Orders(
        epoch=Epoch(1, 1),
        cluster="c",
        host=HostId("web7"),
        plans={STANDARD.id: STANDARD.caps},
        tenants=armed,
    )
    world = World(
        orders=orders,
        attached=found,
        people={"huerto": 1001, "libro": 1004},
        penalties=(),
        facts=HostFacts(cores=8),
        now=1.0,
    )
    held = shares(world)
    huerto, libro = held["user-1001.slice"], held["user-1004.slice"]
    assert (huerto.sites, huerto.beside, libro.beside) == ((HUERTO,), False, True)
    assert huerto.wanted.limits.tasks_max == STANDARD.caps.tasks
    assert huerto.wanted.limits.memory_max_bytes == STANDARD.caps.memory_max_bytes


@pytest.mark.parametrize(
    ("now", "code", "slice"),
    [
        (changed(ADOPTED, trouble="refused"), "layout-adopted-short", OF.slice),
        (changed(ADOPTED, trouble="refused", held=False), "layout-adoption-fails", None),
        (changed(ADOPTED, held=False), "layout-pool", None),
        (changed(ADOPTED, slice="elsewhere.slice"), "layout-pool", None),
    ],
)
def test_trouble_with_an_adoption_is_told(
    now: Adopted, code: str, slice: str | None, tmp_path: Path
) -> None:
    """What never succeeded, or is of another slice, holds nothing; what once did keeps its caps."""
    host = write(tmp_path, BASE | TWO_VHOSTS | TWO_POOLS)
    huerto = attach(TWO, Reader(str(host)).look(), CGROUPS, {HUERTO: now})[HUERTO]
    assert (huerto.why.code, huerto.slice) == (code, slice)


def test_only_a_pool_whose_user_no_other_site_has_can_be_adopted(tmp_path: Path) -> None:
    """Not one of www-data, not one of a user that sites share, not one in a master of its own."""
    shared = {HUERTO: tenant("huerto.example", "huerto"), LIBRO: tenant("libro.example", "huerto")}
    of_all = pool("huerto", "www-data") | pool("libro", "libro")
    for n, (tree, tenants) in enumerate(((of_all, TWO), (TWO_POOLS, shared))):
        assert judged(tmp_path / str(n), TWO_VHOSTS | tree, tenants)[HUERTO].adoptable is None
    alone = judged(tmp_path / "alone", TWO_VHOSTS | pool("huerto", "huerto"), TWO)[HUERTO]
    assert alone.adoptable is None and alone.why.code == "layout-unit-outside"


@pytest.mark.parametrize("slice", ["user-1004.slice", "system.slice"])
def test_nobody_is_adopted_into_a_slice_of_others(slice: str, tmp_path: Path) -> None:
    """A slice that the fleet names wrongly would hold strangers under this site's caps."""
    tenants = TWO | {HUERTO: tenant("huerto.example", "huerto", slice=slice)}
    assert judged(tmp_path, TWO_VHOSTS | TWO_POOLS, tenants)[HUERTO].adoptable is None


def test_a_cron_job_outside_is_told_and_a_newborn_worker_is_not(tmp_path: Path) -> None:
    """The worker follows in two seconds."""
    tree = TWO_VHOSTS | TWO_POOLS
    for n, (cgroup, code) in enumerate(
        ((SHARED_FPM, "layout-adopted"), ("/system.slice/cron.service", "layout-slice-leaks"))
    ):
        host = write(tmp_path / str(n), BASE | tree | process(950, 1001, cgroup))
        huerto = attach(TWO, Reader(str(host)).look(), CGROUPS, {HUERTO: ADOPTED})[HUERTO]
        assert (huerto.why.code, huerto.slice) == (code, "user-1001.slice")


TITLES = {
    1001: "php-fpm: pool huerto",
    1004: "php-fpm: pool libro",
    0: f"php-fpm: master process ({MAIN})",
}
POOLED = {SiteId("huerto"): 1001, SiteId("libro"): 1004}


@dataclass
class Kernel:
    """Processes and cgroups as files; and a systemd that moves the ones between the others. `refuses`: what."""

    root: Path
    refuses: str = ""
    done: list[Step] = field(default_factory=list)

    @property
    def cgroups(self) -> Path:
        return self.root / "sys/fs/cgroup"

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    def begin(self) -> None:
        write(self.root, BASE | TWO_VHOSTS | TWO_POOLS)
        self.born(MASTER, 0, parent=1)
        for pid, uid in ((WORKER, 1001), (OTHER, 1004)):
            self.born(pid, uid)

    def born(self, pid: int, uid: int, parent: int = MASTER, cgroup: str = SHARED_FPM) -> None:
        folder = self.proc / f"{pid}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text(status(pid, (uid,) * 4, parent=parent))
        (folder / "cmdline").write_text(f"{TITLES[uid]}\0")
        self.move(pid, cgroup)

    def move(self, pid: int, cgroup: str) -> None:
        self.leave(pid)
        (self.proc / f"{pid}/cgroup").write_text(f"0::{cgroup}\n")
        procs = self.cgroups / cgroup.lstrip("/") / "cgroup.procs"
        procs.parent.mkdir(parents=True, exist_ok=True)
        procs.write_text(f"{procs.read_text() if procs.exists() else ''}{pid}\n")

    def leave(self, pid: int) -> None:
        """Out of its cgroup, and out of the world if nobody moves it elsewhere."""
        for procs in self.cgroups.rglob("cgroup.procs"):
            others = [word for word in procs.read_text().split() if word != f"{pid}"]
            procs.write_text("".join(f"{word}\n" for word in others))

    def where(self, pid: int) -> str:
        return (self.proc / f"{pid}/cgroup").read_text().strip().rpartition("/")[2]

    def adoption(
        self,
        scopes: Scopes | None,
        tell: Callable[[Mapping[SiteId, Adopted]], None] = lambda _: None,
        *,
        everywhere: bool = True,
    ) -> Adoption:
        return Adoption(
            scopes,
            everywhere=everywhere,
            state=self.root,
            cgroups=self.cgroups,
            tell=tell,
            exporter=Exporter(AGENT),
            proc=self.proc,
            every_s=EVERY_S,
        )

    async def carry_out(self, steps: Iterable[tuple[SiteId, Step]]) -> Mapping[SiteId, str]:
        failed = {}
        for site, step in steps:
            if self.refuses == "everything":
                raise DriverError("the bus is gone")
            if self.refuses == step.scope:
                failed[site] = "refused"
                continue
            self.done.append(step)
            match step:
                case Begin() | Take():
                    for pid in step.pids:
                        self.move(pid, f"/{folder(f'user-{POOLED[site]}.slice')}/{step.scope}")
                case End():
                    (scope,) = self.cgroups.rglob(step.scope)
                    (scope / "cgroup.procs").write_text("")
        return failed


@dataclass
class Host:
    kernel: Kernel
    state: Path
    layout: Layout
    adoption: Adoption

    async def rounds(self, count: int = 3) -> None:
        """Let it look so many times more."""
        await asyncio.sleep(count * EVERY_S)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.005)

    def slice(self, site: SiteId = HUERTO) -> str | None:
        return self.layout.attached[site].slice

    def code(self) -> str:
        return self.layout.attached[HUERTO].why.code


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    made = Kernel(tmp_path / "host")
    made.begin()
    return made


@asynccontextmanager
async def running(kernel: Kernel, *, everywhere: bool = False) -> AsyncIterator[Host]:
    """An agent's part of it, just after a round."""
    layout = Layout(str(kernel.root))
    adoption = kernel.adoption(kernel, layout.adopt, everywhere=everywhere)

    async def follow() -> None:
        count = 0
        while True:
            count = await layout.changed.after(count)
            adoption.attach(layout.attached)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in (layout.keep(), adoption.keep(), follow())]
        layout.follow(TWO)
        host = Host(kernel, kernel.root, layout, adoption)
        await host.until(lambda: layout.attached)
        yield host
        for task in tasks:
            task.cancel()


async def test_nothing_is_adopted_until_somebody_asks(kernel: Kernel) -> None:
    """Then that site's workers are, the next ones within a round, and its neighbour's are not."""
    async with running(kernel) as host:
        await host.rounds()
        assert kernel.done == [] and host.slice() is None
        wish(host.state, HUERTO, adopt=True)
        await host.until(lambda: host.slice() == "user-1001.slice")
        assert kernel.where(WORKER) == SCOPE and kernel.where(OTHER) == UNIT
        kernel.born(SECOND, 1001)
        await host.until(lambda: kernel.where(SECOND) == SCOPE)
        assert kernel.done[-1] == Take(SCOPE, (SECOND,))
        await host.rounds()
        assert len(kernel.done) == 2, "what is so already is not done again"


async def test_a_host_may_adopt_all_but_those_that_are_released(kernel: Kernel) -> None:
    """What is released is not held from the next round on, wherever its workers still are."""
    async with running(kernel, everywhere=True) as host:
        await host.until(lambda: host.slice() and host.slice(LIBRO))
        assert {kernel.where(pid) for pid in (WORKER, OTHER)} == {SCOPE, scope_of(LIBRO)}
        wish(host.state, HUERTO, adopt=False)
        await host.until(lambda: host.slice() is None)
        kernel.born(SECOND, 1001)
        await host.rounds()
        assert kernel.where(SECOND) == UNIT
        assert host.slice(LIBRO) == "user-1004.slice"


async def test_a_pool_that_sleeps_stays_adopted(kernel: Kernel) -> None:
    """On demand there may be no worker, and no scope, for hours: its caps wait in its slice."""
    async with running(kernel, everywhere=True) as host:
        await host.until(host.slice)
        kernel.leave(WORKER)
        (scope,) = kernel.cgroups.rglob(SCOPE)
        (scope / "cgroup.procs").unlink()
        scope.rmdir()
        host.layout.follow({**TWO, LIBRO: tenant("libro.example", "libro", slice="x.slice")})
        await host.rounds()
        assert host.slice() == "user-1001.slice"
        kernel.born(SECOND, 1001)
        await host.until(lambda: kernel.where(SECOND) == SCOPE)


async def test_a_restart_of_the_agent_lets_nothing_go(kernel: Kernel) -> None:
    """What was adopted is known before the first look, so that no cap is lifted meanwhile."""
    async with running(kernel, everywhere=True) as host:
        await host.until(host.slice)
    kernel.refuses = "everything"
    async with running(kernel, everywhere=True) as host:
        assert host.slice() == "user-1001.slice"
        await host.rounds()
        assert host.slice() == "user-1001.slice"


def test_what_was_kept_and_can_not_be_read_is_nothing(tmp_path: Path) -> None:
    """The agent starts all the same; the next round finds out anew."""
    (tmp_path / KEPT).write_text('{"huerto": 1}')
    assert kept(tmp_path) == {}


async def test_where_systemd_refuses_workers_stay_and_it_is_said(kernel: Kernel) -> None:
    """Tried again ever more rarely, told after the third time; then it goes on as if nothing had been."""
    kernel.refuses = SCOPE
    async with running(kernel, everywhere=True) as host:
        assert host.code() == "layout-pool"
        await host.until(lambda: host.code() == "layout-adoption-fails")
        assert host.slice() is None and kernel.where(WORKER) == UNIT
        assert host.layout.attached[HUERTO].why.values["trouble"] == "refused"
        assert kernel.where(OTHER) == scope_of(LIBRO), "its neighbour has no part in it"
        kernel.refuses = ""
        await host.until(lambda: host.code() == "layout-adopted")
        assert kernel.where(WORKER) == SCOPE
        kernel.refuses = SCOPE
        kernel.born(SECOND, 1001)
        await host.until(lambda: host.code() == "layout-adopted-short")
        assert host.slice() == "user-1001.slice", "most of it is still held"


async def test_without_a_bus_everything_stays_as_it_is(kernel: Kernel) -> None:
    """What is adopted stays adopted; what is not is taken in when the bus is back."""
    async with running(kernel, everywhere=True) as host:
        await host.until(host.slice)
        kernel.refuses = "everything"
        kernel.born(SECOND, 1001)
        await host.rounds()
        assert kernel.where(SECOND) == UNIT and host.slice() == "user-1001.slice"
        kernel.refuses = ""
        await host.until(lambda: kernel.where(SECOND) == SCOPE)


async def test_a_word_that_can_not_be_read_moves_nobody(kernel: Kernel) -> None:
    """Neither in nor out: what people want is not known then."""
    async with running(kernel) as host:
        wish(host.state, HUERTO, adopt=True)
        await host.until(host.slice)
        (host.state / WISHES).write_text("{")
        kernel.born(SECOND, 1001)
        await host.rounds()
        assert kernel.where(SECOND) == UNIT and host.slice() == "user-1001.slice"
        with pytest.raises(DriverError, match="can't be read"):
            wish(host.state, HUERTO, adopt=False)


async def test_workers_that_outlived_their_master_are_ended(kernel: Kernel) -> None:
    """They would keep the next master from its sockets; what systemd itself has missed is the agent's to end."""
    async with running(kernel, everywhere=True) as host:
        await host.until(lambda: kernel.where(WORKER) == SCOPE)
        kernel.leave(MASTER)
        for pid, uid in ((WORKER, 1001), (OTHER, 1004)):
            kernel.born(pid, uid, parent=1, cgroup=f"/user.slice/user-{uid}.slice/{_scope(uid)}")
        await host.until(lambda: {End(SCOPE), End(scope_of(LIBRO))} <= set(kernel.done))


async def test_where_systemd_does_not_hold_the_caps_nothing_is_adopted(kernel: Kernel) -> None:
    """Nor does anybody say so, whatever was kept when it did."""
    async with running(kernel, everywhere=True) as host:
        await host.until(host.slice)
    adoption = kernel.adoption(None)
    assert adoption.adopted == {}
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(adoption.keep())
        async with asyncio.timeout(5):
            while kept(kernel.root):
                await asyncio.sleep(0.005)
        keeping.cancel()


async def test_an_end_needs_two_looks(kernel: Kernel) -> None:
    """In the moment in which a master executes itself anew it may be missed: nobody is taken for an orphan then."""
    adoption = kernel.adoption(kernel)
    assert adoption.due(HUERTO, (End(SCOPE),)) == ()
    assert adoption.due(HUERTO, (Take(SCOPE, (WORKER,)),)) == (Take(SCOPE, (WORKER,)),)
    assert adoption.due(HUERTO, (End(SCOPE),)) == ()
    assert adoption.due(HUERTO, (End(SCOPE),)) == (End(SCOPE),)


def _scope(uid: int) -> str:
    return scope_of(next(site for site, of in POOLED.items() if of == uid))


def test_two_masters_of_one_configuration_are_odd(kernel: Kernel) -> None:
    """Whose the workers are can't be told then: nobody is moved."""
    kernel.born(799, 0, parent=1)
    assert isinstance(kin.see({HUERTO: OF}, kernel.cgroups, kernel.proc)[HUERTO], kin.Odd)


def test_a_look_tells_who_is_where(kernel: Kernel) -> None:
    """The master by its title, of the others only the site's own; a slice that stands still; who is in a scope."""
    look = kin.see({HUERTO: OF}, kernel.cgroups, kernel.proc)[HUERTO]
    assert look == seen(replace(worker(WORKER), title=""))
    slice = kernel.cgroups / "user.slice/user-1001.slice"
    kernel.move(WORKER, f"/user.slice/user-1001.slice/{SCOPE}")
    (slice / "cgroup.freeze").write_text("1\n")
    look = kin.see({HUERTO: OF}, kernel.cgroups, kernel.proc)[HUERTO]
    assert look == replace(seen(inside=()), is_frozen=True)
    kernel.leave(MASTER)
    look = kin.see({HUERTO: OF}, kernel.cgroups, kernel.proc)[HUERTO]
    assert isinstance(look, Seen) and look.inside == (worker(WORKER),)


async def test_a_worker_whose_memory_is_swapped_out_holds_up_no_look(kernel: Kernel) -> None:
    """Its title is in that memory: where a site thrashes, each look would wait for it."""
    title = kernel.proc / f"{WORKER}/cmdline"
    title.unlink()
    os.mkfifo(title)
    look = partial(kin.see, {HUERTO: OF}, kernel.cgroups, kernel.proc)
    try:
        assert (await Lane().run(1, look))[HUERTO] == seen(replace(worker(WORKER), title=""))
    finally:
        os.close(os.open(title, os.O_RDWR | os.O_NONBLOCK))


async def test_a_release_ends_nobody_whose_master_is_not_there(kernel: Kernel) -> None:
    """Such a worker is nobody's to end, and its pid may be anybody's."""
    kernel.move(WORKER, f"/user.slice/user-1001.slice/{SCOPE}")
    assert inside(
        kernel.cgroups / "user.slice/user-1001.slice" / SCOPE, OF, kernel.cgroups, kernel.proc
    )
    kernel.leave(MASTER)
    assert await leave(HUERTO, OF, kernel.cgroups, kernel.proc, read_s=0, leave_s=0.1) == 0
