"""One visitor's request and one resolver's question, as the public would send them."""

import asyncio
from dataclasses import dataclass
from typing import cast

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
from dns.rdatatype import RdataType

from deploy.demo.lab import Door

ANSWER_LIMIT_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Answer:
    """`site` and `host` are what the body names; empty where it names none."""

    status: int
    site: str = ""
    host: str = ""

    def is_from(self, site: str) -> bool:
        return self.status == 200 and self.site == site


class NoAnswer(Exception):
    """Nothing, or nothing complete, came back; the message is one word."""


class _Exchange(asyncio.Protocol):
    """Sends one request and collects what comes until the server closes."""

    def __init__(self, request: bytes) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._request, self._received = request, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio's by class, only by what they do.
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if len(self._received) < ANSWER_LIMIT_BYTES:
            self._received += data

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer.done():
            return
        if exc is None:
            self.answer.set_result(bytes(self._received))
        else:
            self.answer.set_exception(NoAnswer("reset"))


async def visit(door: Door, domain: str, *, until: float) -> Answer:
    """GET / of `domain` at `door`, on a connection of its own, by `until` (loop time). Raises NoAnswer."""
    request = (
        f"GET / HTTP/1.1\r\nHost: {domain}\r\nUser-Agent: visitor\r\nConnection: close\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    transport: asyncio.BaseTransport | None = None
    try:
        async with asyncio.timeout_at(until):
            transport, exchange = await loop.create_connection(
                lambda: _Exchange(request), door.address, door.port
            )
            return _read(await exchange.answer)
    except TimeoutError:
        raise NoAnswer("timeout") from None
    except ConnectionRefusedError:
        raise NoAnswer("refused") from None
    except OSError as error:
        raise NoAnswer(error.strerror or type(error).__name__) from error
    finally:
        if transport:
            transport.close()


def _read(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    parts = head.split(b" ", 2)
    if len(parts) < 3 or not parts[1].isdigit():
        raise NoAnswer("empty")
    named = dict(
        word.split("=", 1) for word in body.decode(errors="replace").split() if "=" in word
    )
    return Answer(int(parts[1]), named.get("site", ""), named.get("host", ""))


async def resolve(server: Door, name: str, kind: RdataType, *, timeout_s: float) -> frozenset[str]:
    """The addresses that `server` has for `name`: A or AAAA. Raises NoAnswer."""
    question = dns.message.make_query(name, kind)
    try:
        answer = await dns.asyncquery.udp(
            question, server.address, timeout=timeout_s, port=server.port
        )
    except (OSError, dns.exception.DNSException) as error:
        raise NoAnswer(type(error).__name__) from error
    return frozenset(
        rdata.address
        for rrset in answer.answer
        for rdata in rrset
        if isinstance(rdata, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA)
    )
