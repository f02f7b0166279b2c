"""Beats keep their schedule, catch up by skipping, and a loop that stalled says so itself."""

import asyncio
import time
from collections.abc import Mapping
from random import Random

import pytest

from agent.beat import Beats, Identity, last_state
from agent.link import Links
from agent.orders import Follower
from agent.ports import Connection
from failover.policy import Policy
from fleet.messages import AgentState, Beat, Check, EdgeReport, Load, Orders, Service
from fleet.model import ControllerId, Health, HostId
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime.supervise import Watchdog
from tests.unit.wires import LOAD

HOST = HostId("h1")


class Still:
    """Senses that see what they are given."""

    def __init__(self) -> None:
        self.views: dict[HostId, Check] = {}
        self.suspended_s = 0.0

    def state(self) -> AgentState:
        return AgentState.RUNNING

    def load(self, now: float) -> Load:
        return LOAD

    def uptime_s(self) -> float:
        return asyncio.get_running_loop().time() + self.suspended_s

    def service(self, now: float) -> Service | None:
        return None

    def package_run(self) -> bool:
        return False

    def checks(self, now: float) -> Mapping[HostId, Check]:
        return self.views

    def edge(self, now: float) -> EdgeReport | None:
        return None


class Heard(Links):
    """Links that note what they would send, and when."""

    def __init__(self, exporter: Exporter) -> None:
        super().__init__(
            (), _nowhere, lambda _: None, random=Random(1), reconnect_max_s=5.0, exporter=exporter
        )
        self.heard_at: list[float] = []
        self.beats: list[Beat] = []

    def beat(self, beat: Beat) -> None:
        self.heard_at.append(asyncio.get_running_loop().time())
        self.beats.append(beat)

    def doubts(self) -> bool:
        return self.beats[-1].doubts_itself


async def _nowhere(controller: ControllerId) -> Connection:  # no controllers: never dialled
    raise AssertionError(controller)


class Nothing:
    def read(self) -> Orders | None:
        return None

    async def write(self, orders: Orders) -> None:
        return


async def _apply(orders: Orders) -> tuple[str, ...]:
    return ()


def an_agent() -> tuple[Beats, Heard, Still]:
    exporter, senses = Exporter(AGENT), Still()
    links = Heard(exporter)
    orders = Follower(HOST, Nothing(), _apply, acknowledge=links.applied, exporter=exporter)
    beats = Beats(
        Identity(host=HOST, boot_id="b", kernel="k", version="1"),
        senses,
        orders,
        links,
        beat_s=0.5,
        policy=Policy(),
        exporter=exporter,
        watchdog=Watchdog("beat"),
    )
    return beats, links, senses


@pytest.mark.virtual_time
async def test_a_thousand_beats_do_not_drift_and_a_hurried_one_shifts_none() -> None:
    """Beat n is sent at n times beat_s; one more is sent when asked for, at once."""
    beats, links, _ = an_agent()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(beats.keep())
        await asyncio.sleep(500.1)
        beats.hurry()
        await asyncio.sleep(0.5)
        task.cancel()
    assert links.heard_at[1001] == pytest.approx(500.1)
    scheduled = links.heard_at[:1001] + links.heard_at[1002:]
    assert scheduled == pytest.approx([n * 0.5 for n in range(1002)], abs=1e-6)


@pytest.mark.patient
async def test_a_stalled_loop_skips_what_it_missed_and_doubts_itself() -> None:
    """No burst of old beats after a stall; the first beat after it says that its views don't count."""
    beats, links, _ = an_agent()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(beats.keep())
        await asyncio.sleep(2.6)
        assert not links.doubts()
        count = len(links.beats)
        time.sleep(1.7)  # noqa: ASYNC251 - the stall itself
        await asyncio.sleep(0.1)
        assert len(links.beats) == count + 1
        assert links.doubts()
        assert "late" in beats.unwell(asyncio.get_running_loop().time())
        await asyncio.sleep(0.6)
        assert beats.unwell(asyncio.get_running_loop().time()) == ""
        task.cancel()


@pytest.mark.virtual_time
async def test_a_machine_that_was_suspended_doubts_itself_though_its_loop_saw_no_gap() -> None:
    """CLOCK_BOOTTIME went on while the loop's clock stood."""
    beats, links, senses = an_agent()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(beats.keep())
        await asyncio.sleep(3.1)
        assert not links.doubts()
        senses.suspended_s = 60.0
        await asyncio.sleep(0.5)
        assert links.doubts()
        await asyncio.sleep(2.5)
        assert not links.doubts()
        task.cancel()


@pytest.mark.virtual_time
async def test_losing_sight_of_most_hosts_at_once_is_said_as_self_doubt() -> None:
    """Two of three views gone in one round: the cut is here."""
    beats, links, senses = an_agent()
    up = Check(health=Health.UP, since_s=1.0)
    down = Check(health=Health.DOWN, since_s=0.0)
    a, b, c = (HostId(name) for name in "abc")
    senses.views = {a: up, b: up, c: up}
    async with asyncio.TaskGroup() as group:
        task = group.create_task(beats.keep())
        await asyncio.sleep(3.1)
        senses.views = {a: down, b: up, c: up}
        await asyncio.sleep(0.5)
        assert not links.doubts()
        senses.views = {a: down, b: down, c: up}
        await asyncio.sleep(0.5)
        assert links.doubts()
        task.cancel()


def test_the_last_word_of_a_leaving_machine_is_leaving() -> None:
    """The agent's own end is a restart, the machine's is not."""
    assert last_state(AgentState.RUNNING) is AgentState.RESTARTING
    assert last_state(AgentState.LEAVING) is AgentState.LEAVING
