"""What a site's users do that web sites do not: on made-up tables of sockets, real ones, and processes of our own."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layout.attached import Attached
from agent.ports import DriverError
from agent.usage import habits
from agent.usage.habits import Habits, Observer, is_here, sockets
from fleet.caps import Attachment
from fleet.model import SiteId, Why

A, B = SiteId("a"), SiteId("b")
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
HERE, ELSEWHERE, ANYWHERE = "0100007F", "0A0200C0", "00000000"
ME = os.getuid()


def entry(
    uid: int, remote: str, port: int = 443, state: int = 1, local: str = HERE, door: int = 40000
) -> str:
    return (
        f"   0: {local}:{door:04X} {remote}:{port:04X} {state:02X} 00000000:00000000 00:00000000 "
        f"00000000 {uid:5}        0 12345 1 0000000000000000 20 4 30 10 -1\n"
    )


class Host:
    """Two sites, each of a user of its own; `tcp` is what is connected now."""

    def __init__(self, root: Path) -> None:
        self.proc, self.crontabs = root / "proc", root / "crontabs"
        self.refused: dict[int, int] | None = {}
        (self.proc / "net").mkdir(parents=True)
        self.crontabs.mkdir()
        self.observer = Observer(self.proc, self.crontabs, self._refused)
        self.now = 0.0
        self.look("")

    def _refused(self) -> dict[int, int]:
        if self.refused is None:
            raise DriverError("nft: no answer")
        return self.refused

    def look(self, tcp: str) -> dict[SiteId, Habits]:
        (self.proc / "net/tcp").write_text(HEAD + tcp)
        self.now += 10.0
        return self.observer.look(self.now, {A: site(ME), B: site(4001)})


def site(uid: int) -> Attached:
    return Attached(attachment=Attachment.POOL, why=Why("x"), uids=(uid,))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("0100007F", True),
        ("3500007F", True),
        ("0A0200C0", False),
        ("00000000000000000000000001000000", True),
        ("0000000000000000FFFF00000100007F", True),
        ("0000000000000000FFFF00000A0200C0", False),
        ("B80D0120000000000000000001000000", False),
    ],
)
def test_loopback_is_told_from_the_world(address: str, here: bool) -> None:
    """As the kernel writes it, in the machine's byte order."""
    assert is_here(address) is here


def test_many_places_are_counted_once_each(host: Host) -> None:
    """New destinations by the second; the same ones again are none, nor is what came in or stays on this machine."""
    out = "".join(entry(ME, f"0A{n:02X}00C0", door=30_000 + n) for n in range(40))
    came_in = entry(4001, ANYWHERE, 0, 10, door=8080) + entry(4001, ELSEWHERE, door=8080)
    loopback = entry(4001, HERE, 3306)
    seen = host.look(out + came_in + loopback)
    assert seen[A] == Habits(new_destinations_per_s=4.0)
    assert B not in seen
    assert host.look(out) == {}


def test_mail_past_the_mail_server_is_seen(host: Host) -> None:
    """Connections to port 25 elsewhere; the one to the mail server of this machine is what should be."""
    mails = "".join(entry(4001, ELSEWHERE, 25, door=30_000 + n) for n in range(20))
    seen = host.look(mails + entry(ME, HERE, 25))
    assert seen.keys() == {B}
    assert seen[B] == Habits(new_destinations_per_s=0.1, direct_mail_per_s=2.0)
    assert host.look(mails) == {}, "the same connections are counted once"


def test_mail_that_the_firewall_refuses_is_seen_without_a_socket(host: Host) -> None:
    """By its counters, since the last look; rules written anew count from the beginning; what failed is not known."""
    host.refused = {ME: 7, 4001: 30}
    assert host.look("") == {}, "when that was, nobody knows"
    host.refused = {ME: 7, 4001: 50}
    assert host.look("") == {B: Habits(refused_mail_per_s=2.0)}
    assert host.look("") == {}
    host.refused = {ME: 0, 4001: 5}
    assert host.look("") == {B: Habits(refused_mail_per_s=0.5)}
    host.refused = None
    assert host.look("") == {}
    host.refused = {ME: 0, 4001: 900}
    assert host.look("") == {}


def test_a_door_to_the_world_is_seen(host: Host) -> None:
    """A site's own server is reached by its web server on loopback; one on every address is something else."""
    assert host.look(entry(ME, ANYWHERE, 0, 10)) == {}
    door = entry(ME, ANYWHERE, 0, 10, local=ANYWHERE)
    assert host.look(door) == {}, "it may be there for a moment"
    assert host.look(door)[A].listens
    assert host.look("") == {} and host.look(door) == {}
    assert host.look(entry(998, ANYWHERE, 0, 10, local=ANYWHERE)) == {}


