"""Real name server processes for tests: each in a folder of its own, on loopback, ended with the test."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from deploy.demo import knot
from deploy.demo.packages import Tools
from tests.ports import free_port

ZONE = "coop.example"
KEY = knot.Key(name="relevo", secret="dGhlIHRlc3RzIG93biBzZWNyZXQsIDMyIGJ5dGVz")


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
    one, two = (
        knot.Server(directory=directory / name, port=free_port())
        for name in ("primary", "secondary")
    )
    for server in (one, two):
        server.directory.mkdir(parents=True)
    one.config.write_text(knot.primary(one, key, [zone], [two]))
    two.config.write_text(knot.secondary(two, key, [zone], one))
    knot.zone_file(one, zone).write_text(knot.empty_zone(zone, (one, two)))
    return one, two
