"""The store as relevo uses it: etcd v3's semantics, whoever keeps the keys.

Rules of every implementation, checked by one contract suite (tests/contract):

1. One revision counter for the whole store; a transaction that writes raises it by exactly one.
2. Reads are linearizable unless they ask for `serializable`.
3. A watch never skips, repeats or reorders; what it can no longer know it calls `Compacted`.
4. An error says whether the write may have happened: only `Ambiguous` may have.
5. Every call ends: by an answer, an error, or its timeout.

Source: etcd API reference, v3; etcd `--max-txn-ops` (128) and `--max-request-bytes` (1.5 MiB).
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

MAX_OPERATIONS = 128
MAX_REQUEST_BYTES = 1_572_864
TIMEOUT_S = 2.0  # longer than an etcd election (1 s) and shorter than a leader's lease (3 s)


class KV(msgspec.Struct, frozen=True, gc=False):
    """A key as it stood: `version` counts its writes since it was created, `lease` is 0 for none."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Event(msgspec.Struct, frozen=True):
    """One change. A delete's `kv` has an empty value and the revision of the delete as mod_revision."""

    kind: Literal["put", "delete"]
    kv: KV
    prev: KV | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """All changes of a prefix in one or more whole revisions up to `revision`; empty: a bookmark."""

    revision: int
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Keys in byte order, as they stood at `revision`."""

    revision: int
    items: tuple[KV, ...]


@dataclass(frozen=True, slots=True)
class Cmp:
    """One compare; a missing key has create, mod, version and lease 0, and fails every value compare."""

    key: bytes
    target: Literal["mod", "create", "version", "lease", "value"]
    op: Literal["=", "!=", "<", ">"]
    operand: int | bytes


@dataclass(frozen=True, slots=True)
class Put:
    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    key: bytes
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Get:
    key: bytes
    prefix: bool = False


Op = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class TxnResult:
    """`results`, one per operation: a Put gives None, a Delete its count, a Get its tuple of KV."""

    ok: bool
    revision: int
    results: tuple[int | tuple[KV, ...] | None, ...]


class StoreError(Exception):
    """The store did not do what was asked; the kinds below say what may be assumed."""


class Unavailable(StoreError):
    """Not applied; a later try may succeed."""


class Ambiguous(StoreError):
    """May have been applied, or may still be: re-read before deciding, and compare when writing again."""


class Compacted(StoreError):
    """The wanted revision is gone: list again, then watch from there. Carries the oldest one kept."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"history before revision {revision} was compacted")
        self.revision = revision


class Denied(StoreError):
    """The store refuses: credentials, or a request beyond its limits."""


class NoSpace(StoreError):
    """The store is full: reads work, writes do not."""


class LeaseLost(StoreError):
    """The lease, and what hung on it, is gone or no longer sure."""


class Rewound(StoreError):
    """Not the store that this process knew: its revision went back, or its cluster is another one (rule R2).

    Nothing learned from it holds. Every call says so from then on: start anew.
    """


class Lease(Protocol):
    """A lease kept alive in the background until revoked or lost."""

    id: int
    ttl: int
    lost: asyncio.Event

    @property
    def deadline(self) -> float:
        """Until when it surely lasts, on the loop's clock, counted from before the last accepted keepalive."""
        ...

    async def revoke(self) -> None: ...


class Leadership(Protocol):
    """Being the one decider (rule R1). `fence` compares the leader key; `term` is its create revision."""

    fence: Cmp
    term: int
    lost: asyncio.Event

    @property
    def deadline(self) -> float: ...

    async def txn(self, then: Sequence[Op], when: Sequence[Cmp] = ()) -> TxnResult:
        """A transaction under the fence. Raises LeaseLost when it no longer holds."""
        ...


class Store(Protocol):
    async def get(
        self, key: bytes, *, serializable: bool = False, timeout: float = TIMEOUT_S
    ) -> KV | None: ...

    async def list(
        self, prefix: bytes, *, limit: int = 0, revision: int = 0, timeout: float = TIMEOUT_S
    ) -> Snapshot: ...

    async def put(
        self, key: bytes, value: bytes, *, lease: int = 0, timeout: float = TIMEOUT_S
    ) -> int:
        """The revision it made. Raises LeaseLost when there is no such lease."""
        ...

    async def delete(self, key: bytes, *, prefix: bool = False, timeout: float = TIMEOUT_S) -> int:
        """How many keys went."""
        ...

    async def txn(
        self,
        when: Sequence[Cmp],
        then: Sequence[Op],
        otherwise: Sequence[Op] = (),
        *,
        timeout: float = TIMEOUT_S,
    ) -> TxnResult: ...

    async def grant(self, ttl: int) -> Lease:
        """A lease of at least `ttl` seconds; kept alive inside until revoked or lost."""
        ...

    def watch(
        self, prefix: bytes, *, after: int, prev: bool = False
    ) -> AsyncGenerator[Batch, None]:
        """Every change after revision `after`; resumes by itself. Raises Compacted, Denied and Rewound only.

        Ends when the store is closed. Iterate it under contextlib.aclosing: leaving early then leaves no watcher.
        """
        ...

    def campaign(
        self, key: bytes, value: bytes, *, ttl: int
    ) -> AbstractAsyncContextManager[Leadership]:
        """Wait until `key` is ours, hold it for the body, give it back."""
        ...

    async def compact(self, revision: int, *, timeout: float = TIMEOUT_S) -> None: ...

    async def aclose(self) -> None: ...
