"""The command line against real HTTP servers that say what a controller could say."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cli import durations, tables
from cli.failures import MEANING, Exit
from cli.main import OWN, main
from tests.unit.commands import TOKEN, relevo

Answer = Callable[[web.Request], Coroutine[object, object, web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncGenerator[tuple[str, list[web.Request]], None]:
    """A server that answers everything so: its URL, and the requests that it has had."""
    requests: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        await request.read()
        requests.append(request)
        return await answer(request)

    app = web.Application(client_max_size=16 << 20)
    app.router.add_route("*", "/{tail:.*}", handle)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}", requests


def says(said: object, status: int = 200, *, problem: str = "") -> Answer:
    async def answer(request: web.Request) -> web.Response:
        kind = "application/problem+json" if problem else "application/json"
        body = {"type": f"/problems/{problem}", "detail": said} if problem else said
        return web.Response(body=msgspec.json.encode(body), status=status, content_type=kind)

    return answer


async def hangs_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


WHY = {"code": "silent", "values": {"silence_s": 1.6}, "text": "No beat for 1.6 s."}
HOST = {
    "id": "mx1-web-01",
    "tag": "clara",
    "location": "mx1",
    "roles": ["web"],
    "addresses": ["10.1.0.11", "fd00:1::11"],
    "verdict": "suspect",
    "since_s": 75.2,
    "why": WHY,
    "connected": True,
    "beat_age_s": 1.6,
    "sites_home": 12,
    "sites_here": 14,
    "draining": {"owner": "ana", "reason": "new kernel", "since": 0, "until": 4e9},
    "withdrawn": None,
    "load": {
        "cpu_ratio": 0.42,
        "load_1min": 3.5,
        "memory_total_bytes": 100,
        "memory_available_bytes": 25,
    },
    "service": None,
    "boot_id": "b",
}
SITE = {
    "id": "huerto",
    "member": "huerto",
    "domains": ["huerto.example.org", "www.huerto.example.org"],
    "home": "mx1-web-01",
    "host": "us1-web-01",
    "mode": "gated",
    "route": "edges",
    "since": "2026-11-21T02:47:38.034Z",
    "why": {"code": "dead", "values": {}, "text": "Moved because mx1-web-01 was dead."},
    "armed": True,
    "standbys": ["us1-web-01"],
    "hold": {"code": "manual", "values": {}, "text": "The site moves only when a person says so."},
    "plan": "solidarity",
    "incidents": ["20261121T024744.516-mx1-web-01"],
}
MOVE = {"site": "huerto", "source": "mx1-web-01", "target": "us1-web-01"}
INCIDENT = {
    "id": "20261121T024744.516-mx1-web-01",
    "subject": "mx1-web-01",
    "verdict": "dead",
    "observed": False,
    "began_at": 1795229264.5,
    "moved": [MOVE],
    "held": [
        {**MOVE, "site": "blog", "target": None, "why": {"code": "manual", "text": "By hand."}}
    ],
    "timeline": [
        {"phase": "symptom", "at": 0, "offset_s": 0.0, "why": WHY, "subject": ""},
        {
            "phase": "edge",
            "at": 0,
            "offset_s": 2.345,
            "why": {"code": "edge-follows", "text": "The edge follows."},
            "subject": "mx1-edge-01",
        },
    ],
    "evidence": {"controller c1": "last beat 2.01 s ago"},
    "complete": False,
    "closed_at": None,
}
STATUS = {
    "cluster": "664107e4eb384dbfbb6040c8fee2f4ce",
    "version": "0.1.0",
    "controller": "c1",
    "leader": True,
    "ready": True,
    "arming": "arm",
    "paused": {"owner": "ana", "reason": "network work", "until": 4e9},
    "rewound": None,
    "doubts_itself": True,
    "budget": {"spent": 1, "allowed": 3},
    "hosts": {"up": 90, "dead": 1, "unknown": 5},
    "sites": {"total": 1050, "away": 14, "held": 2},
    "incidents_open": 1,
    "revision": 4711,
}
FAILOVER = {
    "arming": {"all": "observe", "hosts": {"mx1-web-01": "arm"}},
    "paused": None,
    "rewound": {"code": "store-rewound", "text": "The store is older than what was in force."},
    "budget": {"spent": 0, "allowed": 3},
}
HOLD = {
    "id": "move-mx1-web-01",
    "kind": "brake",
    "subject": "mx1-web-01",
    "why": {"code": "brake", "text": "Too many causes in one hour: 3 of 3 are spent."},
    "since": 1795229264.5,
    "sites": [MOVE],
}
EVENTS = {
    "last": "a.2",
    "events": [
        {
            "id": "a.1",
            "event": "verdict",
            "data": {"host": "h1", "old": "up", "new": "dead", "why": WHY},
        },
        {"id": "a.2", "event": "incident", "data": {"incident": INCIDENT}},
    ],
}
APPLIED = {
    "revision": 9,
    "change": 4,
    "summary": "sites: 1 changed, 1 removed",
    "changes": [
        {
            "what": "changed",
            "kind": "sites",
            "id": "huerto",
            "fields": [
                {"field": "mode", "old": None, "new": "automatic"},
                {"field": "standbys", "old": None, "new": ["us1-web-01", "us1-web-02"]},
            ],
        },
        {"what": "removed", "kind": "sites", "id": "blog", "fields": []},
    ],
    "warnings": [{"file": "coop.yaml", "line": 3, "said": "no standby"}],
}
COMPARED: dict[str, Any] = {
    **APPLIED,
    "refused": [{"code": "fleet-removes", "text": "This would remove sites.blog."}],
}
LOGGED = {
    "change": 4,
    "at": 1795229264.5,
    "who": "ana",
    "reason": "spring cleaning",
    "summary": "sites: 1 changed, 1 removed",
    "first": ["~ site huerto: mode: default -> automatic", "- site blog"],
    "undoes": None,
}
UNDOING = {**LOGGED, "change": 5, "undoes": 4, "first": ["+ site blog"], "reason": "too early"}

LOOKS = [
    (("status",), STATUS, ["c1 (leads)", "network work", "90 up", "14 away", "1 of 3"]),
    (("hosts",), {"hosts": [HOST]}, ["suspect", "1 min 15 s", "42%", "75%", "14/12", "draining"]),
    (
        ("host", "show", "mx1-web-01"),
        HOST,
        ["clara", "No beat for 1.6 s.", "new kernel", "14 served"],
    ),
    (("sites",), {"sites": [SITE]}, ["us1-web-01", "mx1-web-01", "gated", "armed", "manual"]),
    (("site", "show", "huerto"), SITE, ["Moved because mx1-web-01 was dead.", "by edges"]),
    (("incidents",), {"incidents": [INCIDENT]}, ["20261121T024744.516-mx1-web-01", "dead", "open"]),
    (("incidents", "an-id"), INCIDENT, ["2.345 s", "mx1-edge-01", "The edge follows.", "By hand."]),
    (("holds",), {"holds": [HOLD]}, ["brake, 1 sites", "3 of 3 are spent"]),
    (("failover", "status"), FAILOVER, ["observing", "mx1-web-01: arm", "older than"]),
    (
        ("fleet", "log"),
        {"log": [UNDOING, LOGGED]},
        ["spring cleaning", "1 removed", "undoes 4: + site blog", "too early"],
    ),
    (
        ("fleet", "log", "4"),
        {**LOGGED, "changes": APPLIED["changes"]},
        ["ana", "spring cleaning", "site huerto", "us1-web-02", "site blog"],
    ),
    (("events",), EVENTS, ["h1: up -> dead. No beat for 1.6 s.", "edge: The edge follows."]),
]


@pytest.mark.parametrize(
    ("command", "said", "shown"), LOOKS, ids=[" ".join(c) for c, _, _ in LOOKS]
)
async def test_what_is_shown_fits_80_columns_and_says_the_facts(
    command: tuple[str, ...], said: object, shown: list[str]
) -> None:
    """Every look at the fleet is readable on the smallest terminal."""
    async with answering(says(said)) as (url, requests):
        result = await relevo(*command, "--url", url)
    assert (result.code, result.err) == (Exit.OK, "")
    flat = " ".join(result.out.split())
    assert [text for text in shown if text not in flat] == []
    assert result.width <= 80
    assert requests[0].headers["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("command", "said", "shown"), LOOKS, ids=[" ".join(c) for c, _, _ in LOOKS]
)
async def test_json_is_the_api_s_own(
    command: tuple[str, ...], said: dict[str, object], shown: list[str]
) -> None:
    """With --json nothing is left out and nothing is added."""
    async with answering(says(said)) as (url, _):
        result = await relevo(*command, "--json", "--url", url)
    assert result.code == Exit.OK
    if command == ("events",):  # a line for each, so that it can be followed
        assert [msgspec.json.decode(line) for line in result.out.splitlines()] == EVENTS["events"]
    else:
        assert msgspec.json.decode(result.out) == said


ORDERS = [
    (
        ("failover", "arm", "--all"),
        "PUT /v1/failover/arming",
        {"scope": "all", "id": None, "arming": "arm", "reason": "why"},
    ),
    (
        ("failover", "observe", "--location", "mx1"),
        "PUT /v1/failover/arming",
        {"scope": "location", "id": "mx1", "arming": "observe", "reason": "why"},
    ),
    (
        ("failover", "inherit", "--site", "huerto"),
        "PUT /v1/failover/arming",
        {"scope": "site", "id": "huerto", "arming": None, "reason": "why"},
    ),
    (("failover", "pause"), "POST /v1/failover/pause", {"reason": "why", "for_s": 3600.0}),
    (
        ("failover", "pause", "--for", "1h30m"),
        "POST /v1/failover/pause",
        {"reason": "why", "for_s": 5400.0},
    ),
    (("failover", "resume"), "DELETE /v1/failover/pause", {"reason": "why"}),
    (
        ("host", "drain", "mx1-web-01", "--for", "2h"),
        "PUT /v1/hosts/mx1-web-01/drain",
        {"reason": "why", "for_s": 7200.0},
    ),
    (
        ("host", "activate", "mx1-web-01", "--bring-home"),
        "POST /v1/hosts/mx1-web-01/activate",
        {"reason": "why", "bring_home": True},
    ),
    (
        ("host", "refuse", "mx1-web-01", "--for", "30m"),
        "PUT /v1/hosts/mx1-web-01/refusal",
        {"reason": "why", "for_s": 1800.0},
    ),
    (
        ("host", "reconsider", "mx1-web-01"),
        "DELETE /v1/hosts/mx1-web-01/refusal",
        {"reason": "why"},
    ),
    (
        ("site", "move", "huerto", "us1-web-01", "--old-host-stopped"),
        "POST /v1/sites/huerto/move",
        {"to": "us1-web-01", "reason": "why", "old_host_stopped": True, "anyway": False},
    ),
]


@pytest.mark.parametrize(
    ("command", "route", "body"), ORDERS, ids=[" ".join(c) for c, _, _ in ORDERS]
)
async def test_an_order_carries_its_reason_and_its_end(
    command: tuple[str, ...], route: str, body: dict[str, object]
) -> None:
    """Each order goes where it should, whole, and tells the revision at which it became true."""
    async with answering(says({"revision": 7, "moved": [MOVE]})) as (url, requests):
        without = await relevo(*command, "--url", url)
        assert (without.code, requests) == (Exit.USAGE, [])
        assert "--reason" in without.err
        result = await relevo(*command, "--reason", "why", "--url", url)
    assert (result.code, result.err) == (Exit.OK, "")
    assert "revision 7" in result.out
    assert f"{requests[0].method} {requests[0].path}" == route
    assert msgspec.json.decode(await requests[0].read()) == body


async def test_an_approval_moves_what_is_held_to_where_relevo_would_move_it() -> None:
    """Every held site of that host with a target, or those that are named; with none there is nothing to order."""
    why = {"code": "manual", "text": "By hand."}
    sites = [
        {**MOVE, "site": site, "target": target, "why": why}
        for site, target in (("blog", "us1-web-01"), ("huerto", "us1-web-01"), ("taller", None))
    ]
    hold = {"id": "move-h", "kind": "move", "subject": "mx1-web-01", "why": why, "since": 1.0}
    said = {"holds": [{**hold, "sites": sites}], "revision": 7, "moved": [MOVE]}
    command = ("host", "approve", "mx1-web-01", "--reason", "why", "--old-host-stopped")
    async with answering(says(said)) as (url, requests):
        every = await relevo(*command, "--url", url)
        one = await relevo(*command, "--site", "blog", "--url", url)
        none = await relevo(*command, "--site", "taller", "--url", url)
    assert (every.code, one.code, none.code) == (Exit.OK, Exit.OK, Exit.FAILED)
    assert "2 of 3 held sites move" in every.out
    orders = [msgspec.json.decode(await r.read()) for r in requests if r.method == "POST"]
    assert [order["targets"] for order in orders] == [
        {"blog": "us1-web-01", "huerto": "us1-web-01"},
        {"blog": "us1-web-01"},
    ]
    assert orders[0]["old_host_stopped"] is True


@pytest.mark.parametrize(
    ("status", "slug", "code"),
    [
        (400, "bad-request", Exit.FAILED),
        (401, "not-admitted", Exit.NOT_ALLOWED),
        (403, "not-admitted", Exit.NOT_ALLOWED),
        (404, "not-found", Exit.NOT_FOUND),
        (409, "gated-not-fenced", Exit.FAILED),
        (409, "changed-meanwhile", Exit.CONFLICT),
        (412, "fleet-changed", Exit.CONFLICT),
        (422, "invalid-body", Exit.FAILED),
        (503, "may-have-been-applied", Exit.FAILED),
        (503, "not-leading", Exit.UNREACHABLE),
    ],
)
async def test_each_refusal_has_its_exit_code_and_names_its_controller(
    status: int, slug: str, code: Exit
) -> None:
    """Scripts tell by the code what to do next; people by a message that says who refused and why."""
    async with answering(says("Because so.", status, problem=slug)) as (url, _):
        result = await relevo("host", "drain", "h1", "--reason", "why", "--url", url)
    assert result.code == code
    assert url in result.err
    assert "Because so." in result.err or slug == "not-leading"
    assert result.out == ""


async def test_what_is_no_controller_is_said_to_be_none() -> None:
    """A web server that answers with a page of its own."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<h1>It works!</h1>", status=502)

    async with answering(page) as (url, _):
        result = await relevo("status", "--url", url)
    assert result.code == Exit.FAILED
    assert f"{url}: status 502" in result.err and "is this a controller?" in result.err


