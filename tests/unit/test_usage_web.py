"""The web side of a site: access logs as they are written, and php-fpm over its socket."""

import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.layout.attached import Attached
from agent.ports import DriverError
from agent.usage import accesslog, backlog, fpm
from agent.usage.accesslog import Clients, Line, Urls, Web, parse
from agent.usage.web import WebSide
from fleet.caps import Attachment
from fleet.model import SiteId, Why

A = SiteId("a")
WHEN = "[21/Nov/2026:10:00:00 +0000]"


def line(
    client: str = "203.0.113.7", url: str = "/", status: int = 200, rest: str = ' "-" "agent 7"'
) -> str:
    return f'{client} - - {WHEN} "GET {url} HTTP/1.1" {status} 512{rest}\n'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (line(url="/a?token=secret"), Line(b"203.0.113.7", "/a", 200, None)),
        (line(client="2001:db8::1"), Line(b"2001:db8::1", "/", 200, None)),
        ("Club.example:443 " + line(), Line(b"203.0.113.7", "/", 200, None)),
        (line(rest=' "-" "agent 7" 0.250'), Line(b"203.0.113.7", "/", 200, 0.25)),
        (line(rest=' "-" "agent 7" 250000'), Line(b"203.0.113.7", "/", 200, 0.25)),
        (line(rest=' "-" "x" rt=1.5'), Line(b"203.0.113.7", "/", 200, 1.5)),
        (line(rest=""), Line(b"203.0.113.7", "/", 200, None)),
        (
            f'::1 - ana b {WHEN} "-" 408 0 "-" "-"\n',
            Line(b"::1", "-", 408, None),
        ),
    ],
)
def test_a_line_of_the_usual_formats_is_understood(text: str, found: Line) -> None:
    """Common, combined, with a virtual host before and a duration after; a URL never with its query."""
    assert parse(text.rstrip("\n").encode()) == found


@given(st.binary(max_size=300))
def test_no_line_is_too_strange(data: bytes) -> None:
    """Whatever visitors make a server write."""
    found = parse(data)
    assert found is None or "?" not in found.url


def test_no_line_takes_long() -> None:
    """A hostile line costs what its length costs."""
    began = time.perf_counter()
    for evil in (
        "[" * 60_000,
        f"1.1.1.1 - {'[' * 60_000}",
        f'1.1.1.1 - - {WHEN} "GET {"/" * 60_000}',
    ):
        assert parse(evil.encode()) is None
    assert time.perf_counter() - began < 0.2


@pytest.mark.parametrize("count", [0, 1, 50, 1_000, 20_000])
def test_clients_are_counted_within_three_per_cent(count: int) -> None:
    """Without keeping one address."""
    clients = Clients()
    clients.turn(0.0)
    for n in range(count):
        for _ in range(2):
            clients.add(b"198.51.%d.%d" % divmod(n, 250))
    assert clients.count() == pytest.approx(count, rel=0.03)


def test_nothing_of_a_client_outlives_its_minutes() -> None:
    """Salt and bits are dropped each minute; after a quiet minute nobody is counted (rule R16)."""
    clients = Clients()
    clients.turn(0.0)
    many = [b"203.0.113.%d" % n for n in range(20)]  # of one alone the bit is the same now and then
    for one in many:
        clients.add(one)
    first = (clients._salt, bytes(clients._bits))
    clients.turn(60.0)
    assert clients.count() == pytest.approx(20, abs=2), "of the last whole minute"
    assert clients._salt != first[0] and not any(clients._bits)
    for one in many:
        clients.add(one)
    assert bytes(clients._bits) != first[1]
    clients.turn(500.0)
    assert clients.count() == 0


@given(st.lists(st.sampled_from([f"/{n}" for n in range(100)]), max_size=400))
def test_urls_are_bounded_and_the_most_asked_is_among_them(asked: list[str]) -> None:
    """A table of a fixed size, however many URLs there are; what makes up a tenth is never missed."""
    urls = Urls()
    urls.turn(0.0)
    for url in asked:
        urls.add(url)
    assert len(urls._counts) <= accesslog.URLS
    top = urls.top()
    for url in set(asked):
        if asked.count(url) * 10 > len(asked):
            assert url in top


