"""Asks the kernel what Unix users keep on file systems, and tells it what they may: a program of its own.

systemd starts it, with the one capability that it needs and the agent has not; it has the standard library alone. A
line of JSON asks, a line answers, until its input ends. Sizes are in bytes, 0 is no limit.
Source: quotactl(2) with quotactl_fd(2), Linux 5.14; linux/quota.h, linux/dqblk_xfs.h.
"""

import ctypes
import errno
import json
import os
import struct
import sys
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

FIELDS = ("used_bytes", "used_inodes", "disk_bytes", "disk_hard_bytes", "inodes", "inodes_hard")
QUOTACTL_FD = 443  # on every architecture that Debian has, but alpha
USERS = 0
GET, SET, STATE = 0x800007, 0x800008, (ord("X") << 8) + 5
BLOCK_BYTES = 1024
# struct if_dqblk: hard and soft limit of blocks, bytes kept, the same of inodes, two ends of grace, what is valid.
BLOCK = struct.Struct("=8QI4x")
LIMITS, BLOCKS_UNTIL, INODES_UNTIL = 1 | 4, 16, 32
FLAGS = struct.Struct("=bxH")  # the beginning of struct fs_quota_stat
COUNTED, ENFORCED = 1, 2
STAT_BYTES = 256  # the struct has 80

Limits = Mapping[str, int]
Answer = dict[str, Any]


class Kernel(Protocol):
    def state(self, mount: str) -> str:
        """`enforced`, `counted`, `off`, or what went wrong."""
        ...

    def get(self, mount: str, uid: int) -> Limits:
        """By FIELDS. Raises OSError."""
        ...

    def put(self, mount: str, uid: int, limits: Limits) -> None:
        """Set what is in FIELDS but the first two. A grace that runs runs on. Raises OSError."""
        ...


class Linux:
    """The kernel that this runs on."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def state(self, mount: str) -> str:
        found = ctypes.create_string_buffer(STAT_BYTES)
        try:
            self._call(mount, STATE, 0, found)
        except OSError as error:
            # So it says where quota is off, and where its kind of file system has none.
            off = error.errno in (errno.ENOSYS, errno.ESRCH, errno.EINVAL)
            return "off" if off else str(error)
        _, flags = FLAGS.unpack_from(found)
        if flags & ENFORCED:
            return "enforced"
        return "counted" if flags & COUNTED else "off"

    def get(self, mount: str, uid: int) -> Limits:
        return _limits(self._read(mount, uid))

    def put(self, mount: str, uid: int, limits: Limits) -> None:
        was = self._read(mount, uid)
        block = packed(limits, ends=(was[6], was[7]))
        self._call(mount, SET, uid, ctypes.create_string_buffer(block, BLOCK.size))

    def _read(self, mount: str, uid: int) -> tuple[int, ...]:
        block = ctypes.create_string_buffer(BLOCK.size)
        try:
            self._call(mount, GET, uid, block)
        except FileNotFoundError:  # XFS has no record of who keeps nothing
            return (0,) * 9
        return BLOCK.unpack(block.raw)

    def _call(self, mount: str, what: int, uid: int, block: "ctypes.Array[ctypes.c_char]") -> None:
        # The directory, not its device: that may have no name here.
        place = os.open(mount, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            command = ctypes.c_uint(what << 8 | USERS)
            number = ctypes.c_long(QUOTACTL_FD)
            if self._libc.syscall(number, ctypes.c_uint(place), command, ctypes.c_long(uid), block):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), mount)
        finally:
            os.close(place)


def packed(limits: Limits, ends: tuple[int, int] = (0, 0)) -> bytes:
    """As the kernel reads it. `ends` of graces that run (Unix s): without them each setting would begin them anew."""
    valid = LIMITS | (BLOCKS_UNTIL if ends[0] else 0) | (INODES_UNTIL if ends[1] else 0)
    hard, soft = limits["disk_hard_bytes"] // BLOCK_BYTES, limits["disk_bytes"] // BLOCK_BYTES
    return BLOCK.pack(hard, soft, 0, limits["inodes_hard"], limits["inodes"], 0, *ends, valid)


def _limits(block: tuple[int, ...]) -> Limits:
    hard, soft, used, inodes_hard, inodes, used_inodes = block[:6]
    sizes = (used, used_inodes, soft * BLOCK_BYTES, hard * BLOCK_BYTES, inodes, inodes_hard)
    return dict(zip(FIELDS, sizes, strict=True))


def answer(asked: Answer, kernel: Kernel) -> Answer:
    """By mount: its `state`, its `users` as they are then, and what was `refused`.

    Asked for by mount: `users` to look at, and of whom to `set` what before.
    """
    return {mount: _mount(mount, wish, kernel) for mount, wish in asked.items()}


def _mount(mount: str, wish: Answer, kernel: Kernel) -> Answer:
    state = kernel.state(mount)
    if state not in ("enforced", "counted"):
        return {"state": state}
    refused = {}
    for uid, limits in wish.get("set", {}).items() if state == "enforced" else ():
        try:
            kernel.put(mount, int(uid), limits)
        except OSError as error:
            refused[uid] = str(error)
    try:
        users = {str(uid): kernel.get(mount, uid) for uid in wish.get("users", ())}
    except OSError as error:
        return {"state": str(error), "refused": refused}
    return {"state": state, "users": users, "refused": refused}


def serve(lines: TextIO, out: TextIO, kernel: Kernel) -> None:
    """Answer line by line until the input ends."""
    for line in lines:
        out.write(f"{json.dumps(answer(json.loads(line), kernel))}\n")
        out.flush()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout, Linux())
