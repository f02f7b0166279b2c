"""A co-op of two machines: north has the controller, south is an edge with sites; each is a host with a web server."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from cli.answers import Site, Sites
from tests.unit.fleets import GOOD
from tests.vm.lan import Lan
from tests.vm.machine import Machine, Saved, machine

NORTH, SOUTH = "203.0.113.10", "203.0.113.20"  # north's is the documents' own
SETTLE_S = 90.0
VISIT = (
    "import sys, http.client as h; c = h.HTTPConnection(sys.argv[1], timeout=5); "
    "c.request('GET', '/', headers={'Host': sys.argv[2]}); sys.exit(c.getresponse().status != 200)"
)

# The command line takes a second to start on an emulated machine; this asks as soon as it has an answer.
WATCH = f"""\
import json, ssl, sys, time, urllib.request as ask
trust = ssl.create_default_context(cafile="/root/.config/relevo/ca.pem")
token = open("/root/.config/relevo/token").read().strip()
hosts = ask.Request("https://{NORTH}:7410/v1/hosts", headers={{"Authorization": f"Bearer {{token}}"}})
host, *wanted = sys.argv[1:]
verdict = ""
while verdict not in wanted:
    time.sleep(0.05)
    try:
        with ask.urlopen(hosts, context=trust, timeout=5) as told:
            verdict = {{one["id"]: one["verdict"] for one in json.load(told)["hosts"]}}[host]
    except OSError:
        pass
print(verdict)
"""

PLANS_AND_MEMBERS = GOOD[GOOD.index("plans:") : GOOD.index("\nsites:")]
FLEET = f"""\
version: 1
locations: {{mx1: {{country: MX}}}}
hosts:
  north: {{tag: clara, location: mx1, addresses: [{NORTH}], port: 8080}}
  south: {{tag: rosa, location: mx1, addresses: [{SOUTH}], port: 8080, roles: [web, edge]}}
{PLANS_AND_MEMBERS}
sites:
  garden: {{member: huerto, plan: solidarity, domains: [garden.example.org], home: south, standbys: [north], mode: automatic}}
  orchard: {{member: huerto, plan: solidarity, domains: [orchard.example.org], home: north, standbys: [south], mode: automatic}}
"""  # noqa: E501 - one line for each item


@dataclass(frozen=True, slots=True)
class Coop:
    north: Machine
    south: Machine
    lan: Lan

    async def site(self, name: str) -> Site:
        told = await self.north.do("relevo sites --json")
        sites = msgspec.json.decode(told, type=Sites).sites
        return next(site for site in sites if site.id == name)

    async def up(self) -> None:
        """Wait until both hosts are."""
        for name in ("north", "south"):
            await self.until_verdict(name, "up")

    async def until_verdict(self, name: str, *verdicts: str, timeout_s: float = SETTLE_S) -> str:
        """Wait until the host is one of `verdicts`; gives which, a moment after the controller knows it."""
        command = f"timeout {timeout_s:g} python3 - {name} {' '.join(verdicts)}"
        return await self.north.do(command, stdin=WATCH.encode(), timeout_s=2 * timeout_s)

    async def verdicts(self, name: str) -> list[str]:
        """What the controller's journal tells: each verdict of the host since the beginning, oldest first."""
        only = """-u relevo-controller -g '"event": "verdict"'"""
        told = await self.north.do(f"journalctl -b -q -o cat {only}")
        lines = [msgspec.json.decode(line, type=dict[str, object]) for line in told.splitlines()]
        return [str(line["new"]) for line in lines if line["host"] == name]


async def address(vm: Machine, where: str) -> None:
    """As systemd-networkd sets it, again after each boot."""
    network = f"[Match]\nName=eth0\n[Network]\nAddress={where}/24\nLinkLocalAddressing=no\n"
    await vm.push("/etc/systemd/network/lan.network", network.encode())
    await vm.do(f"hostnamectl set-hostname {vm.name} && systemctl enable --now systemd-networkd")
    await vm.until(f"ip -br address show dev eth0 | grep -q {where}")


def visit(domain: str, address: str = SOUTH) -> str:
    """A command that succeeds when the site answers."""
    return f'python3 -c "{VISIT}" {address} {domain}'


@asynccontextmanager
async def coop(saved: tuple[Saved, Saved]) -> AsyncGenerator[Coop, None]:
    """The two machines, some seconds after all was well."""
    lan = Lan()
    async with (
        machine(saved[0], "north", lan=lan) as north,
        machine(saved[1], "south", lan=lan) as south,
    ):
        made = Coop(north, south, lan)
        await made.up()
        yield made
