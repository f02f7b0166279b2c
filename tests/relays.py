"""A TCP relay before a server, which can refuse, hang or lose answers, and be mended again."""

import asyncio
from contextlib import suppress

HOST = "127.0.0.1"
CHUNK = 1 << 16


class Relay:
    """Listens on `port` and forwards to `to`."""

    def __init__(self, port: int, to: int) -> None:
        self.port, self.to = port, to
        self._flows = asyncio.Event()
        self._flows.set()
        self._refused: tuple[bytes, ...] = ()
        self._loses_answers = False
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, bytes] = {}

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, self.port)

    async def close(self) -> None:
        self.mend()
        self.refuse(b"")
        if self._server:
            self._server.close()
            await asyncio.sleep(0)  # the connections' handlers see their end

    def refuse(self, *parts: bytes) -> None:
        """End, and let no more begin, the connections whose first bytes have one of `parts` in them."""
        self._refused = parts
        for writer, opening in tuple(self._open.items()):
            if self._is_refused(opening):
                writer.transport.abort()

    def hang(self) -> None:
        """Connections stay, are accepted, and carry nothing."""
        self._flows.clear()

    def lose_answers(self) -> None:
        """What is asked still arrives; at the first byte of an answer the connection breaks."""
        self._loses_answers = True

    def mend(self) -> None:
        self._flows.set()
        self._refused = ()
        self._loses_answers = False

    def _is_refused(self, opening: bytes) -> bool:
        return any(part in opening for part in self._refused)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            try:
                await self._flows.wait()
                opening = await reader.read(CHUNK)
                self._open[writer] = opening
                if opening and not self._is_refused(opening):
                    await self._connect(opening, reader, writer)
            finally:
                self._open.pop(writer, None)
                writer.transport.abort()

    async def _connect(
        self, opening: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, self.to)
        far_writer.write(opening)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass(reader, writer, far_writer, answers=False))
            group.create_task(self._pass(far_reader, far_writer, writer, answers=True))

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        own: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        *,
        answers: bool,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                if answers and self._loses_answers:
                    break
                other.write(data)
                await other.drain()
        own.transport.abort()
        other.transport.abort()
