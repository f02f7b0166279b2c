"""Caps and isolation as people ask and order them: the chain, a host's truth, words on a site, what shadow found."""

import asyncio
from typing import Any

import aiohttp
import msgspec
import pytest

from fleet.caps import (
    Attachment,
    Evidence,
    IoLimit,
    Level,
    Limits,
    Penalty,
    Resource,
)
from fleet.messages import Beside, Orders, Past, SiteUse, Usage
from fleet.model import HostId, PlanId, SiteId, Why
from runtime.clock import wall
from tests.integration.controllers import FLEET, Served
from tests.integration.test_api import Socket, agent, beat, heard

pytestmark = pytest.mark.integration

HOST = "mx1-web-01"
SITE = SiteId("huerto")
WANTED = Limits(
    cpu_weight=50,
    cpu_quota_us=1_000_000,
    memory_high_bytes=None,
    memory_max_bytes=512 << 20,
    memory_low_bytes=48 << 20,
    swap_max_bytes=None,
    tasks_max=80,
    io={
        "8:0": IoLimit(
            read_bytes_per_s=10_000_000,
            write_bytes_per_s=5_000_000,
            read_ops_per_s=1000,
            write_ops_per_s=500,
        )
    },
)


def use(**said: Any) -> SiteUse:
    plain = SiteUse(
        attachment=Attachment.SLICE,
        cpu_cores=0.5,
        memory_bytes=128 << 20,
        slice="user-1001.slice",
        wanted=WANTED,
        held=WANTED,
        because={"tasks_max": Why("cap-plan")},
    )
    return msgspec.structs.replace(plain, **said)


def penalty(level: Level = Level.CAP, **said: Any) -> Penalty:
    now = wall()
    plain = Penalty(
        site=SITE,
        level=level,
        resource=Resource.CPU,
        share=0.5,
        since=now - 60,
        until=now + 600,
        why=Why("cap-share", {"percent": 50}),
        enforced=True,
    )
    return msgspec.structs.replace(plain, **said)


def usage(**said: Any) -> bytes:
    plain = Usage(host=HostId(HOST), sites={SITE: use()}, driver="systemd")
    return msgspec.json.encode(msgspec.structs.replace(plain, **said))


async def tell(served: Served, socket: Socket, **said: Any) -> None:
    """Say it as the host's agent, and wait until it was heard."""
    count = served.controller.uses.count
    await socket.send_bytes(usage(**said))
    await served.until(lambda: served.controller.uses.count > count)


async def get(served: Served, path: str) -> dict[str, Any]:
    status, told = await served.ask("GET", path)
    assert status == 200, told
    return told


async def test_the_chain_says_where_each_cap_comes_from(coop: Served) -> None:
    """Plan, override, wanted and held stand side by side with reasons; before its host spoke, nothing is made up."""
    before = await get(coop, "/v1/sites/huerto/caps")
    assert before["age_s"] is None and before["attachment"] is None and before["differs"] == []
    assert {link["held"] for link in before["chain"]} == {None}
    lent = {"caps": {"memory_max_bytes": 1 << 30}, "for_s": 3600, "reason": "a campaign"}
    assert (await coop.ask("PUT", "/v1/sites/huerto/override", said=lent))[0] == 200
    async with agent(coop, HOST) as socket:
        await tell(
            coop, socket, sites={SITE: use(held=msgspec.structs.replace(WANTED, tasks_max=99))}
        )
    told = await get(coop, "/v1/sites/huerto/caps")
    chain = {link["cap"]: link for link in told["chain"]}
    memory = chain["memory_max_bytes"]
    assert (memory["plan"], memory["override"], memory["wanted"]) == (512 << 20, 1 << 30, 512 << 20)
    assert (chain["tasks_max"]["wanted"], chain["tasks_max"]["held"]) == (80, 99)
    assert chain["tasks_max"]["differs"] and told["differs"] == ["tasks_max"]
    assert chain["tasks_max"]["because"]["text"] == "As the plan says."
    assert chain["read_ops_per_s"]["held"] == 1000
    assert (told["driver"], told["slice"], told["attachment"]) == (
        "systemd",
        "user-1001.slice",
        "slice",
    )
    assert told["override"]["note"]["owner"] == "ana" and not told["enforced"]


