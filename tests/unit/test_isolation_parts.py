"""The parts that the ladder stands on: who goes with the stall, what is usual, what kind of trouble, ladder time."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.isolate import House, Policy, State, decide
from agent.isolate.attribution import Suspect, correlation, sufficiency, suspects
from agent.isolate.learn import FADES_S, learned
from agent.isolate.measure import suffered
from agent.isolate.nature import is_hacked, nature, showing, standing
from agent.isolate.policy import DAY_S, HOUR_S
from agent.isolate.state import HOURS, Clock, Frame, told
from agent.signals import HostSigns, Signals, SiteSigns
from fleet.caps import Attachment, Nature, Override, Penalty, Resource, Tenant
from fleet.model import Note, SiteId
from tests.hogs import CAPS, HOGS, MIB, PLAN, Machine, house

POLICY = Policy()
SHOP, NEWS = SiteId("shop"), SiteId("news")
NOON = 1_790_000_000.0 // DAY_S * DAY_S + 12 * HOUR_S
CALM, HURT = [0.02] * 8, [0.5] * 4
HOST = HostSigns(cores=8, memory_total_bytes=1 << 33, memory_available_bytes=1 << 32)
Value = float | None


def signs(resource: Resource, value: Value) -> SiteSigns:
    if resource is Resource.CPU:
        return SiteSigns(cpu_cores=value)
    if resource is Resource.IO:
        return SiteSigns(read_bytes_per_s=None if value is None else value * MIB)
    return SiteSigns(anon_bytes=None if value is None else int(value * MIB))


def frames(
    stall: Sequence[float],
    sites: Mapping[SiteId, Sequence[Value]],
    resource: Resource,
    every_s: float = 2.0,
) -> list[Frame]:
    return [
        Frame(
            at=NOON + every_s * number,
            stall={resource: stalled},
            sites={site: signs(resource, values[number]) for site, values in sites.items()},
        )
        for number, stalled in enumerate(stall)
    ]


def found(
    stall: Sequence[float],
    *,
    resource: Resource = Resource.CPU,
    usual: float | None = None,
    known_s: float = DAY_S,
    of: int = 20,
    every_s: float = 2.0,
    **used: Sequence[Value],
) -> list[Suspect]:
    """The suspects on a host of `of` sites; `usual`: what the shop used at this hour of other days."""
    sites = {SiteId(name): values for name, values in used.items()}
    caps = {SiteId(f"n{n}"): CAPS for n in range(of)} | dict.fromkeys((SHOP, NEWS), CAPS)
    past = {} if usual is None else {SHOP: {resource: (usual,) * HOURS}}
    window = frames(stall, sites, resource, every_s)
    return list(
        suspects(window, HOST, resource, caps, past, POLICY, at=window[-1].at, known_s=known_s)
    )


def test_who_goes_with_the_stall_is_the_suspect() -> None:
    """Of two that use the same now, the one whose use came with the waiting is the first."""
    shop, news = [0.1] * 8 + [3.0] * 4, [0.5] * 6 + [3.0] * 6
    assert [one.site for one in found(CALM + HURT, shop=shop, news=news)] == [SHOP, NEWS]
    [one] = found(CALM + HURT, shop=shop, news=[3.0] * 12)
    assert one.site == SHOP and one.correlation == pytest.approx(1) and one.share == 3 / 8
    assert one.score == pytest.approx(1)


def test_a_host_that_is_late_with_its_rounds_still_has_suspects() -> None:
    """Readings that are seven seconds apart, as on a machine that is out of breath, are enough."""
    [one] = found([0.02] * 5 + [0.5] * 3, every_s=7.0, shop=[0.1] * 5 + [4.0] * 3)
    assert one.site == SHOP


def test_what_is_usual_at_this_hour_weighs_less() -> None:
    """The same rise is a suspect's where it is new, and nobody's where it is of every day."""
    shop = [1.0, 2.0] * 4 + [2.0, 3.0, 3.0, 3.0]
    [new] = found(CALM + HURT, shop=shop)
    [usual] = found(CALM + HURT, shop=shop, usual=3.0)
    assert new.score - usual.score == pytest.approx(0.2)
    [young] = found(CALM + HURT, shop=shop, known_s=60)
    assert new.score - young.score == pytest.approx(0.1)


def test_who_keeps_to_its_part_is_no_suspect() -> None:
    """On a host of two, half of it is the part of each; and who has less than a tenth is never asked."""
    shop = [0.1, 1.9] * 4 + [2.0, 1.5, 2.2, 2.0]
    assert found(CALM + HURT, of=0, shop=shop) == []
    assert [one.site for one in found(CALM + HURT, of=50, shop=shop)] == [SHOP]
    assert found(CALM + HURT, shop=[0.01] * 8 + [0.7] * 4) == []


def test_too_little_to_be_the_cause_is_none() -> None:
    """All of what is read is little where it is less than a disk notices."""
    tiny = [0.0] * 8 + [0.9] * 4
    assert found(CALM + HURT, resource=Resource.IO, shop=tiny) == []
    some = [0.0] * 8 + [9.0] * 4
    assert [one.site for one in found(CALM + HURT, resource=Resource.IO, shop=some)] == [SHOP]


def test_a_look_that_is_too_short_accuses_nobody() -> None:
    """Within its first ten seconds an agent has no suspects, however loud a site is."""
    assert found([0.02, 0.02, 0.5, 0.5, 0.5], shop=[0.1, 0.1, 6.0, 6.0, 6.0]) == []
    assert found([0.02] * 3 + [0.5] * 3, shop=[0.1] * 3 + [6.0] * 3) != []


def test_a_steady_stall_accuses_only_who_dominates() -> None:
    """What has been bad for as long as we look has no rhythm: only a share that dominates is told by."""
    [one] = found([0.5] * 12, shop=[5.0] * 12, news=[2.0] * 12)
    assert (one.site, one.steady) == (SHOP, True)
    assert found([0.5] * 12, shop=[3.0] * 12, news=[2.0] * 12) == []


def test_a_stall_that_never_ends_has_no_rhythm_however_it_varies() -> None:
    """Where the victims wait in every round that we know, a dominant site is told by what the sites take beside it."""
    noisy = [0.9, 0.4, 0.7, 0.3, 0.8, 0.5, 0.6, 0.9, 0.4, 0.7, 0.5, 0.8]
    [one] = found(noisy, shop=[4.0] * 12, news=[0.5] * 12)
    assert (one.site, one.steady) == (SHOP, True)
    assert one.correlation == pytest.approx(8 / 9)
    assert one.score > POLICY.score + 0.2
    assert found(noisy, shop=[3.0] * 12, news=[0.5] * 12) == []
    # What some neighbour takes is not known: it may be as much.
    [some] = found(noisy, shop=[4.0] * 12, news=[None] * 12)
    assert some.correlation == pytest.approx(4 / 8)


def test_other_causes_are_no_excuse() -> None:
    """A host that often waits for itself: who works in each of the last rounds, in which all wait, is the suspect."""
    stall = [0.8, 0.1, 0.7, 0.1, 0.1, 0.9, 0.1, 0.1, *[0.6] * 8]
    shop = [0.1] * 8 + [4.0] * 8
    used = [*map(float, shop)]
    assert correlation(stall, used) < 0.6
    [one] = found(stall, shop=shop)
    assert one.correlation > correlation(stall, used)
    assert one.score > POLICY.score + 0.15
    # One that has no plain part of it is judged by its rhythm alone.
    [small] = found(stall, shop=[0.1] * 8 + [1.6] * 8)
    assert small.correlation == pytest.approx(correlation(stall, used))


@pytest.mark.parametrize(
    ("suffer", "used", "enough"),
    [
        ("nnnnyyyy", [0, 0, 0, 0, 1, 1, 1, 1], 0.64),  # four that agree may be luck
        ("yynnyyyy", [0, 0, 0, 0, 1, 1, 1, 1], 0.48),  # what would be without it counts off
        ("nnnnyyyn", [0, 0, 0, 0, 1, 1, 1, 1], 0.36),
        ("nnnnyyyy", [0, 0, 0, None, 1, 1, 1, 1], 0.0),  # three are too few
        ("yyyyyyyy", [0, 0, 0, 0, 1, 1, 1, 1], 0.0),  # they suffer anyway
        ("yyyynnnn", [0, 0, 0, 0, 1, 1, 1, 1], 0.0),
        ("nnnnyyyy", [1, 1, 1, 1, 1, 1, 1, 1], 0.0),
    ],
)
def test_that_it_works_is_enough_for_them_to_suffer(
    suffer: str, used: list[Value], enough: float
) -> None:
    """As far as they would not without it, and as far as they always do with it."""
    found_ = sufficiency([one == "y" for one in suffer], used, amount=1.0)
    assert found_ == pytest.approx(enough)


@given(
    st.lists(st.tuples(st.booleans(), st.none() | st.floats(0, 1e9)), min_size=1, max_size=30),
    st.floats(0, 1e9),
)
def test_enough_is_a_ratio(rounds: list[tuple[bool, Value]], amount: float) -> None:
    """Whatever was seen it is between 0 and 1."""
    assert 0 <= sufficiency([one for one, _ in rounds], [used for _, used in rounds], amount) <= 1


def test_a_leak_is_told_by_its_size() -> None:
    """It grew evenly all the time, and hurts since there is no more: what goes with the waiting is what it holds."""
    leak = [100.0 + 40 * n for n in range(12)]
    [one] = found(CALM + HURT, resource=Resource.MEMORY, shop=leak, news=[300.0] * 12)
    assert one.site == SHOP and one.share == 1


def test_what_grew_is_the_memory_that_is_fought_for() -> None:
    """A large site that stays as it is has no part in it."""
    burst = [100.0] * 8 + [400.0, 700.0, 1000.0, 1300.0]
    [one] = found(CALM + HURT, resource=Resource.MEMORY, shop=burst, news=[4000.0] * 12)
    assert one.site == SHOP


def reclaimed(one: SiteSigns, *, used: Sequence[float] = ()) -> list[Suspect]:
    """The suspects for memory where the shop was as `one` all the time; `used`: GiB of the host in each round."""
    stall = CALM + HURT
    window = [
        Frame(
            at=NOON + 2.0 * number,
            stall={Resource.MEMORY: stalled},
            sites={SHOP: one if stalled > 0.1 else msgspec.structs.replace(one, scanned_per_s=0)},
            used_bytes=used[number] * 1024 * MIB if used else None,
        )
        for number, stalled in enumerate(stall)
    ]
    caps = {SiteId(f"n{n}"): CAPS for n in range(20)} | {SHOP: CAPS}
    return [
        *suspects(window, HOST, Resource.MEMORY, caps, {}, POLICY, at=window[-1].at, known_s=DAY_S)
    ]


CACHED = SiteSigns(
    memory_bytes=2 << 30, anon_bytes=200 << 20, scanned_per_s=50_000, stolen_per_s=45_000
)


@pytest.mark.parametrize(
    ("one", "suspected"),
    [
        # The host looks at everybody's pages; who gives them took nothing.
        (CACHED, False),
        (msgspec.structs.replace(CACHED, read_bytes_per_s=1 << 20), False),
        # It reads again what was taken: it and the others take turns in what there is not for both.
        (msgspec.structs.replace(CACHED, read_bytes_per_s=200 << 20), True),
        # Nothing is got of it, however often it is looked at.
        (msgspec.structs.replace(CACHED, stolen_per_s=0), True),
        # It is at a limit of its own.
        (msgspec.structs.replace(CACHED, memory_high_hits=9), True),
    ],
)
def test_what_the_hosts_own_reclaim_takes_is_held_against_nobody(
    one: SiteSigns, suspected: bool
) -> None:
    """Pages are looked at where there are most; a cause has grown, reads again, or does not give."""
    assert bool(reclaimed(one)) is suspected


def test_beside_a_host_that_fills_a_site_has_a_small_part() -> None:
    """What the database took counts in what a site's part is a part of."""
    at_limit = msgspec.structs.replace(CACHED, memory_high_hits=9)
    assert reclaimed(at_limit, used=[4.0] * 12) != []
    assert reclaimed(at_limit, used=[4.0] * 8 + [6.0, 9.0, 14.0, 20.0]) == []


