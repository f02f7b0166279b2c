"""Readings become rows of five minutes: how long a site was seen, what it used, what each plan would have meant."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.caps.limits import Case, HostFacts, limits
from agent.signals import HostSigns, Signals, SiteSigns
from agent.usage import rates
from agent.usage.bins import binned
from agent.usage.kernel import Full, Io
from agent.usage.ledger import SLOT_S, Ledger, Row, Summary, Terms, summary, terms
from agent.usage.whatif import Marks, at_cap, least, marks, plans_reached, weighted
from deploy.demo.plans import SOLIDARITY
from fleet.caps import Attachment, Level, Override, Penalty, Resource, Tenant
from fleet.model import Caps, Note, PlanId, SiteId, Why

A = SiteId("a")
SMALL, LARGE = PlanId("solidarity"), PlanId("standard")
MIB = 1 << 20
CAPS = msgspec.structs.replace(
    SOLIDARITY.caps,
    read_bytes_per_s=10 * MIB,
    write_bytes_per_s=5 * MIB,
)
PLANS: dict[PlanId, Caps] = {
    SMALL: CAPS,
    LARGE: msgspec.structs.replace(CAPS, cpu_percent=150, tasks=120),
}
CALM = HostSigns(cores=4, memory_total_bytes=1 << 36, memory_available_bytes=1 << 35)
NO_TERMS = Terms()
NOON = 1_795_255_200.0  # Unix s, the beginning of a slot


def signals(at: float, **sites: SiteSigns) -> Signals:
    return Signals(at=at, host=CALM, sites={SiteId(id): signs for id, signs in sites.items()})


def busy(cores: float | None, tasks: int | None = None) -> SiteSigns:
    return SiteSigns(attachment=Attachment.SLICE, cpu_cores=cores, tasks=tasks)


def mirrored(parts: int, **each: float) -> SiteSigns:
    """A site of so many cgroups, each of which does this per second on both members of a mirror."""
    did = Io(**{name.removesuffix("_per_s"): int(rate) for name, rate in each.items()})
    after = Full(1.0, io={"8:0": did, "8:16": did})
    return rates.together([rates.full(Full(0.0, io={}), after, SiteSigns())] * parts)


@pytest.mark.parametrize(
    ("signs", "found"),
    [
        (busy(0.94), set()),
        (busy(0.95), {Resource.CPU}),
        (busy(None), set()),
        (SiteSigns(memory_bytes=500 * MIB), {Resource.MEMORY}),
        (SiteSigns(memory_bytes=500 * MIB, anon_bytes=100 * MIB), set()),
        (SiteSigns(tasks=76), {Resource.TASKS}),
        (SiteSigns(write_ops_per_s=480.0), {Resource.IO}),
        (mirrored(1, write_bytes_per_s=2.6 * MIB), set()),
        (mirrored(1, write_bytes_per_s=4.9 * MIB), {Resource.IO}),
        (mirrored(2, write_bytes_per_s=2.6 * MIB), {Resource.IO}),
        (mirrored(1, write_ops_per_s=300.0), set()),
        (mirrored(1, read_bytes_per_s=9.9 * MIB), {Resource.IO}),
        (SiteSigns(read_bytes_per_s=10.0 * MIB, cpu_cores=1.0), {Resource.IO, Resource.CPU}),
        (SiteSigns(), set()),
    ],
)
def test_at_the_cap_is_told_by_resource(signs: SiteSigns, found: set[Resource]) -> None:
    """From 95 % of a cap on; page cache is no memory of its own; what is not known reaches nothing.

    A disk is held by itself: it is the busiest one that reaches a cap, never the sum of a mirror's members.
    """
    assert at_cap(signs, marks(CAPS, 4, has_swap=False)) == found


def test_a_larger_plan_is_reached_later() -> None:
    """Each plan is judged by its own caps."""
    held = {plan: marks(caps, 4, has_swap=False) for plan, caps in PLANS.items()}
    assert plans_reached(busy(1.2), held, least(held.values())) == (SMALL,)
    assert plans_reached(busy(1.5), held, least(held.values())) == (SMALL, LARGE)


@given(
    caps=st.fixed_dictionaries(
        {
            "cpu_percent": st.integers(100, 6400),
            "memory_max_bytes": st.integers(64 * MIB, 1 << 38),
            "memory_high_ratio": st.floats(0.5, 1),
            "swap_max_ratio": st.sampled_from([0.0, 0.1, 1.0]),
            "tasks": st.integers(16, 5000),
            "read_bytes_per_s": st.integers(MIB, 1 << 33),
            "write_bytes_per_s": st.integers(MIB, 1 << 33),
            "read_iops": st.integers(10, 1 << 20),
            "write_iops": st.integers(10, 1 << 20),
        }
    ),
    cores=st.integers(1, 256),
    has_swap=st.booleans(),
)
def test_what_a_host_would_hold_is_where_the_cap_begins(
    caps: dict[str, float], cores: int, has_swap: bool
) -> None:
    """Use at the numbers that the kernel would be given is at the cap; a tenth below it is not; of each by itself."""
    plan = msgspec.structs.replace(CAPS, **caps)
    facts = HostFacts(cores=cores, has_swap=has_swap, devices=("8:0",))
    held = limits(Case(caps=plan, facts=facts)).limits
    assert held.cpu_quota_us is not None and held.memory_max_bytes is not None
    memory = held.memory_high_bytes or held.memory_max_bytes
    assert memory <= held.memory_max_bytes
    disk = msgspec.structs.asdict(held.io["8:0"])
    mark = marks(plan, cores, has_swap=has_swap)
    for ratio, reached in ((1.0, True), (0.9, False)):
        cores_used, bytes_used = ratio * held.cpu_quota_us / 1e6, int(ratio * memory)
        cases = (
            (Resource.CPU, SiteSigns(cpu_cores=cores_used)),
            (Resource.MEMORY, SiteSigns(memory_bytes=bytes_used)),
            (Resource.MEMORY, SiteSigns(memory_bytes=1 << 40, anon_bytes=bytes_used)),
            (Resource.TASKS, SiteSigns(tasks=int(ratio * (held.tasks_max or 0)))),
            *(
                (Resource.IO, msgspec.convert({field: ratio * rate}, SiteSigns))
                for field, rate in disk.items()
            ),
        )
        for resource, signs in cases:
            assert at_cap(signs, mark) == ({resource} if reached else set()), (ratio, signs)


def test_a_plan_is_compared_as_its_host_would_hold_it() -> None:
    """Half of the host's cores at most, and from memory.high on where host and plan have swap; swap may come later."""
    large = msgspec.structs.replace(CAPS, cpu_percent=300, memory_max_bytes=1 << 30, tasks=500)
    plans, ledger = terms({LARGE: large}, {A: Tenant(plan=LARGE)}, [], NOON), Ledger()

    def minute(begin: float, signs: SiteSigns, *, has_swap: bool = False, cores: float = 4) -> Row:
        host = msgspec.structs.replace(CALM, has_swap=has_swap, cores=cores)
        for now in (begin, begin + 10.0):
            ledger.add(Signals(at=now, host=host, sites={A: signs}), {A}, plans, NOON + now)
        (row,) = ledger.close()
        return row

    at_high = SiteSigns(cpu_cores=0.1, memory_bytes=int(0.9 * (1 << 30)))
    found = (
        minute(0, busy(2.0)),
        minute(20, busy(2.0), cores=8),
        minute(40, busy(3.0), cores=8),
        minute(60, at_high),
        minute(80, at_high, has_swap=True),
    )
    held = [10.0, 0.0, 10.0, 0.0, 10.0]
    assert [row.at_cap_s[LARGE] for row in found] == held
    assert [row.shadow_s for row in found] == held


