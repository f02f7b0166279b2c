"""What one compromised hosting server can do to a controller by its link: nothing (rule R15). In memory, in no time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from controller.link import FLOOD_BURST
from controller.ports import ConnectionLost
from failover.routes import Intent, probes
from fleet.messages import FRAME_LIMIT_BYTES, AgentState, Applied, Check
from fleet.model import (
    ControllerId,
    Epoch,
    Fleet,
    Health,
    Host,
    HostId,
    Location,
    LocationId,
    Observation,
    Role,
    Word,
)
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.unit.wires import C1, LOAD, Wire, a_beat, a_link

pytestmark = pytest.mark.virtual_time

HOSTS = tuple(HostId(f"h{n}") for n in range(1, 7))
LIAR = HOSTS[0]


def fleet(*edges: HostId) -> Fleet:
    mx = LocationId("mx")
    return Fleet(
        locations={mx: Location(id=mx, country="MX")},
        hosts={
            id: Host(
                id=id,
                tag=id,
                location=mx,
                addresses=("192.0.2.1",),
                roles=(Role.EDGE,) if id in edges else (Role.WEB,),
            )
            for id in HOSTS
        },
    )


def tampered(**said: object) -> bytes:
    """A beat of which some fields are what no agent would send."""
    return msgspec.json.encode({**msgspec.to_builtins(a_beat(LIAR)), **said})


class Bench:
    def __init__(self, *controllers: ControllerId) -> None:
        self.exporter = Exporter(CONTROLLER)
        self.link = a_link(self.exporter, *controllers)

    def refused(self, reason: str) -> bool:
        line = f'relevo_link_refused_total{{reason="{reason}"}} 1.0'
        return line in self.exporter.render().decode()

    def order(self, declared: Fleet, revision: int) -> None:
        intent = Intent(cluster="c", commit="n", fleet=declared, places={})
        self.link.order(intent, Epoch(1, revision))


@asynccontextmanager
async def served(bench: Bench, *wires: tuple[HostId, Wire]) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bench.link.serve(host, wire)) for host, wire in wires]
        await asyncio.sleep(0.01)
        yield
        for task in tasks:
            task.cancel()


@pytest.mark.parametrize(
    "frame",
    [
        tampered(sequence=10**400),
        tampered(uptime_s=10**400),
        tampered(load={**msgspec.to_builtins(LOAD), "memory_available_bytes": 10**400}),
        tampered(load={**msgspec.to_builtins(LOAD), "cpu_ratio": -1}),
        tampered(boot_id="b\n"),
        tampered(boot_id="x" * 900),
        tampered(kernel="x" * 129),
        tampered(orders=[1, 2**63]),
        tampered(checks={f"h{n}": {"health": "up", "since_s": 1e300} for n in range(2)}),
        tampered(checks={"h 1": {"health": "up", "since_s": 1}}),
        b"[" * 60_000,
    ],
    ids=[
        "sequence",
        "uptime",
        "memory",
        "cpu",
        "boot-id",
        "long-boot-id",
        "kernel",
        "epoch",
        "since",
        "name",
        "nested",
    ],
)
async def test_a_value_beyond_its_bound_ends_the_link_and_is_counted(frame: bytes) -> None:
    """No number overflows and no text is kept: the beat is refused as a whole."""
    bench, wire = Bench(), Wire()
    async with served(bench, (LIAR, wire)):
        wire.say(frame)
        await asyncio.sleep(0.1)
        assert wire.closed and bench.refused("malformed-frame")
        assert not bench.link.heard and not bench.link.connected


async def test_only_a_declared_edge_may_send_large_frames() -> None:
    """900 kB of boot id and 20,000 invented checks are not even read from another host, nor from one not declared."""
    checks = {f"x{n}": {"health": "down", "since_s": 1} for n in range(20_000)}
    for frame in (tampered(boot_id="x" * 900_000), tampered(checks=checks)):
        for edges, reason in (((), "flood"), ((HOSTS[1],), "flood"), ((LIAR,), "malformed-frame")):
            bench, wire = Bench(), Wire()
            if edges:
                bench.link.know(fleet(*edges))
            async with served(bench, (LIAR, wire)):
                assert len(frame) > FRAME_LIMIT_BYTES
                wire.say(frame)
                await asyncio.sleep(0.1)
                assert wire.closed and bench.refused(reason)
    edge, wire = Bench(), Wire()
    edge.link.know(fleet(LIAR))
    async with served(edge, (LIAR, wire)):
        wire.say(
            a_beat(
                LIAR,
                checks={
                    HostId(f"h{n}"): Check(health=Health.UP, since_s=1.0, detail="x" * 50)
                    for n in range(2000)
                },
            )
        )
        await asyncio.sleep(0.1)
        assert wire.sent == 1 and not wire.closed


async def test_a_flood_of_frames_ends_its_link_and_delays_no_other() -> None:
    """Of 5,000 frames that wait at once few are taken; meanwhile another host's beat is heard."""
    bench, flooding, honest = Bench(), Wire(), Wire()
    for _ in range(5000):
        flooding.say(a_beat(LIAR))
    async with served(bench, (LIAR, flooding), (HOSTS[1], honest)):
        honest.say(a_beat(HOSTS[1]))
        await asyncio.sleep(0.1)
        assert flooding.closed and bench.refused("flood")
        assert flooding.sent <= FLOOD_BURST
        assert honest.sent == 1 and bench.link.connected == {HOSTS[1]}


