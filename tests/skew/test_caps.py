"""A newer release knows caps that this one does not: between daemons they are left out, of people they are refused."""

from typing import Any

import msgspec
import pytest

from deploy.demo.plans import STANDARD
from fleet.caps import Held, Override, as_armed, effective
from fleet.documents import BadDocument, read
from fleet.messages import Orders
from fleet.model import Epoch, HostId, Note, Plan
from fleet.skew import unknown_caps
from tests.skew import record
from tests.unit.test_agent_link import C1, Controller, linked
from tests.unit.test_skew import counted

NEWER = "gpu_percent"


def orders(**caps: int) -> bytes:
    """As a controller writes them whose plans have these caps too."""
    of = Orders(
        epoch=Epoch(1, 1), cluster="c", host=HostId("h1"), plans={STANDARD.id: STANDARD.caps}
    )
    plain: dict[str, Any] = msgspec.to_builtins(of)
    plain["plans"][STANDARD.id] |= caps
    return msgspec.json.encode(plain)


def test_everything_that_travels_may_grow() -> None:
    """No shape on the wire refuses a field that it does not know: an older peer would lose the whole message."""
    shapes: Any = record.schema()["$defs"]
    assert [name for name, of in shapes.items() if of.get("additionalProperties") is False] == []


@pytest.mark.virtual_time
async def test_a_newer_controllers_orders_are_followed_without_the_cap_that_is_not_known() -> None:
    """Failovers reach the older agent, its link lasts, and that it holds less is counted."""
    newer, delivered = Controller(), list[object]()
    async with linked({C1: newer}, delivered.append) as bench:
        await bench.run(1)
        newer.say(orders())
        await bench.run(1)
        assert counted(bench.exporter, "relevo_agent_unknown_caps_total{") == 0
        newer.say(orders(**{NEWER: 50}))
        await bench.run(1)
        assert len(newer.dialled) == 1 and len(delivered) == 2
        (found,) = [one for one in delivered[1:] if isinstance(one, Orders)]
        assert msgspec.to_builtins(found.plans[STANDARD.id]) == msgspec.to_builtins(STANDARD.caps)
        assert counted(bench.exporter, "relevo_agent_unknown_caps_total{") == 1


def test_what_is_not_known_is_told_by_name() -> None:
    """Of orders only, and nothing of those of this release."""
    assert unknown_caps(orders(**{NEWER: 50})) == (NEWER,)
    assert unknown_caps(orders()) == ()


def test_an_override_and_an_edition_may_name_a_cap_that_is_not_known() -> None:
    """The others that they name hold; an agent that ended at it would end at its cached orders again."""
    note = Note(owner="ana", reason="sale", since=0.0, until=10.0)
    caps: dict[str, int | float] = {"tasks": 999, NEWER: 50}
    held = (Held(since=0.0, caps={"tasks": 999, NEWER: 50}),)
    wanted = msgspec.structs.replace(STANDARD.caps, tasks=999)
    assert effective(STANDARD.caps, Override(caps=caps, note=note), 5.0) == wanted
    assert as_armed(held, 5.0) == {"tasks": 999}


def test_of_people_a_cap_that_is_not_known_is_refused() -> None:
    """In a fleet file, by its name; in a plan over the API or out of the store, as a whole."""
    plan: dict[str, Any] = msgspec.to_builtins(STANDARD)
    plan["caps"] |= {"taks": 50}
    with pytest.raises(msgspec.ValidationError, match=r"taks"):
        msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
    text = (
        f"version: 1\nplans:\n  {STANDARD.id}: "
        + msgspec.json.encode(
            {name: value for name, value in plan.items() if name != "id"}
        ).decode()
    )
    with pytest.raises(BadDocument, match=r"taks.*is not a field of a plan's caps.*tasks"):
        read(text, "fleet.yaml")
