"""Orders: only newer ones of our own cluster and host (R2), kept on disk first, followed until done (R7)."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.orders import Answer, FileCache, Follower, judge
from agent.ports import DriverError
from fleet.messages import Applied, Orders
from fleet.model import Epoch, HostId, SiteId
from metrics.catalogue import AGENT
from metrics.exporter import Exporter

HOST = HostId("h1")


def some_orders(revision: int, *, cluster: str = "c", host: HostId = HOST) -> Orders:
    return Orders(
        epoch=Epoch(1, revision), cluster=cluster, host=host, sites=(SiteId(f"s{revision}"),)
    )


class Memory:
    """A cache in memory, that can be full."""

    def __init__(self, orders: Orders | None = None) -> None:
        self.orders, self.full = orders, False

    def read(self) -> Orders | None:
        return self.orders

    async def write(self, orders: Orders) -> None:
        if self.full:
            raise DriverError("no space left on device")
        self.orders = orders


class World:
    """What orders are applied to; `fails` tries fail first, `holds` keeps an application from ending."""

    def __init__(self, cache: Memory) -> None:
        self.cache, self.fails = cache, 0
        self.applied: list[int] = []
        self.cached_before: list[Orders | None] = []
        self.acknowledged: list[Applied] = []
        self.holds: asyncio.Event | None = None

    async def apply(self, orders: Orders) -> tuple[str, ...]:
        self.cached_before.append(self.cache.orders)
        if self.holds:
            await self.holds.wait()
        if self.fails:
            self.fails -= 1
            raise DriverError("haproxy: no such file")
        self.applied.append(orders.epoch.revision)
        return ("a stray",) if orders.epoch.revision == 99 else ()


@asynccontextmanager
async def following(world: World) -> AsyncIterator[tuple[Follower, Exporter]]:
    exporter = Exporter(AGENT)
    follower = Follower(
        HOST, world.cache, world.apply, acknowledge=world.acknowledged.append, exporter=exporter
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(follower.keep())
        yield follower, exporter
        task.cancel()


def test_what_becomes_of_orders() -> None:
    """Newer: followed. Same: said again. Older, of another cluster, for another host: refused."""
    newest = some_orders(5)
    cases = {
        Answer.FOLLOW: some_orders(6),
        Answer.SAME: some_orders(5),
        Answer.OLDER: some_orders(4),
        Answer.CLUSTER: some_orders(6, cluster="other"),
        Answer.HOST: some_orders(6, host=HostId("h2")),
    }
    for answer, orders in cases.items():
        assert judge(orders, host=HOST, newest=newest) is answer
    assert judge(some_orders(1), host=HOST, newest=None) is Answer.FOLLOW
    assert judge(cases[Answer.HOST], host=HOST, newest=None) is Answer.HOST


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5), st.sampled_from("cd")), min_size=2))
def test_epochs_only_grow_and_the_cluster_stays(offers: list[tuple[int, int, str]]) -> None:
    """Whatever is offered in whatever order, what is followed is a growing row of one cluster (rule R2)."""
    newest: Orders | None = None
    for generation, revision, cluster in offers:
        orders = Orders(epoch=Epoch(generation, revision), cluster=cluster, host=HOST)
        if judge(orders, host=HOST, newest=newest) is Answer.FOLLOW:
            assert newest is None or (
                orders.epoch > newest.epoch and orders.cluster == newest.cluster
            )
            newest = orders
    assert newest is not None


@pytest.mark.virtual_time
async def test_orders_are_kept_then_applied_then_acknowledged() -> None:
    """Intent first: when they are applied, the disk already knows them."""
    world = World(Memory())
    async with following(world) as (follower, _):
        assert follower.offer(some_orders(1)) is None
        await asyncio.sleep(0.01)
    assert world.cached_before == [some_orders(1)]
    assert world.acknowledged == [Applied(epoch=Epoch(1, 1))]
    assert (follower.epoch, follower.cluster) == (Epoch(1, 1), "c")


@pytest.mark.virtual_time
async def test_while_orders_are_applied_only_the_newest_of_those_that_come_waits() -> None:
    """A slow application is followed by the newest orders, not by a queue of old ones."""
    world = World(Memory())
    world.holds = asyncio.Event()
    async with following(world) as (follower, exporter):
        follower.offer(some_orders(1))
        await asyncio.sleep(0.01)
        for revision in (2, 5, 3, 4):
            follower.offer(some_orders(revision))
        assert follower.epoch == Epoch()
        world.holds.set()
        await asyncio.sleep(0.01)
    assert world.applied == [1, 5]
    assert [a.epoch.revision for a in world.acknowledged] == [1, 5]
    assert b'refused_total{reason="older"} 2.0' in exporter.render()


@pytest.mark.virtual_time
async def test_a_failing_driver_is_tried_each_second_and_nothing_is_acknowledged_before() -> None:
    """Three failures cost three seconds; the acknowledgement says what is true."""
    world = World(Memory())
    world.fails = 3
    async with following(world) as (follower, _):
        follower.offer(some_orders(1))
        await asyncio.sleep(2.9)
        assert (world.acknowledged, follower.epoch) == ([], Epoch())
        assert follower.offer(some_orders(1)) is None
        await asyncio.sleep(0.2)
    assert world.acknowledged == [Applied(epoch=Epoch(1, 1))]


@pytest.mark.virtual_time
async def test_newer_orders_end_the_wait_of_failing_ones() -> None:
    """What failed is not insisted on when there is newer."""
    world = World(Memory())
    world.fails = 1
    async with following(world) as (follower, _):
        follower.offer(some_orders(1))
        await asyncio.sleep(0.1)
        follower.offer(some_orders(2))
        await asyncio.sleep(0.1)
    assert world.applied == [2]


@pytest.mark.virtual_time
async def test_the_same_orders_again_are_acknowledged_again_and_not_applied_again() -> None:
    """A controller that reconnects learns what is in force, refusals included."""
    world = World(Memory())
    async with following(world) as (follower, _):
        follower.offer(some_orders(99))
        await asyncio.sleep(0.01)
        again = follower.offer(some_orders(99))
        await asyncio.sleep(0.01)
    assert again == Applied(epoch=Epoch(1, 99), refused=("a stray",))
    assert world.applied == [99]


@pytest.mark.virtual_time
async def test_the_cached_orders_are_applied_at_the_start_without_any_controller() -> None:
    """A restart in a lonely hour changes nothing (rule R6); older orders are refused even before that is done."""
    world = World(Memory(some_orders(7)))
    async with following(world) as (follower, _):
        assert follower.epoch == Epoch()
        follower.offer(some_orders(6))
        await asyncio.sleep(0.01)
        assert follower.epoch == Epoch(1, 7)
    assert world.applied == [7]


@pytest.mark.virtual_time
async def test_a_full_disk_stops_no_failover_and_is_said() -> None:
    """Orders that can't be kept are followed, with that as a refusal."""
    world = World(Memory())
    world.cache.full = True
    async with following(world) as (follower, _):
        follower.offer(some_orders(1))
        await asyncio.sleep(0.01)
    assert world.applied == [1]
    assert world.acknowledged[0].refused == ("no space left on device",)


