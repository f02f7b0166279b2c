"""What each release before this one said on the wire is understood and answered, and it understands what we say."""

import asyncio
import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet.messages import Applied, Beat, FromAgent, FromController, Orders, Recall, Recalled
from fleet.model import Epoch
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.skew import record
from tests.unit.test_agent_link import C1, Controller, linked
from tests.unit.wires import Wire, a_link

pytestmark = pytest.mark.virtual_time

RELEASES = sorted(path.parent for path in Path(__file__).parent.glob("*/schema.json"))
releases = pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)


def frames(release: Path, of: str) -> list[bytes]:
    return (release / f"{of}.jsonl").read_bytes().splitlines()


def shape(release: Path) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((release / "schema.json").read_bytes())
    return found


def objections(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What of `new` a peer that knows only `old` would not understand, or would have to say and can't."""
    found = []
    for name, before in old["$defs"].items():
        after = new["$defs"].get(name)
        if after is None:
            found.append(f"{name} is gone")
            continue
        fields, now = before.get("properties", {}), after.get("properties", {})
        found += [f"{name}.{field} is gone" for field in fields.keys() - now.keys()]
        found += [
            f"{name}.{field} was {fields[field]} and is {now[field]}"
            for field in fields.keys() & now.keys()
            if fields[field] != now[field]
        ]
        if sorted(before.get("required", ())) != sorted(after.get("required", ())):
            found.append(f"{name} needs {after.get('required')}, not {before.get('required')}")
        rest = {"properties", "required"}
        if {k: v for k, v in before.items() if k not in rest} != {
            k: v for k, v in after.items() if k not in rest
        }:
            found.append(f"{name} takes other values")
    return found


def test_there_is_a_record_of_each_release() -> None:
    """At least that of the first; each holds every message of both sides."""
    assert RELEASES
    for release in RELEASES:
        for of, kind in (("agent", FromAgent), ("controller", FromController)):
            said = {type(msgspec.json.decode(one, type=kind)) for one in frames(release, of)}
            assert said <= set(kind.__args__)


@releases
async def test_an_older_agent_is_heard_answered_and_ordered(release: Path) -> None:
    """Every beat that it sends is acknowledged, nothing it says ends the link, and its answers count."""
    exporter, wire = Exporter(CONTROLLER), Wire()
    link = a_link(exporter)
    said = [msgspec.json.decode(one, type=FromAgent) for one in frames(release, "agent")]
    beats = [one for one in said if isinstance(one, Beat)]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(link.serve(beats[0].host, wire))
        for frame in frames(release, "agent"):
            wire.say(frame)
        await asyncio.sleep(0.1)
        assert not wire.closed
        assert wire.sent == len(beats) > 0
        assert link.heard[beats[0].host].beat == beats[-1]
        assert {type(one) for one in said} == {Beat, Applied, Recalled}
        task.cancel()


@releases
async def test_an_older_controller_is_followed(release: Path) -> None:
    """Its acknowledgements count, its orders are delivered and answered, and it understands the beats."""
    older, delivered = Controller(acks=False), list[Orders | Recall]()

    def deliver(wanted: Orders | Recall) -> Applied | None:
        delivered.append(wanted)
        return Applied(epoch=wanted.epoch) if isinstance(wanted, Orders) else None

    async with linked({C1: older}, deliver) as bench:
        await bench.run(1)
        for frame in frames(release, "controller"):
            older.say(frame)
            await asyncio.sleep(0.01)
        await bench.run(0.5)
        assert len(older.dialled) == 1
        assert [type(one) for one in delivered] == [Orders, Orders, Recall]
        answers = [one for _, one in older.heard if isinstance(one, Applied)]
        assert answers and answers[-1].epoch == Epoch(1, 41)
        text = bench.exporter.render().decode()
        assert 'relevo_agent_beats_acknowledged_total{controller="c1"}' in text


@releases
def test_no_field_changed_its_meaning_since(release: Path) -> None:
    """Fields and messages came, if anything; what was there has the same type, bounds and values, and is as needed.

    Broken before the release is tagged? `python -m tests.skew.record` again. After: give the new thing a new name.
    """
    assert objections(shape(release), record.schema()) == []


def test_a_changed_field_is_noticed() -> None:
    """One that is gone, that is new and needed, of another bound, or with one more value; a new optional one is not."""
    old = record.schema()
    plain: dict[str, Any] = copy.deepcopy(old)
    plain["$defs"]["Beat"]["properties"]["mood"] = {"type": "string"}
    plain["$defs"]["Novelty"] = {"type": "object"}
    assert objections(old, plain) == []

    def changed(where: str, what: str, value: object) -> list[str]:
        new: dict[str, Any] = copy.deepcopy(old)
        new["$defs"][where][what] = value
        return objections(old, new)

    beat: dict[str, Any] = old["$defs"]["Beat"]  # type: ignore[index]
    without = {name: one for name, one in beat["properties"].items() if name != "kernel"}
    assert changed("Beat", "properties", without) == ["Beat.kernel is gone"]
    assert changed("Beat", "required", [*beat["required"], "mood"])
    assert changed("Beat", "properties", {**beat["properties"], "kernel": {"type": "integer"}})
    assert changed("AgentState", "enum", ["running", "restarting", "leaving", "asleep"])