async def test_a_host_is_verified_site_by_site(coop: Served) -> None:
    """What the kernel holds otherwise is listed with both values; a site without a word is unknown, not well."""
    async with agent(coop, HOST) as socket:
        await tell(coop, socket, unable="", drift=3, lacks=(Why("unable-root"),))
        told = await get(coop, f"/v1/hosts/{HOST}/caps?lang=es")
        assert told["lacks"][0]["text"] == "El agente no es root: systemd lo rechazaría."
        assert (told["differing"], told["unknown"], told["drift"]) == ([], [], 3)
        other = msgspec.structs.replace(WANTED, memory_max_bytes=None)
        await tell(coop, socket, sites={SITE: use(held=other)})
        told = await get(coop, f"/v1/hosts/{HOST}/caps")
    (found,) = told["differing"]
    assert (found["site"], [link["cap"] for link in found["chain"]]) == (
        "huerto",
        ["memory_max_bytes"],
    )
    assert told["attachments"] == {"slice": 1}
    silent = await get(coop, "/v1/hosts/mx1-web-09/caps")
    assert (silent["age_s"], silent["unknown"]) == (None, ["blog"])


async def test_what_is_not_held_is_told_with_its_reason_and_slices_beside_a_site_are_verified(
    coop: Served,
) -> None:
    """As a sentence: of the site, of its users' slices, and of the host that has it."""
    short = (Why("cap-no-file", {"file": "memory.swap.max"}),)
    held = msgspec.structs.replace(WANTED, tasks_max=99)
    beside = Beside(slice="user-1001.slice", wanted=WANTED, held=held, short=short)
    waits = Why("cap-waits-for", {"slice": "ana.slice", "sites": "blog"})
    async with agent(coop, HOST) as socket:
        site = use(slice="huerto.slice", told=True, short=(waits,), beside=(beside,))
        await tell(coop, socket, sites={SITE: site})
    told = await get(coop, "/v1/sites/huerto/caps")
    assert told["differs"] == [] and told["known"]
    assert "blog" in told["short"][0]["text"] and "wait" in told["short"][0]["text"]
    (one,) = told["beside"]
    assert (one["slice"], one["known"], one["differs"]) == ("user-1001.slice", True, ["tasks_max"])
    assert "memory.swap.max" in one["short"][0]["text"]
    plan = {link["cap"]: link["plan"] for link in one["chain"]}
    assert (plan["tasks_max"], plan["memory_low_bytes"]) == (20, 0)
    host = await get(coop, f"/v1/hosts/{HOST}/caps")
    lent = {"caps": {"tasks": 200, "background_tasks": 30}, "for_s": 3600, "reason": "an import"}
    assert (await coop.ask("PUT", "/v1/sites/huerto/override", said=lent))[0] == 200
    (one,) = (await get(coop, "/v1/sites/huerto/caps"))["beside"]
    (tasks,) = (link for link in one["chain"] if link["cap"] == "tasks_max")
    assert (tasks["plan"], tasks["override"]) == (20, 30), "what its host works out from both"
    (found,) = host["differing"]
    assert (found["site"], found["slice"]) == ("huerto", "user-1001.slice")
    assert [link["cap"] for link in found["chain"]] == ["tasks_max"]
    assert [(one["site"], one["slice"], one["short"][0]["code"]) for one in host["short"]] == [
        ("huerto", "huerto.slice", "cap-waits-for"),
        ("huerto", "user-1001.slice", "cap-no-file"),
    ]


async def test_use_is_told_against_every_plan(coop: Served) -> None:
    """A share of each plan's caps; what can't be attributed is null."""
    async with agent(coop, HOST) as socket:
        past = Past(days=9.0, at_cap_min={PlanId("solidarity"): 212.0}, shadow_min=14.0)
        await tell(coop, socket, sites={SITE: use(past=past)})
    told = await get(coop, "/v1/sites/huerto/usage")
    assert told["against"]["solidarity"]["cpu_ratio"] == 0.5
    assert told["against"]["solidarity"]["memory_ratio"] == 0.25
    assert told["against"]["solidarity"]["requests_ratio"] is None
    assert told["use"]["past"]["at_cap_min"] == {"solidarity": 212.0}


