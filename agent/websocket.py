"""The link's wire: an aiohttp WebSocket to a controller. Source: RFC 6455."""

import asyncio
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import ClientWSTimeout, WSMsgType

from agent.ports import Connection, DriverError
from fleet.messages import ORDERS_LIMIT_BYTES
from fleet.model import ControllerId, HostId
from runtime.config import BadConfig

CLOSE_S = 0.5  # for the other end's farewell; beyond that the line is cut


class WebSocket:
    """A Connection over one WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[bool]) -> None:
        self._socket = socket

    async def send(self, frame: bytes) -> None:
        try:
            await self._socket.send_bytes(frame)
        except (OSError, aiohttp.ClientError) as error:
            raise DriverError(f"can't send: {error!r}") from error

    async def receive(self) -> bytes:
        while (message := await self._socket.receive()).type is WSMsgType.PING:
            await self._socket.pong(message.data)
            await asyncio.sleep(0)  # a flood of pings keeps nobody else waiting
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is WSMsgType.TEXT:
            return str(message.data).encode()
        code, error = self._socket.close_code, self._socket.exception() or message.data
        raise DriverError(f"closed by the controller: code {code}, {error!r}")

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._socket.close()
        except TimeoutError:
            return  # aiohttp has cut the line


class Dialler:
    """Opens links. `credential` is this host's own token; certificates are verified with `ca` or the system's."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        host: HostId,
        controllers: Mapping[ControllerId, str],
        credential: str,
        tls: ssl.SSLContext | bool,
    ) -> None:
        self._session, self._tls = session, tls
        self._urls = {id: f"{url}/v1/link/{host}" for id, url in controllers.items()}
        self._headers = {"Authorization": f"Bearer {credential}"}

    async def dial(self, controller: ControllerId) -> Connection:
        url = self._urls[controller]
        try:
            socket = await self._session.ws_connect(
                url,
                headers=self._headers,
                ssl=self._tls,
                autoping=False,  # and no heartbeat: our beats are one
                compress=0,
                max_msg_size=ORDERS_LIMIT_BYTES,
                timeout=ClientWSTimeout(ws_close=CLOSE_S),
            )
        except aiohttp.WSServerHandshakeError as error:
            raise DriverError(f"{url}: HTTP {error.status} {error.message}") from error
        except (OSError, aiohttp.ClientError) as error:
            raise DriverError(f"{url}: {error}") from error
        return WebSocket(socket)


def trust(controllers: Mapping[str, str], ca: Path | None) -> ssl.SSLContext | bool:
    """How to verify the controllers. Raises BadConfig, also for a token that would travel in the clear."""
    for id, url in controllers.items():
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise BadConfig(
                f"controllers.{id} = {url}: this host's token would travel in the clear; use https://"
            )
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise BadConfig(f"ca = {ca}: {error.strerror or error}") from error


def is_loopback(address: str) -> bool:
    """Whether `address`, a literal or "localhost", never leaves this machine."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
