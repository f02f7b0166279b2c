"""The runbooks are walked as they stand, on real parts. Programs do it: the demo's network is a whole process'."""

import asyncio
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


async def played(module: str, *words: str) -> str:
    """What the program says. Raises AssertionError where it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(240):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    told = said.decode()
    assert process.returncode == 0, told
    return told


async def test_every_command_of_the_runbooks_does_what_it_says() -> None:
    """Each one ends well, where its section has led: see walk.py."""
    told = await played("tests.integration.walk")
    assert told.count("walked: ") == 5, told


@pytest.mark.parametrize("store", ["embedded", "etcd"])
async def test_r2_a_lost_store_is_restored_and_recovered_as_the_runbook_says(store: str) -> None:
    """What was moved after the snapshot is where visitors find it; relevo goes on: see restore.py."""
    told = await played("tests.integration.restore", store)
    assert told.count("seen: ") == 3, told
