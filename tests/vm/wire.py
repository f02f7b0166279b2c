"""Questions and answers as lines of JSON over a socket: how we talk to QEMU's monitor and to the guest in a machine."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import cast

from runtime.pulse import Pulse

Message = dict[str, object]


class Gone(Exception):
    """The other end has closed the connection: the machine is off."""


class Wire(asyncio.Protocol):
    """`notices` are the messages that answer no question, oldest first, each with its instant (loop time, s)."""

    def __init__(self) -> None:
        self.notices: list[tuple[float, Message]] = []
        self._came = Pulse()
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._transport: asyncio.Transport | None = None
        self._heard: list[bytes] = []

    async def ask(self, question: Message, *, timeout_s: float) -> Message:
        """Raises Gone, TimeoutError."""
        if self._transport is None:
            raise Gone
        number = f"{next(self._numbers)}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self._transport.write(json.dumps({**question, "id": number}).encode() + b"\n")
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        finally:
            del self._waiting[number]

    async def notice(
        self, wanted: Callable[[Message], bool], *, after: int = 0, timeout_s: float
    ) -> float:
        """When the first `wanted` notice came, those before number `after` left out; waits for it. Raises Gone."""
        async with asyncio.timeout(timeout_s):
            while True:
                count = self._came.count
                for at, message in self.notices[after:]:
                    if wanted(message):
                        return at
                if self._transport is None:
                    raise Gone
                await self._came.after(count)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        *ends, rest = data.split(b"\n")
        for end in ends:
            self._take(b"".join((*self._heard, end)))
            self._heard.clear()
        self._heard.append(rest)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._came.beat()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Gone())

    def _take(self, line: bytes) -> None:
        message = json.loads(line)
        if "id" not in message:
            self.notices.append((asyncio.get_running_loop().time(), message))
            self._came.beat()
        elif (answer := self._waiting.get(message["id"])) and not answer.done():
            answer.set_result(message)


@asynccontextmanager
async def wire(own: socket.socket) -> AsyncGenerator[Wire, None]:
    """A wire over one end of a socket pair."""
    transport, connected = await asyncio.get_running_loop().create_connection(Wire, sock=own)
    try:
        yield connected
    finally:
        transport.close()
