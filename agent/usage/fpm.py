"""Asks a php-fpm pool how it is: a FastCGI client for one request, with a deadline.

Source: FastCGI Specification 1.0, sections 3.3 to 5.5; php-fpm's manual, "Status page".
"""

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from agent.ports import DriverError

# A pool that is well answers in a millisecond; one that does not holds up the asking of all others.
ANSWER_S = 0.25
ANSWER_BYTES = 1 << 16  # a status has 400 bytes: whoever sends more is no php-fpm

HEADER = struct.Struct(">BBHHBx")  # version, type, request, content's length, padding
VERSION, REQUEST = 1, 1
BEGIN, END, PARAMS, STDIN, STDOUT = 1, 3, 4, 5, 6
RESPONDER = struct.pack(">HB5x", 1, 0)  # and close the connection afterwards


class Status(msgspec.Struct, frozen=True):
    """What a pool says of itself; counters since its start. `active` counts the worker that answers too.

    How many wait is not taken from here: of a Unix socket php-fpm knows nothing on Linux, and says 0.
    """

    accepted: int = msgspec.field(name="accepted conn")
    active: int = msgspec.field(name="active processes")
    total: int = msgspec.field(name="total processes")
    short: int = msgspec.field(name="max children reached")  # times


class QueueFull(DriverError):
    """Its queue takes nobody any more."""


class NoAnswer(DriverError):
    """It took the question and did not answer in time: every worker is busy."""


def ask(path: Path, page: str, *, within_s: float = ANSWER_S) -> Status:
    """The status of the pool that listens at `path`, asked for as `page`. Raises DriverError; blocks `within_s`."""
    deadline = time.monotonic() + within_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(within_s)
        try:
            link.connect(str(path))
            link.sendall(request(page))
            return parse(_answer(link, deadline))
        except BlockingIOError as error:  # what a Unix socket says when its backlog is full
            raise QueueFull(f"{path}: the queue is full") from error
        except TimeoutError as error:
            raise NoAnswer(f"{path}: no answer within {within_s:g} s") from error
        except (OSError, ValueError) as error:
            raise DriverError(f"{path}{page}: {error}") from error


def request(page: str) -> bytes:
    """The frames that ask for `page` in JSON."""
    params = b"".join(
        _pair(name, value)
        for name, value in (
            ("REQUEST_METHOD", "GET"),
            ("SCRIPT_NAME", page),
            ("SCRIPT_FILENAME", page),
            ("QUERY_STRING", "json"),
        )
    )
    frames = ((BEGIN, RESPONDER), (PARAMS, params), (PARAMS, b""), (STDIN, b""))
    return b"".join(
        HEADER.pack(VERSION, kind, REQUEST, len(content), 0) + content for kind, content in frames
    )


def parse(answer: bytes) -> Status:
    """Of what a pool wrote, headers and all. Raises ValueError."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"Status: ") and not head.startswith(b"Status: 200"):
        raise ValueError(head.splitlines()[0].decode("ascii", "replace")[:80])
    return msgspec.json.decode(body, type=Status)


def _pair(name: str, value: str) -> bytes:
    """Source: FastCGI Specification, 3.4. Names and values under 128 bytes have a length of one byte."""
    a, b = name.encode(), value.encode()
    length = bytes([len(b)]) if len(b) < 128 else struct.pack(">I", len(b) | 1 << 31)
    return bytes([len(a)]) + length + a + b


def _answer(link: socket.socket, deadline: float) -> bytes:
    stream = Stream()
    while not stream.ended:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        link.settimeout(left_s)
        if not (data := link.recv(ANSWER_BYTES)):
            raise ValueError("it closed the connection before the end of its answer")
        stream.feed(data)
    return bytes(stream.out)


class Stream:
    """The frames of an answer as they come, in pieces of any size."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.ended = False
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        """Raises ValueError for what is no answer."""
        self._rest += data
        for kind, content in self._frames():
            if kind == STDOUT:
                self.out += content
            elif kind == END:
                self.ended = True
        if len(self.out) + len(self._rest) > 2 * ANSWER_BYTES:
            raise ValueError(f"an answer of more than {ANSWER_BYTES} bytes")

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        while len(self._rest) >= HEADER.size:
            version, kind, _, length, padding = HEADER.unpack_from(self._rest)
            if version != VERSION:
                raise ValueError(f"FastCGI version {version}")
            whole = HEADER.size + length + padding
            if len(self._rest) < whole:
                return
            content = bytes(self._rest[HEADER.size : HEADER.size + length])
            del self._rest[:whole]
            yield kind, content
