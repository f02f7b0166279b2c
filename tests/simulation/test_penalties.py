"""Penalties in a co-op of real controllers and agents: believed of oneself, followed by suspicion, no one's brake."""

import asyncio

from controller.commands import Commands
from fleet.caps import Level
from fleet.model import HostId, SiteId
from runtime.clock import wall
from tests.simulation.conftest import Play
from tests.simulation.coop import Shape
from tests.simulation.faults import order
from tests.simulation.rules import ANA
from tests.simulation.usage import telling
from tests.simulation.world import World

WEB1, WEB2, WEB3 = map(HostId, ("web1", "web2", "web3"))
OURS = SiteId("site0-web1")


def at_home(made: World, host: HostId) -> tuple[SiteId, ...]:
    return tuple(id for id, site in made.fleet.sites.items() if site.home == host)


def stored(made: World) -> set[SiteId]:
    """Sites with a penalty that stands, by the leader's mirror."""
    if made.leader is None:
        return set()
    penalties = made.leader.mirror.penalties
    return {id for id, kept in penalties.items() if kept.standing(wall())}


def test_r15_what_a_host_says_of_others_sites_changes_nothing(in_world: Play) -> None:
    """It claims that every site of the co-op is stopped: its own are believed to be, and no other host learns of it."""

    async def story(made: World) -> None:
        before = {m.id: m.memory.orders for m in made.machines.values()}
        made.machines[WEB1].tell(telling(WEB1, *made.fleet.sites))
        await made.until(lambda: bool(stored(made)), 10.0, "its own penalties are known")
        await asyncio.sleep(20.0)
        assert stored(made) == set(at_home(made, WEB1)), made.report("believed")
        for seat in made.seats.values():
            if seat.controller is not None:
                assert seat.controller.uses.of(SiteId("site0-web2")) is None
        for machine in made.machines.values():
            old, new = before[machine.id], machine.memory.orders
            assert old and new and (old.rulings, old.tenants) == (new.rulings, new.tenants)
        assert made.rules.moves == []

    in_world(story)


def test_r15_a_host_can_not_speak_in_another_s_name(in_world: Play) -> None:
    """The link ends, each time; nothing is believed."""

    async def story(made: World) -> None:
        made.machines[WEB1].tell(telling(WEB2, *at_home(made, WEB2)))
        await asyncio.sleep(10.0)
        assert stored(made) == set()
        made.machines[WEB1].tell(None)

    in_world(story)


def test_r15_a_penalty_follows_a_moved_site_as_a_suspicion_only(in_world: Play) -> None:
    """The new host is told to watch it, and holds nothing by the old one's word; its own proof is a penalty again."""

    async def story(made: World) -> None:
        made.machines[WEB1].tell(telling(WEB1, OURS, level=Level.CAP))
        await made.until(lambda: stored(made) == {OURS}, 10.0, "the penalty is known")

        async def move(commands: Commands) -> object:
            return await commands.move(OURS, WEB2, ANA, anyway=True)

        assert await order(made, move)
        new = made.machines[WEB2].memory

        def suspected() -> bool:
            return new.orders is not None and OURS in new.orders.rulings

        await made.until(suspected, 10.0, "a suspicion at the new host")
        assert new.orders is not None
        ruling = new.orders.rulings[OURS]
        assert (ruling.word, ruling.level) == ("suspect", Level.CAP)
        assert stored(made) == set(), made.report("a penalty by the old host's word")
        # The old host goes on claiming it, and is not believed any more.
        await asyncio.sleep(10.0)
        assert stored(made) == set()
        # What the new host proves itself is a penalty again.
        made.machines[WEB2].tell(telling(WEB2, OURS, level=Level.SOFT))
        await made.until(lambda: stored(made) == {OURS}, 10.0, "the new host's own proof")

    in_world(story)


def test_r8_isolations_never_eat_the_brake(in_world: Play) -> None:
    """Every site of a host is isolated, over and over; another host dies, and its sites move as fast as ever."""

    async def story(made: World) -> None:
        assert made.leader
        for n in range(10):
            level = Level.ISOLATE if n % 2 else Level.STOP
            made.machines[WEB3].tell(telling(WEB3, *at_home(made, WEB3), level=level))
            await asyncio.sleep(2.5)
        assert stored(made) == set(at_home(made, WEB3))
        assert made.leader and made.leader.mirror.budget.spent == ()
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == 3, 4.0, "three moves")
        assert made.leader is not None
        assert len(made.leader.mirror.budget.spent) == 1

    in_world(story)


def test_a_penalty_told_while_nobody_leads_is_not_lost(in_world: Play) -> None:
    """Its host says it again: the next leader knows it within seconds."""

    async def story(made: World) -> None:
        for seat in made.seats.values():
            await seat.kill()
        made.machines[WEB1].tell(telling(WEB1, OURS))
        await asyncio.sleep(10.0)
        for seat in made.seats.values():
            seat.start()
        await made.until(lambda: stored(made) == {OURS}, 20.0, "the penalty is known")

    in_world(story)


def test_a_leader_that_comes_later_knows_what_the_one_before_wrote(in_world: Play) -> None:
    """Its host died with it, and says nothing to the next one: the penalty stands all the same (R7)."""

    async def story(made: World) -> None:
        made.machines[WEB3].tell(telling(WEB3, SiteId("gated-web3"), for_s=60.0))
        await made.until(lambda: len(stored(made)) == 1, 10.0, "the penalty is known")
        leading = next(seat for seat in made.seats.values() if seat.leads)
        made.power_off(WEB3)
        await leading.kill()
        await made.until(lambda: made.leader is not None, 20.0, "another leader")
        assert stored(made) == {SiteId("gated-web3")}

    in_world(story, Shape(controllers=3))
