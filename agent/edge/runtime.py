"""HAProxy's sockets: its runtime API, and its master process. Every call is bounded in time and in size.

Source: HAProxy Management Guide §9.3 (Unix Socket commands), §9.4 (Master CLI).
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from agent.edge.render import LAST, SERVER
from agent.edge.view import (
    STAT_BEGINS,
    Info,
    Stat,
    Unreadable,
    read_entries,
    read_info,
    read_refused,
    read_stat,
)
from agent.ports import DriverError

# 20,000 domains are 1.5 MB of `show map`.
ANSWER_LIMIT_BYTES = 16 << 20
# A command and its payload must fit one buffer of HAProxy (tune.bufsize, 16 kB by default).
PAYLOAD_BYTES = 8_000
READ_BYTES = 1 << 16


class Unreached(DriverError):
    """Nobody listens there: nothing was begun, and asking again soon costs nothing."""


class Socket:
    """One command per connection, so that a late answer can never be taken for the next one's."""

    def __init__(self, path: Path, *, limit_bytes: int = ANSWER_LIMIT_BYTES) -> None:
        self._path, self._limit_bytes = path, limit_bytes

    async def ask(self, command: str, *, timeout_s: float) -> str:
        """HAProxy's answer, whole. Raises DriverError."""
        said = command.partition("\n")[0]
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._exchange(command)
        except TimeoutError as error:
            raise DriverError(
                f"haproxy at {self._path}: no whole answer to `{said}` within {timeout_s:g} s"
            ) from error
        except OSError as error:
            raise Unreached(
                f"haproxy at {self._path}: `{said}`: {error.strerror or repr(error)}"
            ) from error
        return answer.decode(errors="replace")

    async def _exchange(self, command: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path, limit=READ_BYTES)
        chunks, size = [], 0
        with closing(writer):
            writer.write(f"{command}\n".encode())
            await writer.drain()
            while chunk := await reader.read(READ_BYTES):
                chunks.append(chunk)
                if (size := size + len(chunk)) > self._limit_bytes:
                    raise DriverError(
                        f"haproxy at {self._path}: more than {self._limit_bytes} bytes of answer"
                    )
        return b"".join(chunks)


class Runtime:
    """The runtime API of the worker that serves now. Everything raises DriverError."""

    def __init__(self, path: Path, map_path: Path, *, timeout_s: float = 2.0) -> None:
        self._socket, self._map, self._timeout_s = Socket(path), map_path, timeout_s

    async def info(self) -> Info:
        answer = await self._ask("show info")
        try:
            return read_info(answer)
        except Unreadable as error:
            raise DriverError(f"haproxy: {error}") from error

    async def stat(self, *, timeout_s: float | None = None) -> Stat:
        """All servers' health: one short command, for a caller in a hurry."""
        # -1: of every proxy; 5: frontends (1) and servers (4); -1: every one.
        answer = await self._ask("show stat -1 5 -1", timeout_s)
        try:
            return read_stat(answer)
        except Unreadable as error:
            raise DriverError(f"haproxy: {error}") from error

    async def dump(self) -> str | None:
        """`show map PATH`, raw: equal text means equal entries. None: this HAProxy has no map of ours."""
        return _dump(await self._ask(f"show map {self._map}"))

    async def whole(self) -> tuple[Info, str | None, Stat]:
        """Who answers, `dump` and `stat` over one connection: while a worker takes over, two listen on the socket."""
        answer = await self._ask(f"show info;show map {self._map};show stat -1 5 -1")
        info, _, rest = answer.partition("\n\n")
        dump, begins, stat = rest.partition(STAT_BEGINS)
        try:
            return read_info(info), _dump(dump), read_stat(f"{begins}{stat}")
        except Unreadable as error:
            raise DriverError(f"haproxy: {error}") from error

    async def servers_state(self) -> str:
        """What a server-state-file holds. Source: HAProxy Management Guide, `show servers state`."""
        answer = await self._ask("show servers state")
        if not answer.startswith("1\n"):
            raise DriverError(f"haproxy: server state expected, not {answer[:120]!a}")
        return answer

    async def refused(self) -> dict[str, tuple[int, ...]]:
        """How often each site was refused since the worker's start or an hour of rest, by `gate.REASONS`."""
        answer = await self._ask("show table relevo:refused")
        try:
            return read_refused(answer)
        except Unreadable as error:
            raise DriverError(f"haproxy: {error}") from error

    async def replace_map(self, entries: Mapping[str, str]) -> None:
        """Make the map `entries` by one atomic commit, and read it back.

        Names must be free of white space. A failure leaves the map as it was, unless reading back fails.
        """
        answer = await self._ask(f"prepare map {self._map}")
        _, found, number = answer.strip().partition("New version created: ")
        if not found or not number.isdigit():
            raise DriverError(f"haproxy refused `prepare map`: {answer.strip()[:200]!a}")
        for payload in _payloads(entries):
            await self._order(f"add map @{number} {self._map} <<\n{payload}")
        await self._order(f"commit map @{number} {self._map}")
        if (has := entries_of(await self.dump() or "")) != entries:
            wrong = sum(has.get(key) != value for key, value in entries.items())
            raise DriverError(
                f"haproxy's map is not what was committed: {len(has)} entries of {len(entries)}, {wrong} differ"
            )

    async def end_sessions(self, host: str) -> None:
        """End what still waits for a host's answer. Source: HAProxy Management Guide, `shutdown sessions server`."""
        for server in (SERVER, LAST):
            await self._order(f"shutdown sessions server {host}/{server}")

    async def _order(self, command: str) -> None:
        if answer := (await self._ask(command)).strip():
            said = command.partition("\n")[0]
            raise DriverError(f"haproxy refused `{said}`: {answer[:200]!a}")

    async def _ask(self, command: str, timeout_s: float | None = None) -> str:
        return await self._socket.ask(command, timeout_s=timeout_s or self._timeout_s)


class Master:
    """The master process, which replaces workers without closing a listener. Everything raises DriverError."""

    def __init__(self, path: Path, *, timeout_s: float = 10.0) -> None:
        self._socket, self._timeout_s = Socket(path), timeout_s

    async def reload(self) -> None:
        """Start a new worker on the configuration file.

        HAProxy 2.6 answers nothing and may close early: whether the new worker came is seen on the runtime
        socket. From 2.7 on it answers when the worker is there, with its messages.
        """
        answer = await self._socket.ask("reload", timeout_s=self._timeout_s)
        if answer.startswith("Success=0") or answer.startswith("Unknown command"):
            raise DriverError(f"haproxy refused to reload: {answer.strip()[:400]!a}")


def _dump(answer: str) -> str | None:
    text = answer.strip("\n")
    return None if text.startswith("Unknown map") else text


def entries_of(dump: str) -> dict[str, str]:
    """The entries of `Runtime.dump`. Raises DriverError."""
    try:
        return read_entries(dump)
    except Unreadable as error:
        raise DriverError(f"haproxy: {error}") from error


def _payloads(entries: Mapping[str, str]) -> Iterator[str]:
    """Lines of `key value`, in pieces that fit HAProxy's buffer; an empty line ends each."""
    for lines in _chunks(f"{key} {value}\n" for key, value in entries.items()):
        yield "".join(lines)


def _chunks(lines: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for line in lines:
        if chunk and size + len(line) > PAYLOAD_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += len(line)
    if chunk:
        yield chunk
