"""The whole agent as a process holds its sites: from a controller's orders to a delegated cgroup, and what it tells."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from deploy.demo.plans import STANDARD
from fleet.caps import Attachment, Level, Ruling, Tenant
from fleet.messages import Ack, Beat, FromAgent, Orders, SiteUse, Usage
from fleet.model import Epoch, HostId, Note, SiteId, Why
from runtime.clock import wall
from tests.integration.systemds import PLAIN
from tests.integration.test_agent_daemon import configure, listening, running
from tests.ports import free_port

pytestmark = pytest.mark.integration

SHOP = SiteId("shop")
SLICE = "shop.slice"
NONE: Mapping[SiteId, Ruling] = {}
LONGEST_S = 40.0  # a telling comes each 10 s


class Controller:
    """Sends `orders` on each link, and hears how the host's sites are."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.told: list[Usage] = []
        self._links: list[web.WebSocketResponse] = []
        self._news = asyncio.Event()

    async def link(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self._links.append(socket)
        await socket.send_bytes(msgspec.json.encode(self.orders))
        async for frame in socket:
            message = msgspec.json.decode(frame.data, type=FromAgent)
            if isinstance(message, Beat):
                await socket.send_bytes(msgspec.json.encode(Ack(sequence=message.sequence)))
            elif isinstance(message, Usage):
                self.told.append(message)
                self._news.set()
        return socket

    async def order(self, orders: Orders) -> None:
        self.orders = orders
        for socket in self._links:
            await socket.send_bytes(msgspec.json.encode(orders))

    async def until(self, holds: Callable[[Usage], object]) -> Usage:
        async with asyncio.timeout(LONGEST_S):
            while not any(holds(usage) for usage in self.told):
                self._news.clear()
                await self._news.wait()
        return next(usage for usage in self.told if holds(usage))


def orders(revision: int, *, in_force: bool, rulings: Mapping[SiteId, Ruling] = NONE) -> Orders:
    tenant = Tenant(plan=STANDARD.id, slice=SLICE, enforced_from=0.0 if in_force else None)
    return Orders(
        epoch=Epoch(1, revision),
        cluster="c",
        host=HostId("h1"),
        sites=(SHOP,),
        plans={STANDARD.id: STANDARD.caps},
        tenants={SHOP: tenant},
        rulings=dict(rulings),
    )


def delegated(folder: Path) -> Path:
    """A directory with a slice, with the files of a kernel's cgroup."""
    (folder / SLICE).mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("cpu io memory pids\n")
    (folder / "cgroup.subtree_control").touch()
    for name, text in PLAIN.items():
        (folder / SLICE / name).write_text(f"{text}\n")
    return folder / SLICE


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_S):
        while not holds():
            await asyncio.sleep(0.05)


def use(usage: Usage) -> SiteUse:
    return usage.sites.get(SHOP, SiteUse(attachment=Attachment.NONE))


async def test_orders_are_held_told_repaired_and_lifted(tmp_path: Path) -> None:
    """From shadow to force, a person's quarantine in between, somebody's hand, a restart, and back to shadow."""
    group, port, metrics = delegated(tmp_path / "sites"), free_port(), free_port()
    caps = f'[caps]\nsubtree = "{tmp_path}/sites"\negress = false\nverify_s = 1\n'
    config = configure(tmp_path, port, extra=f"{caps}[metrics]\nport = {metrics}\n")
    controller = Controller(orders(1, in_force=False))

    def held(name: str) -> str:
        return (group / name).read_text().strip()

    async with listening(controller, port):  # type: ignore[arg-type] # it has a link too
        async with running(config):
            usage = await controller.until(lambda usage: use(usage).attachment is Attachment.SLICE)
            assert (usage.driver, usage.unable) == ("cgroupfs", "")
            assert held("pids.max") == "max", "shadow holds nothing"
            await controller.order(orders(2, in_force=True))
            await until(lambda: held("pids.max") == str(STANDARD.caps.tasks))
            assert held("memory.max") == str(STANDARD.caps.memory_max_bytes)
            usage = await controller.until(lambda usage: use(usage).wanted)
            assert use(usage).slice == SLICE
            assert use(usage).because["tasks_max"].code == "cap-plan"
            (group / "pids.max").write_text("max\n")
            await until(lambda: held("pids.max") == str(STANDARD.caps.tasks))
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{metrics}/metrics") as answer,
            ):
                assert "relevo_caps_drift_total 1.0" in await answer.text()
            (group / "pids.max").unlink()  # as a kernel without that controller
            note = Note(owner="ana", reason="looks hacked", since=wall(), until=wall() + 600)
            ruling = Ruling(word="quarantine", level=Level.SOFT, note=note)
            await controller.order(orders(3, in_force=True, rulings={SHOP: ruling}))
            await until(lambda: held("cpu.weight") == "20")
            usage = await controller.until(lambda usage: usage.penalties)
            assert usage.penalties[0].owner == "ana"
            usage = await controller.until(lambda usage: use(usage).short)
            assert use(usage).short == (Why("cap-no-file", {"file": "pids.max"}),)
            assert use(usage).told
        (group / "pids.max").write_text("7\n")
        controller.orders = orders(4, in_force=False)
        async with running(config):  # killed, and started again
            await until(lambda: held("pids.max") == "max")
            assert held("memory.max") == "max"
