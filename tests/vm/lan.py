"""A network for virtual machines alone: a switch in the test, without an address of the machine that runs it."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

HEAD_BYTES = 4  # QEMU's stream: each frame after its length. Source: net/socket.c of QEMU
QUEUE_BYTES = (
    4 << 20
)  # towards a port whose machine does not read; what is more is lost, as in any switch


class Lan:
    """Every frame goes to all other ports; the few machines of a test need no more."""

    def __init__(self) -> None:
        self._ports: dict[str, Port] = {}
        self._cut: set[str] = set()

    def cut(self, name: str) -> None:
        """Pull the cable of the machine `name`. Idempotent."""
        self._cut.add(name)

    def mend(self, name: str) -> None:
        self._cut.discard(name)

    @asynccontextmanager
    async def port(self, name: str, own: socket.socket) -> AsyncGenerator[None, None]:
        """The machine `name` has the other end of `own`."""
        loop = asyncio.get_running_loop()
        transport, port = await loop.create_connection(lambda: Port(self, name), sock=own)
        self._ports[name] = port
        try:
            yield
        finally:
            del self._ports[name]
            transport.close()

    def spread(self, origin: str, frame: bytes) -> None:
        """A frame, with its head, from the machine `origin`."""
        if origin not in self._cut:
            for name, port in self._ports.items():
                if name != origin and name not in self._cut:
                    port.send(frame)


class Port(asyncio.Protocol):
    """One cable: cuts the stream into frames."""

    def __init__(self, lan: Lan, name: str) -> None:
        self._lan, self._name = lan, name
        self._heard = bytearray()
        self._transport: asyncio.Transport | None = None

    def send(self, frame: bytes) -> None:
        if self._transport and self._transport.get_write_buffer_size() < QUEUE_BYTES:
            self._transport.write(frame)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its class

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while len(self._heard) >= HEAD_BYTES:
            end = HEAD_BYTES + int.from_bytes(self._heard[:HEAD_BYTES])
            if len(self._heard) < end:
                return
            self._lan.spread(self._name, bytes(self._heard[:end]))
            del self._heard[:end]