async def test_the_file_is_whole_private_and_read_back(tmp_path: Path) -> None:
    """Written and read back equal; only its owner may read it; nothing else is left behind."""
    cache = FileCache(tmp_path / "orders.json")
    assert cache.read() is None
    await cache.write(some_orders(1))
    await cache.write(some_orders(2))
    assert cache.read() == some_orders(2)
    assert stat.S_IMODE((tmp_path / "orders.json").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["orders.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b'{"type":"orders"}', b"\xff" * 10, b"[" * 1_000_000],
    ids=["empty", "cut", "array", "fields", "binary", "deep"],
)
def test_an_unreadable_cache_is_set_aside_and_starts_nothing(
    tmp_path: Path, content: bytes
) -> None:
    """No orders are followed rather than half of them (rule R7), and the file is there to be looked at."""
    path = tmp_path / "orders.json"
    path.write_bytes(content)
    assert FileCache(path).read() is None
    assert not path.exists()
    assert (tmp_path / "orders.json.unreadable").read_bytes() == content


async def test_a_half_written_file_of_a_crash_is_not_taken_for_orders(tmp_path: Path) -> None:
    """What a crash left of a write is ignored and written over."""
    cache = FileCache(tmp_path / "orders.json")
    await cache.write(some_orders(1))
    (tmp_path / "orders.json.new").write_bytes(msgspec.json.encode(some_orders(2))[:20])
    assert cache.read() == some_orders(1)
    await cache.write(some_orders(3))
    assert cache.read() == some_orders(3)


async def test_a_directory_that_is_gone_is_a_driver_error(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(DriverError, match=r"gone/orders\.json"):
        await FileCache(tmp_path / "gone" / "orders.json").write(some_orders(1))
