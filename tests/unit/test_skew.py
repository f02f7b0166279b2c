"""A peer of a newer release says what this one does not know: it is ignored, counted, and ends no link."""

import asyncio

import msgspec
import pytest

from controller.link import FLOOD_BURST
from fleet.messages import Ack, Applied
from fleet.model import Epoch, HostId
from fleet.skew import AGENTS, CONTROLLERS, unknown_kind
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.unit.test_agent_link import C1, Controller, linked
from tests.unit.wires import Wire, a_beat, a_link

pytestmark = pytest.mark.virtual_time

H1 = HostId("h1")
NEWER = b'{"type": "penalty", "site": "garden", "until_s": 3}'
# Whatever else can't be decoded is nobody's newer release.
BROKEN = (
    b'{"type": "beat", "host": 5}',
    b'{"type": "ack"}',
    b'{"type": 7}',
    b'{"type": ""}',
    b'{"type": "' + b"x" * 65 + b'"}',
    b'{"site": "garden"}',
    b'["penalty"]',
    b'{"type": "penalty"',
    b"[" * 60_000,
)


def counted(exporter: Exporter, name: str) -> float:
    lines = [line for line in exporter.render().decode().splitlines() if line.startswith(name)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def test_an_agent_ignores_and_counts_what_a_newer_controller_says() -> None:
    """The link lasts, beats go on, and what comes after is followed."""
    newer, delivered = Controller(), list[object]()
    async with linked({C1: newer}, delivered.append) as bench:
        await bench.run(1)
        newer.say(NEWER)
        newer.say(b'{"type": "recall", "because": "newer"}')
        await bench.run(5)
        assert len(newer.dialled) == 1 and newer.beats == list(range(1, 13))
        assert len(delivered) == 1
        assert counted(bench.exporter, "relevo_agent_unknown_messages_total{") == 1


async def test_a_controller_ignores_and_counts_what_a_newer_agent_says() -> None:
    """The link lasts, and a beat with fields of which this release knows nothing counts as one."""
    exporter, wire = Exporter(CONTROLLER), Wire()
    link = a_link(exporter)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(link.serve(H1, wire))
        wire.say(NEWER)
        beat = {**msgspec.to_builtins(a_beat(H1)), "mood": "cheerful"}
        wire.say(msgspec.json.encode(beat))
        await asyncio.sleep(0.1)
        assert not wire.closed and wire.sent == 1 and H1 in link.heard
        assert counted(exporter, "relevo_link_unknown_messages_total ") == 1
        task.cancel()


async def test_what_is_not_known_is_bounded_like_everything_else() -> None:
    """Thousands of unknown messages are a flood (rule R15)."""
    exporter, wire = Exporter(CONTROLLER), Wire()
    for _ in range(FLOOD_BURST + 1):
        wire.say(NEWER)
    await a_link(exporter).serve(H1, wire)
    assert wire.closed
    assert counted(exporter, 'relevo_link_refused_total{reason="flood"}') == 1


@pytest.mark.parametrize("frame", BROKEN, ids=lambda frame: frame[:24].decode())
async def test_what_is_broken_is_not_taken_for_newer(frame: bytes) -> None:
    """A known type that breaks its bounds, no type, no JSON: refused, as before, and the link ends."""
    assert unknown_kind(frame, AGENTS | CONTROLLERS) is None
    exporter, wire = Exporter(CONTROLLER), Wire()
    wire.say(frame)
    if not frame.startswith(b'{"type": "ack"'):
        await a_link(exporter).serve(H1, wire)
        assert wire.closed
        assert counted(exporter, 'relevo_link_refused_total{reason="malformed-frame"}') == 1


def test_each_side_knows_its_own_messages() -> None:
    """What one side may say is not known to be the other's: an ack from an agent is nothing a controller expects."""
    known = {kind.__struct_config__.tag for kind in (Ack, Applied)}
    assert known & AGENTS == {"applied"} and known & CONTROLLERS == {"ack"}
    assert unknown_kind(msgspec.json.encode(Ack(sequence=1)), AGENTS) == "ack"
    assert unknown_kind(msgspec.json.encode(Applied(epoch=Epoch(1, 1))), AGENTS) is None
