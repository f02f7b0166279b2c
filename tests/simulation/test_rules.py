"""DESIGN's rules one by one, each in a world where it matters, on the real controllers and agents."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from controller import settle
from controller.commands import Commands
from controller.sight import Refused
from controller.store import Cmp, LeaseLost, Op, Put, TxnResult
from controller.store.campaign import Elected
from failover.judge import Kind
from failover.policy import Policy
from fleet import keys
from fleet.model import Arming, Domain, Epoch, Health, HostId, Note, RecordSet, SiteId
from runtime.clock import wall
from tests.simulation.conftest import Play
from tests.simulation.coop import Shape
from tests.simulation.faults import order
from tests.simulation.machines import now
from tests.simulation.rules import ANA, HEARD_S
from tests.simulation.world import World

WEB1, WEB2, EDGE1, EDGE2 = map(HostId, ("web1", "web2", "edge1", "edge2"))


def cut_from_controllers(made: World, host: HostId) -> None:
    for seat in made.seats:
        made.network.cut(host, seat)
        made.network.cut(seat, host)


async def comes_back_with(made: World, host: HostId, **said: object) -> None:
    """Its agent begins anew from orders on its disk that say this, and has been heard."""
    memory = made.machines[host].memory
    assert memory.orders is not None
    memory.orders = msgspec.structs.replace(memory.orders, **said)
    await made.restart_agent(host, 0.5)
    await asyncio.sleep(HEARD_S)


def overtaken(
    made: World, monkeypatch: pytest.MonkeyPatch, key: bytes, value: bytes | None
) -> list[bool]:
    """Just before the first commit of moves somebody writes `key`: `value`, or what it says already.

    Gives whether each commit of moves was taken.
    """
    commit, taken = Elected.txn, list[bool]()

    async def txn(self: Elected, then: Sequence[Op], when: Sequence[Cmp] = ()) -> TxnResult:
        if not any(op.key.startswith(keys.PLACEMENTS) for op in then):
            return await commit(self, then, when)
        if not taken:
            found = await made.store.get(key)
            await made.store.put(key, value or (found.value if found else b"{}"))
        result = await commit(self, then, when)
        taken.append(result.ok)
        return result

    monkeypatch.setattr(Elected, "txn", txn)
    return taken


async def nothing_moves(made: World, for_s: float) -> None:
    await asyncio.sleep(for_s)
    assert made.rules.moves == [], made.report("something moved")


async def all_served(made: World, within_s: float = 30.0) -> None:
    await made.until(lambda: not made.rules.unserved(), within_s, "all served")


def _moving(target: HostId) -> Callable[[Commands], Awaitable[object]]:
    return lambda commands: commands.move(SiteId("site0-web1"), target, ANA, anyway=True)


def verdict(made: World, host: HostId) -> Kind:
    assert made.leader is not None
    return made.leader.board.verdicts[host].kind


def test_a_dead_hosts_sites_are_served_by_their_standby_within_seconds(in_world: Play) -> None:
    """Every armed automatic site, through every edge, with its incident complete; the others stay."""

    async def story(made: World) -> None:
        made.power_off(WEB1)
        began = now()
        await made.until(lambda: len(made.rules.moves) == 3, 4.0, "three moves")
        await all_served(made, 5.0)
        assert now() - began < 8.0
        kept = {id for id, place in made.places.items() if place.host == WEB1}
        assert kept == {"gated-web1", "manual-web1", "watched-web1"}

    in_world(story)


def test_each_phase_of_a_failover_is_measured(in_world: Play) -> None:
    """Detect, decide, commit, edges, dns, proven: one observation each for one failover."""

    async def story(made: World) -> None:
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == 3, 4.0, "three moves")
        await all_served(made, 10.0)
        await made.until(
            lambda: any(incident.complete for incident in made.rules.incidents.values()),
            10.0,
            "the incident is complete",
        )
        leading = next(seat.controller for seat in made.seats.values() if seat.leads)
        assert leading is not None
        lines = leading.exporter.render().decode().splitlines()
        for phase in ("detect", "decide", "commit", "edges", "dns", "proven", "complete"):
            assert f'relevo_failover_phase_seconds_count{{phase="{phase}"}} 1.0' in lines

    in_world(story)


def test_without_edges_the_controller_and_the_neighbours_see_a_host_die(in_world: Play) -> None:
    """Direct sites only: DNS follows the move."""

    async def story(made: World) -> None:
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == 3, 6.0, "three moves")
        await all_served(made, 20.0)

    in_world(story, Shape(edges=0, controllers=1))


def test_r1_a_deposed_leaders_commit_fails_and_there_is_one_leader(in_world: Play) -> None:
    """A leader that stands still past its lease finds another in its place, and writes nothing more."""

    async def story(made: World) -> None:
        old = next(seat for seat in made.seats.values() if seat.leads)
        assert old.controller and old.controller.leader.leadership
        leadership = old.controller.leader.leadership
        old.freeze(8.0)
        made.power_off(WEB1)
        await made.until(lambda: made.leader is not None, 7.0, "another leader")
        old.thaw()
        with pytest.raises(LeaseLost):
            await leadership.txn([Put(keys.BUDGET, b"{}")])
        await made.until(lambda: len(made.rules.moves) == 3, 20.0, "the new leader's moves")
        assert [seat.id for seat in made.seats.values() if seat.leads] != [old.id]

    in_world(story)


def test_r1_the_store_refuses_a_leader_whose_key_is_gone(in_world: Play) -> None:
    """It believes in its lease; the fence in each transaction does not."""

    async def story(made: World) -> None:
        assert made.leader and made.leader.leader.leadership
        leadership = made.leader.leader.leadership
        budget = await made.store.get(keys.BUDGET)
        await made.store.delete(keys.LEADER)
        assert not leadership.lost.is_set()
        with pytest.raises(LeaseLost):
            await leadership.txn([Put(keys.BUDGET, b"{}")])
        assert await made.store.get(keys.BUDGET) == budget

    in_world(story)


@pytest.mark.parametrize("key", [keys.placements(WEB1), keys.FLEET], ids=["places", "fleet"])
def test_r1_an_order_that_was_judged_by_what_changed_meanwhile_is_refused(
    in_world: Play, key: bytes
) -> None:
    """The document it was judged by is written anew in that moment: nothing moves, and given again it is followed."""
    site = SiteId("site0-web1")

    async def story(made: World) -> None:
        found = await made.store.get(key)
        assert made.leader and found
        await made.store.put(key, found.value)  # the leader's mirror follows a moment later
        with pytest.raises(Refused, match="changed-meanwhile"):
            await made.leader.commands.move(site, WEB2, ANA)
        await nothing_moves(made, 3.0)
        assert await order(made, _moving(WEB2))
        assert made.places[site].host == WEB2

    in_world(story)


@pytest.mark.parametrize("what", ["fleet", "switches", "budget", "drain", "places"])
def test_r1_a_failover_decided_from_what_changed_meanwhile_is_not_committed(
    in_world: Play, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """One document that it was decided from is written just before its commit: it is decided anew, once."""
    key = {
        "fleet": keys.FLEET,
        "switches": keys.SWITCHES,
        "budget": keys.BUDGET,
        "drain": keys.drain(WEB1),
        "places": keys.placements(WEB1),
    }[what]
    over = Note(owner="ana", reason="over by now", since=0.0, until=1.0)

    async def story(made: World) -> None:
        taken = overtaken(made, monkeypatch, key, settle.encode(over) if what == "drain" else None)
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == 3, 6.0, "three moves")
        assert taken == [False, True]

    in_world(story)


def test_r1_a_failover_that_a_pause_has_overtaken_is_not_committed(
    in_world: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause is in the store, and not yet known to the leader as it commits: nothing moves until it ends."""

    async def story(made: World) -> None:
        assert made.leader
        note = Note(owner="ana", reason="rehearsal", since=wall(), until=wall() + 60.0)
        paused = msgspec.structs.replace(made.leader.mirror.switches, paused=note)
        taken = overtaken(made, monkeypatch, keys.SWITCHES, settle.encode(paused))
        made.power_off(WEB1)
        await nothing_moves(made, 30.0)
        assert taken == [False]
        await made.until(lambda: len(made.rules.moves) == 3, 60.0, "three moves after the pause")

    in_world(story)


