"""The keeper on a bad disk: what can't be written down is not done where it would be lost; no cap waits for a disk."""

import asyncio
import os
from pathlib import Path

import pytest

from agent.caps import kernel as reading
from agent.caps.limits import FREE
from agent.caps.ours import Memory, Ours, read
from agent.ports import DriverError
from fleet.caps import Level
from fleet.model import Why
from runtime.pulse import Pulse
from runtime.words import explain
from tests.unit.test_caps_keeper import (
    BOTH,
    NEWS,
    ONE,
    PLAN,
    SHOP,
    TWO,
    UNIT,
    Host,
    Kernel,
    keeping_house,
    orders,
    penalty_of,
    quick,
    stop,
)

__all__ = ["quick"]


async def held(host: Host) -> None:
    host.keeper.attach(BOTH)
    host.keeper.follow(orders())
    await host.until(lambda: host.held().cpu_quota_us == PLAN and host.held(TWO) == host.held())


async def squeezed(host: Host, weight: int) -> None:
    await host.until(lambda: host.held().cpu_weight == weight)
    await host.until(lambda: host.keeper.state()[SHOP].held == host.held())


@pytest.mark.usefixtures("quick")
async def test_a_stop_that_can_not_be_written_down_ends_nothing(tmp_path: Path) -> None:
    """On a full disk the site stands still, which its slice and the host say; with room again it is stopped."""
    full = tmp_path / "caps.json.new"
    async with keeping_house(tmp_path) as host:
        await held(host)
        full.unlink(missing_ok=True)
        full.symlink_to("/dev/full")
        stop(host)
        await host.until(lambda: "No space left" in lacks(host))
        await host.until(lambda: host.held().frozen)
        await host.until(lambda: any(w.code == "cap-refused" for w in shorts(host)))
        assert host.kernel.events == [] and host.kernel.runs[ONE] == (UNIT,)
        full.unlink()
        await host.until(lambda: host.kernel.events == [f"kill {ONE}"])
        await host.until(lambda: not host.keeper.lacks and shorts(host) == ())
        assert UNIT in (tmp_path / "caps.json").read_text()


def lacks(host: Host) -> str:
    return " ".join(map(explain, host.keeper.lacks))


def shorts(host: Host) -> tuple[Why, ...]:
    return host.keeper.state()[SHOP].short


async def test_a_person_is_asked_for_what_was_stopped_where_that_can_not_be_read(
    tmp_path: Path,
) -> None:
    """It is kept aside with what can be read of it, and told by each agent until it was removed."""
    (tmp_path / "caps.json").write_text('{"user-1001.slice": {"stopped": ["php@')
    kernel, aside = Kernel(Pulse()), tmp_path / "caps.json.unread"
    for _ in range(2):
        async with keeping_house(tmp_path, kernel=kernel) as host:
            await held(host)
            unread = Why("unable-unread", {"path": str(aside)})
            assert host.keeper.lacks == (unread,)
            await host.settled()
            assert host.keeper.lacks == (unread,)
    assert "php@" in aside.read_text()
    aside.unlink()
    async with keeping_house(tmp_path, kernel=kernel) as host:
        await held(host)
        assert host.keeper.lacks == ()


async def test_no_cap_waits_for_the_disk_that_it_relieves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is ours already is squeezed and told while the disk hangs; who comes new is held a little later."""
    monkeypatch.setattr(reading, "LOOK_S", 0.5)
    hangs = tmp_path / "caps.json.new"
    async with keeping_house(tmp_path) as host:
        host.keeper.attach({SHOP: BOTH[SHOP]})
        host.keeper.follow(orders())
        await host.until(lambda: SHOP in host.keeper.state())
        hangs.unlink(missing_ok=True)
        os.mkfifo(hangs)  # who opens it to write waits for a reader
        try:
            began = asyncio.get_running_loop().time()
            for level, weight in ((Level.SOFT, 20), (Level.WATCH, 100), (Level.SOFT, 20)):
                host.keeper.penalize((penalty_of(SHOP, level),))
                await squeezed(host, weight)
            assert asyncio.get_running_loop().time() - began < 0.4
            host.keeper.attach(BOTH)
            host.keeper.penalize(())
            await host.until(lambda: host.held(TWO).cpu_quota_us == PLAN)
            assert [why.code for why in host.keeper.lacks] == ["unable-kept"], (
                "it is not written down"
            )
        finally:
            reader = os.open(hangs, os.O_RDONLY | os.O_NONBLOCK)
            await asyncio.sleep(0.05)
            hangs.unlink()
        await host.until(lambda: NEWS in host.keeper.state() and not host.keeper.lacks)
        os.close(reader)


async def test_what_could_not_be_written_is_written_anew_though_it_is_as_before(
    tmp_path: Path,
) -> None:
    """Nobody knows what a disk has made of it; and what failed is not told for ever."""
    path, full = tmp_path / "caps.json", tmp_path / "caps.json.new"
    memory = Memory(path)
    memory.slices = before = {ONE: Ours(sites=(SHOP,), limits=FREE)}
    await memory.commit()
    full.symlink_to("/dev/full")
    memory.slices = {}
    with pytest.raises(DriverError, match="No space left"):
        await memory.commit()
    assert memory.failed and memory.knows(ONE, frozenset())
    path.write_text("{}")  # late
    full.unlink()
    memory.slices = before
    await memory.commit()
    assert (memory.failed, read(path)) == ("", (before, None))
