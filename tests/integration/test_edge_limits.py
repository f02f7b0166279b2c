"""Limits of sites on a real HAProxy: what is held, what is not touched, and what visitors see."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import msgspec
import pytest
from aiohttp import web

from agent.edge.gate import BUSY_AFTER_S, CLIENT_AFTER_S, CLOSED_AFTER_S
from agent.edge.render import digest_of
from deploy.demo.packages import TESTS, Tools, bring
from fleet.messages import EdgeLimit, LimitState, Routes, Target
from fleet.model import Domain, Epoch, HostId, SiteId
from runtime.clock import wall
from tests.integration.edges import PROOF, Rig, domains, keeping, running, visitors
from tests.integration.trixie import haproxy_of_trixie
from tests.ports import free_port

pytestmark = pytest.mark.integration

W1 = HostId("w1")
A, B = SiteId("a"), SiteId("b")
FIRST, SECOND = Epoch(1, 10), Epoch(1, 11)
WIDE = EdgeLimit(
    in_flight=1000,
    queue=100,
    queue_wait_s=5,
    requests_per_s=100_000,
    requests_burst=100_000,
    client_requests_per_min=1_000_000,
)


@dataclass(slots=True)
class Host:
    """A web host that takes `takes_s` for each page, and knows how many of each domain it had at once, and in all."""

    target: Target
    takes_s: float = 0.0
    now: Counter[str] = field(default_factory=Counter)
    peak: Counter[str] = field(default_factory=Counter)
    pages: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def web_host() -> AsyncIterator[Host]:
    async def answer(request: web.Request) -> web.Response:
        domain = request.host
        it.now[domain] += 1
        it.peak[domain] = max(it.peak[domain], it.now[domain])
        it.pages[domain] += 1
        await asyncio.sleep(it.takes_s)
        it.now[domain] -= 1
        return web.Response(text="w1")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.11", free_port(), reuse_address=True)
    await site.start()
    it = Host(Target(address="127.0.0.11", port=runner.addresses[0][1], check="/health"))
    try:
        yield it
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module", params=["2.6", "3.0"])
def tools(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """HAProxy as Debian 12 and Debian 13 have it."""
    if request.param == "3.0":
        return haproxy_of_trixie(tmp_path_factory.mktemp("trixie"))
    return Tools(bring(TESTS))


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def host(stack: AsyncExitStack) -> Host:
    return await stack.enter_async_context(web_host())


@pytest.fixture
def routes(host: Host) -> Routes:
    """Two sites on one host; nothing is limited."""
    return Routes(hosts={W1: host.target}, domains=domains(a="w1", b="w1"), proof=PROOF)


@pytest.fixture
async def rig(tools: Tools, routes: Routes, stack: AsyncExitStack) -> Rig:
    rig = await stack.enter_async_context(running(tools, routes, FIRST))
    await rig.up(W1)
    return rig


def limited(routes: Routes, **limits: EdgeLimit) -> Routes:
    """`a=LIMIT`: a.example is of the site a, with these limits."""
    return msgspec.structs.replace(
        routes,
        limits={SiteId(site): (limit,) for site, limit in limits.items()},
        sites={Domain(f"{site}.example"): SiteId(site) for site in limits},
    )


def but(limit: EdgeLimit = WIDE, **fields: float | LimitState) -> EdgeLimit:
    return msgspec.structs.replace(limit, **fields)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: str
    retry_after: str


async def ask(
    rig: Rig, domain: str, path: str = "/", *, times: int = 1, source: str = "127.0.0.1"
) -> list[Answer]:
    """That many requests at once, each on a connection of its own."""

    async def one() -> Answer:
        async with client.get(rig.url + path, headers={"Host": domain}) as response:
            after = response.headers.get("retry-after", "")
            return Answer(response.status, await response.text(), after)

    connector = aiohttp.TCPConnector(force_close=True, limit=0, local_addr=(source, 0))
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(one()) for _ in range(times)]
        return [task.result() for task in asking]


async def refused(rig: Rig) -> dict[str, tuple[int, ...]]:
    answer = await rig.ask("show table relevo:refused")
    rows = [
        dict(w.partition("=")[::2] for w in row.split()) for row in answer.splitlines()[1:] if row
    ]
    return {row["key"]: tuple(int(row[f"gpc{at}"]) for at in range(4)) for row in rows}


async def present(rig: Rig, table: str) -> int:
    """How many requests of a.example are in that table now."""
    answer = await rig.ask(f"show table relevo:{table} key a")
    return int(answer.partition("conn_cur=")[2].split()[0])


async def test_a_flooded_site_is_held_at_its_rate_and_nobody_else_is_touched(
    rig: Rig, host: Host, routes: Routes
) -> None:
    """50 pages in ten seconds reach the host, however many are asked for; its neighbour fails no request."""
    slow = but(requests_per_s=5, requests_burst=20, queue=10, queue_wait_s=0.2)
    await rig.driver.follow(limited(routes, a=slow, b=WIDE), SECOND)
    calm_ones = visitors(rig.url, "b.example")
    async with calm_ones as calm, visitors(rig.url, "a.example", clients=40) as flood:
        await asyncio.sleep(4)
    assert flood.requests > 300
    assert 45 <= host.pages["a.example"] <= 52
    assert flood.answers.total() == host.pages["a.example"]
    assert calm.failed == []
    assert calm.requests > 300
    crowd_and_late = (await refused(rig))["a"][2:]
    assert sum(crowd_and_late) == len(flood.failed)


async def test_what_a_site_can_not_take_at_once_waits_its_turn(
    rig: Rig, host: Host, routes: Routes
) -> None:
    """Twelve visitors of a site for two: all are served, never more than two at a time."""
    host.takes_s = 0.1
    await rig.driver.follow(limited(routes, a=but(in_flight=2)), SECOND)
    answers = await ask(rig, "a.example", times=12)
    assert {answer.status for answer in answers} == {200}
    assert host.peak["a.example"] == 2


async def test_a_queue_has_an_end_and_says_so(rig: Rig, host: Host, routes: Routes) -> None:
    """Who comes when as many wait as may, and who waited long enough, is told when to come back, in two languages."""
    host.takes_s = 0.6
    tight = but(in_flight=1, queue=2, queue_wait_s=0.3)
    await rig.driver.follow(limited(routes, a=tight), SECOND)
    answers = await ask(rig, "a.example", times=8)
    served = [answer for answer in answers if answer.status == 200]
    turned_away = [answer for answer in answers if answer.status == 503]
    assert (len(served), len(turned_away)) == (1, 7)
    assert {answer.retry_after for answer in turned_away} == {str(BUSY_AFTER_S)}
    assert "more visitors" in turned_away[0].body and "más visitas" in turned_away[0].body
    assert await refused(rig) == {"a": (0, 0, 5, 2)}


async def test_who_leaves_gives_up_its_place_in_the_queue_and_not_what_the_host_works_on(
    rig: Rig, host: Host, routes: Routes, request: pytest.FixtureRequest
) -> None:
    """Ten visitors of a site for two leave: the host still has two, and gets no other page; the queue is empty.

    HAProxy 3.0 sees that a waiting visitor has left only when the wait is over.
    """
    host.takes_s = 1.5
    wait_s = 10.0 if request.node.callspec.params["tools"] == "2.6" else 0.5
    await rig.driver.follow(limited(routes, a=but(in_flight=2, queue_wait_s=wait_s)), SECOND)
    writers = []
    for _ in range(10):
        _, writer = await asyncio.open_connection("127.0.0.1", int(rig.url.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\nhost: a.example\r\n\r\n")
        writers.append(writer)
    await asyncio.sleep(0.3)
    assert await present(rig, "sites") == 10
    for writer in writers:
        writer.close()
    await asyncio.sleep(0.6)
    assert await present(rig, "sites") == await present(rig, "serving") == 2
    await asyncio.sleep(1.2)
    assert await present(rig, "sites") == 0
    assert host.pages["a.example"] == 2


async def test_one_client_that_asks_too_often_is_held_and_no_other(
    rig: Rig, host: Host, routes: Routes
) -> None:
    """By its address, on this site only; HAProxy keeps a hash of it, not the address."""
    await rig.driver.follow(
        limited(routes, a=but(client_requests_per_min=10), b=but(client_requests_per_min=10)),
        SECOND,
    )
    crawler = await ask(rig, "a.example", times=30)
    assert Counter(answer.status for answer in crawler) == {200: 10, 429: 20}
    held = next(answer for answer in crawler if answer.status == 429)
    assert held.retry_after == str(CLIENT_AFTER_S)
    assert "network" in held.body and "red" in held.body
    assert [a.status for a in await ask(rig, "a.example", source="127.0.0.2")] == [200]
    assert [a.status for a in await ask(rig, "b.example")] == [200]
    table = await rig.ask("show table relevo:clients")
    assert "used:3" in table
    assert "127.0.0" not in table


async def test_a_page_s_files_take_no_turn(rig: Rig, host: Host, routes: Routes) -> None:
    """Thirty images at once of a site that may show one page in a second; what looks like a file but runs is a page."""
    await rig.driver.follow(
        limited(routes, a=but(in_flight=2, requests_burst=1, requests_per_s=1, queue_wait_s=0.05)),
        SECOND,
    )
    assert {a.status for a in await ask(rig, "a.example", "/a.png?v=2", times=30)} == {200}
    pages = await ask(rig, "a.example", "/index.php/a.png", times=3)
    assert Counter(answer.status for answer in pages) == {200: 1, 503: 2}


async def test_a_changed_limit_needs_no_reload_and_costs_no_request(
    rig: Rig, host: Host, routes: Routes
) -> None:
    """Under load, by the same transaction that moves hosts; the same worker serves on, with what it has counted."""
    pid = await rig.worker()
    async with visitors(rig.url, "a.example", "b.example") as seen:
        for revision in range(11, 31):
            limit = but(in_flight=revision)
            await rig.driver.follow(limited(routes, a=limit), Epoch(1, revision))
            assert rig.map_file()["a.example"].split("|")[2] == str(revision)
            await asyncio.sleep(0.02)
    assert seen.failed == []
    assert seen.requests > 100
    assert await rig.worker() == pid
    assert rig.metric("relevo_edge_map_commits_total") == 20
    assert rig.metric('relevo_edge_limited_sites{state="open"}') == 1
    await rig.driver.follow(routes, Epoch(1, 31))
    assert rig.map_file() == {"a.example": "w1", "b.example": "w1"}


async def test_a_closed_site_shows_its_page_and_its_neighbour_is_open(
    rig: Rig, host: Host, routes: Routes
) -> None:
    """Nothing of it reaches the host but a controller's own look at whether it would answer."""
    await rig.driver.follow(limited(routes, a=but(state=LimitState.CLOSED)), SECOND)
    answers = await ask(rig, "a.example", times=5) + await ask(rig, "a.example", "/a.css")
    assert {(answer.status, answer.retry_after) for answer in answers} == {
        (503, str(CLOSED_AFTER_S))
    }
    assert "closed" in answers[0].body and "cerrado" in answers[0].body
    assert host.pages["a.example"] == 0
    assert (await rig.get("b.example"))[:2] == (200, "w1")
    assert (await rig.get("a.example", proof=PROOF)) == (200, "w1", "w1")
    assert (await rig.get("a.example", proof="wrong"))[0] == 503