@pytest.mark.parametrize("lost", [1, 2, 6])
def test_r2_a_rewound_store_gives_no_orders_and_moves_nothing(in_world: Play, lost: int) -> None:
    """Agents hold orders that the store does not know: nothing is ordered, moved or written to DNS until recovered.

    Also where the backup lacks so little that its own revisions have caught up before any agent was heard.
    """

    async def story(made: World) -> None:
        made.back_up()
        for n in range(lost):  # a history that the backup lacks
            target = HostId(f"web{2 + n % 2}")
            assert await order(made, _moving(target))
            await asyncio.sleep(3.0)
        routes = {m.id: dict(m.haproxy.domains) for m in made.machines.values() if m.haproxy}
        names, count = dict(made.primary.names), len(made.rules.moves)
        await made.rewind()
        await asyncio.sleep(10.0)
        assert made.leader and made.leader.board.rewound, made.report("not noticed")
        made.power_off(HostId("web4"))
        await asyncio.sleep(20.0)
        assert len(made.rules.moves) == count, made.report("something moved")
        assert made.primary.names == names
        for machine in made.machines.values():
            if machine.haproxy:
                assert machine.haproxy.domains == routes[machine.id], made.report("routes")

    in_world(story)


@pytest.mark.parametrize("lost", [1, 6])
def test_r2_a_recovered_store_knows_what_it_had_forgotten_and_relevo_goes_on(
    in_world: Play, lost: int
) -> None:
    """Sites stay where visitors find them, the next generation is followed, and hosts that die are moved again."""

    async def story(made: World) -> None:
        made.back_up()
        for n in range(lost):
            assert await order(made, _moving(HostId(f"web{2 + n % 2}")))
            await asyncio.sleep(3.0)
        routes = {m.id: dict(m.haproxy.domains) for m in made.machines.values() if m.haproxy}
        await made.rewind()
        await asyncio.sleep(10.0)
        assert made.leader and made.leader.board.rewound, made.report("not noticed")
        made.power_off(HostId("web4"))
        with pytest.raises(Refused, match="recovery-unheard"):
            await made.leader.recoverer.recover(ANA)
        made.boot(HostId("web4"))
        await asyncio.sleep(6.0)
        found = await made.leader.recoverer.recover(ANA)
        assert found.recovery.conflicts == ()
        await made.until(
            lambda: made.leader is not None and not made.leader.board.rewound, 5, "well"
        )
        await asyncio.sleep(5.0)
        for machine in made.machines.values():
            if machine.haproxy:
                assert machine.haproxy.domains == routes[machine.id], made.report("routes")
                assert machine.haproxy.epoch.generation == 2
        made.power_off(HostId("web4"))
        await all_served(made)

    in_world(story)


