"""From plan, override, penalty and host to what the kernel should hold."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.caps.limits import (
    FREE,
    LEAST_CPU_US,
    PERCENT_US,
    Case,
    HostFacts,
    limits,
    roomiest,
)
from agent.caps.steps import MARGIN_BYTES, STEP_RATIO, STEP_S, InUse, Steps, in_steps
from deploy.demo import plans
from fleet.caps import IoLimit, Level, Limits, Nature, Override, Penalty, Resource, effective
from fleet.model import Caps, Note, SiteId, Why

MB, GB = 1 << 20, 1 << 30
STANDARD = msgspec.structs.replace(
    plans.STANDARD.caps,
    read_bytes_per_s=20 * MB,
    write_bytes_per_s=10 * MB,
)
SMALL = msgspec.structs.replace(STANDARD, memory_max_bytes=512 * MB)
HOST = HostFacts(cores=16, devices=("8:0", "8:16"), has_swap=True)
DISK = IoLimit(
    read_bytes_per_s=20 * MB, write_bytes_per_s=10 * MB, read_ops_per_s=2000, write_ops_per_s=1000
)
NOTE = Note(owner="ana", reason="campaign", since=0, until=100)


def penalty(level: Level, resource: Resource = Resource.CPU, share: float = 1.0) -> Penalty:
    return Penalty(
        site=SiteId("shop"),
        level=level,
        resource=resource,
        nature=Nature.HEAVY,
        share=share,
        since=0,
        until=300,
        why=Why("cap-soft"),
        enforced=True,
    )


def case(*penalties: Penalty, caps: Caps = STANDARD, facts: HostFacts = HOST) -> Case:
    return Case(caps=caps, facts=facts, penalties=penalties)


def test_a_plan_becomes_the_kernels_own_numbers() -> None:
    """Standard of the reference's plans, on a host with swap and two disks."""
    assert limits(case()).limits == Limits(
        cpu_weight=100,
        cpu_quota_us=1_500_000,
        memory_high_bytes=int(0.9 * GB) // 4096 * 4096,
        memory_max_bytes=GB,
        memory_low_bytes=96 * MB,
        swap_max_bytes=GB // 10 // 4096 * 4096,
        tasks_max=120,
        io={"8:0": DISK, "8:16": DISK},
    )


def changed(*penalties: Penalty, facts: HostFacts = HOST, caps: Caps = STANDARD) -> dict[str, Any]:
    """What differs from the plan alone on a plain host."""
    plain = limits(case(caps=caps)).limits
    held = limits(case(*penalties, facts=facts, caps=caps)).limits
    return {
        name: getattr(held, name)
        for name in Limits.__struct_fields__
        if getattr(held, name) != getattr(plain, name)
    }


SWAPLESS = HostFacts(cores=16, devices=HOST.devices, has_swap=False)
DISKLESS = HostFacts(cores=16, has_swap=True)


@pytest.mark.parametrize(
    ("penalties", "facts", "expected"),
    [
        ((penalty(Level.WATCH),), HOST, {}),
        ((penalty(Level.SOFT),), HOST, {"cpu_weight": 20}),
        (
            (penalty(Level.CAP, Resource.CPU, 0.5),),
            HOST,
            {"cpu_weight": 20, "cpu_quota_us": 750_000},
        ),
        (
            (penalty(Level.CAP, Resource.CPU, 0.05),),
            HOST,
            {"cpu_weight": 20, "cpu_quota_us": LEAST_CPU_US},
        ),
        (
            (penalty(Level.CAP, Resource.TASKS, 0.25),),
            HOST,
            {"cpu_weight": 20, "tasks_max": 30},
        ),
        (
            (penalty(Level.CAP, Resource.MEMORY, 0.5),),
            HOST,
            {
                "cpu_weight": 20,
                "memory_high_bytes": int(0.45 * GB) // 4096 * 4096,
                "memory_low_bytes": 0,
            },
        ),
        ((penalty(Level.CAP, Resource.MEMORY),), HOST, {"memory_high_bytes": None}),
        (
            (penalty(Level.CAP, Resource.MEMORY, 0.5),),
            SWAPLESS,
            {
                "cpu_weight": 20,
                "memory_high_bytes": None,
                "memory_max_bytes": GB // 2,
                "memory_low_bytes": 0,
                "swap_max_bytes": None,
            },
        ),
        ((penalty(Level.CAP, Resource.WEB, 0.5),), HOST, {"cpu_weight": 20}),
        ((penalty(Level.ISOLATE),), HOST, {"cpu_weight": 20, "egress_closed": True}),
        (
            (penalty(Level.STOP),),
            HOST,
            {"cpu_weight": 20, "egress_closed": True, "frozen": True},
        ),
        (
            (penalty(Level.CAP, Resource.CPU, 0.5), penalty(Level.CAP, Resource.CPU, 0.25)),
            HOST,
            {"cpu_weight": 20, "cpu_quota_us": 370_000},
        ),
        (
            (),
            HostFacts(cores=2, devices=HOST.devices, has_swap=True),
            {"cpu_quota_us": 1_000_000},
        ),
        (
            (),
            HostFacts(cores=16, devices=HOST.devices, has_swap=True, low_ratio=0.5),
            {"memory_low_bytes": 48 * MB},
        ),
        (
            (penalty(Level.SOFT),),
            HostFacts(cores=16, devices=HOST.devices, has_swap=True, has_io_weight=True),
            {"cpu_weight": 20, "io_weight": 20},
        ),
        ((), SWAPLESS, {"memory_high_bytes": None, "swap_max_bytes": None}),
        ((penalty(Level.CAP, Resource.IO, 0.5),), DISKLESS, {"cpu_weight": 20, "io": {}}),
        (
            (penalty(Level.CAP, Resource.IO, 0.5),),
            HostFacts(
                cores=16, has_swap=True, devices=HOST.devices, controllers=frozenset({"cpu"})
            ),
            {
                "cpu_weight": 20,
                "memory_high_bytes": None,
                "memory_max_bytes": None,
                "memory_low_bytes": 0,
                "swap_max_bytes": None,
                "tasks_max": None,
                "io": {},
            },
        ),
    ],
)  # fmt: skip
def test_each_penalty_and_each_host_changes_what_it_should_and_nothing_else(
    penalties: tuple[Penalty, ...], facts: HostFacts, expected: dict[str, Any]
) -> None:
    """One row of the table after another: only the fields named differ from the plan's."""
    assert changed(*penalties, facts=facts) == expected


