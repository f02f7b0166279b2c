"""Tokens, roles, credentials and the audit over a whole controller, with real TLS on loopback."""

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import cast

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from controller.api.auth import OPEN
from controller.api.routes import TABLE
from controller.api.server import Api
from controller.store import EmbeddedStore
from fleet import keys
from fleet.access import ACCESS_ROLES, AccessRole, digest, may, read_joining
from fleet.messages import Ack
from fleet.model import HostId, IncidentId
from runtime.clock import wall
from tests.integration.controllers import (
    ADMINS,
    AGENTS,
    FLEET,
    Served,
    controller_served,
    served_over,
)
from tests.integration.test_api import Socket, agent, beat, heard
from tests.integration.test_dashboard_http import follower
from tests.unit.wires import Wire

pytestmark = pytest.mark.integration

OTHERS = """\
  campo: {name: Campo, language: es}
"""
TWO_MEMBERS = FLEET.replace("members:\n", f"members:\n{OTHERS}").replace(
    "blog: {member: huerto", "blog: {member: campo"
)
WHY = "a test"
ROLES = ("open", "host", *ACCESS_ROLES)


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        await controller.placed(TWO_MEMBERS)
        yield controller


async def made(served: Served, name: str, role: AccessRole, *, for_s: float = 3600) -> str:
    """A new token."""
    said = {
        "name": name,
        "role": role,
        "member": "huerto" if role == "member" else None,
        "for_s": for_s,
        "reason": WHY,
    }
    status, told = await served.ask("POST", "/v1/tokens", said=said)
    assert status == 200, told
    return str(told["token"])


async def joined(served: Served, host: str) -> str:
    """A new credential of `host`, by way of a join token."""
    status, told = await served.ask("POST", f"/v1/hosts/{host}/join", said={"reason": WHY})
    assert status == 200, told
    joining = read_joining(str(told["token"]))
    assert joining is not None
    secret = secrets.token_urlsafe(32)
    status, told = await served.ask(
        "POST", "/v1/join", token=joining.secret, said={"digest": digest(secret)}
    )
    assert (status, told["host"]) == (200, host)
    return secret


async def acknowledged(socket: Socket) -> Ack:
    """The next acknowledgement; orders may come before it."""
    while not isinstance(message := await heard(socket), Ack):
        pass
    return message


def counted(served: Served, metric: str, reason: str) -> float:
    text = served.controller.exporter.render().decode()
    found = re.search(rf'^{metric}{{reason="{reason}"}} ([0-9.e+]+)$', text, re.M)
    return float(found[1]) if found else 0.0


# --- roles


async def test_every_route_is_served_to_its_role_and_those_above_it_and_to_nobody_else(
    served: Served,
) -> None:
    """403 with what is needed for every role below; for the others whatever the route answers, but never that."""
    tokens = {role: await made(served, role, role) for role in ACCESS_ROLES}
    routes = [line for line in Api(served.controller).app()[TABLE].routes if line.role not in OPEN]
    assert {line.role for line in routes} == set(ACCESS_ROLES)
    refusals = 0
    for line in routes:
        path = re.sub(r"{\w+[^}]*}", "none", line.path)
        for role, token in tokens.items():
            allowed = may(role, cast(AccessRole, line.role))
            if allowed and (line.path == "/v1/events" or line.method != "GET"):
                continue  # a stream has no end, and orders have tests of their own
            status, _, body = await served.raw(line.method, path, token=token, said={})
            assert (status != 403) is allowed, (line.method, path, role, body)
            assert status != 401
            if not allowed:
                refusals += 1
                problem = msgspec.json.decode(body)
                assert problem["type"] == "/problems/not-allowed"
                assert f"`{role}`" in problem["detail"] and f"`{line.role}`" in problem["detail"]
    assert counted(served, "relevo_api_refused_total", "not-allowed") == refusals > 60
    assert not [e for e in served.controller.mirror.audit.values() if e.who in ACCESS_ROLES]


