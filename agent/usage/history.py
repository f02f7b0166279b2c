"""Forty days of every site's use on its host: one SQLite file, bounded in age and size, that nobody has to see to.

A file that can't be trusted is set aside and a new one begun: history is worth having, and not worth an outage. The
last few minutes may be lost in a crash, so nothing waits for the disk.

Source: SQLite documentation, "Write-Ahead Logging", "PRAGMA synchronous", "WITHOUT ROWID tables".
"""

import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from agent.usage.bins import binned
from agent.usage.ledger import MEASURES, SLOT_S, Row, Summary
from fleet.messages import PLANS_TOLD_MAX, Past
from fleet.model import PlanId, SiteId
from fleet.pastuse import ROWS_MAX, PastAsked, PastTold
from runtime import log

DAYS = 40
WEEK = 7 * 86_400 // SLOT_S
DAY = 86_400 // SLOT_S
APPLICATION_ID = 0x52457573  # "REus"
FORMAT = 1
# Of a size bound this much may be used; the rest is room for the pages that a pruning needs.
USED_RATIO = 0.9
BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

KINDS = ("average", "p95", "max")
COLUMNS = tuple(f"{measure}_{kind}" for measure in MEASURES for kind in KINDS)
# Whole numbers take a few bytes each: fractions of a core and of a request are kept to a thousandth.
SCALES = {"cpu_cores": 1000, "requests_per_s": 1000}

SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};
CREATE TABLE sites (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE slots (
  site INTEGER NOT NULL, slot INTEGER NOT NULL, seen_s INTEGER NOT NULL, shadow_s INTEGER NOT NULL,
  {", ".join(f"{column} INTEGER" for column in COLUMNS)},
  PRIMARY KEY (site, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE caps (
  site INTEGER NOT NULL, plan TEXT NOT NULL, slot INTEGER NOT NULL, seconds INTEGER NOT NULL,
  PRIMARY KEY (site, plan, slot)
) STRICT, WITHOUT ROWID;
"""
_SUMS = ("seen_s", "shadow_s")


def _merged(column: str) -> str:
    """A row that is there already is of the same five minutes before a restart, or a step of the wall's clock."""
    if column in _SUMS:
        return f"{column} = {column} + excluded.{column}"
    both = f"max({column}, excluded.{column})"
    if column.endswith("_average"):
        both = (
            f"({column} * seen_s + excluded.{column} * excluded.seen_s) "
            "/ max(1, seen_s + excluded.seen_s)"
        )
    return f"{column} = coalesce({both}, {column}, excluded.{column})"


_NAMES = ", ".join(("site", "slot", *_SUMS, *COLUMNS))
INSERT = (
    f"INSERT INTO slots ({_NAMES}) VALUES ({', '.join('?' * (4 + len(COLUMNS)))}) "  # noqa: S608 - our own names
    f"ON CONFLICT DO UPDATE SET {', '.join(map(_merged, (*COLUMNS, *_SUMS)))}"
)
SELECT = f"SELECT slot, {', '.join((*_SUMS, *COLUMNS))} FROM slots WHERE site = ? AND slot >= ?"  # noqa: S608 - the same
BETWEEN = f"{SELECT} AND slot < ? ORDER BY slot"
# A plan that a site stayed below has one row a day: that it was compared is known as long as the rest is.
BELOW = (
    "INSERT INTO caps SELECT ?1, ?2, ?3, 0 WHERE NOT EXISTS "  # noqa: S608 - our own number
    f"(SELECT 1 FROM caps WHERE site = ?1 AND plan = ?2 AND slot BETWEEN ?3 - {DAY - 1} AND ?3)"
)
CAPPED = "SELECT slot, seconds FROM caps WHERE site = ? AND plan = ? AND slot >= ? AND slot < ?"

_log = log.logger("usage")


class History:
    """Used by one thread, from opening to closing. Nothing it does raises: what fails is said, once, and left out."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._db: sqlite3.Connection | None = None
        self._numbers: dict[SiteId, int] = {}
        self._failing = ""
        self._open()

    def write(self, rows: Sequence[Row]) -> bool:
        """Keep `rows`, and forget what is too old; False if they are lost."""
        if self._db is None:
            self._open()
        if self._db is None:
            return False
        known, kept = self._numbers, False
        try:
            with self._db:
                self._insert(self._db, rows)
            kept = True
            if rows:
                self._prune(self._db, max(row.slot for row in rows))
        except sqlite3.Error as error:
            if not kept:
                self._numbers = known  # a new site's was not written either, and is another's next
            self._failed(error)
            return kept and self._db is not None
        self._failing = ""
        return True

    def rows(self, site: SiteId, since: int) -> tuple[Row, ...]:
        """What is kept of `site` since the slot `since`, oldest first, without what each plan would have meant."""
        number = self._numbers.get(site)
        if self._db is None or number is None:
            return ()
        try:
            found = self._db.execute(SELECT, (number, since)).fetchall()
        except sqlite3.Error as error:
            self._failed(error)
            return ()
        return tuple(_row(site, values) for values in found)

    def past(self, sites: Iterable[SiteId], slot: int) -> dict[SiteId, Past]:
        """What there is to say at `slot` of those of `sites` that are known."""
        found: dict[SiteId, Past] = {}
        try:
            for site in sites:
                if self._db is not None and (number := self._numbers.get(site)) is not None:
                    found[site] = _past(self._db, number, slot)
        except sqlite3.Error as error:
            self._failed(error)
        return found

    def told(self, asked: PastAsked) -> PastTold:
        """What is kept of a site in the time that is asked about, in its steps."""
        number = self._numbers.get(asked.site)
        if self._db is None:
            return answer(asked, error="the history can't be opened")
        if number is None:
            return answer(asked)
        try:
            return _told(self._db, number, asked)
        except sqlite3.Error as error:
            self._failed(error)
            return answer(asked, error="the history can't be read")

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> None:
        try:
            self._db = self._opened()
        except sqlite3.Error as error:
            self._failed(error)

    def _opened(self) -> sqlite3.Connection:
        with suppress(OSError):
            os.close(os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, timeout=1.0)
        try:
            (kind,) = db.execute("PRAGMA application_id").fetchone()
            (format,) = db.execute("PRAGMA user_version").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if tables and (kind, format) != (APPLICATION_ID, FORMAT):
                raise sqlite3.DatabaseError(f"not a history of this release: {kind:#x}, {format}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            if not tables:
                db.executescript(SCHEMA)
            (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
            db.execute(f"PRAGMA max_page_count = {max(self._max_bytes // page_bytes, 16)}")
            self._numbers = {id: n for n, id in db.execute("SELECT number, id FROM sites")}
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _failed(self, error: sqlite3.Error) -> None:
        """Say it once. A broken file is set aside, and a new one begins with the next row."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_NOTADB) & 0xFF
        if code not in BROKEN:
            if str(error) != self._failing:
                _log.error("use is not kept", path=str(self._path), error=str(error))
            self._failing = str(error)
            return
        self.close()
        aside = self._path.with_name(f"{self._path.name}.unreadable")
        with suppress(OSError):
            self._path.replace(aside)
        for suffix in ("-wal", "-shm"):
            with suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()
        self._numbers = {}
        _log.error(
            "the history of use can't be read: a new one is begun",
            path=str(self._path),
            set_aside=str(aside),
            error=str(error),
        )

    def _insert(self, db: sqlite3.Connection, rows: Sequence[Row]) -> None:
        new = {row.site for row in rows} - self._numbers.keys()
        db.executemany("INSERT OR IGNORE INTO sites (id) VALUES (?)", [(site,) for site in new])
        if new:
            self._numbers = {id: n for n, id in db.execute("SELECT number, id FROM sites")}
        numbers = self._numbers
        db.executemany(INSERT, [_values(numbers[row.site], row) for row in rows])
        at_cap = [
            (numbers[row.site], plan, row.slot, round(seconds))
            for row in rows
            for plan, seconds in row.at_cap_s.items()
        ]
        db.executemany(
            "INSERT INTO caps VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET seconds = seconds + excluded.seconds",
            [each for each in at_cap if each[-1]],
        )
        db.executemany(BELOW, [each[:-1] for each in at_cap if not each[-1]])

    def _prune(self, db: sqlite3.Connection, newest: int) -> None:
        """Forget what is older than DAYS; and, while there is too much, the oldest day. Both are seldom anything.

        A day at a time: a clock that is a year ahead for five minutes takes no more.
        """
        if (oldest := self._oldest(db)) is not None:
            self._forget(db, min(newest - DAYS * DAY, oldest + DAY))
        while self._used_bytes(db) > USED_RATIO * self._max_bytes:
            oldest = self._oldest(db)
            if oldest is None or oldest >= newest:
                return
            _log.warning("the history is full: its oldest day is forgotten", path=str(self._path))
            self._forget(db, min(oldest + DAY, newest))

    def _oldest(self, db: sqlite3.Connection) -> int | None:
        """By site, which the table is ordered by: else all of it would be read."""
        first = "SELECT min(slot) FROM slots WHERE site = ?"
        firsts = (db.execute(first, (number,)).fetchone()[0] for number in self._numbers.values())
        return min((slot for slot in firsts if slot is not None), default=None)

    def _forget(self, db: sqlite3.Connection, before: int) -> None:
        with db:
            for number in self._numbers.values():
                db.execute("DELETE FROM slots WHERE site = ? AND slot < ?", (number, before))
            db.execute("DELETE FROM caps WHERE slot < ?", (before,))

    def _used_bytes(self, db: sqlite3.Connection) -> int:
        names = ("page_count", "freelist_count", "page_size")
        count, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return int((count - free) * size)


def _values(number: int, row: Row) -> tuple[int | None, ...]:
    values: list[int | None] = [number, row.slot, round(row.seen_s), round(row.shadow_s)]
    for measure in MEASURES:
        told, scale = row.measures.get(measure), SCALES.get(measure, 1)
        values += (
            [None, None, None]
            if told is None
            else [round(x * scale) for x in (told.average, told.p95, told.max)]
        )
    return tuple(values)


def _row(site: SiteId, values: Sequence[int | None]) -> Row:
    slot, seen_s, shadow_s, *rest = values
    measures = {}
    for n, measure in enumerate(MEASURES):
        average, p95, top = rest[3 * n : 3 * n + 3]
        if average is not None and p95 is not None and top is not None:
            scale = SCALES.get(measure, 1)
            measures[measure] = Summary(average / scale, p95 / scale, top / scale)
    return Row(
        site=site,
        slot=slot or 0,
        seen_s=float(seen_s or 0),
        measures=measures,
        shadow_s=float(shadow_s or 0),
    )


def answer(asked: PastAsked, error: str = "") -> PastTold:
    """One without rows."""
    return PastTold(number=asked.number, site=asked.site, error=error)


def _told(db: sqlite3.Connection, number: int, asked: PastAsked) -> PastTold:
    (first,) = db.execute("SELECT min(slot) FROM slots WHERE site = ?", (number,)).fetchone()
    span = (int(asked.since // SLOT_S), -int(-asked.until // SLOT_S))
    at_cap_s = _at_cap(db, number, asked.plan, span)
    rows = (_row(asked.site, values) for values in db.execute(BETWEEN, (number, *span)))
    return PastTold(
        number=asked.number,
        site=asked.site,
        first=None if first is None else first * SLOT_S,
        rows=tuple(islice(binned(rows, asked.step_s, at_cap_s), ROWS_MAX)),
    )


def _at_cap(
    db: sqlite3.Connection, number: int, plan: PlanId, span: tuple[int, int]
) -> Callable[[Row], float | None]:
    """How long `plan` would have held the site in a row of `span`; None: nobody compared it then."""
    since = "SELECT min(slot) FROM caps WHERE site = ? AND plan = ?"
    (first,) = db.execute(since, (number, plan)).fetchone()
    capped: dict[int, float] = dict(db.execute(CAPPED, (number, plan, *span)).fetchall())

    def of(row: Row) -> float | None:
        below = first is not None and first <= row.slot and "cpu_cores" in row.measures
        return capped.get(row.slot, 0.0 if below else None)

    return of


def _past(db: sqlite3.Connection, number: int, slot: int) -> Past:
    (first,) = db.execute("SELECT min(slot) FROM slots WHERE site = ?", (number,)).fetchone()
    caps = db.execute(
        "SELECT plan, sum(seconds) AS held, min(slot) FROM caps WHERE site = ? GROUP BY plan "
        "ORDER BY held DESC LIMIT ?",
        (number, PLANS_TOLD_MAX),
    ).fetchall()
    week = db.execute(
        "SELECT shadow_s, cpu_cores_p95, memory_bytes_p95 FROM slots WHERE site = ? AND slot > ?",
        (number, slot - WEEK),
    ).fetchall()
    cpu = sorted(row[1] for row in week if row[1] is not None)
    memory = sorted(row[2] for row in week if row[2] is not None)
    days = min(DAYS, max(0, slot - first) / DAY) if first is not None else 0.0
    compared = {PlanId(plan): max(0, slot - since) / DAY for plan, _, since in caps}
    return Past(
        days=days,
        at_cap_min={PlanId(plan): seconds / 60 for plan, seconds, _ in caps},
        # What is below its caps is noted once a day: of less than that nothing can be said.
        at_cap_days={plan: known for plan, known in compared.items() if days - known > 1},
        shadow_min=sum(row[0] for row in week) / 60,
        cpu_p95_cores=_ranked(cpu) / 1000 if cpu else None,
        memory_p95_bytes=_ranked(memory) if memory else None,
    )


def _ranked(values: Collection[int]) -> int:
    """The nearest-rank 95th percentile of sorted values."""
    return list(values)[max(0, -(-len(values) * 95 // 100) - 1)]