class Follow:
    """Logs of a site that several rounds look at."""

    def __init__(self, *logs: Path) -> None:
        self.web = WebSide()
        self.web.follow({A: Attached(attachment=Attachment.LOG, why=Why("mod-php"), logs=logs)})
        self.now = 0.0
        self.web.round(self.now, ())

    def later(self, seconds: float = 2.0) -> dict[SiteId, Web]:
        self.now += seconds
        return self.web.round(self.now, ())


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text(line(url="/old") * 50)
    return path


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_silence_is_told_minute_by_minute() -> None:
    """Who came is forgotten in time though nobody comes; the next request is counted like the first."""
    site, clients = accesslog.Site(), list[int | None]()
    for begin in (0.0, 500.0):
        site.turn(begin)
        site.add(Line(b"203.0.113.7", "/", 200, None), 1.0)
        assert site.told(2.0).requests_per_s == 0.5
        for now in range(2, 180, 2):
            site.turn(begin + now)
            web = site.told(2.0)
            assert web.requests_per_s == web.errors_per_s == web.busy == 0.0
            clients.append(web.clients)
    assert clients == ([1] * 59 + [0] * 30) * 2


def test_what_is_written_is_counted_and_what_was_there_before_is_not(log: Path) -> None:
    """Requests, server errors and work in progress by the second; clients; URLs."""
    it = Follow(log)
    timed = ' "-" "x" 0.500'
    append(log, line(url="/a", rest=timed) * 6 + line(client="1.2.3.4", status=503, rest=timed) * 2)
    assert it.later() == {
        A: Web(requests_per_s=4.0, errors_per_s=1.0, clients=2, busy=2.0, took_s=0.5)
    }
    assert it.later() == {
        A: Web(requests_per_s=0.0, errors_per_s=0.0, clients=2, busy=0.0, took_s=0.5)
    }
    assert it.web.urls(A) == {"/a": 6, "/": 2}
    it.web.close()


def test_how_long_requests_take_is_told_of_the_last_minute_or_two(log: Path) -> None:
    """Slow ones and quick ones on average; of nobody's requests, and of lines that say nothing of it, nothing."""
    it = Follow(log)
    assert it.later()[A].took_s is None
    append(log, line() * 5)
    told = it.later()[A]
    assert (told.requests_per_s, told.took_s, told.busy) == (2.5, None, None)
    append(log, line(rest=' "-" "x" 250000') * 3 + line(rest=' "-" "x" 1250000') + line())
    assert it.later()[A].took_s == 0.5
    append(log, line(rest=' "-" "x" 2.500') * 4)
    assert it.later(70.0)[A].took_s == 1.5
    assert it.later(70.0)[A].took_s == 2.5, "what is older is forgotten"
    assert it.later(70.0)[A].took_s is None
    it.web.close()


def test_a_flood_does_not_outweigh_what_its_lines_say(log: Path) -> None:
    """Each line that was read stands for those that were not."""
    it = Follow(log)
    append(log, line(rest=' "-" "x" 0.5') * 1000)
    it.later()
    append(log, line(rest=' "-" "x" 1.5') * 60_000)
    took_s = it.later()[A].took_s
    assert took_s == pytest.approx((0.5 * 1000 + 1.5 * 60_000) / 61_000, rel=0.01)
    it.web.close()


def test_several_logs_of_a_site_are_one(log: Path, tmp_path: Path) -> None:
    """Each virtual host writes its own: their requests add up, a visitor of both is one, and one may be missing yet."""
    other, later = tmp_path / "other.log", tmp_path / "later.log"
    other.write_text(line() * 9)
    it = Follow(log, other, later)
    append(log, line(rest=' "-" "x" 1.0') * 4)
    append(other, line(status=500, rest=' "-" "x" 4.0') * 2)
    expected = Web(requests_per_s=3.0, errors_per_s=1.0, clients=1, busy=6.0, took_s=2.0)
    assert it.later() == {A: expected}
    append(later, line() * 20)
    assert it.later(10.0)[A].requests_per_s == 2.0
    other.unlink()
    append(log, line() * 2)
    assert it.later()[A].requests_per_s == 1.0
    it.web.close()


def test_a_line_that_is_not_whole_waits_for_its_end(log: Path) -> None:
    """Servers write in blocks."""
    it, text = Follow(log), line()
    append(log, text + text[:30])
    assert it.later()[A].requests_per_s == 0.5
    append(log, text[30:])
    assert it.later()[A].requests_per_s == 0.5
    it.web.close()


def test_a_rotated_log_is_followed_to_its_end_and_then_the_new_one(log: Path) -> None:
    """Nothing between is lost: a server goes on writing to the old file until it is told."""
    it = Follow(log)
    log.rename(log.with_suffix(".1"))
    append(log.with_suffix(".1"), line() * 2)
    assert it.later()[A].requests_per_s == 1.0
    append(log, line() * 20)
    told = [it.later(2.0)[A].requests_per_s for _ in range(6)]
    assert sum(rate or 0.0 for rate in told) * 2.0 == 20.0
    append(log, line() * 6)
    assert it.later()[A].requests_per_s == 3.0
    it.web.close()