async def test_a_host_speaks_for_itself_only(coop: Served) -> None:
    """Use and penalties of a site that is placed elsewhere are dropped and counted; another's name ends the link."""
    foreign = SiteId("blog")
    async with agent(coop, HOST) as socket:
        await tell(
            coop,
            socket,
            sites={SITE: use(), foreign: use()},
            penalties=(penalty(site=foreign, level=Level.STOP),),
            evidence=(Evidence(site=foreign, at=wall(), every_s=2.0),),
        )
        assert coop.controller.uses.of(foreign) is None
        await asyncio.sleep(1.5)
        assert not coop.controller.mirror.penalties
        metrics = (await coop.raw("GET", "/metrics"))[2].decode()
        assert "relevo_usage_foreign_sites_total 2.0" in metrics
        await socket.send_bytes(usage(host=HostId("mx1-web-09")))
        async with asyncio.timeout(5):
            while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
    assert not coop.controller.link.connected


async def test_penalties_are_kept_audited_and_told(coop: Served) -> None:
    """What a host enforces is in the store with its evidence, in the audit and among the events; then it is past."""
    async with agent(coop, HOST) as socket:
        await socket.send_bytes(beat(HOST))
        evidence = Evidence(site=SITE, at=wall(), every_s=2.0, stall=(0.1, 0.4), use=(0.2, 1.0))
        await tell(coop, socket, penalties=(penalty(),), evidence=(evidence,))
        await coop.until(lambda: SITE in coop.controller.mirror.penalties)
        told = await get(coop, "/v1/sites/huerto/caps")
        assert [p["level"] for p in told["penalties"]] == [3]
        assert told["evidence"]["stall"] == [0.1, 0.4]
        (one,) = (await get(coop, "/v1/penalties"))["penalties"]
        assert (one["site"], one["host"], one["penalty"]["resource"]) == ("huerto", HOST, "cpu")
        assert one["penalty"]["why"]["text"] == "50 % of the plan, by a penalty."
        await tell(coop, socket, penalties=())
        await coop.until(lambda: not coop.controller.mirror.penalties[SITE].penalties)
    (past,) = (await get(coop, "/v1/penalties?ended=true"))["penalties"]
    assert past["ended"] is not None and not (await get(coop, "/v1/penalties"))["penalties"]
    audit = [entry for entry in coop.controller.mirror.audit.values() if entry.subject == "huerto"]
    assert [entry.what for entry in audit] == ["penalty began", "penalty ended"]
    happened = [event for event in coop.controller.events.since(0) if event.kind == "penalty"]
    assert [event.data["what"] for event in happened] == ["began", "ended"]


async def test_the_report_says_what_shadow_found(coop: Served) -> None:
    """Minutes that a site would have been slowed: by its host's history, else by penalties that only were recorded."""
    async with agent(coop, HOST) as socket:
        since = wall() - 600
        await tell(coop, socket, penalties=(penalty(enforced=False, since=since),))
        await coop.until(lambda: SITE in coop.controller.mirror.penalties)
    told = await get(coop, "/v1/caps/report")
    (one,) = told["sites"]
    assert (one["site"], one["level"], one["enforced"]) == ("huerto", "cap", False)
    assert one["shadow_min"] == pytest.approx(10, abs=0.5) and one["penalized_min"] == 0
    assert (told["quiet"], told["unheard"]) == (1, 1)
    assert not [e for e in coop.controller.mirror.audit.values() if "penalty" in e.what]


@pytest.mark.parametrize("enforced", [True, False])
async def test_the_memory_watchdogs_relief_is_no_punishment(coop: Served, enforced: bool) -> None:
    """What takes nothing from a site slowed it at no time, and it alone brings no site into the report."""
    relief = penalty(resource=Resource.MEMORY, share=1.0, enforced=enforced)
    async with agent(coop, HOST) as socket:
        eased = msgspec.structs.replace(relief, since=wall() - 600)
        await tell(coop, socket, penalties=(eased,))
        await coop.until(lambda: SITE in coop.controller.mirror.penalties)
        assert (await get(coop, "/v1/caps/report"))["sites"] == []
        assert len((await get(coop, "/v1/penalties"))["penalties"]) == 1, "it is no secret either"
        soft = penalty(level=Level.SOFT, enforced=enforced, since=wall() - 120)
        await tell(coop, socket, penalties=(eased, soft))
        await coop.until(lambda: len(coop.controller.mirror.penalties[SITE].penalties) == 2)
    (one,) = (await get(coop, "/v1/caps/report"))["sites"]
    assert (one["penalties"], one["level"]) == (1, "soft")
    assert one["penalized_min"] + one["shadow_min"] == pytest.approx(2, abs=0.5)


