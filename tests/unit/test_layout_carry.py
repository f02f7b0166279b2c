"""Carrying out the steps of a move: files, names of sockets, waiting; on a folder and sockets of the test's own."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.layout.carry import Carrier, connected, listening
from agent.layout.moves import Places
from agent.layout.steps import Ask, Drain, Gone, Judge, Link, Point, PutAside, Systemd, Write
from agent.ports import DriverError


class Told:
    """Units that do what they are told; it is noted."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, ...]] = []

    async def systemctl(self, verb: str, *units: str) -> None:
        self.orders.append((verb, *units))


@pytest.fixture
def carrier(tmp_path: Path) -> Carrier:
    return Carrier(Places(conf=tmp_path / "relevo"), Told(), drain_s=5.0)


def was(tmp_path: Path, path: Path) -> Path:
    return tmp_path / "relevo" / "was" / str(path).strip("/").replace("/", "-")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_file_is_replaced_whole_and_what_it_said_is_kept(
    carrier: Carrier, tmp_path: Path
) -> None:
    """Its mode stays; a file that says it already is left alone; a new one gets the step's mode."""
    path = tmp_path / "etc" / "pool.d" / "a.conf"
    await carrier.carry_out(Write(path, "one\n", 0o600))
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    before = path.stat().st_ino
    await carrier.carry_out(Write(path, "one\n"))
    assert path.stat().st_ino == before and not was(tmp_path, path).exists()
    await carrier.carry_out(Write(path, "two\n"))
    assert path.read_text() == "two\n" and path.stat().st_mode & 0o777 == 0o640
    assert was(tmp_path, path).read_text() == "one\n"
    assert names(path.parent) == ["a.conf"]


async def test_a_file_that_comes_back_is_as_readable_as_it_was(
    carrier: Carrier, tmp_path: Path
) -> None:
    """A pool may say passwords: put aside and written again, nobody else reads it."""
    path = tmp_path / "a.conf"
    path.write_text("secret\n")
    path.chmod(0o600)
    for _ in range(2):  # what is gone already is no trouble
        await carrier.carry_out(PutAside(path))
    assert not path.exists() and was(tmp_path, path).read_text() == "secret\n"
    await carrier.carry_out(Write(path, "secret again\n", 0o644))
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_name_changes_hands_and_both_may_be_done_again(
    carrier: Carrier, tmp_path: Path
) -> None:
    """A hard link, then a symbolic one, over what was there; nothing is left beside it."""
    name, own = tmp_path / "a.sock", tmp_path / "own.sock"
    with ExitStack() as stack:
        for path in (name, own):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
        for _ in range(2):
            await carrier.carry_out(Link(name, own))
            assert name.samefile(own) and not name.is_symlink()
        for _ in range(2):
            await carrier.carry_out(Point(name, own))
            assert name.is_symlink() and name.samefile(own)
        assert names(tmp_path) == ["a.sock", "own.sock"]
        # The kernel goes by the name that it was bound as, whatever it is called now.
        assert {str(name), str(own)} <= listening()


async def test_who_waits_is_counted_as_who_is_served(carrier: Carrier, tmp_path: Path) -> None:
    """A listener that is left has to serve both before it goes."""
    path = str(tmp_path / "a.sock")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen()
        visitors = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for visitor in visitors:
            visitor.connect(path)
        served, _ = listener.accept()
        assert connected(path) == 2
        served.close()
        waiting, _ = listener.accept()
        waiting.close()
        assert connected(path) == 0 and path in listening()
        await carrier.carry_out(Drain(path))
    assert path not in listening()
    await carrier.carry_out(Gone(path))


@pytest.mark.virtual_time
async def test_waiting_has_an_end_and_says_what_for(carrier: Carrier, tmp_path: Path) -> None:
    """Requests that do not end, a master that stays, a pool that does not answer: the plan stops there."""
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as visitor:
        listener.bind(path)
        listener.listen()
        visitor.connect(path)
        for step, said in (
            (Drain(path), "requests have not ended within 5 s"),
            (Gone(path), "the old master still listens within 60 s"),
        ):
            with pytest.raises(DriverError, match=said):
                await carrier.carry_out(step)
    with pytest.raises(DriverError, match="no answer within 20 s"):
        await carrier.carry_out(Ask(tmp_path / "nowhere.sock"))


async def test_what_the_system_refuses_stops_the_plan(tmp_path: Path) -> None:
    """A configuration that php-fpm does not take, a program that is not there, a name that can't be made."""
    told = Told()
    carrier = Carrier(Places(conf=tmp_path), told)
    await carrier.carry_out(Systemd("daemon-reload"))
    assert told.orders == [("daemon-reload",)]
    for step, said in (
        (Judge("false", "x.conf"), "false --test --fpm-config x.conf: 1"),
        (Judge("/nowhere/php-fpm", "x.conf"), "/nowhere/php-fpm"),
        (Link(tmp_path / "a", tmp_path / "b"), "make .* the socket"),
    ):
        with pytest.raises(DriverError, match=said):
            await carrier.carry_out(step)
