"""What the users of a site do that web sites do not: connections to many places, mail past the mail server, sent or
refused, doors of their own, programs out of upload folders, crontabs that change.

Destinations are kept in memory for a minute or two, as a set of addresses; visitors are not among them, for they come
in and are not gone out to (rule R16). Source: proc(5), kernel's Documentation/networking/proc_net_tcp.rst.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.layout.attached import Attached
from agent.ports import DriverError
from agent.usage.rates import events
from fleet.model import SiteId
from runtime import log

EVERY_S = 10.0
MINUTE_S = 60.0
TABLE_BYTES = (
    8 << 20
)  # of one table of sockets: 50,000 of them, those that are about to end included
DESTINATIONS_MAX = 4096  # of one user: who has more is odd enough
PROCESSES_MAX = 4000  # of sites' users, whose commands are read in one look
SMTP = 25
ESTABLISHED, ASKING, LISTENING = 1, 2, 10
# Where no web site keeps programs. A cache is one of a site's own; a package manager's is not in its web root.
ODD_PLACE = re.compile(
    r"^/(?:var/)?tmp/|^/dev/shm/|/uploads/|/wp-content/cache/|/sites/[^/]+/files/"
)
# What runs its first argument as a program; a login shell has a dash before its name.
INTERPRETER = re.compile(
    r"-?(?:php(?:-cgi)?|python|perl|ruby|node(?:js)?|lua|(?:ba|da|k|z)?sh)[0-9.]*"
)
BEFORE_SCRIPT = frozenset({"-f", "-q"})  # php's, that the program's file comes after

_log = log.logger("usage")


class Socket(msgspec.Struct, frozen=True, gc=False):
    """One line of a table of TCP sockets; addresses are as the kernel writes them, in hexadecimal."""

    uid: int
    state: int
    local: str
    local_port: int
    remote: str
    remote_port: int


class Habits(msgspec.Struct, frozen=True):
    """What was odd since the last look, or at both; what is not odd is as here."""

    new_destinations_per_s: float | None = None
    direct_mail_per_s: float | None = None
    refused_mail_per_s: float | None = None
    listens: bool = False
    runs_from_uploads: bool = False
    cron_changed: bool = False


NOTHING = Habits()


def sockets(table: bytes, uids: frozenset[int]) -> Iterator[Socket]:
    """The sockets of `uids` in `/proc/net/tcp` or `tcp6`, and everybody's that listen; not lines of another shape."""
    for line in table.splitlines()[1:]:
        fields = line.split(None, 8)
        try:
            uid, state = int(fields[7]), int(fields[3], 16)
            if uid not in uids and state != LISTENING:
                continue
            local, local_port = fields[1].decode().split(":")
            remote, remote_port = fields[2].decode().split(":")
            yield Socket(uid, state, local, int(local_port, 16), remote, int(remote_port, 16))
        except (ValueError, IndexError):
            continue


def is_here(address: str) -> bool:
    """Whether it is this machine's loopback: 127/8, ::1, or the former within IPv6."""
    if len(address) == 8:
        return address.endswith("7F")
    mapped = address.startswith("0000000000000000FFFF0000") and address.endswith("7F")
    return mapped or address == "00000000000000000000000001000000"


class Going:
    """Where one user's connections go to."""

    def __init__(self) -> None:
        self._open: frozenset[tuple[int, str]] = frozenset()
        self._seen: set[str] = set()
        self._before: set[str] = set()
        self._turned_at = float("-inf")

    def look(self, now: float, mine: Iterable[Socket], doors: frozenset[int]) -> tuple[int, int]:
        """How many destinations are new, and how many connections to mail servers elsewhere.

        `doors`: ports that somebody listens at here: what is connected to those came in.
        """
        if now - self._turned_at >= MINUTE_S:
            self._before, self._seen, self._turned_at = self._seen, set(), now
        out = [
            one
            for one in mine
            if one.state in (ESTABLISHED, ASKING)
            and one.local_port not in doors
            and not is_here(one.remote)
        ]
        before, self._open = self._open, frozenset((o.local_port, o.remote) for o in out)
        mails = {(one.local_port, one.remote) for one in out if one.remote_port == SMTP} - before
        new = {one.remote for one in out} - self._seen - self._before
        if len(self._seen) < DESTINATIONS_MAX:
            self._seen |= {one.remote for one in out}
        return len(new), len(mails)


def nobody_refused() -> Mapping[int, int]:
    return {}