def test_r2_an_edge_with_another_cluster_s_orders_stops_everything(in_world: Play) -> None:
    """Though their epoch and commit are the store's own: what they were given by is another store."""

    async def story(made: World) -> None:
        await comes_back_with(made, EDGE1, cluster="another")
        assert made.leader and made.leader.sight.rewound, made.report("not noticed")
        made.power_off(WEB1)
        await nothing_moves(made, 30.0)

    in_world(story)


def test_r3_a_gated_site_of_a_dead_host_waits_for_a_word_that_it_is_stopped(in_world: Play) -> None:
    """Its host lost its power, and relevo can't know that it is for good: the others move, it waits for ana's word."""
    gated = SiteId("gated-web1")

    async def story(made: World) -> None:
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == 3, 4.0, "three moves")
        await asyncio.sleep(30.0)
        assert made.places[gated].host == WEB1 and made.leader is not None
        held = {h.site: h.why.code for h in made.leader.mirror.holds[f"move-{WEB1}"].sites}
        assert held[gated] == "gated-not-fenced"
        assert not await order(made, lambda commands: commands.move(gated, WEB2, ANA))
        assert made.places[gated].host == WEB1
        stopped = await order(
            made, lambda commands: commands.move(gated, WEB2, ANA, old_host_stopped=True)
        )
        assert stopped and made.places[gated].host == WEB2

    in_world(story)


