"""A program of the admin's own: the letter as JSON on its standard input; what it does with it is its business."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress

import msgspec

from controller.notify.letter import Letter, NotSent
from controller.notify.settings import Command

SAID = 500  # bytes of its complaint that are told
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
)  # of our environment; the rest is not its business


class Hook:
    """Runs it once for each letter, in a process group of its own, which ends as a whole when the time is over."""

    def __init__(self, settings: Command) -> None:
        self._settings = settings

    async def send(self, letter: Letter) -> None:
        command, name = self._settings.command, self._settings.command[0]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=PIPE,
                env=_environment(letter),
                start_new_session=True,
            )
        except OSError as error:
            raise NotSent(f"{name}: {error.strerror or error}") from error
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                complaint = await _told(process, msgspec.json.encode(letter))
                status = await process.wait()
        except TimeoutError as error:
            raise NotSent(
                f"{name}: not done after {self._settings.timeout_s:g} s; ended"
            ) from error
        finally:
            await _end(process)
        if status != 0:
            said = " ".join(complaint.decode(errors="replace").split())
            raise NotSent(f"{name} ended with status {status} {said}".strip())


def _environment(letter: Letter) -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {
        **kept,
        "RELEVO_NOTICE": letter.id,
        "RELEVO_SEVERITY": letter.severity,
        "RELEVO_SUBJECT": letter.subject,
    }


async def _told(process: Process, body: bytes) -> bytes:
    """Give it the letter while it may already be complaining; the end of the complaint."""
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(_last_of(process))
        group.create_task(_write(process, body))
    return reading.result()


async def _write(process: Process, body: bytes) -> None:
    assert process.stdin is not None
    # It need not read, and a closed pipe is a RuntimeError of uvloop's.
    with suppress(ConnectionError, RuntimeError):
        process.stdin.write(body)
        await process.stdin.drain()
    process.stdin.close()


async def _last_of(process: Process) -> bytes:
    assert process.stderr is not None
    kept = b""
    while some := await process.stderr.read(4096):
        kept = (kept + some)[-SAID:]
    return kept


async def _end(process: Process) -> None:
    """Whatever it started ends with it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