async def test_what_is_open_and_what_only_admins_may_is_a_short_list(served: Served) -> None:
    """A new route that is one of these changes this test too; deciding who may is for admins alone."""
    routes = Api(served.controller).app()[TABLE].routes
    by_role = {role: {f"{r.method} {r.path}" for r in routes if r.role == role} for role in ROLES}
    assert by_role["open"] == {"GET /healthz", "GET /readyz", "GET /v1/ca"}
    assert by_role["host"] == {
        "GET /v1/join",
        "POST /v1/join",
        "GET /v1/link/{host}",
        "PUT /v1/hosts/{id}/credential",
    }
    own = {f"GET /v1/my/{what}" for what in ("sites", "incidents", "penalties")}
    assert by_role["member"] == own | {"GET /v1/openapi.json"}
    assert by_role["admin"] >= {
        "GET /v1/access",
        "POST /v1/tokens",
        "DELETE /v1/tokens/{id}",
        "POST /v1/hosts/{id}/join",
        "DELETE /v1/hosts/{id}/credential",
        "POST /v1/credentials/change",
    }
    looks = {route for route in by_role["viewer"] if not route.startswith("GET ")}
    assert looks <= {"POST /v1/fleet/diff"}, "a viewer changes nothing"


async def test_tokens_and_credentials_come_in_pages(served: Served) -> None:
    """One list in two parts, each told once: a co-op of two thousand hosts is no one answer."""
    for number in range(3):
        await made(served, f"panel-{number}", "operator")
    tokens, hosts, path, pages = [], [], "/v1/access?limit=2", 0
    while path:
        status, headers, body = await served.raw("GET", path)
        assert status == 200, body
        page = msgspec.json.decode(body)
        assert 0 < len(page["tokens"]) + len(page["hosts"]) <= 2
        tokens += [token["name"] for token in page["tokens"]]
        hosts += [host["host"] for host in page["hosts"]]
        path = headers["Link"].partition(">")[0].removeprefix("<") if page["next"] else ""
        pages += 1
    assert tokens == [*sorted(ADMINS), "panel-0", "panel-1", "panel-2"]
    assert hosts == sorted(AGENTS) and pages == -(-(len(tokens) + len(hosts)) // 2)


async def test_a_control_panels_token_changes_one_thing_at_a_time_and_makes_no_token(
    served: Served,
) -> None:
    """An operator's: sites, hosts and members by themselves; not the whole fleet, and nobody's rights."""
    panel = await made(served, "panel", "operator")
    fresh = {"id": "semilla", "name": "Semilla", "language": "es"}
    new, any_ = {"If-None-Match": "*"}, {"If-Match": "*"}
    path = "/v1/members/semilla"
    status, told = await served.ask("PUT", path, token=panel, said=fresh, headers=new)
    assert status == 201, told
    status, told = await served.ask("DELETE", path, token=panel, headers=any_)
    assert status == 200, told
    _, log = await served.ask("GET", "/v1/fleet/log", token=panel)
    assert [entry["who"] for entry in cast("list[dict[str, str]]", log["log"])[:2]] == ["panel"] * 2
    for method, path in (
        ("PUT", "/v1/fleet"),
        ("POST", "/v1/fleet/undo"),
        ("POST", "/v1/tokens"),
        ("POST", "/v1/hosts/mx1-web-01/join"),
    ):
        status, told = await served.ask(method, path, token=panel, said={})
        assert (status, told["type"]) == (403, "/problems/not-allowed"), path


async def test_a_member_sees_its_own_sites_and_incidents_by_public_tags(served: Served) -> None:
    """No other member's site, no internal host name, no admin's name; whatever `member` it asks for."""
    order = {"to": "us1-web-01", "reason": "disk of mx1-web-01", "old_host_stopped": True}
    for site in ("huerto", "blog"):
        status, told = await served.ask(
            "POST", f"/v1/sites/{site}/move", said={**order, "anyway": True}
        )
        assert status == 200, told
    mirror = served.controller.mirror
    moved = next(i for i in mirror.incidents.values() if i.moved[0].site == "huerto")
    died = msgspec.structs.replace(
        moved, id=IncidentId(f"{moved.id}-mx1-web-01"), subject="host:mx1-web-01", verdict="dead"
    )
    await served.controller.store.put(keys.incident(died.id), msgspec.json.encode(died))
    await served.until(lambda: died.id in mirror.incidents)
    token = await made(served, "of-huerto", "member")
    told_all = b""
    for path in ("/v1/my/sites", "/v1/my/incidents", "/v1/my/sites?member=campo"):
        status, _, body = await served.raw("GET", path, token=token)
        assert status == 200
        told_all += body
    for private in ("mx1-", "us1-", "campo", "blog", "ana", "disk"):
        assert private.encode() not in told_all, private
    _, sites = await served.ask("GET", "/v1/my/sites", token=token)
    (own,) = cast("list[dict[str, object]]", sites["sites"])
    assert (own["id"], own["host"], own["at_home"]) == ("huerto", "sauce", False)
    assert "people" in str(own["why"])
    _, incidents = await served.ask("GET", "/v1/my/incidents", token=token)
    told_each = cast("list[dict[str, object]]", incidents["incidents"])
    assert {incident["verdict"] for incident in told_each} == {"dead", "move"}
    for incident in told_each:
        assert incident["moved"] == [{"site": "huerto", "source": "clara", "target": "sauce"}]
    assert len({incident["id"] for incident in told_each}) == 2
    status, sites = await served.ask("GET", "/v1/my/sites?member=campo")
    assert [s["id"] for s in cast("list[dict[str, object]]", sites["sites"])] == ["blog"]
    assert (await served.ask("GET", "/v1/my/sites"))[0] == 400


# --- tokens


async def test_a_token_opens_from_its_making_to_its_end_or_its_revocation(served: Served) -> None:
    """Both at once; a name is given once; a token of the controller's file is taken out there."""
    token = await made(served, "ana.phone", "viewer")
    assert (await served.ask("GET", "/v1/status", token=token))[0] == 200
    short = await made(served, "short", "viewer", for_s=0.2)
    await asyncio.sleep(0.25)
    status, told = await served.ask("GET", "/v1/status", token=short)
    assert status == 401 and "short has ended" in str(told["detail"])
    assert counted(served, "relevo_api_refused_total", "ended") == 1
    again = {"name": "ana.phone", "role": "viewer", "for_s": 60, "reason": WHY}
    status, told = await served.ask("POST", "/v1/tokens", said=again)
    assert (status, told["type"]) == (409, "/problems/token-exists")
    status, _ = await served.ask("DELETE", "/v1/tokens/ana.phone", said={"reason": WHY})
    assert status == 200
    assert (await served.ask("GET", "/v1/status", token=token))[0] == 401
    assert (await served.ask("DELETE", "/v1/tokens/ana.phone", said={"reason": WHY}))[0] == 404
    status, told = await served.ask("DELETE", "/v1/tokens/ana", said={"reason": WHY})
    assert (status, told["type"]) == (409, "/problems/token-in-file")


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "root"},
        {"role": "member"},
        {"member": "huerto"},
        {"for_s": 0},
        {"for_s": 1e9},
        {"name": "a b"},
        {"reason": " "},
    ],
)
async def test_a_token_without_role_owner_end_or_reason_is_not_made(
    served: Served, wrong: dict[str, object]
) -> None:
    """What is missing or wrong is named, and nothing is kept."""
    said = {"name": "x", "role": "viewer", "for_s": 60, "reason": WHY}
    status, told = await served.ask("POST", "/v1/tokens", said={**said, **wrong})
    assert status == 422, told
    assert not served.controller.mirror.api_tokens


