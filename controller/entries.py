"""An entry of the audit as it is written: its key, and the oldest ones that go for it."""

from collections.abc import Iterable

from controller import incidents, settle
from controller.store import Delete, Op, Put
from fleet import keys
from fleet.model import AuditEntry

AUDIT_KEPT = 1000


def entered(known: Iterable[str], id: str, entry: AuditEntry) -> tuple[Op, ...]:
    """`entry` first, under a key of its time and `id`. `known`: the ids that there are."""
    key = keys.AUDIT + incidents.new_id(id, entry.at).encode()
    ids = sorted(known)
    old = ids[: max(0, len(ids) + 1 - AUDIT_KEPT)]
    forgotten = (Delete(keys.AUDIT + id.encode()) for id in old[:10])
    return (Put(key, settle.encode(entry)), *forgotten)
