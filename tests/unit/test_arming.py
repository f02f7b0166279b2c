"""What people arm, and what holds after that: stories, and properties for any orders in any order."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from deploy.demo.plans import PLANS
from fleet.caps import Enforcement, Held, Turn, armed
from fleet.enforcement import changed, waiting
from fleet.inforce import FIELDS, Forces, edition, loosest, stricter
from fleet.model import HostId, PlanId, SiteId
from fleet.validate import cap_rules
from tests.unit.armingstories import BEGAN, DAY_S, Story, plan_of, told

STORIES = sorted((Path(__file__).parents[1] / "scenarios" / "arming").glob("*.txt"))
STANDARD = PlanId("standard")
SHOP, H1 = SiteId("shop"), HostId("h1")


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_what_was_armed_holds_as_told(path: Path, request: pytest.FixtureRequest) -> None:
    """Played anew from its orders, the story has the same right-hand side."""
    text = path.read_text()
    assert text.startswith("# ") and text.splitlines()[0].endswith(".")
    now = told(text)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert now == text


scopes = st.sampled_from(["all", "plan standard", "plan plus", "host h1", "site shop", "site news"])
plans = st.sampled_from(["standard", "plus"])
orders = st.one_of(
    st.builds("arm {}".format, scopes),
    st.builds("arm {} from {}".format, scopes, st.integers(1, 30)),
    st.builds("{} {}".format, st.sampled_from(["shadow", "inherit"]), scopes),
    st.builds("plan {} {}".format, plans, st.integers(60, 90)),
)


def begun() -> Story:
    story = Story()
    for event in ("plan standard 80", "plan plus 90", "site shop standard h1", "site news plus h2"):
        story.play(event.split())
    return story


def now_held(story: Story) -> dict[SiteId, int | None]:
    """The tasks that hold each site; None: none do."""
    forces = Forces(story.words, story.plans)
    return {
        id: force.caps(story.plans[site.plan].caps, story.now).tasks
        if (force := forces.of(id, site.plan, host)).is_on(story.now)
        else None
        for id, (site, host) in story.sites.items()
    }


def from_day(event: str) -> float:
    """From when (Unix s) an arming is to count; long ago if at once."""
    _, has_date, day = event.partition(" from ")
    return BEGAN + float(day) * DAY_S if has_date else 0.0


@given(st.lists(st.tuples(st.integers(0, 4), orders), min_size=2, max_size=12))
def test_no_change_of_a_plan_ever_holds_a_site_tighter(script: list[tuple[int, str]]) -> None:
    """Only a word of a person on caps does, at once or on its date, not before; and no arming lets a held site go."""
    story = begun()
    for days, event in script:
        story.now += days * DAY_S
        before = now_held(story)
        story.play(event.split())
        for site, held in now_held(story).items():
            was = before[site]
            if event.startswith("plan"):
                assert (held is None) == (was is None), event
                assert held is None or was is None or held >= was, event
            if event.startswith("arm") and was is not None:
                assert held is not None and held <= was, event
            if event.startswith("arm") and story.now < from_day(event):
                assert held == was, event


@given(st.lists(st.tuples(st.integers(0, 4), orders), min_size=2, max_size=12))
def test_after_arming_everything_now_every_armed_site_has_its_plan_s_numbers(
    script: list[tuple[int, str]],
) -> None:
    """Whatever was said before: nothing older is left to hold in their place."""
    story = begun()
    for days, event in [*script, (0, "arm all")]:
        story.now += days * DAY_S
        story.play(event.split())
    for site, held in now_held(story).items():
        assert held in (None, story.plans[story.sites[site][0].plan].caps.tasks)


@given(st.lists(st.tuples(st.integers(0, 4), orders), max_size=12))
def test_words_name_the_editions_that_are_kept_and_no_others(script: list[tuple[int, str]]) -> None:
    """A store that is years old holds no numbers that nobody means any more."""
    story = begun()
    for days, event in script:
        story.now += days * DAY_S
        story.play(event.split())
    words = story.words
    turns = [words.all, *words.hosts.values(), *words.plans.values(), *words.sites.values()]
    named = {e for t in turns for e in (t.editions or {}).values()}
    named |= {e for t in turns if t.renewed for e in t.renewed.editions.values()}
    assert named == words.editions.keys()
    assert all(edition(caps) == name for name, caps in words.editions.items())


names = st.sampled_from(sorted(PLANS))


@given(names, names)
def test_the_loosest_of_two_plans_is_a_plan(one: PlanId, other: PlanId) -> None:
    """It breaks no rule that plans must keep, and is stricter than neither."""
    both = loosest(PLANS[one].caps, PLANS[other].caps)
    assert not [*cap_rules(both)]
    assert not stricter(PLANS[one].caps, both) and not stricter(PLANS[other].caps, both)


@pytest.mark.parametrize("cap", FIELDS)
def test_every_cap_that_leaves_less_is_stricter(cap: str) -> None:
    """Also each window of the database's, which are one field."""
    caps = PLANS[STANDARD].caps
    value = getattr(caps, cap)
    less = (*value[:3], value[3] - 1) if isinstance(value, tuple) else value * 0.5
    assert stricter(caps, replace(caps, **{cap: less})) == (cap,)
    assert not stricter(replace(caps, **{cap: less}), caps)


