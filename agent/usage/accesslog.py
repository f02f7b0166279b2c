"""What an access log says of a site: requests, errors, time spent, how many asked, what for; nothing about who.

A client's address is a bit among many, set by a salted hash and dropped with its salt each minute; URLs are kept
without their query (rule R16). Read in bounded portions: of a flood the newest lines are read and stand for the rest.
"""

import hashlib
import math
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

# The common and combined formats of Apache and nginx, with the virtual host before them or not. Source: Apache's
# mod_log_config, nginx' ngx_http_log_module.
# Nothing in it is tried twice: whoever writes the line may not choose how long that takes.
LINE = re.compile(
    rb"(?:[A-Za-z0-9._-]++(?::\d++)? )?(?P<client>[0-9A-Fa-f.:]++) \S++ [^\[]++\[[^\]]++\] "
    rb'"(?:[A-Z]++ )?(?P<url>[^ "?]*+)[^"]*+" (?P<status>\d{3}) \S++(?P<rest>.*+)'
)
# What people add at the end: a number of s with a point (nginx' $request_time), or one of µs (Apache's %D).
TIME = re.compile(rb"(?:^|[ =])(\d+(?:\.\d+)?)\"?\s*$")

READ_BYTES = 1 << 20  # in one round, of one log: 5,000 lines
LINES_READ = 1_000  # of those: 4 ms
LINE_MAX = 1 << 14  # of a line that is not whole yet; a request's line and headers fit
URL_MAX = 200
URLS = 32  # counted at once; the seldom ones of a site with thousands give way
MINUTE_S = 60.0
ROTATED_S = 10.0  # a log that is silent is looked for by its name this often


class Line(msgspec.Struct, frozen=True, gc=False):
    """`took_s`: None where the format does not say it."""

    client: bytes
    url: str
    status: int
    took_s: float | None


def parse(line: bytes) -> Line | None:
    """None for a line of another shape."""
    if (found := LINE.match(line)) is None:
        return None
    client, url, status, rest = found.groups()
    # After the last quote: a user agent may well end in a number.
    time = TIME.search(rest[rest.rfind(b'"') + 1 :]) if rest else None
    return Line(
        client,
        url[:URL_MAX].decode("utf-8", "replace"),
        int(status),
        _seconds(time.group(1)) if time else None,
    )


def _seconds(told: bytes) -> float:
    return float(told) if b"." in told else int(told[:12]) / 1e6


