"""People are called in a co-op where leaders die: soon, once, and at nobody's expense."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest

from controller.notify.letter import Letter, NotSent
from controller.notify.settings import Command
from fleet.model import ControllerId, HostId
from tests.simulation.conftest import Play
from tests.simulation.machines import now
from tests.simulation.test_controllers import SITES, following, leading
from tests.simulation.world import Receivers, World

pytestmark = pytest.mark.patient

WEB1, WEB2 = HostId("web1"), HostId("web2")


@dataclass(slots=True)
class Phone:
    """A receiver of every controller. `refuses`, `hangs`: how it is for all; `lost`: taken, never answered."""

    got: list[tuple[float, ControllerId, Letter]] = field(default_factory=list)
    refuses: bool = False
    hangs: bool = False
    lost: bool = False

    def about(self, host: HostId) -> list[Letter]:
        return [
            letter for _, _, letter in self.got if any(n.subject == host for n in letter.notices)
        ]

    def stages(self, host: HostId) -> Counter[tuple[str, str]]:
        """How often each stage of each matter of `host` was told."""
        return Counter(
            (notice.key, notice.stage)
            for _, _, letter in self.got
            for notice in letter.notices
            if notice.subject == host
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One controller's way to a phone."""

    phone: Phone
    id: ControllerId
    world: World

    async def send(self, letter: Letter) -> None:
        await asyncio.sleep(0.05)
        if self.phone.hangs:
            await asyncio.sleep(1e6)
        if self.phone.refuses:
            raise NotSent("busy")
        process = self.world.seats[self.id].process
        assert process is not None
        if process.killed:
            raise NotSent("this process is dead")
        self.phone.got.append((now(), self.id, letter))
        if self.phone.lost:
            await asyncio.sleep(1e6)


async def called(made: World, **phones: Phone) -> None:
    """Every controller starts anew, and calls these from then on."""

    def receivers(id: ControllerId) -> Receivers:
        return [
            (Command(name=name, command=("/bin/true",), give_up_s=100.0), Line(phone, id, made))
            for name, phone in phones.items()
        ]

    made.receivers = receivers
    for seat in made.seats.values():
        await seat.kill()
        seat.start()
    await made.until(lambda: made.leader is not None, 10.0, "a leader")
    await asyncio.sleep(12.0)
    for phone in phones.values():
        phone.got.clear()


async def moved(made: World) -> None:
    await made.until(lambda: len(made.rules.moves) == SITES, 8.0, "the host's sites moved")


def test_a_host_that_dies_is_told_within_seconds_and_each_stage_once(in_world: Play) -> None:
    """The letter is there two seconds after the decision; later ones follow the first."""

    async def story(made: World) -> None:
        ana = Phone()
        await called(made, ana=ana)
        made.power_off(WEB1)
        await moved(made)
        decided = now()
        await made.until(lambda: bool(ana.about(WEB1)), 2.0, "a letter")
        assert now() - decided <= 2.0
        await asyncio.sleep(120.0)
        stages = ana.stages(WEB1)
        assert set(stages.values()) == {1}, stages
        assert {stage for _, stage in stages} >= {"complete"}
        first, *later = ana.about(WEB1)
        assert all(letter.follows == (first.id,) for letter in later)
        assert "relevo site move" in "".join(letter.text for letter in ana.about(WEB1))

    in_world(story)


@pytest.mark.parametrize("after_s", [0.0, 1.0, 3.0])
def test_a_leader_that_dies_amid_it_leaves_nothing_untold_and_nothing_told_twice(
    in_world: Play, after_s: float
) -> None:
    """What was told is in the store; the next leader tells the rest. A stage that passed meanwhile is not told."""

    async def story(made: World) -> None:
        ana = Phone()
        await called(made, ana=ana)
        made.power_off(WEB1)
        await moved(made)
        await asyncio.sleep(after_s)
        await leading(made).kill()
        await asyncio.sleep(120.0)
        stages = ana.stages(WEB1)
        assert {stage for _, stage in stages} >= {"complete"}, made.report(str(ana.got))
        assert set(stages.values()) == {1}, stages

    in_world(story)