async def test_a_stream_of_events_ends_when_its_token_is_revoked(served: Served) -> None:
    """Within the stream's own rhythm, here at once: the revocation is an event."""
    token = await made(served, "screen", "viewer")
    admission = {"Authorization": f"Bearer {token}"}
    async with (
        asyncio.timeout(5),
        served.session.get(f"{served.url}/v1/events", headers=admission) as stream,
    ):
        assert stream.status == 200
        await served.ask("DELETE", "/v1/tokens/screen", said={"reason": WHY})
        await stream.content.read()  # to its end


# --- hosts


async def test_a_stolen_credential_speaks_for_its_own_host_only(served: Served) -> None:
    """No other host's link or credential, no look, no order, no token; each try refused and counted."""
    stolen = await joined(served, "us1-web-01")
    for host in ("mx1-web-01", "mx1-web-09", "mx1-edge-01"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with agent(served, host, stolen):
                pass
        assert refused.value.status == 401
        said = {"digest": digest("mine now")}
        status, _ = await served.ask("PUT", f"/v1/hosts/{host}/credential", token=stolen, said=said)
        assert status == 401
    assert counted(served, "relevo_link_refused_total", "foreign-token") == 6
    lines = [line for line in Api(served.controller).app()[TABLE].routes if line.role not in OPEN]
    refusals = 0
    for line in lines:
        path = re.sub(r"{\w+[^}]*}", "us1-web-01", line.path)
        status, _, _ = await served.raw(line.method, path, token=stolen, said={})
        assert status in (401, 429), path  # the latter: who guesses often is told to wait
        refusals += status == 401
    assert counted(served, "relevo_api_refused_total", "host-credential") == len(lines)
    assert refusals > 10
    assert (await served.ask("GET", "/v1/join", token=stolen))[0] in (401, 429)
    # Nor can it shut its owner out: a credential is changed when an admin asked for it.
    status, told = await served.ask(
        "PUT",
        "/v1/hosts/us1-web-01/credential",
        token=stolen,
        said={"digest": digest("mine now")},
    )
    assert (status, told["type"]) == (409, "/problems/not-asked-to-change")
    async with agent(served, "us1-web-01", stolen) as socket:
        await socket.send_bytes(beat("mx1-web-01"))  # it speaks for another
        assert (await socket.receive()).type in (
            aiohttp.WSMsgType.CLOSE,
            aiohttp.WSMsgType.CLOSED,
        )
    assert counted(served, "relevo_link_refused_total", "foreign-host") == 1


async def test_a_revoked_host_is_cut_off_at_once_and_stays_out(served: Served) -> None:
    """Its open link ends; also one whose credential stands in the controller's file; joining lets it in again."""
    for host in ("us1-web-01", "mx1-web-01"):
        own = await joined(served, host) if host not in AGENTS else AGENTS[host]
        async with agent(served, host, own) as socket:
            await socket.send_bytes(beat(host))
            await acknowledged(socket)
            while (
                served.controller.link.settled is False
                or HostId(host) not in served.controller.link.connected
            ):
                await asyncio.sleep(0.01)
            status, _ = await served.ask(
                "DELETE", f"/v1/hosts/{host}/credential", said={"reason": "stolen"}
            )
            assert status == 200
            async with asyncio.timeout(2):
                while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                    pass
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with agent(served, host, own):
                pass
        status, told = await served.ask(
            "DELETE", f"/v1/hosts/{host}/credential", said={"reason": "again"}
        )
        assert (status, told["type"]) == (409, "/problems/no-credential")
        async with agent(served, host, await joined(served, host)) as socket:
            await socket.send_bytes(beat(host))
            await acknowledged(socket)
    assert counted(served, "relevo_link_refused_total", "no-longer-valid") == 2


async def test_a_join_token_is_good_once_for_one_host_until_a_newer_one(served: Served) -> None:
    """The same secret again is the same answer; another one is refused; an older token is worth nothing."""
    path, said = "/v1/hosts/us1-web-01/join", {"reason": WHY}
    assert (await served.ask("POST", "/v1/hosts/nobody/join", said=said))[0] == 404
    older = read_joining(str((await served.ask("POST", path, said=said))[1]["token"]))
    newer = read_joining(str((await served.ask("POST", path, said=said))[1]["token"]))
    assert older and newer
    assert (await served.ask("GET", "/v1/join", token=older.secret))[0] == 401
    status, offer = await served.ask("GET", "/v1/join", token=newer.secret)
    assert status == 200
    assert (offer["host"], offer["addresses"]) == ("us1-web-01", ["10.2.0.11", "fd00:2::11"])
    first, other = {"digest": digest("first")}, {"digest": digest("other")}
    for _ in range(2):
        assert (await served.ask("POST", "/v1/join", token=newer.secret, said=first))[0] == 200
    status, told = await served.ask("POST", "/v1/join", token=newer.secret, said=other)
    assert (status, told["type"]) == (409, "/problems/join-token-used")
    assert served.controller.admission.hosts[HostId("us1-web-01")] == digest("first")
    left = read_joining(str((await served.ask("POST", path, said=said))[1]["token"]))
    assert left
    assert (await served.ask("DELETE", "/v1/hosts/us1-web-01/credential", said=said))[0] == 200
    for token in ("", "wrong", ADMINS["ana"], AGENTS["mx1-web-01"], left.secret):
        assert (await served.ask("POST", "/v1/join", token=token, said=first))[0] == 401
    assert counted(served, "relevo_link_refused_total", "join-wrong-token") == 6


async def test_all_hosts_are_asked_to_change_and_each_does_for_itself(served: Served) -> None:
    """With each acknowledgement until it is done; the new digest counts at once, the old one is over."""
    own = await joined(served, "us1-web-01")
    order = {"hosts": None, "reason": "a laptop was lost"}
    assert (await served.ask("POST", "/v1/credentials/change", said=order))[0] == 200
    credentials = served.controller.mirror.credentials
    assert {host for host, known in credentials.items() if known.change} == {*AGENTS, "us1-web-01"}
    async with agent(served, "us1-web-01", own) as socket:
        await served.until(lambda: len(served.controller.link.changing) == 5)
        await socket.send_bytes(beat("us1-web-01"))
        assert (await acknowledged(socket)).change_credential
        path, said = "/v1/hosts/us1-web-01/credential", {"digest": digest("new")}
        assert (await served.ask("PUT", path, token=own, said=said))[0] == 200
        async with asyncio.timeout(2):  # logged in by the old one
            while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                pass
    assert (await served.ask("PUT", path, token=own, said=said))[0] == 401
    assert (await served.ask("PUT", path, token="new", said=said))[0] == 200  # a lost answer
    async with agent(served, "us1-web-01", "new") as socket:
        await socket.send_bytes(beat("us1-web-01"))
        assert not (await acknowledged(socket)).change_credential


async def test_what_was_revoked_while_a_link_was_opened_ends_it(served: Served) -> None:
    """Between the look at the credential and the link lies a handshake: it is looked at again."""
    host, wire = HostId("mx1-web-01"), Wire()
    link = served.controller.link
    async with asyncio.timeout(5):
        await link.serve(host, wire, digest("of before"))
    assert wire.closed and host not in link.connected
    assert counted(served, "relevo_link_refused_total", "no-longer-valid") == 1


# --- the audit


async def test_every_change_of_access_is_in_the_audit_and_no_secret_is(served: Served) -> None:
    """Who, what, when, why, before and after; newest first, as many as asked for; and nothing that opens anything."""
    token = await made(served, "prom", "viewer")
    own = await joined(served, "us1-web-01")
    change = {"hosts": ["us1-web-01"], "reason": "routine"}
    await served.ask("POST", "/v1/credentials/change", said=change)
    path = "/v1/hosts/us1-web-01/credential"
    await served.ask("PUT", path, token=own, said={"digest": digest("new")})
    await served.ask("DELETE", path, said={"reason": "sold"}, token=ADMINS["beto"])
    await served.ask("DELETE", "/v1/tokens/prom", said={"reason": "unused"})
    status, _, body = await served.raw("GET", "/v1/audit?limit=7")
    assert status == 200
    told = msgspec.json.decode(body)["entries"]
    assert [(e["who"], e["what"], e["subject"], e["reason"]) for e in told] == [
        ("ana", "revoke token", "prom", "unused"),
        ("beto", "revoke credential", "us1-web-01", "sold"),
        ("host us1-web-01", "change credential", "us1-web-01", "as it was asked to"),
        ("ana", "rotate credential", "us1-web-01", "routine"),
        ("host us1-web-01", "join", "us1-web-01", "with a token of ana"),
        ("ana", "create join token", "us1-web-01", WHY),
        ("ana", "create token", "prom", WHY),
    ]
    assert told[0]["before"] == "viewer" and told[6]["after"] == "viewer"
    assert told[1]["after"] == "revoked" and told[1]["before"].startswith("credential ")
    stored = repr(served.controller.mirror._items).encode()
    for secret in (token, own, digest("new"), ADMINS["ana"]):
        assert secret.encode() not in body
        assert secret == digest("new") or secret.encode() not in stored
    _, told_access = await served.ask("GET", "/v1/access")
    assert "digest" not in str(told_access) and token not in str(told_access)


async def test_orders_leave_what_was_and_what_became_of_it(served: Served) -> None:
    """Arming, pausing, draining, moving and fleet changes: before and after in a few words."""
    orders: list[tuple[str, str, dict[str, object]]] = [
        ("PUT", "/v1/failover/arming", {"scope": "host", "id": "mx1-web-01", "arming": "arm"}),
        ("PUT", "/v1/failover/arming", {"scope": "host", "id": "mx1-web-01", "arming": None}),
        ("POST", "/v1/failover/pause", {"for_s": 60}),
        ("DELETE", "/v1/failover/pause", {}),
        ("PUT", "/v1/hosts/mx1-web-09/drain", {"for_s": 60}),
        ("POST", "/v1/hosts/mx1-web-09/activate", {}),
        (
            "POST",
            "/v1/sites/huerto/move",
            {"to": "us1-web-01", "old_host_stopped": True, "anyway": True},
        ),
    ]
    for method, path, said in orders:
        status, told = await served.ask(method, path, said={**said, "reason": WHY})
        assert status == 200, told
    _, told = await served.ask("GET", "/v1/audit")
    entries = cast("list[dict[str, str]]", told["entries"])
    changes = [(e["what"], e["before"][:10], e["after"][:10]) for e in reversed(entries)]
    assert changes[0][::2] == ("apply fleet", "change 1; ")
    assert [(what, bool(before), bool(after)) for what, before, after in changes[3:7]] == [
        ("pause", False, True),
        ("resume", True, False),
        ("drain", False, True),
        ("activate", True, False),
    ]
    assert [change[1:] for change in (*changes[1:3], changes[7])] == [
        ("inherit", "arm"),
        ("arm", "inherit"),
        ("huerto on ", "huerto on "),
    ]
    assert entries[0]["after"] == "huerto on us1-web-01"


async def test_what_has_ended_is_told_for_a_while_and_then_forgotten(served: Served) -> None:
    """The leader clears join tokens and tokens of people that ended long ago (rule R11); what is good stays."""
    controller = served.controller
    await made(served, "good", "viewer")
    assert (await served.ask("POST", "/v1/hosts/us1-web-01/join", said={"reason": WHY}))[0] == 200
    token, join = controller.mirror.api_tokens["good"], next(iter(controller.mirror.joins.values()))
    day_s, now = 86_400, wall()
    old = msgspec.structs.replace(token, name="old", digest=digest("o"), until=now - 15 * day_s)
    late = msgspec.structs.replace(token, name="late", digest=digest("l"), until=now - 13 * day_s)
    over = msgspec.structs.replace(join, until=now - 2 * day_s)
    for key, value in (
        (keys.access_token("late"), late),
        (keys.access_token("old"), old),
        (keys.access_join(join.host), over),
    ):
        await controller.store.put(key, msgspec.json.encode(value))
    await served.until(lambda: not controller.mirror.joins)
    await served.until(lambda: set(controller.mirror.api_tokens) == {"good", "late"})


async def test_all_controllers_let_the_same_in_and_shut_the_same_out(tmp_path: Path) -> None:
    """What was granted at one that follows counts at the leader and the other way round; so does what was revoked."""
    homes = tmp_path / "c1", tmp_path / "c2"
    for home in homes:
        home.mkdir()
    async with (
        EmbeddedStore.open(None) as store,
        served_over(store, homes[0]) as leader,
        follower(store, leader, homes[1]) as second,
    ):
        await leader.apply(TWO_MEMBERS)
        host = HostId("us1-web-01")
        await second.until(lambda: host in second.controller.mirror.fleet.hosts)
        viewer = await made(second, "grafana", "viewer")
        assert (await leader.ask("GET", "/v1/status", token=viewer))[0] == 200
        own = await joined(second, host)
        await second.until(lambda: host in second.controller.admission.hosts)
        async with agent(leader, host, own) as first_link, agent(second, host, own) as second_link:
            for socket in (first_link, second_link):
                await socket.send_bytes(beat(host))
                await acknowledged(socket)
            path, said = f"/v1/hosts/{host}/credential", {"reason": "stolen"}
            assert (await second.ask("DELETE", path, said=said))[0] == 200
            for socket in (first_link, second_link):
                async with asyncio.timeout(2):
                    while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
                        pass
        assert (await leader.ask("DELETE", "/v1/tokens/grafana", said={"reason": WHY}))[0] == 200
        await second.until(lambda: not second.controller.mirror.api_tokens)
        for served in (leader, second):
            assert (await served.ask("GET", "/v1/status", token=viewer))[0] == 401
            with pytest.raises(aiohttp.WSServerHandshakeError):
                async with agent(served, host, own):
                    pass