def test_a_word_of_a_release_that_named_no_plans_holds_them_as_they_were_then() -> None:
    """Until a plan changes for the first time they are all in force; from then on they are named."""
    old = {STANDARD: plan_of("standard", 120)}
    words = Enforcement(all=Turn(since=BEGAN))
    assert Forces(words, old).of(SHOP, STANDARD, H1).is_on(BEGAN)
    new = {STANDARD: plan_of("standard", 80), PlanId("plus"): plan_of("plus", 200)}
    words = changed(words, old, new, keep=False, now=BEGAN + 1)
    force = Forces(words, new).of(SHOP, STANDARD, H1)
    assert force.caps(new[STANDARD].caps, BEGAN + 1).tasks == 120
    assert not Forces(words, new).of(SHOP, PlanId("plus"), H1).is_on(BEGAN + 9)


def test_words_are_read_as_they_were_written() -> None:
    """By this release; an older one reads the dates, and holds the plans as they are."""
    story = begun()
    for event in ("arm all", "plan standard 60", "arm all from 30"):
        story.play(event.split())
    written = msgspec.json.encode(story.words)
    assert msgspec.json.decode(written, type=Enforcement) == story.words
    older = msgspec.defstruct("OlderTurn", [("since", float | None, None)])
    read = msgspec.json.decode(written, type=dict[str, msgspec.Raw])["all"]
    assert msgspec.json.decode(read, type=older).since == BEGAN  # type: ignore[attr-defined]


def test_what_only_waits_is_said_to_who_changes_the_plan() -> None:
    """The cap, both numbers, and what to do; a plan in which nothing holds has nothing to say."""
    story = begun()
    old = dict(story.plans)
    new = {**old, STANDARD: plan_of("standard", 60), PlanId("pro"): plan_of("pro", 300)}
    story.change(new, keep=False)
    assert not [*waiting(old, new, story.words)]
    story = begun()
    story.play(["arm", "all"])
    story.change(new, keep=False)
    said = [str(finding) for finding in waiting(old, new, story.words)]
    assert len(said) == 2
    assert "plans.standard.caps.tasks: '60' is stricter: 80 goes on to hold" in said[0]
    assert "relevo caps arm --plan standard" in said[0] and "plans.pro: is new" in said[1]
    story = begun()
    story.play(["arm", "all"])
    story.change(new, keep=True)
    assert not [*waiting(old, new, story.words)]


def test_a_host_holds_what_was_armed_until_its_date() -> None:
    """By its own clock, from its orders alone."""
    caps = PLANS[STANDARD].caps
    held = (Held(since=10.0, caps={"tasks": 200}), Held(since=20.0))
    assert [armed(caps, held, now).tasks for now in (9.0, 10.0, 19.9, 20.0)] == [120, 200, 200, 120]
