"""The last changes of a fleet: who made them, when and why, what they did, and what taking one back means."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

import msgspec

from fleet.chunks import CHUNK_LIMIT_BYTES, Digest
from fleet.diff import Change, Changes
from fleet.kinds import KINDS, Item, items
from fleet.model import Fleet

LOG_KEPT = 100
# A change of one site is 300 bytes, one of every site of 10,000 is under a megabyte: the log never outweighs the fleet.
DETAILS_KEPT_BYTES = 16 << 20
LINES_KEPT = 3  # of a change in its entry: most changes have one
LINE_CHARS = 200


class LostDetails(Exception):
    """What a change did can no longer be told: its details were let go, or are not of this version."""


class LoggedChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of the fleet. `number` counts from 1 and is never given twice; `at` in Unix s.

    `first`: its first lines in words. `details`: the digests of what `pack` made, in order. `undoes`: the number of the
    change that this one took back.
    """

    number: int
    at: float
    who: str
    reason: str
    summary: str
    first: tuple[str, ...] = ()
    undoes: int | None = None
    details: tuple[Digest, ...] = ()
    details_bytes: int = 0


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """A Change as stored: its items are read by their kind."""

    kind: str
    id: str
    old: msgspec.Raw
    new: msgspec.Raw


_packed = msgspec.json.Decoder(list[_Packed])


def logged(
    changes: Changes,
    parts: Mapping[Digest, bytes],
    *,
    number: int,
    at: float,
    who: str,
    reason: str,
    undoes: int | None = None,
) -> LoggedChange:
    """The entry of `changes`, whose details are `parts` (of `pack`)."""
    return LoggedChange(
        number=number,
        at=at,
        who=who,
        reason=reason,
        summary=changes.summary,
        first=tuple(_short(str(change)) for change in changes.changes[:LINES_KEPT]),
        undoes=undoes,
        details=tuple(parts),
        details_bytes=sum(map(len, parts.values())),
    )


def _short(line: str) -> str:
    return line if len(line) <= LINE_CHARS else line[: LINE_CHARS - 1] + "…"


def pack(changes: Changes) -> dict[Digest, bytes]:
    """All of `changes`, compressed, in pieces that the store takes, in order, by their SHA-256."""
    told = [(change.kind, change.id, change.old, change.new) for change in changes.changes]
    packed = zlib.compress(msgspec.json.encode(told))
    pieces = (packed[n : n + CHUNK_LIMIT_BYTES] for n in range(0, len(packed), CHUNK_LIMIT_BYTES))
    return {sha256(piece).hexdigest(): piece for piece in pieces}


def unpack(entry: LoggedChange, parts: Mapping[Digest, bytes]) -> Changes:
    """What `entry` did. Raises LostDetails."""
    try:
        packed = b"".join(parts[digest] for digest in entry.details)
        told = _packed.decode(zlib.decompress(packed))
        return Changes(
            tuple(
                Change(kind=t.kind, id=t.id, old=_item(t.kind, t.old), new=_item(t.kind, t.new))
                for t in told
            )
        )
    except (KeyError, zlib.error, msgspec.DecodeError) as error:
        raise LostDetails(f"change {entry.number}: {error!r}") from error


def _item(kind: str, raw: msgspec.Raw) -> Item | None:
    found: Item | None = msgspec.json.decode(raw, type=KINDS[kind] | None)
    return found


def kept(entries: Iterable[LoggedChange]) -> tuple[tuple[LoggedChange, ...], frozenset[Digest]]:
    """(the entries to keep, oldest first; the details to keep). Details of the oldest go first."""
    newest = sorted(entries, key=lambda entry: entry.number, reverse=True)[:LOG_KEPT]
    digests: set[Digest] = set()
    total = 0
    for entry in newest:
        total += entry.details_bytes
        if total > DETAILS_KEPT_BYTES:
            break
        digests.update(entry.details)
    return tuple(reversed(newest)), frozenset(digests)


def inverse(changes: Changes) -> Changes:
    """What takes `changes` back."""
    return Changes(tuple(msgspec.structs.replace(c, old=c.new, new=c.old) for c in changes.changes))


def to_undo(fleet: Fleet, changes: Changes) -> tuple[Changes, tuple[Change, ...]]:
    """(what takes back those of `changes` that are still so in `fleet`, those that later became something else).

    An item that is again as it was before is in neither.
    """
    still = [c for c in changes.changes if items(fleet, c.kind).get(c.id) == c.new]
    other = tuple(
        c for c in changes.changes if items(fleet, c.kind).get(c.id) not in (c.old, c.new)
    )
    return inverse(Changes(tuple(still))), other


def touching(
    places: Iterable[tuple[str, str]], later: Sequence[tuple[LoggedChange, Changes]]
) -> tuple[int, ...]:
    """The numbers of those of `later` that touched one of `places` (kind, id), in order."""
    wanted = frozenset(places)
    return tuple(
        entry.number
        for entry, changes in later
        if any((change.kind, change.id) in wanted for change in changes.changes)
    )
