"""Arming as people do it: refused while it was watched too little, and never tighter by a plan that changed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.commands import Person
from controller.sight import Refused
from fleet.caps import Turn
from fleet.documents import read
from fleet.messages import Past
from fleet.model import PlanId
from runtime.clock import wall
from tests.integration.controllers import Served, controller_served
from tests.integration.test_api import agent
from tests.integration.test_caps_api import HOST, SITE, get, orders, tell, use
from tests.unit.fleets import GOOD

pytestmark = pytest.mark.integration

PLAN = PlanId("solidarity")
PATH = "/v1/caps/enforcement"
STRICTER = GOOD.replace("tasks: 80,", "tasks: 60,")
LOOSER = GOOD.replace("tasks: 80,", "tasks: 100,")


@pytest_asyncio.fixture
async def coop(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as served:
        await served.placed(GOOD)
        yield served


async def arm(coop: Served, **said: Any) -> tuple[int, dict[str, Any]]:
    order = {"scope": "site", "id": "huerto", "word": "arm", "reason": "a test", **said}
    return await coop.ask("PUT", PATH, said=order)


async def write(coop: Served, fleet: str, query: str = "") -> dict[str, Any]:
    status, told = await coop.ask("PUT", f"/v1/fleet?file=coop.yaml{query}", body=fleet.encode())
    assert status == 200, told
    return told


async def held(coop: Served) -> dict[str, Any]:
    waits: dict[str, Any] = (await get(coop, "/v1/sites/huerto/caps"))["waits"]
    return waits


async def test_arming_too_soon_is_refused_with_what_shadow_found(coop: Served) -> None:
    """Days, sites and minutes, in the asker's language; who knows better says so; a date far enough is no haste."""
    status, told = await arm(coop)
    assert (status, told["type"]) == (409, "/problems/caps-untried")
    values = told["why"]["values"]
    assert (values["days"], values["enough"], values["sites"], values["untold"]) == (0, 14, 1, 1)
    async with agent(coop, HOST) as socket:
        await tell(coop, socket, sites={SITE: use(past=Past(days=9.0, shadow_min=14.0))})
        coop.controller.mirror.enforcement.since.clear()  # the plan is older than this test
        values = (await arm(coop))[1]["why"]["values"]
        assert (values["days"], values["slowed"], values["minutes"]) == (9.0, 1, 14)
        assert not coop.controller.mirror.enforcement.sites
        assert (await arm(coop, since=wall() + 4 * 86_400))[0] == 409
        assert (await arm(coop, since=wall() + 6 * 86_400))[0] == 200
        assert (await arm(coop, untried=True))[0] == 200
        assert (await get(coop, "/v1/sites/huerto/caps"))["enforced"]
        assert (await arm(coop))[0] == 200, "it holds already: nothing becomes stricter"


@pytest.mark.parametrize("in_s", [0.0, 86_400.0])
async def test_who_forgets_a_shadow_arms_what_is_around_it(coop: Served, in_s: float) -> None:
    """Now, or on the date that is promised there: untried it is refused as any arming is."""
    shadow = {"scope": "site", "id": "huerto", "word": "shadow", "reason": "a test"}
    assert (await coop.ask("PUT", PATH, said=shadow))[0] == 200
    since = wall() + in_s if in_s else None
    assert (await arm(coop, scope="all", id=None, since=since, untried=True))[0] == 200
    status, told = await arm(coop, word=None)
    assert (status, told["type"]) == (409, "/problems/caps-untried")
    assert (await arm(coop, word=None, untried=True))[0] == 200
    assert not coop.controller.mirror.enforcement.sites


