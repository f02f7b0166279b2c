"""The API of a whole controller, over TLS on loopback: what it tells, what it does, what it refuses."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path
from typing import cast

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from controller.api.events import STREAMS_OF_ONE
from controller.api.server import Api, serve_api
from controller.config import Listen
from controller.events import KEPT
from fleet.messages import BEAT_LIMIT_BYTES, Ack, Beat, FromController, Load, Orders
from fleet.model import HostId, Incident
from runtime.config import BadConfig
from tests.integration.controllers import ADMINS, AGENTS, FLEET, Served, controller_served

pytestmark = pytest.mark.integration

Json = dict[str, object]
decoder: msgspec.json.Decoder[FromController] = msgspec.json.Decoder(FromController)
Socket = aiohttp.ClientWebSocketResponse[bool]
OBSERVE = {"scope": "all", "arming": "observe", "reason": "a test"}


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        yield controller


@pytest_asyncio.fixture
async def coop(served: Served) -> Served:
    await served.placed()
    controller = served.controller
    await served.until(
        lambda: controller.board.verdicts.keys() == controller.mirror.fleet.hosts.keys()
    )
    return served


def beat(host: str, sequence: int = 1) -> bytes:
    load = Load(
        cpu_ratio=0.25,
        load_1min=0.5,
        memory_total_bytes=1000,
        memory_available_bytes=750,
        swap_used_bytes=0,
        receive_bytes_per_s=0,
        transmit_bytes_per_s=0,
    )
    said = Beat(
        host=HostId(host),
        sequence=sequence,
        boot_id="b1",
        uptime_s=9.0,
        kernel="6.12",
        version="0.1.0",
        load=load,
    )
    return msgspec.json.encode(said)


def agent(
    served: Served, host: str, token: str | None = None
) -> AbstractAsyncContextManager[Socket]:
    bearer = {"Authorization": f"Bearer {AGENTS.get(host, '') if token is None else token}"}
    return served.session.ws_connect(f"{served.url}/v1/link/{host}", headers=bearer, max_msg_size=0)


async def heard(socket: Socket) -> FromController:
    async with asyncio.timeout(5):
        message = await socket.receive()
    assert message.type is aiohttp.WSMsgType.BINARY, message
    return decoder.decode(message.data)


# --- who is let in


OPEN_ROUTES = {
    "/healthz",
    "/readyz",
    "/v1/ca",  # a certificate is for everybody
    "/v1/link/{host}",  # a host's own token
    "/v1/join",  # a join token; tests/integration/test_access.py
}
HOSTS_OWN = ("PUT", "/v1/hosts/{id}/credential")


async def test_every_route_but_health_wants_an_admins_token(served: Served) -> None:
    """No token, a wrong one, an agent's, or half of a right one: 401 everywhere, soon 429, and nothing is done."""
    routes = {
        (route.method, route.resource.canonical)
        for route in Api(served.controller).app().router.routes()
        if route.resource is not None
        and route.resource.canonical not in OPEN_ROUTES
        and route.resource.canonical.startswith(("/v1", "/metrics"))  # the dashboard has sessions
    } - {HOSTS_OWN}
    assert len(routes) > 40
    for token in (None, "", "wrong", AGENTS["mx1-web-01"], ADMINS["ana"][:-1]):
        for method, canonical in sorted(routes):
            if method == "HEAD":
                continue
            path = re.sub(r"{\w+[^}]*}", "mx1-web-01", canonical)
            status, headers, body = await served.raw(method, path, token=token, said=OBSERVE)
            assert headers["Content-Type"] == "application/problem+json", path
            if status != 429:  # it failed too often, and is told nothing else
                assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), path
                assert b"not-admitted" in body
    assert not served.controller.mirror.audit
    assert (await served.raw("GET", "/healthz", token=None))[0] == 200
    assert (await served.raw("GET", "/readyz", token=None))[0] == 200