def test_r3_bringing_sites_home_leaves_gated_ones_where_they_are(in_world: Play) -> None:
    """Nobody said that their hosts stopped writing: automatic sites go home, gated ones wait for ana's word."""
    gated, automatic = SiteId("gated-web1"), SiteId("site0-web1")

    async def story(made: World) -> None:
        assert await order(
            made, lambda commands: commands.move(gated, WEB2, ANA, old_host_stopped=True)
        )
        assert await order(made, _moving(WEB2))
        assert made.places[gated].host == made.places[automatic].host == WEB2
        assert await order(made, lambda commands: commands.activate(WEB1, ANA, bring_home=True))
        assert made.places[automatic].host == WEB1
        assert made.places[gated].host == WEB2

    in_world(story)


def test_r4_a_host_that_an_edge_still_reaches_is_never_dead(in_world: Play) -> None:
    """Cut off from every controller, seen by one edge of two: its agent is lost, nothing moves."""

    async def story(made: World) -> None:
        cut_from_controllers(made, WEB1)
        made.network.cut(EDGE1, WEB1)
        await nothing_moves(made, 60.0)
        assert verdict(made, WEB1) is Kind.AGENT_LOST

    in_world(story)


def test_r4_a_beating_host_that_no_edge_reaches_is_never_dead(in_world: Play) -> None:
    """The way is broken, the host lives: suspect, and nothing moves."""

    async def story(made: World) -> None:
        for edge in (EDGE1, EDGE2):
            made.network.cut(edge, WEB1)
        await nothing_moves(made, 60.0)
        assert verdict(made, WEB1) is Kind.SUSPECT

    in_world(story)


def test_r4_no_live_edge_is_no_witness(in_world: Play) -> None:
    """Both edges and a host are cut off: nobody can tell, nothing moves."""

    async def story(made: World) -> None:
        for host in (EDGE1, EDGE2, WEB1):
            cut_from_controllers(made, host)
        await nothing_moves(made, 60.0)
        assert verdict(made, WEB1) is Kind.UNKNOWN

    in_world(story)


@pytest.mark.parametrize("for_s", [0.8, 1.5, 2.5, 5.0, 20.0])
def test_r5_a_controller_that_stood_still_blames_itself(in_world: Play, for_s: float) -> None:
    """However long it was stopped, it moves nothing for its own blindness."""

    async def story(made: World) -> None:
        for _ in range(5):
            for seat in made.seats.values():
                seat.freeze(for_s)
            await asyncio.sleep(for_s)
            for seat in made.seats.values():
                seat.thaw()
            await nothing_moves(made, 8.0)

    in_world(story)


@pytest.mark.parametrize("for_s", [2.5, 6.0])
def test_r5_after_a_stall_it_watches_for_a_while_before_it_moves(
    in_world: Play, for_s: float
) -> None:
    """A host died while it stood still: its sites go, but not before the controller trusts itself again."""

    async def story(made: World) -> None:
        (seat,) = made.seats.values()
        made.power_off(WEB1)
        seat.freeze(for_s)
        await asyncio.sleep(for_s)
        seat.thaw()
        await nothing_moves(made, made.policy.unreachable_s - 0.2)
        await made.until(lambda: len(made.rules.moves) == 3, 10.0, "three moves")

    in_world(story, Shape(controllers=1))


def test_r5_a_fresh_controller_that_hears_nobody_moves_nothing(in_world: Play) -> None:
    """All agents are cut off from a controller that starts: the common cause is here."""

    async def story(made: World) -> None:
        for host in made.machines:
            cut_from_controllers(made, host)
        for seat in made.seats.values():
            await seat.kill()
            seat.start()
        await nothing_moves(made, 60.0)

    in_world(story)


def test_r5_an_edge_whose_agent_stood_still_convicts_nobody(in_world: Play) -> None:
    """A stalled observer and a host that only controllers lost: nothing moves."""

    async def story(made: World) -> None:
        cut_from_controllers(made, WEB1)
        for for_s in (1.2, 1.8, 3.0, 6.0):
            for edge in (EDGE1, EDGE2):
                agent = made.machines[edge].agent
                assert agent
                agent.freeze()
                await asyncio.sleep(for_s)
                agent.thaw()
                await nothing_moves(made, 5.0)

    in_world(story)