def test_who_dies_between_sending_and_remembering_is_repeated_under_the_same_id(
    in_world: Play,
) -> None:
    """At least once: the letter comes again from the next leader, and can be known by its id."""

    async def story(made: World) -> None:
        ana = Phone(lost=True)
        await called(made, ana=ana)
        made.power_off(WEB1)
        await made.until(lambda: bool(ana.about(WEB1)), 8.0, "a letter that nobody remembers")
        old = leading(made)
        ana.lost = False
        await old.kill()
        await made.until(lambda: len(ana.about(WEB1)) > 1, 15.0, "the letter again")
        told = Counter(notice.key for letter in ana.about(WEB1) for notice in letter.notices)
        assert max(told.values()) >= 2
        await asyncio.sleep(60.0)
        assert max(ana.stages(WEB1).values()) <= 2

    in_world(story)


def test_one_receiver_that_hangs_delays_neither_the_other_nor_the_failover(in_world: Play) -> None:
    """Each has a courier of its own; deciding waits for none of them."""

    async def story(made: World) -> None:
        ana, beto, clara = Phone(hangs=True), Phone(refuses=True), Phone()
        await called(made, ana=ana, beto=beto, clara=clara)
        began = now()
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == SITES, 4.0, "the host's sites moved")
        await made.until(lambda: bool(clara.about(WEB1)), 2.0, "a letter to the one who listens")
        assert now() - began < 6.0
        ana.hangs = beto.refuses = False
        await made.until(lambda: bool(ana.about(WEB1) and beto.about(WEB1)), 90.0, "told later")
        assert max((ana.stages(WEB1) + beto.stages(WEB1)).values()) <= 2

    in_world(story)


def test_what_nobody_takes_is_given_up_in_the_end_and_counted(in_world: Play) -> None:
    """Tried for as long as was said; then it counts as told, and what comes later is told again."""

    async def story(made: World) -> None:
        ana = Phone(refuses=True)
        await called(made, ana=ana)
        made.power_off(WEB1)
        await asyncio.sleep(30.0)
        assert made.leader is not None
        counted = made.leader.exporter.render().decode()
        assert 'relevo_notices_total{notifier="ana",outcome="dropped"} 0.0' in counted
        await asyncio.sleep(140.0)
        counted = made.leader.exporter.render().decode()
        assert 'relevo_notices_total{notifier="ana",outcome="dropped"} 0.0' not in counted
        assert 'relevo_notices_total{notifier="ana",outcome="failed"} 0.0' not in counted
        assert made.leader.post.couriers[0].waiting == 0
        ana.refuses = False
        await asyncio.sleep(60.0)
        assert ana.about(WEB1) == []
        made.boot(WEB1)
        await made.until(lambda: bool(ana.about(WEB1)), 120.0, "that it is over")

    in_world(story)


def test_a_co_op_without_a_leader_is_told_by_each_controller_once(in_world: Play) -> None:
    """The store is away: nobody leads, and who else could say so? Nothing of the fleet is told twice afterwards."""

    async def story(made: World) -> None:
        ana = Phone()
        await called(made, ana=ana)
        made.weather.leave()
        for seat in made.seats.values():
            assert seat.client
            seat.client.abandon()
        await asyncio.sleep(150.0)
        assert Counter(id for _, id, _ in ana.got) == dict.fromkeys(made.seats, 1), ana.got
        assert {n.stage for _, _, letter in ana.got for n in letter.notices} == {"store"}
        made.weather.come_back()
        await asyncio.sleep(150.0)
        stages = Counter(n.stage for _, _, letter in ana.got for n in letter.notices)
        assert stages == {"store": 3, "over": 3}

    in_world(story)


def test_followers_tell_nothing_of_the_fleet(in_world: Play) -> None:
    """Three controllers see a host die; one of them calls."""

    async def story(made: World) -> None:
        ana = Phone()
        await called(made, ana=ana)
        leads, others = leading(made).id, {seat.id for seat in following(made)}
        made.power_off(WEB2)
        await asyncio.sleep(30.0)
        assert {id for _, id, _ in ana.got} == {leads}
        assert others.isdisjoint({id for _, id, _ in ana.got})

    in_world(story)
