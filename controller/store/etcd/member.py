"""One member of the etcd cluster, on a channel of its own so that its certificate is checked by its own name."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf import message as protobuf
from grpc import aio

from controller.store.etcd import rpc_pb2 as rpc

# Measured: without `ping_timeout` a frozen peer is noticed after 69 s instead of 12, whatever `keepalive_timeout`.
# Pings without a call under way (`permit_without_calls`) would make etcd hang up: its policy forbids them.
OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.max_receive_message_length", -1),  # a list is as long as it is
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),  # which answer is worth another try is judged here
)
SYNCED_PROGRESS = ((3, 4, 25), (3, 5, 8))  # first patch releases of 3.4 and 3.5 that have it

Metadata = tuple[tuple[str, str], ...]
REQUIRE_LEADER: Metadata = (
    ("hasleader", "true"),
)  # else a member cut off from its peers is silent


class Message(Protocol):
    """What every request and response can do."""

    def SerializeToString(self) -> bytes: ...  # noqa: N802 - protobuf's name

    @staticmethod
    def FromString(s: bytes) -> "Message": ...  # noqa: N802 - protobuf's name


class Answer(Message, Protocol):
    """What every response carries."""

    header: rpc.ResponseHeader


Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Answer)


@dataclass(frozen=True, slots=True, eq=False)
class Rpc(Generic[Request, Response]):
    """One method. A `linear` one answers with the revision of the whole cluster; a `nearby` one needs no leader."""

    path: str
    request: type[Request]
    response: type[Response]
    writes: bool = False
    linear: bool = False
    nearby: bool = False


RANGE = Rpc("/etcdserverpb.KV/Range", rpc.RangeRequest, rpc.RangeResponse, linear=True)
RANGE_NEARBY = Rpc("/etcdserverpb.KV/Range", rpc.RangeRequest, rpc.RangeResponse, nearby=True)
PUT = Rpc("/etcdserverpb.KV/Put", rpc.PutRequest, rpc.PutResponse, True, True)
DELETE = Rpc(
    "/etcdserverpb.KV/DeleteRange", rpc.DeleteRangeRequest, rpc.DeleteRangeResponse, True, True
)
TXN = Rpc("/etcdserverpb.KV/Txn", rpc.TxnRequest, rpc.TxnResponse, True, True)
COMPACT = Rpc("/etcdserverpb.KV/Compact", rpc.CompactionRequest, rpc.CompactionResponse, True)
# A lease granted unheard ends by itself, a second revocation finds nothing: both may be asked again.
GRANT = Rpc("/etcdserverpb.Lease/LeaseGrant", rpc.LeaseGrantRequest, rpc.LeaseGrantResponse)
REVOKE = Rpc("/etcdserverpb.Lease/LeaseRevoke", rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse)
# A stream to etcd; a call of one message each way looks the same on the wire.
KEEP_ALIVE = Rpc(
    "/etcdserverpb.Lease/LeaseKeepAlive", rpc.LeaseKeepAliveRequest, rpc.LeaseKeepAliveResponse
)
STATUS = Rpc("/etcdserverpb.Maintenance/Status", rpc.StatusRequest, rpc.StatusResponse)
AUTHENTICATE = Rpc(
    "/etcdserverpb.Auth/Authenticate", rpc.AuthenticateRequest, rpc.AuthenticateResponse
)
UNARY: tuple[Rpc[Any, Any], ...] = (
    *(RANGE, PUT, DELETE, TXN, COMPACT, GRANT, REVOKE, KEEP_ALIVE, STATUS, AUTHENTICATE),
)
WATCH = "/etcdserverpb.Watch/Watch"

WatchCall = aio.StreamStreamCall[protobuf.Message, rpc.WatchResponse]


class Member:
    """Reached at `url`. `failed_at` is when it last let us down, on the loop's clock; 0 for never.

    `down` since then, until it does what it's asked. `foreign`: it answered for another cluster than the first
    one that answered at all.
    """

    def __init__(self, url: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.url = url
        self.failed_at = 0.0
        self.down = False
        self.foreign = False
        self.tells_progress = False
        self.version = ""
        self._retired: list[aio.Channel] = []
        self._connect(credentials)

    def _connect(self, credentials: grpc.ChannelCredentials | None) -> None:
        self._proven = False
        target = urlsplit(self.url).netloc
        self._channel = (
            aio.secure_channel(target, credentials, OPTIONS)
            if credentials
            else aio.insecure_channel(target, OPTIONS)
        )
        self._calls = {
            one.path: self._channel.unary_unary(
                one.path, one.request.SerializeToString, one.response.FromString
            )
            for one in UNARY
        }
        self._watch = self._channel.stream_stream(
            WATCH, rpc.WatchRequest.SerializeToString, rpc.WatchResponse.FromString
        )

    def renew(self, credentials: grpc.ChannelCredentials) -> None:
        """From now on by these; a watch that runs goes on over the connection that it has.

        A channel without calls does not dial again, so the old one costs a connection until the store is closed.
        """
        self._retired.append(self._channel)
        self._connect(credentials)

    @property
    def proven(self) -> bool:
        """Whether the connection that was proven still stands; another one could lead to another cluster."""
        return self._proven and self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def status(self, timeout: float) -> rpc.StatusResponse:
        """Who answers there. Raises AioRpcError."""
        return await self.ask(STATUS, rpc.StatusRequest(), (), timeout)

    def prove(self, version: str) -> None:
        """It answered, by a server of this version, and is ours: once per connection."""
        self.tells_progress, self.version = tells_progress(version), version
        self._proven, self.foreign = True, False

    def fail(self) -> None:
        self.failed_at = asyncio.get_running_loop().time()
        self._proven, self.down = False, True

    def ask(
        self, one: Rpc[Request, Response], request: Request, metadata: Metadata, timeout: float
    ) -> aio.UnaryUnaryCall[Request, Response]:
        return self._calls[one.path](request, timeout=timeout, metadata=metadata)

    def watch(self, metadata: Metadata) -> WatchCall:
        return self._watch(metadata=metadata)

    async def close(self) -> None:
        for channel in (*self._retired, self._channel):
            await channel.close()


def loses_data(version: str) -> bool:
    """Whether this release is one of those whose data can become inconsistent, or be lost, when a member is killed.

    Source: etcd's data inconsistency postmortem (3.5.0 to 3.5.2); its changelog, 3.5.3 to 3.5.6.
    """
    return (3, 5, 0) <= numbers(version) <= (3, 5, 5)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def tells_progress(version: str) -> bool:
    """Whether the answer to a progress request tells what was told: before, it could overtake events.

    Source: etcd issue 15220.
    """
    found = numbers(version)
    return any(first[:2] == found[:2] and found >= first for first in SYNCED_PROGRESS) or (
        found >= (3, 6)
    )