def test_r5_an_edge_that_lost_most_hosts_at_once_blames_itself(in_world: Play) -> None:
    """Its own way is broken: its word does not convict a host that the controllers lost as well."""

    async def story(made: World) -> None:
        for host in made.machines:
            if host != EDGE1:
                made.network.cut(EDGE1, host)
        cut_from_controllers(made, WEB1)
        await nothing_moves(made, 60.0)
        assert verdict(made, WEB1) is Kind.UNKNOWN

    in_world(story, Shape(edges=1))


def test_r6_without_controllers_traffic_and_dns_stay_as_they_are(in_world: Play) -> None:
    """A host dies meanwhile: its sites wait, no route and no name changes, all others are served."""

    async def story(made: World) -> None:
        for seat in made.seats.values():
            await seat.kill()
        made.power_off(WEB1)
        await nothing_moves(made, 120.0)
        here = [id for id, place in made.places.items() if place.host != WEB1]
        assert all(made.rules.served(id) for id in here)
        for seat in made.seats.values():
            seat.start()
        await all_served(made, 40.0)

    in_world(story)


def test_r6_a_store_that_is_away_changes_nothing_and_ends_no_controller(in_world: Play) -> None:
    """No move while it is away; when it is back the dead host's sites go."""

    async def story(made: World) -> None:
        made.weather.leave()
        for seat in made.seats.values():
            assert seat.client
            seat.client.abandon()
        made.power_off(WEB1)
        await nothing_moves(made, 60.0)
        assert all(seat.runs for seat in made.seats.values())
        made.weather.come_back()
        await all_served(made, 40.0)

    in_world(story)


def test_r7_a_domain_leaves_the_edges_only_when_it_was_told_to(in_world: Play) -> None:
    """A site that leaves the fleet takes its domain along, by a tombstone; every other one stays."""

    async def story(made: World) -> None:
        gone = SiteId("site0-web2")
        domain = made.fleet.sites[gone].domains[0]
        rest = {id: site for id, site in made.fleet.sites.items() if id != gone}
        smaller = msgspec.structs.replace(made.fleet, sites=rest)
        before = {m.id: set(m.haproxy.domains) for m in made.machines.values() if m.haproxy}
        made.rules.told_to_remove.add(domain)
        assert await order(made, lambda commands: commands.apply_fleet(smaller, ANA, remove=True))
        await asyncio.sleep(5.0)
        for machine in made.machines.values():
            if machine.haproxy:
                assert before[machine.id] - set(machine.haproxy.domains) == {domain}

    in_world(story)


def test_r7_a_tombstone_waits_for_an_edge_that_no_new_leader_has_heard(in_world: Play) -> None:
    """An edge is off while a site leaves and a leader begins: it still learns, when it boots, what to remove."""

    async def story(made: World) -> None:
        gone = SiteId("site0-web2")
        domain = made.fleet.sites[gone].domains[0]
        edge = made.machines[EDGE2]
        made.power_off(EDGE2)
        for seat in made.seats.values():
            await seat.kill()
            seat.start()
        await made.until(lambda: made.leader is not None, 20.0, "a leader")
        await asyncio.sleep(12.0)
        rest = {id: site for id, site in made.fleet.sites.items() if id != gone}
        smaller = msgspec.structs.replace(made.fleet, sites=rest)
        made.rules.told_to_remove.add(domain)
        assert await order(made, lambda commands: commands.apply_fleet(smaller, ANA, remove=True))
        await asyncio.sleep(20.0)
        assert made.leader is not None and made.leader.mirror.tombstones
        assert edge.haproxy is not None
        made.boot(EDGE2)
        await made.until(
            lambda: made.leader is not None and not made.leader.mirror.tombstones, 30.0, "buried"
        )
        assert domain not in edge.haproxy.domains

    in_world(story)