def test_io_is_capped_to_a_share_of_every_disk() -> None:
    """Half of the plan's, and never under what lets a request end."""
    half = limits(case(penalty(Level.CAP, Resource.IO, 0.5))).limits.io
    assert half["8:0"] == half["8:16"]
    assert half["8:0"].read_bytes_per_s == 10 * MB
    least = limits(case(penalty(Level.CAP, Resource.IO, 0.01))).limits.io["8:0"]
    assert (least.write_bytes_per_s, least.write_ops_per_s) == (MB, 50)


@pytest.mark.parametrize("ratio", [0.0, 1e-9])
def test_a_site_that_may_not_swap_has_no_high_mark(ratio: float) -> None:
    """On a host with swap too: of a slice without any the high mark would be reclaim that frees nothing (zswap's pages
    count as swapped); a penalty lowers its maximum."""
    unswapped = msgspec.structs.replace(STANDARD, swap_max_ratio=ratio)
    told = limits(case(caps=unswapped))
    assert (told.limits.memory_high_bytes, told.limits.swap_max_bytes) == (None, 0)
    assert told.because["memory_high_bytes"] == Why("cap-no-swap-of-plan")
    assert changed(penalty(Level.CAP, Resource.MEMORY, 0.5), caps=unswapped) == {
        "cpu_weight": 20,
        "memory_max_bytes": GB // 2,
        "memory_low_bytes": 0,
    }
    dry = limits(case(caps=unswapped, facts=SWAPLESS))
    assert dry.because["memory_high_bytes"] == Why("cap-no-swap"), "the host has none for anybody"


@pytest.mark.parametrize("why", [Why("cap-no-disk"), Why("cap-disks-unseen", {"error": "gone"})])
def test_a_cap_of_io_that_holds_nothing_is_not_told_as_the_plans(why: Why) -> None:
    """Without a disk that the kernel could limit there is no limit, and its reason says so; with a penalty as well."""
    facts = replace(DISKLESS, no_disk=why)
    for penalties in ((), (penalty(Level.CAP, Resource.IO, 0.5),)):
        told = limits(case(*penalties, facts=facts))
        assert told.limits.io == {} and told.because["io"] == why
    shadow = limits(case(penalty(Level.CAP, Resource.IO, 0.5), facts=facts), in_force=False)
    assert shadow.because["io"] == why
    assert "io" not in limits(case(facts=facts), in_force=False).because