async def test_the_report_is_of_a_site_s_own_plan(coop: Served) -> None:
    """What a smaller plan would have meant is no news; what its own would have is, also without any penalty."""
    small, own = PlanId("smaller"), PlanId("solidarity")
    async with agent(coop, HOST) as socket:
        await tell(coop, socket, sites={SITE: use(past=Past(days=9.0, at_cap_min={small: 300.0}))})
        assert (await get(coop, "/v1/caps/report"))["sites"] == []
        past = Past(days=39.0, at_cap_min={own: 12.0})
        await tell(coop, socket, sites={SITE: use(past=past)})
        assert (await get(coop, "/v1/caps/report"))["sites"] == [], "it may be a month ago"
        past = Past(days=9.0, at_cap_min={small: 300.0, own: 12.0}, shadow_min=7.0)
        await tell(coop, socket, sites={SITE: use(past=past)})
        (one,) = (await get(coop, "/v1/caps/report"))["sites"]
    assert (one["shadow_min"], one["penalties"], one["level"]) == (7.0, 0, "")
    assert one["history"]["at_cap_min"] == {"smaller": 300.0, "solidarity": 12.0}


async def test_a_quarantine_reaches_the_host_and_is_taken_back(coop: Served) -> None:
    """It is part of the host's orders with its end and owner; ended, it is no more."""
    said = {"reason": "spam", "for_s": 7200, "level": "isolate", "nature": "hacked"}
    async with agent(coop, HOST) as socket:
        await orders(socket)
        assert (await coop.ask("PUT", "/v1/sites/huerto/quarantine", said=said))[0] == 200
        ruling = (await orders(socket)).rulings[SITE]
        assert (ruling.word, ruling.level, ruling.note.owner) == (
            "quarantine",
            Level.ISOLATE,
            "ana",
        )
        assert ruling.note.until - ruling.note.since == 7200
        release = {"reason": "clean", "for_s": 60}
        assert (await coop.ask("PUT", "/v1/sites/huerto/release", said=release))[0] == 200
        assert (await orders(socket)).rulings[SITE].word == "release"
        # Who ends a quarantine does not end a release that came after it.
        reason = {"reason": "over"}
        assert (await coop.ask("DELETE", "/v1/sites/huerto/quarantine", said=reason))[0] == 200
        assert SITE in coop.controller.mirror.rulings
        assert (await coop.ask("DELETE", "/v1/sites/huerto/release", said=reason))[0] == 200
        assert not (await orders(socket)).rulings
    status, told = await coop.ask("PUT", "/v1/sites/nobody/quarantine", said=said)
    assert (status, told["type"]) == (404, "/problems/not-found")


async def orders(socket: Socket) -> Orders:
    while not isinstance(found := await heard(socket), Orders):
        pass
    return found


BAD = {
    "unknown": ({"memory_max": 1 << 30}, "memory_max", "did you mean 'memory_max_bytes'?"),
    "too small": ({"tasks": 3}, "tasks", ""),
    "no number": ({"cpu_percent": 120.5}, "cpu_percent", ""),
    "a rule": ({"tasks": 20}, "tasks", "the plan solidarity says 80"),
    "the other of a rule": ({"php_workers": 30}, "in_flight", "the plan solidarity says 10"),
    "none": ({}, "", ""),
}


@pytest.mark.parametrize(("caps", "field", "remedy"), BAD.values(), ids=BAD)
async def test_an_override_that_can_not_be_is_refused_by_name(
    coop: Served, caps: dict[str, float], field: str, remedy: str
) -> None:
    """The field, its value, the rule and the plan's own value are named, and nothing is changed."""
    said = {"caps": caps, "for_s": 60, "reason": "a test"}
    status, told = await coop.ask("PUT", "/v1/sites/huerto/override", said=said)
    assert status == 422, told
    assert not coop.controller.mirror.overrides
    if field:
        problems = msgspec.convert(told["problems"], list[dict[str, Any]])
        found = {p["field"]: p for p in problems}[f"sites.huerto.override.{field}"]
        assert remedy in found["remedy"]