class Clients:
    """How many different clients there were in a minute, give or take a few per cent, and never who.

    Source: Whang, Vander-Zanden, Taylor, "A Linear-Time Probabilistic Counting Algorithm", 1990.
    """

    BITS = 1 << 14  # 2 kB for a site; counts to some 50,000

    def __init__(self) -> None:
        self._began = float("-inf")
        self._salt, self._bits = b"", bytearray()
        self._set = self._last = 0

    def turn(self, now: float) -> None:
        """Begin another minute where one is over: salt and bits of the old one are gone."""
        passed_s = now - self._began
        if passed_s >= MINUTE_S:
            self._last = self._count() if passed_s < 2 * MINUTE_S else 0
            self._began, self._salt = now, secrets.token_bytes(16)
            self._bits, self._set = bytearray(self.BITS // 8), 0

    def add(self, client: bytes) -> None:
        digest = hashlib.blake2b(client, digest_size=4, key=self._salt).digest()
        bit = int.from_bytes(digest) % self.BITS
        byte, mask = bit >> 3, 1 << (bit & 7)
        if not self._bits[byte] & mask:
            self._bits[byte] |= mask
            self._set += 1

    def count(self) -> int:
        """Of the last whole minute, or of this one if there are more already."""
        return max(self._last, self._count())

    def _count(self) -> int:
        zeros = self.BITS - self._set
        return round(-self.BITS * math.log(max(zeros, 1) / self.BITS))


class Urls:
    """What is asked for most, in a bounded table: over a minute or two.

    Source: Misra, Gries, "Finding repeated elements", 1982: what makes up more than one in URLS is never missed.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._began = float("-inf")

    def turn(self, now: float) -> None:
        if now - self._began >= MINUTE_S:
            self._before, self._counts, self._began = self._counts, {}, now

    def add(self, url: str) -> None:
        if url in self._counts or len(self._counts) < URLS:
            self._counts[url] = self._counts.get(url, 0) + 1
        else:
            self._counts = {known: n - 1 for known, n in self._counts.items() if n > 1}

    def top(self, most: int = 10) -> dict[str, int]:
        """URL -> times it was asked for, the most first; from any thread."""
        now, before = self._counts.copy(), self._before.copy()
        both = {url: now.get(url, 0) + before.get(url, 0) for url in (*now, *before)}
        return dict(sorted(both.items(), key=lambda item: -item[1])[:most])


class Durations:
    """How long requests took on average, over a minute or two: many a site has none in one round."""

    def __init__(self) -> None:
        self._now = self._before = (0.0, 0.0)  # requests, and the seconds that they took
        self._began = float("-inf")

    def turn(self, now: float) -> None:
        if now - self._began >= MINUTE_S:
            self._before, self._now, self._began = self._now, (0.0, 0.0), now

    def add(self, took_s: float, stands_for: float) -> None:
        requests, seconds = self._now
        self._now = requests + stands_for, seconds + took_s * stands_for

    def mean_s(self) -> float | None:
        """None where no line said it."""
        requests = self._now[0] + self._before[0]
        return (self._now[1] + self._before[1]) / requests if requests else None


class Web(msgspec.Struct, frozen=True):
    """What the web side of a site did since the last round. `busy`: requests in progress on average.

    `took_s`: how long one took on average, in the last minute or two, by what the log says: an estimate.
    """

    requests_per_s: float | None = None
    errors_per_s: float | None = None
    clients: int | None = None
    busy: float | None = None
    queue: int | None = None
    workers_short: int = 0
    took_s: float | None = None


class Site:
    """What one site's logs say."""

    def __init__(self) -> None:
        self.clients, self.urls = Clients(), Urls()
        self._durations = Durations()
        self._turn_at = float("-inf")
        self._calm: Web | None = None  # what is told again while nobody asks for anything
        self._requests = self._errors = self._timed = self._took_s = 0.0

    def add(self, line: Line, stands_for: float) -> None:
        """A line, and for how many of its log it stands."""
        self._calm = None
        self._requests += stands_for
        self._errors += stands_for * (line.status >= 500)
        if line.took_s is not None:
            self._timed += stands_for
            self._took_s += stands_for * line.took_s
            self._durations.add(line.took_s, stands_for)
        self.clients.add(line.client)
        self.urls.add(line.url)

    def turn(self, now: float) -> None:
        if now >= self._turn_at:
            self._turn_at, self._calm = now + MINUTE_S, None
            self.clients.turn(now)
            self.urls.turn(now)
            self._durations.turn(now)

    def told(self, passed_s: float) -> Web:
        """What was added since the last time."""
        if self._calm is not None:
            return self._calm
        per_s = 1 / passed_s if passed_s > 0 else 0.0
        web = Web(
            requests_per_s=self._requests * per_s,
            errors_per_s=self._errors * per_s,
            clients=self.clients.count(),
            busy=self._took_s * per_s if self._timed or not self._requests else None,
            took_s=self._durations.mean_s(),
        )
        if not self._requests:
            self._calm = web
        self._requests = self._errors = self._timed = self._took_s = 0.0
        return web


class Log:
    """Follows one access log, from its end on, through rotation, copytruncate and times without a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._offset = 0
        self._rest = b""
        self._looked_at = float("-inf")

    def begin(self) -> None:
        """From here on: what was written before is nobody's news. Raises OSError."""
        self._open()
        if self._file is not None:
            self._offset = os.fstat(self._file).st_size

    def portion(self, now: float) -> tuple[list[bytes], float]:
        """Lines written since the last time, and how many each of them stands for. Raises OSError."""
        written = b""
        skipped = 0
        if self._file is not None:
            written, skipped = self._written()
        if not written and now >= self._looked_at + ROTATED_S:
            self._looked_at = now
            if not self._is_another():
                return [], 1.0
            self.close()
            self._open()
            if self._file is not None:
                written, skipped = self._written()
        if not written:
            return [], 1.0
        whole, _, rest = written.rpartition(b"\n")
        if not whole:
            self._rest = (self._rest + rest)[-LINE_MAX:]
            return [], 1.0
        lines = (self._rest + whole).split(b"\n")
        self._rest = rest[-LINE_MAX:]
        known = len(lines) / max(1, len(whole)) * (len(whole) + skipped)
        read = lines[-LINES_READ:]
        return read, max(1.0, known / len(read))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file, self._offset, self._rest = None, 0, b""

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)

    def _written(self) -> tuple[bytes, int]:
        """The newest bytes, and how many before them are not read."""
        assert self._file is not None
        size = os.fstat(self._file).st_size
        if size < self._offset:  # copytruncate
            self._offset, self._rest = 0, b""
        if size == self._offset:
            return b"", 0
        begin = max(self._offset, size - READ_BYTES)
        skipped = begin - self._offset
        if skipped:
            self._rest = b""
        data = os.pread(self._file, min(READ_BYTES, size - begin), begin)
        self._offset = begin + len(data)
        return data, skipped

    def _is_another(self) -> bool:
        """Whether the path names another file than the one that is held; it is left once nothing more comes."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        if self._file is None:
            return True
        held = os.fstat(self._file)
        return (now.st_dev, now.st_ino) != (held.st_dev, held.st_ino)
