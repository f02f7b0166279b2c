"""The edge's driver on a real HAProxy: moves, reloads, restarts, strays, and what visitors see of them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec
import pytest

from agent.ports import DriverError, EdgeView
from deploy.demo.packages import Tools
from fleet.messages import Routes, Target
from fleet.model import Domain, Epoch, Health, HostId
from tests.integration.edges import PROOF, Rig, domains, keeping, running, visitors, web_host

pytestmark = pytest.mark.integration

W1, W2, W3 = HostId("w1"), HostId("w2"), HostId("w3")
FIRST, SECOND, THIRD = Epoch(1, 10), Epoch(1, 11), Epoch(1, 12)


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def hosts(stack: AsyncExitStack) -> dict[HostId, Target]:
    """Two web hosts; the second one on IPv6."""
    return {
        W1: await stack.enter_async_context(web_host("w1", "127.0.0.11")),
        W2: await stack.enter_async_context(web_host("w2", "::1")),
    }


@pytest.fixture
def routes(hosts: dict[HostId, Target]) -> Routes:
    return Routes(hosts=hosts, domains=domains(a="w1", b="w2"), proof=PROOF)


@pytest.fixture
async def rig(tools: Tools, routes: Routes, stack: AsyncExitStack) -> Rig:
    rig = await stack.enter_async_context(running(tools, routes, FIRST))
    await rig.up(W1, W2)
    return rig


def moved(routes: Routes, **hosts: str) -> Routes:
    return msgspec.structs.replace(routes, domains={**routes.domains, **domains(**hosts)})


async def test_visitors_reach_the_host_of_their_domain(rig: Rig) -> None:
    """However the host is written; an unknown one gets a short page that tells nothing."""
    for written in ("a.example", "A.Example", "a.example.", "a.example:80", "A.EXAMPLE.:8080"):
        assert (await rig.get(written))[:2] == (200, "w1")
    assert (await rig.get("b.example"))[:2] == (200, "w2")
    status, body, _ = await rig.get("c.example")
    assert status == 421
    assert "w1" not in body and "haproxy" not in body.lower()
    assert (await rig.get("c.example", path="/.relevo/alive"))[:2] == (200, "alive")


async def test_only_who_carries_the_proof_learns_which_host_answered(rig: Rig) -> None:
    """The token stays at the edge, and a host can't speak for itself."""
    assert (await rig.get("a.example", proof=PROOF))[2] == "w1"
    assert (await rig.get("a.example", proof="wrong"))[2] == ""
    assert (await rig.get("a.example"))[2] == ""
    answer = await rig.ask("show map")
    assert PROOF not in answer + rig.process.log


async def test_a_move_costs_no_request_and_no_reload(rig: Rig, routes: Routes) -> None:
    """Under load, one transaction moves a site; the same worker serves on."""
    pid = await rig.worker()
    async with visitors(rig.url, "a.example", "b.example") as seen:
        for epoch in range(11, 31):
            await rig.driver.follow(moved(routes, a="w2" if epoch % 2 else "w1"), Epoch(1, epoch))
            assert (await rig.get("a.example"))[1] == ("w2" if epoch % 2 else "w1")
            await asyncio.sleep(0.02)
    assert seen.failed == []
    assert seen.requests > 100
    assert await rig.worker() == pid
    assert rig.metric("relevo_edge_map_commits_total") == 20
    assert (await rig.driver.look()).report.routes == Epoch(1, 30)


async def test_a_host_too_slow_for_its_checks_goes_on_serving(
    tools: Tools, stack: AsyncExitStack
) -> None:
    """A check is a witness, not a judge: what an overloaded host can still answer reaches its visitors."""
    slow = asyncio.Event()
    host = await stack.enter_async_context(web_host("w1", "127.0.0.11", slow=slow))
    routes = Routes(hosts={W1: host}, domains=domains(a="w1"), proof=PROOF)
    rig = await stack.enter_async_context(running(tools, routes, FIRST))
    await rig.up(W1)
    async with visitors(rig.url, "a.example", clients=4) as seen:
        slow.set()
        await rig.seen(lambda view: view.checks[W1].health is Health.DOWN)
        assert (await rig.get("a.example"))[:2] == (200, "w1")
        slow.clear()
        await rig.up(W1)
    assert seen.failed == []


