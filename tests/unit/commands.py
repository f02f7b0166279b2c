"""Run `relevo` against servers that live on the test's own loop."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from click.testing import CliRunner

from cli.main import main

TOKEN = "the-token-of-ana"


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def width(self) -> int:
        return max(map(len, self.out.splitlines()), default=0)


async def relevo(*arguments: str, **environment: str | None) -> Said:
    """One command, in a thread of its own so that the servers can answer; 80 columns wide."""
    clean: Mapping[str, str | None] = {
        "RELEVO_TOKEN": TOKEN,
        "RELEVO_TOKEN_FILE": None,
        "RELEVO_URL": None,
        "RELEVO_CA": None,
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "80",
    }
    runner = CliRunner(env={**clean, **environment})
    result = await asyncio.to_thread(runner.invoke, main, arguments)
    unexpected = result.exception is not None and not isinstance(result.exception, SystemExit)
    assert not unexpected, result.exc_info
    return Said(result.exit_code, result.stdout, result.stderr)
