"""A whole controller beside a name server that won't: sites move all the same, and what is amiss is said."""

import asyncio
import base64
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.message
import dns.query
import dns.tsig
import msgspec
import pytest

from controller.commands import Person
from controller.config import Config
from controller.dns import Zones
from controller.parts import Controller
from controller.ports import Answer
from controller.store import EmbeddedStore
from deploy.demo import knot
from deploy.demo.packages import Tools
from fleet.documents import read
from fleet.model import ControllerId, Fleet, HostId, Incident, NameServer, SiteId, Zone, ZoneName
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.integration.controllers import Blind
from tests.integration.knots import KEY, ZONE, lay_out, running
from tests.unit.fleets import GOOD

pytestmark = pytest.mark.integration

OTHER = "other.example"
TSIG = dns.tsig.Key(KEY.name, base64.b64decode(KEY.secret), KEY.algorithm)
WRONG = dns.tsig.Key(KEY.name, b"wrong" * 8, KEY.algorithm)
PERSON = Person("ana", "a test")
SHOP, HOME, REFUGE = SiteId("huerto"), HostId("mx1-web-01"), HostId("us1-web-01")
THERE = ["10.2.0.11", "fd00:2::11"]
REPAIRED_S = 25.0  # a retry after the fifth failure waits 15 s


class Everywhere:
    """A visitor for whom every site answers: the effect on names is what is looked at here."""

    async def ask(self, address: str, port: int, *, domain: str, path: str, proof: str) -> Answer:
        return Answer(200)


def coop(server: knot.Server, zone: str = ZONE) -> Fleet:
    """Two sites of a co-op without edges, whose names are in one zone on `server`."""
    lines = GOOD.partition("zones:")[0].splitlines(keepends=True)
    text = "".join(line for line in lines if "[edge]" not in line).replace(
        "example.org]", f"{zone}]"
    )
    text = text.replace("standbys: [us1-web-01]", "standbys: [us1-web-01], route: direct")
    declared = Zone(
        name=ZoneName(zone),
        primary=NameServer(address="127.0.0.1", port=server.port),
        key=KEY.name,
    )
    fleet = read(text, "coop.yaml")
    return msgspec.structs.replace(fleet, zones={declared.name: declared})


