"""Connections with an end: whoever sends or reads too slowly is cut off, and holds nobody else up."""

import asyncio
import resource
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Never, cast

from aiohttp import web

from controller.api.auth import Handler
from controller.api.heads import reading

FILES_KEPT = 256  # descriptors for the store, the log and what this controller asks itself
HANDSHAKE_S = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """`most` connections at once: twice the agents that a fleet is measured for.

    `head_s`: a request's head has come by then. `unsent_s`: by then a reader has taken what was sent, at least once.
    """

    most: int = 4096
    head_s: float = 10.0
    unsent_s: float = 60.0
    look_s: float = 1.0


@dataclass(slots=True)
class Seen:
    """What is known of a connection. `began`: when a request, or the connection, began whose head has not come yet."""

    began: float | None
    asking: bool = False
    unsent_since: float | None = None


def overstays(seen: Seen, patience: Patience, now: float) -> bool:
    """Whether it is time to cut this connection off."""
    if seen.unsent_since is not None and now - seen.unsent_since > patience.unsent_s:
        return True
    return not seen.asking and seen.began is not None and now - seen.began > patience.head_s


class Hall:
    """All connections of one listener. `refused` counts those that were cut off or not let in, by reason."""

    def __init__(self, refused: Callable[[str], None], patience: Patience | None = None) -> None:
        self.patience, self._refused = patience or Patience(), refused
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(self.patience.most, max(64, files - FILES_KEPT))
        self._inside: dict[asyncio.Transport, Seen] = {}

    def enters(self, transport: asyncio.Transport, now: float) -> bool:
        """Whether there is room. Where there is none, whoever has asked for nothing yet gives way, oldest first."""
        if len(self._inside) >= self._most and not self._make_room():
            self._refused("connections")
            return False
        self._inside[transport] = Seen(began=now)
        return True

    def _make_room(self) -> bool:
        for transport, seen in self._inside.items():
            if not seen.asking:
                self._refused("connections")
                self._cut(transport)
                return True
        return False

    def sends(self, transport: asyncio.Transport, now: float) -> None:
        """Bytes came."""
        seen = self._inside.get(transport)
        if seen is not None and seen.began is None and not seen.asking:
            seen.began = now

    def leaves(self, transport: asyncio.Transport) -> None:
        self._inside.pop(transport, None)

    @web.middleware
    async def attended(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Outermost: from here to its answer a request has its head, and limits of its own."""
        transport = request.transport
        seen = self._inside.get(transport) if transport is not None else None
        if seen is None:
            return await handler(request)
        seen.began, seen.asking = None, True
        try:
            return await handler(request)
        finally:
            seen.asking = False

    async def watch(self) -> Never:
        """Eternal: look at every connection, again and again."""
        while True:
            await asyncio.sleep(self.patience.look_s)
            now = asyncio.get_running_loop().time()
            for transport, seen in list(self._inside.items()):
                self._look(transport, seen, now)

    def _look(self, transport: asyncio.Transport, seen: Seen, now: float) -> None:
        if not transport.get_write_buffer_size():
            seen.unsent_since = None
        elif seen.unsent_since is None:
            seen.unsent_since = now
        if overstays(seen, self.patience, now):
            self._refused("slow")
            self._cut(transport)

    def _cut(self, transport: asyncio.Transport) -> None:
        self.leaves(transport)
        transport.abort()


class Guarded(asyncio.Protocol):
    """aiohttp's protocol, with a doorkeeper who sees every byte come and cuts nothing out."""

    def __init__(self, inner: asyncio.Protocol, hall: Hall) -> None:
        self._inner, self._hall = inner, hall
        self._transport: asyncio.Transport | None = None
        self._now = asyncio.get_running_loop().time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = cast(asyncio.Transport, transport)  # what a server's protocol is given
        if not self._hall.enters(connection, self._now()):
            connection.abort()
            return
        self._transport = connection
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._hall.sends(self._transport, self._now())
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._hall.leaves(self._transport)
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()


@asynccontextmanager
async def doors(
    runner: web.BaseRunner, hall: Hall, address: str, port: int, tls: ssl.SSLContext | None
) -> AsyncGenerator[int, None]:
    """`runner` served through `hall` while the body lasts; gives the port. Raises OSError where it can't listen."""
    serve = runner.server
    assert serve is not None, "the runner was set up"
    server = await asyncio.get_running_loop().create_server(
        lambda: Guarded(reading(serve), hall),
        address,
        port,
        ssl=tls,
        backlog=1024,
        ssl_handshake_timeout=HANDSHAKE_S if tls else None,
    )
    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(hall.watch(), name="connections")
            yield int(server.sockets[0].getsockname()[1])
            watching.cancel()
    finally:
        server.close()
