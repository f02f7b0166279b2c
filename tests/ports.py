"""Ports for the servers that tests start: below the ephemeral range, where no outgoing connection takes one."""

import os
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle

FIRST, AFTER = 12_000, 32_000
ADDRESSES = ((socket.AF_INET, ""), (socket.AF_INET6, "::1"))


def _own() -> range:
    """Each of pytest-xdist's workers has its own: nobody is between a look at a port and its use."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = (AFTER - FIRST) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return range(FIRST + worker * size, FIRST + (worker + 1) * size)


def _from_anywhere(ports: range) -> Iterator[int]:
    start = random.randrange(len(ports))
    return cycle([*ports[start:], *ports[:start]])


_ports = _from_anywhere(_own())


def free_port() -> int:
    """One that nobody listens at, by TCP and UDP, on IPv4 and the IPv6 loopback; and not the same again soon."""
    for _, port in zip(_own(), _ports, strict=False):
        with ExitStack() as stack:
            try:
                for family, address in ADDRESSES:
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        stack.enter_context(socket.socket(family, kind)).bind((address, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")
