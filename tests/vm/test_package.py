"""The package on a real Debian, by the words of docs/install.md and docs/uninstall.md: in, up, on, and out again."""

import asyncio
import re
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import uvloop

from cli.answers import Hosts, Incidents, Sites
from deploy.deb.__main__ import build
from tests.vm.coop import FLEET, NORTH, SOUTH, address, visit
from tests.vm.image import CACHE, Image
from tests.vm.lan import Lan
from tests.vm.machine import Machine, Saved, machine

pytestmark = pytest.mark.vm

DOCS = Path(__file__).parents[2] / "docs"
OLD, NEW = "0.1.0", "0.1.1"  # the same tree twice
UNITS = ("relevo-agent", "relevo-controller")
PACKAGE_S, SETTLE_S = 300.0, 90.0
PLACES = "/etc /usr /var/lib /opt /srv /root /home /boot"
# What changes wherever a package comes and goes, and what docs/uninstall.md says that stays.
ANYWHERE = r"^/var/lib/(dpkg|apt|systemd|private|nginx)(/|$)|^/etc/ld.so.cache$|/__pycache__"
STAYS = (
    r"^/etc/haproxy/relevo(/|$)|^/root/\.config(/relevo.*)?$|^/etc/(passwd|group|shadow|gshadow)-$"
)
OWN = rf"^/root/(relevo_{OLD}_amd64\.deb|before)$"
# Asks for a site over and over, and counts what a visitor would have noticed.
VISITOR = f"""\
import http.client, sys, time
asked = failed = 0
while True:
    asked += 1
    try:
        visit = http.client.HTTPConnection("{SOUTH}", timeout=5)
        visit.request("GET", "/", headers={{"Host": "garden.example.org"}})
        failed += visit.getresponse().status != 200
        visit.close()
    except OSError:
        failed += 1
    open("/root/visits", "w").write(f"{{asked}} {{failed}}")
    time.sleep(0.2)
"""

Pair = tuple[Saved, Saved]


def blocks(document: str, heading: str) -> list[list[str]]:
    """The blocks of commands below `heading`, each as its lines."""
    section = (DOCS / document).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [found.splitlines() for found in re.findall(r"^```\n(.*?)^```", section, re.M | re.S)]


def tables(heading: str) -> str:
    """The piece of agent.toml below `heading`."""
    section = (DOCS / "install.md").read_text().partition(f"\n## {heading}\n")[2]
    found = re.search(r"^```toml\n(.*?)^```", section, re.M | re.S)
    assert found is not None
    return found[1]


INSTALL, CONTROLLER, FLEETS = (
    blocks("install.md", heading)[which]
    for heading, which in (("The package", 1), ("The first controller", 0), ("The fleet", 0))
)
TOKEN, JOIN, AGAIN = blocks("install.md", "The first host")
LINKED, EDGE_AGAIN = blocks("install.md", "An edge")
REVOKE, REMOVE, PURGE = blocks("uninstall.md", "One host")


async def follow(vm: Machine, lines: list[str]) -> str:
    told = [await vm.do(f"cd /root && {line}", timeout_s=PACKAGE_S) for line in lines]
    return "\n".join(told)


@pytest.fixture(scope="session")
def packages(image: Image) -> Iterator[dict[str, bytes]]:
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        yield {version: build(version, Path(folder)).read_bytes() for version in (OLD, NEW)}


@pytest.fixture(scope="session")
def packaged(image: Image, folder: Path, packages: dict[str, bytes]) -> Pair:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_begin(image, folder / "packaged", packages[OLD]))


async def _begin(image: Image, folder: Path, package: bytes) -> Pair:
    lan = Lan()
    async with machine(image, "north", lan=lan) as north, machine(image, "south", lan=lan) as south:
        async with asyncio.TaskGroup() as group:
            for vm, where in ((north, NORTH), (south, SOUTH)):
                group.create_task(_install(vm, where, package))
        await _controller(north)
        for vm in (north, south):
            await _join(north, vm)
        await south.do(f"cat >> /etc/relevo/agent.toml <<'END'\n{tables('An edge')}END")
        await follow(south, [*LINKED, *EDGE_AGAIN])
        await up(north)
        await south.until(visit("garden.example.org"), timeout_s=SETTLE_S)
        for vm in (north, south):
            await vm.pause()
        return await _saved(north, folder), await _saved(south, folder)


async def _saved(vm: Machine, folder: Path) -> Saved:
    own = folder / vm.name
    own.mkdir(parents=True)
    return await vm.save(own)


async def _install(vm: Machine, where: str, package: bytes) -> None:
    await address(vm, where)
    await vm.do(f"find {PLACES} -xdev | sort > /root/before")
    await vm.push(f"/root/relevo_{OLD}_amd64.deb", package)
    await follow(vm, INSTALL)
    for unit in UNITS:
        assert (await vm.run(f"systemctl is-enabled {unit}")).output.strip() == "disabled"
        assert (await vm.run(f"systemctl is-active {unit}")).output.strip() == "inactive"
    assert f"relevo {OLD}" in await vm.do("relevo --version")


async def _controller(north: Machine) -> None:
    told = await follow(north, CONTROLLER)
    assert "c1" in told
    there, edit, diff, apply = FLEETS
    assert edit == "editor fleet.yaml"
    await north.do(f"{there} && tee fleet.yaml", stdin=FLEET.encode())
    assert (await north.run(f"{there} && {diff}")).code == 7  # it would change something
    await north.do(f"{there} && {apply}")