async def test_a_new_host_costs_a_reload_and_no_request(
    rig: Rig, routes: Routes, stack: AsyncExitStack
) -> None:
    """A host is added under load and gets a site at once."""
    pid = await rig.worker()
    third = await stack.enter_async_context(web_host("w3", "127.0.0.13"))
    wider = msgspec.structs.replace(moved(routes, c="w3"), hosts={**routes.hosts, W3: third})
    async with visitors(rig.url, "a.example", "b.example") as seen:
        await asyncio.sleep(0.3)
        assert await rig.driver.follow(wider, SECOND) == ()
        assert (await rig.get("c.example"))[1] == "w3"
        await asyncio.sleep(0.7)
    assert seen.failed == []
    assert seen.requests > 100
    assert await rig.worker() != pid
    assert rig.metric('relevo_edge_reloads_total{outcome="done"}') == 1


async def test_reloads_in_haste_are_one_and_moves_do_not_wait_for_it(
    rig: Rig, routes: Routes, stack: AsyncExitStack
) -> None:
    """The first host added reloads at once; those right behind it share the next reload, moves go at once."""
    third = await stack.enter_async_context(web_host("w3", "127.0.0.13"))
    hosts = dict(routes.hosts)
    for number in range(3, 7):
        hosts[HostId(f"w{number}")] = third
        wider = msgspec.structs.replace(routes, hosts=dict(hosts))
        await rig.driver.follow(wider, Epoch(1, 10 + number))
    last = msgspec.structs.replace(moved(routes, a="w2", c="w6"), hosts=hosts)
    await rig.driver.follow(last, Epoch(1, 20))
    assert (await rig.get("a.example"))[1] == "w2"
    assert (await rig.get("c.example"))[0] == 421  # its host comes with the reload
    assert (await rig.driver.look()).report.routes < Epoch(1, 20)
    async with keeping(rig):
        await rig.seen(lambda view: view.report.routes == Epoch(1, 20))
    assert (await rig.get("c.example"))[1] == "w3"
    assert rig.metric('relevo_edge_reloads_total{outcome="done"}') == 2


async def test_health_survives_a_reload(
    tools: Tools, routes: Routes, stack: AsyncExitStack
) -> None:
    """After a reload a dead host is not asked again by visitors, and no look calls it anything but down."""
    dead = Target(address="127.0.0.99", port=9)
    with_dead = msgspec.structs.replace(moved(routes, c="w3"), hosts={**routes.hosts, W3: dead})
    rig = await stack.enter_async_context(running(tools, with_dead, FIRST, reload_delay_s=0))
    await rig.up(W1)
    await rig.seen(lambda view: view.checks[W3].health is Health.DOWN)
    fourth = {**with_dead.hosts, HostId("w4"): routes.hosts[W1]}
    wider = msgspec.structs.replace(with_dead, hosts=fourth)
    looks: list[EdgeView] = []
    async with asyncio.TaskGroup() as group:
        following = group.create_task(rig.driver.follow(wider, SECOND))
        while not following.done() or len(looks) < 60:
            looks.append(await rig.driver.look())
            await asyncio.sleep(0.02)
    assert all(view.checks[W3].health is Health.DOWN for view in looks if view.checks)
    assert all(view.checks[W1].health is Health.UP for view in looks if view.checks)
    row = next(r for r in (await rig.ask("show stat -1 4 -1")).splitlines() if r.startswith("w3,"))
    assert int(row.split(",")[21]) == 0, "the new worker had to find out by itself"
    state = (rig.edge.directory / "servers.state").read_text()
    assert state == "1\n", "a later start would believe what was true then"


