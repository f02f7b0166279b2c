"""Lists in pages: what is there all the while is told once, whatever comes and goes between two pages."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from controller.api.pages import page

ids = st.text(alphabet="abcxyz09.-", min_size=1, max_size=6)
lists = st.sets(ids, max_size=40)
Changes = list[tuple[set[str], set[str]]]
changes = st.lists(st.tuples(st.sets(ids, max_size=5), st.sets(ids, max_size=5)), max_size=60)


def read(items: set[str], changes: Changes, *, limit: int, falling: bool) -> Iterator[str]:
    """All pages, while between two of them some items come and others go."""
    after: str | None = None
    left = iter(changes)
    while True:
        some, after = page(items, str, after=after, limit=limit, falling=falling)
        assert len(some) <= limit
        yield from some
        if after is None:
            return
        comes, goes = next(left, (set(), set()))
        items = (items | comes) - goes


@given(lists, st.integers(1, 9), st.booleans())
def test_pages_together_are_the_whole_in_its_order(
    items: set[str], limit: int, falling: bool
) -> None:
    """Nothing twice, nothing left out, sorted."""
    assert list(read(items, [], limit=limit, falling=falling)) == sorted(items, reverse=falling)


@given(lists, changes, st.integers(1, 9), st.booleans())
def test_what_stays_is_told_once_while_others_come_and_go(
    items: set[str], changes: Changes, limit: int, falling: bool
) -> None:
    """Whatever changes between two pages: in order, nothing twice, and everything that stayed."""
    told = list(read(items, changes, limit=limit, falling=falling))
    assert told == sorted(set(told), reverse=falling)
    gone = {item for _, goes in changes for item in goes}
    assert items - gone <= set(told)


@given(lists, st.integers(1, 9))
def test_the_last_page_says_that_it_is_the_last(items: set[str], limit: int) -> None:
    """A cursor is given only where something follows: nobody asks for an empty page."""
    some, after = page(items, str, after=None, limit=limit)
    assert (after is None) == (len(items) <= limit)
    assert after in (None, some[-1] if some else None)
