"""The agents' wire: a WebSocket that aiohttp accepted, as the Connection that the link serves. Source: RFC 6455."""

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp import WSCloseCode, WSMsgType, web

from controller.ports import ConnectionLost
from fleet.messages import BEAT_LIMIT_BYTES

CLOSE_S = 0.2  # for a farewell; a newer link of the same host waits for it
PING_LIMIT_BYTES = 125  # RFC 6455 §5.5


class Socket:
    """A Connection over one WebSocket. `garbled` is told when a frame can't be read at all."""

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse[bool],
        garbled: Callable[[], None],
    ) -> None:
        self._request, self._socket, self._garbled = request, socket, garbled

    async def send(self, frame: bytes) -> None:
        try:
            await self._socket.send_bytes(frame)
        except (OSError, RuntimeError, aiohttp.ClientError) as error:  # RuntimeError: closing
            raise ConnectionLost(f"can't send: {error!r}") from error

    async def receive(self) -> bytes:
        while (message := await self._socket.receive()).type in (WSMsgType.PING, WSMsgType.PONG):
            if message.type is WSMsgType.PING:
                await self._pong(bytes(message.data))
            await asyncio.sleep(0)  # a flood of pings keeps nobody else waiting
        match message.type:
            case WSMsgType.BINARY:
                return bytes(message.data)
            case WSMsgType.TEXT:
                return str(message.data).encode()
            case WSMsgType.ERROR:
                return self._unreadable()
        raise ConnectionLost(f"closed by the agent: code {self._socket.close_code}")

    def _unreadable(self) -> bytes:
        error = self._socket.exception()
        code = error.code if isinstance(error, aiohttp.WebSocketError) else None
        if code is not None:
            self._garbled()
        if code == WSCloseCode.MESSAGE_TOO_BIG:
            raise ConnectionLost(f"a frame of more than {BEAT_LIMIT_BYTES:,} bytes")
        raise ConnectionLost(f"unreadable: {error!r}")

    async def _pong(self, data: bytes) -> None:
        try:
            await self._socket.pong(data[:PING_LIMIT_BYTES])
        except (OSError, RuntimeError, aiohttp.ClientError) as error:
            raise ConnectionLost(f"can't send: {error!r}") from error

    async def close(self) -> None:
        """Say farewell; an end that does not answer is cut off. Idempotent."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close()
        except (TimeoutError, OSError, RuntimeError, aiohttp.ClientError):
            if (transport := self._request.transport) is not None:
                transport.abort()


async def accept(
    request: web.Request, garbled: Callable[[], None]
) -> tuple[Socket, web.WebSocketResponse[bool]]:
    """Take up the request as a WebSocket of beats. Raises web.HTTPException where it is none, or gone."""
    socket: web.WebSocketResponse[bool] = web.WebSocketResponse(
        timeout=2 * CLOSE_S,
        autoping=False,  # answered in `receive`
        compress=False,  # acknowledgements are small, and orders rare
        max_msg_size=BEAT_LIMIT_BYTES,
    )
    try:
        await socket.prepare(request)
    except (ConnectionError, aiohttp.ClientConnectionError) as error:
        # The agent left meanwhile, and will dial again: nobody reads this answer.
        raise web.HTTPBadRequest(text="gone during the handshake") from error
    return Socket(request, socket, garbled), socket
