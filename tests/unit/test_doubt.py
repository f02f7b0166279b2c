"""An observer suspects itself first: by its own lateness, by many links lost at once, and while it is fresh."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from failover.doubt import Doubt, Reason, step
from failover.policy import Policy

POLICY = Policy()
ROUND_S = 0.5


def watch(
    rounds: Sequence[dict[str, bool]], *, state: Doubt | None = None, start: float = 0.0
) -> tuple[Doubt, float]:
    """Punctual rounds, one each half second; gives the state and the time after the last."""
    state, now = state or Doubt(), start
    for links in rounds:
        state = step(state, links, 0.0, POLICY, now)
        now += ROUND_S
    return state, now


def settled(*names: str) -> tuple[Doubt, float]:
    """An observer that has watched all of `names` well for longer than it needs."""
    state, now = watch([dict.fromkeys(names, True)] * 6)
    assert not state.doubts_itself
    return state, now


def test_a_fresh_observer_doubts_until_half_its_links_were_well_for_a_detection_period() -> None:
    """Two seconds of well links, not fewer; and not with more than half of the links missing."""
    well = {"a": True, "b": True, "c": False, "d": False}
    assert watch([well] * 4)[0].reason is Reason.START
    assert watch([well] * 5)[0].reason is Reason.NONE
    assert watch([{**well, "b": False}] * 50)[0].reason is Reason.START


def test_a_stall_makes_it_doubt_for_a_full_detection_period_after_it() -> None:
    """Whatever the links look like, what came during the stall may have been missed."""
    state, now = settled("a", "b", "c")
    links = {"a": True, "b": True, "c": True}
    state = step(state, links, POLICY.stall_s + 0.01, POLICY, now)
    assert state.reason is Reason.STALLED
    assert watch([links] * 4, state=state, start=now + 0.5)[0].doubts_itself is False
    assert watch([links] * 3, state=state, start=now + 0.5)[0].doubts_itself is True


def test_lateness_up_to_the_limit_is_no_stall() -> None:
    """A loop late by exactly stall_s is trusted."""
    state, now = settled("a")
    assert not step(state, {"a": True}, POLICY.stall_s, POLICY, now).doubts_itself


def test_most_links_lost_at_once_is_a_question_about_itself() -> None:
    """Three of five within two seconds: doubt. Two of five: two hosts died."""
    names = dict.fromkeys("abcde", True)
    state, now = settled(*names)
    assert not step(state, {**names, "a": False, "b": False}, 0.0, POLICY, now).doubts_itself
    worse = step(state, {**names, "a": False, "b": False, "c": False}, 0.0, POLICY, now)
    assert worse.reason is Reason.LINKS_LOST


def test_links_lost_one_after_another_over_a_long_time_are_no_self_doubt() -> None:
    """Hosts that die minutes apart have died; the observer is well."""
    state, now = settled("a", "b", "c", "d")
    links = dict.fromkeys("abcd", True)
    for name in "abc":
        links[name] = False
        state, now = watch([dict(links)] * 10, state=state, start=now)
        assert not state.doubts_itself


def test_one_link_alone_is_never_most_of_them() -> None:
    """With a single peer its loss says as much about the peer: others must judge."""
    state, now = settled("a")
    assert not watch([{"a": False}] * 9, state=state, start=now)[0].doubts_itself


def test_an_observer_without_links_is_judged_by_its_loop_alone() -> None:
    """The only host of a fleet doubts at its start and after a stall, each for one detection period."""
    assert watch([{}] * 4)[0].doubts_itself
    state, now = watch([{}] * 5)
    assert not state.doubts_itself
    assert step(state, {}, 9.0, POLICY, now).doubts_itself


def test_a_link_no_longer_named_is_forgotten_not_lost() -> None:
    """Orders that name fewer neighbours are no outage."""
    state, now = settled("a", "b", "c")
    assert not step(state, {"a": True}, 0.0, POLICY, now).doubts_itself


def test_a_flapping_link_never_counts_as_well_for_long() -> None:
    """Links that come and go keep a doubting observer in doubt."""
    rounds = [{"a": at % 3 != 0, "b": at % 3 != 0} for at in range(60)]
    assert watch(rounds)[0].doubts_itself


ROUNDS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abcde"), st.booleans(), max_size=5),
        st.sampled_from([0.0, 0.2, 1.0, 1.01, 30.0]),
        st.sampled_from([0.1, 0.5, 0.5, 1.9, 4.0]),
    ),
    min_size=2,
    max_size=40,
)


@given(ROUNDS)
def test_trust_is_only_ever_earned_by_a_full_punctual_period(
    rounds: list[tuple[dict[str, bool], float, float]],
) -> None:
    """Whenever it does not doubt, no round of the last detection period was late; on leaving doubt half are well."""
    state, now, late_at = Doubt(), 0.0, 0.0
    for links, late_s, pause_s in rounds:
        now += pause_s
        if late_s > POLICY.stall_s or now == pause_s:
            late_at = now
        before, state = state, step(state, links, late_s, POLICY, now)
        if not state.doubts_itself:
            assert now - late_at >= POLICY.unreachable_s
            assert set(state.links) == set(links)
            if before.doubts_itself:
                assert 2 * sum(links.values()) >= len(links)


@given(ROUNDS)
def test_more_links_well_never_make_more_doubt(
    rounds: list[tuple[dict[str, bool], float, float]],
) -> None:
    """An observer whose links are all well all the time doubts only for lateness or for being fresh."""
    state, now = Doubt(), 0.0
    for links, late_s, pause_s in rounds:
        now += pause_s
        state = step(state, dict.fromkeys(links, True), late_s, POLICY, now)
        assert state.reason is not Reason.LINKS_LOST
