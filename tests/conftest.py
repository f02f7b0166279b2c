"""The clock of async tests: virtual for those marked `virtual_time`, uvloop's for the others."""

import asyncio
import math
import os
import selectors
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import uvloop
from hypothesis import HealthCheck, settings

# A busy machine is no finding. In CI the examples are the same each time: what is new is found where people work.
settings.register_profile(
    "relevo",
    max_examples=int(
        os.environ.get("RELEVO_EXAMPLES", "40")
    ),  # where a test says no number of its own
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    derandomize="CI" in os.environ,
)
settings.load_profile("relevo")

# A virtual clock jumps over every timer, so a real wait this long means that nobody will ever come.
DEADLOCK_S = 10.0
# Running code takes time too: after so many rounds in which the clock stood still it moves a nanosecond. Else a
# timer that came an ulp before its time, as sums of floats do, could find itself not due and re-arm for ever.
STILL_ROUNDS, STEP_S = 1_000, 1e-9


class VirtualTime(selectors.DefaultSelector):
    """Never waits: when nothing is ready, the clock jumps to the next timer."""

    now = 0.0
    still = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = super().select(DEADLOCK_S)
            assert ready, f"no timer, and nothing happened for {DEADLOCK_S:g} real s"
            return ready
        ready = super().select(0)
        if not ready and timeout > 0:
            self.jump(timeout)
        elif self.still == STILL_ROUNDS:
            self.jump(STEP_S)
        else:
            self.still += 1
        return ready

    def jump(self, by_s: float) -> None:
        later = self.now + by_s
        # Past three months a float is coarser than asyncio's 1 ns: step over the timer, or it never fires.
        self.now = later if later + STEP_S > later else math.nextafter(later, math.inf)
        self.still = 0


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time` is that of its selector. Threads have no place on it."""

    def __init__(self) -> None:
        self._virtual = VirtualTime()
        super().__init__(self._virtual)

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


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder in which a socket's name fits what the kernel allows, whatever the test and its runner are called."""
    with TemporaryDirectory(prefix="relevo-") as folder:
        yield Path(folder)
