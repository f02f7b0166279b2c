"""The demo as people see it: on a terminal, by its keys, until it is quit."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from select import select

import pytest

from deploy.demo.packages import Tools
from tests.integration.test_demo import left_of

pytestmark = pytest.mark.integration

WIDTH, HEIGHT = 100, 30
NOBODY = "no controller leads just now"
HOSTS = 6
# What rich sends around text: colours, moves, and whether the cursor shows.
CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9])")
# Each picture is drawn from the top left corner.
HOME = "\x1b[H"


class Terminal:
    """The other end of a terminal: what is on it, and its keys."""

    def __init__(self, ours: int) -> None:
        self._ours, self._seen = ours, b""

    def press(self, key: str) -> None:
        os.write(self._ours, key.encode())

    def until(self, shows: Callable[[str], bool], within_s: float) -> str:
        """The first whole picture of which `shows` is true."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            self.read()
            if shows(self.picture):
                return self.picture
        raise AssertionError(f"not shown within {within_s:g} s:\n{self.picture}")

    def read(self, wait_s: float = 0.1) -> None:
        if select([self._ours], [], [], wait_s)[0]:
            try:
                self._seen = (self._seen + os.read(self._ours, 1 << 16))[-(1 << 17) :]
            except OSError:  # EIO: nobody has the terminal open any more
                time.sleep(wait_s)

    @property
    def picture(self) -> str:
        """The last that was drawn to its end: before the last that was begun."""
        pictures = self._seen.decode(errors="replace").split(HOME)
        return CONTROL.sub("", pictures[-2] if len(pictures) > 1 else pictures[-1])


@contextmanager
def demo(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """The live view on a terminal of its own; killed where the test failed before its end."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        environment.pop(name, None)
    command = (sys.executable, "-m", "deploy.demo.command", *options)
    process = subprocess.Popen(
        command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True
    )
    os.close(its)
    terminal = Terminal(ours)
    try:
        yield process, terminal
    finally:
        if process.poll() is None:
            process.terminate()
            end = time.monotonic() + 20
            while process.poll() is None and time.monotonic() < end:
                terminal.read()
        os.close(ours)
        process.wait(5)


def quits(process: subprocess.Popen[bytes], terminal: Terminal) -> None:
    """`q` ends it in good order, and nothing of it is left."""
    terminal.press("q")
    end = time.monotonic() + 20
    while process.poll() is None:
        terminal.read()
        assert time.monotonic() < end, "did not end"
    assert process.returncode == 0
    assert left_of(process.pid) == []


@pytest.mark.long
def test_a_host_is_killed_and_brought_back_by_its_keys(tools: Tools) -> None:
    """All up, `1` and `k`: its sites move, proven and complete; `b` brings them home; an edge dies; `q` ends it all."""
    with demo() as (process, terminal):
        terminal.until(lambda picture: picture.count("● up") == HOSTS, 25)
        terminal.press("1")
        terminal.until(lambda picture: "▸1" in picture, 2)
        terminal.press("k")
        shown = terminal.until(lambda picture: "complete after" in picture, 15)
        assert "10 sites moved" in shown
        assert "proven" in shown
        assert "killed" in shown
        assert "where you struck, 0 elsewhere" in shown
        assert all(len(line) <= WIDTH for line in shown.splitlines())
        terminal.press("b")
        terminal.until(lambda picture: "is back" in picture, 10)
        terminal.until(lambda picture: "web1 is up, and its sites are at home" in picture, 30)
        terminal.press("5")
        terminal.until(lambda picture: "▸5" in picture, 2)
        terminal.press("k")
        shown = terminal.until(lambda picture: "come by the other edges" in picture, 15)
        assert "where you struck, 0 elsewhere" in shown
        quits(process, terminal)


def leader(picture: str) -> str:
    """Who leads; nobody where it is not exactly one."""
    found = re.findall(r"(c\d) leads", picture)
    return found[0] if len(found) == 1 else ""


def well(picture: str) -> bool:
    """One of three controllers leads, all of them and their etcd run, and every host is up."""
    line = next((line for line in picture.splitlines() if "controllers" in line), "")
    runs = line.count("follows") + line.count("leads") == 3 and "down" not in line
    return runs and bool(leader(picture)) and picture.count("● up") == HOSTS


def struck(terminal: Terminal, key: str, done: str) -> str:
    """Whom the key struck; pressed again where nobody led in that moment."""
    said = re.compile(re.escape(done).replace(r"\{\}", r"(c\d)"))
    for _ in range(10):
        terminal.press(key)
        shown = terminal.until(lambda picture: bool(said.search(picture)) or NOBODY in picture, 5)
        if found := said.search(shown):
            return found[1]
        terminal.until(well, 20)
    raise AssertionError(f"{key}: nobody led:\n{terminal.picture}")


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_the_leader_and_its_etcd_are_struck_by_their_keys(tools: Tools) -> None:
    """`l` its process, `e` its member of etcd, `m` both as when power fails, `m` again: no site moves, nobody fails."""
    with demo("--store", "etcd", "--controllers", "3") as (process, terminal):
        terminal.until(well, 40)
        struck(terminal, "l", "controller of {} killed")
        terminal.until(well, 20)
        struck(terminal, "e", "etcd of {} killed")
        terminal.until(well, 20)
        gone = struck(terminal, "m", "{} has no power")
        down = f"{gone} down, etcd down"
        shown = terminal.until(
            lambda picture: down in picture and leader(picture) not in ("", gone), 20
        )
        assert "leads, etcd up" in shown
        terminal.press("m")
        terminal.until(lambda picture: f"{gone} is on again" in picture, 5)
        shown = terminal.until(well, 30)
        assert "24 sites, 0 away from home" in shown and "No incident yet" in shown
        assert "failed: 0 where you struck, 0 elsewhere" in shown
        quits(process, terminal)
