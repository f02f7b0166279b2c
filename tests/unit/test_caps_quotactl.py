"""The program that sets quotas: what it says to the kernel, byte by byte, and what it answers."""

import io
import json
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent.caps import quotactl
from agent.caps.quotactl import BLOCK, FIELDS, Limits, Linux, answer, packed, serve

LIMITS = {"disk_bytes": 10 << 20, "disk_hard_bytes": 11 << 20, "inodes": 1000, "inodes_hard": 1100}
ASKED = {"/srv": {"users": [1001, 1002], "set": {"1001": LIMITS}}}


class Memory:
    """A kernel whose file systems hold who is told to be; `refuses`: whom it does not take."""

    def __init__(self, state: str = "enforced", refuses: int | None = None) -> None:
        self.holds: dict[int, dict[str, int]] = {}
        self._state, self._refuses = state, refuses

    def state(self, mount: str) -> str:
        return self._state if mount == "/srv" else "off"

    def get(self, mount: str, uid: int) -> Limits:
        return dict.fromkeys(FIELDS, 0) | {"used_bytes": uid} | self.holds.get(uid, {})

    def put(self, mount: str, uid: int, limits: Mapping[str, int]) -> None:
        if uid == self._refuses:
            raise PermissionError(1, "Operation not permitted")
        self.holds[uid] = dict(limits)


def test_limits_are_packed_as_the_kernel_reads_them() -> None:
    """struct if_dqblk of linux/quota.h: limits in KiB, sizes of nothing, no end of any grace; 72 bytes."""
    assert len(packed(LIMITS)) == BLOCK.size == 72
    hard, soft, used, files_hard, files, files_used, bytes_until, files_until, valid = (
        struct.unpack("=8QI4x", packed(LIMITS))
    )
    assert (hard, soft, used) == (11 << 10, 10 << 10, 0)
    assert (files_hard, files, files_used) == (1100, 1000, 0)
    assert (bytes_until, files_until, valid) == (0, 0, 0b000101)


def test_a_grace_that_runs_is_not_begun_anew() -> None:
    """Its end goes along with the new limits, of bytes and of files apart."""
    for ends, valid in (((77, 0), 0b010101), ((0, 88), 0b100101), ((77, 88), 0b110101)):
        *_, bytes_until, files_until, told = BLOCK.unpack(packed(LIMITS, ends))
        assert (bytes_until, files_until, told) == (*ends, valid)


def test_what_is_set_is_seen_in_the_same_answer() -> None:
    """First it is set, then everybody who was asked for is looked at."""
    told = answer(ASKED, Memory())
    assert told["/srv"]["state"] == "enforced"
    assert told["/srv"]["users"]["1001"] == {"used_bytes": 1001, "used_inodes": 0, **LIMITS}
    assert told["/srv"]["users"]["1002"]["disk_bytes"] == 0


def test_what_one_user_is_refused_the_others_get() -> None:
    """The kernel's own words for whom it did not take."""
    asked = {"/srv": {"users": [1001, 1002], "set": {"1001": LIMITS, "1002": LIMITS}}}
    told = answer(asked, Memory(refuses=1001))
    assert told["/srv"]["refused"] == {"1001": "[Errno 1] Operation not permitted"}
    assert told["/srv"]["users"]["1002"]["inodes"] == 1000


@pytest.mark.parametrize("state", ["counted", "off", "[Errno 5] Input/output error"])
def test_nothing_is_set_where_nobody_is_held(state: str) -> None:
    """A limit that the kernel keeps and does not mind would look as if it held."""
    kernel = Memory(state)
    told = answer(ASKED, kernel)
    assert (told["/srv"]["state"], kernel.holds) == (state, {})
    assert ("users" in told["/srv"]) is (state == "counted")


def test_each_line_is_answered_by_a_line() -> None:
    """Until the input ends."""
    out = io.StringIO()
    serve(io.StringIO(f"{json.dumps(ASKED)}\n{json.dumps({'/home': {}})}\n"), out, Memory())
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first == json.loads(json.dumps(answer(ASKED, Memory())))
    assert second == {"/home": {"state": "off"}}


def test_the_real_kernel_is_asked() -> None:
    """/proc has no quota, and a place that is not there is said to be so: the call itself is understood."""
    kernel = Linux()
    assert kernel.state("/proc") == "off"
    assert "No such file" in kernel.state("/nowhere")
    with pytest.raises(OSError, match="/proc"):
        kernel.get("/proc", 1001)


def test_it_needs_nothing_but_the_standard_library() -> None:
    """As it is started: alone, without site-packages and without the rest of relevo."""
    program = [sys.executable, "-I", "-S", str(Path(quotactl.__file__))]
    line = json.dumps({"/proc": {"users": [1001]}})
    done = subprocess.run(
        program, input=line, capture_output=True, text=True, timeout=20, check=True
    )
    assert json.loads(done.stdout) == {"/proc": {"state": "off"}}
