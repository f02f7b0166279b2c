"""The tests' own clock: what it promises to every other test."""

import asyncio
import math
import time

import pytest
import uvloop


@pytest.mark.virtual_time
@pytest.mark.parametrize("for_s", [0.001, 3600, 10 * 365 * 86_400])
async def test_virtual_time_takes_no_time(for_s: float) -> None:
    """Under the marker any sleep ends at once, ten years as well, and the loop's clock says that it passed."""
    loop, began = asyncio.get_running_loop(), time.monotonic()
    before = loop.time()
    await asyncio.sleep(for_s)
    assert loop.time() - before == pytest.approx(for_s)
    assert time.monotonic() - began < 1


@pytest.mark.virtual_time
async def test_virtual_timers_fire_in_their_order() -> None:
    """Sleepers wake by their times, not by the order in which they lay down."""
    woken: list[float] = []

    async def sleeper(for_s: float) -> None:
        await asyncio.sleep(for_s)
        woken.append(for_s)

    async with asyncio.TaskGroup() as group:
        for for_s in (3.0, 1.0, 2.0):
            group.create_task(sleeper(for_s))
    assert woken == [1.0, 2.0, 3.0]


@pytest.mark.virtual_time
async def test_a_virtual_clock_keeps_round_numbers() -> None:
    """Ten half seconds are five seconds, to the last bit: tests may compare times exactly."""
    now = asyncio.get_running_loop().time
    began, seen = now(), list[float]()
    for _ in range(10):
        await asyncio.sleep(0.5)
        seen.append(now() - began)
    assert seen == [half / 2 for half in range(1, 11)]


@pytest.mark.virtual_time
async def test_a_deadline_that_floats_never_hit_is_reached() -> None:
    """Sleeping the rest until a deadline ends, though now + (deadline - now) may fall short by an ulp."""
    now = asyncio.get_running_loop().time
    async with asyncio.timeout(1_000):
        for third in range(1, 300):
            deadline = now() + third / 3
            while now() < deadline:
                await asyncio.sleep(deadline - now())
            if now() > 500:
                break


@pytest.mark.virtual_time
async def test_a_virtual_clock_moves_while_code_runs() -> None:
    """A busy wait for the next instant ends."""
    now = asyncio.get_running_loop().time
    deadline = math.nextafter(now() + 1, 2)
    await asyncio.sleep(1)
    while now() < deadline:
        await asyncio.sleep(0)


@pytest.mark.virtual_time
async def test_a_virtual_timeout_ends_a_wait_for_nothing() -> None:
    """A timeout is a timer as well: waiting for an event that never comes ends."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await asyncio.Event().wait()


async def test_without_the_marker_the_loop_is_uvloop() -> None:
    """Unmarked tests run on the loop that the daemons run on."""
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
