"""Pieces of a fleet on their way into the store."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.declare import STAGED_AT_ONCE, staged
from controller.store.limits import check
from fleet.chunks import CHUNK_LIMIT_BYTES

sizes = st.lists(st.integers(0, CHUNK_LIMIT_BYTES), max_size=30) | st.lists(
    st.integers(0, 2000), max_size=500
)


@given(sizes)
@settings(max_examples=20, deadline=None)
def test_each_request_is_one_that_the_store_takes(sizes: list[int]) -> None:
    """Every piece is staged once, in order, within the limits of a transaction, and no two requests could be one."""
    missing = {
        b"/relevo/v1/fleet/chunks/" + b"%064d" % n: bytes(size) for n, size in enumerate(sizes)
    }
    requests = list(staged(missing))
    assert [(put.key, put.value) for puts in requests for put in puts] == list(missing.items())
    for puts in requests:
        check((), puts, ())
    for first, second in pairwise(requests):
        full = sum(len(put.value) for put in first) + len(second[0].value) > 4 * CHUNK_LIMIT_BYTES
        assert full or len(first) == STAGED_AT_ONCE
