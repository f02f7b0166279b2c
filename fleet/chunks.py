"""A fleet in pieces for the store: JSON chunks named by their content, and the pointer that makes them true."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256

import msgspec

from fleet.kinds import KINDS, Item, assemble, id_of, items
from fleet.model import Fleet, Site

CHUNK_LIMIT_BYTES = (
    256 << 10
)  # four staged in one of etcd's transactions of 1.5 MB, with room to spare

Digest = str  # SHA-256 of a chunk, in hexadecimal


class BrokenFleet(Exception):
    """The stored pieces do not make the fleet that the pointer names."""


class FleetPointer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which chunks are the fleet, in order, and who made it so. `chunks` and `counts` by kind; `at` in Unix s."""

    chunks: dict[str, tuple[Digest, ...]] = {}
    counts: dict[str, int] = {}
    by: str
    reason: str
    at: float

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset(digest for digests in self.chunks.values() for digest in digests)


def split(
    fleet: Fleet, *, by: str, reason: str, at: float
) -> tuple[FleetPointer, dict[Digest, bytes]]:
    """The pointer and every chunk of `fleet`. Equal content has equal names, whenever it is split.

    Sites lie together by home host, so that a change touches few chunks. Raises ValueError if a single
    item fills more than a chunk; `validate.check` refuses such items.
    """
    contents: dict[Digest, bytes] = {}
    chunks: dict[str, tuple[Digest, ...]] = {}
    for kind in KINDS:
        digests = []
        for chunk in _chunks(items(fleet, kind).values()):
            digests.append(digest := sha256(chunk).hexdigest())
            contents[digest] = chunk
        if digests:
            chunks[kind] = tuple(digests)
    counts = {kind: len(items(fleet, kind)) for kind in chunks}
    return FleetPointer(chunks=chunks, counts=counts, by=by, reason=reason, at=at), contents


def join(pointer: FleetPointer, chunks: Mapping[Digest, bytes]) -> Fleet:
    """The fleet that `pointer` names. Raises BrokenFleet."""
    if unknown := pointer.chunks.keys() - KINDS.keys():
        raise BrokenFleet(f"a newer relevo wrote this fleet: it holds {', '.join(sorted(unknown))}")
    parts: dict[str, dict[str, Item]] = {}
    for kind, digests in pointer.chunks.items():
        part = parts[kind] = {}
        for digest in digests:
            part.update((id_of(item), item) for item in _decode(kind, digest, chunks.get(digest)))
        if len(part) != (expected := pointer.counts.get(kind, 0)):
            raise BrokenFleet(f"{len(part)} {kind} in the store, {expected} by the pointer")
    return assemble(parts)


def _decode(kind: str, digest: Digest, chunk: bytes | None) -> list[Item]:
    if chunk is None:
        raise BrokenFleet(f"chunk {digest} of {kind} is missing")
    if (found := sha256(chunk).hexdigest()) != digest:
        raise BrokenFleet(f"chunk {digest} of {kind} is damaged: its content is {found}")
    try:
        decoded: list[Item] = msgspec.json.decode(chunk, type=list[KINDS[kind]])  # type: ignore[valid-type]
    except msgspec.DecodeError as error:
        raise BrokenFleet(f"chunk {digest} of {kind} is not of this version: {error}") from error
    return decoded


def _chunks(found: Iterable[Item]) -> Iterator[bytes]:
    groups: defaultdict[str, list[Item]] = defaultdict(list)
    for item in found:
        groups[item.home if isinstance(item, Site) else ""].append(item)
    for home in sorted(groups):
        yield from _fit(groups[home])


def _fit(group: list[Item], depth: int = 0) -> Iterator[bytes]:
    """One chunk, or, where that is too large, sixteen heaps by the digest of the id: an item never changes heap."""
    chunk = msgspec.json.encode(sorted(group, key=id_of))
    if len(chunk) <= CHUNK_LIMIT_BYTES:
        yield chunk
        return
    if len(group) == 1:
        raise ValueError(f"{id_of(group[0])} alone is larger than {CHUNK_LIMIT_BYTES} bytes")
    heaps: defaultdict[str, list[Item]] = defaultdict(list)
    for item in group:
        heaps[sha256(id_of(item).encode()).hexdigest()[depth]].append(item)
    for digit in sorted(heaps):
        yield from _fit(heaps[digit], depth + 1)