@given(
    st.lists(
        st.fixed_dictionaries({name: st.integers(1, 1000) for name in Marks.__struct_fields__}),
        min_size=1,
        max_size=4,
    ),
    st.fixed_dictionaries(
        {
            name: st.none() | st.integers(0, 1200)
            for name in (
                "cpu_cores",
                "memory_bytes",
                "tasks",
                "read_bytes_per_s",
                "write_ops_per_s",
            )
        }
    ),
)
def test_who_reaches_none_of_the_smallest_caps_reaches_no_plan(
    plans: list[dict[str, int]], use: dict[str, int | None]
) -> None:
    """The short way gives what the long way gives."""
    named = {PlanId(f"p{n}"): msgspec.convert(each, Marks) for n, each in enumerate(plans)}
    signs = msgspec.convert(use, SiteSigns)
    long = tuple(plan for plan, each in named.items() if at_cap(signs, each))
    assert plans_reached(signs, named, least(named.values())) == long


pairs = st.lists(
    st.tuples(st.floats(0, 1e12, allow_subnormal=False), st.floats(0.01, 20)),
    min_size=1,
    max_size=30,
)


@given(pairs)
def test_a_summary_lies_within_what_was_seen(values: list[tuple[float, float]]) -> None:
    """Average and percentile between the least and the most; the percentile is a value that was seen."""
    found = summary(values)
    seen = [value for value, _ in values]
    assert found.max == max(seen)
    assert min(seen) * 0.999 <= found.average <= max(seen)
    assert found.p95 in seen


