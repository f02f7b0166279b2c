"""Store calls beside the same calls on raw gRPC stubs, in turns, on one etcd whose files are in memory."""

import asyncio
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import uvloop
from grpc import aio

from bench.measure import machine, percentile, row
from controller.store import Cmp, Get, Put
from controller.store.etcd import EtcdStore
from controller.store.etcd import rpc_pb2 as rpc
from controller.store.etcd.member import PUT, RANGE, TXN, WATCH
from tests.etcds import NEW, cluster

RUNS = 5
TURNS = 4  # of each side, in every run
SEQUENTIAL, PARALLEL, ABREAST = 250, 1_500, 64
LISTS, LISTED = 10, 1_000
WATCHED, PER_S = 1_000, 500
VALUE = b"x" * 1_024
MEMORY = Path("/dev/shm")  # where there is one, so that the client is measured and not the disk
FOLDER = MEMORY if MEMORY.is_dir() else None
SHARE, TIMES = 0.7, 2.0  # of the raw stubs' throughput; of their watch's p99


class Subject(Protocol):
    """The same five things, done by the store or by raw stubs."""

    async def put(self, key: bytes, value: bytes) -> object: ...
    async def get(self, key: bytes) -> object: ...
    async def txn(self, key: bytes, value: bytes) -> object: ...
    async def every(self, prefix: bytes) -> object: ...
    def watch(self, prefix: bytes, after: int) -> AsyncGenerator[list[bytes], None]: ...


class OfStore:
    def __init__(self, store: EtcdStore) -> None:
        self._store = store
        self.put = store.put
        self.get = store.get
        self.every = store.list

    async def txn(self, key: bytes, value: bytes) -> object:
        return await self._store.txn(
            [Cmp(b"fence", "create", "=", 0)], [Put(key, value)], [Get(b"fence")]
        )

    async def watch(self, prefix: bytes, after: int) -> AsyncGenerator[list[bytes], None]:
        async with aclosing(self._store.watch(prefix, after=after)) as batches:
            async for batch in batches:
                yield [event.kv.value for event in batch.events]


class OfStubs:
    """No deadline, no second endpoint, no error told apart, no resuming."""

    def __init__(self, channel: aio.Channel) -> None:
        self._range, self._put, self._txn = (
            channel.unary_unary(one.path, one.request.SerializeToString, one.response.FromString)
            for one in (RANGE, PUT, TXN)
        )
        self._watch = channel.stream_stream(
            WATCH, rpc.WatchRequest.SerializeToString, rpc.WatchResponse.FromString
        )

    async def put(self, key: bytes, value: bytes) -> object:
        return await self._put(rpc.PutRequest(key=key, value=value))

    async def get(self, key: bytes) -> object:
        return await self._range(rpc.RangeRequest(key=key))

    async def every(self, prefix: bytes) -> object:
        return await self._range(rpc.RangeRequest(key=prefix, range_end=prefix[:-1] + b"0"))

    async def txn(self, key: bytes, value: bytes) -> object:
        compare = rpc.Compare(
            key=b"fence", target=rpc.Compare.CREATE, result=rpc.Compare.EQUAL, create_revision=0
        )
        put = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=value))
        get = rpc.RequestOp(request_range=rpc.RangeRequest(key=b"fence"))
        return await self._txn(rpc.TxnRequest(compare=[compare], success=[put], failure=[get]))

    async def watch(self, prefix: bytes, after: int) -> AsyncGenerator[list[bytes], None]:
        call = self._watch()
        create = rpc.WatchCreateRequest(
            key=prefix, range_end=prefix[:-1] + b"0", start_revision=after + 1
        )
        await call.write(rpc.WatchRequest(create_request=create))
        try:
            while True:
                response = await call.read()
                assert isinstance(response, rpc.WatchResponse)
                yield [event.kv.value for event in response.events]
        finally:
            call.cancel()