async def test_an_agent_is_let_in_by_its_own_token_only(served: Served) -> None:
    """A wrong token, another host's, an admin's or none is refused with 401, and counted by its reason."""
    for token in ("wrong", AGENTS["mx1-web-09"], ADMINS["ana"], ""):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with agent(served, "mx1-web-01", token):
                pass
        assert refused.value.status == 401
    with pytest.raises(aiohttp.WSServerHandshakeError):
        async with agent(served, "stranger", "wrong"):
            pass
    metrics = (await served.raw("GET", "/metrics"))[2].decode()
    assert 'relevo_link_refused_total{reason="wrong-token"} 3.0' in metrics
    assert 'relevo_link_refused_total{reason="foreign-token"} 1.0' in metrics
    assert 'relevo_link_refused_total{reason="unknown-host"} 1.0' in metrics


# --- the link


async def test_a_beat_is_acknowledged_and_orders_come(coop: Served) -> None:
    """An agent's first beat gives an acknowledgement, its orders, and a verdict that people can see."""
    async with agent(coop, "mx1-web-01") as socket:
        await socket.send_bytes(beat("mx1-web-01"))
        frames = [await heard(socket), await heard(socket)]
        assert Ack(sequence=1) in frames
        orders = next(frame for frame in frames if isinstance(frame, Orders))
        assert orders.sites == ("huerto",)
        await socket.send_str(beat("mx1-web-01", 2).decode())
        assert await heard(socket) == Ack(sequence=2)
        async with asyncio.timeout(5):
            while (host := (await coop.ask("GET", "/v1/hosts/mx1-web-01"))[1])["verdict"] != "up":
                await socket.send_bytes(beat("mx1-web-01", 3))
                await heard(socket)
        assert host["connected"] is True
        assert host["boot_id"] == "b1"
        assert cast(Json, host["load"])["cpu_ratio"] == 0.25
        assert cast(Json, host["agent"])["kernel"] == "6.12"
        assert cast(float, host["beat_age_s"]) < 5


async def test_a_host_that_is_not_declared_yet_is_heard(served: Served) -> None:
    """Its beats are acknowledged; its orders come once it is declared."""
    async with agent(served, "new-host") as socket:
        await socket.send_bytes(beat("new-host"))
        assert await heard(socket) == Ack(sequence=1)
        hosts = '  new-host: {tag: nogal, location: mx1, addresses: ["10.1.0.77"]}\n'
        await served.apply(FLEET.replace("hosts:\n", f"hosts:\n{hosts}", 1))
        orders = await heard(socket)
        assert isinstance(orders, Orders) and orders.host == "new-host"


@pytest.mark.parametrize(
    "frame",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"type": "beat"}',
        b'{"type": "beat", "host": "mx1-web-09"}',
        beat("mx1-web-01").replace(b'"sequence":1', b'"sequence":1' + b"0" * 400),
        b"x" * (BEAT_LIMIT_BYTES + 1),
    ],
    ids=["json", "utf-8", "list", "fields", "half", "overflow", "size"],
)
async def test_a_garbled_frame_ends_its_link_and_no_other(coop: Served, frame: bytes) -> None:
    """What is no beat, or too large, is counted and ends that link; others go on, and the agent may come again."""
    async with agent(coop, "mx1-edge-01") as other, agent(coop, "mx1-web-01") as socket:
        await socket.send_bytes(frame)
        async with asyncio.timeout(5):
            while (await socket.receive()).type not in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.ERROR,
            ):
                pass
        await other.send_bytes(beat("mx1-edge-01"))
        assert await heard(other)
        async with agent(coop, "mx1-web-01") as again:
            await again.send_bytes(beat("mx1-web-01"))
            assert await heard(again)
    metrics = (await coop.raw("GET", "/metrics"))[2].decode()
    assert 'relevo_link_refused_total{reason="malformed-frame"} 1.0' in metrics


