"""The life of a daemon: named services in one task group; if one ends, the daemon ends and systemd restarts it."""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import uvloop

from runtime import log
from runtime.config import BadConfig

_log = log.logger("runtime")
STUCK_S = 5.0  # no round of a daemon takes this long
# A full collection walks all that a daemon remembers: 70 ms on a controller with 1,000 sites, twice a second by
# Python's own thresholds while 300 agents beat. Cycles die young; with these one comes about once in a minute. Those of
# the young hold every thread up as well, whichever one they fall to: 200,000 objects at once made an agent's loop late
# by 26 ms, 10,000 by 6.
GARBAGE = (2_000, 4, 1_000)
# How long a thread may keep Python's lock from another. The loop waits for it after each call that lets it go: with
# Python's own 5 ms two or three of them in a row made it late by 17 ms while a thread looked at a thousand slices.
SWITCH_S = 0.0005


class TaskEnded(Exception):
    """A service that should never end has ended."""


async def serve(
    *,
    ready: Coroutine[Any, Any, Any] | None = None,
    on_stop: Callable[[], Awaitable[None]] | None = None,
    **services: Coroutine[Any, Any, Any],
) -> None:
    """Run named services until SIGTERM or SIGINT; fail as a whole if any of them ends.

    systemd is told READY when `ready` is over; without it, once all have begun. `on_stop` runs first when a
    signal asks to end: the last words, while all services still live.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_forever(n, s), name=n) for n, s in services.items()]
        tasks.append(group.create_task(_announce(ready), name="ready"))
        await stop.wait()
        notify("STOPPING=1")
        if on_stop:
            await on_stop()
        for task in tasks:
            task.cancel()


async def _forever(name: str, service: Coroutine[Any, Any, Any]) -> None:
    await service
    raise TaskEnded(name)


async def _announce(ready: Coroutine[Any, Any, Any] | None) -> None:
    if ready is not None:
        await ready
    notify("READY=1")


def end_if_cancelled() -> None:
    """Raise CancelledError if the current task was asked to end. Call it after catching what a TaskGroup raised.

    Before Python 3.13 a group whose child fails in the same moment forgets that its own task was cancelled. The
    group's body must outlive its start (await one of the parts in it): otherwise the group miscounts, and this
    would see a request that nobody made.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def notify(state: str) -> None:
    """Tell systemd, where there is one; lost where it does not read just now. Source: sd_notify(3)."""
    if not (path := os.environ.get("NOTIFY_SOCKET")):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)  # a loop must not hang because systemd does
        out.sendto(state.encode(), address)


class Watchdog:
    """Pets systemd's watchdog as rounds finish, each quarter of its period, and only while every named round is recent.

    A round that hangs stops the petting even if others go on: a daemon that does half its work is stuck.
    """

    def __init__(self, *rounds: str) -> None:
        self._done: dict[str, float] = dict.fromkeys(rounds, float("-inf"))
        period_us = int(os.environ.get("WATCHDOG_USEC", "0"))
        self._period_s = period_us / 1e6
        self._petted = float("-inf")

    def age_s(self, name: str) -> float:
        """Since the round `name` was last completed; infinite before the first."""
        return asyncio.get_running_loop().time() - self._done[name]

    def finished(self, name: str) -> None:
        """The round `name` has just been completed."""
        now = asyncio.get_running_loop().time()
        self._done[name] = now
        due = self._period_s and now - self._petted >= self._period_s / 4
        if due and all(now - at < self._period_s for at in self._done.values()):
            self._petted = now
            notify("WATCHDOG=1")


def tune() -> None:
    """Set the interpreter for a loop that must not be late."""
    gc.set_threshold(*GARBAGE)
    sys.setswitchinterval(SWITCH_S)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a daemon's main coroutine on uvloop. What ends a service is logged and ends it with status 1.

    A configuration that turns out to be unusable is one readable line, and status 2.
    """
    tune()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except* BadConfig as group:
        for unusable in group.exceptions:
            print(f"relevo: {unusable}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        raise SystemExit(2) from None
    except* Exception as group:  # noqa: BLE001 - the outermost: log, then die
        for error in group.exceptions:
            _log.critical("service ended", error=repr(error), exc_info=error)
        raise SystemExit(1) from None
