"""The embedded store on disk: one SQLite file that holds every version since the last compaction.

One thread uses it, from opening to closing. A write is durable when it returns; the file is locked for the
whole time, and a file that can't be trusted is not written to again before a restart has read it anew.

Source: SQLite documentation, "Write-Ahead Logging" and "PRAGMA synchronous".
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from controller.store.keyspace import Keyspace, Revision
from controller.store.protocol import (
    KV,
    Ambiguous,
    Event,
    NoSpace,
    StoreError,
    Unavailable,
)

APPLICATION_ID = 0x52456C76  # "RElv": tells our files from other people's
FORMAT = 1
PAGE_BYTES = 4096
QUOTA_BYTES = 2 << 30  # etcd's default as well

MARK = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};"
SCHEMA = """
CREATE TABLE versions (
  number INTEGER PRIMARY KEY, revision INTEGER NOT NULL, key BLOB NOT NULL,
  value BLOB, -- NULL: deleted
  created INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER NOT NULL,
  UNIQUE (revision, key)
) STRICT;
CREATE TABLE compaction (oldest INTEGER NOT NULL) STRICT;
INSERT INTO compaction VALUES (0);
"""
OURS = (APPLICATION_ID, FORMAT)
EMPTY = (0, 0)


class Journal:
    """Opens or makes `path`. Raises StoreError with the path and the remedy; Unavailable when it's in use."""

    def __init__(self, path: Path, *, quota_bytes: int = QUOTA_BYTES) -> None:
        self.path = path
        self._broken = ""
        try:
            make(path)
            self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"{path}: can't open the store: {error}; its directory must exist and be ours to write"
            ) from error
        try:
            self._prepare(quota_bytes)
        except sqlite3.Error as error:
            self._db.close()
            raise unusable(path, error) from error
        except StoreError:
            self._db.close()
            raise

    def _prepare(self, quota_bytes: int) -> None:
        # The lock comes first: nothing may be looked at that another process still changes.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("BEGIN EXCLUSIVE")
        self._db.execute("COMMIT")
        kind = (self._number("PRAGMA application_id"), self._number("PRAGMA user_version"))
        tables = self._number("SELECT count(*) FROM sqlite_schema")
        if kind != OURS and (kind != EMPTY or tables):
            raise StoreError(
                f"{self.path}: not a store of this version of relevo: "
                f"application {kind[0]:#x}, format {kind[1]}, expected {APPLICATION_ID:#x}, {FORMAT}; "
                "name another file, or use the version that wrote it"
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(f"PRAGMA max_page_count = {max(quota_bytes // PAGE_BYTES, 1)}")
        if kind == EMPTY:
            self._db.executescript(f"BEGIN; {MARK} {SCHEMA} COMMIT;")
        if (verdict := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise unusable(self.path, sqlite3.DatabaseError(verdict))

    def load(self) -> Keyspace:
        """What is in the file. Raises StoreError when it contradicts itself."""
        try:
            oldest = self._number("SELECT oldest FROM compaction")
            return Keyspace.restore(self._versions(), oldest=oldest)
        except (sqlite3.Error, ValueError, KeyError) as error:
            raise unusable(self.path, error) from error

    def _versions(self) -> Iterator[Event]:
        rows = self._db.execute(
            "SELECT revision, key, value, created, version, lease FROM versions ORDER BY number"
        )
        for revision, key, value, created, version, lease in rows:
            kv = KV(key, value or b"", created, revision, version, lease)
            yield Event("delete" if value is None else "put", kv)

    def write(
        self, revisions: Sequence[Revision], *, oldest: int, superseded: Sequence[tuple[int, bytes]]
    ) -> None:
        """Add `revisions` and, if `oldest` is not 0, forget what was before it: all or nothing, then durable.

        Raises NoSpace and Unavailable when nothing was written, Ambiguous when that can't be known.
        """
        if self._broken:
            raise Unavailable(
                f"{self.path}: writes stopped after: {self._broken}; see to the disk, then restart the controller"
            )
        kind: type[StoreError] = Unavailable
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT INTO versions (revision, key, value, created, version, lease) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (row(event) for events in revisions for event in events),
            )
            if oldest:
                self._db.executemany(
                    "DELETE FROM versions WHERE revision = ? AND key = ?", superseded
                )
                self._db.execute("UPDATE compaction SET oldest = ?", (oldest,))
            kind = Ambiguous  # from here on an error leaves open what a crash would find
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(error, kind)

    def _failed(self, error: sqlite3.Error, kind: type[StoreError]) -> NoReturn:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        if primary(error) == sqlite3.SQLITE_FULL:
            # A full disk stops before the frame that makes a commit count.
            raise NoSpace(
                f"{self.path}: the store is full: {error}; free disk space or compact, reads go on"
            ) from error
        self._broken = str(error)
        raise kind(f"{self.path}: write failed: {error}; see to the disk, then restart") from error

    def close(self) -> None:
        """Fold the log into the file and let go of the lock."""
        self._db.close()

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])


def row(event: Event) -> tuple[int, bytes, bytes | None, int, int, int]:
    kv = event.kv
    value = kv.value if event.kind == "put" else None
    return kv.mod_revision, kv.key, value, kv.create_revision, kv.version, kv.lease


def make(path: Path) -> None:
    """Create the file for its owner's eyes only, its directory entry durable; leave an existing one untouched.

    An open and close of an existing file would drop the locks that this process holds on it (fcntl(2)).
    """
    with suppress(FileExistsError):
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if os.geteuid() == 0:  # a restored store is root's work, and the service's to open
                whose = os.fstat(directory)
                os.fchown(file, whose.st_uid, whose.st_gid)
            os.fsync(directory)
        finally:
            os.close(directory)
            os.close(file)


def unusable(path: Path, error: Exception) -> StoreError:
    """What is wrong with the file, and what to do about it."""
    code = primary(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable(
            f"{path}: another process uses this store; stop it, or give this controller a file of its own"
        )
    if code == sqlite3.SQLITE_FULL:
        return NoSpace(
            f"{path}: no room to begin in: {error}; free disk space there, then start again"
        )
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return StoreError(
            f"{path}: can't open the store: {error}; file and directory must be ours to write"
        )
    return StoreError(f"{path}: the store is damaged: {error}; restore it from a snapshot")


def primary(error: Exception) -> int:
    """SQLite's primary result code; extended ones carry it in their low byte. -1: not SQLite's."""
    code: int = getattr(error, "sqlite_errorcode", -1)
    return code & 0xFF if code >= 0 else -1
