"""The link's patience, order and independence, over connections in memory and in no time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import msgspec
import pytest

from agent.link import ACK_S, FLOOD_FRAMES_PER_S, Deliver, Links
from agent.ports import Connection, DriverError
from fleet.messages import (
    ORDERS_LIMIT_BYTES,
    Ack,
    Applied,
    Beat,
    FromAgent,
    FromController,
    Orders,
    Recall,
    Usage,
)
from fleet.model import ControllerId, Epoch, HostId
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from tests.unit.wires import a_beat

pytestmark = pytest.mark.virtual_time

C1, C2 = ControllerId("c1"), ControllerId("c2")
HOST = HostId("h1")


def some_orders(revision: int) -> Orders:
    return Orders(epoch=Epoch(1, revision), cluster="c", host=HOST)


class Controller:
    """The other end: `acks` and `reads` say how well it behaves; what it `say`s comes out of `receive`."""

    def __init__(self, *, acks: bool = True, reads: bool = True, accepts: bool = True) -> None:
        self.acks, self.reads, self.accepts = acks, reads, accepts
        self.heard: list[tuple[float, FromAgent]] = []
        self.dialled: list[float] = []
        self.closed = 0
        self._out: asyncio.Queue[bytes] = asyncio.Queue(10_000)

    async def dial(self) -> Connection:
        self.dialled.append(asyncio.get_running_loop().time())
        if not self.accepts:
            raise DriverError("connection refused")
        self._out = asyncio.Queue(10_000)
        return self

    def say(self, what: FromController | bytes) -> None:
        self._out.put_nowait(what if isinstance(what, bytes) else msgspec.json.encode(what))

    async def send(self, frame: bytes) -> None:
        if not self.reads:
            await asyncio.Event().wait()
        message = msgspec.json.decode(frame, type=FromAgent)
        self.heard.append((asyncio.get_running_loop().time(), message))
        if isinstance(message, Beat) and self.acks:
            self.say(Ack(sequence=message.sequence))

    async def receive(self) -> bytes:
        return await self._out.get()

    async def close(self) -> None:
        self.closed += 1

    @property
    def beats(self) -> list[int]:
        return [m.sequence for _, m in self.heard if isinstance(m, Beat)]


class Bench:
    """Links to some controllers, with a beat each half second."""

    def __init__(self, links: Links, exporter: Exporter) -> None:
        self.links, self.exporter = links, exporter
        self.sequence = 0

    async def run(self, for_s: float) -> None:
        for _ in range(round(for_s * 2)):
            self.sequence += 1
            self.links.beat(a_beat(HOST, sequence=self.sequence))
            await asyncio.sleep(0.5)


@asynccontextmanager
async def linked(
    controllers: dict[ControllerId, Controller],
    deliver: Deliver = lambda _: None,
    seed: int = 1,
) -> AsyncIterator[Bench]:
    exporter = Exporter(AGENT)
    links = Links(
        controllers,
        lambda id: controllers[id].dial(),
        deliver,
        random=Random(seed),
        reconnect_max_s=5.0,
        exporter=exporter,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(links.keep())
        yield Bench(links, exporter)
        task.cancel()


async def test_each_controller_hears_every_beat_once_in_order() -> None:
    """A beat goes to all controllers, at its time."""
    one, two = Controller(), Controller()
    async with linked({C1: one, C2: two}) as bench:
        await bench.run(10)
    assert one.beats == two.beats == list(range(1, 21))
    assert [at for at, _ in one.heard] == [n * 0.5 for n in range(20)]
    assert one.closed == two.closed == 1


@pytest.mark.parametrize(
    "bad",
    [
        Controller(acks=False),
        Controller(reads=False),
        Controller(accepts=False),
    ],
    ids=["never acknowledges", "never reads", "refuses"],
)
async def test_a_bad_controller_costs_the_good_one_nothing(bad: Controller) -> None:
    """While one link breaks again and again, the other's beats are all there and on time."""
    good = Controller()
    async with linked({C1: bad, C2: good}) as bench:
        await bench.run(60)
    assert good.beats == list(range(1, 121))
    assert all(at == (n - 1) * 0.5 for n, (at, _) in zip(good.beats, good.heard, strict=True))
    assert 5 < len(bad.dialled) < 40


