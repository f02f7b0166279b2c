"""Command lines of a document, as a reader types them: found there, and run against a co-op of the demo's shape."""

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.demo.show import Show

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks.md"
FENCE = re.compile(r"^ *```(\w*)$")
ASSIGNED = re.compile(r"^([A-Z_]+)=(.*)$")
PATIENCE_S = 30


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - it is read by the test


def section(heading: str) -> str:
    """Of the runbooks, what stands below a heading that begins so."""
    found = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)[1:]
    return next(text for text in found if text.startswith(heading))


def commands(text: str, language: str = "") -> Iterator[str]:
    """The lines of every block of that kind; those that can be typed as they stand have none."""
    kind: str | None = None
    for line in text.splitlines():
        if fence := FENCE.match(line):
            kind = fence[1] if kind is None else None
        elif kind == language and line.strip():
            yield line.strip()


class Relevo:
    """The shell of somebody who is let in. `programs`: what else is typed there, by the path that it has here."""

    def __init__(self, it: Show, programs: Mapping[str, Path] | None = None) -> None:
        self.programs = dict(programs or {})
        self._env = {
            **os.environ,
            "RELEVO_URL": ",".join(it.stage.lab.apis.values()),
            "RELEVO_TOKEN": it.outfit.token,
            "RELEVO_CA": str(it.outfit.authority.path),
            "LC_ALL": "C.UTF-8",
        }

    async def run(self, line: str) -> str:
        """What it says. Raises AssertionError where it fails."""
        words = shlex.split(line)
        if words[0] == "export":
            self._env.update(_assigned(words[1:]))
            return ""
        extra = {}
        while ASSIGNED.match(words[0]):
            extra.update(_assigned(words[:1]))
            words = words[1:]
        relevo = (sys.executable, "-m", "cli.main")
        program = relevo if words[0] == "relevo" else (str(self.programs[words[0]]),)
        process = await asyncio.create_subprocess_exec(
            *(*program, *words[1:]),
            env={**self._env, **extra},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
        say(f"$ {line}\n{said.decode()}")
        assert process.returncode == 0, f"{line}: status {process.returncode}"
        return said.decode()


def _assigned(words: list[str]) -> dict[str, str]:
    found = [ASSIGNED.match(word) for word in words]
    return {one[1]: one[2] for one in found if one}
