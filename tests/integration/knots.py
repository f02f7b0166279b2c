"""Real name server processes for tests: each in a folder of its own, on loopback, ended with the test."""

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from deploy.demo import knot
from deploy.demo.packages import Tools

ZONE = "coop.example"
KEY = knot.Key(name="relevo", secret="dGhlIHRlc3RzIG93biBzZWNyZXQsIDMyIGJ5dGVz")
FIRST_PORT, LAST_PORT = 21000, 29999


def free_port() -> int:
    """A port below the ephemeral range that nobody listens on, for TCP and UDP, IPv4 and IPv6."""
    start: int = FIRST_PORT + (time.monotonic_ns() // 1000) % (LAST_PORT - FIRST_PORT)
    for port in chain(range(start, LAST_PORT), range(FIRST_PORT, start)):
        with ExitStack() as stack:
            try:
                for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        stack.enter_context(socket.socket(family, kind)).bind((address, port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@contextmanager
def running(
    tools: Tools, server: knot.Server, command: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """knotd (or `command`) on what its folder holds, from its first answer about ZONE to the end of the block."""
    program, *arguments = command or ("knotd", "-c", str(server.config))
    log = (server.directory / "log").open("ab")
    with (
        log,
        subprocess.Popen(
            [tools.path(program), *arguments], env=tools.env(), stdout=log, stderr=log
        ) as process,
    ):
        try:
            _await_answer(server, process)
            yield process
        finally:
            process.terminate()
            process.wait(10)


def _await_answer(server: knot.Server, process: subprocess.Popen[bytes]) -> None:
    question = dns.message.make_query(ZONE, "SOA")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert process.poll() is None, (server.directory / "log").read_text()
        try:
            answer = dns.query.udp(question, server.addresses[0], port=server.port, timeout=0.2)
            if answer.answer:
                return
        except (OSError, dns.exception.Timeout):
            time.sleep(0.02)
        time.sleep(0.02)
    raise AssertionError((server.directory / "log").read_text())


def lay_out(
    directory: Path, zone: str = ZONE, key: knot.Key = KEY
) -> tuple[knot.Server, knot.Server]:
    """The folders of a primary and its secondary, ready to run."""
    ports: set[int] = set()
    while len(ports) < 2:
        ports.add(free_port())
    one, two = (
        knot.Server(directory=directory / name, port=port)
        for name, port in zip(("primary", "secondary"), sorted(ports), strict=True)
    )
    for server in (one, two):
        server.directory.mkdir(parents=True)
    one.config.write_text(knot.primary(one, key, [zone], [two]))
    two.config.write_text(knot.secondary(two, key, [zone], one))
    knot.zone_file(one, zone).write_text(knot.empty_zone(zone, (one, two)))
    return one, two
