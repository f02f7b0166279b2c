"""This host's own credential: kept in files, and changed when controllers ask, so that no crash shuts the host out.

The agent makes the secret itself and tells its digest only. It is on disk before a controller hears of it, and its
predecessor stays: a store that was restored from an older copy knows that one.
"""

import asyncio
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Never

import aiohttp
import msgspec

from agent.ports import DriverError
from agent.websocket import Trust
from fleet.access import NewCredential, digest
from fleet.model import ControllerId, HostId
from runtime import log
from runtime.config import secret

SECRET_BYTES = 32
ANSWER_S = 10.0  # a commit of a store with a slow disk
AGAIN_S = 10.0  # controllers go on asking
ANSWER_BYTES = 64 << 10

_log = log.logger("credential")


class Credentials:
    """The file `path`, and beside it `.next`, perhaps accepted already, and `.previous`. Raises BadConfig."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next, self._previous = _next(path), _previous(path)
        self._current = secret(path)
        self._others = tuple(
            secret(other) for other in (self._next, self._previous) if other.exists()
        )
        self._took = self._current

    @property
    def begun(self) -> bool:
        """Whether there is a next one, of which controllers may have heard."""
        return self._next.exists()

    def candidates(self) -> tuple[str, ...]:
        """What to log in by, the likeliest first."""
        return tuple(dict.fromkeys((self._took, self._current, *self._others)))

    def took(self, candidate: str) -> None:
        """A controller has accepted it."""
        self._took = candidate

    def make(self) -> str:
        """The next secret, on disk from now on; the same again until it is in force. Raises DriverError."""
        try:
            made = make(self._path)
        except OSError as error:
            raise DriverError(
                f"can't write {self._next}: {error.strerror}; let agent.toml's `token` be where the agent may write"
            ) from error
        self._others = tuple(dict.fromkeys((made, *self._others)))
        return made

    def settle(self, made: str) -> None:
        """`made` is in force. Raises DriverError."""
        try:
            put_in_force(self._path)
        except OSError as error:
            raise DriverError(f"can't write {self._path}: {error.strerror}") from error
        self._others = (self._current,)
        self._current = self._took = made


def _next(path: Path) -> Path:
    return path.with_name(f"{path.name}.next")


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")


def make(path: Path) -> str:
    """The secret that will follow the one in `path`; the same again until it is in force. Raises OSError, BadConfig."""
    following = _next(path)
    if not following.exists():
        write_secret(following, secrets.token_urlsafe(SECRET_BYTES))
    return secret(following)


def put_in_force(path: Path) -> None:
    """What `make` made is the secret in `path` from now on. Raises OSError."""
    if path.exists():
        write_secret(_previous(path), secret(path))
    _next(path).replace(path)
    _sync(path.parent)


def write_secret(path: Path, text: str) -> None:
    """Whole or not at all, on the disk, and readable by its owner alone. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        fresh.unlink()
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class Change:
    """Changes the credential when a controller asks, with each acknowledgement, until it is done."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        host: HostId,
        controllers: Mapping[ControllerId, str],
        credentials: Credentials,
        trust: Trust,
    ) -> None:
        self._session, self._credentials, self._trust = session, credentials, trust
        self._urls = [f"{url}/v1/hosts/{host}/credential" for url in controllers.values()]
        self._asked = asyncio.Event()

    def ask(self) -> None:
        self._asked.set()

    async def keep(self) -> Never:
        """Eternal: wait to be asked, do it, rest before it is done again. What a crash left half done comes first."""
        if self._credentials.begun:
            self._asked.set()
        while True:
            await self._asked.wait()
            try:
                await self.once()
            except DriverError as error:
                _log.warning("can't change this host's credential", error=str(error))
            await asyncio.sleep(AGAIN_S)  # those who have not heard of it go on asking for a moment
            self._asked.clear()

    async def once(self) -> None:
        """Make a secret, have it accepted, keep it. Every step can be repeated. Raises DriverError."""
        credentials = self._credentials
        made = await asyncio.to_thread(credentials.make)  # a busy disk must not make a beat late
        failures = []
        for url, candidate in self._ways():
            status, said = await self._offer(url, candidate, digest(made))
            if status == 200:
                await asyncio.to_thread(credentials.settle, made)
                _log.info("this host's credential was changed")
                return
            failures.append(f"{url}: {said}")
        raise DriverError("; ".join(dict.fromkeys(failures)))

    def _ways(self) -> Iterator[tuple[str, str]]:
        return (
            (url, candidate) for url in self._urls for candidate in self._credentials.candidates()
        )

    async def _offer(self, url: str, candidate: str, offered: str) -> tuple[int, str]:
        """The status (0: none came), and what was said."""
        body = msgspec.json.encode(NewCredential(digest=offered))
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._session.put(
                    url,
                    data=body,
                    headers={"Authorization": f"Bearer {candidate}"},
                    ssl=self._trust.tls(),
                    allow_redirects=False,
                ) as response,
            ):
                text = await response.content.read(ANSWER_BYTES)
                return response.status, f"HTTP {response.status} {_detail(text)}".strip()
        except (OSError, aiohttp.ClientError) as error:
            return 0, str(error) or type(error).__name__


class _Problem(msgspec.Struct):
    detail: str = ""
    remedy: str = ""


def _detail(text: bytes) -> str:
    try:
        return msgspec.json.decode(text, type=_Problem).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
