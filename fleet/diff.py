"""What changed between two fleets, in words that people can review, and how to make the one the other."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from fleet.findings import shown
from fleet.kinds import KINDS, Item, assemble, id_of, items
from fleet.model import Fleet, Tombstone
from fleet.writing import declared


class Conflict(Exception):
    """The fleet is not the one that the changes were made for."""


class FieldChange(msgspec.Struct, frozen=True):
    """One field, as it was and as it becomes; `caps.tasks` for a field of a field. None: its default."""

    field: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.field}: {worded(self.old)} -> {worded(self.new)}"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One item: added (`old` is None), removed (`new` is None), or changed."""

    kind: str
    id: str
    old: Item | None = None
    new: Item | None = None

    @property
    def what(self) -> Literal["added", "removed", "changed"]:
        if self.old is None:
            return "added"
        return "removed" if self.new is None else "changed"

    @property
    def fields(self) -> tuple[FieldChange, ...]:
        """What differs, for a changed item."""
        if self.old is None or self.new is None:
            return ()
        old, new = (dict(_flat(declared(item))) for item in (self.old, self.new))
        names = sorted(old.keys() | new.keys())
        return tuple(
            FieldChange(name, old.get(name), new.get(name))
            for name in names
            if old.get(name) != new.get(name)
        )

    def __str__(self) -> str:
        sign = {"added": "+", "removed": "-", "changed": "~"}[self.what]
        fields = "; ".join(map(str, self.fields))
        return f"{sign} {self.kind.removesuffix('s')} {self.id}" + (f": {fields}" if fields else "")


class Changes(msgspec.Struct, frozen=True):
    """All of them, by kind and id. False if there is none."""

    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        return "\n".join((self.summary, *map(str, self.changes)))

    @property
    def summary(self) -> str:
        """`sites: 2 added, 1 changed; hosts: 1 removed`, or `no change`."""
        parts = []
        for kind in KINDS:
            counts = (
                f"{n} {what}"
                for what in ("added", "changed", "removed")
                if (n := sum(c.kind == kind and c.what == what for c in self.changes))
            )
            if told := ", ".join(counts):
                parts.append(f"{kind}: {told}")
        return "; ".join(parts) or "no change"


def diff(old: Fleet, new: Fleet) -> Changes:
    return Changes(tuple(_changes(old, new)))


def _changes(old: Fleet, new: Fleet) -> Iterator[Change]:
    for kind in KINDS:
        before, after = items(old, kind), items(new, kind)
        for id in sorted(before.keys() | after.keys()):
            if before.get(id) != after.get(id):
                yield Change(kind=kind, id=id, old=before.get(id), new=after.get(id))


def apply(fleet: Fleet, changes: Changes) -> Fleet:
    """`fleet` with `changes` made. Raises Conflict if an item is not what it was when they were made."""
    parts = {kind: dict(items(fleet, kind)) for kind in KINDS}
    for change in changes.changes:
        part = parts[change.kind]
        if part.get(change.id) != change.old:
            raise Conflict(f"{change.kind.removesuffix('s')} {change.id} has changed meanwhile")
        if change.new is None:
            del part[change.id]
        else:
            part[id_of(change.new)] = change.new
    return assemble(parts)


def tombstone(old: Fleet, new: Fleet) -> Tombstone:
    """What `new` no longer has: told to be removed (rule R7)."""
    kept = {domain for site in new.sites.values() for domain in site.domains}
    had = {domain for site in old.sites.values() for domain in site.domains}
    return Tombstone(
        domains=tuple(sorted(had - kept)),
        hosts=tuple(sorted(old.hosts.keys() - new.hosts.keys())),
        sites=tuple(sorted(old.sites.keys() - new.sites.keys())),
    )


def _flat(fields: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def worded(value: object) -> str:
    """A bare value in a line for people."""
    match value:
        case None:
            return "default"
        case list():
            return "[" + ", ".join(map(worded, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{k}: {worded(v)}" for k, v in value.items()) + "}"
        case str() if not value.isprintable() or not value:
            return shown(value)
        case _:
            return str(value)