def test_a_truncated_log_is_read_from_its_beginning(log: Path) -> None:
    """What copytruncate leaves is a shorter file of the same inode."""
    it = Follow(log)
    log.write_text(line() * 4)
    assert it.later()[A].requests_per_s == 2.0
    it.web.close()


def test_a_log_that_comes_later_is_found(tmp_path: Path) -> None:
    """A site's first request may be tomorrow; until then nothing was asked."""
    path = tmp_path / "later.log"
    it = Follow(path)
    assert it.later()[A].requests_per_s == 0.0
    append(path, line() * 20)
    assert it.later(10.0)[A].requests_per_s == 2.0
    path.unlink()
    assert it.later()[A].requests_per_s == 0.0
    it.web.close()


def test_a_flood_is_reckoned_from_its_newest_lines(log: Path) -> None:
    """Lines beyond what a round may read count by the bytes they took."""
    it, text = Follow(log), line()
    append(log, text * 60_000)
    began = time.perf_counter()
    seen = it.later()[A].requests_per_s
    assert seen == pytest.approx(30_000, rel=0.01)
    assert time.perf_counter() - began < 0.2
    it.web.close()


STATUS = {
    "pool": "www",
    "process manager": "ondemand",
    "accepted conn": 100,
    "listen queue": 0,
    "listen queue len": 0,
    "active processes": 5,
    "total processes": 5,
    "max children reached": 1,
    "slow requests": 0,
}


