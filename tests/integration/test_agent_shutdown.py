"""A machine's shutdown over a real dbus-daemon: said at once, waited for, called off, and lived without."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dbus_fast import BusType, Message
from dbus_fast.aio import MessageBus

from agent.sense import shutdown
from agent.sense.shutdown import DRAIN_S, Shutdown
from deploy.demo.logind import MANAGER, PATH, Logind, private_bus, stand_in
from fleet.messages import AgentState, Orders
from fleet.model import Epoch, HostId, SiteId

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("dbus-daemon") is None, reason="no dbus-daemon here"),
]

SERVING = Orders(epoch=Epoch(1, 1), cluster="c", host=HostId("h1"), sites=(SiteId("s1"),))
EMPTY = Orders(epoch=Epoch(1, 2), cluster="c", host=HostId("h1"))
ADDRESSED = Orders(epoch=Epoch(1, 2), cluster="c", host=HostId("h1"), addressed=True)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a Unix socket's has 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="relevo-") as path:
        yield Path(path)


@dataclass
class Watched:
    """An agent's shutdown sense; `said` are the states that beats would have told at once."""

    orders: Orders | None = None
    said: list[AgentState] = field(default_factory=list)
    sense: Shutdown = field(init=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self) -> None:
        self.said.append(self.sense.state)
        self.changed.set()

    def order(self, orders: Orders) -> None:
        self.orders = orders
        self.sense.orders_arrived()

    async def until(self, state: AgentState) -> None:
        while self.sense.state is not state:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def watching(
    address: str, monkeypatch: pytest.MonkeyPatch, *, wait_s: float = 4.0
) -> AsyncIterator[Watched]:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
    watched = Watched(orders=SERVING)
    watched.sense = Shutdown(wait_s=wait_s, orders=lambda: watched.orders, changed=watched.note)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(watched.sense.keep())
        yield watched
        task.cancel()


@asynccontextmanager
async def a_machine(directory: Path) -> AsyncIterator[tuple[str, Logind]]:
    async with private_bus(directory) as address, stand_in(address) as logind:
        yield address, logind


async def test_the_machine_waits_until_the_orders_say_that_the_sites_are_gone(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LEAVING is said at once; the inhibitor is let go DRAIN_S after the empty orders, not before."""
    loop = asyncio.get_running_loop()
    async with a_machine(directory) as (address, logind), watching(address, monkeypatch) as agent:
        await logind.until_inhibitors(1)
        assert logind.inhibitors[0].who == "relevo"
        async with asyncio.TaskGroup() as group:
            going = group.create_task(logind.shutdown())
            began = loop.time()
            await agent.until(AgentState.LEAVING)
            assert loop.time() - began < 0.2
            agent.order(SERVING)
            await asyncio.sleep(0.7)
            assert len(logind.inhibitors) == 1
            agent.order(EMPTY)
            ordered = loop.time()
            assert await going
            assert DRAIN_S - 0.05 < loop.time() - ordered < DRAIN_S + 0.3
        assert agent.said == [AgentState.LEAVING]


@pytest.mark.parametrize("orders", [SERVING, ADDRESSED, None], ids=["serving", "addressed", "none"])
async def test_nobody_is_waited_for_longer_than_configured(
    directory: Path, monkeypatch: pytest.MonkeyPatch, orders: Orders | None
) -> None:
    """A host whose sites do not move, an edge, and a host without orders let the machine go after wait_s."""
    loop = asyncio.get_running_loop()
    async with (
        a_machine(directory) as (address, logind),
        watching(address, monkeypatch, wait_s=0.6) as agent,
    ):
        agent.orders = orders
        await logind.until_inhibitors(1)
        began = loop.time()
        assert await logind.shutdown()
        assert 0.5 < loop.time() - began < 1.2
        assert agent.sense.state is AgentState.LEAVING


async def test_a_shutdown_called_off_is_running_again_with_a_new_inhibitor(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both while the inhibitor is still held and after it was let go."""
    async with (
        a_machine(directory) as (address, logind),
        watching(address, monkeypatch, wait_s=0.3) as agent,
    ):
        for delay_max_s in (0.05, 2.0):
            await logind.until_inhibitors(1)
            held = await logind.shutdown(delay_max_s)
            assert held == (delay_max_s > 1)
            logind.cancel()
            await agent.until(AgentState.RUNNING)
        await logind.until_inhibitors(1)
        assert agent.said == [AgentState.LEAVING, AgentState.RUNNING] * 2


async def test_an_agent_that_starts_during_a_shutdown_knows_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upgraded in the last second: the state is asked for, not only heard."""
    async with a_machine(directory) as (address, logind):
        await logind.shutdown(0.1)
        async with watching(address, monkeypatch) as agent:
            await agent.until(AgentState.LEAVING)


async def test_a_forged_announcement_is_ignored(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyone may send us a signal on the system bus; only logind's counts."""
    async with a_machine(directory) as (address, logind), watching(address, monkeypatch) as agent:
        await logind.until_inhibitors(1)
        forger = await MessageBus(address, BusType.SYSTEM).connect()
        try:
            signal = Message.new_signal(PATH, MANAGER, "PrepareForShutdown", "b", [True])
            await forger.send(signal)
            for number in range(1, 5):  # and straight to each who is on the bus
                signal = Message.new_signal(PATH, MANAGER, "PrepareForShutdown", "b", [True])
                signal.destination = f":1.{number}"
                await forger.send(signal)
            await asyncio.sleep(0.3)
        finally:
            forger.disconnect()
        assert agent.said == []


async def test_without_a_bus_or_logind_the_agent_lives_and_finds_them_later(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No bus, then a bus without logind, then logind; a logind that ends is found again too."""
    monkeypatch.setattr(shutdown, "RETRY_S", 0.1)
    async with watching(f"unix:path={directory / 'bus'}", monkeypatch) as agent:
        await asyncio.sleep(0.3)
        async with private_bus(directory) as address:
            await asyncio.sleep(0.3)
            for _ in range(2):
                async with stand_in(address) as logind:
                    await logind.until_inhibitors(1)
        await asyncio.sleep(0.3)
        async with a_machine(directory) as (_, logind):
            await logind.until_inhibitors(1)
        assert agent.said == []
