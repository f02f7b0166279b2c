"""Work that hangs, each kind in a lane of its own: it costs one thread, and none of those that all share."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.caps import kernel
from agent.caps.cgroupfs import CgroupFs
from agent.caps.kernel import look
from agent.caps.limits import FREE
from agent.lane import Lane
from agent.ports import DriverError
from runtime.pulse import Pulse


@pytest.fixture
def end() -> Iterator[threading.Event]:
    """What hangs until the test has ended."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_lane_needs_none_of_the_threads_that_all_share(end: threading.Event) -> None:
    """A piece of work begins, and ends, while every thread of the loop hangs; so does one that only computes."""
    async with asyncio.TaskGroup() as group:
        for _ in range(40):  # the loop has 32 at most
            group.create_task(asyncio.to_thread(end.wait))
        await asyncio.sleep(0.05)
        lane = Lane()
        try:
            async with asyncio.timeout(2):
                assert await lane.run(1, lambda: 7) == 7
                assert await lane.run(None, lambda: 8) == 8
        finally:
            end.set()


async def test_looks_that_hang_cost_each_looker_one_thread(
    end: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it tries again; who looks at something else goes on."""
    monkeypatch.setattr(kernel, "LOOK_S", 0.01)
    before, lane = threading.active_count(), Lane()
    for _ in range(5):
        with pytest.raises(DriverError):
            await look(lane, end.wait)
    assert threading.active_count() == before + 1
    monkeypatch.setattr(kernel, "LOOK_S", 2.0)
    assert await look(Lane(), lambda: 7) == 7


async def test_what_a_look_can_not_read_is_the_outsides_failure() -> None:
    """An error of the system is told as such, and the lane is free."""
    lane = Lane()
    with pytest.raises(DriverError, match="can't read cgroups"):
        await look(lane, os.listdir, "/nowhere")
    assert not lane.hangs and await look(lane, lambda: 7) == 7


async def test_a_slice_that_can_not_be_written_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reclaim may hold up a write for long; tried again, it still costs one thread."""
    monkeypatch.setattr(kernel, "LOOK_S", 0.05)
    for name in ("a.slice", "b.slice"):
        (tmp_path / name).mkdir()
    stuck = tmp_path / "a.slice/memory.current"
    os.mkfifo(stuck)
    driver, before = CgroupFs(tmp_path, Pulse()), threading.active_count()
    try:
        for _ in range(3):
            with pytest.raises(DriverError):
                await driver.apply("a.slice", FREE)
        await driver.apply("b.slice", FREE)
        assert threading.active_count() <= before + 2
    finally:
        os.close(os.open(stuck, os.O_RDWR | os.O_NONBLOCK))
