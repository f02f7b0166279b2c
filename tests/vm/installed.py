"""A co-op installed on virtual machines by the words of docs/install.md, typed as they stand there."""

import asyncio
import re
from pathlib import Path

from tests.vm.coop import FLEET, NORTH, SOUTH, Coop, address, visit
from tests.vm.image import Image
from tests.vm.lan import Lan
from tests.vm.machine import CommandFailed, Machine, Saved, machine

DOCS = Path(__file__).parents[2] / "docs"
OLD, NEW = "0.1.0", "0.1.1"  # the same tree twice
UNITS = ("relevo-agent", "relevo-controller")
PACKAGE_S, SETTLE_S = 300.0, 90.0
PLACES = "/etc /usr /var/lib /opt /srv /root /home /boot"
JOURNAL_LINES = 60

Pair = tuple[Saved, Saved]


def blocks(document: str, heading: str, language: str = "") -> list[list[str]]:
    """The blocks of commands below `heading`, or those in another language, each as its lines."""
    section = (DOCS / document).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", section, re.M | re.S)
    return [found.splitlines() for said, found in fenced if said == language]


def tables(heading: str) -> str:
    """The piece of agent.toml below `heading`."""
    return "\n".join(blocks("install.md", heading, "toml")[0]) + "\n"


INSTALL, CONTROLLER, FLEETS = (
    blocks("install.md", heading)[which]
    for heading, which in (("The package", 1), ("The first controller", 0), ("The fleet", 0))
)
TOKEN, JOIN, AGAIN = blocks("install.md", "The first host")
LINKED, EDGE_AGAIN = blocks("install.md", "An edge")


async def follow(vm: Machine, lines: list[str]) -> str:
    """Type the lines; gives what they said. Raises CommandFailed at the first that fails, with the journal's end."""
    told = []
    for line in lines:
        try:
            told.append(await vm.do(f"cd /root && {line}", timeout_s=PACKAGE_S))
        except CommandFailed as error:
            error.add_note((await vm.run(f"journalctl -b -q -n {JOURNAL_LINES} -o cat")).output)
            raise
    return "\n".join(told)


async def begin(image: Image, folder: Path, package: bytes) -> Pair:
    """Both machines, saved while all is well: hosts are up and a site answers through the edge."""
    lan = Lan()
    async with machine(image, "north", lan=lan) as north, machine(image, "south", lan=lan) as south:
        async with asyncio.TaskGroup() as group:
            for vm, where in ((north, NORTH), (south, SOUTH)):
                group.create_task(_install(vm, where, package))
        await _controller(north)
        for vm in (north, south):
            await join(north, vm)
        await south.do(f"cat >> /etc/relevo/agent.toml <<'END'\n{tables('An edge')}END")
        await follow(south, [*LINKED, *EDGE_AGAIN])
        await Coop(north, south, lan).up()
        await south.until(visit("garden.example.org"), timeout_s=SETTLE_S)
        for vm in (north, south):  # in one instant, as far as that goes: their connections live on
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


async def join(north: Machine, vm: Machine) -> None:
    """The token is made where the controller is; what it prints is typed on the host."""
    told = await follow(north, [line.replace("mx1-web-01", vm.name) for line in TOKEN])
    command = re.search(r"relevo agent join \S+ --token \S+", told)
    example, enable = JOIN
    assert command is not None and example.split()[:4] == command[0].split()[:4]
    await follow(vm, [command[0], enable])
    service = tables("The first host").replace("127.0.0.1:80/", "127.0.0.1:8080/")
    await vm.do(f"cat >> /etc/relevo/agent.toml <<'END'\n{service}END")
    await follow(vm, AGAIN)