def test_every_value_has_its_reason() -> None:
    """The last row that spoke of a field says why; an override speaks where the plan would."""
    override = Override(caps={"tasks": 300}, note=NOTE)
    caps = effective(STANDARD, override, 50)
    told = limits(
        Case(
            caps=caps,
            facts=SWAPLESS,
            override=override,
            penalties=(penalty(Level.CAP, Resource.CPU, 0.5),),
        )
    )
    assert told.limits.tasks_max == 300
    assert {field: why.code for field, why in told.because.items()} == {
        "cpu_weight": "cap-soft",
        "cpu_quota_us": "cap-share",
        "memory_high_bytes": "cap-no-swap",
        "memory_max_bytes": "cap-plan",
        "memory_low_bytes": "cap-plan",
        "tasks_max": "cap-override",
        "io": "cap-plan",
    }
    assert told.because["cpu_quota_us"].values == {"percent": 50}
    assert told.because["tasks_max"].values == {"owner": "ana", "reason": "campaign"}


def test_in_shadow_a_plan_holds_nothing_and_a_person_still_can() -> None:
    """Without a penalty all is free; with one, only what the penalty is about is held."""
    assert limits(case(), in_force=False).limits == FREE
    assert limits(case(), in_force=False).because == {}
    held = limits(case(penalty(Level.ISOLATE)), in_force=False).limits
    assert held == msgspec.structs.replace(FREE, cpu_weight=20, egress_closed=True)


def test_sites_that_share_a_slice_have_the_roomiest_of_their_plans() -> None:
    """By field: none gets less than its own plan says."""
    small = msgspec.structs.replace(STANDARD, tasks=80, cpu_percent=300)
    both = roomiest([STANDARD, small])
    assert (both.tasks, both.cpu_percent) == (120, 300)
    told = limits(Case(caps=both, facts=HOST, sites=2))
    assert told.because["tasks_max"] == Why("cap-shared", {"sites": 2})


levels = st.sampled_from(list(Level))
shares = st.floats(min_value=0.01, max_value=1)
penalties = st.builds(penalty, levels, st.sampled_from(list(Resource)), shares)
hosts = st.builds(
    HostFacts,
    cores=st.floats(min_value=1, max_value=256),
    controllers=st.frozensets(st.sampled_from(["cpu", "memory", "io", "pids"])),
    devices=st.sets(st.sampled_from(["8:0", "259:0"])).map(tuple),
    has_swap=st.booleans(),
    has_io_weight=st.booleans(),
    low_ratio=st.floats(min_value=0, max_value=1),
)
ORDERED = ("cpu_quota_us", "memory_high_bytes", "memory_max_bytes", "swap_max_bytes", "tasks_max")


@example(penalties=[penalty(Level.CAP, Resource.TASKS, 0.5)], facts=HOST, tasks=10)
@given(
    penalties=st.lists(penalties, max_size=4),
    facts=hosts,
    tasks=st.integers(min_value=1, max_value=200),
)
def test_no_penalty_ever_gives_more_than_the_plan(
    penalties: list[Penalty], facts: HostFacts, tasks: int
) -> None:
    """Save the memory watchdog, which takes the high mark away and leaves the maximum; and all is in whole pages."""
    caps = msgspec.structs.replace(STANDARD, tasks=tasks)
    plain = limits(case(facts=facts, caps=caps)).limits
    told = limits(case(*penalties, facts=facts, caps=caps))
    held = told.limits
    for field in ORDERED:
        most, now = getattr(plain, field), getattr(held, field)
        if told.because.get(field, Why("")).code == "cap-futile":
            assert now is None
        else:
            assert (now is None) == (most is None)
            assert most is None or 0 <= now <= most
    assert held.cpu_weight <= plain.cpu_weight
    assert held.io.keys() == plain.io.keys()
    assert held.cpu_quota_us is None or held.cpu_quota_us % PERCENT_US == 0
    assert held.cpu_quota_us is None or held.cpu_quota_us >= min(LEAST_CPU_US, 50 * PERCENT_US)
    sizes = (held.memory_high_bytes, held.memory_max_bytes, held.memory_low_bytes)
    assert all(size is None or size % 4096 == 0 for size in sizes)
    assert told.because.keys() >= {f for f in ORDERED if getattr(held, f) != getattr(FREE, f)}


@example(used=8 * GB, swap=True)
@example(used=GB, swap=True)
@given(used=st.integers(min_value=0, max_value=8 * GB), swap=st.booleans())
def test_memory_goes_down_in_steps_and_never_under_what_is_used(used: int, swap: bool) -> None:
    """Each step leaves the maximum over what is used and the high mark at most a tenth under it, and the last is it."""
    wanted = limits(case(facts=HOST if swap else SWAPLESS)).limits
    held = None
    for _ in range(60):
        held = now = in_steps(wanted, InUse(all_bytes=used), held)
        assert now.memory_max_bytes is not None and wanted.memory_max_bytes is not None
        assert now.memory_max_bytes >= max(used, wanted.memory_max_bytes)
        if now.memory_high_bytes is not None:
            assert now.memory_high_bytes >= min(used, used * STEP_RATIO - 4096)
            used = min(used, now.memory_high_bytes)  # what reclaim makes of it
        else:
            used = min(used, used - 4 * MB)
        if now == wanted:
            return
    assert not swap, "with a high mark it comes down"