async def test_controllers_are_asked_in_turn() -> None:
    """One is down, one does not lead, the third one does it; from --url or from RELEVO_URL."""
    follower = says("", 503, problem="not-leading")
    async with (
        answering(follower) as (second, _),
        answering(says({"revision": 7})) as (third, done),
    ):
        down = "http://127.0.0.1:1"
        order = ("failover", "resume", "--reason", "why")
        options = [option for url in (down, second, third) for option in ("--url", url)]
        assert (await relevo(*order, *options)).code == Exit.OK
        assert (await relevo(*order, RELEVO_URL=f"{down}, {second},{third}/")).code == Exit.OK
        assert len(done) == 2
        result = await relevo(*order, "--url", down, "--url", second)
    assert result.code == Exit.UNREACHABLE
    assert down in result.err and second in result.err


async def test_an_order_that_may_have_been_done_is_not_given_twice() -> None:
    """A connection lost after the order was sent: no other controller gets it; a question goes on."""
    async with answering(hangs_up) as (first, _), answering(says(STATUS)) as (second, asked):
        both = ("--url", first, "--url", second)
        result = await relevo("failover", "resume", "--reason", "why", *both)
        assert result.code == Exit.FAILED
        assert "it may have been done. Look before you repeat it." in result.err
        assert asked == []
        assert (await relevo("status", *both)).code == Exit.OK


