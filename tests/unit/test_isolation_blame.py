"""Who is not to blame: what waits for the host itself, or for its own limits, is held against no site."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.isolate import Change, House, Policy, State, decide
from agent.isolate.attribution import fall
from agent.isolate.own import Own
from agent.isolate.policy import CONTENDED
from agent.isolate.state import Frame, Part, Record, Step
from agent.signals import HostSigns, Signals, SiteSigns
from fleet.caps import Attachment, Level, Resource, Ruling, Tenant
from fleet.model import Note, SiteId, Why
from tests.hogs import CAPS, MIB, PLAN, WALL

SHOP, NEWS = SiteId("shop"), SiteId("news")
SMALL = [SiteId(f"n{n}") for n in range(18)]
ROUND_S, CORES = 2.0, 8.0
CALM = HostSigns(
    cores=CORES,
    memory_total_bytes=int(16_384 * MIB),
    memory_available_bytes=int(8192 * MIB),
    has_swap=True,
    cpu_stall=0.02,
    memory_stall=0.0,
    io_stall=0.01,
    forks_per_s=5.0,
    io_bytes_per_s=0.0,
    io_ops_per_s=0.0,
)
QUIET = SiteSigns(
    attachment=Attachment.SLICE,
    cpu_cores=0.05,
    throttled_ratio=0.0,
    cpu_stall=0.001,
    memory_bytes=int(60 * MIB),
    anon_bytes=int(60 * MIB),
    memory_stall=0.0,
    scanned_per_s=0.0,
    stolen_per_s=0.0,
    read_bytes_per_s=0.0,
    write_bytes_per_s=0.0,
    read_ops_per_s=0.0,
    write_ops_per_s=0.0,
    io_stall=0.0,
    tasks=5,
)


def waits(share: float, cores: float = 0.05) -> float:
    """The stall of a site that works `cores`, so that `share` of its busy time is waiting."""
    return share / (1 - share) * cores


@dataclass(slots=True)
class Host:
    """Twenty sites by hand: `look(second)` gives the host's signs and those of the sites that are not quiet."""

    look: Callable[[float], tuple[HostSigns, dict[SiteId, SiteSigns]]]
    policy: Policy = Policy()  # noqa: RUF009 - frozen
    state: State = field(default_factory=State)
    now: float = 0.0
    asked: set[str] = field(default_factory=set)

    def play(self, for_s: float) -> list[tuple[float, Change]]:
        """Every change of those seconds."""
        return [*self._changes(for_s)]

    def _changes(self, for_s: float) -> Iterator[tuple[float, Change]]:
        ends = self.now + for_s
        sites = (SHOP, NEWS, *SMALL)
        tenants = dict.fromkeys(sites, Tenant(plan=PLAN, enforced_from=0.0))
        house = House(plans={PLAN: CAPS}, tenants=tenants, rulings={})
        while self.now < ends:
            self.now += ROUND_S
            host, told = self.look(self.now)
            signals = Signals(at=self.now, host=host, sites=dict.fromkeys(sites, QUIET) | told)
            decision = decide(self.state, signals, house, self.policy, self.now, WALL + self.now)
            self.state = decision.state
            self.asked |= {why.code for why in decision.asks}
            yield from ((self.now, change) for change in decision.changes)


def grips(changes: Sequence[tuple[float, Change]]) -> list[tuple[float, SiteId, float]]:
    """When who was held, and what it was left."""
    return [(at, one.site, one.share) for at, one in changes if one.to >= Level.SOFT]


def large_beside_a_job(
    busy_cores: float | None, *, begins_s: float, rises: float = 1.0
) -> Callable[[float], tuple[HostSigns, dict[SiteId, SiteSigns]]]:
    """The shop takes 45 % of the CPUs all the time, `rises` as much from `begins_s` on; then all wait, evenly."""

    def look(at: float) -> tuple[HostSigns, dict[SiteId, SiteSigns]]:
        cores, stalled = 0.45 * CORES, at >= begins_s
        calm = msgspec.structs.replace(CALM, busy_cores=busy_cores and cores + 1.0)
        if not stalled:
            quiet = msgspec.structs.replace(QUIET, cpu_cores=cores / rises)
            return calm, {SHOP: quiet}
        host = msgspec.structs.replace(CALM, cpu_stall=0.6, busy_cores=busy_cores)
        wait = msgspec.structs.replace(QUIET, cpu_stall=waits(0.5))
        shop = msgspec.structs.replace(QUIET, cpu_cores=cores, cpu_stall=0.5)
        return host, dict.fromkeys((NEWS, *SMALL), wait) | {SHOP: shop}

    return look


def test_the_largest_site_is_not_to_blame_for_a_job_of_the_host() -> None:
    """It takes what it took on other days; that all wait evenly since a job of the host began is not its doing."""
    for busy in (CORES, None):
        host = Host(large_beside_a_job(busy, begins_s=200.0))
        assert grips(host.play(400.0)) == []
        assert host.asked == {"isolation-no-culprit"}


