"""A stop holds what runs below a user's own manager that lingers, through a boot too, and starts it at the end."""

from pathlib import Path

import pytest

from tests.unit.test_caps_keeper import ONE, UNIT, Kernel, keeping_house, quick, stop

__all__ = ["quick"]

MANAGER = "user@1001.service"


@pytest.mark.usefixtures("quick")
async def test_an_application_below_a_lingering_manager_runs_again_after_its_stop(
    tmp_path: Path,
) -> None:
    """As a unit of the site's; one that was there for a login only is its person's to begin."""
    async with keeping_house(tmp_path) as host:
        kernel = host.kernel
        kernel.runs[ONE] = (UNIT, MANAGER, "user@1002.service")
        kernel.lingers = {MANAGER}
        stop(host)
        await host.until(lambda: kernel.events == [f"kill {ONE}"])
        host.keeper.penalize(())
        await host.until(lambda: kernel.events[1:] == [f"start {UNIT} {MANAGER}"])


@pytest.mark.usefixtures("quick")
async def test_what_a_boot_starts_of_a_lingering_user_is_stopped_anew(tmp_path: Path) -> None:
    """Its manager alone, before any agent; but not under who is logged in to look."""
    async with keeping_house(tmp_path) as host:
        kernel: Kernel = host.kernel
        kernel.runs[ONE] = (UNIT,)
        stop(host)
        await host.until(lambda: kernel.events == [f"kill {ONE}"])
    kernel.runs[ONE], kernel.holds, kernel.lingers = (MANAGER,), {}, {MANAGER}
    async with keeping_house(tmp_path, kernel=kernel) as host:
        stop(host)
        await host.until(lambda: kernel.events == [f"kill {ONE}"] * 2)
        kernel.visits, kernel.runs[ONE] = {ONE}, (MANAGER,)
        kernel.jobs = {ONE: ("session-7.scope",)}
        await host.until(lambda: kernel.events[2:] == ["end session-7.scope"])
        await host.settled()
        assert len(kernel.events) == 3
        kernel.visits = set()
        await host.until(lambda: kernel.events[3:] == [f"kill {ONE}"])
        host.keeper.penalize(())
        await host.until(lambda: kernel.events[4:] == [f"start {UNIT} {MANAGER}"])