async def test_a_flood_ends_its_link_and_no_other(coop: Served) -> None:
    """Frames without end, or one far above what a web host has to say, are counted and end that link alone."""
    large = beat("mx1-web-01").replace(b'"b1"', b'"' + b"b" * 900_000 + b'"')
    for frames in ([beat("mx1-web-01")] * 500, [large]):
        async with agent(coop, "mx1-edge-01") as other, agent(coop, "mx1-web-01") as socket:
            with suppress(aiohttp.ClientError):  # cut off while it still speaks
                for frame in frames:
                    await socket.send_bytes(frame)
            async with asyncio.timeout(5):
                while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
            await other.send_bytes(beat("mx1-edge-01"))
            assert await heard(other)
    metrics = (await coop.raw("GET", "/metrics"))[2].decode()
    assert 'relevo_link_refused_total{reason="flood"} 2.0' in metrics


async def test_a_host_can_not_speak_for_another(coop: Served) -> None:
    """A beat in another host's name ends the link, is counted, and says nothing of the other host."""
    async with agent(coop, "mx1-web-01") as socket:
        await socket.send_bytes(beat("mx1-web-09"))
        async with asyncio.timeout(5):
            while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
    assert "mx1-web-09" not in coop.controller.link.heard
    metrics = (await coop.raw("GET", "/metrics"))[2].decode()
    assert 'relevo_link_refused_total{reason="foreign-host"} 1.0' in metrics


async def test_a_newer_link_takes_the_place_of_an_older_one(coop: Served) -> None:
    """An agent that reconnects is served at once, also while its old link has not ended."""
    async with agent(coop, "mx1-web-01") as old, agent(coop, "mx1-web-01") as new:
        await new.send_bytes(beat("mx1-web-01"))
        assert await heard(new)
        async with asyncio.timeout(5):
            while (await old.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
        assert coop.controller.link.connected == {"mx1-web-01"}


async def test_pings_are_answered(coop: Served) -> None:
    """A proxy that pings keeps its link."""
    async with agent(coop, "mx1-web-01") as socket:
        await socket.ping(b"hello")
        await socket.send_bytes(beat("mx1-web-01"))
        assert await heard(socket)


# --- the fleet


async def test_a_fleet_goes_in_and_comes_out_again(served: Served) -> None:
    """What is applied can be read, applied again without a change, and carries its revision as ETag."""
    told = await served.apply()
    assert told["summary"] == (
        "locations: 2 added; hosts: 4 added; plans: 1 added; members: 1 added; sites: 2 added"
    )
    lines = [change["said"] for change in cast(list[Json], told["changes"])]
    assert "+ host mx1-web-01" in lines
    status, headers, text = await served.raw("GET", "/v1/fleet")
    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "application/yaml")
    assert headers["ETag"] == f'"{told["revision"]}"'
    again = await served.apply(text.decode())
    assert (again["changes"], again["revision"]) == ([], told["revision"])


async def test_an_outdated_fleet_is_refused(coop: Served) -> None:
    """If-Match with the ETag of an older fleet changes nothing and says which revision there is now."""
    _, headers, _ = await coop.raw("GET", "/v1/fleet")
    changed = FLEET.replace("tag: rosa", "tag: rosal").encode()
    condition = {"If-Match": headers["ETag"]}
    assert (await coop.raw("PUT", "/v1/fleet", body=changed, headers=condition))[0] == 200
    status, told = await coop.ask("PUT", "/v1/fleet", body=FLEET.encode(), headers=condition)
    assert (status, told["type"]) == (412, "/problems/fleet-changed")
    assert "Compare again" in cast(str, told["detail"])
    status, told = await coop.ask("PUT", "/v1/fleet", body=b"", headers={"If-Match": "yesterday"})
    assert (status, told["field"]) == (400, "If-Match")


async def test_all_problems_of_a_fleet_file_are_told_at_once(coop: Served) -> None:
    """Each with its file, line, field, value, message and remedy; and nothing of the file is applied."""
    bad = FLEET.replace("home: mx1-web-09", "home: mx1-web-08").replace("MX", "mx")
    before = coop.controller.mirror.fleet_revision
    status, told = await coop.ask("PUT", "/v1/fleet?file=coop.yaml", body=bad.encode())
    assert (status, told["type"]) == (422, "/problems/bad-fleet")
    problems = cast(list[Json], told["problems"])
    assert [(p["line"], p["field"]) for p in problems] == [
        (2, "locations.mx1.country"),
        (24, "sites.blog.home"),
    ] or len(problems) >= 2
    home = next(p for p in problems if p["field"] == "sites.blog.home")
    assert home["file"] == "coop.yaml"
    assert home["value"] == "mx1-web-08"
    assert "mx1-web-09" in cast(str, home["remedy"])
    assert coop.controller.mirror.fleet_revision == before