def test_who_is_large_as_never_before_is_told_by_it_alone() -> None:
    """What is usual is known; now it is nearly twice that, and all wait in each round that is looked at."""
    host = Host(large_beside_a_job(0.45 * CORES + 1.2, begins_s=200.0, rises=1.8))
    held = grips(host.play(240.0))
    assert held and {site for _, site, _ in held} == {SHOP}


def test_a_host_that_is_never_calm_knows_no_other_day() -> None:
    """Time that was all trouble taught nothing: what was never seen otherwise is not called new."""
    host = Host(large_beside_a_job(CORES, begins_s=0.0), policy=Policy(learn_s=200.0))
    assert grips(host.play(400.0)) == []


def test_who_is_not_known_yet_is_not_to_blame_for_what_the_host_may_do() -> None:
    """An agent that begins in the middle of it knows no other day: a large part accuses where the rest is known and
    small, and nowhere else.
    """
    for busy, held in ((CORES, False), (None, False), (0.45 * CORES + 1.2, True)):
        host = Host(large_beside_a_job(busy, begins_s=0.0))
        assert bool(grips(host.play(100.0))) is held, busy


def held_by(
    usual: float, loud: float, eased: float
) -> Callable[[float], tuple[HostSigns, dict[SiteId, SiteSigns]]]:
    """All wait `usual` of their busy time; from 60 s on, by the shop, `loud`, and from 66 s on, once held, `eased`."""

    def look(at: float) -> tuple[HostSigns, dict[SiteId, SiteSigns]]:
        share = usual if at < 60 else loud if at < 66 else eased
        share += 0.01 if at % 4 else -0.01
        cores = 0.1 if at < 60 else 4.0 if at < 66 else 2.0
        host = msgspec.structs.replace(CALM, cpu_stall=0.8, busy_cores=cores + 1.2)
        shop = msgspec.structs.replace(QUIET, cpu_cores=cores, cpu_stall=0.5)
        wait = msgspec.structs.replace(QUIET, cpu_stall=waits(share))
        return host, dict.fromkeys((NEWS, *SMALL), wait) | {SHOP: shop}

    return look


@pytest.mark.parametrize(
    ("usual", "loud", "eased", "becomes"),
    [
        # Four seconds of waiting for each of work became two: that is half, though 80 % became 67 %.
        (0.02, 0.80, 0.66, ["isolation-persists"]),
        # What it added to a host that is never calm is nearly gone.
        (0.45, 0.58, 0.47, []),
        # A third of it went: it is the right one, and more of the same is due.
        (0.02, 0.80, 0.73, ["isolation-partly"]),
        # Less than a fifth: it was somebody else.
        (0.02, 0.80, 0.79, ["isolation-unhelpful"]),
        (0.45, 0.58, 0.575, ["isolation-unhelpful"]),
    ],
)
def test_help_is_what_goes_of_what_the_site_added(
    usual: float, loud: float, eased: float, becomes: list[str]
) -> None:
    """By the waiting for each second of work, beyond what there was before: a share of the time saturates."""
    host = Host(held_by(usual, loud, eased))
    changes = [*host.play(98.0)]
    assert [one.to for _, one in changes][:1] == [Level.SOFT]
    assert [one.why.code for _, one in changes[1:]] == becomes


def at_their_own_disk_limit(at: float) -> tuple[HostSigns, dict[SiteId, SiteSigns]]:
    """From 60 s on two backups write what each of them may, on a disk that does ten times as much."""
    if at < 60:
        return CALM, {}
    host = msgspec.structs.replace(
        CALM, io_stall=0.6, busy_cores=2.0, io_bytes_per_s=50 * MIB, io_ops_per_s=100.0
    )
    rate = float(CAPS.write_bytes_per_s)
    backup = msgspec.structs.replace(QUIET, cpu_cores=0.1, write_bytes_per_s=rate, io_stall=0.8)
    return host, {
        SHOP: msgspec.structs.replace(backup, write_bytes_per_s=0.99 * rate),
        NEWS: backup,
    }


def at_their_own_memory_high(at: float) -> tuple[HostSigns, dict[SiteId, SiteSigns]]:
    """From 60 s on two sites reclaim from themselves, each at its own mark; half of the host's memory is free."""
    if at < 60:
        return CALM, {}
    host = msgspec.structs.replace(CALM, memory_stall=0.3, busy_cores=2.0)
    full = msgspec.structs.replace(
        QUIET,
        cpu_cores=0.3,
        anon_bytes=CAPS.memory_max_bytes,
        memory_stall=0.5,
        memory_high_hits=40,
        scanned_per_s=30_000.0,
        stolen_per_s=15_000.0,
    )
    return host, {SHOP: full, NEWS: msgspec.structs.replace(full, scanned_per_s=29_000.0)}