@pytest.mark.parametrize(
    ("most", "lost", "suspected"), [(900.0, 1000.0, True), (150.0, 1000.0, False)]
)
def test_who_took_what_is_missing_is_told_before_there_is_a_rhythm(
    most: float, lost: float, suspected: bool
) -> None:
    """Memory hurts when the last of it goes: most of what the host has less of now was taken by one, evenly."""
    stall = [0.0] * 11 + [0.5]
    window = [
        Frame(
            at=NOON + 2.0 * number,
            stall={Resource.MEMORY: stalled},
            sites={SHOP: SiteSigns(anon_bytes=int((100 + most * number / 11) * MIB))},
            used_bytes=(3000 + lost * number / 11) * MIB,
        )
        for number, stalled in enumerate(stall)
    ]
    caps = {SiteId(f"n{n}"): CAPS for n in range(20)} | {SHOP: CAPS}
    who = suspects(window, HOST, Resource.MEMORY, caps, {}, POLICY, at=NOON + 22, known_s=DAY_S)
    assert [one.site for one in who] == ([SHOP] if suspected else [])


def test_what_is_not_learned_is_neither_new_nor_usual() -> None:
    """No past of memory is kept: after a day it says no more than in the first hour."""
    leak = [100.0 + 40 * n for n in range(12)]
    scores = [
        found(CALM + HURT, resource=Resource.MEMORY, shop=leak, known_s=known_s)[0].score
        for known_s in (60, DAY_S)
    ]
    assert scores[0] == scores[1]