async def test_the_haproxy_is_the_one_that_it_should_be(
    rig: Rig, request: pytest.FixtureRequest
) -> None:
    """Else the other release would pass untested."""
    assert f"Version: {request.node.callspec.params['tools']}." in await rig.ask("show info")


async def test_in_shadow_nothing_is_held(rig: Rig, host: Host, routes: Routes) -> None:
    """Orders without limits are routes: no entry says more than its host, and no table has a line."""
    assert {a.status for a in await ask(rig, "a.example", times=100)} == {200}
    assert rig.map_file() == {"a.example": "w1", "b.example": "w1"}
    for table in ("sites", "files", "serving", "clients", "refused"):
        assert "used:0" in await rig.ask(f"show table relevo:{table}")


async def test_a_haproxy_killed_and_started_again_holds_what_it_held(
    rig: Rig, host: Host, routes: Routes
) -> None:
    """With nobody's help: the limits are in the file that it starts with."""
    limits = limited(routes, a=but(state=LimitState.CLOSED), b=but(client_requests_per_min=3))
    await rig.driver.follow(limits, SECOND)
    rig.process.kill()
    rig.process.start()
    await rig.up(W1)
    assert [answer.status for answer in await ask(rig, "a.example")] == [503]
    assert Counter(a.status for a in await ask(rig, "b.example", times=9)) == {200: 3, 429: 6}


