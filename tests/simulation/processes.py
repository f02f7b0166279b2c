"""Processes of the simulation: a process is every task that descends from one, and can be frozen or killed as a whole.

Frozen tasks take no step; timers go on, as a stopped process' do: what has expired meanwhile is found at the thaw.
"""

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import Any

STALL_S = 1.3  # a stop this long is surely noticed: stall_s and a round of the loop
_PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)


class Process:
    """One life of a program. `frozen_at` is None while it runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False
        self.frozen_at: float | None = None
        self.began_at = asyncio.get_running_loop().time()
        self.thawed_at = self.stalled_until = self.began_at
        self._waiting: list[asyncio.Future[None]] = []
        self._main: asyncio.Task[Any] | None = None

    @property
    def runs(self) -> bool:
        return not self.killed and self.frozen_at is None

    def start(self, group: asyncio.TaskGroup, program: Coroutine[Any, Any, Any]) -> None:
        context = copy_context()
        context.run(_PROCESS.set, self)
        self._main = group.create_task(_mortal(self, program), name=self.name, context=context)

    def freeze(self) -> None:
        if self.frozen_at is None:
            self.frozen_at = asyncio.get_running_loop().time()

    def thaw(self) -> None:
        if self.frozen_at is not None:
            now = asyncio.get_running_loop().time()
            if now - self.frozen_at > STALL_S:
                self.stalled_until = now
            self.frozen_at, self.thawed_at = None, now
            self._let_go()

    def kill(self) -> None:
        """As by SIGKILL: what its tasks do while they end reaches nobody (see `killed`)."""
        self.killed, self.frozen_at = True, None
        self._let_go()
        if self._main:
            self._main.cancel()

    async def ended(self) -> None:
        if self._main:
            await asyncio.wait([self._main])

    def gate(self) -> asyncio.Future[None]:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(gate)
        return gate

    def _let_go(self) -> None:
        for gate in self._waiting:
            if not gate.done():
                gate.set_result(None)
        self._waiting.clear()


async def _mortal(process: Process, program: Coroutine[Any, Any, Any]) -> None:
    """A killed process ends quietly; one that ends by itself or by an error has a bug."""
    try:
        await program
    except asyncio.CancelledError:
        if not process.killed:
            raise


def task_factory(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    context: Context | None = None,
) -> "asyncio.Task[Any]":
    """Tasks of a process take their steps by its leave."""
    process = context.get(_PROCESS) if context else _PROCESS.get()
    assert isinstance(coro, Coroutine)
    paced = _Paced(process, coro) if process else coro
    return asyncio.Task(paced, loop=loop, context=context)


class _Paced(Coroutine[Any, Any, Any]):
    """A coroutine that waits at the process' gate instead of taking a step while it is frozen."""

    def __init__(self, process: Process, inner: Coroutine[Any, Any, Any]) -> None:
        self._process, self._inner = process, inner
        self._error: BaseException | None = None

    def send(self, value: Any) -> Any:
        if self._process.frozen_at is not None:
            return self._wait()
        error, self._error = self._error, None
        return self._inner.throw(error) if error else self._inner.send(value)

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        trace: TracebackType | None = None,
    ) -> Any:
        assert isinstance(kind, BaseException)
        if self._process.frozen_at is not None:
            self._error = kind
            return self._wait()
        self._error = None
        return self._inner.throw(kind)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, None, Any]:
        return self._inner.__await__()

    def _wait(self) -> asyncio.Future[None]:
        gate = self._process.gate()
        # What Future.__await__ does before it yields itself to the task. Source: CPython, Lib/asyncio/futures.py.
        gate._asyncio_future_blocking = True
        return gate
