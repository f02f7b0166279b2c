"""A real agent under a real controller: what people order of a site reaches its host, and its answer comes back."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cli import captruth
from cli.failures import Exit
from tests.integration.controllers import AGENTS, Served, controller_served
from tests.integration.test_agent_daemon import running
from tests.integration.test_cli_controller import run

pytestmark = pytest.mark.integration
HOST = "mx1-web-01"


def configure(served: Served, directory: Path) -> Path:
    """An agent that may hold nothing here: this machine's cgroups are not ours."""
    (directory / "token").write_text(AGENTS[HOST])
    (directory / "token").chmod(0o600)
    config = directory / "agent.toml"
    config.write_text(
        f'host = "{HOST}"\ntoken = "{directory}/token"\nca = "{served.ca}"\nstate = "{directory}/state"\n'
        f'reconnect_max_s = 0.3\n[controllers]\nc1 = "{served.url}"\n'
        '[caps]\ndriver = "off"\n[metrics]\nport = 0\n[usage]\nevery_s = 0.5\n'
    )
    return config


async def caps(served: Served, path: str) -> dict[str, Any]:
    status, told = await served.ask("GET", path)
    assert status == 200, told
    return told


async def test_a_quarantine_is_a_penalty_at_its_host_until_it_is_taken_back(tmp_path: Path) -> None:
    """Ordered here, decided there, told back with its owner; what can't be enforced is said, not hidden."""
    folder = tmp_path / "agent"
    folder.mkdir()
    async with controller_served(tmp_path) as served:
        await served.placed()
        mirror, uses = served.controller.mirror, served.controller.uses
        async with running(configure(served, folder)):
            await served.until(lambda: HOST in uses.hosts, within_s=30)
            told = await caps(served, f"/v1/hosts/{HOST}/caps")
            assert (told["driver"], told["unknown"]) == ("", ["huerto"])
            assert told["lacks"][0]["code"] == "unable-off"
            said = {"reason": "spam", "for_s": 3600, "level": "isolate", "nature": "hacked"}
            assert (await served.ask("PUT", "/v1/sites/huerto/quarantine", said=said))[0] == 200
            await served.until(lambda: "huerto" in mirror.penalties, within_s=30)
            (penalty,) = (await caps(served, "/v1/sites/huerto/caps"))["penalties"]
            assert (penalty["level"], penalty["owner"], penalty["nature"]) == (4, "ana", "hacked")
            assert "ana" in penalty["why"]["text"] and "spam" in penalty["why"]["text"]
            over = {"reason": "clean"}
            assert (await served.ask("DELETE", "/v1/sites/huerto/quarantine", said=over))[0] == 200
            await served.until(
                lambda: not any(kept.penalties for kept in mirror.penalties.values()), within_s=30
            )
        (past,) = (await caps(served, "/v1/penalties?ended=true"))["penalties"]
        assert past["penalty"]["owner"] == "ana" and past["ended"]


async def test_a_host_that_is_verified_is_not_well_before_it_speaks_where_it_can_hold_nothing_or_when_it_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not known (9), not held (8), and not known again as soon as its last word is old: never 0, and in words."""
    folder = tmp_path / "agent"
    folder.mkdir()
    async with controller_served(tmp_path) as served:
        await served.placed()
        silent = await run(served, "caps", "verify", HOST)
        async with running(configure(served, folder)):
            await served.until(lambda: HOST in served.controller.uses.hosts, within_s=30)
            off = await run(served, "caps", "verify", HOST)
        monkeypatch.setattr(captruth, "USAGE_OLD_S", 0.2)
        await asyncio.sleep(0.3)
        dead = await run(served, "caps", "verify", HOST)
    codes = [silent.code, off.code, dead.code]
    assert codes == [Exit.NOT_KNOWN, Exit.NOT_HELD, Exit.NOT_KNOWN]
    assert "has said nothing" in silent.out
    assert "Nothing can be held there" in off.out and "switched off in agent.toml" in off.out
    assert "Its last word is" in dead.out
    assert "The kernel holds what it should" not in silent.out + off.out + dead.out