async def test_two_beats_a_second_are_no_flood_for_however_long() -> None:
    """An honest agent's link stays, also when the frames of some seconds come at once now and then."""
    bench, wire = Bench(), Wire()
    async with served(bench, (LIAR, wire)):
        for _ in range(20):
            for _ in range(20):
                wire.say(a_beat(LIAR))
            await asyncio.sleep(10 / 2)
        assert wire.sent == 400 and not wire.closed


async def test_frames_that_wait_are_read_one_turn_of_the_loop_each() -> None:
    """Others have their turn between any two frames of one link."""
    bench, wire, turns = Bench(), Wire(), 0
    for _ in range(50):
        wire.say(a_beat(LIAR))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.link.serve(LIAR, wire))
        while wire.sent < 50:
            await asyncio.sleep(0)
            turns += 1
        task.cancel()
    assert turns >= 50


async def test_a_claim_of_future_orders_is_not_believed() -> None:
    """An agent that says it follows more than was ever ordered follows nothing until it tells the truth."""
    bench, wire, declared = Bench(), Wire(), fleet()
    async with served(bench, (LIAR, wire)):
        bench.order(declared, 7)
        wire.say(a_beat(LIAR, orders=Epoch(1, 2**62)))
        wire.say(Applied(epoch=Epoch(9, 9)))
        await asyncio.sleep(0.1)
        assert not bench.link.follows(LIAR, Epoch(1, 7))
        assert bench.link.heard[LIAR].applied == Epoch()
        bench.order(fleet(), 8)
        assert not bench.link.follows(LIAR, Epoch(1, 8))
        wire.say(Applied(epoch=Epoch(1, 8)))
        await asyncio.sleep(0.1)
        assert bench.link.follows(LIAR, Epoch(1, 8))


async def test_a_host_has_a_say_only_on_whom_it_was_told_to_ask() -> None:
    """Of all that it invents, what is kept is about its declared neighbours; an edge speaks of declared hosts."""
    invented = {HostId(id): Check(health=Health.DOWN, since_s=1.0) for id in (*HOSTS, "x1", "x2")}
    for declared, heard_of in (
        (fleet(), set(probes(LIAR, fleet()))),
        (fleet(HOSTS[5]), set()),
        (fleet(LIAR), set(HOSTS)),
    ):
        bench, wire = Bench(), Wire()
        async with served(bench, (LIAR, wire)):
            wire.say(a_beat(LIAR, checks=invented))
            await asyncio.sleep(0.1)
            seen = bench.link.evidence(declared, frozenset(), {})
        assert {id for id, evidence in seen.hosts.items() if evidence.opinions} == heard_of
    assert len(probes(LIAR, fleet())) == 3


