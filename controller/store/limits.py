"""What etcd refuses before it looks at a single key."""

from collections.abc import Sequence

from controller.store.protocol import (
    MAX_OPERATIONS,
    MAX_REQUEST_BYTES,
    Cmp,
    Delete,
    Denied,
    Get,
    Op,
    Put,
)

ENTRY_BYTES = 16  # what protobuf adds to a key and its value, at least


def check(when: Sequence[Cmp], then: Sequence[Op], otherwise: Sequence[Op]) -> None:
    """Raises Denied, with the numbers and the remedy.

    Source: etcd, checkTxnRequest and checkIntervals in server/etcdserver/api/v3rpc/key.go.
    """
    # etcd counts the longest of the three, not their sum.
    if (count := max(len(when), len(then), len(otherwise))) > MAX_OPERATIONS:
        raise Denied(
            f"too many operations in txn request: {count} of {MAX_OPERATIONS}; split the transaction"
        )
    if (size := request_bytes([*when, *then, *otherwise])) > MAX_REQUEST_BYTES:
        raise Denied(
            f"request is too large: {size} of {MAX_REQUEST_BYTES} bytes; split it, or store less"
        )
    for compare in when:
        check_key(compare.key)
        if isinstance(compare.operand, bytes) is not (compare.target == "value"):
            raise Denied(f"{compare.target} of {compare.key!r} compared to {compare.operand!r}")
    check_branch(then)
    check_branch(otherwise)


def check_branch(operations: Sequence[Op]) -> None:
    """No key is put twice, or both put and deleted: their order would not show in one revision."""
    deletes = [op for op in operations if isinstance(op, Delete)]
    put: set[bytes] = set()
    for op in operations:
        check_key(op.key, prefix=not isinstance(op, Put) and op.prefix)
        if not isinstance(op, Put):
            continue
        if op.key in put or any(covers(delete, op.key) for delete in deletes):
            raise Denied(f"duplicate key given in txn request: {op.key!r}; change each key once")
        put.add(op.key)


def check_key(key: bytes, *, prefix: bool = False) -> None:
    if not key and not prefix:  # the empty prefix is every key
        raise Denied("key is not provided; only a prefix may be empty")


def covers(delete: Delete, key: bytes) -> bool:
    return key.startswith(delete.key) if delete.prefix else key == delete.key


def request_bytes(parts: Sequence[Cmp | Op]) -> int:
    return sum(len(part.key) + payload_bytes(part) + ENTRY_BYTES for part in parts)


def payload_bytes(part: Cmp | Op) -> int:
    match part:
        case Put():
            return len(part.value)
        case Cmp(operand=bytes(operand)):
            return len(operand)
        case Cmp() | Get() | Delete():
            return 0