async def test_a_stricter_plan_waits_for_a_word_and_everybody_is_told(coop: Served) -> None:
    """In the answer to who writes it, in the difference before, at the site, in the whole, and in the host's orders."""
    assert (await arm(coop, scope="all", id=None, untried=True))[0] == 200
    status, seen = await coop.ask("POST", "/v1/fleet/diff?file=x", body=STRICTER.encode())
    assert status == 200 and "80 goes on to hold" in str(seen["warnings"])
    made = await write(coop, STRICTER)
    assert "relevo caps arm --plan solidarity" in str(made["warnings"])
    assert await held(coop) == {"tasks": {"holds": 80, "plan": 60, "comes": None}}
    told = await get(coop, PATH)
    assert [(p["plan"], p["sites"]) for p in told["pending"]] == [("solidarity", 2)]
    async with agent(coop, HOST) as socket:
        tenant = (await orders(socket)).tenants[SITE]
        assert tenant.enforced_from is not None and tenant.held[0].caps == {"tasks": 80}
        await tell(coop, socket, sites={SITE: use(past=Past(days=9.0, shadow_min=14.0))})
        (row,) = (await get(coop, "/v1/caps/report"))["sites"]
        assert (row["enforced"], row["waits"], row["shadow_min"]) == (True, True, 14.0)
        assert (await arm(coop, scope="plan", id="solidarity"))[0] == 409
        assert (await arm(coop, scope="plan", id="solidarity", untried=True))[0] == 200
        assert not (await orders(socket)).tenants[SITE].held
    assert await held(coop) == {}


async def test_a_looser_plan_holds_at_once_and_its_return_waits(coop: Served) -> None:
    """Also when the change is taken back by its number; `enforce=keep` says that it is to hold."""
    assert (await arm(coop, scope="all", id=None, untried=True))[0] == 200
    await write(coop, LOOSER)
    assert await held(coop) == {}
    status, told = await coop.ask("POST", "/v1/fleet/undo", said={"reason": "a slip"})
    assert status == 200 and "100 goes on to hold" in str(told["warnings"])
    assert (await held(coop))["tasks"]["holds"] == 100
    await write(coop, STRICTER, "&enforce=keep")
    assert await held(coop) == {}


async def test_a_plan_that_is_written_meanwhile_loses_no_word_on_caps(coop: Served) -> None:
    """Who writes it looks again, or both are true: what was said last of caps stands."""
    controller, person, written = coop.controller, Person(name="ana", reason="x"), []
    fleets = [read(text, "coop.yaml") for text in (STRICTER, GOOD)]

    async def write_on() -> None:
        for n in range(20):
            with suppress(Refused):
                await controller.commands.apply_fleet(fleets[n % 2], person)
                written.append(n)

    said: list[float | None] = []
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(write_on())
        while not writing.done():
            turn = Turn(since=None if said and said[-1] else wall())
            with suppress(Refused):
                await controller.holding.enforce("all", "", turn, person, untried=True)
                said.append(turn.since)
                now = controller.mirror.enforcement.all.since
                assert (now is None) == (turn.since is None)
            await asyncio.sleep(0)
            now = controller.mirror.enforcement.all.since
            assert not said or (now is None) == (said[-1] is None), "a word was lost"
    assert written and len(said) > 2


async def test_a_plan_that_a_host_can_t_hold_as_written_is_warned_of(coop: Served) -> None:
    """By what the host that has its sites said of itself; it is declared all the same."""
    async with agent(coop, HOST) as socket:
        await tell(coop, socket, cores=2.0, memory_total_bytes=1 << 34, has_swap=False)
        made = await write(coop, GOOD.replace("cpu_percent: 100", "cpu_percent: 200"))
    said = str(made["warnings"])
    assert "is more than half of the CPU of mx1-web-01 (2 cores)" in said
    assert "needs swap or zram, which mx1-web-01 has not" in said
    assert coop.controller.mirror.fleet.plans[PLAN].caps.cpu_percent == 200


async def test_what_the_kernel_counted_in_the_last_hour_is_told(coop: Served) -> None:
    """Summed over what its host told, with its use and with what holds it; who changes hosts begins anew."""
    async with agent(coop, HOST) as socket:
        for _ in range(2):
            counts = {"memory_high_hits": 40, "tasks_refused": 1, "throttled_periods": 7}
            await tell(coop, socket, sites={SITE: use(**counts, devices={"8:0": 5.0, "8:16": 1.0})})
    expected = {"memory_high_hits": 80, "tasks_refused": 2, "throttled_periods": 14}
    used = await get(coop, "/v1/sites/huerto/usage")
    assert used["last_hour"] == expected and used["use"]["devices"] == {"8:0": 5.0, "8:16": 1.0}
    assert (await get(coop, "/v1/sites/huerto/caps"))["last_hour"] == expected
    assert (await get(coop, "/v1/sites/blog/caps"))["last_hour"] == {}
