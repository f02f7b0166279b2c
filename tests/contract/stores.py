"""The stores that must keep the contract: one factory each."""

import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.store import Batch, EmbeddedStore, Event, Store
from controller.store.etcd import EtcdStore
from tests.etcds import Cluster


@dataclass(frozen=True, slots=True)
class Subject:
    """A fresh store, and how its test kills the process that holds a lease: nothing keeps it alive any more."""

    store: Store
    abandon: Callable[[int], None]


Factory = Callable[[Path], AbstractAsyncContextManager[Subject]]


@asynccontextmanager
async def embedded_in_memory(directory: Path) -> AsyncGenerator[Subject, None]:
    async with EmbeddedStore.open(None) as store:
        yield Subject(store, store.abandon)


@asynccontextmanager
async def embedded_in_a_file(directory: Path) -> AsyncGenerator[Subject, None]:
    async with EmbeddedStore.open(directory / "store.db") as store:
        yield Subject(store, store.abandon)


_numbers = itertools.count()


@asynccontextmanager
async def etcd(cluster: Cluster) -> AsyncGenerator[Subject, None]:
    """A prefix of its own in a cluster that lives longer: keys are fresh, revisions go on."""
    prefix = b"/contract/%d/" % next(_numbers)
    async with EtcdStore.open(cluster.urls, prefix=prefix) as store:
        yield Subject(store, store.abandon)
    async with EtcdStore.open(cluster.urls, prefix=prefix) as store:
        # A lease left behind ends in the time of another test: there must be no key to end with it.
        await store.delete(b"", prefix=True)


FACTORIES: dict[str, Factory] = {
    "embedded-memory": embedded_in_memory,
    "embedded-file": embedded_in_a_file,
}


async def take(batches: AsyncGenerator[Batch, None], count: int) -> list[Event]:
    """The next events of a watch, at least `count` of them."""
    events: list[Event] = []
    while len(events) < count:
        events += (await anext(batches)).events
    return events


def told(events: list[Event]) -> list[tuple[str, bytes, bytes, int]]:
    """Kind, key, value, revision of each."""
    return [(e.kind, e.kv.key, e.kv.value, e.kv.mod_revision) for e in events]