@pytest.mark.parametrize("body", [b"", b"\xff", b"- 1", b"{", b"version: 1\nhosts: {x: {y: z}}"])
async def test_no_fleet_file_at_all_is_a_problem_and_no_crash(served: Served, body: bytes) -> None:
    """Empty, not text, not a mapping, cut short, nonsense: 422 with at least one problem."""
    status, told = await served.ask("PUT", "/v1/fleet", body=body)
    assert status == 422
    assert told["problems"]


async def test_a_file_that_was_cut_short_removes_nothing(coop: Served) -> None:
    """Many removals at once are refused, unless the order says that it knows."""
    extra = "".join(
        f"  s{n}: {{member: huerto, plan: solidarity, domains: [s{n}.example.org], home: mx1-web-01}}\n"
        for n in range(30)
    )
    await coop.apply(FLEET + extra)
    status, told = await coop.ask("PUT", "/v1/fleet", body=FLEET.encode())
    assert (status, told["type"]) == (409, "/problems/fleet-removes")
    status, told = await coop.ask("PUT", "/v1/fleet?remove=1", body=FLEET.encode())
    assert (status, told["type"]) == (409, "/problems/fleet-too-many-removed")
    assert "30 of 32 sites" in cast(str, told["detail"])
    assert (await coop.ask("PUT", "/v1/fleet?remove=1&much=1", body=FLEET.encode()))[0] == 200
    assert len(coop.controller.mirror.fleet.sites) == 2


# --- what it tells


async def test_status_tells_the_whole_in_one_answer(coop: Served) -> None:
    """Who leads, what is armed, what the brake has spent, how hosts and sites are."""
    status, told = await coop.ask("GET", "/v1/status")
    assert status == 200
    assert told["controller"] == "c1"
    assert told["leader"] is True and told["ready"] is True
    assert told["arming"] == "observe"
    assert told["budget"] == {"spent": 0, "allowed": 3}
    assert told["hosts"] == {"unknown": 4}
    assert told["sites"] == {"total": 2, "away": 0, "held": 0}
    assert told["cluster"] == coop.controller.mirror.id.cluster


async def test_hosts_and_sites_are_told_with_their_reasons(coop: Served) -> None:
    """Each verdict and each place carries its reason as a code and as a sentence."""
    _, told = await coop.ask("GET", "/v1/hosts")
    hosts = {cast(str, host["id"]): host for host in cast(list[Json], told["hosts"])}
    assert hosts.keys() == coop.controller.mirror.fleet.hosts.keys()
    clara = hosts["mx1-web-01"]
    assert clara["why"] == {
        "code": "not-heard-yet",
        "values": {},
        "text": "Nothing has been heard of it yet.",
    }
    assert (clara["sites_home"], clara["sites_here"]) == (1, 1)
    _, told = await coop.ask("GET", "/v1/sites/blog")
    assert (told["host"], told["home"]) == ("mx1-web-09", "mx1-web-09")
    assert cast(Json, told["why"])["text"] == "At home."
    assert (told["mode"], told["route"], told["armed"]) == ("automatic", "direct", False)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", ["blog", "huerto"]),
        ("?host=mx1-web-09", ["blog"]),
        ("?member=huerto", ["blog", "huerto"]),
        ("?member=nobody", []),
        ("?q=BLOG.example", ["blog"]),
        ("?q=huerto&host=mx1-web-01", ["huerto"]),
    ],
)
async def test_sites_can_be_looked_for(coop: Served, query: str, found: list[str]) -> None:
    """By host, by member, by a part of their id or of a domain."""
    _, told = await coop.ask("GET", f"/v1/sites{query}")
    assert [site["id"] for site in cast(list[Json], told["sites"])] == found