def test_r7_a_host_that_left_the_fleet_and_is_declared_again_has_never_reported(
    in_world: Play,
) -> None:
    """A machine of an old name that is not set up yet is not judged dead by what was known of its forerunner."""

    async def story(made: World) -> None:
        rest = {id: host for id, host in made.fleet.hosts.items() if id != EDGE2}
        smaller = msgspec.structs.replace(made.fleet, hosts=rest)
        assert await order(made, lambda commands: commands.apply_fleet(smaller, ANA, remove=True))
        made.power_off(EDGE2)
        await asyncio.sleep(30.0)
        assert await order(made, lambda commands: commands.apply_fleet(made.fleet, ANA))
        await asyncio.sleep(30.0)
        assert made.leader is not None
        assert made.leader.board.verdicts[EDGE2].why.code == "never-reported"
        assert not made.leader.mirror.withdrawn
        made.boot(EDGE2)
        await made.until(lambda: verdict(made, EDGE2) is Kind.UP, 30.0, "edge2 up")

    in_world(story)


@pytest.mark.patient
def test_r8_past_three_causes_an_hour_only_a_person_acts(in_world: Play) -> None:
    """Four hosts die minutes apart: three fail over, the fourth waits until ana drains it."""

    async def story(made: World) -> None:
        for n in (1, 3, 5, 7):
            made.power_off(HostId(f"web{n}"))
            await asyncio.sleep(90.0)
        assert {source for _, _, source, _, _ in made.rules.moves} == {"web1", "web3", "web5"}
        assert made.leader is not None
        brakes = [hold for hold in made.leader.mirror.holds.values() if hold.kind == "brake"]
        assert [hold.subject for hold in brakes] == ["web7"]
        assert await order(made, lambda commands: commands.drain(HostId("web7"), 60.0, ANA))
        await all_served(made)

    in_world(story, Shape(web=8, edges=2), Policy(location_ratio=1.0))


def test_r10_a_name_without_our_mark_is_never_touched(in_world: Play) -> None:
    """A site is declared with a name that someone else keeps: it becomes a hold, its record stays."""

    async def story(made: World) -> None:
        name = Domain("webmail.coop.example")
        site = made.fleet.sites[SiteId("direct-web1")]
        taken = msgspec.structs.replace(site, domains=(*site.domains, name))
        fleet = msgspec.structs.replace(made.fleet, sites={**made.fleet.sites, site.id: taken})
        assert await order(made, lambda commands: commands.apply_fleet(fleet, ANA))
        await asyncio.sleep(5.0)
        assert made.primary.read(name).records == RecordSet(a=("198.51.100.7",))
        assert made.leader is not None
        assert made.leader.mirror.holds[f"dns-{name}"].why.code == "dns-not-ours"

    in_world(story)


def test_r10_a_direct_site_that_nobody_armed_keeps_its_names(in_world: Play) -> None:
    """Its host has another address: an armed site's name follows, one that is only observed stays as it was."""
    observed, armed = SiteId("direct-web1"), SiteId("direct-web2")

    async def story(made: World) -> None:
        names = {id: made.fleet.sites[id].domains[0] for id in (observed, armed)}
        assert await order(
            made, lambda commands: commands.arm("site", observed, Arming.OBSERVE, ANA)
        )
        before = {id: made.primary.read(name) for id, name in names.items()}
        assert not before[observed].empty
        hosts = dict(made.fleet.hosts)
        for host, address in ((WEB1, "10.0.1.1"), (WEB2, "10.0.1.2")):
            hosts[host] = msgspec.structs.replace(hosts[host], addresses=(address,))
            made.by_address[address] = host
        fleet = msgspec.structs.replace(made.fleet, hosts=hosts)
        assert await order(made, lambda commands: commands.apply_fleet(fleet, ANA))
        await made.until(
            lambda: made.primary.read(names[armed]) != before[armed], 20.0, "the armed name"
        )
        await asyncio.sleep(20.0)
        assert made.primary.read(names[observed]) == before[observed]

    in_world(story)


def test_r11_a_pause_ends_by_itself(in_world: Play) -> None:
    """A host that dies in a pause is left alone until the pause is over, and not longer."""

    async def story(made: World) -> None:
        assert await order(made, lambda commands: commands.pause(20.0, ANA))
        made.power_off(WEB1)
        await nothing_moves(made, 19.0)
        await made.until(lambda: len(made.rules.moves) == 3, 2.0, "three moves after the pause")

    in_world(story)


