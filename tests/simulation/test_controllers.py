"""Three controllers: what happens to one of them moves nothing, and keeps nothing from being moved."""

import asyncio

import pytest

from failover.judge import Kind
from fleet.model import HostId
from tests.simulation.conftest import Play
from tests.simulation.world import Seat, World

WEB1, WEB2 = HostId("web1"), HostId("web2")
SITES = 3  # of a web host move by themselves


def leading(made: World) -> Seat:
    (seat,) = (seat for seat in made.seats.values() if seat.leads)
    return seat


def following(made: World) -> list[Seat]:
    return [seat for seat in made.seats.values() if not seat.leads]


def cut_from_agents(made: World, seat: Seat) -> None:
    for host in made.machines:
        made.network.cut(host, seat.id)
        made.network.cut(seat.id, host)


async def served_without(made: World, within_s: float) -> None:
    await made.until(lambda: len(made.rules.moves) == SITES, within_s, "the host's sites moved")
    await made.until(lambda: not made.rules.unserved(), 10.0, "all served")


@pytest.mark.parametrize("what", ["killed", "frozen", "cut from the agents", "cut from the store"])
def test_r6_what_happens_to_the_leader_moves_nothing(in_world: Play, what: str) -> None:
    """Another leads within seconds; no verdict that empties a host comes of it."""

    async def story(made: World) -> None:
        old = leading(made)
        await _strike(made, old, what)
        await made.until(
            lambda: any(seat.leads for seat in made.seats.values() if seat is not old),
            8.0,
            "another leader",
        )
        await asyncio.sleep(30.0)
        assert made.rules.moves == [], made.report("something moved")

    in_world(story)


@pytest.mark.parametrize("what", ["killed", "frozen", "cut from the agents", "cut from the store"])
def test_a_host_that_dies_in_the_same_moment_as_the_leader_is_moved(
    in_world: Play, what: str
) -> None:
    """The others have watched all along: who leads next decides at once."""

    async def story(made: World) -> None:
        old = leading(made)
        await _strike(made, old, what)
        made.power_off(WEB1)
        await served_without(made, 8.0)

    in_world(story)


@pytest.mark.parametrize("what", ["killed", "frozen", "cut from the agents", "cut from the store"])
def test_a_host_that_dies_in_the_same_moment_as_a_follower_is_moved(
    in_world: Play, what: str
) -> None:
    """Two of three are a majority (rule R4)."""

    async def story(made: World) -> None:
        await _strike(made, following(made)[0], what)
        made.power_off(WEB1)
        await served_without(made, 4.0)

    in_world(story)


def test_r4_a_minority_of_the_controllers_moves_nothing(in_world: Play) -> None:
    """The one that is left sees a host silent, and its edges get no answers: that is one controller's word of three."""

    async def story(made: World) -> None:
        for seat in following(made):
            await seat.kill()
        await asyncio.sleep(10.0)
        made.power_off(WEB1)
        await asyncio.sleep(60.0)
        assert made.rules.moves == [], made.report("something moved")
        assert leading(made).controller
        assert made.leader and made.leader.board.verdicts[WEB1].kind is Kind.UNKNOWN
        following(made)[0].start()
        await served_without(made, 30.0)

    in_world(story)


def test_r4_a_host_that_one_other_controller_hears_and_one_edge_reaches_stays(
    in_world: Play,
) -> None:
    """Its way to two of three is broken: a majority has lost it, an edge has not."""

    async def story(made: World) -> None:
        for seat in (leading(made), following(made)[0]):
            made.network.cut(WEB1, seat.id)
            made.network.cut(seat.id, WEB1)
        await asyncio.sleep(30.0)
        assert made.rules.moves == [], made.report("something moved")
        assert made.leader and made.leader.board.verdicts[WEB1].kind is Kind.UP

    in_world(story)


def test_r2_a_controller_that_lags_behind_the_store_does_not_call_it_rewound(
    in_world: Play,
) -> None:
    """Agents hold orders from others that it has not seen: it waits for the store's word."""

    async def story(made: World) -> None:
        lagging = following(made)[0]
        come_back = lagging.part_from_store()
        made.power_off(WEB1)
        await served_without(made, 4.0)
        controller = lagging.controller
        assert controller
        assert controller.board.rewound is not None, "it gives no orders meanwhile"
        await asyncio.sleep(20.0)
        come_back()
        await made.until(lambda: controller.board.rewound is None, 5.0, "it has caught up")
        assert controller.sight.rewound is None

    in_world(story)


async def _strike(made: World, seat: Seat, what: str) -> None:
    match what:
        case "killed":
            await seat.kill()
        case "frozen":
            seat.freeze(60.0)
        case "cut from the agents":
            cut_from_agents(made, seat)
        case "cut from the store":
            seat.part_from_store()