@pytest.mark.parametrize(
    ("path", "headers", "text"),
    [
        ("?lang=es", {}, "Aún no se ha sabido nada de él."),
        ("", {"Accept-Language": "es-MX,es;q=0.9,en;q=0.5"}, "Aún no se ha sabido nada de él."),
        ("", {"Accept-Language": "fr, en;q=0.8, es;q=0.2"}, "Nothing has been heard of it yet."),
        ("?lang=en", {"Accept-Language": "es"}, "Nothing has been heard of it yet."),
        ("", {"Accept-Language": ";;q=,q=x;es;q=nan"}, "Nothing has been heard of it yet."),
    ],
)
async def test_reasons_are_told_in_the_language_asked_for(
    coop: Served, path: str, headers: dict[str, str], text: str
) -> None:
    """By Accept-Language with its weights, or by ?lang; nonsense there is English."""
    _, _, body = await coop.raw("GET", f"/v1/hosts/mx1-web-01{path}", headers=headers)
    assert msgspec.json.decode(body)["why"]["text"] == text


async def test_metrics_are_those_of_the_catalogue(coop: Served) -> None:
    """Gauges of fleet and failover are as of now, when Prometheus asks."""
    _, headers, body = await coop.raw("GET", "/metrics")
    text = body.decode()
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert 'relevo_hosts{verdict="unknown"} 4.0' in text
    assert 'relevo_host_verdict{host="mx1-web-01",verdict="unknown"} 1.0' in text
    assert 'relevo_sites{place="home"} 2.0' in text
    assert "relevo_budget_causes_allowed 3.0" in text
    assert 'relevo_api_requests_total{status="2xx"}' in text


# --- what it does


async def test_what_people_order_becomes_true_and_is_audited(coop: Served) -> None:
    """Arm, pause, resume, drain, activate: each is to be read back at once, with who and why."""
    status, told = await coop.ask(
        "PUT",
        "/v1/failover/arming",
        said={"scope": "site", "id": "blog", "arming": "arm", "reason": "it is ready"},
    )
    assert status == 200
    assert cast(int, told["revision"]) <= coop.controller.mirror.revision
    assert (await coop.ask("GET", "/v1/sites/blog"))[1]["armed"] is True
    forget: Json = {"scope": "site", "id": "blog", "arming": None, "reason": "not yet"}
    assert (await coop.ask("PUT", "/v1/failover/arming", said=forget))[0] == 200
    assert (await coop.ask("GET", "/v1/sites/blog"))[1]["armed"] is False

    pause = {"reason": "network work", "for_s": 600}
    assert (await coop.ask("POST", "/v1/failover/pause", said=pause))[0] == 200
    _, failover = await coop.ask("GET", "/v1/failover")
    note = cast(Json, failover["paused"])
    assert (note["owner"], note["reason"]) == ("ana", "network work")
    resume = {"reason": "done"}
    beto = ADMINS["beto"]
    assert (await coop.ask("DELETE", "/v1/failover/pause", said=resume, token=beto))[0] == 200
    assert (await coop.ask("GET", "/v1/failover"))[1]["paused"] is None

    drain = {"reason": "new kernel", "for_s": 3600}
    assert (await coop.ask("PUT", "/v1/hosts/us1-web-01/drain", said=drain))[0] == 200
    _, host = await coop.ask("GET", "/v1/hosts/us1-web-01")
    assert cast(Json, host["draining"])["reason"] == "new kernel"
    activate = {"reason": "it is well"}
    assert (await coop.ask("POST", "/v1/hosts/us1-web-01/activate", said=activate))[0] == 200
    assert (await coop.ask("GET", "/v1/hosts/us1-web-01"))[1]["draining"] is None
    entries = sorted(coop.controller.mirror.audit.values(), key=lambda entry: entry.at)
    assert [(entry.who, entry.what) for entry in entries[1:]] == [
        ("ana", "arm site blog"),
        ("ana", "inherit site blog"),
        ("ana", "pause"),
        ("beto", "resume"),
        ("ana", "drain"),
        ("ana", "activate"),
    ]