@given(pairs)
def test_a_percentile_leaves_one_twentieth_of_the_time_above(
    values: list[tuple[float, float]],
) -> None:
    """By weight, not by count."""
    limit, total = weighted(values, 0.95), sum(weight for _, weight in values)
    assert sum(weight for value, weight in values if value > limit) <= 0.0501 * total


def fill(ledger: Ledger, cores: list[float], terms: Terms = NO_TERMS) -> tuple[Row, ...]:
    """Readings 10 s apart from NOON on, and the rows that the next slot's first round gives."""
    for n, used in enumerate(cores):
        now = n * 10.0
        assert ledger.add(signals(now, a=busy(used, tasks=4)), {A}, terms, NOON + now) == ()
    return ledger.add(signals(300.0), set(), terms, NOON + 300)


def test_five_minutes_become_one_row() -> None:
    """Average, 95th percentile and maximum by time; the time at each plan's cap."""
    (row,) = fill(Ledger(), [0.0, *[0.5] * 27, 1.3, 1.6], terms(PLANS, {}, [], NOON))
    assert (row.site, row.slot, row.seen_s) == (A, NOON // SLOT_S, 290.0)
    assert row.measures["cpu_cores"].average == pytest.approx((27 * 0.5 + 1.3 + 1.6) / 29)
    assert (row.measures["cpu_cores"].p95, row.measures["cpu_cores"].max) == (1.3, 1.6)
    assert row.measures["tasks"] == Summary(4.0, 4.0, 4.0)
    assert "memory_bytes" not in row.measures, "not known is not kept as zero"
    assert row.at_cap_s == {SMALL: 20.0, LARGE: 10.0}
    assert row.shadow_s == 0.0


def test_shadow_counts_what_would_have_been_held() -> None:
    """By a site's own caps where they are not enforced, or by a penalty in shadow."""
    (row,) = fill(Ledger(), [0.0, 0.5, 1.1, 1.2], Terms(shadowed={A: CAPS}))
    assert row.shadow_s == 20.0
    (row,) = fill(Ledger(), [0.0, 0.5, 1.1], Terms(slowed=frozenset({A})))
    assert row.shadow_s == 20.0


def test_a_pause_is_not_counted_as_use() -> None:
    """A machine that slept for an hour used nothing that anybody saw."""
    ledger = Ledger()
    ledger.add(signals(0.0, a=busy(2.0)), {A}, terms(PLANS, {}, [], NOON), NOON)
    ledger.add(signals(200.0, a=busy(2.0)), {A}, terms(PLANS, {}, [], NOON), NOON + 200)
    (row,) = ledger.close()
    assert (row.seen_s, row.at_cap_s[SMALL]) == (15.0, 15.0)


def test_a_pause_is_not_counted_twice() -> None:
    """Also where a slot ended in it: one reading stands for LONGEST_S at most, before and after together."""
    ledger = Ledger()
    for now in (0.0, 290.0):
        ledger.add(signals(now, a=busy(2.0)), {A}, NO_TERMS, NOON + now)
    (row,) = ledger.add(signals(306.0, a=busy(2.0)), {A}, NO_TERMS, NOON + 306)
    assert (row.seen_s, ledger.close()[0].seen_s) == (15.0 + 9.0, 6.0)


@pytest.mark.parametrize("every_s", [2.0, 10.0])
@pytest.mark.parametrize("begin", [0.0, 1.5])
def test_no_second_is_lost_between_two_rows(begin: float, every_s: float) -> None:
    """A site that is there all the time was seen 300 s of each 300, however its readings lie in them."""
    rows: list[Row] = []
    ledger, now = Ledger(), begin
    while now < 1500:
        rows += ledger.add(signals(now, a=busy(0.5)), {A}, terms(PLANS, {}, [], NOON), NOON + now)
        now += every_s
    assert [row.seen_s for row in rows] == [300.0 - begin, 300.0, 300.0, 300.0]
    assert {row.measures["cpu_cores"] for row in rows} == {Summary(0.5, 0.5, 0.5)}


def test_a_site_that_is_not_read_anew_loses_no_second_either() -> None:
    """Idle ones are read each ten seconds, and a slot may end between two readings."""
    rows: list[Row] = []
    ledger = Ledger()
    for n in range(-3, 460):
        now = 2.0 * n
        fresh = {A} if n % 5 == 0 else set()
        rows += ledger.add(signals(now, a=busy(0.5)), fresh, NO_TERMS, NOON + now)
    assert [row.seen_s for row in rows] == [6.0, 300.0, 300.0, 300.0]


def test_a_clock_that_was_set_makes_no_time() -> None:
    """However far, and to which side: together the rows have the seconds that passed."""
    for step in (-7200.0, -3.0, 3.0, 250.0, 7200.0):
        rows: list[Row] = []
        ledger = Ledger()
        for n in range(200):
            wall = NOON + 100 + 2.0 * n + step * (n >= 50)
            rows += ledger.add(signals(2.0 * n, a=busy(0.5)), {A}, NO_TERMS, wall)
        rows += ledger.close()
        assert sum(row.seen_s for row in rows) == pytest.approx(398.0)
        assert all(0 < row.seen_s <= 306.0 for row in rows)


@pytest.mark.parametrize("asked", [None, 0.5])
def test_what_nobody_could_tell_is_not_seen(asked: float | None) -> None:
    """A slice that worked for half a minute and is gone was seen for that long, and weighs no more than that.

    Also where an access log goes on to tell how often the site is asked.
    """
    ledger, plans = Ledger(), terms(PLANS, {}, [], NOON)
    gone = SiteSigns(requests_per_s=asked)
    for n in range(150):
        signs = msgspec.structs.replace(gone, cpu_cores=2.0, tasks=4) if n <= 15 else gone
        ledger.add(signals(2.0 * n, a=signs), {A}, plans, NOON + 2 * n)
    (row,) = ledger.add(signals(300.0, a=gone), {A}, plans, NOON + 300)
    assert (row.seen_s, row.measures["cpu_cores"].average) == (30.0, 2.0)
    assert row.at_cap_s[SMALL] == 30.0
    quiet = Row(site=A, slot=row.slot + 1, seen_s=300.0, measures={"cpu_cores": Summary(0, 0, 0)})
    (both,) = binned([row, quiet], 86_400, lambda _: None)
    assert both.cpu_cores is not None
    assert both.cpu_cores.average == pytest.approx(2.0 * 30 / 330, abs=0.001)


def test_a_site_of_which_only_a_log_tells_is_seen_by_that() -> None:
    """What the kernel never saw has its rows all the same."""
    ledger = Ledger()
    for n in range(151):
        found = ledger.add(
            signals(2.0 * n, a=SiteSigns(requests_per_s=1.0)), {A}, NO_TERMS, 2.0 * n
        )
    assert (found[0].seen_s, set(found[0].measures)) == (300.0, {"requests_per_s"})


def test_an_idle_site_that_is_not_read_anew_stands_as_it_was() -> None:
    """Its last reading counts each ten seconds, so that a quiet site has a row too."""
    ledger = Ledger()
    for n in range(51):
        ledger.add(signals(2.0 * n, a=busy(0.0)), set(), Terms(), NOON + 2 * n)
    (row,) = ledger.close()
    assert row.seen_s == 100.0


def test_terms_follow_plan_override_enforcement_and_penalties() -> None:
    """In shadow: never enforced, or not yet; the caps are the plan's with an override that has not ended."""
    note = Note(since=0.0, until=200.0, owner="ana", reason="campaign")
    held = Tenant(plan=SMALL, enforced_from=50.0)
    later = Tenant(plan=SMALL, enforced_from=150.0)
    more = Tenant(plan=SMALL, override=Override(caps={"cpu_percent": 400}, note=note))
    lost = Tenant(plan=PlanId("gone"))
    ids = {name: SiteId(name) for name in ("held", "later", "more", "lost")}
    tenants = dict(zip(ids.values(), (held, later, more, lost), strict=True))

    def penalty(site: str, level: Level, *, enforced: bool = False) -> Penalty:
        return Penalty(
            site=SiteId(site),
            level=level,
            resource=Resource.CPU,
            since=0.0,
            until=150.0,
            why=Why("x"),
            enforced=enforced,
        )

    penalties = [
        penalty("held", Level.CAP, enforced=True),
        penalty("later", Level.SOFT),
        # The memory watchdog's relief would have taken nothing.
        msgspec.structs.replace(penalty("eased", Level.CAP), resource=Resource.MEMORY),
        penalty("more", Level.WATCH),
    ]
    found = terms(PLANS, tenants, penalties, 100.0)
    assert found.shadowed.keys() == {"later", "more"}
    assert found.shadowed[ids["more"]].cpu_percent == 400
    assert found.slowed == {"later"}
    assert terms(PLANS, tenants, penalties, 300.0).slowed == frozenset()
    assert terms(PLANS, tenants, penalties, 300.0).shadowed[ids["more"]].cpu_percent == 100
