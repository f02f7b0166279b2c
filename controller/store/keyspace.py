"""etcd's state as plain values: the keys as they stand, and their history by revision.

A revision is the tuple of its events, in the order of the operations that caused them. Nothing here waits, or
reads a clock or a disk.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Self

from controller.store.protocol import KV, Compacted, Denied, Event

Revision = tuple[Event, ...]

# A watcher that fell behind by this much lists again: cheaper than catching up.
KEPT_REVISIONS = 10_000
KEPT_BYTES = 32 << 20
SLACK_REVISIONS = 1_000  # compaction comes in strides, so that its cost per write is none
EVENT_BYTES = 400  # what Python adds to a key and its value


class Keyspace:
    """The keys as they stand, and how they came to: every revision since `oldest`.

    An empty store is at revision 1, as etcd's is. `oldest` is the last compaction's revision, 0 before the first.
    """

    def __init__(self) -> None:
        self.revision = 1
        self.oldest = 0
        self._items: dict[bytes, KV] = {}
        self._keys: list[bytes] = []  # the keys of _items in byte order
        self._history: list[Revision] = []  # the last one is that of `revision`
        self._history_bytes = 0

    @classmethod
    def restore(cls, versions: Iterable[Event], *, oldest: int) -> Self:
        """Rebuild from the events kept, in the order they happened; those before `oldest` are the base.

        Their `prev` is found anew. Raises ValueError where a revision of the history is missing.
        """
        self = cls()
        self.oldest, self.revision = oldest, max(oldest - 1, 1)
        for revision, group in groupby(versions, key=lambda event: event.kv.mod_revision):
            if revision < oldest:
                for event in group:
                    self._apply(event)
                continue
            if revision != self.revision + 1:
                raise ValueError(f"revision {self.revision + 1} is missing, {revision} follows")
            self.adopt([tuple(Event(e.kind, e.kv, self.get(e.kv.key)) for e in group)])
        return self

    def get(self, key: bytes) -> KV | None:
        return self._items.get(key)

    def keys(self, prefix: bytes) -> Iterator[bytes]:
        """Those that begin with `prefix`, in byte order."""
        for i in range(bisect_left(self._keys, prefix), len(self._keys)):
            if not self._keys[i].startswith(prefix):
                return
            yield self._keys[i]

    def values(self) -> Iterable[KV]:
        """In no order."""
        return self._items.values()

    def at(self, prefix: bytes, revision: int) -> tuple[KV, ...]:
        """The keys of `prefix` as they stood at `revision`. Raises Compacted, and Denied for the future."""
        self._check_known(revision)
        items = {key: self._items[key] for key in self.keys(prefix)}
        for events in reversed(self._since(revision + 1)):
            for event in reversed(events):
                if not event.kv.key.startswith(prefix):
                    continue
                if event.prev:
                    items[event.kv.key] = event.prev
                else:
                    del items[event.kv.key]
        return tuple(items[key] for key in sorted(items))

    def changes(self, prefix: bytes, *, after: int, limit: int) -> tuple[int, Revision]:
        """Up to which revision was looked, and what happened to `prefix` since `after`, in order.

        Whole revisions only; stops once there are `limit` events. Raises Compacted.
        """
        if after + 1 < self.oldest:
            raise Compacted(self.oldest)
        found: list[Event] = []
        revision = max(after, 0)
        start = max(after + 1, self._first)
        for revision, events in enumerate(self._since(start), start):  # noqa: B007 - used below
            found += (event for event in events if event.kv.key.startswith(prefix))
            if len(found) >= limit:
                break
        return revision, tuple(found)

    @property
    def _first(self) -> int:
        """The revision of the history's first entry."""
        return self.revision - len(self._history) + 1

    def _since(self, revision: int) -> list[Revision]:
        """The history from `revision` on; a revision that isn't yet has none."""
        return self._history[max(revision - self._first, 0) :]

    def _check_known(self, revision: int) -> None:
        if revision < self.oldest:
            raise Compacted(self.oldest)
        if revision > self.revision:
            raise Denied(
                f"required revision is a future revision: asked for {revision}, the store is at {self.revision}"
            )

    def adopt(self, revisions: Sequence[Revision], oldest: int = 0) -> None:
        """Make drafted revisions real, in order, and forget what is before `oldest`."""
        for events in revisions:
            self.revision += 1
            self._history.append(events)
            self._history_bytes += size(events)
            for event in events:
                self._apply(event)
        self.forget(oldest)

    def forget(self, oldest: int) -> None:
        """Drop the history before `oldest`; the keys stay."""
        if oldest > self.oldest:
            gone = max(oldest - self._first, 0)
            self._history_bytes -= sum(map(size, self._history[:gone]))
            del self._history[:gone]
            self.oldest = oldest

    def overdue(self) -> int:
        """Up to which revision history should be forgotten now; 0 while it's within bounds."""
        count, total = len(self._history), self._history_bytes
        if count <= KEPT_REVISIONS + SLACK_REVISIONS and total <= KEPT_BYTES:
            return 0
        gone = 0
        while gone < count - 1 and (count - gone > KEPT_REVISIONS or total > KEPT_BYTES // 2):
            total -= size(self._history[gone])
            gone += 1
        return self._first + gone

    def _apply(self, event: Event) -> None:
        key = event.kv.key
        if event.kind == "put":
            if key not in self._items:
                insort(self._keys, key)
            self._items[key] = event.kv
        else:
            del self._items[key]
            del self._keys[bisect_left(self._keys, key)]

    def superseded(self, oldest: int, drafted: Sequence[Revision] = ()) -> list[tuple[int, bytes]]:
        """Which (revision, key) nobody can ask for once history begins at `oldest`.

        A version goes when its successor is older than `oldest`, and a tombstone when it is itself.
        """
        gone: list[tuple[int, bytes]] = []
        for events in [*self._history, *drafted][: max(oldest - self._first, 0)]:
            for event in events:
                if event.prev:
                    gone.append((event.prev.mod_revision, event.kv.key))
                if event.kind == "delete":
                    gone.append((event.kv.mod_revision, event.kv.key))
        return gone


def size(events: Revision) -> int:
    """Bytes that a revision holds in memory, roughly."""
    return sum(len(e.kv.key) + len(e.kv.value) + EVENT_BYTES for e in events)