async def test_a_person_moves_a_site_and_sees_its_incident(coop: Served) -> None:
    """A gated site wants a word on its old host, a target that is not up another one; then it moves."""
    order: Json = {"to": "us1-web-01", "reason": "a test"}
    status, told = await coop.ask("POST", "/v1/sites/huerto/move", said=order)
    assert (status, told["type"]) == (409, "/problems/gated-not-fenced")
    assert "known to write no more" in cast(str, told["detail"])
    order |= {"old_host_stopped": True}
    status, told = await coop.ask("POST", "/v1/sites/huerto/move?lang=es", said=order)
    assert (status, told["detail"]) == (409, "us1-web-01 no está en marcha: desconocido.")
    status, told = await coop.ask("POST", "/v1/sites/huerto/move", said=order | {"anyway": True})
    assert status == 200
    assert told["moved"] == [{"site": "huerto", "source": "mx1-web-01", "target": "us1-web-01"}]
    _, site = await coop.ask("GET", "/v1/sites/huerto")
    assert site["host"] == "us1-web-01"
    assert cast(Json, site["why"])["text"] == "Moved by ana: a test"
    _, told = await coop.ask("GET", "/v1/incidents?open=1")
    incident = cast(list[Json], told["incidents"])[0]
    assert incident["id"] == cast(list[str], site["incidents"])[0]
    _, one = await coop.ask("GET", f"/v1/incidents/{incident['id']}")
    timeline = cast(list[Json], one["timeline"])
    assert cast(Json, timeline[0]["why"])["text"] == "Moved by ana: a test"
    assert msgspec.convert(one, Incident).verdict == "move"


# --- what it refuses


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("GET", "/v1/nothing", b"", 404, "no-such-path"),
        ("GET", "/nothing", b"", 404, "no-such-path"),
        ("POST", "/v1/status", b"", 405, "method-not-allowed"),
        ("GET", "/v1/hosts/nobody", b"", 404, "not-found"),
        ("GET", "/v1/sites/nobody", b"", 404, "not-found"),
        ("GET", "/v1/incidents/none", b"", 404, "not-found"),
        ("GET", "/v1/incidents?limit=0", b"", 400, "bad-request"),
        ("GET", "/v1/incidents?limit=%C2%B2", b"", 400, "bad-request"),
        ("PUT", "/v1/hosts/nobody/drain", b'{"reason":"x","for_s":1}', 404, "not-found"),
        ("PUT", "/v1/hosts/mx1-web-01/drain", b"", 400, "malformed-json"),
        ("PUT", "/v1/hosts/mx1-web-01/drain", b"{", 400, "malformed-json"),
        ("PUT", "/v1/hosts/mx1-web-01/drain", b"\xff", 400, "malformed-json"),
        ("PUT", "/v1/hosts/mx1-web-01/drain", b"[]", 422, "invalid-body"),
        ("PUT", "/v1/hosts/mx1-web-01/drain", b'{"reason":"x"}', 422, "invalid-body"),
        ("PUT", "/v1/hosts/mx1-web-01/drain", b'{"reason":" ","for_s":1}', 422, "invalid-body"),
        ("PUT", "/v1/hosts/mx1-web-01/drain", b'{"reason":"x","for_s":0}', 422, "invalid-body"),
        ("PUT", "/v1/hosts/mx1-web-01/drain", b'{"reason":"x","for_s":1e9}', 422, "invalid-body"),
        (
            "PUT",
            "/v1/hosts/mx1-web-01/drain",
            b'{"reason":"x","for_s":1,"a":1}',
            422,
            "invalid-body",
        ),
        ("POST", "/v1/sites/blog/move", b'{"to":"a b","reason":"x"}', 422, "invalid-body"),
        ("POST", "/v1/sites/blog/move", b'{"to":"nobody","reason":"x"}', 404, "not-found"),
        (
            "PUT",
            "/v1/failover/arming",
            b'{"scope":"host","arming":"arm","reason":"x"}',
            422,
            "invalid-body",
        ),
        (
            "PUT",
            "/v1/failover/arming",
            b'{"scope":"site","id":"nobody","arming":"arm","reason":"x"}',
            404,
            "not-found",
        ),
        ("POST", "/v1/failover/pause", b"x" * 70_000, 413, "too-large"),
        ("PUT", "/v1/fleet", b"x" * ((16 << 20) + 1), 413, "too-large"),
    ],
)
async def test_what_can_not_be_done_is_a_problem_that_says_why(
    coop: Served, method: str, path: str, body: bytes, status: int, slug: str
) -> None:
    """Unknown paths, ids and methods, malformed, oversized and nonsensical bodies; and nothing is committed."""
    before = len(coop.controller.mirror.audit)
    got, headers, answer = await coop.raw(method, path, body=body or None)
    told = msgspec.json.decode(answer)
    assert (got, told["type"]) == (status, f"/problems/{slug}"), told
    assert headers["Content-Type"] == "application/problem+json"
    assert told["status"] == status and told["title"] and told["detail"]
    assert len(coop.controller.mirror.audit) == before