@pytest.mark.parametrize("look", [at_their_own_disk_limit, at_their_own_memory_high])
@pytest.mark.parametrize("are_dark", [False, True])
def test_who_waits_for_a_limit_of_its_own_is_nobodys_victim(
    look: Callable[[float], tuple[HostSigns, dict[SiteId, SiteSigns]]], *, are_dark: bool
) -> None:
    """What two sites wait for their own plans is not each other's doing, nor is it the host's word for sites of which
    nothing is told.
    """

    def seen(at: float) -> tuple[HostSigns, dict[SiteId, SiteSigns]]:
        host, sites = look(at)
        dark = dict.fromkeys(SMALL, SiteSigns(attachment=Attachment.POOL)) if are_dark else {}
        return host, dark | sites

    host = Host(seen)
    assert (grips(host.play(200.0)), host.asked) == ([], set())


def test_a_victim_beside_them_still_counts() -> None:
    """The disk that two backups fill makes neighbours wait who are far from limits of their own: that is contention."""

    def look(at: float) -> tuple[HostSigns, dict[SiteId, SiteSigns]]:
        host, sites = at_their_own_disk_limit(at)
        hurt = msgspec.structs.replace(QUIET, io_stall=waits(0.5) if at >= 60 else 0.0)
        return host, dict.fromkeys(SMALL, hurt) | sites

    held = grips(Host(look).play(90.0))
    assert {site for _, site, _ in held} == {NEWS}


CPU, IO, MEMORY, TASKS = Resource.CPU, Resource.IO, Resource.MEMORY, Resource.TASKS
EGRESS = Resource.EGRESS


def waiting(
    step: Step | None,
    ruling: Ruling | None = None,
    *,
    armed: bool = False,
    taken: Sequence[Resource] = (),
) -> set[Resource]:
    """What the shop waits for by what holds it."""
    tenant = Tenant(plan=PLAN, enforced_from=0.0 if armed else None)
    house = House(
        plans={PLAN: CAPS}, tenants={SHOP: tenant}, rulings={SHOP: ruling} if ruling else {}
    )
    limits = Own({SHOP: Record(step=step)}, house, WALL, {SHOP: taken})
    found = {on for on in Resource if limits.waits(SHOP, QUIET, on)}
    assert limits.is_held(SHOP) is bool(found)
    return found


@pytest.mark.parametrize(
    ("level", "resource", "own"),
    [
        (Level.WATCH, CPU, set()),
        # From a soft step on it goes last for the CPU and the disks, whatever it is held for.
        (Level.SOFT, CPU, {CPU, IO}),
        (Level.CAP, CPU, {CPU, IO, TASKS}),
        (Level.CAP, MEMORY, {CPU, IO, TASKS, MEMORY}),
        (Level.ISOLATE, EGRESS, {CPU, IO, TASKS, EGRESS}),
    ],
)
def test_who_is_held_waits_for_that(level: Level, resource: Resource, own: set[Resource]) -> None:
    """A penalty makes its site wait for what it takes, and to go last; in shadow nothing is held."""
    why = Why("isolation-blunt")
    also = {TASKS: Part(share=0.5, since=0.0, why=why)} if level >= Level.CAP else {}
    step = Step(
        level=level, resource=resource, since=0.0, until=9.0, why=why, enforced=True, also=also
    )
    assert waiting(step, armed=True) == own
    assert waiting(step) == set()  # back in shadow
    assert waiting(msgspec.structs.replace(step, enforced=False), armed=True) == set()


@pytest.mark.parametrize(
    ("level", "own"),
    [
        (Level.WATCH, set()),
        (Level.SOFT, {CPU, IO}),
        (Level.CAP, {CPU, IO, MEMORY}),
        (Level.ISOLATE, {CPU, IO, MEMORY}),
    ],
)
def test_whom_a_person_holds_waits_for_that(level: Level, own: set[Resource]) -> None:
    """In shadow too, and in the place of what relevo decided; once it is over, no longer."""
    step = Step(
        level=Level.CAP, resource=TASKS, since=0, until=9, why=Why("isolation-blunt"), enforced=True
    )
    note = Note(owner="ana", reason="r", since=WALL - 9, until=WALL + 9)
    word = Ruling(word="quarantine", level=level, note=note)
    taken = (CPU, MEMORY) if level >= Level.CAP else ()
    assert waiting(None, word, taken=taken) == own
    assert waiting(step, word, armed=True, taken=taken) == own
    over = msgspec.structs.replace(word, note=msgspec.structs.replace(note, until=WALL))
    assert waiting(None, over, taken=taken) == set()
    assert waiting(None, Ruling(word="release", level=level, note=note)) == set()


ratios = st.floats(0, 1)


@given(ratios, ratios, ratios, st.sampled_from(CONTENDED))
def test_help_is_never_more_than_all(
    before: float, usual: float, now: float, resource: Resource
) -> None:
    """Whatever was measured; and who waits no less than before was not helped."""
    why = Why("isolation-blunt")
    step = Step(
        level=Level.CAP,
        resource=resource,
        since=0.0,
        until=9.0,
        why=why,
        before=before,
        usual=usual,
    )
    fell = fall(step, [Frame(at=0.0, stall={resource: now}, sites={})], 10.0)
    assert math.isfinite(fell) and fell <= 1
    assert now < before or fell <= 0
