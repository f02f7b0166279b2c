"""The edge's driver on a real HAProxy: moves, reloads, restarts, strays, and what visitors see of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from deploy.demo.packages import Tools
from fleet.messages import Routes, Target
from fleet.model import Epoch, HostId
from tests.integration.edges import PROOF, Rig, domains, running, visitors, web_host

pytestmark = pytest.mark.integration

W1, W2, W3 = HostId("w1"), HostId("w2"), HostId("w3")
FIRST, SECOND, THIRD = Epoch(1, 10), Epoch(1, 11), Epoch(1, 12)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def hosts(stack: AsyncExitStack) -> dict[HostId, Target]:
    """Two web hosts; the second one on IPv6."""
    return {
        W1: await stack.enter_async_context(web_host("w1", "127.0.0.11")),
        W2: await stack.enter_async_context(web_host("w2", "::1")),
    }


@pytest.fixture
def routes(hosts: dict[HostId, Target]) -> Routes:
    return Routes(hosts=hosts, domains=domains(a="w1", b="w2"), proof=PROOF)


@pytest.fixture
async def rig(tools: Tools, routes: Routes, stack: AsyncExitStack) -> Rig:
    rig = await stack.enter_async_context(running(tools, routes, FIRST))
    await rig.up(W1, W2)
    return rig


def moved(routes: Routes, **hosts: str) -> Routes:
    return msgspec.structs.replace(routes, domains={**routes.domains, **domains(**hosts)})


async def test_visitors_reach_the_host_of_their_domain(rig: Rig) -> None:
    """However the host is written; an unknown one gets a short page that tells nothing."""
    for written in ("a.example", "A.Example", "a.example.", "a.example:80", "A.EXAMPLE.:8080"):
        assert (await rig.get(written))[:2] == (200, "w1")
    assert (await rig.get("b.example"))[:2] == (200, "w2")
    status, body, _ = await rig.get("c.example")
    assert status == 421
    assert "w1" not in body and "haproxy" not in body.lower()
    assert (await rig.get("c.example", path="/.relevo/alive"))[:2] == (200, "alive")


async def test_only_who_carries_the_proof_learns_which_host_answered(rig: Rig) -> None:
    """The token stays at the edge, and a host can't speak for itself."""
    assert (await rig.get("a.example", proof=PROOF))[2] == "w1"
    assert (await rig.get("a.example", proof="wrong"))[2] == ""
    assert (await rig.get("a.example"))[2] == ""
    answer = await rig.ask("show map")
    assert PROOF not in answer + rig.process.log


async def test_a_move_costs_no_request_and_no_reload(rig: Rig, routes: Routes) -> None:
    """Under load, one transaction moves a site; the same worker serves on."""
    pid = await rig.worker()
    async with visitors(rig.url, "a.example", "b.example") as seen:
        for epoch in range(11, 31):
            await rig.driver.follow(moved(routes, a="w2" if epoch % 2 else "w1"), Epoch(1, epoch))
            assert (await rig.get("a.example"))[1] == ("w2" if epoch % 2 else "w1")
            await asyncio.sleep(0.02)
    assert seen.failed == []
    assert seen.requests > 100
    assert await rig.worker() == pid
    assert rig.metric("relevo_edge_map_commits_total") == 20
    assert (await rig.driver.look()).report.routes == Epoch(1, 30)


async def test_a_new_host_costs_a_reload_and_no_request(
    rig: Rig, routes: Routes, stack: AsyncExitStack
) -> None:
    """A host is added under load and gets a site at once."""
    pid = await rig.worker()
    third = await stack.enter_async_context(web_host("w3", "127.0.0.13"))
    wider = msgspec.structs.replace(moved(routes, c="w3"), hosts={**routes.hosts, W3: third})
    async with visitors(rig.url, "a.example", "b.example") as seen:
        await asyncio.sleep(0.3)
        assert await rig.driver.follow(wider, SECOND) == ()
        assert (await rig.get("c.example"))[1] == "w3"
        await asyncio.sleep(0.7)
    assert seen.failed == []
    assert seen.requests > 100
    assert await rig.worker() != pid
    assert rig.exporter.render().count(b'relevo_edge_reloads_total{outcome="done"} 1.0') == 1