async def test_a_body_without_a_length_is_bounded_too(coop: Served) -> None:
    """A body in chunks without an end is cut off at the limit."""

    async def endless() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x" * 60_000

    async with coop.session.post(
        f"{coop.url}/v1/failover/pause",
        data=endless(),
        headers={"Authorization": f"Bearer {ADMINS['ana']}"},
    ) as response:
        assert response.status == 413


async def test_a_controller_that_does_not_lead_says_so(coop: Served) -> None:
    """An order is refused with 503, so that the client asks another controller."""
    leader = coop.controller.leader
    led, leader.leadership = leader.leadership, None
    try:
        status, told = await coop.ask("PUT", "/v1/failover/arming", said=OBSERVE)
    finally:
        leader.leadership = led
    assert (status, told["type"]) == (503, "/problems/not-leading")


# --- events


async def events(
    coop: Served, count: int, *, query: str = "", last: str = ""
) -> list[dict[str, str]]:
    """The next `count` events of a stream, each as its fields."""
    headers = {"Authorization": f"Bearer {ADMINS['ana']}"} | (
        {"Last-Event-ID": last} if last else {}
    )
    found: list[dict[str, str]] = []
    async with (
        asyncio.timeout(5),
        coop.session.get(f"{coop.url}/v1/events{query}", headers=headers) as response,
    ):
        assert response.headers["Content-Type"] == "text/event-stream"
        fields: dict[str, str] = {}
        while len(found) < count:
            line = (await response.content.readline()).decode().rstrip("\n")
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            else:
                found += [fields] if "event" in fields else []
                fields = {}
    return found


async def test_events_come_as_they_happen(coop: Served) -> None:
    """A stream without history begins now; an order is told with who and why."""
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(events(coop, 1))
        await coop.until(lambda: b"relevo_api_streams 1.0" in coop.controller.exporter.render())
        await coop.ask("PUT", "/v1/failover/arming", said=OBSERVE)
    event = reader.result()[0]
    assert event["event"] == "audit"
    assert msgspec.json.decode(event["data"])["reason"] == "a test"


async def test_a_reader_that_comes_again_misses_nothing(coop: Served) -> None:
    """Last-Event-ID goes on after that event; reasons in events are sentences."""
    everything = await events(coop, 5, query="?history=1")
    rest = await events(coop, 3, last=everything[1]["id"])
    assert rest == everything[2:5]
    verdict = next(event for event in everything if event["event"] == "verdict")
    assert (
        msgspec.json.decode(verdict["data"])["why"]["text"] == "Nothing has been heard of it yet."
    )


@pytest.mark.parametrize("last", ["deadbeef.3", "nonsense", "17"])
async def test_a_reader_of_an_earlier_process_is_told_to_read_again(
    coop: Served, last: str
) -> None:
    """An id that this process never gave: `reset`, then everything that is remembered."""
    found = await events(coop, 2, last=last)
    assert (found[0]["event"], found[0]["data"]) == ("reset", '{"why":"restarted"}')
    assert found[1]["event"] == "leader"