async def test_an_override_is_replaced_as_it_was_read(coop: Served) -> None:
    """With If-Match only the override that was read is replaced; the plan's caps are back when it ends."""
    said = {"caps": {"tasks": 200}, "for_s": 3600, "reason": "more"}
    path = "/v1/sites/huerto/override"
    _, headers, _ = await coop.raw("GET", "/v1/sites/huerto/caps")
    first = {"If-Match": headers["ETag"]}
    assert (await coop.ask("PUT", path, said=said, headers=first))[0] == 200
    status, told = await coop.ask("PUT", path, said=said, headers=first)
    assert (status, told["type"]) == (412, "/problems/changed-meanwhile")
    async with agent(coop, HOST) as socket:
        override = (await orders(socket)).tenants[SITE].override
        assert override is not None and override.caps == {"tasks": 200}
    assert (await coop.ask("DELETE", path, said={"reason": "over"}))[0] == 200
    assert not coop.controller.mirror.overrides
    entries = [e.what for e in coop.controller.mirror.audit.values() if e.subject == "huerto"]
    assert entries == ["override", "end override"]


async def test_caps_are_turned_on_where_it_is_said(coop: Served) -> None:
    """The most specific word wins, from its date; forgotten, the wider one holds; hosts are told by their orders."""
    path = "/v1/caps/enforcement"
    later = wall() + 86_400
    known = {"untried": True}
    words = (
        {"scope": "plan", "id": "solidarity", "word": "shadow", "reason": "not yet"},
        {"scope": "all", "word": "arm", "reason": "all", **known},
        {
            "scope": "plan",
            "id": "solidarity",
            "word": "arm",
            "since": later,
            "reason": "x",
            **known,
        },
        {"scope": "site", "id": "blog", "word": "shadow", "reason": "wait"},
    )
    for said in words:
        status, told = await coop.ask("PUT", path, said=said)
        assert status == 200, told
    told = await get(coop, path)
    assert (told["shadow"], told["waiting"], told["enforced"]) == (1, 1, 0)
    assert (await get(coop, "/v1/sites/huerto/caps"))["enforced_from"] == later
    async with agent(coop, HOST) as socket:
        assert (await orders(socket)).tenants[SITE].enforced_from == later
        forget = {"scope": "plan", "id": "solidarity", "word": None, "reason": "now", **known}
        assert (await coop.ask("PUT", path, said=forget))[0] == 200
        since = (await orders(socket)).tenants[SITE].enforced_from
        assert since is not None and since <= wall()
        counted = ("enforced", "at_edges", "unable", "shadow")
        said = await get(coop, path)
        assert [said[name] for name in counted] == [1, 1, 0, 1], "its host has said nothing"
        await tell(coop, socket)
        said = await get(coop, path)
        assert [said[name] for name in counted] == [1, 0, 0, 1]
        assert (await get(coop, "/v1/sites/huerto/caps"))["held_by"] == ["kernel", "edges"]
        await tell(coop, socket, sites={SITE: SiteUse(attachment=Attachment.LOG)})
        said = await get(coop, path)
        assert [said[name] for name in counted] == [1, 1, 0, 1]
        await coop.apply(FLEET.replace("[us1-web-01]}", "[us1-web-01], route: direct}"))
        said = await get(coop, path)
        assert [said[name] for name in counted] == [0, 0, 1, 1], "no slice, and no edge before it"
        assert (await get(coop, "/v1/sites/huerto/caps"))["held_by"] == []
        host = await get(coop, f"/v1/hosts/{HOST}/caps")
        assert (host["enforced"], host["unheld"], host["untold"]) == (1, ["huerto"], [])
    status, told = await coop.ask("PUT", path, said={**forget, "id": "nothing"})
    assert status == 404


async def test_a_large_host_tells_its_sites_at_once(coop: Served) -> None:
    """Two hundred kB of use from a host with sites are taken; the same from one without any end its link."""
    big = usage(
        sites={SITE: use(because={f"x{n}": Why("c", {"v": "x" * 180}) for n in range(999)})}
    )
    assert len(big) > 200_000
    async with agent(coop, HOST) as socket:
        count = coop.controller.uses.count
        await socket.send_bytes(big)
        await coop.until(lambda: coop.controller.uses.count > count)
    async with agent(coop, "mx1-edge-01") as socket:
        await socket.send_bytes(usage(host=HostId("mx1-edge-01")))
        await asyncio.sleep(0.1)
        assert not coop.controller.uses.hosts[HostId("mx1-edge-01")].sites
