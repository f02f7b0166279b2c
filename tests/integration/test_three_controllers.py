"""Three controllers on a real etcd of three members, with TLS, HAProxy and Knot: what befalls them moves nothing."""

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
SEEN = (
    "followers pass changes on",
    "restarts move nothing",
    "an etcd member dies",
    "the leader is cut off as a host dies",
    "leader and host die",
    "without a quorum nothing changes",
)


async def test_what_befalls_controllers_and_their_etcd_moves_nothing_and_stops_no_failover() -> (
    None
):
    """Each step asserts what it says, in one co-op that goes on running; see three.py."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.three"),
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
    assert [line for line in told.splitlines() if line.startswith("seen: ")] == [
        f"seen: {name}" for name in SEEN
    ]