@asynccontextmanager
async def leading(
    store: EmbeddedStore, state: Path, key: dns.tsig.Key
) -> AsyncIterator[Controller]:
    """A controller that leads over `store`, and writes names with `key`."""
    controller = Controller(
        Config(id=ControllerId("c1"), state=state),
        store,
        exporter=Exporter(CONTROLLER),
        tokens={},
        name_servers=lambda cluster: Zones(cluster, {KEY.name: key}, timeout_s=1.0),
        visitor=Everywhere(),
        probing=Blind(),
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(controller.run())
        await until(controller, lambda: controller.decides)
        yield controller
        running.cancel()


async def until(controller: Controller, true: Callable[[], bool], within_s: float = 5.0) -> None:
    changed = controller.mirror.changed
    async with asyncio.timeout(within_s):
        while not true():
            await changed.within(changed.count, 0.05)


async def declare(controller: Controller, fleet: Fleet) -> None:
    await controller.commands.apply_fleet(fleet, PERSON, much=True)
    await until(controller, lambda: len(controller.mirror.places) == len(fleet.sites))


async def move(controller: Controller) -> None:
    """A person moves a site to a host that nobody hears: committed before it is answered."""
    _, moved = await controller.commands.move(
        SHOP, REFUGE, PERSON, old_host_stopped=True, anyway=True
    )
    assert [move.target for move in moved] == [REFUGE]
    assert controller.mirror.places[SHOP].host == REFUGE


def incident(controller: Controller) -> Incident:
    (one,) = controller.mirror.incidents.values()
    return one


async def said(controller: Controller, fleet: Fleet, code: str) -> None:
    """The zone is held for `code`, with its server; for as long as that stands the incident stays open."""
    (zone,) = fleet.zones.values()
    await until(controller, lambda: f"dns-{zone.name}" in controller.mirror.holds)
    await asyncio.sleep(1.0)
    hold = controller.mirror.holds[f"dns-{zone.name}"]
    assert (hold.kind, hold.subject, hold.why.code) == ("dns", zone.name, code)
    assert hold.why.values["server"] == str(zone.primary)
    assert hold.why.values["zone"] == zone.name
    assert controller.mirror.places[SHOP].host == REFUGE
    assert not incident(controller).complete
    assert incident(controller).closed_at is None


async def repaired(controller: Controller, server: knot.Server, zone: str = ZONE) -> None:
    """Every name of the site that moved is its new host's, the incident is complete, and nothing is held."""
    await until(controller, lambda: incident(controller).complete, REPAIRED_S)
    await until(controller, lambda: not controller.mirror.holds)
    name = f"huerto.{zone}"
    assert [*says(server, name, "A"), *says(server, name, "AAAA")] == THERE
    assert says(server, f"_relevo.{name}", "TXT")


def says(server: knot.Server, name: str, kind: str) -> list[str]:
    question = dns.message.make_query(name, kind, flags=0)
    answer = dns.query.tcp(question, "127.0.0.1", port=server.port, timeout=5)
    return sorted(rdata.to_text() for rrset in answer.answer for rdata in rrset)


def content(server: knot.Server) -> set[str]:
    """All that the zone says, serial included."""
    transfer = dns.message.make_query(ZONE, "AXFR")
    transfer.use_tsig(TSIG)
    answer = dns.query.tcp(transfer, "127.0.0.1", port=server.port, timeout=5)
    return {rrset.to_text() for rrset in answer.answer}


@pytest.fixture
def primary(tools: Tools, tmp_path: Path) -> Iterator[tuple[knot.Server, subprocess.Popen[bytes]]]:
    """A running primary of ZONE, and its process."""
    server, _ = lay_out(tmp_path / "knot")
    server.config.write_text(knot.primary(server, KEY, [ZONE], []))
    with running(tools, server) as process:
        yield server, process


async def test_a_wrong_key_is_named_until_it_is_right(
    primary: tuple[knot.Server, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Signed with a wrong secret nothing is written, and the reason is BADSIG; a restart with the right one goes on."""
    server, fleet = primary[0], coop(primary[0])
    before = content(server)
    async with EmbeddedStore.open(None) as store:
        async with leading(store, tmp_path, WRONG) as controller:
            await declare(controller, fleet)
            await move(controller)
            await said(controller, fleet, "dns-bad-key")
            hold = controller.mirror.holds[f"dns-{ZONE}"]
            assert (hold.why.values["rcode"], hold.why.values["key"]) == ("BADSIG", KEY.name)
            assert content(server) == before
        async with leading(store, tmp_path, TSIG) as controller:
            await repaired(controller, server)
    assert before - content(server) == {line for line in before if " SOA " in line}


async def test_a_server_that_stands_still_is_waited_for(
    primary: tuple[knot.Server, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A stopped knotd takes connections and answers nothing: a timeout that names it, until it goes on."""
    (server, process), fleet = primary, coop(primary[0])
    before = content(server)
    async with EmbeddedStore.open(None) as store, leading(store, tmp_path, TSIG) as controller:
        await declare(controller, fleet)
        process.send_signal(signal.SIGSTOP)
        try:
            await move(controller)
            await said(controller, fleet, "dns-timeout")
        finally:
            process.send_signal(signal.SIGCONT)
        await repaired(controller, server)
    assert before - content(server) == {line for line in before if " SOA " in line}


async def test_a_zone_on_the_wrong_server_is_named_until_the_fleet_names_the_right_one(
    tools: Tools, primary: tuple[knot.Server, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """A server that does not hold the zone refuses, and keeps its own as it was; the right one gets the names."""
    wrong, fleet = primary[0], coop(primary[0], OTHER)
    right, _ = lay_out(tmp_path / "right")
    right.config.write_text(knot.primary(right, KEY, [ZONE, OTHER], []))
    knot.zone_file(right, OTHER).write_text(knot.empty_zone(OTHER, (right,)))
    before = content(wrong)
    async with EmbeddedStore.open(None) as store, leading(store, tmp_path, TSIG) as controller:
        await declare(controller, fleet)
        await move(controller)
        await said(controller, fleet, "dns-refused")
        assert content(wrong) == before
        with running(tools, right):
            await controller.commands.apply_fleet(coop(right, OTHER), PERSON, much=True)
            await repaired(controller, right, OTHER)
            assert content(right)
    assert content(wrong) == before
