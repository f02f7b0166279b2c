"""Transactions tried on a keyspace, to be adopted once they are durable."""

from collections.abc import Callable, Container, Sequence

from msgspec.structs import replace

from controller.store.keyspace import Keyspace, Revision
from controller.store.protocol import (
    KV,
    Cmp,
    Compacted,
    Delete,
    Denied,
    Event,
    Get,
    LeaseLost,
    Op,
    Put,
    TxnResult,
)

COMPARE: dict[str, Callable[[int | bytes, int | bytes], bool]] = {
    "=": lambda left, right: left == right,
    "!=": lambda left, right: left != right,
    "<": lambda left, right: left < right,  # type: ignore[operator] # checked: same type
    ">": lambda left, right: left > right,  # type: ignore[operator] # checked: same type
}
MISSING = KV(b"", b"", 0, 0, 0)


class Draft:
    """Transactions tried on a keyspace that stays as it is; each sees what the ones before it changed."""

    def __init__(self, keyspace: Keyspace, leases: Container[int] = ()) -> None:
        self.revisions: list[Revision] = []
        self.ended: set[int] = set()
        self.oldest = 0
        self._base = keyspace
        self._leases = leases
        self._changed: dict[bytes, KV | None] = {}

    @property
    def revision(self) -> int:
        return self._base.revision + len(self.revisions)

    @property
    def superseded(self) -> list[tuple[int, bytes]]:
        return self._base.superseded(self.oldest, self.revisions) if self.oldest else []

    def txn(self, when: Sequence[Cmp], then: Sequence[Op], otherwise: Sequence[Op]) -> TxnResult:
        """Raises LeaseLost when a put of the branch taken names a lease that isn't."""
        ok = all(map(self._holds, when))
        operations = then if ok else otherwise
        for op in operations:
            if isinstance(op, Put) and op.lease and not self._alive(op.lease):
                raise LeaseLost(f"requested lease not found: {op.lease}, for {op.key!r}")
        events: list[Event] = []
        at = self.revision + 1
        results = tuple([self._carry_out(op, at, events) for op in operations])
        self._close(events)
        return TxnResult(ok, self.revision, results)

    def end(self, lease: int) -> None:
        """Revoke: the lease's keys go, in byte order, in one revision of their own."""
        self._delete_where(lambda kv: kv.lease == lease)
        self.ended.add(lease)

    def void_leases(self) -> None:
        """Whoever held a lease is gone: the keys of all leases go, in one revision."""
        self._delete_where(lambda kv: kv.lease != 0)

    def _delete_where(self, condition: Callable[[KV], bool]) -> None:
        events: list[Event] = []
        at = self.revision + 1
        kept = (kv for kv in self._base.values() if kv.key not in self._changed)
        drafted = (kv for kv in self._changed.values() if kv)
        for key in sorted(kv.key for kv in (*kept, *drafted) if condition(kv)):
            self._delete(key, at, events)
        self._close(events)

    def compact(self, revision: int) -> None:
        """Forget what was before `revision`. Raises Compacted if it's gone already, Denied if it isn't yet."""
        if revision <= max(self._base.oldest, self.oldest):
            raise Compacted(max(self._base.oldest, self.oldest))
        if revision > self.revision:
            raise Denied(
                f"can't compact at a future revision: asked for {revision}, the store is at {self.revision}"
            )
        self.oldest = revision

    def _alive(self, lease: int) -> bool:
        return lease in self._leases and lease not in self.ended

    def _close(self, events: list[Event]) -> None:
        if events:  # what changes nothing raises no revision
            self.revisions.append(tuple(events))

    def _get(self, key: bytes) -> KV | None:
        return self._changed[key] if key in self._changed else self._base.get(key)

    def _keys(self, op: Get | Delete) -> list[bytes]:
        if not op.prefix:
            return [op.key] if self._get(op.key) else []
        keys = {key for key in self._base.keys(op.key) if key not in self._changed}
        keys |= {key for key, kv in self._changed.items() if kv and key.startswith(op.key)}
        return sorted(keys)

    def _holds(self, compare: Cmp) -> bool:
        kv = self._get(compare.key)
        if compare.target == "value":
            return kv is not None and COMPARE[compare.op](kv.value, compare.operand)
        kv = kv or MISSING
        seen = {
            "mod": kv.mod_revision,
            "create": kv.create_revision,
            "version": kv.version,
            "lease": kv.lease,
        }
        return COMPARE[compare.op](seen[compare.target], compare.operand)

    def _carry_out(self, op: Op, at: int, events: list[Event]) -> int | tuple[KV, ...] | None:
        match op:
            case Put():
                self._put(op, at, events)
                return None
            case Delete():
                keys = self._keys(op)
                for key in keys:
                    self._delete(key, at, events)
                return len(keys)
            case Get():
                return tuple(kv for key in self._keys(op) if (kv := self._get(key)))

    def _put(self, op: Put, at: int, events: list[Event]) -> None:
        prev = self._get(op.key)
        kv = KV(op.key, op.value, at, at, 1, op.lease)
        if prev:
            kv = replace(kv, create_revision=prev.create_revision, version=prev.version + 1)
        self._changed[op.key] = kv
        events.append(Event("put", kv, prev))

    def _delete(self, key: bytes, at: int, events: list[Event]) -> None:
        prev = self._get(key)
        self._changed[key] = None
        events.append(Event("delete", KV(key, b"", 0, at, 0), prev))