@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("every_s", [0.5, 1.0, STEP_S])
def test_however_often_it_is_asked_memory_goes_down_by_a_tenth_in_five_seconds(
    every_s: float, swap: bool
) -> None:
    """Orders and penalties come when they come, and reclaim may be quick: the maximum never goes under what is used,
    and the high mark a tenth under it once in five seconds."""
    wanted = limits(case(facts=HOST if swap else SWAPLESS, caps=SMALL)).limits
    begun, now, steps, held = 2 * GB, 0.0, Steps(), None
    used = begun
    while held != wanted:
        held = steps.next("a.slice", wanted, InUse(all_bytes=used, file_bytes=used), held, now)
        most, high = held.memory_max_bytes, held.memory_high_bytes
        assert most is not None and most >= used
        if held != wanted:
            assert high is not None
            assert high >= begun * STEP_RATIO ** (now // STEP_S + 1) - 32 * 4096
            used = min(used, high)
        now += every_s
        assert now < 150
    grown = InUse(all_bytes=2 * GB, file_bytes=GB)
    other = steps.next("b.slice", wanted, grown, None, now)
    assert other.memory_high_bytes is not None, "another slice has its own time"
    assert other.memory_high_bytes < 2 * GB


@pytest.mark.parametrize("swap", [True, False])
def test_a_leak_raises_no_cap(swap: bool) -> None:
    """512 MiB are wanted, 600 in use, and it grows as much as it may: what was set once only goes down."""
    wanted = limits(case(facts=HOST if swap else SWAPLESS, caps=SMALL)).limits
    used, held = 600 * MB, None
    seen = []
    for _ in range(20):
        held = in_steps(wanted, InUse(all_bytes=used, file_bytes=MB), held)
        assert held.memory_max_bytes is not None
        seen.append(held.memory_max_bytes)
        used = min(used + 50 * MB, held.memory_max_bytes)
    assert seen == sorted(seen, reverse=True) and seen[0] == 600 * MB + MARGIN_BYTES
    used = 500 * MB  # it was restarted
    assert in_steps(wanted, InUse(all_bytes=used), held) == wanted


def test_without_swap_pages_of_files_make_room_and_nothing_else_is_squeezed() -> None:
    """A high mark helps the maximum down as long as there is something to free, and then is gone."""
    wanted = limits(case(facts=SWAPLESS, caps=SMALL)).limits
    assert (wanted.memory_high_bytes, wanted.memory_max_bytes) == (None, 512 * MB)
    firm, files, held = 300 * MB, 400 * MB, None
    for _ in range(10):
        held = in_steps(wanted, InUse(all_bytes=firm + files, file_bytes=files), held)
        if held == wanted:
            break
        assert held.memory_high_bytes is not None
        assert held.memory_high_bytes >= firm + MARGIN_BYTES
        files = min(files, held.memory_high_bytes - firm)
    assert held == wanted
    stuck = in_steps(wanted, InUse(all_bytes=600 * MB, file_bytes=3 * MB))
    assert stuck.memory_high_bytes is None, "what can't be freed would be an hour of trying to"


@given(
    used=st.integers(min_value=0, max_value=4 * GB),
    most=st.none() | st.integers(min_value=4096, max_value=4 * GB),
    high=st.none() | st.integers(min_value=4096, max_value=4 * GB),
    swap=st.booleans(),
)
def test_a_step_lies_between_what_is_held_and_what_is_wanted(
    used: int, most: int | None, high: int | None, swap: bool
) -> None:
    """Whatever is held and used: up at once, down never past what is wanted, and never up on the way down."""
    wanted = limits(case(facts=HOST if swap else SWAPLESS, caps=SMALL)).limits
    held = msgspec.structs.replace(FREE, memory_max_bytes=most, memory_high_bytes=high)
    now = in_steps(wanted, InUse(all_bytes=used), held)
    infinite = float("inf")
    for field in ("memory_max_bytes", "memory_high_bytes"):
        aim, was, step = (getattr(of, field) or infinite for of in (wanted, held, now))
        assert min(aim, was) <= step <= max(aim, was)
        assert step == aim or aim < step <= was


def test_what_is_held_already_is_not_loosened_by_a_site_over_its_high_mark() -> None:
    """Over it a site is slowed: a step is for the way down to it only."""
    wanted = limits(case()).limits
    assert wanted.memory_high_bytes is not None
    used = InUse(all_bytes=wanted.memory_high_bytes + 200 * MB)
    assert in_steps(wanted, used, wanted) == wanted
    assert in_steps(wanted, used) != wanted
