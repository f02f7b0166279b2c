"""A co-op of two machines: north has the controller, south is an edge with sites; each is a host with a web server."""

import base64
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from cli.answers import Site, Sites
from deploy.demo.certificates import Authority, Certificate
from tests.unit.fleets import GOOD
from tests.vm.image import Image
from tests.vm.installed import AGENT, CONTROLLER, EDGE, EVERYWHERE, clone, follow, sample
from tests.vm.lan import Lan
from tests.vm.machine import Machine, Saved, machine

NORTH, SOUTH = "203.0.113.10", "203.0.113.20"  # north's is the document's own
ADMIN = "the-token-of-ana"
RELEVO = (
    f"RELEVO_URL=https://{NORTH}:7410 RELEVO_CA=/etc/relevo/ca.crt "
    f"RELEVO_TOKEN={ADMIN} /usr/lib/relevo/bin/relevo"
)
TOKENS = {"north": "the-token-of-north", "south": "the-token-of-south"}
SETTLE_S = 60.0
VISIT = (
    "import sys, http.client as h; c = h.HTTPConnection(sys.argv[1], timeout=5); "
    "c.request('GET', '/', headers={'Host': sys.argv[2]}); sys.exit(c.getresponse().status != 200)"
)

# The command line takes a second to start on an emulated machine; this asks as soon as it has an answer.
WATCH = f"""\
import json, ssl, sys, time, urllib.request as ask
trust = ssl.create_default_context(cafile="/etc/relevo/ca.crt")
hosts = ask.Request("https://{NORTH}:7410/v1/hosts", headers={{"Authorization": "Bearer {ADMIN}"}})
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
        told = await self.north.do(f"{RELEVO} sites --json")
        sites = msgspec.json.decode(told, type=Sites).sites
        return next(site for site in sites if site.id == name)

    async def until_verdict(self, name: str, *verdicts: str, timeout_s: float = SETTLE_S) -> str:
        """Wait until the host is one of `verdicts`; gives which, a moment after the controller knows it."""
        command = f"timeout {timeout_s:g} python3 - {name} {' '.join(verdicts)}"
        return await self.north.do(command, stdin=WATCH.encode(), timeout_s=timeout_s + SETTLE_S)

    async def verdicts(self, name: str) -> list[str]:
        """What the controller's journal tells: each verdict of the host since the beginning, oldest first."""
        told = await self.north.do(
            'journalctl -b -q -o cat -u relevo-controller -g \'"event": "verdict"\''
        )
        lines = [msgspec.json.decode(line, type=dict[str, object]) for line in told.splitlines()]
        return [str(line["new"]) for line in lines if line["host"] == name]


async def install(image: Image, folder: Path) -> Saved:
    """A machine with the program and nothing configured."""
    async with machine(image) as vm:
        await clone(vm)
        await follow(vm, EVERYWHERE)
        await vm.pause()
        return await vm.save(folder)


async def begin(program: Saved, folder: Path) -> tuple[Saved, Saved]:
    """Configure both machines, start everything, wait until all is well, and keep that."""
    lan = Lan()
    async with (
        machine(program, "north", lan=lan) as north,
        machine(program, "south", lan=lan) as south,
    ):
        coop = Coop(north, south, lan)
        await address(north, NORTH)
        await address(south, SOUTH)
        with tempfile.TemporaryDirectory() as secrets:
            authority = Authority(Path(secrets))
            own = authority.issue("controller", (NORTH,))
            await _controller(north, authority, own)
            await _agent(north, authority)
            await follow(south, EDGE)
            await _agent(south, authority)
        await north.push("/root/fleet.yaml", FLEET.encode())
        await north.do(f"{RELEVO} fleet apply /root/fleet.yaml")
        for name in TOKENS:
            await coop.until_verdict(name, "up")
        await south.until(visit("garden.example.org"))
        for vm in (north, south):  # in one instant, as far as that goes: their connections live on
            await vm.pause()
        return await _saved(north, folder), await _saved(south, folder)


async def _saved(vm: Machine, folder: Path) -> Saved:
    own = folder / vm.name
    own.mkdir()
    return await vm.save(own)


async def address(vm: Machine, where: str) -> None:
    """As systemd-networkd sets it, again after each boot."""
    network = f"[Match]\nName=eth0\n[Network]\nAddress={where}/24\nLinkLocalAddressing=no\n"
    await vm.push("/etc/systemd/network/lan.network", network.encode())
    await vm.do(f"hostnamectl set-hostname {vm.name} && systemctl enable --now systemd-networkd")
    await vm.until(f"ip -br address show dev eth0 | grep -q {where}")


async def _controller(vm: Machine, authority: Authority, own: Certificate) -> None:
    tokens = "".join(f'{name} = "{_digest(token)}"\n' for name, token in TOKENS.items())
    files = {
        "controller.toml": sample("controller.toml").encode(),
        "agents.toml": tokens.encode(),
        "admins.toml": f'ana = "{_digest(ADMIN)}"\n'.encode(),
        "relevo.tsig": base64.b64encode(b"the secret of the zone"),
        "controller.crt": own.certificate.read_bytes(),
        "controller.key": own.key.read_bytes(),
        "ca.crt": authority.path.read_bytes(),
    }
    for name, content in files.items():
        await vm.push(f"/etc/relevo/{name}", content)
    await follow(vm, CONTROLLER)


async def _agent(vm: Machine, authority: Authority) -> None:
    text, _, edge = sample("agent.toml").partition("[edge]")
    text = text.replace("mx1-web-01", vm.name).replace("127.0.0.1:80/", "127.0.0.1:8080/")
    if vm.name == "south":
        text = f"{text}[edge]{edge}"
    await vm.push("/etc/relevo/agent.toml", text.encode())
    await vm.push("/etc/relevo/agent.token", TOKENS[vm.name].encode())
    await vm.push("/etc/relevo/ca.crt", authority.path.read_bytes())
    await follow(vm, AGENT)


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


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
        for name in TOKENS:
            await made.until_verdict(name, "up")
        yield made
