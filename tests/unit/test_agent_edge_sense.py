"""An edge's agent looks at HAProxy on its own beat: slow looks go stale, and orders reach the routes they name."""

import asyncio

import pytest

from agent.daemon import Appliers
from agent.ports import EdgeView
from agent.sense.edge import EdgeSense
from fleet.messages import Check, EdgeReport, Orders, Routes, Target
from fleet.model import Epoch, Health, HostId, Role
from runtime.probes import MOST, Probes
from runtime.supervise import Watchdog

pytestmark = pytest.mark.virtual_time
A = HostId("a")
HOST = HostId("edge1")


class Balancer:
    """A Traffic whose looks can take for ever."""

    def __init__(self) -> None:
        self.hangs = False
        self.followed: list[Epoch] = []

    async def follow(self, routes: Routes, epoch: Epoch) -> tuple[str, ...]:
        self.followed.append(epoch)
        return ("stray.example: left",)

    async def look(self) -> EdgeView:
        if self.hangs:
            await asyncio.Event().wait()
        up = Check(health=Health.UP, since_s=1.0)
        return EdgeView(checks={A: up}, report=EdgeReport(haproxy_up=True, domains=3))

    async def keep(self) -> None:
        await asyncio.Event().wait()


async def test_a_hanging_haproxy_is_down_and_its_checks_are_nobodys_evidence() -> None:
    """Within a second and a half the last checks are gone from the beat, and why is said."""
    traffic, loop = Balancer(), asyncio.get_running_loop()
    sense = EdgeSense(traffic, every_s=0.5, watchdog=Watchdog("edge"))
    assert not sense.report(loop.time()).haproxy_up
    async with asyncio.TaskGroup() as group:
        task = group.create_task(sense.keep())
        await asyncio.sleep(1.1)
        assert sense.checks(loop.time())[A].health is Health.UP
        assert sense.report(loop.time()).haproxy_up
        traffic.hangs = True
        await asyncio.sleep(1.6)
        assert sense.checks(loop.time()) == {}
        assert not sense.report(loop.time()).haproxy_up
        assert "no answer" in sense.report(loop.time()).error
        task.cancel()


async def test_orders_reach_haproxy_and_orders_without_routes_leave_it_alone() -> None:
    """Absence is not deletion (rule R7)."""
    traffic = Balancer()
    apply = Appliers(_neighbours(), traffic).apply
    orders = Orders(epoch=Epoch(1, 1), cluster="c", host=HOST, roles=(Role.EDGE,))
    assert await apply(orders) == ()
    assert traffic.followed == []
    with_routes = Orders(epoch=Epoch(1, 2), cluster="c", host=HOST, routes=Routes())
    assert await apply(with_routes) == ("stray.example: left",)
    assert traffic.followed == [Epoch(1, 2)]


async def test_what_this_host_can_not_do_is_refused_in_words() -> None:
    """An edge without HAProxy's configuration, and more probes than it makes."""
    neighbours = _neighbours()
    target = Target(address="127.0.0.1", port=1)
    probes = {HostId(f"h{n:03}"): target for n in range(MOST + 2)}
    orders = Orders(epoch=Epoch(1, 1), cluster="c", host=HOST, roles=(Role.EDGE,), probes=probes)
    refused = await Appliers(neighbours, None).apply(orders)
    assert len(refused) == 3 and "no [edge]" in refused[-1]
    assert len(neighbours.checks(0.0)) == MOST


def _neighbours() -> Probes:
    """Never asked to probe here, so it needs no session."""
    return Probes(None)  # type: ignore[arg-type]