def test_a_site_without_a_plan_is_not_judged() -> None:
    """What the orders do not know is no suspect, and counts in what the others' shares are of."""
    assert found(CALM + HURT, shop=[0.1] * 12, ghost=[0.1] * 8 + [6.0] * 4) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.none() | st.floats(0, 1e9)), min_size=1, max_size=30))
def test_a_correlation_is_one(pairs: list[tuple[float, Value]]) -> None:
    """Always between -1 and 1; of what does not vary, or is hardly known, 0."""
    value = correlation([a for a, _ in pairs], [b for _, b in pairs])
    assert -1 <= value <= 1 and not math.isnan(value)
    if sum(b is not None for _, b in pairs) < 4 or len({a for a, _ in pairs}) == 1:
        assert abs(value) < 1e-6


def test_an_hour_is_remembered_and_fades() -> None:
    """The most of an hour is kept, a little less with each minute of it: about a third is left after a week."""
    window = frames([0.0] * 30, {SHOP: [2.0] * 30, NEWS: [0.01] * 30}, Resource.CPU)
    past = learned({}, window, (), POLICY, passed_s=60)
    hour = int(window[-1].at // HOUR_S) % HOURS
    assert past.keys() == {SHOP}  # what does next to nothing is not kept
    assert [hours for hours in past[SHOP][Resource.CPU] if hours] == [2.0]
    assert past[SHOP][Resource.CPU][hour] == 2.0
    idle = frames([0.0] * 30, {SHOP: [0.0] * 30}, Resource.CPU)
    for _ in range(7 * 60):
        past = learned(past, idle, (), POLICY, passed_s=60)
    assert past[SHOP][Resource.CPU][hour] == pytest.approx(2 / math.e, rel=0.05)
    assert learned({}, window, {SHOP}, POLICY, passed_s=60) == {}
    assert learned(past, idle, (), POLICY, passed_s=0.99 * FADES_S) == {}


@pytest.mark.parametrize("trouble", [True, False])
def test_an_hour_of_which_nothing_was_learned_is_not_forgotten(*, trouble: bool) -> None:
    """Six hours of an alarm, or without an agent, take no more of what is usual than two minutes that were seen."""
    house = House(plans={PLAN: CAPS}, tenants={SHOP: Tenant(plan=PLAN)}, rulings={})
    usual = {SHOP: {Resource.CPU: (2.0,) * HOURS}}
    clock = Clock(at=NOON, seen=0.0)
    state = State(clock=clock, past=usual, since=NOON - DAY_S, learned=NOON)
    hurt = {SHOP: SiteSigns(cpu_cores=0.1), NEWS: SiteSigns(cpu_cores=0.1, cpu_stall=0.1)}
    starved = msgspec.structs.replace(HOST, cpu_stall=0.5)
    gap_s = 6 * HOUR_S
    for at in range(60, int(gap_s), 60) if trouble else ():
        signals = Signals(at=at, host=starved, sites=hurt)
        state = decide(state, signals, house, POLICY, at, NOON + at).state
        assert state.past == usual
    calm = Signals(at=gap_s, host=HOST, sites={SHOP: SiteSigns(cpu_cores=0.1)})
    past = decide(state, calm, house, POLICY, gap_s, NOON + gap_s).state.past
    assert min(past[SHOP][Resource.CPU]) == pytest.approx(2.0 * (1 - 120 / FADES_S), rel=1e-4)


@pytest.mark.parametrize(
    ("rate", "clients", "usual", "kind"),
    [
        (2.0, 3, None, Nature.HEAVY),  # two requests a second are nobody's crowd
        (10.0, 3, None, Nature.HEAVY),  # under a third of the plan's 60
        (30.0, 40, None, Nature.CRAWLED),
        (30.0, 2000, None, Nature.VIRAL),
        (30.0, None, None, Nature.CRAWLED),  # nobody counts its visitors
        (30.0, 2000, 20.0, Nature.HEAVY),  # as many as at this hour of other days
        (12.0, 2000, 4.0, Nature.VIRAL),  # three times as many
        (None, None, None, Nature.HEAVY),
    ],
)
def test_a_crowd_is_told_from_heavy_code(
    rate: float | None, clients: int | None, usual: float | None, kind: Nature
) -> None:
    """By how many ask, against the plan or the site's own past, and by how many clients they are."""
    one = SiteSigns(cpu_cores=4, requests_per_s=rate, clients=clients)
    window = [Frame(at=NOON, stall={}, sites={SHOP: one})]
    past = {} if usual is None else {Resource.WEB: (usual,) * HOURS}
    assert nature(SHOP, window, CAPS, past, POLICY, NOON) is kind


@pytest.mark.parametrize(
    ("one", "for_s", "signs_", "hacked"),
    [
        (SiteSigns(direct_mail_per_s=5), 0.0, (), False),
        (SiteSigns(direct_mail_per_s=5), 2.0, ("direct-mail",), False),
        (SiteSigns(direct_mail_per_s=0.1), 60.0, (), False),
        (SiteSigns(refused_mail_per_s=5), 2.0, ("refused-mail",), False),
        # One thing that it does is one sign, however it is seen.
        (SiteSigns(refused_mail_per_s=5, direct_mail_per_s=5), 60.0, ("refused-mail",), False),
        (SiteSigns(refused_mail_per_s=0.1, direct_mail_per_s=0.1), 2.0, ("refused-mail",), False),
        (
            SiteSigns(refused_mail_per_s=5, runs_from_uploads=True),
            2.0,
            ("refused-mail", "runs-from-uploads"),
            True,
        ),
        (
            SiteSigns(direct_mail_per_s=5, new_destinations_per_s=60),
            2.0,
            ("direct-mail", "fan-out"),
            True,
        ),
        (SiteSigns(listens=True, cron_changed=True), 60.0, ("cron-changed", "listens"), False),
        (
            SiteSigns(runs_from_uploads=True, listens=True),
            2.0,
            ("listens", "runs-from-uploads"),
            True,
        ),
        (SiteSigns(cpu_cores=1, requests_per_s=0), 599.0, (), False),
        (SiteSigns(cpu_cores=1, requests_per_s=0), 600.0, ("miner",), False),
        (SiteSigns(cpu_cores=1), 6000.0, (), False),  # whose requests are not known
        (SiteSigns(cpu_cores=1, requests_per_s=0.5), 6000.0, (), False),
    ],
)
def test_two_signs_of_a_break_in_one_of_them_strong(
    one: SiteSigns, for_s: float, signs_: tuple[str, ...], hacked: bool
) -> None:
    """Each counts after its time; what an owner may do by hand is not enough by itself."""
    shown = showing({}, {SHOP: one}, POLICY, NOON)
    shown = showing(shown, {SHOP: one}, POLICY, NOON + for_s)
    assert standing(shown.get(SHOP, {}), POLICY, NOON + for_s) == signs_
    assert is_hacked(signs_, POLICY) is hacked


# What an owner does by hand, or by mistake: each sign, and what is seen of it.
OWN: Mapping[str, Mapping[str, float | bool]] = {
    "cron-changed": {"cron_changed": True},
    "direct-mail": {"direct_mail_per_s": 5.0},
    "listens": {"listens": True},
    "miner": {"cpu_cores": 1.0, "requests_per_s": 0.0},
    "refused-mail": {"refused_mail_per_s": 5.0},
}
PAIRS = [each for each in combinations(OWN, 2) if each != ("direct-mail", "refused-mail")]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_what_an_owner_does_is_no_break_in_however_much_of_it(first: str, second: str) -> None:
    """An import added to the crontab, a server of his own, a newsletter: watched, and no reason to cut it off."""
    one = msgspec.convert({**OWN[first], **OWN[second]}, SiteSigns)
    shown, at = showing({}, {SHOP: one}, POLICY, NOON), NOON + POLICY.signs.miner_s
    shown = showing(shown, {SHOP: one}, POLICY, at)
    signs_ = standing(shown[SHOP], POLICY, at)
    assert signs_ == (first, second)
    assert not is_hacked(signs_, POLICY)
    assert is_hacked((*signs_, "fan-out"), POLICY)
    assert is_hacked((first, "runs-from-uploads"), POLICY)


def test_a_changed_crontab_shows_for_an_hour() -> None:
    """It is an event of one round, and is laid beside what comes after it."""
    shown = showing({}, {SHOP: SiteSigns(cron_changed=True)}, POLICY, NOON)
    for minutes, shows in ((1, True), (59, True), (61, False)):
        at = NOON + 60 * minutes
        shown = showing(shown, {SHOP: SiteSigns()}, POLICY, at)
        assert bool(standing(shown.get(SHOP, {}), POLICY, at)) is shows


@pytest.mark.parametrize(
    ("host", "sites", "stall"),
    [
        # Calm: nobody is asked.
        (0.05, {SHOP: (1.0, 0.9)}, 0.05),
        # Half of their busy time, the one that uses most not asked.
        (0.9, {SHOP: (6.0, 0.0), NEWS: (0.1, 0.1)}, 0.5),
        # Whose wait is not known may suffer: the host's word must do.
        (0.9, {SHOP: (6.0, 0.0), NEWS: (0.1, None)}, 0.9),
        # Who does nothing suffers nothing.
        (0.9, {SHOP: (6.0, 0.0), NEWS: (0.0, 0.001)}, 0.0),
        # A large victim is one voice among the others.
        (0.9, {SHOP: (6.0, 0), NEWS: (1.0, 0.0), SiteId("wiki"): (0.1, 0.1)}, 0.25),
    ],
)
def test_what_victims_suffer_is_the_share_of_their_busy_time(
    host: float, sites: dict[SiteId, tuple[float, float | None]], stall: float
) -> None:
    """Each waiting against its own work, weighed alike from a fifth of a core on."""
    signals = Signals(
        at=1,
        host=HostSigns(
            cores=8,
            memory_total_bytes=1 << 33,
            memory_available_bytes=1 << 32,
            cpu_stall=host,
        ),
        sites={
            site: SiteSigns(cpu_cores=cores, cpu_stall=waits)
            for site, (cores, waits) in sites.items()
        },
    )
    assert suffered(signals, POLICY)[Resource.CPU] == pytest.approx(stall)


@pytest.mark.parametrize(
    ("attachment", "news", "stall"),
    [
        # mod_php, or PHP as one user for all: it may be they who wait.
        (Attachment.LOG, 0.0, 0.9),
        (Attachment.POOL, 0.001, 0.9),
        # Those who are seen work: theirs is the word.
        (Attachment.POOL, 0.1, 0.5),
        # No unit of it runs.
        (Attachment.SLICE, 0.0, 0.0),
    ],
)
def test_sites_of_which_nothing_is_told_may_suffer(
    attachment: Attachment, news: float, stall: float
) -> None:
    """Where nobody who is seen does anything, what is not seen is not called well."""
    signals = Signals(
        at=1,
        host=msgspec.structs.replace(HOST, cpu_stall=0.9),
        sites={
            SHOP: SiteSigns(attachment=attachment),
            NEWS: SiteSigns(cpu_cores=news, cpu_stall=news),
            SiteId("wiki"): SiteSigns(cpu_cores=0.5, cpu_stall=0.0),
        },
    )
    assert suffered(signals, POLICY)[Resource.CPU] == pytest.approx(stall)


def test_a_host_that_tells_nothing_of_its_sites_blames_none_and_asks() -> None:
    """All of them are one user's: what the host waits for is said to people, and held against nobody."""
    machine = Machine(Random(5), busy=0.9, hog=HOGS["CPU spin"], starts_s=30.0)
    state, asked, changes = State(), set[str](), list[object]()
    for _ in range(60):
        signals = machine.round()
        told_ = {site: SiteSigns(attachment=Attachment.POOL) for site in signals.sites}
        signals = msgspec.structs.replace(signals, sites=told_)
        decision = decide(state, signals, house(machine), POLICY, signals.at, NOON + signals.at)
        state, asked = decision.state, asked | {why.code for why in decision.asks}
        changes += decision.changes
    assert (changes, asked) == ([], {"isolation-no-culprit"})


def test_memory_that_runs_out_is_an_alarm_before_anybody_waits() -> None:
    """Under a twentieth available the alarm stands, be the stall what it may."""
    host = HostSigns(cores=8, memory_total_bytes=1000, memory_available_bytes=49, memory_stall=0.0)
    assert suffered(Signals(at=1, host=host), POLICY)[Resource.MEMORY] == 0.05


def test_an_override_changes_the_part_that_a_site_has() -> None:
    """Lent more, it is measured against more; when the loan is over, by its plan again."""
    note = Note(owner="ana", reason="campaign", since=0, until=NOON)
    tenant = Tenant(plan=PLAN, override=Override(caps={"cpu_weight": 400}, note=note))
    house = House(plans={PLAN: CAPS}, tenants={SHOP: tenant}, rulings={})
    assert house.caps(NOON - 1)[SHOP].cpu_weight == 400
    assert house.caps(NOON)[SHOP].cpu_weight == CAPS.cpu_weight


def test_ladder_time_goes_by_the_monotonic_clock() -> None:
    """In one process a clock that is set moves what people read, no more; across a restart it counts forward."""
    clock = told(None, 100.0, NOON)
    assert (clock.at, clock.wall(clock.at)) == (NOON, NOON)
    slewed = told(clock, 102.0, NOON + 2.3)
    assert (slewed.at, slewed.offset) == (NOON + 2, 0.0)
    ahead = told(slewed, 104.0, NOON + 4 + DAY_S)
    assert (ahead.at, ahead.wall(ahead.at)) == (NOON + 4, NOON + 4 + DAY_S)
    rested = Clock(at=ahead.at, offset=ahead.offset)
    later = told(rested, 7.0, NOON + 64 + DAY_S)
    assert (later.at, later.wall(later.at)) == (NOON + 64, NOON + 64 + DAY_S)
    back = told(rested, 7.0, NOON)
    assert (back.at, back.wall(back.at)) == (NOON + 4, NOON)
    rebooted = told(Clock(at=NOON, seen=100.0), 5.0, NOON + 30)
    assert rebooted.at == NOON + 30


def test_trouble_teaches_nothing() -> None:
    """While sites wait for each other, what they do is not what is usual."""
    host = HostSigns(
        cores=8, memory_total_bytes=1 << 33, memory_available_bytes=1 << 32, cpu_stall=0.5
    )
    calm = HostSigns(cores=8, memory_total_bytes=1 << 33, memory_available_bytes=1 << 32)
    house = House(plans={PLAN: CAPS}, tenants={SHOP: Tenant(plan=PLAN)}, rulings={})
    for seen, knows in ((host, False), (calm, True)):
        state = State()
        for number in range(40):
            at = 100.0 + 2 * number
            hurt = SiteSigns(cpu_cores=0.1, cpu_stall=0.1)
            signals = Signals(at=at, host=seen, sites={SHOP: SiteSigns(cpu_cores=2), NEWS: hurt})
            state = decide(state, signals, house, POLICY, at, NOON + at).state
        assert bool(state.past) is knows


def test_who_only_happens_to_be_there_is_no_suspect() -> None:
    """Much, new, and above its part: without going with the waiting it is nobody's cause."""
    noise = [0.5, 3.0, 1.0, 4.0, 0.5, 4.0, 1.0, 3.0, 4.0, 2.0, 3.0, 3.0]
    assert 0.2 < correlation(CALM + HURT, noise) < 0.35
    assert found(CALM + HURT, shop=noise) == []


def test_who_returns_to_shadow_is_let_go_at_once() -> None:
    """A step that began in force is held no longer than caps hold; it goes on being told."""
    machine = Machine(Random(3), busy=0.6, hog=HOGS["CPU spin"], starts_s=30.0)
    state, held = State(), tuple[Penalty, ...]()
    while not held:
        signals = machine.round()
        decision = decide(state, signals, house(machine), POLICY, signals.at, NOON + signals.at)
        state, held = decision.state, decision.penalties
    assert held[0].enforced
    signals = machine.round()
    shadow = house(machine, enforced=False)
    [told_] = decide(state, signals, shadow, POLICY, signals.at, NOON + signals.at).penalties
    assert not told_.enforced
    assert msgspec.structs.replace(told_, enforced=True) == held[0]


def test_the_document_s_numbers_are_those_that_hold_where_nothing_is_said() -> None:
    """Whoever copies the example changes nothing by it; and memory stays urgent where only its threshold is said."""
    text = (Path(__file__).parents[2] / "docs/caps.md").read_text()
    example = text.partition("```toml\n[isolation]\n")[2].partition("```")[0]
    said = tomllib.loads(f"[isolation]\n{example}")["isolation"]
    assert msgspec.convert(said, Policy) == Policy()
    assert {"cpu", "memory", "io", "tasks"} < said.keys()
    table = {"stall_ratio": 0.1, "for_s": 2.0, "floor": 1_048_576}
    assert msgspec.convert({"memory": table}, Policy).memory.urgent_ratio == 0.2


def test_a_site_that_has_just_come_is_not_new_to_itself() -> None:
    """It failed over a minute ago: that nobody knows its other days is held neither against it nor for it."""
    shop = [4.4] * 12
    window = frames([0.5] * 12, {SHOP: shop, NEWS: [0.2] * 12}, Resource.CPU, 2.0)
    caps = {SiteId(f"n{n}"): CAPS for n in range(20)} | dict.fromkeys((SHOP, NEWS), CAPS)
    at = window[-1].at

    def accused(newcomers: dict[SiteId, float]) -> list[SiteId]:
        who = suspects(
            window, HOST, Resource.CPU, caps, {}, POLICY, at=at, known_s=DAY_S, newcomers=newcomers
        )
        return [one.site for one in who]

    assert accused({}) == accused({SHOP: DAY_S}) == [SHOP]
    assert accused({SHOP: 60.0}) == []


def test_scarce_memory_accuses_only_who_took_what_is_missing() -> None:
    """Nobody waits, little is left, and has been for long: a cache that warms up is not whom the host lacks it for."""
    for grew, held in ((60.0, []), (900.0, [SHOP])):
        window = [
            Frame(
                at=NOON + 2.0 * number,
                stall={Resource.MEMORY: POLICY.memory.stall_ratio},
                sites={
                    SHOP: SiteSigns(anon_bytes=int((100 + grew * max(0, number - 9) / 2) * MIB))
                },
                used_bytes=(15_000 + grew * max(0, number - 9) / 2) * MIB,
            )
            for number in range(12)
        ]
        caps = {SiteId(f"n{n}"): CAPS for n in range(20)} | {SHOP: CAPS}
        host = HostSigns(
            cores=8,
            memory_total_bytes=16 << 30,
            memory_available_bytes=700 << 20,
            memory_stall=0.0,
        )
        who = suspects(
            window, host, Resource.MEMORY, caps, {}, POLICY, at=window[-1].at, known_s=DAY_S
        )
        assert [one.site for one in who] == held


def test_the_only_busy_site_is_a_victim_where_somebody_else_takes_the_disk() -> None:
    """A backup of the host's own: the site that uses most of what sites use is not who they wait for."""
    quiet = SiteSigns(cpu_cores=0.0, io_stall=0.0, read_bytes_per_s=0, write_bytes_per_s=0)
    shop = SiteSigns(cpu_cores=0.2, io_stall=0.6, read_bytes_per_s=1 << 20, write_bytes_per_s=0)
    sites = {SiteId(f"n{n}"): quiet for n in range(20)} | {SHOP: shop}
    for of_host, suffers in ((100 << 20, True), (1 << 20, False)):
        host = HostSigns(
            cores=8,
            memory_total_bytes=1 << 34,
            memory_available_bytes=1 << 33,
            io_stall=0.6,
            io_bytes_per_s=of_host,
            io_ops_per_s=0.0,
        )
        found_ = suffered(Signals(at=1, host=host, sites=sites), POLICY)[Resource.IO]
        assert (found_ >= POLICY.io.stall_ratio) is suffers
