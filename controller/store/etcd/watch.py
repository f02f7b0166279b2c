"""A watch that outlives its members: where one stops answering, the next goes on from the last revision told."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass

from grpc import aio

from controller.store.etcd import rpc_pb2 as rpc
from controller.store.etcd.answers import Next, judge, judge_reason
from controller.store.etcd.client import AGAIN_S, LOGINS, PROVE_S, Away, Client, Expired
from controller.store.etcd.member import RANGE, Member, Metadata, WatchCall
from controller.store.etcd.wire import Wire
from controller.store.protocol import TIMEOUT_S, Batch, Compacted, Denied, StoreError, Unavailable

QUIET_S = 1.0  # of silence until the member is asked whether it's still there
PROGRESS = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
EVERY_WATCH = -1  # the watch id of an answer to PROGRESS


@dataclass(slots=True, eq=False)
class Stream:
    """One watch call, as long as it lasts. `heard` counts what came over it."""

    member: Member
    call: WatchCall
    metadata: Metadata
    behind: bool  # there is history to catch up with
    heard: int = 0
    ended: str = "ended here"

    async def write(self, request: rpc.WatchRequest) -> None:
        with suppress(asyncio.InvalidStateError):  # it ended meanwhile; reading tells why
            await self.call.write(request)

    async def read(self) -> rpc.WatchResponse:
        """The next response. Raises Away, Expired, StoreErrors."""
        try:
            response = await self.call.read()
        except aio.AioRpcError as error:
            meaning = judge(error.code(), error.details() or "")
            if isinstance(meaning, StoreError):
                raise meaning from error
            if meaning is Next.LOGIN:
                raise Expired(error.details()) from error
            raise Away(f"{error.code().name}: {error.details()}") from error
        except asyncio.CancelledError as error:
            # By `vigil` or by closing the store: not the end of the task that reads.
            task = asyncio.current_task()
            if task and task.cancelling():
                raise
            raise Away(self.ended) from error
        if not isinstance(response, rpc.WatchResponse):
            raise Away("ended by the member")
        self.heard += 1
        return response

    async def vigil(self) -> None:
        """End the call once its member is silent and does not answer elsewhere either.

        The request for progress moves the revision on that a new stream would begin from.
        """
        while True:
            heard = self.heard
            await asyncio.sleep(QUIET_S)
            if self.heard != heard:
                continue
            try:
                async with asyncio.timeout(QUIET_S):
                    await self.write(PROGRESS)
                    await self.member.status(QUIET_S)
            except (aio.AioRpcError, aio.UsageError, TimeoutError):  # usage: the store was closed
                self.ended = f"no sign of life for {2 * QUIET_S:g} s"
                self.call.cancel()
                return


class Watch:
    """One watch of `prefix`; its position is the last revision that was told."""

    def __init__(
        self, client: Client, wire: Wire, prefix: bytes, *, after: int, prev: bool
    ) -> None:
        self._client, self._wire = client, wire
        self._prefix, self._after, self._prev = prefix, after, prev
        self._logins = 0

    async def batches(self, group: asyncio.TaskGroup) -> AsyncGenerator[Batch, None]:
        """Until the store is closed. Raises Compacted, Denied and Rewound; `group` holds the vigils."""
        while not self._client.closed:
            member = self._client.next()
            try:
                async with self._stream(member, group) as stream:
                    while True:
                        for batch in self._read(stream, await self._next(stream, group)):
                            yield batch
            except Away as away:
                if not self._client.closed:
                    self._client.let_down(member, f"watch: {away}")
                    await self._client.pause(AGAIN_S)
            except Expired as expired:
                self._logins += 1
                if self._logins > LOGINS:
                    raise Denied(f"{member.url}: {expired}") from expired
            except Unavailable:
                if not self._client.closed:
                    await asyncio.sleep(AGAIN_S)

    @asynccontextmanager
    async def _stream(
        self, member: Member, group: asyncio.TaskGroup
    ) -> AsyncGenerator[Stream, None]:
        """A stream from after the position on; leaving it leaves no watcher in etcd."""
        key, end = self._wire.span(self._prefix)
        # Is this still the store that was left? A read of the whole cluster tells; a member alone may be behind.
        found = await self._client.call(RANGE, rpc.RangeRequest(key=key), timeout=TIMEOUT_S)
        behind = self._after < found.header.revision
        if not member.proven:
            await self._client.prove(member, PROVE_S)
        metadata = await self._client.metadata(member, TIMEOUT_S)
        self._client.check()
        stream = Stream(member, member.watch(metadata), metadata, behind)
        vigil = group.create_task(stream.vigil(), name="watch vigil")
        try:
            create = rpc.WatchCreateRequest(
                key=key,
                range_end=end,
                start_revision=self._after + 1,
                progress_notify=True,
                prev_kv=self._prev,
            )
            self._client.under_way.add(stream.call)
            await stream.write(rpc.WatchRequest(create_request=create))
            yield stream
        finally:
            self._client.under_way.discard(stream.call)
            vigil.cancel()
            stream.call.cancel()

    async def _next(self, stream: Stream, group: asyncio.TaskGroup) -> rpc.WatchResponse:
        """Raises Compacted also where the last compaction was at the very revision that the stream begins from.

        etcd takes such a watch, but deletions at that revision may be gone: its history would have a gap.
        Source: etcd issues 18089 and 19179.
        """
        response = await stream.read()
        if response.canceled or not response.created or not stream.behind:
            return response
        key, _ = self._wire.span(self._prefix)
        request = rpc.RangeRequest(key=key, revision=self._after)
        try:
            await self._client.call(RANGE, request, timeout=TIMEOUT_S)
        except Compacted as gone:
            found = await oldest(self._client, self._wire, group, self._prefix)
            raise Compacted(found) from gone
        return response

    def _read(self, stream: Stream, response: rpc.WatchResponse) -> Iterator[Batch]:
        """What a response tells. Raises Compacted, Denied, Away, Expired."""
        if response.canceled:
            self._refused(stream, response)
        if response.created:
            self._logins = 0
            self._client.well(stream.member)
        for revision, events in self._wire.batches(
            response.events, after=self._after, prev=self._prev
        ):
            self._told(revision)
            yield Batch(revision, tuple(events))
        if is_progress(response, stream.member) and response.header.revision > self._after:
            self._told(response.header.revision)
            yield Batch(self._after, ())

    def _told(self, revision: int) -> None:
        self._after = revision
        self._client.saw(revision)

    def _refused(self, stream: Stream, response: rpc.WatchResponse) -> None:
        if response.compact_revision:
            raise Compacted(response.compact_revision)
        meaning = judge_reason(response.cancel_reason)
        if meaning is Next.LOGIN:
            self._client.expire(stream.metadata)
            raise Expired(response.cancel_reason)
        if isinstance(meaning, StoreError):
            raise meaning
        raise Away(f"cancelled: {response.cancel_reason}")


async def oldest(client: Client, wire: Wire, group: asyncio.TaskGroup, prefix: bytes) -> int:
    """The revision of the last compaction, which etcd tells only a watch, by refusing it; 0 if it does not say.

    `prefix`: what may be watched surely, by a user who may not see everything.
    """
    history = Watch(client, wire, prefix, after=0, prev=False)
    async with aclosing(history.batches(group)) as batches:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await anext(batches)
        except Compacted as gone:
            return gone.revision
        except (TimeoutError, StopAsyncIteration):
            pass
    return 0


def is_progress(response: rpc.WatchResponse, member: Member) -> bool:
    """Whether everything up to its revision was told."""
    if response.events or response.created or response.canceled:
        return False
    return response.watch_id != EVERY_WATCH or member.tells_progress
