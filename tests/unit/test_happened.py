"""What a controller remembers of the last hour of a site."""

from hypothesis import given
from hypothesis import strategies as st

from controller.happened import HOUR_S, SLOT_S, Happened
from fleet.caps import Attachment
from fleet.messages import SiteUse
from fleet.model import SiteId

A, B = SiteId("a"), SiteId("b")


def use(**counts: int) -> SiteUse:
    return SiteUse(attachment=Attachment.SLICE, **counts)  # type: ignore[arg-type]


def test_an_hour_is_added_up_and_then_forgotten() -> None:
    """By name; what did not happen is not in it, and another site's is not either."""
    happened = Happened()
    happened.add(A, use(oom_kills=1), 0.0)
    happened.add(A, use(oom_kills=2, tasks_refused=5), 10.0)
    happened.add(A, use(), 20.0)
    assert happened.of(A, 30.0) == {"oom_kills": 3, "tasks_refused": 5}
    assert happened.of(B, 30.0) == {}
    happened.add(A, use(oom_kills=4), 3500.0)
    assert happened.of(A, 3590.0)["oom_kills"] == 7
    assert happened.of(A, 3500.0 + HOUR_S) == {"oom_kills": 4}
    assert happened.of(A, 9000.0) == {}
    happened.keep(lambda site: site == B)
    assert happened.of(A, 3590.0) == {}


@given(st.lists(st.tuples(st.floats(0, 900), st.integers(0, 9)), min_size=2, max_size=60))
def test_never_less_than_an_hour_is_remembered_and_never_much_more(
    words: list[tuple[float, int]],
) -> None:
    """A twelfth of an hour more at most, however seldom a host speaks."""
    happened, now, told = Happened(), 0.0, []
    for later, count in words:
        now += later
        told.append((now, count))
        happened.add(A, use(oom_kills=count), now)
        least = sum(n for at, n in told if at >= now - HOUR_S)
        most = sum(n for at, n in told if at >= now - HOUR_S - SLOT_S)
        assert least <= happened.of(A, now).get("oom_kills", 0) <= most
