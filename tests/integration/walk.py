"""A program: the commands of docs/runbooks.md, one after the other as they stand, in a co-op of the demo's shape.

A host loses its power where the runbook says that one died. Blocks marked `console` name files that a reader has.
"""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvloop

from bench.controllers import THREE
from bench.stage import rest, until
from deploy.demo.fleet import fleet
from deploy.demo.lab import Lab
from deploy.demo.show import Show, show
from deploy.demo.stage import Fault
from fleet.model import Fleet, Mode, SiteId

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
DIES = "A host died"
RETURNS = "relevo host activate"
GATED = SiteId("cinema")
FENCE = re.compile(r"^ *```(\w*)$")


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is read by the test


async def main() -> None:
    async with show(say, namespaces=True, staff=THREE, declare=_one_gated) as it:
        await rest(it)
        relevo = Relevo(it)
        for section in re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]:
            heading, _, text = section.partition("\n")
            if heading.startswith(DIES):
                await _dies(it)
            for line in _commands(text):
                if line.startswith(RETURNS):
                    await _returns(it)
                await relevo.run(line)
            say(f"walked: {heading}")


def _commands(text: str) -> Iterator[str]:
    """The lines of every block that has no kind."""
    kind: str | None = None
    for line in text.splitlines():
        if fence := FENCE.match(line):
            kind = fence[1] if kind is None else None
        elif kind == "" and line.strip():
            yield line.strip()


def _one_gated(lab: Lab) -> Fleet:
    """The demo's fleet, with a site whose move wants a person's word."""
    plain = fleet(lab)
    gated = msgspec.structs.replace(plain.sites[GATED], mode=Mode.GATED)
    return msgspec.structs.replace(plain, sites={**plain.sites, GATED: gated})


class Relevo:
    """The command line of somebody who is let in."""

    def __init__(self, it: Show) -> None:
        self._env = {
            **os.environ,
            "RELEVO_URL": ",".join(it.stage.lab.apis.values()),
            "RELEVO_TOKEN": it.outfit.token,
            "RELEVO_CA": str(it.outfit.authority.path),
            "LC_ALL": "C.UTF-8",
        }

    async def run(self, line: str) -> str:
        """What it says. Raises AssertionError where it fails."""
        program, *words = shlex.split(line)
        assert program == "relevo", line
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", *words),
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        async with asyncio.timeout(30):
            said, _ = await process.communicate()
        say(f"$ {line}\n{said.decode()}")
        assert process.returncode == 0, f"{line}: status {process.returncode}"
        return said.decode()


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
