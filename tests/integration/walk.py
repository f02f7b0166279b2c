"""A program: the commands of docs/runbooks.md, one after the other as they stand, in a co-op of the demo's shape.

A host loses its power where the runbook says that one died, and a controller its machine. Blocks marked `console` name
addresses, files and ids, which are other ones here: see replaced.py, and restore.py for those of a lost store.
"""

import asyncio
import re

import msgspec
import uvloop

from bench.controllers import THREE
from bench.stage import rest, until
from deploy.demo.fleet import fleet
from deploy.demo.lab import Lab
from deploy.demo.show import Show, show
from deploy.demo.stage import Fault
from fleet.model import Fleet, Mode, SiteId
from tests.integration.replaced import WithTheCA, replaced
from tests.integration.typed import RUNBOOKS, Relevo, commands, say

DIES, LOST = "A host died", "Replace a controller"
RETURNS = "relevo host activate"
GATED = SiteId("cinema")


async def main() -> None:
    async with show(say, namespaces=True, staff=THREE, declare=_one_gated, tailor=WithTheCA) as it:
        await rest(it)
        relevo = Relevo(it)
        for section in re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]:
            heading, _, text = section.partition("\n")
            if heading.startswith(DIES):
                await _dies(it)
            if heading.startswith(LOST):
                await replaced(it, relevo, text)
            for line in commands(text):
                if line.startswith(RETURNS):
                    await _returns(it)
                await relevo.run(line)
            say(f"walked: {heading}")


def _one_gated(lab: Lab) -> Fleet:
    """The demo's fleet, with a site whose move wants a person's word."""
    plain = fleet(lab)
    gated = msgspec.structs.replace(plain.sites[GATED], mode=Mode.GATED)
    return msgspec.structs.replace(plain, sites={**plain.sites, GATED: gated})


async def _dies(it: Show) -> None:
    machine = it.stage.lab.machines["web1"]
    await it.stage.strike(machine, Fault.KILL, {})

    async def complete() -> bool:
        incidents = await it.client.incidents()
        return any(i.subject == machine.name and i.complete for i in incidents)

    await until(complete)


async def _returns(it: Show) -> None:
    machine = it.stage.lab.machines["web1"]
    await it.stage.back(machine)

    async def up() -> bool:
        return all(host.verdict == "up" for host in await it.client.hosts())

    await until(up)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
