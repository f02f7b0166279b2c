"""What sites may send out, by a real nft in network namespaces that the test makes: a host, and the world beside it."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from agent.caps.egress import Nft, Rules
from agent.isolate import Change, House, Policy, State, decide
from agent.layout.attached import Attached
from agent.ports import DriverError
from agent.signals import HostSigns, Signals, SiteSigns
from agent.usage.habits import Habits, Observer
from deploy.demo.packages import NotBrought, Tools, bring
from fleet.caps import Attachment, Level, Tenant
from fleet.model import PlanId, SiteId, Why
from runtime.words import explain

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("nsenter") is None,
        reason="network namespaces need root and util-linux",
    ),
]

SHOP, NEWS, ADMIN = 61001, 61002, 61003
HOST, WORLD, MAIL, DNS, DATABASE = "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"
HOST6, WORLD6 = "2001:db8::1", "2001:db8::2"
PORTS = (25, 53, 80, 3306)
# A server on every port that the test speaks of; and one that asks, as somebody else.
SERVE = f"""
import selectors, socket
chosen = selectors.DefaultSelector()
for port in {PORTS}:
    door = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    chosen.register(door, selectors.EVENT_READ)
print("ready", flush=True)
kept = []
while True:
    for key, _ in chosen.select():
        kept.append(key.fileobj.accept())
"""
ASK = """
import encodings.idna, os, socket, sys
uid, address, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
os.setgid(uid); os.setuid(uid)
try:
    socket.create_connection((address, port), timeout=2).close()
except OSError:
    sys.exit(1)
"""


WITH_US = ("setpriv", "--pdeathsig", "KILL")  # whatever becomes of the test, nothing of it stays


def holder() -> subprocess.Popen[bytes]:
    """A process that keeps a network namespace of its own open."""
    started = subprocess.Popen([*WITH_US, "unshare", "--net", "sleep", "300"])
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{started.pid}/ns/net") == ours:
        time.sleep(0.01)
    return started


@dataclass
class Net:
    """A host's namespace and the world's, joined."""

    host: subprocess.Popen[bytes]
    world: subprocess.Popen[bytes]
    folder: Path
    tools: Tools

    def enter(self, where: subprocess.Popen[bytes], *command: str) -> list[str]:
        return [*WITH_US, "nsenter", f"--net=/proc/{where.pid}/ns/net", *command]

    def run(self, where: subprocess.Popen[bytes], *command: str) -> None:
        subprocess.run(self.enter(where, *command), check=True, timeout=10)

    def nft(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.command), *arguments], check=True, timeout=10, capture_output=True, text=True
        )
        return done.stdout

    @property
    def command(self) -> Path:
        """nft, in the host's namespace."""
        path = self.folder / "nft"
        if not path.exists():
            libraries = self.tools.env()["LD_LIBRARY_PATH"]
            inside = f"nsenter --net=/proc/{self.host.pid}/ns/net"
            run = f"exec {inside} env LD_LIBRARY_PATH={libraries} {self.tools.path('nft')}"
            path.write_text(f'#!/bin/sh\n{run} "$@"\n')
            path.chmod(0o755)
        return path

    def driver(self) -> Nft:
        return Nft(self.folder / "rules", str(self.command))

    def reaches(self, uid: int, address: str, port: int) -> bool:
        asked = self.enter(self.host, shutil.which("python3") or "", "-c", ASK)
        done = subprocess.run([*asked, str(uid), address, str(port)], timeout=10, check=False)
        return done.returncode == 0


@asynccontextmanager
async def ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    try:
        tools = Tools(bring(("nftables",)))
    except NotBrought as error:
        pytest.skip(str(error))
    made = Net(holder(), holder(), tmp_path, tools)
    children = [made.host, made.world]
    try:
        veth = f"link add out type veth peer name in netns {made.world.pid}"
        made.run(made.host, "ip", *veth.split())
        for where, link, addresses in (
            (made.host, "out", (HOST, HOST6)),
            (made.world, "in", (WORLD, MAIL, DNS, DATABASE, WORLD6)),
        ):
            for address in addresses:
                prefix, plain = ("64", ("nodad",)) if ":" in address else ("24", ())
                add = f"addr add {address}/{prefix} dev {link}"
                made.run(where, "ip", *add.split(), *plain)
            for each in ("lo", link):
                made.run(where, "ip", "link", "set", each, "up")
        for where in (made.host, made.world):
            served = made.enter(where, shutil.which("python3") or "", "-c", SERVE)
            children.append(server := subprocess.Popen(served, stdout=subprocess.PIPE))
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            server.stdout.close()
        yield made
    finally:
        for child in children:
            child.kill()
            child.wait()