async def test_silence_of_two_seconds_breaks_a_link_and_not_before() -> None:
    """A link without acknowledgements lasts ACK_S from its first beat."""
    mute = Controller(acks=False)
    async with linked({C1: mute}) as bench:
        await bench.run(ACK_S - 0.5)
        await asyncio.sleep(0.45)
        assert mute.closed == 0
        await asyncio.sleep(0.1)
        assert mute.closed == 1


async def test_reconnects_wait_longer_and_longer_each_by_lot() -> None:
    """Waits are drawn from 0 to a limit that doubles from 0.2 s to reconnect_max_s."""
    gone = Controller(accepts=False)
    async with linked({C1: gone}) as bench:
        await bench.run(300)
    waits = [later - at for at, later in zip(gone.dialled, gone.dialled[1:], strict=False)]
    assert all(wait <= min(5.0, 0.2 * 2**n) for n, wait in enumerate(waits))
    late = waits[10:]
    assert max(late) > 4.0 and min(late) < 1.0
    assert len(set(late)) == len(late)


async def test_an_acknowledged_beat_makes_the_next_reconnect_quick() -> None:
    """Only a controller that listened is dialled again at once; one that only accepts is not."""
    controller = Controller(accepts=False)
    async with linked({C1: controller}) as bench:
        await bench.run(60)
        controller.accepts = True
        await bench.run(10)
        dials = len(controller.dialled)
        controller.say(b"broken")
        await asyncio.sleep(0.21)
        assert len(controller.dialled) == dials + 1


BAD_FRAMES = [
    b"",
    b"\xff\xfe",
    b"[1,2]",
    b'{"type":7}',
    b'{"type":"ack","sequence":"x"}',
    b'{"type":"orders","epoch":[1,2]}',
    b'{"type":"orders","epoch":[1,2],"cluster":"\xff","host":"h1"}',
    b"[" * 1_000_000,
    b'{"type":"orders","x":' + b"[" * 1_000_000,
    b" " * (ORDERS_LIMIT_BYTES + 1),
]


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=range(len(BAD_FRAMES)))
async def test_a_malformed_frame_ends_the_link_and_nothing_else(frame: bytes) -> None:
    """It is counted, the link is closed and dialled again, and beats go on."""
    controller = Controller()
    async with linked({C1: controller}) as bench:
        await bench.run(1)
        controller.say(frame)
        await bench.run(5)
        assert controller.closed == 1
        text = bench.exporter.render().decode()
    assert 'relevo_agent_orders_refused_total{reason="malformed"} 1.0' in text
    assert controller.beats[-1] == bench.sequence


async def test_a_flood_ends_the_link() -> None:
    """More frames in a second than any honest controller sends are not read to their end."""
    controller = Controller()
    async with linked({C1: controller}) as bench:
        await bench.run(1)
        for _ in range(FLOOD_FRAMES_PER_S + 1):
            controller.say(Ack(sequence=0))
        await asyncio.sleep(0.01)
        assert controller.closed == 1


async def test_an_acknowledgement_of_what_was_never_sent_counts_for_nothing() -> None:
    """A controller that invents sequences is as silent as one that sends none."""
    liar = Controller(acks=False)
    async with linked({C1: liar}) as bench:
        for _ in range(6):
            liar.say(Ack(sequence=1000))
            await bench.run(0.5)
        assert liar.closed == 1


