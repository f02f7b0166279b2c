"""HAProxy's answers as values: its servers' health, who it is, what its map holds."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agent.edge.gate import REASONS
from agent.edge.render import FRONTEND, SERVER, digest_of, knows_limits
from fleet.model import Health, HostId

STAT_BEGINS = "# pxname,svname,"


class Unreadable(Exception):
    """This is not what HAProxy says; the message shows its beginning."""

    def __init__(self, what: str, answer: str) -> None:
        super().__init__(f"{what} expected, not {answer[:120]!a}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """Which HAProxy answers. `digest` names the configuration it was started with; empty: not ours.

    `limits`: it reads more of a map's entry than the host.
    """

    pid: int
    uptime_s: int
    version: str
    digest: str
    limits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """One host as HAProxy checks it. `initial`: not checked yet by this process."""

    health: Health
    since_s: float
    detail: str
    address: str
    initial: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stat:
    """All hosts' servers, and the sessions of visitors."""

    servers: Mapping[HostId, ServerView]
    sessions: int


def read_info(answer: str) -> Info:
    """Source: HAProxy Management Guide, `show info`. Raises Unreadable."""
    fields = dict(line.partition(": ")[::2] for line in answer.splitlines())
    try:
        return Info(
            pid=int(fields["Pid"]),
            uptime_s=int(fields["Uptime_sec"]),
            version=fields["Version"],
            digest=digest_of(fields.get("description", "")),
            limits=knows_limits(fields.get("description", "")),
        )
    except (KeyError, ValueError):
        raise Unreadable("`show info`", answer) from None


def read_entries(answer: str) -> dict[str, str]:
    """The entries out of `show map PATH`: lines of pointer, key, value. Raises Unreadable."""
    entries: dict[str, str] = {}
    for line in answer.splitlines():
        if not line:
            continue
        words = line.split(" ", 2)
        if len(words) != 3 or not words[0].startswith("0x"):
            raise Unreadable("`show map PATH`", line)
        entries.setdefault(words[1], words[2])
    return entries


def read_refused(answer: str) -> dict[str, tuple[int, ...]]:
    """Site -> how often it was refused, by reason, out of `show table relevo:refused`. Raises Unreadable."""
    lines = answer.splitlines()
    if not lines or not lines[0].startswith("# table: "):
        raise Unreadable("`show table`", answer)
    counts: dict[str, tuple[int, ...]] = {}
    for line in filter(None, lines[1:]):
        fields = dict(word.partition("=")[::2] for word in line.split(" "))
        try:
            counts[fields["key"]] = tuple(int(fields[f"gpc{at}"]) for at in range(len(REASONS)))
        except (KeyError, ValueError):
            raise Unreadable("`show table`", line) from None
    return counts


def read_stat(answer: str) -> Stat:
    """Source: HAProxy Management Guide §9.1 (CSV format). Raises Unreadable."""
    if not answer.startswith(STAT_BEGINS):
        raise Unreadable("`show stat`", answer)
    servers: dict[HostId, ServerView] = {}
    sessions = 0
    try:
        for row in _rows(answer.removeprefix("# ")):
            if row["svname"] == SERVER:
                servers[HostId(row["pxname"])] = _server(row)
            elif row["pxname"] == FRONTEND:
                sessions = int(row["scur"])
    except (KeyError, ValueError, TypeError, csv.Error):
        raise Unreadable("`show stat`", answer) from None
    return Stat(servers=servers, sessions=sessions)


def _rows(answer: str) -> Iterator[Mapping[str, str]]:
    # csv.DictReader makes a dict of a hundred fields for each of 300 rows, twice a second; these eight suffice.
    lines = csv.reader(line for line in answer.splitlines() if line)
    header = next(lines)
    names = (
        "pxname", "svname", "scur", "status", "lastchg", "check_status", "check_code", "addr",
    )  # fmt: skip
    columns = [(name, header.index(name)) for name in names]
    for line in lines:
        if len(line) <= columns[-1][1]:
            raise ValueError("a row ends early")
        yield {name: line[column] for name, column in columns}


def _server(row: Mapping[str, str]) -> ServerView:
    check = row["check_status"].removeprefix("* ")  # "* ": the next check is under way
    initial = check in ("", "INI")
    health = Health.UNKNOWN
    if not initial:
        # "UP 1/3" and "DOWN 1/2" are on their way; "MAINT", "no check", "DRAIN" are no findings of a check.
        health = {"UP": Health.UP, "DOWN": Health.DOWN}.get(row["status"], Health.UNKNOWN)
    words = [word for word in (check, row["check_code"]) if word]
    if health is Health.UNKNOWN:
        words.insert(0, row["status"])
    return ServerView(
        health=health,
        since_s=max(0.0, float(row["lastchg"] or 0)),
        detail=" ".join(words)[:200],
        address=row["addr"],
        initial=initial,
    )
