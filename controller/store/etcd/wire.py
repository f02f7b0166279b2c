"""Between the protocol's values and etcd's messages; every key travels below one prefix."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from controller.store.etcd import rpc_pb2 as rpc
from controller.store.protocol import KV, Cmp, Delete, Event, Get, Op, Put, TxnResult

Answer = int | tuple[KV, ...] | None

RESULT = {
    "=": rpc.Compare.EQUAL,
    "!=": rpc.Compare.NOT_EQUAL,
    "<": rpc.Compare.LESS,
    ">": rpc.Compare.GREATER,
}
BATCH_EVENTS = 1_000  # in one batch of a watch, unless one revision has more


class Wire:
    """What is stored lies below `prefix`, and nobody sees it there."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix, self._cut = prefix, len(prefix)

    def key(self, key: bytes) -> bytes:
        return self._prefix + key

    def span(self, prefix: bytes) -> tuple[bytes, bytes]:
        """All keys that begin with `prefix`, as etcd's half-open range."""
        return span(self._prefix + prefix)

    def kv(self, kv: rpc.KeyValue) -> KV:
        return KV(
            kv.key[self._cut :],
            kv.value,
            kv.create_revision,
            kv.mod_revision,
            kv.version,
            kv.lease,
        )

    def txn(
        self, when: Sequence[Cmp], then: Sequence[Op], otherwise: Sequence[Op]
    ) -> rpc.TxnRequest:
        return rpc.TxnRequest(
            compare=[self._compare(one) for one in when],
            success=[self._op(op) for op in then],
            failure=[self._op(op) for op in otherwise],
        )

    def result(self, response: rpc.TxnResponse) -> TxnResult:
        results = tuple([self._answer(one) for one in response.responses])
        return TxnResult(response.succeeded, response.header.revision, results)

    def batches(
        self, events: Iterable[rpc.Event], *, after: int, prev: bool
    ) -> Iterable[tuple[int, list[Event]]]:
        """Whole revisions above `after`, as many at a time as BATCH_EVENTS allows, each with its last revision."""
        batch: list[Event] = []
        last = after
        for revision, group in groupby(events, key=lambda event: event.kv.mod_revision):
            if revision <= after:  # told already: old members may repeat themselves on resuming
                continue
            story = [self._event(event, prev=prev) for event in group]
            if batch and len(batch) + len(story) > BATCH_EVENTS:
                yield last, batch
                batch = []
            batch += story
            last = revision
        if batch:
            yield last, batch

    def _event(self, event: rpc.Event, *, prev: bool) -> Event:
        kind = event.type == rpc.Event.DELETE
        before = self.kv(event.prev_kv) if prev and event.HasField("prev_kv") else None
        return Event("delete" if kind else "put", self.kv(event.kv), before)

    def _compare(self, one: Cmp) -> rpc.Compare:
        compare = rpc.Compare(key=self._prefix + one.key, result=RESULT[one.op])
        match one.target, one.operand:
            case "value", bytes(value):
                compare.target, compare.value = rpc.Compare.VALUE, value
            case "mod", int(revision):
                compare.target, compare.mod_revision = rpc.Compare.MOD, revision
            case "create", int(revision):
                compare.target, compare.create_revision = rpc.Compare.CREATE, revision
            case "version", int(version):
                compare.target, compare.version = rpc.Compare.VERSION, version
            case "lease", int(lease):
                compare.target, compare.lease = rpc.Compare.LEASE, lease
            case _:
                raise AssertionError(f"limits.check lets no such compare pass: {one}")
        return compare

    def _op(self, op: Op) -> rpc.RequestOp:
        match op:
            case Put():
                put = rpc.PutRequest(key=self._prefix + op.key, value=op.value, lease=op.lease)
                return rpc.RequestOp(request_put=put)
            case Delete():
                return rpc.RequestOp(request_delete_range=self.delete(op.key, prefix=op.prefix))
            case Get():
                key, end = self.span(op.key) if op.prefix else (self.key(op.key), b"")
                return rpc.RequestOp(request_range=rpc.RangeRequest(key=key, range_end=end))

    def delete(self, key: bytes, *, prefix: bool) -> rpc.DeleteRangeRequest:
        first, end = self.span(key) if prefix else (self.key(key), b"")
        return rpc.DeleteRangeRequest(key=first, range_end=end)

    def _answer(self, one: rpc.ResponseOp) -> Answer:
        match one.WhichOneof("response"):
            case "response_range":
                return tuple([self.kv(kv) for kv in one.response_range.kvs])
            case "response_delete_range":
                return one.response_delete_range.deleted
            case _:
                return None


def span(prefix: bytes) -> tuple[bytes, bytes]:
    """Source: etcd API reference, "Key ranges": a range_end of one zero byte means to the last key."""
    stem = prefix.rstrip(b"\xff")
    end = stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
    return prefix or b"\0", end
