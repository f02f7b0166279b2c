"""The past of a site's use: asked of a controller, found by its host's real agent, and never made up."""

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.usage.history import History
from agent.usage.ledger import SLOT_S, Row, Summary
from controller import questions
from fleet import keys
from fleet.caps import Attachment
from fleet.messages import Past, SiteUse, Usage
from fleet.model import ControllerId, HostId, Observation, PlanId, SiteId, Word
from fleet.pastuse import PastAsked, PastRow, PastTold, Spread
from runtime.clock import wall
from tests.integration.controllers import Served, controller_served
from tests.integration.test_agent_daemon import running
from tests.integration.test_api import Socket, agent, beat, heard
from tests.integration.test_caps_agent import HOST, configure
from tests.integration.test_dashboard_http import enter

pytestmark = pytest.mark.integration

PATH = "/v1/sites/huerto/usage/past"
OWN = PlanId("solidarity")


async def past(served: Served, query: str = "", status: int = 200) -> dict[str, Any]:
    found, told = await served.ask("GET", f"{PATH}?{query}")
    assert found == status, told
    return told


def row(slot: int, cores: float, **said: Any) -> Row:
    plain = Row(
        site=SiteId("huerto"),
        slot=slot,
        seen_s=300.0,
        measures={"cpu_cores": Summary(cores, 2 * cores, 3 * cores)},
    )
    return msgspec.structs.replace(plain, **said)