async def test_all_problems_of_a_fleet_file_are_shown_with_their_lines(tmp_path: Path) -> None:
    """One line each, as compilers do it: file, line, what is wrong and what to do."""
    problems = [
        {"file": "coop.yaml", "line": 12, "said": "sites.x.home: 'h9' is not a host"},
        {"file": "coop.yaml", "line": 40, "said": "plans.y: is missing"},
    ]
    body = {"type": "/problems/bad-fleet", "title": "Bad", "detail": "2", "problems": problems}
    file = tmp_path / "coop.yaml"
    file.write_text("version: 1\n")
    async with answering(says(body, 422)) as (url, requests):
        result = await relevo("fleet", "apply", str(file), "--url", url)
    assert result.code == Exit.FAILED
    assert result.err.splitlines()[-2:] == [
        "coop.yaml:12: sites.x.home: 'h9' is not a host",
        "coop.yaml:40: plans.y: is missing",
    ]
    assert requests[0].query["file"] == "coop.yaml"
    assert await requests[0].read() == b"version: 1\n"


async def test_a_diff_tells_how_to_apply_it_and_whether_there_is_one(tmp_path: Path) -> None:
    """A table, what stands in its way, and the command; exit code 7 for changes and 0 for none."""
    file = tmp_path / "coop.yaml"
    file.write_text("version: 1\n")
    async with answering(says(COMPARED)) as (url, requests):
        result = await relevo("fleet", "diff", str(file), "--url", url)
        as_json = await relevo("fleet", "diff", str(file), "--json", "--url", url)
    assert (result.code, result.err, as_json.code) == (Exit.CHANGES, "", Exit.CHANGES)
    assert msgspec.json.decode(as_json.out) == COMPARED
    flat = " ".join(result.out.split())
    assert "~ site huerto mode default automatic" in flat
    assert "- site blog" in flat
    assert "This would remove sites.blog. `apply` wants --remove." in flat
    *others, command = result.out.splitlines()
    assert command == f"  relevo fleet apply {file} --compared-with 9 --remove"
    assert max(map(len, others)) <= 80
    assert (requests[0].method, requests[0].path) == ("POST", "/v1/fleet/diff")
    stuck = {"code": "host-still-serves", "text": "h1 still serves."}
    async with answering(says({**COMPARED, "refused": [*COMPARED["refused"], stuck]})) as (url, _):
        result = await relevo("fleet", "diff", str(file), "--url", url)
    assert "h1 still serves." in result.out and "--compared-with" not in result.out
    async with answering(says({**COMPARED, "changes": [], "summary": "no change"})) as (url, _):
        result = await relevo("fleet", "diff", str(file), "--url", url)
    assert (result.code, "no change" in result.out) == (Exit.OK, True)
    assert "--compared-with" not in result.out


