"""The runbooks are walked as they stand, on real parts."""

import asyncio
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


async def test_every_command_of_the_runbooks_does_what_it_says() -> None:
    """Each one ends well, where its section has led: see walk.py."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.walk"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
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
    assert told.count("walked: ") == 5, told
    assert "hosts say what they hold" not in told, "nothing was rewound here"
