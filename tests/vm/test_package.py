"""The package on a real Debian, by the words of docs/install.md and docs/uninstall.md: in, up, on, and out again."""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from cli.answers import Hosts, Incidents, Sites
from deploy.deb.__main__ import build
from tests.vm.coop import SOUTH, coop, visit
from tests.vm.image import CACHE
from tests.vm.installed import (
    INSTALL,
    NEW,
    OLD,
    PLACES,
    SETTLE_S,
    UNITS,
    Pair,
    blocks,
    follow,
    join,
)
from tests.vm.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.long]

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

REVOKE, REMOVE, PURGE = blocks("uninstall.md", "One host")


async def up(north: Machine) -> None:
    now = asyncio.get_running_loop().time
    deadline = now() + SETTLE_S
    while True:
        told = msgspec.json.decode(await north.do("relevo hosts --json"), type=Hosts)
        found = {host.id: host.verdict for host in told.hosts}
        if found == {"north": "up", "south": "up"}:
            return
        assert now() < deadline, found
        await asyncio.sleep(0.5)


async def placements(north: Machine) -> dict[str, object]:
    told = msgspec.json.decode(await north.do("relevo sites --json"), type=Sites)
    return {site.id: (site.host, site.since) for site in told.sites}


@asynccontextmanager
async def co_op(saved: Pair) -> AsyncGenerator[tuple[Machine, Machine], None]:
    async with coop(saved) as made:
        yield made.north, made.south


async def pids(vm: Machine) -> list[str]:
    return (await vm.do(f"systemctl show -p MainPID --value {' '.join(UNITS)}")).split()


def test_the_same_tree_makes_the_same_package(packages: dict[str, bytes]) -> None:
    """Byte for byte, in another folder, by somebody whose files are nobody else's to read."""
    before = os.umask(0o077)
    try:
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            assert build(OLD, Path(folder)).read_bytes() == packages[OLD]
    finally:
        os.umask(before)


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
        await join(north, north)
        await up(north)
        assert await placements(north) == placed
        last = blocks("uninstall.md", "A controller")[0]
        await follow(north, [f"{PURGE[0]} -y", *last])
        assert (
            await north.run("ls -d /etc/relevo /var/lib/relevo || getent passwd relevo")
        ).code != 0