async def test_words_and_the_revision_compared_with_travel(tmp_path: Path) -> None:
    """--remove, --much and --reason in the query, --compared-with as If-Match; and of an undo in its body."""
    file = tmp_path / "coop.yaml"
    file.write_text("version: 1\n")
    async with answering(says(APPLIED)) as (url, requests):
        words = ("--remove", "--much", "--compared-with", "9", "--reason", "why")
        await relevo("fleet", "apply", str(file), *words, "--url", url)
        await relevo("fleet", "undo", "--reason", "why", "--url", url)
        await relevo("fleet", "undo", "4", "--remove", "--reason", "why", "--url", url)
    assert requests[0].headers["If-Match"] == '"9"'
    assert dict(requests[0].query) == {
        "file": "coop.yaml",
        "reason": "why",
        "remove": "1",
        "much": "1",
    }
    orders = [msgspec.json.decode(await request.read()) for request in requests[1:]]
    assert orders == [
        {"change": None, "reason": "why", "remove": False, "much": False},
        {"change": 4, "reason": "why", "remove": True, "much": False},
    ]


async def test_an_applied_fleet_tells_its_changes_and_its_warnings(tmp_path: Path) -> None:
    """What changed, what to weigh, the change's number and the revision."""
    file = tmp_path / "coop.yaml"
    file.write_bytes(b"#" * 3_000_000)
    async with answering(says(APPLIED)) as (url, _):
        result = await relevo("fleet", "apply", str(file), "--much", "--url", url)
    assert result.code == Exit.OK
    lines = result.out.splitlines()
    assert lines[0] == "coop.yaml:3: no standby"
    assert "~ site huerto mode default automatic" in " ".join(result.out.split())
    assert lines[-1] == "sites: 1 changed, 1 removed (change 4, revision 9)"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("failover", "arm", "--reason", "x"), "one of --all"),
        (("failover", "arm", "--all", "--site", "a", "--reason", "x"), "one of --all"),
        (("host", "drain", "h1", "--reason", "x", "--for", "2 weeks"), "write it like"),
        (("host", "drain", "h1", "--reason", "x", "--for", "32d"), "the longest"),
        (("failover", "pause", "--reason", "x", "--for", "-1h"), "write it like"),
        (("host", "show", "../sites"), "not an id"),
        (("site", "move", "a/b", "h1", "--reason", "x"), "not an id"),
        (("fleet", "apply", "/nowhere.yaml"), "No such file"),
        (("fleet", "undo", "--reason", "x", "0"), "0 is not in the range"),
        (("fleet", "undo"), "--reason"),
        (("status", "--url", "ftp://x"), "write it like"),
        (("status", "--url", "http://10.0.0.1:7410"), "in the clear"),
        (("status", "--url", "http://controller.example.org:7410"), "in the clear"),
        (("nonsense",), "No such command"),
    ],
)
async def test_what_makes_no_sense_is_refused_before_anybody_is_asked(
    arguments: tuple[str, ...], text: str
) -> None:
    """Exit code 2 and a remedy; a token never travels in the clear."""
    result = await relevo(*arguments)
    assert result.code == Exit.USAGE
    assert text in result.err