async def abreast(count: int, act: Callable[[int], Awaitable[object]]) -> float:
    """Calls per second, ABREAST at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await act(number)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(ABREAST):
            group.create_task(work())
    return count / (time.perf_counter() - began)


async def in_a_row(count: int, act: Callable[[int], Awaitable[object]]) -> float:
    began = time.perf_counter()
    for number in range(count):
        await act(number)
    return count / (time.perf_counter() - began)


def key(number: int) -> bytes:
    return b"k/%04d" % (number % LISTED)


@dataclass(frozen=True, slots=True)
class Load:
    what: str
    count: int  # calls in one turn
    run: Callable[[int, Callable[[int], Awaitable[object]]], Awaitable[float]]
    act: Callable[[Subject, int], Awaitable[object]]


LOADS = (
    Load("put, one at a time", SEQUENTIAL, in_a_row, lambda of, n: of.put(key(n), VALUE)),
    Load("put, 64 at a time", PARALLEL, abreast, lambda of, n: of.put(key(n), VALUE)),
    Load("get, 64 at a time", PARALLEL, abreast, lambda of, n: of.get(key(n))),
    Load("fenced txn, one at a time", SEQUENTIAL, in_a_row, lambda of, n: of.txn(key(n), VALUE)),
    Load("fenced txn, 64 at a time", PARALLEL, abreast, lambda of, n: of.txn(key(n), VALUE)),
    Load("list of 1,000 keys", LISTS, in_a_row, lambda of, _: of.every(b"k/")),
)


async def compared(load: Load, ours: Subject, raw: Subject, turns: int) -> None:
    """In short turns, so that what else the machine does falls on both alike; the medians of their rates."""
    rates: dict[Subject, list[float]] = {ours: [], raw: []}
    for turn in range(turns):
        for of in (ours, raw) if turn % 2 else (raw, ours):
            rates[of].append(await load.run(load.count, partial(load.act, of)))
    own, other = statistics.median(rates[ours]), statistics.median(rates[raw])
    found = f"{own:,.0f}/s of {other:,.0f}/s: {own / other:.2f}"
    row(load.what, found, f">= {SHARE}", reached=own >= SHARE * other)


async def latencies(of: Subject, writer: Subject, after: int) -> list[float]:
    """From before each put to the watcher's hearing of it, at PER_S puts a second."""
    heard: list[float] = []

    async def listen() -> None:
        async with aclosing(of.watch(b"w/", after)) as batches:
            async for values in batches:
                now = time.perf_counter()
                heard.extend(now - float(value) for value in values)
                if len(heard) >= WATCHED:
                    return

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        await asyncio.sleep(0.2)
        begun = time.perf_counter()
        for number in range(WATCHED):
            await asyncio.sleep(begun + number / PER_S - time.perf_counter())
            group.create_task(_put_time(writer, number))
    return heard


async def _put_time(writer: Subject, number: int) -> None:
    await writer.put(b"w/%d" % number, b"%.6f" % time.perf_counter())


@asynccontextmanager
async def subjects() -> AsyncGenerator[tuple[OfStore, OfStubs, EtcdStore], None]:
    async with (
        cluster(NEW, size=1, below=FOLDER) as etcd,
        EtcdStore.open(etcd.urls) as store,
        aio.insecure_channel(etcd.urls[0].removeprefix("http://")) as channel,
    ):
        yield OfStore(store), OfStubs(channel), store


async def measure(runs: int) -> None:
    watches: list[tuple[list[float], list[float]]] = []
    async with subjects() as (ours, raw, store):
        await in_a_row(LISTED, lambda n: raw.put(key(n), VALUE))
        for load in LOADS:
            await compared(load, ours, raw, runs * TURNS)
        for _ in range(runs):
            at = (await store.list(b"none")).revision
            heard = await latencies(ours, raw, at)
            at = (await store.list(b"none")).revision
            watches.append((heard, await latencies(raw, raw, at)))
    for what, percent in (("p50", 50), ("p99", 99)):
        own_s, raw_s = (
            statistics.median(percentile(heard, percent) for heard in side)
            for side in zip(*watches, strict=True)
        )
        found = f"{own_s * 1e3:.2f} ms of {raw_s * 1e3:.2f} ms: {own_s / raw_s:.2f}"
        goal = f"<= {TIMES:g} times" if percent == 99 else ""
        row(f"watch at {PER_S}/s, {what}", found, goal, reached=own_s <= TIMES * raw_s)


def main(runs: int = RUNS) -> None:
    print(f"  {machine()}; etcd {NEW}, 1 KiB values; the store, of raw stubs: medians of {runs}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(runs))