async def test_a_penalty_ends_on_the_edge_itself(rig: Rig, host: Host, routes: Routes) -> None:
    """No order comes, no controller is asked: the step's time is over, and the next one is in force (R11)."""
    ends = wall() + 2.0
    steps = (
        but(state=LimitState.CLOSED, until=ends),
        but(since=ends),
    )
    orders = msgspec.structs.replace(routes, limits={A: steps}, sites={Domain("a.example"): A})
    await rig.driver.follow(orders, SECOND)
    assert (await rig.get("a.example"))[0] == 503
    pid = await rig.worker()
    async with keeping(rig), asyncio.timeout(10):
        while (await rig.get("a.example"))[0] != 200:
            await asyncio.sleep(0.05)
        assert wall() >= ends
        while not rig.map_file()["a.example"].startswith("w1|a|1000|"):
            await asyncio.sleep(0.05)
    assert await rig.worker() == pid


async def test_refusals_are_counted_by_their_reason(rig: Rig, routes: Routes) -> None:
    """Over the life of the agent, whatever HAProxy forgets."""
    await rig.driver.follow(
        limited(routes, a=but(state=LimitState.CLOSED), b=but(client_requests_per_min=2)), SECOND
    )
    await ask(rig, "a.example", times=3)
    await ask(rig, "b.example", times=3)
    async with keeping(rig), asyncio.timeout(5):
        while rig.metric('relevo_edge_refused_total{reason="closed"}') != 3:
            await asyncio.sleep(0.05)
    assert rig.metric('relevo_edge_refused_total{reason="client"}') == 1
    assert rig.metric('relevo_edge_refused_total{reason="crowd"}') == 0


async def test_a_worker_from_before_there_were_limits_is_told_hosts_only(
    rig: Rig, host: Host, routes: Routes
) -> None:
    """An agent that was upgraded moves sites at once and brings the limits with its reload: no request fails."""
    old = (rig.edge.directory / "haproxy.cfg").read_text().replace(' limits"', '"')
    begin, end = old.index("    acl proved"), old.index("    http-response del-header")
    old = (old[:begin] + old[end:]).replace(",field(1,|)", "")
    old = old.replace(digest_of(old), "0123456789abcdef")
    rig.process.end()
    (rig.edge.directory / "haproxy.cfg").write_text(old)
    rig.process.start()
    await rig.up(W1)
    driver = rig.again()
    async with visitors(rig.url, "a.example", "b.example") as seen:
        await asyncio.sleep(0.2)
        await driver.follow(limited(routes, a=but(in_flight=77)), SECOND)
        await asyncio.sleep(0.3)
    assert seen.failed == []
    assert rig.map_file()["a.example"].startswith("w1|a|77|")
    assert "w1|a|77|" in await rig.ask(f"show map {rig.edge.directory}/domains.map")