async def test_after_a_start_nothing_is_up_before_it_was_checked(rig: Rig, routes: Routes) -> None:
    """HAProxy begins by believing that every host is up; its first answers are not passed on as such."""
    rig.process.end()
    await rig.seen(lambda view: not view.report.haproxy_up and view.checks == {})
    listener = await asyncio.start_server(lambda _, writer: None, "127.0.0.12", 0)
    silent = Target(address="127.0.0.12", port=listener.sockets[0].getsockname()[1])
    with pytest.raises(DriverError, match="haproxy at"):
        hosts = {**routes.hosts, W3: silent}
        await rig.driver.follow(msgspec.structs.replace(routes, hosts=hosts), SECOND)
    rig.process.start()
    healths = []
    async with asyncio.timeout(10):
        while Health.DOWN not in healths:
            if W3 in (checks := (await rig.driver.look()).checks):
                healths.append(checks[W3].health)
            await asyncio.sleep(0.01)
    assert Health.UP not in healths
    assert healths[0] is Health.UNKNOWN
    listener.close()


async def test_what_nobody_ordered_or_removed_stays_and_is_said(rig: Rig, routes: Routes) -> None:
    """Empty orders of a fresh controller, with the agent started anew too, change nothing; a tombstone does."""
    pid = await rig.worker()
    driver = rig.again()
    left = await driver.follow(Routes(), SECOND)
    assert any(text.startswith("a.example: ") for text in left)
    assert (await rig.get("a.example", proof=PROOF))[1:] == ("w1", "w1")
    assert await rig.worker() == pid
    view = await driver.look()
    assert view.report.strays == ("a.example", "b.example", "host w1", "host w2")
    assert rig.metric("relevo_edge_strays") == 4

    gone = Routes(
        hosts={W1: routes.hosts[W1]},
        domains=domains(a="w1"),
        removed_domains=(Domain("b.example"),),
        removed_hosts=(W2,),
    )
    assert await driver.follow(gone, THIRD) == ()
    assert (await rig.get("b.example"))[0] == 421
    assert (await driver.look()).checks.keys() == {W1}
    assert rig.map_file() == {"a.example": "w1"}


async def test_an_agent_started_anew_adopts_what_haproxy_does(rig: Rig, routes: Routes) -> None:
    """Equal routes: no reload, no transaction; the epoch is known before any order; older routes are refused."""
    pid, state = await rig.worker(), await rig.ask("show map")
    driver = rig.again()
    assert (await driver.look()).report.routes == FIRST
    assert await driver.follow(routes, FIRST) == ()
    assert (await rig.worker(), await rig.ask("show map")) == (pid, state)
    with pytest.raises(DriverError, match=r"1\.9 are older than those followed, 1\.10"):
        await driver.follow(moved(routes, a="w2"), Epoch(1, 9))
    assert (await rig.get("a.example"))[1] == "w1"


async def test_a_haproxy_killed_and_started_again_serves_the_last_routes_by_itself(
    rig: Rig, routes: Routes
) -> None:
    """With nobody's help; and orders that came while it was away are in force with its first request."""
    await rig.driver.follow(moved(routes, a="w2"), SECOND)
    rig.process.kill()
    with pytest.raises(DriverError):
        await rig.driver.follow(moved(routes, a="w2", c="w1"), THIRD)
    assert (await rig.driver.look()).report.routes == SECOND
    rig.process.start()
    await rig.up(W1, W2)
    assert [(await rig.get(f"{name}.example"))[1] for name in "abc"] == ["w2", "w2", "w1"]
    async with keeping(rig):
        await rig.seen(lambda view: view.report.routes == THIRD)


async def test_a_haproxy_that_dies_in_the_middle_of_moves_ends_as_ordered(
    rig: Rig, routes: Routes
) -> None:
    """Killed among transactions and started again, it follows the last order within seconds."""
    revision = 11
    async with keeping(rig):
        for turn in range(50):
            if turn in (15, 33):
                rig.process.kill()
                rig.process.start()
            revision += 1
            place = "w2" if revision % 2 else "w1"
            try:
                await rig.driver.follow(moved(routes, a=place), Epoch(1, revision))
            except DriverError:
                await asyncio.sleep(0.01)
        await rig.seen(lambda view: view.report.routes == Epoch(1, revision))
    await rig.up(W1, W2)
    assert (await rig.get("a.example"))[1] == place
    assert rig.map_file()["a.example"] == place


