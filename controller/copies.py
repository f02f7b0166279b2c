"""Whole copies of what relevo keeps in a store: into a file, or into another store. What is leased stays behind."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from controller import settle
from controller.store import Cmp, Leadership, Put, Store
from fleet import keys
from fleet.model import StoreId

AT_ONCE = 100  # operations in one transaction; etcd takes 128, the compares among them
AT_ONCE_BYTES = 1 << 20
UNPACKED_BYTES = 1 << 30  # a copy of 10,000 sites has 10 MB
PIECE_BYTES = 1 << 20


class BadCopy(Exception):
    """The file is no copy of a store, or a damaged one."""


class NotEmpty(Exception):
    """The store holds something already."""


class Copy(msgspec.Struct, frozen=True, kw_only=True):
    """Every key without a lease, as it stood at `revision`; `taken_at` is Unix s."""

    id: StoreId
    revision: int
    taken_at: float
    items: tuple[tuple[bytes, bytes], ...]

    @property
    def packed(self) -> bytes:
        return gzip.compress(msgspec.msgpack.encode(self), mtime=0)


async def take(store: Store, at: float) -> Copy:
    """A copy of `store` as it is. Raises StoreError."""
    snapshot = await store.list(keys.PREFIX)
    items = tuple((item.key, item.value) for item in snapshot.items if not item.lease)
    ids = [value for key, value in items if key == keys.STORE]
    return Copy(
        id=msgspec.json.decode(ids[0], type=StoreId) if ids else StoreId(cluster="", generation=0),
        revision=snapshot.revision,
        taken_at=at,
        items=items,
    )


def read(path: Path) -> Copy:
    """Raises BadCopy."""
    try:
        with gzip.open(path) as file:
            # Not in one piece: reading takes the room that it is allowed, whatever there is to read.
            pieces, left = list[bytes](), UNPACKED_BYTES
            while left > 0 and (piece := file.read(min(left, PIECE_BYTES))):
                pieces.append(piece)
                left -= len(piece)
        return msgspec.msgpack.decode(b"".join(pieces), type=Copy)
    except (OSError, EOFError, ValueError, zlib.error) as error:  # msgspec's is a ValueError
        raise BadCopy(f"{path}: not a whole copy of a store: {error}") from error


async def give(leadership: Leadership, store: Store, copy: Copy, *, generation: int) -> None:
    """Write `copy` into an empty store, as `generation`.

    The caller leads there, so that no controller acts on half a copy; its name is written last, for the same reason.
    Raises NotEmpty, StoreError.
    """
    if [item for item in (await store.list(keys.PREFIX)).items if not item.lease]:
        raise NotEmpty
    items = [(key, value) for key, value in copy.items if key != keys.STORE]
    for batch in _batches(items):
        absent = [Cmp(key, "create", "=", 0) for key, _ in batch]
        result = await leadership.txn([Put(key, value) for key, value in batch], absent)
        if not result.ok:
            raise NotEmpty
    id = msgspec.structs.replace(copy.id, generation=generation)
    await leadership.txn([Put(keys.STORE, settle.encode(id))], [Cmp(keys.STORE, "create", "=", 0)])


def _batches(items: Sequence[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    batch: list[tuple[bytes, bytes]] = []
    size = 0
    for key, value in items:
        if batch and (2 * len(batch) + 4 > AT_ONCE or size + len(value) > AT_ONCE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((key, value))
        size += len(value)
    if batch:
        yield batch