async def _join(north: Machine, vm: Machine) -> None:
    """The token is made where the controller is; what it prints is typed on the host."""
    told = await follow(north, [line.replace("mx1-web-01", vm.name) for line in TOKEN])
    command = re.search(r"relevo agent join \S+ --token \S+", told)
    example, enable = JOIN
    assert command is not None and example.split()[:4] == command[0].split()[:4]
    await follow(vm, [command[0], enable])
    service = tables("The first host").replace("127.0.0.1:80/", "127.0.0.1:8080/")
    await vm.do(f"cat >> /etc/relevo/agent.toml <<'END'\n{service}END")
    await follow(vm, AGAIN)


async def hosts(north: Machine) -> dict[str, str]:
    told = msgspec.json.decode(await north.do("relevo hosts --json"), type=Hosts)
    return {host.id: host.verdict for host in told.hosts}


async def up(north: Machine) -> None:
    now = asyncio.get_running_loop().time
    deadline = now() + SETTLE_S
    while (found := await hosts(north)) != {"north": "up", "south": "up"}:
        assert now() < deadline, found
        await asyncio.sleep(0.5)


async def placements(north: Machine) -> dict[str, object]:
    told = msgspec.json.decode(await north.do("relevo sites --json"), type=Sites)
    return {site.id: (site.host, site.since) for site in told.sites}


@asynccontextmanager
async def co_op(saved: Pair) -> AsyncGenerator[tuple[Machine, Machine], None]:
    lan = Lan()
    async with (
        machine(saved[0], "north", lan=lan) as north,
        machine(saved[1], "south", lan=lan) as south,
    ):
        await up(north)
        yield north, south


async def pids(vm: Machine) -> list[str]:
    return (await vm.do(f"systemctl show -p MainPID --value {' '.join(UNITS)}")).split()


async def test_an_upgrade_restarts_what_runs_and_moves_nothing(
    packaged: Pair, packages: dict[str, bytes]
) -> None:
    """From init to an upgrade by one version: hosts are up, no visit failed, no file of ours was touched."""
    async with co_op(packaged) as (north, south):
        placed = await placements(north)
        assert placed
        ours = "find /etc/relevo -type f | sort | xargs sha256sum"
        await south.do("echo '# ours' >> /etc/relevo/edge/haproxy.socket")
        before = {vm.name: (await pids(vm), await vm.do(ours)) for vm in (north, south)}
        await south.push("/root/visitor.py", VISITOR.encode())
        await south.do("systemd-run --quiet --unit visitor python3 /root/visitor.py")
        (upgrade,) = INSTALL
        for vm in (north, south):
            await vm.push(f"/root/relevo_{NEW}_amd64.deb", packages[NEW])
            await follow(vm, [upgrade.replace(OLD, NEW)])
            assert f"relevo {NEW}" in await vm.do("relevo --version")
        await up(north)
        asked, failed = (await south.do("systemctl stop visitor; cat /root/visits")).split()
        assert int(asked) > 20 and int(failed) == 0
        assert await placements(north) == placed
        told = msgspec.json.decode(await north.do("relevo incidents --json"), type=Incidents)
        assert told.incidents == ()
        for vm in (north, south):
            was, files = before[vm.name]
            for old, new in zip(was, await pids(vm), strict=True):
                assert (old == new) is (old == "0"), (
                    "what ran is a new process, what did not is not"
                )
            assert await vm.do(ours) == files
        await south.do(visit("garden.example.org"))
        said = await north.do(
            'journalctl -b -q -o cat -u relevo-controller -g \'"event": "verdict"\''
        )
        assert '"dead"' not in said, said


async def test_removing_it_leaves_an_edge_serving_and_purging_leaves_what_the_document_says(
    packaged: Pair,
) -> None:
    """Removed, HAProxy serves on over a restart. Purged, there is nothing but what "What stays" lists."""
    async with co_op(packaged) as (north, south):
        await follow(north, [line.replace("mx1-web-01", "south") for line in REVOKE])
        await follow(south, [f"{line} -y" for line in REMOVE])
        for unit in UNITS:
            assert (await south.run(f"systemctl cat {unit}")).code != 0
        assert (await south.run("ls /usr/lib/relevo /usr/bin/relevo")).code != 0
        await south.do("systemctl restart haproxy")
        await south.until(visit("garden.example.org"), timeout_s=SETTLE_S)
        await follow(south, [f"{line} -y" for line in PURGE])
        left = await south.do(f"find {PLACES} -xdev | sort | comm -13 /root/before -")
        lines = [
            line for line in left.splitlines() if not re.search(f"{ANYWHERE}|{STAYS}|{OWN}", line)
        ]
        assert lines == []
        assert "/etc/haproxy/relevo" in left
        await south.do("systemctl restart haproxy && getent passwd relevo")
        assert (await south.run("find /etc/systemd -xtype l -lname '*relevo*' | grep .")).code == 1


async def test_a_purged_controller_that_is_installed_again_remembers(packaged: Pair) -> None:
    """Its store and its keys stay, and purging says so; installed again and started, the hosts are up as before."""
    async with co_op(packaged) as (north, _):
        placed = await placements(north)
        told = await follow(north, [f"{line} -y" for line in PURGE])
        assert "/etc/relevo, /var/lib/relevo/controller" in told
        assert (await north.run("systemctl is-active relevo-controller")).code != 0
        assert (await north.run("ls /var/lib/relevo/agent /etc/relevo/agent.toml")).code != 0
        await follow(north, [*INSTALL, "systemctl enable --now relevo-controller"])
        await _join(north, north)
        await up(north)
        assert await placements(north) == placed
        last = blocks("uninstall.md", "A controller")[0]
        await follow(north, [f"{PURGE[0]} -y", *last])
        assert (
            await north.run("ls -d /etc/relevo /var/lib/relevo || getent passwd relevo")
        ).code != 0
