"""The API asked all that its description allows, and much that it does not, by a fuzzer that checks every answer."""

import asyncio
import sys
from pathlib import Path
from typing import Never

import pytest

from controller.api.pace import Pace
from tests.integration.controllers import ADMINS, FLEET, Served, controller_served

pytestmark = [pytest.mark.integration, pytest.mark.long]

CONFIG = Path(__file__).with_name("schemathesis.toml")
SECONDS = 30  # for all operations; the seed makes a finding come again
SEED = 3


async def replant(served: Served) -> Never:
    """Eternal: a fuzzer that removed the whole fleet finds one again, or it would learn nothing more."""
    while True:
        if not served.controller.mirror.fleet.hosts:
            await served.raw("PUT", "/v1/fleet", body=FLEET.encode())
        await asyncio.sleep(0.1)


async def test_every_answer_is_as_described_whatever_is_asked(tmp_path: Path) -> None:
    """Statuses, types, headers and bodies as in /v1/openapi.json; the valid is taken, the invalid refused, no 500."""
    async with controller_served(tmp_path, failing=Pace(per_s=1e6, burst=10_000)) as served:
        await served.placed()
        fuzzer = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(CONFIG), "run", f"{served.url}/v1/openapi.json"),
            *("--tls-verify", str(served.ca), "--header", f"Authorization: Bearer {ADMINS['ana']}"),
            *("--checks", "all", "--seed", str(SEED), "--max-time", str(SECONDS), "--no-shrink"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        try:
            async with asyncio.timeout(4 * SECONDS), asyncio.TaskGroup() as group:
                gardener = group.create_task(replant(served))
                said, _ = await fuzzer.communicate()
                gardener.cancel()
        finally:
            if fuzzer.returncode is None:
                fuzzer.kill()
                await fuzzer.wait()
    assert fuzzer.returncode == 0, said.decode(errors="replace")