async def test_the_token_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    """RELEVO_TOKEN first, then RELEVO_TOKEN_FILE, then ~/.config/relevo/token; without one nobody is asked."""
    named, home = tmp_path / "named", tmp_path / "home"
    named.write_text("from-the-file\n")
    (home / ".config/relevo").mkdir(parents=True)
    async with answering(says(STATUS)) as (url, requests):
        at = {"RELEVO_URL": url, "HOME": str(home)}
        nobody = await relevo("status", RELEVO_TOKEN=None, **at)
        assert (nobody.code, requests) == (Exit.NOT_ALLOWED, [])
        assert "RELEVO_TOKEN_FILE" in nobody.err
        lost = await relevo("status", RELEVO_TOKEN=None, RELEVO_TOKEN_FILE="/nowhere", **at)
        assert (lost.code, "/nowhere" in lost.err) == (Exit.USAGE, True)
        await relevo("status", RELEVO_TOKEN=None, RELEVO_TOKEN_FILE=str(named), **at)
        (home / ".config/relevo/token").write_text("from-home")
        await relevo("status", RELEVO_TOKEN=None, **at)
        await relevo("status", RELEVO_TOKEN_FILE=str(named), **at)
    sent = [request.headers["Authorization"] for request in requests]
    assert sent == ["Bearer from-the-file", "Bearer from-home", f"Bearer {TOKEN}"]


