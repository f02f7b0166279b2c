"""A copy of a store in a file."""

import tracemalloc
from pathlib import Path

from controller.copies import PIECE_BYTES, Copy, read
from fleet.model import StoreId


def test_reading_a_copy_takes_the_room_of_what_is_in_it(tmp_path: Path) -> None:
    """And not of what could be: a controller with 600 MB of memory checks its snapshots too."""
    items = ((b"/relevo/big", bytes(3 * PIECE_BYTES)), (b"/relevo/small", b"1"))
    copy = Copy(id=StoreId(cluster="c", generation=1), revision=7, taken_at=1.0, items=items)
    path = tmp_path / "copy"
    path.write_bytes(copy.packed)
    tracemalloc.start()
    try:
        assert read(path) == copy
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * PIECE_BYTES