async def test_port_25_is_closed_to_sites_and_an_isolated_one_is_shut_in(net: Net) -> None:
    """By user: sites send mail by this host and the mail servers only; the isolated one asks names and its database."""
    nft = net.driver()
    rules = Rules(
        sites=frozenset({SHOP, NEWS}),
        isolated=frozenset({NEWS}),
        mail=(MAIL,),
        resolvers=(DNS,),
        databases=(DATABASE,),
    )
    assert net.reaches(SHOP, WORLD, 25) and net.reaches(NEWS, WORLD, 80)
    assert await nft.hold(rules) is False
    seen = {
        (uid, address, port): net.reaches(uid, address, port)
        for uid, address, port in (
            (ADMIN, WORLD, 25),
            (SHOP, WORLD, 25),
            (SHOP, WORLD6, 25),
            (SHOP, MAIL, 25),
            (SHOP, HOST, 25),
            (SHOP, WORLD, 80),
            (NEWS, WORLD, 80),
            (NEWS, WORLD6, 80),
            (NEWS, WORLD, 53),
            (NEWS, DNS, 53),
            (NEWS, DNS, 80),
            (NEWS, MAIL, 25),
            (NEWS, DATABASE, 3306),
            (NEWS, "127.0.0.1", 80),
        )
    }
    closed = {
        (SHOP, WORLD, 25),
        (SHOP, WORLD6, 25),
        (NEWS, WORLD, 80),
        (NEWS, WORLD6, 80),
        (NEWS, WORLD, 53),
        (NEWS, DNS, 80),
    }
    assert {each for each, reached in seen.items() if not reached} == closed
    assert await nft.hold(Rules()) is False
    assert net.reaches(NEWS, WORLD, 80) and net.reaches(SHOP, WORLD, 25)


async def test_an_isolated_site_still_answers_and_loses_what_it_has_open(net: Net) -> None:
    """Answers to who came in pass; a connection that it had opened before is cut."""
    opened = f"""
import encodings.idna, os, socket, sys, time
os.setgid({NEWS}); os.setuid({NEWS})
out = socket.create_connection(("{WORLD}", 80), timeout=2)
door = socket.create_server(("{HOST}", 8080))
print("ready", flush=True)
came, _ = door.accept()
came.sendall(b"hello")
try:
    for _ in range(50):
        out.sendall(b"x")
        time.sleep(0.05)
except OSError:
    print("cut", flush=True)
"""
    python = shutil.which("python3") or ""
    command = net.enter(net.host, python, "-c", opened)
    site = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(20), ended(site):
        assert site.stdout is not None and await site.stdout.readline() == b"ready\n"
        await net.driver().hold(Rules(isolated=frozenset({NEWS})))
        visit = (
            f"import socket; s = socket.create_connection(('{HOST}', 8080), 2); print(s.recv(9))"
        )
        asked = net.enter(net.world, python, "-c", visit)
        visitor = await asyncio.create_subprocess_exec(*asked, stdout=asyncio.subprocess.PIPE)
        assert (await visitor.communicate())[0] == b"b'hello'\n"
        assert await site.stdout.readline() == b"cut\n"


async def test_rules_that_somebody_changed_come_back_and_others_tables_stay(net: Net) -> None:
    """Flushed or edited, they are written anew and that is told; a table of somebody else is not touched."""
    net.nft("add", "table", "inet", "theirs")
    nft = net.driver()
    rules = Rules(sites=frozenset({SHOP}))
    await nft.hold(rules)
    assert await nft.hold(rules) is False
    assert net.reaches(SHOP, WORLD, 25) is False, "counters move, and that is no change"
    assert await nft.hold(rules) is False
    net.nft("flush", "chain", "inet", "relevo", "egress")
    assert await nft.hold(rules) is True
    net.nft("delete", "table", "inet", "relevo")
    assert await nft.hold(rules) is True
    assert net.reaches(SHOP, WORLD, 25) is False
    assert "theirs" in net.nft("list", "tables")