async def test_a_controller_asks_the_host_for_its_record(tmp_path: Path) -> None:
    """What its agent wrote in five minutes comes back in steps; of what nobody saw every number is null."""
    folder = tmp_path / "agent"
    (folder / "state").mkdir(parents=True)
    last = int(wall() // SLOT_S) - 2
    history = History(folder / "state/usage.sqlite", max_bytes=1 << 22)
    history.write([row(last - 2, 0.5), row(last, 1.0, at_cap_s={OWN: 60.0}, shadow_s=30.0)])
    history.close()
    async with controller_served(tmp_path) as served:
        await served.placed()
        async with running(configure(served, folder)):
            await served.until(lambda: HOST in served.controller.uses.hosts, within_s=30)
            told = await past(served, f"since={(last - 4) * SLOT_S}&until={(last + 1) * SLOT_S}")
            wide = await past(served, f"since={(last - 2) * SLOT_S}&step_s=86400")
            status, other = await served.ask("GET", "/v1/sites/blog/usage/past")
    assert (told["host"], told["step_s"], told["p95_estimated"]) == (HOST, SLOT_S, False)
    assert told["seen_since"] == (last - 2) * SLOT_S
    assert [step["at"] // SLOT_S - last for step in told["steps"]] == [-4, -3, -2, -1, 0]
    assert [step["seen_s"] for step in told["steps"]] == [0, 0, 300, 0, 300]
    gap, seen = told["steps"][3], told["steps"][4]
    assert {gap[name] for name in gap.keys() - {"at", "seen_s"}} == {None}
    assert seen["cpu_cores"] == {"average": 1.0, "p95": 2.0, "max": 3.0}
    assert (seen["at_cap_s"], seen["shadow_s"], seen["memory_bytes"]) == (60.0, 30.0, None)
    assert wide["step_s"] == 86_400 and wide["p95_estimated"]
    assert sum(step["seen_s"] for step in wide["steps"]) == 600
    assert (status, other["type"]) == (503, "/problems/host-not-linked")
    assert "mx1-web-09" in str(other["detail"])


async def asked(socket: Socket) -> PastAsked:
    while not isinstance(found := await heard(socket), PastAsked):
        pass
    return found


async def test_a_host_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older agent ignores the question, a full disk can't tell, another host's word counts for nothing."""
    monkeypatch.setattr(questions, "ANSWER_S", 0.5)
    async with controller_served(tmp_path) as served:
        await served.placed()
        async with agent(served, HOST) as socket, agent(served, "mx1-web-09") as other:
            for one, host in ((socket, HOST), (other, "mx1-web-09")):
                await one.send_bytes(beat(host))
            silent = await past(served, status=504)
            assert silent["type"] == "/problems/host-silent" and HOST in silent["detail"]
            assert (await asked(socket)).plan == OWN
            async with asyncio.TaskGroup() as group:
                answer = group.create_task(past(served, status=504))
                number = (await asked(socket)).number
                said = PastTold(number=number, site=SiteId("huerto"), error="the disk is full")
                lie = msgspec.structs.replace(said, error="", first=1.0)
                await other.send_bytes(msgspec.json.encode(lie))
                await asyncio.sleep(0.1)
                await socket.send_bytes(msgspec.json.encode(said))
            assert "the disk is full" in answer.result()["detail"]
            metrics = (await served.raw("GET", "/metrics"))[2].decode()
            for outcome in ("silent", "failed"):
                assert f'relevo_link_questions_total{{outcome="{outcome}"}} 1.0' in metrics


async def test_a_controller_without_the_link_names_one_that_has_it(tmp_path: Path) -> None:
    """By what the others told last: who does not hear the host itself is not named."""
    web = HostId(HOST)
    async with controller_served(tmp_path) as served:
        await served.placed()
        mirror = served.controller.mirror
        assert "nor to any other" in (await past(served, status=503))["detail"]
        for id, words in (("c2", {}), ("c3", {web: Word.UNREACHABLE})):
            said = Observation(trusted=True, words=words)
            key = keys.observer(ControllerId(id))
            await served.controller.store.put(key, msgspec.json.encode(said))
        await served.until(lambda: {"c2", "c3"} <= mirror.observers.keys())
        told = await past(served, status=503)
        assert "c2" in told["detail"] and "c3" not in told["detail"]


async def test_the_past_is_a_page_with_a_picture_of_each_measure(tmp_path: Path) -> None:
    """Its bars leave out what nobody saw; who looks again asks no host; one that is away is said in words."""
    async with controller_served(tmp_path) as served:
        await served.placed()
        visitor = await enter(served)
        status, _, away = await visitor.ask("/sites/huerto/past")
        assert (status, "not linked to this controller" in away) == (200, True)
        assert "/ui/sites/huerto/past" in (await visitor.ask("/sites/huerto"))[2]
        async with agent(served, HOST) as socket:
            await socket.send_bytes(beat(HOST))
            async with asyncio.TaskGroup() as group:
                opened = group.create_task(visitor.ask("/sites/huerto/past?days=1&lang=es"))
                one = await asked(socket)
                seen = PastRow(
                    at=one.since + 2 * one.step_s, seen_s=300.0, cpu_cores=Spread(0.5, 1.0, 9.0)
                )
                said = PastTold(number=one.number, site=one.site, first=one.since, rows=(seen,))
                await socket.send_bytes(msgspec.json.encode(said))
            status, headers, page = opened.result()
            again = await visitor.ask("/sites/huerto/past", headers={"X-Live": "1"})
        metrics = (await served.raw("GET", "/metrics"))[2].decode()
    assert (status, one.step_s) == (200, 300)
    assert page.count("<svg") == 1 and page.count("no se sabe") == 6
    assert 'class="average" d="M2 100v-50h1v50z"' in page
    assert 'class="p95" d="M2 100v-100h1v100z"' in page
    assert 'class="unseen" d="M0 100v-100h2v100zM3 100' in page
    assert "media 0,50, el 95 % del tiempo como máximo 1,00, como máximo 9,00" in page
    assert "style=" not in page and "<script>" not in page
    assert headers["Content-Security-Policy"] and again[0] == 200 and "<svg" not in again[2]
    assert 'relevo_link_questions_total{outcome="answered"} 1.0' in metrics


async def test_the_page_says_what_each_plan_would_have_meant(tmp_path: Path) -> None:
    """Zero where the host compared and nothing was reached, a gap where it did not; also while no host answers."""
    async with controller_served(tmp_path) as served:
        await served.placed()
        visitor = await enter(served)
        assert 'id="plans"' not in (await visitor.ask("/sites/huerto/past"))[2], "nothing is told"
        async with agent(served, HOST) as socket:
            for minutes, said in (({OWN: 0.0}, "0 s in 9 days"), ({}, "not known")):
                told = Past(days=9.0, at_cap_min=minutes)
                use = SiteUse(attachment=Attachment.SLICE, past=told)
                count = served.controller.uses.count
                message = Usage(host=HostId(HOST), sites={SiteId("huerto"): use})
                await socket.send_bytes(msgspec.json.encode(message))
                await served.until(lambda: served.controller.uses.count > count)  # noqa: B023 - at once
                status, _, page = await visitor.ask("/sites/huerto/past")
                (card,) = re.findall('<section class="card" id="plans">.*?</section>', page, re.S)
                assert (status, said in card, card.count("<dd>")) == (200, True, 1)


async def test_what_is_asked_is_bounded(tmp_path: Path) -> None:
    """A step is lengthened until 300 make an answer, no more than 40 days are asked, four at a time."""
    async with controller_served(tmp_path) as served:
        await served.placed()
        async with agent(served, HOST) as socket:
            await socket.send_bytes(beat(HOST))
            async with asyncio.TaskGroup() as group:
                waiting = [
                    group.create_task(past(served, "since=1600000000&step_s=300")) for _ in range(4)
                ]
                numbered = [await asked(socket) for _ in waiting]
                busy = await past(served, status=503)
                assert busy["type"] == "/problems/busy"
                for one in numbered:
                    assert one.step_s == 14_400 and one.since >= wall() - 41 * 86_400
                    lie = PastRow(at=1.0, seen_s=300.0, cpu_cores=Spread(1.0, 1.0, 1.0))
                    said = PastTold(number=one.number, site=one.site, rows=(lie,))
                    await socket.send_bytes(msgspec.json.encode(said))
            told = waiting[0].result()
            assert len(told["steps"]) in {240, 241} and {s["seen_s"] for s in told["steps"]} == {0}
        for query in ("since=4000000000", "until=1600000000", "since=1", "step_s=1", "plan="):
            status, problem = await served.ask("GET", f"{PATH}?{query}")
            assert status == (503 if query == "plan=" else 400), problem
        assert (await past(served, "plan=nothing", status=404))["type"] == "/problems/not-found"