async def test_a_reader_of_what_has_not_happened_is_told_to_read_again(coop: Served) -> None:
    """An id of this process that it never gave, as after a step back in time."""
    first = (await events(coop, 1, query="?history=1"))[0]["id"]
    found = await events(coop, 2, last=first.partition(".")[0] + ".999999")
    assert (found[0]["event"], found[0]["data"]) == ("reset", '{"why":"restarted"}')
    assert found[1]["id"] == first


async def test_remembered_events_come_as_one_answer_too(coop: Served) -> None:
    """Who accepts JSON gets what is remembered, and no stream."""
    status, _, body = await coop.raw("GET", "/v1/events", headers={"Accept": "application/json"})
    told = msgspec.json.decode(body)
    assert status == 200
    assert told["last"] == told["events"][-1]["id"]


async def test_a_reader_that_leaves_is_forgotten(coop: Served) -> None:
    """A closed stream is not counted any more once there was something to tell it."""
    await events(coop, 1, query="?history=1")
    await coop.ask("PUT", "/v1/failover/arming", said=OBSERVE)
    await coop.until(lambda: b"relevo_api_streams 0.0" in coop.controller.exporter.render())


async def test_a_token_has_so_many_streams_and_others_have_theirs(coop: Served) -> None:
    """The eleventh of one token is refused for now; another token's is served."""
    headers = {"Authorization": f"Bearer {ADMINS['ana']}"}
    async with AsyncExitStack() as stack:
        for _ in range(STREAMS_OF_ONE):
            one = coop.session.get(f"{coop.url}/v1/events", headers=headers)
            assert (await stack.enter_async_context(one)).status == 200
        status, told, _ = await coop.raw("GET", "/v1/events")
        assert (status, told["Retry-After"]) == (429, "10")
        beto = {"Authorization": f"Bearer {ADMINS['beto']}"}
        one = coop.session.get(f"{coop.url}/v1/events", headers=beto)
        assert (await stack.enter_async_context(one)).status == 200


async def test_a_reader_whom_too_much_has_overrun_is_told_to_read_again(coop: Served) -> None:
    """What it missed is forgotten: `reset`, then what is remembered, without a gap from there."""
    last = (await events(coop, 1, query="?history=1"))[0]["id"]
    for n in range(KEPT + 10):
        coop.controller.events.publish("filler", n=n)
    found = await events(coop, 3, last=last)
    assert (found[0]["event"], found[0]["data"]) == ("reset", '{"why":"overrun"}')
    assert [msgspec.json.decode(event["data"])["n"] for event in found[1:]] == [10, 11]
    assert await events(coop, 2, last=found[0]["id"]) == found[1:]
    gone_on = await events(coop, 1, last=found[1]["id"])
    assert gone_on == found[2:]


# --- the listener


async def test_a_certificate_that_can_not_be_read_is_said_with_its_path(
    served: Served, tmp_path: Path
) -> None:
    """A missing file, or one that is no certificate, ends the start with a message that names it."""
    api, nothing, key = Api(served.controller), tmp_path / "nothing.pem", tmp_path / "no.key"
    key.write_text("no key")
    for certificate in (nothing, key):
        listen = Listen(port=0, certificate=certificate, key=key)
        with pytest.raises(BadConfig, match=certificate.name):
            await serve_api(api, listen)


async def test_a_port_in_use_is_said_with_its_number(served: Served) -> None:
    """Two controllers on one port: the second one says which port it is."""
    port = int(served.url.rpartition(":")[2])
    with pytest.raises(BadConfig, match=f"port {port}"):
        await serve_api(Api(served.controller), Listen(port=port))


async def test_only_todays_tls_is_spoken(served: Served) -> None:
    """Plain HTTP on the TLS port gives no answer."""
    with pytest.raises(aiohttp.ClientError):
        async with served.session.get(served.url.replace("https", "http") + "/healthz"):
            pass
