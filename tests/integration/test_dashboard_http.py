"""The dashboard over HTTP: who is let in, what each answer carries, which forms are believed, what the stream says."""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from controller.api.pace import LOOKING, Pace
from controller.api.server import Api, listening
from controller.config import Config, Listen
from controller.dns import Zones
from controller.parts import Controller
from controller.store import EmbeddedStore
from deploy.demo.certificates import Authority
from fleet.model import ControllerId, HostId, SiteId
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.integration.controllers import (
    ADMINS,
    Blind,
    Nowhere,
    Served,
    controller_served,
    digests,
    served_over,
)

pytestmark = pytest.mark.integration

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
READ = (
    "/",
    "/hosts/mx1-web-01",
    "/sites",
    "/sites/blog",
    "/sites/blog/past",
    "/incidents",
    "/holds",
    "/failover",
    "/log",
)
ORDERS = (
    "/failover/arming?scope=all",
    "/failover/pause",
    "/failover/resume",
    "/hosts/mx1-web-01/drain",
    "/hosts/mx1-web-01/activate",
    "/hosts/mx1-web-01/reconsider",
    "/sites/blog/move",
)


@dataclass(frozen=True, slots=True)
class Visit:
    """A browser's cookies, by hand: what is sent is what a test says."""

    served: Served
    cookie: str = ""

    async def ask(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], str]:
        sent = {"Cookie": self.cookie, **(headers or {})}
        method = "GET" if form is None else "POST"
        async with self.served.session.request(
            method, f"{self.served.url}/ui{path}", data=form, headers=sent, allow_redirects=False
        ) as answer:
            return answer.status, answer.headers, await answer.text()

    async def proof(self) -> str:
        found = re.search(r'name="proof" value="([^"]+)"', (await self.ask("/log"))[2])
        assert found
        return found[1]

    async def order(
        self,
        path: str,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        said = {"proof": await self.proof(), "reason": "a test", **(form or {})}
        status, _, page = await self.ask(path, said, headers)
        return status, page


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        await controller.placed()
        yield controller


async def enter(served: Served, token: str = ADMINS["ana"]) -> Visit:
    status, headers, page = await Visit(served).ask("/login", {"token": token, "to": "/ui/sites"})
    assert status == 303, page
    assert headers["Location"] == "/ui/sites"
    cookie = headers["Set-Cookie"]
    assert cookie.startswith("__Host-relevo=")
    assert {"HttpOnly", "Secure", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    return Visit(served, cookie.partition(";")[0])


async def token_of(served: Served, role: str, **more: str) -> str:
    """A new token with `role`, as an admin makes it."""
    said = {"name": f"a-{role}", "role": role, "reason": "a test", "for_s": 3600, **more}
    status, told = await served.ask("POST", "/v1/tokens", said=said)
    assert status in (200, 201), told
    return str(told["token"])


async def test_nothing_is_shown_or_done_without_a_session(served: Served) -> None:
    """Every page leads to the door, every order too, and a bearer's token or a made-up cookie opens nothing."""
    stranger = Visit(served)
    for path in (*READ, *ORDERS):
        for form in (None, {"reason": "a test"}):
            for sent in ({}, {"Cookie": "__Host-relevo=made-up"}):
                status, headers, page = await stranger.ask(path, form, sent)
                assert (status, page) == (303, ""), path
                assert headers["Location"].startswith("/ui/login?to=%2Fui%2F")
    status, _, _ = await stranger.ask("/live")
    assert status == 401
    for way_in in ("/", "/ui"):
        status, headers, _ = await served.raw("GET", way_in, token=None)
        assert status == 200, "followed to the door"


async def test_every_answer_forbids_what_it_does_not_need(served: Served) -> None:
    """Pages, the door, redirects, troubles and files: no frames, no guessing of types, nothing from elsewhere."""
    ana = await enter(served)
    for path in (*READ, *ORDERS, "/login", "/hosts/none", "/language?to=es", "/static/live.js"):
        status, headers, page = await ana.ask(path)
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "style=" not in page
        assert re.search(r"\son\w+=", page) is None
        if status == 200 and not path.startswith("/static"):
            assert headers["Cache-Control"] == "no-store"
            assert headers["Content-Language"] == "en"


@pytest.mark.parametrize("path", ORDERS)
async def test_a_form_from_elsewhere_is_not_believed(served: Served, path: str) -> None:
    """Another site's page has the cookie at best: no proof, or its own origin, and nothing is done."""
    ana = await enter(served)
    before = served.controller.mirror.revision
    form = {"word": "arm", "for_s": "7200", "to": "mx1-web-01"}
    for proof in ("", "made-up", "\udcff"):
        status, page = await ana.order(
            path, {**form, "proof": proof.encode("utf-8", "replace").decode()}
        )
        assert status == 403, page
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert (await ana.order(path, form, headers))[0] == 403
    assert served.controller.mirror.revision == before
    assert not served.controller.mirror.switches.paused


async def test_an_order_needs_a_reason_and_known_answers(served: Served) -> None:
    """No reason, a reason too long, an answer that was not offered: refused, with what was typed still there."""
    ana = await enter(served)
    for form, says in (
        ({"reason": " \n "}, "Say why"),
        ({"reason": "x" * 501}, "500 characters at most"),
        ({"for_s": "99999999"}, "Choose for how long"),
        ({"for_s": ""}, "Choose for how long"),
    ):
        status, page = await ana.order("/failover/pause", form)
        assert (status, says in page) == (422, True)
    status, page = await ana.order("/sites/blog/move", {"to": "nowhere", "reason": "<i>typed</i>"})
    assert status == 422
    assert "&lt;i&gt;typed&lt;/i&gt;" in page
    status, page = await ana.order("/sites/blog/move", {"to": "mx1-web-01"})
    assert status == 409, "it is not up, and nobody said that it may be moved anyway"
    assert "mx1-web-01 is unknown, not up." in page
    status, page = await ana.order("/sites/blog/move", {"to": "mx1-web-01", "anyway": "yes"})
    assert status == 303
    assert served.controller.mirror.places[SiteId("blog")].host == "mx1-web-01"
    entry = served.controller.mirror.audit[max(served.controller.mirror.audit)]
    assert (entry.who, entry.what, entry.reason) == ("ana", "move", "a test")


async def test_every_order_does_what_its_page_says(served: Served) -> None:
    """Arm, pause, resume, drain, activate, quarantine, release: each is in the store when the answer comes."""
    ana, mirror = await enter(served), served.controller.mirror
    host = HostId("mx1-web-01")
    assert (await ana.order("/failover/arming?scope=host&id=mx1-web-01", {"word": "arm"}))[0] == 303
    assert mirror.switches.hosts[host].value == "arm"
    assert (await ana.order("/failover/arming?scope=host&id=mx1-web-01", {"word": "inherit"}))[
        0
    ] == 303
    assert not mirror.switches.hosts
    assert (await ana.order("/failover/pause", {"for_s": "7200"}))[0] == 303
    assert served.controller.mirror.switches.paused
    assert (await ana.order("/failover/resume"))[0] == 303
    assert not served.controller.mirror.switches.paused
    assert (await ana.order("/hosts/mx1-web-01/drain", {"for_s": "7200"}))[0] == 303
    assert mirror.drains[host].owner == "ana"
    assert (await ana.order("/hosts/mx1-web-01/activate"))[0] == 303
    assert not mirror.drains
    held = {"level": "stop", "nature": "hacked", "for_s": "7200"}
    assert (await ana.order("/sites/blog/quarantine", held))[0] == 303
    assert mirror.rulings[SiteId("blog")].level.name == "STOP"
    assert (await ana.order("/sites/blog/quarantine", {**held, "level": "watch"}))[0] == 422
    assert (await ana.order("/sites/blog/release", {"for_s": "7200"}))[0] == 303
    assert mirror.rulings[SiteId("blog")].word == "release"
    assert (await ana.order("/sites/blog/reconsider"))[0] == 303
    assert not mirror.rulings
    assert (await ana.order("/sites/blog/reconsider"))[0] == 404
    assert (await ana.order("/sites/none/release", {"for_s": "7200"}))[0] == 404
    for path in ("/failover/arming?scope=host&id=none", "/failover/arming", "/hosts/none/drain"):
        assert (await ana.order(path, {"word": "arm"}))[0] == 404


async def test_roles_are_kept(served: Served) -> None:
    """A viewer reads and orders nothing, an operator orders, a member and a host stay outside."""
    viewer = await enter(served, await token_of(served, "viewer"))
    assert (await viewer.ask("/"))[0] == 200
    status, page = await viewer.order("/failover/pause", {"for_s": "7200"})
    assert (status, "may look, not order" in page) == (403, True)
    assert served.controller.mirror.switches.paused is None
    operator = await enter(served, await token_of(served, "operator"))
    assert (await operator.order("/failover/pause", {"for_s": "7200"}))[0] == 303
    member = await token_of(served, "member", member="huerto")
    for token, says in ((member, "opens the members"), ("clara", "credential"), ("x", "not know")):
        status, _, page = await Visit(served).ask("/login", {"token": token})
        assert (status, says in page) == (401, True)


async def test_a_revoked_token_ends_its_session(served: Served) -> None:
    """Whoever was let in is out at the next page."""
    viewer = await enter(served, await token_of(served, "viewer"))
    assert (await viewer.ask("/"))[0] == 200
    status, told = await served.ask("DELETE", "/v1/tokens/a-viewer", said={"reason": "lost"})
    assert status in (200, 204), told
    assert (await viewer.ask("/"))[0] == 303


async def test_nobody_is_sent_elsewhere(served: Served) -> None:
    """What a link asks to be sent to after the door, or after choosing a language, is a page of ours."""
    for evil in (
        "https://evil.example/",
        "//evil.example/ui/",
        "/\\evil.example",
        "/ui/\r\nX: y",
        "/v1/status",
    ):
        token = {"token": ADMINS["ana"], "to": evil}
        _, headers, _ = await Visit(served).ask("/login", token)
        assert headers["Location"] == "/ui/"
        async with served.session.get(
            f"{served.url}/ui/language", params={"to": "es", "back": evil}, allow_redirects=False
        ) as answer:
            assert answer.headers["Location"] == "/ui/"


async def test_odd_requests_are_told_off_in_html(served: Served) -> None:
    """Wrong methods, wrong bodies, pages that are not: an answer of the dashboard's own, never a trace."""
    ana = await enter(served)
    status, _, page = await ana.ask("/nothing")
    assert (status, "There is no such thing here" in page) == (404, True)
    status, _, page = await ana.ask("/holds/none")
    assert (status, "This hold is over" in page) == (404, True)
    status, _, _ = await ana.ask("/sites", {"a": "b"})
    assert status == 405
    status, _, _ = await ana.ask("/failover/pause", {}, {"Content-Type": "application/json"})
    assert status == 415
    status, _, _ = await ana.ask("/static/../look.py")
    assert status in (303, 404)
    async with served.session.post(
        f"{served.url}/ui/login", data=BytesIO(b"token=" + b"x" * 3_000_000), headers=FORM
    ) as answer:
        assert answer.status == 413
    async with served.session.post(
        f"{served.url}/ui/login", data=BytesIO(b"token=%ff%fe"), headers=FORM
    ) as answer:
        assert answer.status in (400, 401)


async def test_files_are_kept_by_their_version(served: Served) -> None:
    """A file's address carries what it is: a browser keeps it for good, and sees a new one at once."""
    _, _, page = await Visit(served).ask("/login")
    found = re.search(r"/static/style\.css\?v=\w+", page)
    assert found
    status, headers, _ = await Visit(served).ask(found[0])
    assert (status, "max-age=31536000" in headers["Cache-Control"]) == (200, True)
    _, headers, _ = await Visit(served).ask("/static/style.css?v=old")
    assert "max-age=60" in headers["Cache-Control"]


async def test_the_stream_says_when_there_is_something_new(served: Served) -> None:
    """At once what is, then a new digest for a change, and in between that we are still here."""
    ana = await enter(served)
    async with (
        served.session.get(f"{served.url}/ui/live", headers={"Cookie": ana.cookie}) as stream,
        asyncio.timeout(15),
    ):
        assert stream.headers["Content-Type"].startswith("text/event-stream")

        async def event() -> tuple[str, str]:
            lines = [(await stream.content.readline()).decode().strip() for _ in range(3)]
            return lines[0].removeprefix("event: "), lines[1].removeprefix("data:").strip()

        kind, first = await event()
        assert kind == "look"
        assert f'data-digest="{first}"' in (await ana.ask("/"))[2]
        assert (await ana.order("/failover/pause", {"for_s": "7200"}))[0] == 303
        kind, second = await event()
        assert (kind, second != first) == ("look", True)
        while kind == "look":  # the pause is followed by what the leader writes of it
            kind, _ = await event()
        assert kind == "alive"


async def test_holds_are_answered_by_the_api_too(served: Served) -> None:
    """What the dashboard orders, a program can: approve with targets, refuse for a while, take that back."""
    host, mirror = "/v1/hosts/mx1-web-01", served.controller.mirror
    refusal = {"reason": "back in a minute", "for_s": 600}
    assert (await served.ask("PUT", f"{host}/refusal", said=refusal))[0] == 200
    assert mirror.refusals[HostId("mx1-web-01")].owner == "ana"
    taken_back = {"reason": "it is not"}
    for _ in range(2):
        assert (await served.ask("DELETE", f"{host}/refusal", said=taken_back))[0] == 200
        assert not served.controller.mirror.refusals
    approval: dict[str, object] = {
        "targets": {"huerto": "us1-web-01"},
        "reason": "its disk is gone",
    }
    status, told = await served.ask("POST", f"{host}/approval", said=approval)
    assert (status, told["type"]) == (409, "/problems/gated-not-fenced")
    approval |= {"old_host_stopped": True, "anyway": True}
    status, told = await served.ask("POST", f"{host}/approval", said=approval)
    assert (status, told["moved"]) == (
        200,
        [{"site": "huerto", "source": "mx1-web-01", "target": "us1-web-01"}],
    )
    status, told = await served.ask("POST", f"{host}/approval", said=approval)
    assert (status, told["type"]) == (409, "/problems/changed-meanwhile"), "it is there no more"
    for path in ("/v1/hosts/none/approval", "/v1/hosts/none/refusal"):
        method = "POST" if path.endswith("approval") else "DELETE"
        said = approval if method == "POST" else taken_back
        assert (await served.ask(method, path, said=said))[0] == 404


@asynccontextmanager
async def follower(
    store: EmbeddedStore, leader: Served, home: Path
) -> AsyncGenerator[Served, None]:
    """A second controller over the leader's store, which knows where the leader is."""
    authority = Authority(home)
    own = authority.issue("c2", ("127.0.0.1",))
    urls = {"c1": leader.url, "c2": leader.url}
    config = Config(id=ControllerId("c2"), controllers=("c1", "c2"), urls=urls, state=home)
    exporter = Exporter(CONTROLLER)
    controller = Controller(
        config,
        store,
        exporter=exporter,
        tokens={},
        admins=digests(ADMINS),
        name_servers=lambda cluster: Zones(cluster, {}, exporter=exporter),
        visitor=Nowhere(),
        probing=Blind(),
    )
    listen = Listen(port=0, certificate=own.certificate, key=own.key, ca=leader.ca)
    tls = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(authority.path)))
    async with (
        listening(Api(controller), listen) as port,
        aiohttp.ClientSession(connector=tls) as session,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(controller.run())
        served = Served(controller, f"https://127.0.0.1:{port}", authority.path, session)
        await served.until(lambda: controller.mirror.leader == "c1")
        yield served
        running.cancel()


async def test_an_order_to_one_that_follows_is_carried_out_by_the_leader(tmp_path: Path) -> None:
    """Whoever is logged in at any controller can order there; what is refused comes back as their own page."""
    homes = tmp_path / "c1", tmp_path / "c2"
    for home in homes:
        home.mkdir()
    async with (
        EmbeddedStore.open(None) as store,
        served_over(store, homes[0]) as leader,
        follower(store, leader, homes[1]) as second,
    ):
        await leader.apply()
        await second.until(lambda: "blog" in second.controller.mirror.places)
        ana = await enter(second)
        assert "c1 leads; this controller follows" in (await ana.ask("/"))[2]
        status, page = await ana.order("/failover/pause", {"for_s": "7200", "reason": "a switch"})
        assert status == 303, page
        note = leader.controller.mirror.switches.paused
        assert note is not None
        assert (note.owner, note.reason) == ("ana", "a switch")
        assert '<p class="told" role="status">Paused.</p>' in (await ana.ask("/failover"))[2]
        spanish = {"Accept-Language": "es"}
        status, page = await ana.order("/sites/blog/move", {"to": "mx1-web-01"}, spanish)
        assert (status, "mx1-web-01 no está en marcha" in page) == (409, True)
        assert await ana.proof() in page, "sent again from there, it is believed"
        before = leader.controller.mirror.revision
        status, _ = await ana.order("/failover/resume", {"proof": "made-up"})
        assert (status, leader.controller.mirror.revision) == (403, before)
        viewer = await enter(second, await token_of(leader, "viewer"))
        assert (await viewer.order("/failover/resume"))[0] == 403


async def test_too_many_wrong_tokens_are_told_to_wait(tmp_path: Path) -> None:
    """Guessing at the door is counted as it is everywhere else; who has a session goes on."""
    async with controller_served(tmp_path, failing=Pace(per_s=0.01, burst=3)) as served:
        ana = await enter(served)
        stranger = Visit(served)
        statuses = [(await stranger.ask("/login", {"token": f"guess{n}"}))[0] for n in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert (await ana.ask("/"))[0] == 200


async def test_a_session_has_a_pace_and_others_are_not_held_up(tmp_path: Path) -> None:
    """All sessions of one token together: a script that reads the dashboard is told to wait; beto reads on."""
    async with controller_served(tmp_path) as served:
        await served.apply()
        ana, again, beto = (
            await enter(served),
            await enter(served),
            await enter(served, ADMINS["beto"]),
        )
        answers = [await (ana, again)[n % 2].ask("/log") for n in range(2 * LOOKING.burst)]
        assert {status for status, _, _ in answers} == {200, 429}
        refused = [said for status, said, _ in answers if status == 429]
        assert all(1 <= int(said["Retry-After"]) <= 2 for said in refused)
        status, _, page = await ana.ask("/log", headers={"Accept-Language": "es"})
        assert (status, "Demasiado rápido" in page) == (429, True)
        assert (await beto.ask("/log"))[0] == 200
        assert (await ana.ask("/static/style.css"))[0] == 200
        counted = served.controller.exporter.render().decode()
        assert 'relevo_api_refused_total{reason="pace"}' in counted