def test_r11_a_drain_ends_by_itself(in_world: Play) -> None:
    """A drained host is no refuge while its drain lasts, and one afterwards."""

    async def story(made: World) -> None:
        assert await order(made, lambda commands: commands.drain(WEB2, 20.0, ANA))
        made.power_off(WEB1)
        await asyncio.sleep(10.0)
        assert {t for _, _, s, t, _ in made.rules.moves if s == WEB1} == {"web3"}
        await asyncio.sleep(30.0)
        made.power_off(HostId("web4"))  # its standbys: web1, dead, and web2
        await made.until(
            lambda: {t for _, _, s, t, _ in made.rules.moves if s == "web4"} == {WEB2},
            10.0,
            "web2 as a refuge",
        )

    in_world(story, None, Policy(location_ratio=1.0))


def test_r12_an_incident_is_open_while_a_live_edge_does_not_follow(in_world: Play) -> None:
    """An edge beats while its HAProxy is down: complete only once it routes to the new host."""

    async def story(made: World) -> None:
        edge = made.machines[EDGE2]
        assert edge.haproxy is not None
        made.power_off(WEB1)
        edge.haproxy.up = False
        edge.note()
        await made.until(lambda: len(made.rules.moves) == 3, 6.0, "three moves")
        await asyncio.sleep(20.0)
        moving = [i for i in made.rules.incidents.values() if i.subject == WEB1]
        assert moving and not any(incident.complete for incident in moving)
        edge.haproxy.up = True
        edge.note()
        await all_served(made)

    in_world(story)


def test_r12_an_incident_is_open_while_a_moved_site_does_not_answer(in_world: Play) -> None:
    """Every edge follows, and one site answers with an error from its new host: not proven, not complete."""

    async def story(made: World) -> None:
        made.broken |= set(made.fleet.sites[SiteId("site0-web1")].domains)
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == 3, 6.0, "three moves")
        await asyncio.sleep(20.0)
        moving = [i for i in made.rules.incidents.values() if i.subject == WEB1]
        assert moving and not any(incident.complete for incident in moving)
        made.broken.clear()
        await all_served(made)

    in_world(story)


@pytest.mark.parametrize("word", [Health.DOWN, Health.UP])
def test_r15_a_lying_hosting_server_is_one_voice_never_the_deciding_one(
    in_world: Play, word: Health
) -> None:
    """web2 calls everyone dead, or alive: nothing moves but what others see, and that moves."""

    async def story(made: World) -> None:
        made.machines[WEB2].lies = dict.fromkeys(made.machines, word)
        cut_from_controllers(made, HostId("web3"))
        await nothing_moves(made, 40.0)
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == 3, 6.0, "web1's sites moved")

    in_world(story, Shape(web=5, edges=2, controllers=1), Policy(location_ratio=1.0))


def test_r15_one_hosting_server_alone_can_not_have_the_store_called_rewound(
    in_world: Play,
) -> None:
    """web2 claims orders that nobody gave, and a dead host's sites move all the same; two that do are believed."""
    claim = {"epoch": Epoch(1, 10**9), "commit": "nobody-s"}

    async def story(made: World) -> None:
        await comes_back_with(made, WEB2, **claim)
        assert made.leader and made.leader.board.rewound is None, made.report("believed")
        made.power_off(WEB1)
        await made.until(lambda: len(made.rules.moves) == 3, 6.0, "web1's sites moved")
        await comes_back_with(made, HostId("web3"), **claim)
        assert made.leader and made.leader.sight.rewound, made.report("not believed")

    in_world(story)


@pytest.mark.patient
def test_restarts_of_controllers_agents_and_haproxy_move_nothing(in_world: Play) -> None:
    """Twenty of each, one after the other: upgrades are non-events."""

    async def story(made: World) -> None:
        for n in range(20):
            host = sorted(made.machines)[n % len(made.machines)]
            await made.restart_agent(host, 1.0 + n % 5)
            haproxy = made.machines[(EDGE1, EDGE2)[n % 2]].haproxy
            assert haproxy is not None
            haproxy.up = False
            await asyncio.sleep(0.4)
            haproxy.up = True
            haproxy.checker.forget()
            seat = [*made.seats.values()][n % 2]
            await seat.kill()
            await asyncio.sleep(1.0)
            seat.start()
            await nothing_moves(made, 3.0)
        await nothing_moves(made, 30.0)

    in_world(story)
