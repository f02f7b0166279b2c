"""The clock of async tests: virtual for those marked `virtual_time`, uvloop's for the others."""

import asyncio
import math
import selectors
from collections.abc import Callable, Mapping

import pytest
import uvloop

# A virtual clock jumps over every timer, so a real wait this long means that nobody will ever come.
DEADLOCK_S = 10.0
# The clock jumps a little past a timer, and fires none early: one that came an ulp before its time, as sums of
# floats do, would find that it is not due, arm itself again, and stop the clock for ever.
STEP_S, RESOLUTION_S = 1e-9, 1e-10


class VirtualTime(selectors.DefaultSelector):
    """Never waits: when nothing is ready, the clock jumps to the next timer."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = super().select(DEADLOCK_S)
            assert ready, f"no timer, and nothing happened for {DEADLOCK_S:g} real s"
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            later = self.now + timeout
            # Past three months a float is coarser than the step.
            self.now = max(later + STEP_S, math.nextafter(later, math.inf))
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` is that of its selector. Threads have no place on it."""

    def __init__(self) -> None:
        self._virtual = VirtualTime()
        super().__init__(self._virtual)
        self._clock_resolution = RESOLUTION_S

    def time(self) -> float:
        return self._virtual.now


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="write tests/scenarios anew from their events"
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time"):
        return {"virtual": VirtualLoop}
    return {"real": uvloop.new_event_loop}