@pytest.mark.parametrize(("unheard_by", "live"), [(0, True), (1, True), (2, False)])
async def test_r4_an_edge_is_live_where_a_majority_of_the_controllers_hears_it(
    unheard_by: int, live: bool
) -> None:
    """Of three controllers two must hear it; one alone, though it is the one that judges, does not make a witness."""
    ids = (C1, ControllerId("c2"), ControllerId("c3"))
    bench, wire, edge = Bench(*ids), Wire(), HOSTS[5]
    said = {
        id: Observation(trusted=True, words={edge: Word.UNREACHABLE} if n < unheard_by else {})
        for n, id in enumerate(ids[1:])
    }
    async with served(bench, (edge, wire)):
        wire.say(a_beat(edge))
        await asyncio.sleep(0.1)
        assert (edge in bench.link.evidence(fleet(edge), frozenset(), said).live_edges) is live


async def test_what_a_host_said_is_forgotten_when_it_left_the_fleet_and_the_link() -> None:
    """Declared again it has never reported, so that its silence says nothing; while it is linked it is heard."""
    bench, wire = Bench(), Wire()
    bench.link.know(fleet())
    others = Fleet(hosts={id: host for id, host in fleet().hosts.items() if id != LIAR})
    async with served(bench, (LIAR, wire)):
        wire.say(a_beat(LIAR))
        await asyncio.sleep(0.1)
        bench.link.know(others)
        assert LIAR in bench.link.heard
        await wire.close()
        await asyncio.sleep(0.1)
        assert LIAR not in bench.link.heard
        assert not bench.link.evidence(fleet(), frozenset(), {}).hosts[LIAR].known


async def test_a_silent_host_is_remembered_for_as_long_as_it_is_declared() -> None:
    """A declared host that went silent is remembered; it is forgotten as soon as the fleet lacks it."""
    bench, wire = Bench(), Wire()
    bench.link.know(fleet())
    others = Fleet(hosts={id: host for id, host in fleet().hosts.items() if id != LIAR})
    async with served(bench, (LIAR, wire)):
        wire.say(a_beat(LIAR))
        await asyncio.sleep(0.1)
        await wire.close()
        await asyncio.sleep(0.1)
        assert bench.link.evidence(fleet(), frozenset(), {}).hosts[LIAR].known
        bench.link.know(others)
        assert LIAR not in bench.link.heard


async def test_a_host_that_alternates_wakes_the_leader_five_times_a_second_at_most() -> None:
    """Its last word is what counts; another host's news still wakes at once."""
    bench, wire, honest = Bench(), Wire(), Wire()
    states = (AgentState.LEAVING, AgentState.RUNNING)
    async with served(bench, (LIAR, wire), (HOSTS[1], honest)):
        for n in range(80):
            wire.say(a_beat(LIAR, state=states[n % 2]))
            await asyncio.sleep(0.1)
        assert 10 < bench.link.urgent.count <= 41
        before = bench.link.urgent.count
        honest.say(a_beat(HOSTS[1]))
        await asyncio.sleep(0.01)
        assert bench.link.urgent.count == before + 1


async def test_an_older_link_that_fails_to_close_leaks_nothing() -> None:
    """The newer one is served, and is forgotten when it ends."""
    bench, new = Bench(), Wire()
    old = Wire(farewell=ConnectionLost("reset"))
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.link.serve(LIAR, old))
        await asyncio.sleep(0.01)
        group.create_task(bench.link.serve(LIAR, new))
        new.say(a_beat(LIAR))
        await asyncio.sleep(0.1)
        assert old.closed and new.sent == 1 and bench.link.connected == {LIAR}
        await new.close()
    assert not bench.link.connected


@pytest.mark.parametrize(
    ("total", "available", "ratio"),
    [(4, 1, 0.25), (0, 0, 1.0), (0, 9, 1.0), (1, 10**400, 1.0), (10**400, 1, 0.0), (4, -1, 0.0)],
    ids=["plain", "unsaid", "no-total", "huge", "tiny", "below"],
)
def test_the_share_of_free_memory_is_a_ratio_whatever_is_claimed(
    total: int, available: int, ratio: float
) -> None:
    """It lies between 0 and 1, and no claim overflows it."""
    load = msgspec.structs.replace(LOAD, memory_total_bytes=total, memory_available_bytes=available)
    assert load.memory_available_ratio == ratio