def test_a_crontab_that_changed_is_told_once(host: Host) -> None:
    """Also the first one, and one that is gone; not those that were there when we began."""
    crontab = host.crontabs / "mine"
    crontab.write_text("1 2 3 4 5 true\n")
    assert Observer(host.proc, host.crontabs).look(1.0, {A: site(ME)}) == {}
    assert host.look("")[A].cron_changed
    assert host.look("") == {}
    crontab.write_text("* * * * * curl\n")
    os.utime(crontab, ns=(1, 1))
    assert host.look("")[A].cron_changed
    crontab.unlink()
    assert host.look("")[A].cron_changed
    assert host.look("") == {}


@pytest.mark.parametrize(
    ("words", "odd"),
    [
        (["./xmrig"], False),
        (["/tmp/.x/kdevtmpfs", "--donate"], True),
        (["php", "/srv/club/wp-content/uploads/2026/11/a.php"], True),
        (["/usr/bin/php8.2", "/srv/club/cron.php", "/tmp/argument"], False),
        (["php-fpm: pool club"], False),
        (["perl", "/dev/shm/.a"], True),
        (["python3.11", "/srv/club/wp-content/uploads/a"], True),
        (["-bash", "/tmp/.x"], True),
        (["php", "-q", "/srv/club/wp-content/uploads/a.php"], True),
        (["jpegoptim", "/srv/club/wp-content/uploads/a.jpg"], False),
        (["/usr/bin/convert", "/srv/club/wp-content/uploads/a.jpg", "a.png"], False),
        (["vi", "/tmp/crontab.Xy12Zz/crontab"], False),
        (["sh", "-c", "jpegoptim /srv/club/wp-content/uploads/a.jpg"], False),
        (["php", "-r", "/* /srv/club/wp-content/uploads/a.jpg */ f();"], False),
        (["/srv/club/wp-content/uploads/php", "-r", "x"], True),
    ],
)
def test_programs_out_of_odd_places_are_seen(host: Host, words: list[str], odd: bool) -> None:
    """By what was called and by which file runs; a file that a program is given to work on is not called."""
    folder = host.proc / "77"
    folder.mkdir()
    (folder / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    assert host.look("") == {}, "it may run for a moment"
    assert host.look("").get(A, Habits()).runs_from_uploads is odd


def test_the_kernels_own_tables_are_understood(tmp_path: Path) -> None:
    """A door of this test's own on this machine's real tables; a program of ours that runs out of /tmp."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        port = door.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            table = Path("/proc/net/tcp").read_bytes()
            found = [one for one in sockets(table, frozenset({ME})) if one.local_port == port]
    assert {one.state for one in found} >= {habits.LISTENING}
    assert all(is_here(one.local) and one.uid == ME for one in found)

    observer = Observer(crontabs=tmp_path)
    program = tmp_path / "uploads" / "sleeper"
    program.parent.mkdir()
    program.symlink_to(sys.executable)
    with subprocess.Popen([program, "-c", "import time; time.sleep(30)"]) as child:
        deadline = time.monotonic() + 5
        while not (seen := observer.look(time.monotonic(), {A: site(ME)})):
            assert time.monotonic() < deadline
        child.kill()
    assert seen[A].runs_from_uploads


@given(st.binary(max_size=300))
def test_no_table_is_too_strange(data: bytes) -> None:
    """Sockets or nothing."""
    assert all(one.local_port >= 0 for one in sockets(b"head\n" + data, frozenset({0, 1})))


def test_what_is_remembered_of_destinations_is_bounded_and_forgotten() -> None:
    """A scanner of the whole world fills no memory; after two minutes a place is new again."""
    going = habits.Going()
    for n in range(20):
        mine = [habits.Socket(1, 1, HERE, 1, f"{n:02X}{m:04X}01", 80) for m in range(1000)]
        assert going.look(0.0, mine, frozenset())[0] == 1000
    assert len(going._seen) < habits.DESTINATIONS_MAX + 1000
    one = [habits.Socket(1, 1, HERE, 1, "00000001", 80)]
    assert [going.look(at, one, frozenset())[0] for at in (10.0, 70.0, 100.0, 200.0, 300.0)] == [
        0,
        0,
        0,
        0,
        0,
    ]
    assert going.look(360.0, [], frozenset()) == (0, 0)
    assert going.look(420.0, [], frozenset()) == (0, 0)
    assert going.look(480.0, one, frozenset())[0] == 1