class Fpm:
    """Speaks FastCGI as php-fpm does, one question at a time. `piece`: how many bytes it sends at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.status, self.piece, self.silent = dict(STATUS), 1 << 16, False
        self.head = b"Content-type: application/json\r\n\r\n"
        self.asked: list[bytes] = []

    @contextmanager
    def listening(self) -> Iterator["Fpm"]:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(str(self.path))
            door.listen(8)
            door.settimeout(5)
            thread = threading.Thread(target=self._serve, args=(door,))
            thread.start()
            try:
                yield self
            finally:
                self.head = b""
                with socket.socket(socket.AF_UNIX) as last:
                    last.connect(str(self.path))
                thread.join()

    def _serve(self, door: socket.socket) -> None:
        while self.head:
            link, _ = door.accept()
            with link:
                link.settimeout(1)
                if not self.head or not (asked := link.recv(4096)):
                    return
                self.asked.append(asked)
                if self.silent:
                    link.recv(1)
                    continue
                body = self.head + json.dumps(self.status).encode()
                frames = self._frame(7, b"a word on stderr") + self._frame(6, body)
                frames += self._frame(6, b"") + self._frame(3, bytes(8))
                for begin in range(0, len(frames), self.piece):
                    link.sendall(frames[begin : begin + self.piece])

    def _frame(self, kind: int, content: bytes) -> bytes:
        padding = -len(content) % 8
        return fpm.HEADER.pack(1, kind, 1, len(content), padding) + content + bytes(padding)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Fpm]:
    with Fpm(tmp_path / "php.sock").listening() as it:
        yield it


@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_a_pool_is_asked_in_fastcgi(pool: Fpm, piece: int) -> None:
    """In pieces of any size, beside words on stderr, with padding."""
    pool.piece = piece
    status = fpm.ask(pool.path, "/status")
    assert (status.accepted, status.active, status.total, status.short) == (100, 5, 5, 1)
    assert re.search(rb"SCRIPT_NAME/status.*QUERY_STRINGjson", pool.asked[0], re.DOTALL)


def test_a_pool_that_is_busy_is_not_waited_for(pool: Fpm) -> None:
    """The deadline holds, and says something: our own question waits in its queue."""
    pool.silent = True
    began = time.perf_counter()
    with pytest.raises(fpm.NoAnswer):
        fpm.ask(pool.path, "/status", within_s=0.05)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "head",
    [b"Status: 404 Not Found\r\nContent-type: text/html\r\n\r\n", b"Content-type: x\r\n\r\n<"],
)
def test_what_is_no_status_is_an_error(pool: Fpm, head: bytes) -> None:
    """A page that the pool does not know, or anything but JSON."""
    pool.head = head
    with pytest.raises(DriverError):
        fpm.ask(pool.path, "/status")


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    """Not a crash, and not an idle pool."""
    with pytest.raises(DriverError, match=r"no\.sock"):
        fpm.ask(tmp_path / "no.sock", "/status")


def test_a_full_backlog_is_told_as_such(tmp_path: Path) -> None:
    """The kernel refuses at once: that is a queue as long as it can be."""
    with socket.socket(socket.AF_UNIX) as door, socket.socket(socket.AF_UNIX) as waiting:
        door.bind(str(tmp_path / "full.sock"))
        door.listen(0)
        waiting.connect(str(tmp_path / "full.sock"))
        with pytest.raises(fpm.QueueFull):
            fpm.ask(tmp_path / "full.sock", "/status")


@given(st.binary(max_size=200), st.integers(1, 50))
def test_no_answer_is_too_strange(data: bytes, piece: int) -> None:
    """Frames that are none are refused with a reason."""
    stream = fpm.Stream()
    try:
        for begin in range(0, len(data), piece):
            stream.feed(data[begin : begin + piece])
        fpm.parse(bytes(stream.out))
    except ValueError:
        pass
    else:
        raise AssertionError("nothing of it was a status")


def test_a_pool_is_asked_each_ten_seconds_and_only_while_it_works(pool: Fpm) -> None:
    """A question would start a worker in a pool that sleeps on demand."""
    site = Attached(attachment=Attachment.POOL, why=Why("x"), status=(pool.path, "/status"))
    web = WebSide()
    web.follow({A: site})
    assert web.round(0.0, ()) == {A: Web()}
    assert pool.asked == []
    web.round(2.0, {A})
    pool.status |= {"accepted conn": 150, "max children reached": 4}
    assert web.round(4.0, {A})[A].busy == 4.0
    assert web.round(12.0, {A}) == {A: Web(requests_per_s=5.0, busy=4.0, workers_short=3)}
    assert web.round(14.0, {A})[A].workers_short == 0, "told once"
    assert len(pool.asked) == 2
    web.close()


def test_who_waits_is_told_by_the_kernel(tmp_path: Path) -> None:
    """Of every pool, awake or not, whatever its socket was called when it was bound."""
    bound, named = tmp_path / "new", tmp_path / "php.sock"
    site = Attached(attachment=Attachment.POOL, why=Why("x"), socket=named)
    web = WebSide()
    web.follow({A: site})
    assert web.round(0.0, ()) == {}, "nobody listens there yet"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(bound))
        door.listen(7)
        bound.rename(named)
        assert web.round(2.0, ()) == {A: Web(queue=0)}
        visitors = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for visitor in visitors:
            visitor.connect(str(named))
        assert web.round(4.0, ()) == {A: Web(queue=3)}
        assert backlog.queues()[backlog.place(named)] == backlog.Queue(3, 7)
        for visitor in visitors:
            visitor.close()
    web.close()


def test_a_kernel_that_does_not_tell_who_waits_leaves_it_unknown(tmp_path: Path) -> None:
    """None, not zero; the log is read all the same."""

    def refused() -> dict[backlog.Place, backlog.Queue]:
        raise DriverError("no such socket family here")

    log = tmp_path / "log"
    log.write_text("")
    web = WebSide(queues=refused)
    site = Attached(attachment=Attachment.POOL, why=Why("x"), socket=tmp_path / "s", logs=(log,))
    web.follow({A: site})
    web.round(0.0, ())
    told = web.round(2.0, ())[A]
    assert (told.queue, told.requests_per_s) == (None, 0.0)
    web.close()


@given(st.binary(max_size=200))
def test_no_answer_of_a_kernel_is_too_strange(data: bytes) -> None:
    """An error or nothing, and an end."""
    with suppress(OSError, struct.error):
        backlog.parse(data, {})


def test_pools_that_hang_do_not_hold_up_a_round(tmp_path: Path) -> None:
    """After a few of them the rest waits for the next round, the longest unasked first."""
    doors = []
    sites = {}
    for n in range(12):
        door = socket.socket(socket.AF_UNIX)
        door.bind(str(tmp_path / f"{n}.sock"))
        door.listen(8)
        doors.append(door)
        status = (tmp_path / f"{n}.sock", "/status")
        sites[SiteId(str(n))] = Attached(attachment=Attachment.POOL, why=Why("x"), status=status)
    web = WebSide(answer_s=0.02)
    web.follow(sites)
    began = time.perf_counter()
    web.round(0.0, sites.keys())
    assert time.perf_counter() - began < 0.2
    web.round(2.0, sites.keys())
    asked = [(pool.asked_at, site) for site, pool in web._pools.items()]
    assert sorted(at for at, _ in asked) == [float("-inf")] * 4 + [0.0] * 4 + [2.0] * 4
    for door in doors:
        door.close()


def test_descriptors_of_logs_are_let_go_of(log: Path) -> None:
    """Also of those that nobody follows any more."""
    before = len(os.listdir("/proc/self/fd"))
    it = Follow(log)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    it.web.follow({})
    assert len(os.listdir("/proc/self/fd")) == before
