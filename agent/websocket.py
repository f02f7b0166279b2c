"""The link's wire: an aiohttp WebSocket to a controller. Source: RFC 6455."""

import asyncio
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
from aiohttp import ClientWSTimeout, WSMsgType

from agent.ports import Connection, DriverError
from fleet.messages import ORDERS_LIMIT_BYTES
from fleet.model import ControllerId, HostId
from runtime import log
from runtime.certificates import stamp
from runtime.config import BadConfig

# The latter where others at this address were refused too often: a right credential is let in all the same.
NOT_THIS_ONE = (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
CLOSE_S = 0.5  # for the other end's farewell; beyond that the line is cut

_log = log.logger("dial")


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


class Trust:
    """How the controllers' certificates are verified: by `ca` or the system's; a new `ca` counts from the next dial.

    Raises BadConfig, also for a token that would travel in the clear.
    """

    def __init__(self, controllers: Mapping[str, str], ca: Path | None) -> None:
        for id, url in controllers.items():
            parts = urlsplit(url)
            if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
                raise BadConfig(
                    f"controllers.{id} = {url}: this host's token would travel in the clear; use https://"
                )
        self._ca = ca
        self._stamp = stamp(ca) if ca else None
        self._tls = _verifying(ca) if ca else True

    def tls(self) -> ssl.SSLContext | bool:
        """For the next connection."""
        if self._ca is not None and (now := stamp(self._ca)) != self._stamp:
            self._stamp = now
            try:
                self._tls = _verifying(self._ca)
                _log.info("another CA is trusted from now on", ca=str(self._ca))
            except BadConfig as error:
                _log.warning("the new CA can't be used; the old one stays", error=str(error))
        return self._tls

    @property
    def ends_at(self) -> float | None:
        """When the CA's certificate ends (Unix s); None where it is the system's business."""
        if not isinstance(self._tls, ssl.SSLContext):
            return None
        ends = [str(ca["notAfter"]) for ca in self._tls.get_ca_certs()]
        return min(map(ssl.cert_time_to_seconds, ends), default=None)


def _verifying(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise BadConfig(f"ca = {ca}: {error.strerror or error}") from error


class Logins(Protocol):
    """What this host may log in by."""

    def candidates(self) -> tuple[str, ...]:
        """The likeliest first."""
        ...

    def took(self, candidate: str) -> None:
        """A controller has accepted it."""
        ...


class Dialler:
    """Opens links, by the first of this host's credentials that is accepted."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        host: HostId,
        controllers: Mapping[ControllerId, str],
        credentials: Logins,
        trust: Trust,
    ) -> None:
        self._session, self._credentials, self._trust = session, credentials, trust
        self._host = host
        self._urls = {id: f"{url}/v1/link/{host}" for id, url in controllers.items()}

    async def dial(self, controller: ControllerId) -> Connection:
        url = self._urls[controller]
        for candidate in self._credentials.candidates():
            try:
                socket = await self._session.ws_connect(
                    url,
                    headers={"Authorization": f"Bearer {candidate}"},
                    ssl=self._trust.tls(),
                    autoping=False,  # and no heartbeat: our beats are one
                    compress=0,
                    max_msg_size=ORDERS_LIMIT_BYTES,
                    timeout=ClientWSTimeout(ws_close=CLOSE_S),
                )
            except aiohttp.WSServerHandshakeError as error:
                if error.status in NOT_THIS_ONE:
                    continue
                raise DriverError(f"{url}: HTTP {error.status} {error.message}") from error
            except (OSError, aiohttp.ClientError) as error:
                raise DriverError(f"{url}: {error}") from error
            self._credentials.took(candidate)
            return WebSocket(socket)
        raise DriverError(
            f"{url}: this host's credential is not accepted, or no longer; "
            f"to let it in anew: relevo host token {self._host}"
        )


def is_loopback(address: str) -> bool:
    """Whether `address`, a literal or "localhost", never leaves this machine."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