async def test_who_tries_to_send_mail_past_the_mail_server_is_counted(net: Net) -> None:
    """By user, each try once; what is allowed does not count, nor what others are refused, and it is no drift."""
    nft = net.driver()
    rules = Rules(sites=frozenset({SHOP, NEWS}), isolated=frozenset({NEWS}), mail=(MAIL,))
    assert nft.refused() == {}, "nothing is held yet: nobody is asked"
    await nft.hold(rules)
    assert nft.refused() == {SHOP: 0, NEWS: 0}
    for uid, address, port in (
        (SHOP, WORLD, 25),
        (SHOP, WORLD6, 25),
        (SHOP, MAIL, 25),
        (SHOP, WORLD, 80),
        (NEWS, WORLD, 80),
        (NEWS, WORLD, 25),
        (ADMIN, WORLD, 25),
    ):
        net.reaches(uid, address, port)
    assert nft.refused() == {SHOP: 2, NEWS: 1}
    assert await nft.hold(rules) is False
    await nft.hold(Rules(sites=frozenset({SHOP})))
    assert nft.refused() == {SHOP: 0}, "rules that are written anew count from the beginning"
    net.nft("delete", "table", "inet", "relevo")
    with pytest.raises(DriverError, match="nft"):
        nft.refused()


async def test_a_flood_of_mail_that_is_refused_is_seen_and_the_site_watched(net: Net) -> None:
    """No socket is left of a connection that is refused at once: the counters tell whose flood it is, and why."""
    nft, shop, news = net.driver(), SiteId("shop"), SiteId("news")
    sites = {
        site: Attached(attachment=Attachment.POOL, why=Why("x"), uids=(uid,))
        for site, uid in ((shop, SHOP), (news, NEWS))
    }
    observer = Observer(net.folder, net.folder, nft.refused)
    await nft.hold(Rules(sites=frozenset({SHOP, NEWS}), mail=(MAIL,)))
    assert observer.look(100.0, sites) == {}
    for _ in range(10):
        net.reaches(SHOP, WORLD, 25)
        net.reaches(NEWS, MAIL, 25)
    does = observer.look(110.0, sites)
    assert does == {shop: Habits(refused_mail_per_s=1.0)}

    host = HostSigns(cores=2, memory_total_bytes=1 << 31, memory_available_bytes=1 << 30)
    signs = {site: SiteSigns(**msgspec.structs.asdict(does.get(site, Habits()))) for site in sites}
    house = House(plans={}, tenants=dict.fromkeys(sites, Tenant(plan=PlanId("p"))), rulings={})
    state, found = State(), list[Change]()
    for now in (110.0, 112.0, 114.0):
        signals = Signals(at=now, host=host, sites=signs)
        decision = decide(state, signals, house, Policy(), now, 1e9 + now)
        state, found = decision.state, [*found, *decision.changes]
    [change] = found
    assert (change.site, change.to) == (shop, Level.WATCH)
    assert explain(change.why) == (
        "Something odd shows (refused tries to send mail past the local mail server, 1 a second): "
        "it is looked at more often, and nothing is held."
    )
    assert "intentos rechazados de enviar correo" in explain(change.why, "es")


async def test_with_nothing_to_hold_nothing_is_made(net: Net) -> None:
    """On a host in shadow the firewall stays as it was found; what an agent before us left is taken away."""
    assert await net.driver().hold(Rules()) is False
    assert net.nft("list", "tables") == ""
    await net.driver().hold(Rules(isolated=frozenset({NEWS})))
    await net.driver().hold(Rules())
    assert net.reaches(NEWS, WORLD, 80)


async def test_a_host_without_nft_says_so(tmp_path: Path) -> None:
    """Only where there is something to hold; nothing hangs."""
    nft = Nft(tmp_path / "rules", str(tmp_path / "nft"))
    async with asyncio.timeout(5):
        assert await nft.hold(Rules()) is False
        with pytest.raises(DriverError, match="egress stays open"):
            await nft.hold(Rules(sites=frozenset({SHOP})))