async def test_the_locale_chooses_the_language_of_reasons() -> None:
    """A Spanish terminal asks for Spanish."""
    async with answering(says(STATUS)) as (url, requests):
        await relevo("status", "--url", url, LC_ALL="es_MX.UTF-8")
        await relevo("status", "--url", url, LC_ALL="de_DE.UTF-8")
    assert [request.headers["Accept-Language"] for request in requests] == ["es", "en"]


async def test_nothing_from_elsewhere_steers_the_terminal() -> None:
    """Escape sequences and markup in names and reasons are shown, not obeyed."""
    evil = "\x1b[2J\x07[bold]x[/bold]\r\nsecond"
    site = {**SITE, "member": evil, "why": {"code": "move", "text": evil}}
    async with answering(says(site)) as (url, _):
        result = await relevo("site", "show", "huerto", "--url", url)
    assert result.code == Exit.OK
    assert "\x1b" not in result.out and "\x07" not in result.out and "\r" not in result.out
    assert "[bold]x[/bold]" in result.out


@pytest.mark.patient
async def test_a_followed_stream_goes_on_where_it_was_lost() -> None:
    """After a lost connection the last id is sent again; when the token is refused it ends."""
    tries = 0

    async def stream(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        if tries > 2:
            return await says("Who?", 401, problem="not-admitted")(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        data = msgspec.json.encode({"who": "ana", "what": f"try {tries}", "subject": ""}).decode()
        await response.write(f":\n\nid: a.{tries}\nevent: audit\n".encode())
        await response.write(f"data: {data}\n\n".encode())
        return response

    async with asyncio.timeout(20), answering(stream) as (url, requests):
        result = await relevo("events", "--follow", "--url", url)
    assert result.code == Exit.NOT_ALLOWED
    assert re.findall("try .", result.out) == ["try 1", "try 2"]
    assert [r.headers.get("Last-Event-ID") for r in requests] == [None, "a.1", "a.2"]


async def test_help_documents_every_exit_code_and_loads_no_daemon() -> None:
    """`relevo --help` lists all commands and codes; the codes are what scripts can rely on."""
    result = await relevo("--help")
    assert result.code == Exit.OK
    for code, meaning in MEANING.items():
        assert f"{int(code)}  {meaning}" in result.out
    for name in (*OWN, "agent", "controller", "demo"):
        assert re.search(rf"^  {name} ", result.out, re.MULTILINE)
    assert (await relevo("--version")).out.startswith("relevo ")


def test_every_command_explains_itself() -> None:
    """Each command and each of its options has a help text."""
    context = click.Context(main)
    for name in OWN:
        command = main.get_command(context, name)
        assert command is not None
        below = command.commands.values() if isinstance(command, click.Group) else [command]
        for one in below:
            assert one.help, one.name
            for option in one.params:
                assert not isinstance(option, click.Option) or option.help, (one.name, option.name)


@given(st.floats(min_value=0, max_value=1e9))
def test_a_shown_duration_has_two_units_at_most(seconds: float) -> None:
    """Whatever the seconds, it reads like a duration."""
    assert re.fullmatch(r"[0-9.]+ (s|min|h|d)( [0-9]+ (s|min|h))?", durations.shown(seconds))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86_400), ("1.5h", 5400)]
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    """With a unit, always: `--for 30` is not guessed at."""
    duration = durations.Duration(1e6)
    assert duration.convert(text, None, None) == seconds
    with pytest.raises(click.BadParameter):
        duration.convert(text[:-1], None, None)


def test_lines_of_their_own_stay_lines_of_their_own() -> None:
    """A sign that can't be printed is shown as one; the ends of our own lines are none."""
    console = Console(width=60, file=StringIO())
    console.print(tables.facts(("evidence", tables.lines(["edge1: down", "edge2: u\x1bp"]))))
    assert isinstance(console.file, StringIO)
    told = console.file.getvalue().splitlines()
    assert [line.strip() for line in told] == ["evidence  edge1: down", "edge2: u\ufffdp"]
