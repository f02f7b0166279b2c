"""A machine that goes, under a real logind: announced, waited for, called off; and an agent's restart that is none."""

import asyncio
import re
from pathlib import Path

import pytest

from agent.config import Config
from fleet.model import HostId
from tests.vm.coop import coop, visit
from tests.vm.installed import Pair
from tests.vm.machine import Machine

pytestmark = [pytest.mark.vm, pytest.mark.long]

RESTARTED_S = 10.0  # longer than any shutdown takes to be known


async def inhibitors(vm: Machine) -> str:
    """The agent's own, as logind lists them."""
    return await vm.do("systemd-inhibit --list --no-pager --no-legend | grep relevo")


async def test_a_reboot_is_known_before_the_machine_goes_and_all_comes_back(packaged: Pair) -> None:
    """The controller judges `leaving` while the machine waits for the agent's inhibitor; enabled units return."""
    loop = asyncio.get_running_loop()
    async with coop(packaged) as made:
        assert re.search(r"relevo\s+0\s+root\s.*shutdown.*delay", await inhibitors(made.south))
        boots = made.south.boots
        async with asyncio.TaskGroup() as group:
            known = group.create_task(made.until_verdict("south", "leaving"))
            await made.south.run("systemctl reboot")
            await known
            known_at = loop.time()
        assert known_at < await made.south.reset_at()
        await made.south.booted(after=boots)
        await made.until_verdict("south", "up", timeout_s=120)
        await made.south.until("systemctl is-active relevo-agent haproxy")
        await made.north.until(visit("garden.example.org"))
        assert "shutdown" in await inhibitors(made.south)


async def test_the_sites_of_a_machine_that_is_switched_off_move_before_it_goes(
    packaged: Pair,
) -> None:
    """Its power button: logind asks the agent to let go, which it does once its sites are served elsewhere."""
    async with coop(packaged) as made:
        await made.north.do("relevo failover arm --all --reason 'a test'")
        await made.south.press_power_button()
        await made.south.off_at()
        assert "leaving" in await made.verdicts("south")
        garden = await made.site("garden")
        assert garden.host == "north"


async def test_what_is_no_shutdown_is_not_taken_for_one(packaged: Pair) -> None:
    """A shutdown planned and called off, and a restart of the agent alone, are not `leaving`."""
    async with coop(packaged) as made:
        before = len(await made.verdicts("south"))
        await made.south.do("shutdown -r +1; shutdown -c")
        await made.south.do("systemctl restart relevo-agent")
        await asyncio.sleep(RESTARTED_S)
        await made.until_verdict("south", "up")
        seen = (await made.verdicts("south"))[before:]
        assert "restarting" in seen
        assert "leaving" not in seen and "dead" not in seen
        assert "shutdown" in await inhibitors(made.south)


async def test_logind_waits_longer_than_the_agent_asks_for(packaged: Pair) -> None:
    """InhibitDelayMaxSec, of which the document speaks, is above shutdown_wait_s where nobody changed either."""
    async with coop(packaged) as made:
        told = await made.south.do(
            "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 "
            "org.freedesktop.login1.Manager InhibitDelayMaxUSec"
        )
        agents = Config(host=HostId("h"), controllers={"c": "https://c"}, token=Path("t"))
        assert told == "t 5000000" and agents.shutdown_wait_s < 5