async def test_someone_else_s_hand_in_the_map_is_undone(rig: Rig, routes: Routes) -> None:
    """A changed, a removed and a foreign entry: the ordered ones come back, the foreign one stays and is said."""
    path = rig.edge.directory / "domains.map"
    async with keeping(rig):
        await asyncio.sleep(0.1)
        await rig.ask(f"del map {path} a.example")
        await rig.ask(f"add map {path} foreign.example w2")
        await rig.seen(lambda view: "foreign.example" in view.report.strays)
        assert (await rig.get("a.example"))[1] == "w1"
        await rig.ask(f"set map {path} a.example w2")
        await asyncio.sleep(1.2)  # one round
    assert (await rig.get("a.example"))[1] == "w1"
    assert (await rig.get("foreign.example"))[1] == "w2"


async def test_a_configuration_that_haproxy_refuses_changes_nothing_but_moves(
    rig: Rig, routes: Routes
) -> None:
    """Its message is passed on, the old configuration stays, and a move in the same orders is made."""
    before = (rig.edge.directory / "haproxy.cfg").read_text()
    rig.driver = type(rig.driver)(msgspec.structs.replace(rig.edge, bind=("no-such-address:x",)))
    with pytest.raises(DriverError, match="no-such-address"):
        await rig.driver.follow(moved(routes, a="w2"), SECOND)
    assert (rig.edge.directory / "haproxy.cfg").read_text() == before
    assert (await rig.get("a.example"))[1] == "w2"
    assert "no-such-address" in (await rig.driver.look()).report.error
    assert sorted(path.name for path in rig.edge.directory.iterdir()) == [
        "domains.epoch", "domains.map", "haproxy.cfg", "log", "master", "servers.state", "sock", "wait.lua",
    ]  # fmt: skip


async def test_an_injection_is_refused_by_name_and_the_rest_is_done(
    rig: Rig, routes: Routes
) -> None:
    """Nothing of a hostile name reaches HAProxy's socket or its configuration."""
    evil = "x.example w1\nset server w1/host state maint"
    pid = await rig.worker()
    hostile = msgspec.structs.replace(
        moved(routes, a="w2"),
        hosts={
            **routes.hosts,
            HostId("w9\nbackend x"): routes.hosts[W1],
            HostId("w8"): Target(address="127.0.0.1 check\n", port=80),
            HostId("w7"): Target(address="127.0.0.1", port=80, check="/' ver HTTP/1.1\nlisten x"),
        },
        domains={
            **moved(routes, a="w2").domains,
            Domain(evil): W1,
            Domain("d.example\n"): W1,
            Domain("e.example;show info"): W1,
            Domain("f.example"): HostId("w1\nclear map"),
        },
    )
    refused = await rig.driver.follow(hostile, SECOND)
    assert len(refused) == 7
    assert all("\n" not in text for text in refused)
    assert (await rig.get("a.example"))[1] == "w2"
    assert rig.map_file() == {"a.example": "w2", "b.example": "w2"}
    assert await rig.worker() == pid
    assert "maint" not in await rig.ask("show servers state")


async def test_twenty_thousand_domains_are_replaced_at_once(
    rig: Rig, routes: Routes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole map of a large edge in one commit; half of it moved in another."""
    now = asyncio.get_running_loop().time
    many = {Domain(f"site{number:05}.member.example"): W1 for number in range(20_000)}
    times = {}
    for epoch, (what, share) in enumerate((("all new", 0), ("half moved", 2), ("equal", 2)), 11):
        places = {d: W2 if share and n % share else W1 for n, d in enumerate(many)}
        began = now()
        await rig.driver.follow(
            msgspec.structs.replace(routes, domains={**routes.domains, **places}), Epoch(1, epoch)
        )
        times[what] = now() - began
    committed = rig.metric("relevo_edge_map_commit_seconds_sum")
    with capsys.disabled():
        shown = ", ".join(f"{what} {took_s * 1000:.0f} ms" for what, took_s in times.items())
        sys.stdout.write(f"\n20,000 domains: {shown}; two commits {committed * 1000:.0f} ms\n")
    assert (await rig.get("site00001.member.example"))[1] == "w2"
    assert (await rig.get("site00002.member.example"))[1] == "w1"
    assert (await rig.driver.look()).report.domains == 20_002
    assert max(times.values()) < 3
