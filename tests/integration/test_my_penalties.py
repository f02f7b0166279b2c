"""What a member learns of a penalty on its own site: that, since when, until when and why; of nobody else anything."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import pytest_asyncio

from fleet.caps import Level, Nature, Resource
from fleet.model import SiteId, Why
from tests.integration.controllers import Served, controller_served
from tests.integration.test_access import TWO_MEMBERS, made
from tests.integration.test_api import agent, beat
from tests.integration.test_caps_api import HOST, SITE, penalty, tell

pytestmark = pytest.mark.integration

WHY = Why(
    "isolation-suspect",
    {
        "stall_percent": 38,
        "share_percent": 71,
        "resource": "cpu",
        "nature": "crawled",
        "site": "blog",
    },
)
"""As an agent says it, with a neighbour's name that it should not have said."""


@pytest_asyncio.fixture
async def coop(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as served:
        await served.placed(TWO_MEMBERS)
        yield served


async def mine(
    served: Served, token: str, path: str, what: str, lang: str = "en"
) -> list[dict[str, Any]]:
    status, told = await served.ask(
        "GET", f"/v1/my/{path}", token=token, headers={"Accept-Language": lang}
    )
    assert status == 200, told
    return cast("list[dict[str, Any]]", told[what])


async def test_a_member_learns_how_its_site_is_held_and_why(coop: Served) -> None:
    """In both languages, with its end; not what is only looked at or in shadow, nor a neighbour's name."""
    own = await made(coop, "page", "member")
    assert [site["held"] for site in await mine(coop, own, "sites", "sites")] == [[]]
    slowed = penalty(why=WHY, nature=Nature.CRAWLED)
    shadow = penalty(resource=Resource.IO, enforced=False)
    watched = penalty(Level.WATCH, resource=Resource.MEMORY)
    async with agent(coop, HOST) as socket:
        await socket.send_bytes(beat(HOST))
        await tell(coop, socket, penalties=(slowed, shadow, watched))
        await coop.until(lambda: SITE in coop.controller.mirror.penalties)
        (site,) = await mine(coop, own, "sites", "sites")
        (spanish,) = await mine(coop, own, "sites", "sites", "es")
        (held,) = site["held"]
        assert (held["level"], held["share"], held["ended"]) == ("cap", 0.5, None)
        assert (held["since"], held["until"]) == (pytest.approx(slowed.since), slowed.until)
        assert held["what"]["text"] == "It runs with 50 % of its plan."
        assert held["why"]["text"] == (
            "Other sites on its server waited 38 % of their time for the CPU, while it took 71 % "
            "(crawled by machines)."
        )
        assert spanish["held"][0]["what"]["text"] == "Funciona con el 50 % de su plan."
        assert "38 % del tiempo" in spanish["held"][0]["why"]["text"]
        assert "blog" not in str(site["held"]) and "mx1-" not in str(site["held"])
        await tell(coop, socket, penalties=())
        await coop.until(lambda: not coop.controller.mirror.penalties[SITE].penalties)
    assert await mine(coop, own, "penalties", "penalties") == []
    (past,) = await mine(coop, own, "penalties?ended=true", "penalties")
    assert past["ended"] is not None and past["site"] == "huerto"


async def test_a_person_s_name_and_words_are_not_for_members(coop: Served) -> None:
    """Who ordered a quarantine, and what they wrote to their colleagues, stays with them."""
    own = await made(coop, "page", "member")
    order = {"reason": "spam of the treasurer", "for_s": 3600, "level": "isolate"}
    assert (await coop.ask("PUT", "/v1/sites/huerto/quarantine", said=order))[0] == 200
    said = Why("isolation-by-person", {"owner": "ana", "reason": "spam of the treasurer"})
    isolated = penalty(Level.ISOLATE, resource=Resource.EGRESS, owner="ana", why=said)
    async with agent(coop, HOST) as socket:
        await socket.send_bytes(beat(HOST))
        await tell(coop, socket, penalties=(isolated,))
        await coop.until(lambda: SITE in coop.controller.mirror.penalties)
        (held,) = await mine(coop, own, "penalties", "penalties")
    assert "The people who run the servers" in held["why"]["text"]
    assert "cut off" in held["what"]["text"]
    assert "ana" not in str(held) and "treasurer" not in str(held)


async def test_a_member_sees_no_other_member_s_penalties(coop: Served) -> None:
    """Whatever member it asks for; an operator says whose."""
    own = await made(coop, "page", "member")
    other = msgspec.structs.replace(penalty(), site=SiteId("blog"))
    async with agent(coop, "mx1-web-09") as socket:
        await socket.send_bytes(beat("mx1-web-09"))
        frame = {"type": "usage", "host": "mx1-web-09", "penalties": [msgspec.to_builtins(other)]}
        await socket.send_bytes(msgspec.json.encode(frame))
        await coop.until(lambda: "blog" in coop.controller.mirror.penalties)
        for path in ("penalties", "penalties?member=campo", "penalties?ended=true"):
            assert await mine(coop, own, path, "penalties") == []
    status, told = await coop.ask("GET", "/v1/my/penalties?member=campo")
    assert status == 200 and [it["site"] for it in cast("list[Any]", told["penalties"])] == ["blog"]
