"""How many wait for each php-fpm, told by the kernel: php-fpm itself says 0 for every Unix socket on Linux.

One question is answered for all sockets of this machine, and wakes nobody.

Source: sock_diag(7), netlink(7), linux/unix_diag.h.
"""

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.ports import DriverError

ANSWER_S = 0.5
ANSWER_BYTES = 1 << 16
SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
BY_FAMILY, ERROR, DONE = 20, 2, 3
REQUEST_DUMP = 0x301
LISTENING = 1 << 10
SHOW_VFS, SHOW_RQLEN = 0x02, 0x10
VFS, RQLEN = 1, 4

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
QUESTION = struct.Struct("=BBHIIIII")  # family, protocol, pad, states, inode, show, cookie
MESSAGE_BYTES = 16  # family, type, state, pad, inode, cookie
ATTRIBUTE = struct.Struct("=HH")  # length, type
PAIR = struct.Struct("=II")

Place = tuple[int, int]
"""A socket's file: its device as the kernel writes it, and its inode."""


class Queue(msgspec.Struct, frozen=True):
    """Who `waits` to be taken by the one that listens, and how many may."""

    waits: int
    room: int


def place(path: Path) -> Place:
    """Whatever it was called when it was bound: a socket may have been renamed since. Raises OSError."""
    told = os.stat(path)
    device = os.major(told.st_dev) << 20 | os.minor(told.st_dev)
    return device, told.st_ino & 0xFFFFFFFF


def queues() -> dict[Place, Queue]:
    """Of every Unix socket of this network namespace that listens and has a file. Raises DriverError."""
    question = QUESTION.pack(socket.AF_UNIX, 0, 0, LISTENING, 0, SHOW_VFS | SHOW_RQLEN, 0, 0)
    length = HEADER.size + len(question)
    found: dict[Place, Queue] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as link:
            link.settimeout(ANSWER_S)
            link.send(HEADER.pack(length, BY_FAMILY, REQUEST_DUMP, 1, 0) + question)
            while not parse(link.recv(ANSWER_BYTES), found):
                pass
    except (OSError, struct.error) as error:
        raise DriverError(f"the kernel does not tell who waits at sockets: {error}") from error
    return found


def parse(answer: bytes, found: dict[Place, Queue]) -> bool:
    """Add what a datagram of the answer says to `found`; True at its end. Raises OSError, struct.error."""
    at = 0
    while at + HEADER.size <= len(answer):
        length, kind, _, _, _ = HEADER.unpack_from(answer, at)
        if kind == DONE:
            return True
        if kind == ERROR or length < HEADER.size:
            raise OSError(f"netlink message {kind} of {length} bytes")
        told = dict(_attributes(answer[at + HEADER.size + MESSAGE_BYTES : at + length]))
        if VFS in told and RQLEN in told:
            inode, device = PAIR.unpack_from(told[VFS])
            found[device, inode] = Queue(*PAIR.unpack_from(told[RQLEN]))
        at += -(-length // 4) * 4
    return False


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            return
        yield kind, data[at + ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4
