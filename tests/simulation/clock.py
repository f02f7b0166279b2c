"""The clock of the simulation: virtual, and never an ulp early; wall time goes as it goes."""

import asyncio
import selectors
from collections.abc import Coroutine
from io import SEEK_END, StringIO
from types import SimpleNamespace
from typing import Any

import pytest

from tests.simulation.processes import task_factory

WALL_BEGAN = 1_800_000_000.0
# The clock jumps a little past a timer and fires none early: one that came an ulp before its time, as sums of
# floats do, would find that it is not due, arm itself again, and stop the clock for ever.
STEP_S, RESOLUTION_S = 1e-9, 1e-10
# Two timers less than the resolution apart fire together, one of them early after all: running code takes time too.
STILL_ROUNDS = 10_000
# No story is this long: who still waits then waits for ever, and the timers of the others would keep it company.
LONGEST_S = 3_600.0
# No moment is this full: some task goes round and round without a wait.
MOMENT_S, FULL_ROUNDS = 1e-3, 2_000_000


class _Jumps(selectors.DefaultSelector):
    now = 0.0
    still = 0
    moment, rounds = 0.0, 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nobody will ever do anything again"
        if self.now - self.moment > MOMENT_S:
            self.moment, self.rounds = self.now, 0
        self.rounds += 1
        assert self.now < LONGEST_S and self.rounds < FULL_ROUNDS, _stuck()
        self.still = self.still + 1 if timeout <= 0 else 0
        if timeout > 0:
            self.now += timeout + STEP_S
        elif self.still > STILL_ROUNDS:
            self.now, self.still = self.now + STEP_S, 0
        return super().select(0)


def _stuck() -> str:
    stacks = StringIO("the story has no end; who waits:\n")
    stacks.seek(0, SEEK_END)
    for task in asyncio.all_tasks():
        task.print_stack(file=stacks)
    return stacks.getvalue()


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumps = _Jumps()
        super().__init__(self._jumps)
        self._clock_resolution = RESOLUTION_S
        self.set_task_factory(task_factory)

    def time(self) -> float:
        return self._jumps.now


def play(monkeypatch: pytest.MonkeyPatch, story: Coroutine[Any, Any, None]) -> None:
    """Run `story` in virtual time, from loop time 0."""
    clock = SimpleNamespace(time=lambda: WALL_BEGAN + asyncio.get_running_loop().time())
    monkeypatch.setattr("runtime.clock.time", clock)
    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(story)