async def test_orders_are_delivered_and_their_answer_goes_back_on_the_same_link() -> None:
    """Another controller does not hear an answer that was not for it."""
    got: list[Orders] = []

    def deliver(orders: Orders | Recall) -> Applied:
        assert isinstance(orders, Orders)
        got.append(orders)
        return Applied(epoch=orders.epoch)

    one, two = Controller(), Controller()
    async with linked({C1: one, C2: two}, deliver) as bench:
        await bench.run(1)
        one.say(some_orders(7))
        await asyncio.sleep(0.1)
        assert got == [some_orders(7)]
        assert one.heard[-1][1] == Applied(epoch=Epoch(1, 7))
        bench.links.applied(Applied(epoch=Epoch(1, 8)))
        await asyncio.sleep(0.1)
    assert one.heard[-1][1] == two.heard[-1][1] == Applied(epoch=Epoch(1, 8))
    assert Applied(epoch=Epoch(1, 7)) not in [message for _, message in two.heard]


async def test_a_refusal_is_not_answered_by_hammering() -> None:
    """A controller that takes no link is asked again after a long wait, drawn up to reconnect_max_s."""
    controller = Controller(accepts=False)
    async with linked({C1: controller}) as bench:
        await bench.run(60)
    assert len(controller.dialled) < 45  # 5 s by lot: 2.5 s on average


async def test_heard_waits_for_every_linked_controller_and_only_so_long() -> None:
    """True when all linked ones acknowledged the last beat; False when one did not in time; gone ones don't count."""
    one, two = Controller(), Controller(accepts=False)
    async with linked({C1: one, C2: two}) as bench:
        await bench.run(1)
        bench.links.beat(a_beat(HOST, sequence=100))
        assert await bench.links.heard(0.5) is True
        assert one.beats[-1] == 100
        one.acks = False
        bench.links.beat(a_beat(HOST, sequence=101))
        began = asyncio.get_running_loop().time()
        assert await bench.links.heard(0.5) is False
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.5)


def told(names: str) -> list[Usage]:
    return [Usage(host=HOST, driver=name) for name in names]


async def test_usage_goes_between_beats_and_never_before_one() -> None:
    """A telling of many messages is spread over many beats; each beat is as punctual as without it."""
    one = Controller()
    async with linked({C1: one}) as bench:
        await bench.run(1)
        bench.links.usage([Usage(host=HOST, drift=n) for n in range(40)])
        await bench.run(9)
    assert one.beats == list(range(1, 21))
    assert [at for at, m in one.heard if isinstance(m, Beat)] == [n * 0.5 for n in range(20)]
    arrived = [(at, m.drift) for at, m in one.heard if isinstance(m, Usage)]
    assert [n for _, n in arrived] == list(range(40))
    assert max(sum(1 for at, _ in arrived if at == n / 2) for n in range(20)) <= 6
    assert arrived[-1][0] - arrived[0][0] < 9.0, "told before the next telling is due"


async def test_who_we_are_comes_before_how_our_sites_are() -> None:
    """A new link begins with a beat, though a telling was waiting for it."""
    one = Controller()
    async with linked({C1: one}) as bench:
        bench.links.usage(told("a"))
        await asyncio.sleep(1)
        assert one.heard == []
        await bench.run(1)
    assert [type(message) for _, message in one.heard] == [Beat, Usage, Beat]


async def test_a_newer_telling_takes_the_place_of_what_waits() -> None:
    """What could not be sent in ten seconds is old; nothing piles up for a controller that is away."""
    one = Controller(accepts=False)
    async with linked({C1: one}) as bench:
        bench.links.usage(told("abc"))
        await bench.run(3)
        bench.links.usage(told("de"))
        one.accepts = True
        await bench.run(6)
    kinds = [m for _, m in one.heard]
    assert isinstance(kinds[0], Beat), "who we are comes first"
    assert [m.driver for m in kinds if isinstance(m, Usage)] == ["d", "e"]


async def test_a_link_that_takes_no_usage_is_lost_as_for_a_beat() -> None:
    """Whoever stops reading in the middle of a telling is dialled anew; the others go on."""
    one, two = Controller(), Controller()
    async with linked({C1: one, C2: two}) as bench:
        await bench.run(1)
        one.reads = False
        bench.links.usage(told("a"))
        await bench.run(4)
    assert len(one.dialled) > 1 and two.beats == list(range(1, 11))
