"""EtcdStore: the Store protocol over an etcd cluster."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from controller.store.campaign import campaign
from controller.store.etcd import rpc_pb2 as rpc
from controller.store.etcd.access import Login, Tls
from controller.store.etcd.client import Client
from controller.store.etcd.lease import EtcdLease
from controller.store.etcd.member import (
    COMPACT,
    DELETE,
    GRANT,
    PUT,
    RANGE,
    RANGE_NEARBY,
    TXN,
    Member,
)
from controller.store.etcd.watch import Watch, oldest
from controller.store.etcd.wire import Wire
from controller.store.limits import check, check_key
from controller.store.protocol import (
    KV,
    TIMEOUT_S,
    Batch,
    Cmp,
    Compacted,
    Delete,
    Denied,
    Leadership,
    Op,
    Put,
    Snapshot,
    TxnResult,
)
from runtime.certificates import LOOK_S


class EtcdStore:
    """A Store; made by `open`."""

    def __init__(self, client: Client, prefix: bytes, group: asyncio.TaskGroup) -> None:
        self._client, self._group = client, group
        self._wire = Wire(prefix)
        self._leases: dict[EtcdLease, asyncio.Task[None]] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        endpoints: Sequence[str],
        *,
        tls: Tls | None = None,
        login: Login | None = None,
        prefix: bytes = b"",
        look_s: float = LOOK_S,
    ) -> AsyncGenerator["EtcdStore", None]:
        """The store below `prefix` in the cluster at `endpoints`, URLs of its members, the preferred one first.

        `look_s`: how often the files of `tls` are looked at; renewed ones are for connections that begin then.
        A cluster that is away is no error here: the calls say so. Raises Denied for files that can't be used.
        """
        credentials = tls.credentials() if tls else None
        client = Client(
            [Member(url, credentials if url.startswith("https:") else None) for url in endpoints],
            login,
        )
        try:
            async with asyncio.TaskGroup() as group:
                store = cls(client, prefix, group)
                renewing = group.create_task(client.keep(tls, look_s)) if tls else None
                try:
                    yield store
                finally:
                    if renewing:
                        renewing.cancel()
                    await store.aclose()
        except BaseExceptionGroup as failures:
            (first, *others) = failures.exceptions
            if others:
                raise
            raise first from None  # what went wrong inside is not about the store's own tasks

    @property
    def cluster(self) -> int:
        """The cluster's id, 0 before the first answer."""
        return self._client.cluster

    async def get(
        self, key: bytes, *, serializable: bool = False, timeout: float = TIMEOUT_S
    ) -> KV | None:
        check_key(key)
        request = rpc.RangeRequest(key=self._wire.key(key), serializable=serializable)
        found = await self._client.call(
            RANGE_NEARBY if serializable else RANGE, request, timeout=timeout
        )
        return self._wire.kv(found.kvs[0]) if found.kvs else None

    async def list(
        self, prefix: bytes, *, limit: int = 0, revision: int = 0, timeout: float = TIMEOUT_S
    ) -> Snapshot:
        key, end = self._wire.span(prefix)
        request = rpc.RangeRequest(
            key=key, range_end=end, limit=max(limit, 0), revision=max(revision, 0)
        )
        try:
            found = await self._client.call(RANGE, request, timeout=timeout)
        except Compacted as gone:
            raise Compacted(await self._oldest(prefix)) from gone
        at = revision if revision > 0 else found.header.revision
        return Snapshot(at, tuple([self._wire.kv(kv) for kv in found.kvs]))

    async def put(
        self, key: bytes, value: bytes, *, lease: int = 0, timeout: float = TIMEOUT_S
    ) -> int:
        check([], [Put(key, value, lease)], [])
        request = rpc.PutRequest(key=self._wire.key(key), value=value, lease=lease)
        return (await self._client.call(PUT, request, timeout=timeout)).header.revision

    async def delete(self, key: bytes, *, prefix: bool = False, timeout: float = TIMEOUT_S) -> int:
        check([], [Delete(key, prefix)], [])
        request = self._wire.delete(key, prefix=prefix)
        return (await self._client.call(DELETE, request, timeout=timeout)).deleted

    async def txn(
        self,
        when: Sequence[Cmp],
        then: Sequence[Op],
        otherwise: Sequence[Op] = (),
        *,
        timeout: float = TIMEOUT_S,
    ) -> TxnResult:
        check(when, then, otherwise)
        request = self._wire.txn(when, then, otherwise)
        return self._wire.result(await self._client.call(TXN, request, timeout=timeout))

    async def compact(self, revision: int, *, timeout: float = TIMEOUT_S) -> None:
        """Of the whole cluster, other prefixes included."""
        request = rpc.CompactionRequest(revision=revision)
        try:
            await self._client.call(COMPACT, request, timeout=timeout)
        except Compacted as gone:
            raise Compacted(await self._oldest(b"")) from gone

    async def grant(self, ttl: int) -> EtcdLease:
        """Never below etcd's own least, one and a half election timeouts: 2 s by default."""
        if ttl < 1:
            raise Denied(f"a lease of {ttl} s is none; 1 s is the shortest")
        asked_at = asyncio.get_running_loop().time()
        granted = await self._client.call(GRANT, rpc.LeaseGrantRequest(TTL=ttl), timeout=TIMEOUT_S)
        self._client.check()  # closed meanwhile, it would be kept by nobody
        lease = EtcdLease(self._client, granted.ID, granted.TTL, asked_at=asked_at)
        task = self._group.create_task(lease.keep(), name="lease")
        self._leases[lease] = task
        task.add_done_callback(lambda _: self._leases.pop(lease, None))
        return lease

    def abandon(self, lease: int) -> None:
        """Stop keeping a lease alive, as when its process dies: it ends by itself."""
        for found in self._leases:
            if found.id == lease:
                found.abandon()

    def campaign(
        self, key: bytes, value: bytes, *, ttl: int
    ) -> AbstractAsyncContextManager[Leadership]:
        return campaign(self, key, value, ttl=ttl)

    def watch(
        self, prefix: bytes, *, after: int, prev: bool = False
    ) -> AsyncGenerator[Batch, None]:
        return Watch(self._client, self._wire, prefix, after=after, prev=prev).batches(self._group)

    async def aclose(self) -> None:
        """End watches and what is under way; leases are no longer kept, and end by themselves. Idempotent."""
        for lease, task in tuple(self._leases.items()):
            lease.lost.set()
            task.cancel()
        await self._client.close()

    async def _oldest(self, prefix: bytes) -> int:
        return await oldest(self._client, self._wire, self._group, prefix)