class Observer:
    """All sites' users. May block for a while where a process' memory is locked: it has a thread.

    `refused`: how many connections to mail servers the firewall has refused to each uid so far; raises DriverError.
    Port 25 that is closed at connect leaves no socket to see.
    """

    def __init__(
        self,
        proc: Path = Path("/proc"),
        crontabs: Path = Path("/var/spool/cron/crontabs"),
        refused: Callable[[], Mapping[int, int]] = nobody_refused,
    ) -> None:
        self._proc, self._crontabs = proc, crontabs
        self._refused = refused
        self._counted: Mapping[int, int] | None = None
        self._failing = False
        self._at: float | None = None
        self._going: dict[int, Going] = {}
        self._cron: dict[int, tuple[int, ...]] | None = None  # by the owner of the file
        # Who had a door open, or ran something odd, at the last look: once is what was there for a moment.
        self._listened = self._ran_odd = frozenset[int]()

    def look(self, now: float, sites: Mapping[SiteId, Attached]) -> dict[SiteId, Habits]:
        """What each site's own users did since the last look; sites that did nothing odd are not in it."""
        uids = frozenset(uid for attached in sites.values() for uid in attached.uids)
        passed_s = None if self._at is None else max(now - self._at, 1.0)
        self._at = now
        going, listens = self._sockets(now, uids)
        odd = self._odd_programs(uids) if uids else frozenset()
        listened, self._listened = self._listened, listens
        ran_odd, self._ran_odd = self._ran_odd, odd
        cron = self._changed_crontabs()
        refused = self._refused_mails()
        self._going = {uid: going for uid, going in self._going.items() if uid in uids}
        found = {}
        for site, attached in sites.items():
            mine = frozenset(attached.uids)
            new = sum(going.get(uid, (0, 0))[0] for uid in mine)
            mails = sum(going.get(uid, (0, 0))[1] for uid in mine)
            kept = sum(refused.get(uid, 0) for uid in mine)
            habits = Habits(
                new_destinations_per_s=new / passed_s if new and passed_s else None,
                direct_mail_per_s=mails / passed_s if mails and passed_s else None,
                refused_mail_per_s=kept / passed_s if kept and passed_s else None,
                listens=not mine.isdisjoint(listens & listened),
                runs_from_uploads=not mine.isdisjoint(odd & ran_odd),
                cron_changed=not mine.isdisjoint(cron),
            )
            if habits != NOTHING:
                found[site] = habits
        return found

    def _sockets(
        self, now: float, uids: frozenset[int]
    ) -> tuple[dict[int, tuple[int, int]], frozenset[int]]:
        every = [
            one
            for name in ("tcp", "tcp6")
            for one in sockets(_table(self._proc / "net" / name), uids)
        ]
        doors = frozenset(one.local_port for one in every if one.state == LISTENING)
        open_doors = frozenset(
            one.uid for one in every if one.state == LISTENING and not is_here(one.local)
        )
        mine: dict[int, list[Socket]] = {}
        for one in every:
            if one.uid in uids:
                mine.setdefault(one.uid, []).append(one)
        # Also who has none now: a connection that was closed and is made again is another one.
        looked = mine.keys() | self._going.keys()
        return {
            uid: self._going.setdefault(uid, Going()).look(now, mine.get(uid, ()), doors)
            for uid in looked
        }, open_doors

    def _refused_mails(self) -> Mapping[int, int]:
        """How many connections to mail servers were refused to each user since the last look; none where it failed."""
        before, self._counted = self._counted or {}, None
        try:
            self._counted = self._refused()
        except DriverError as error:
            if not self._failing:
                _log.warning("whose mail the firewall refuses is not known", error=str(error))
            self._failing = True
            return {}
        self._failing = False
        return {uid: events(before.get(uid), count) for uid, count in self._counted.items()}

    def _odd_programs(self, uids: frozenset[int]) -> frozenset[int]:
        """The users of whom something runs from where no program should be."""
        found, left = set(), PROCESSES_MAX
        with suppress(OSError), os.scandir(self._proc) as entries:
            for entry in entries:
                if not entry.name.isdigit() or left <= 0:
                    continue
                with suppress(OSError):
                    if (uid := entry.stat().st_uid) in uids and uid not in found:
                        left -= 1
                        if any(map(ODD_PLACE.search, _program(Path(entry.path)))):
                            found.add(uid)
        return frozenset(found)

    def _changed_crontabs(self) -> frozenset[int]:
        """Whose crontab is another than at the last look, came or went; nobody's at the first look."""
        try:
            with os.scandir(self._crontabs) as entries:
                told = [entry.stat() for entry in entries]
        except OSError:
            return frozenset()
        before, self._cron = (
            self._cron,
            {t.st_uid: (t.st_ino, t.st_size, t.st_mtime_ns) for t in told},
        )
        if before is None:
            return frozenset()
        both = before.keys() | self._cron.keys()
        return frozenset(uid for uid in both if before.get(uid) != self._cron.get(uid))


def _program(process: Path) -> list[str]:
    """The file that runs, where that may be seen, what was called, and which program an interpreter was given.

    Of other users' processes only a root with CAP_SYS_PTRACE sees the file (ptrace(2), PTRACE_MODE_READ_FSCREDS), and
    the agent has it not: it could then write into every process, systemd itself too. What was called is the process'
    own word: a program that gives itself another name, or was called by a relative path, is not seen here.
    """
    found = []
    with suppress(OSError):
        found.append(os.readlink(process / "exe"))
    with (process / "cmdline").open("rb") as file:
        called, *words = file.read(2048).decode("utf-8", "replace").split("\0")
    return [*found, called, *_script(called, words)]


def _script(called: str, words: Sequence[str]) -> Sequence[str]:
    """The program that an interpreter runs; any other program's file is what it works on."""
    if INTERPRETER.fullmatch(called.rpartition("/")[2]) is None:
        return ()
    script = next((word for word in words if word not in BEFORE_SCRIPT), "")
    return () if script.startswith("-") else (script,)


def _table(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(TABLE_BYTES)
    except OSError:
        return b""
