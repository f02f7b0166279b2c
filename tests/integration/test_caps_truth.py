"""What `relevo caps verify` makes of what an agent really tells: no promise that nobody keeps."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from agent.caps.cgroupfs import CgroupFs
from agent.caps.keeper import Keeper
from agent.caps.kernel import slice_path
from agent.caps.limits import HostFacts
from agent.hosting import Helds
from agent.layout.attached import Attached
from cli.failures import Exit
from fleet.caps import Attachment, Level, Penalty, Resource, Tenant
from fleet.messages import SiteUse
from fleet.model import PlanId, Why
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime.pulse import Pulse
from tests.integration.controllers import Served
from tests.integration.systemds import PLAIN
from tests.integration.test_api import agent
from tests.integration.test_caps_api import HOST, SITE, penalty, tell, use
from tests.integration.test_cli_controller import run
from tests.unit.test_caps_keeper import orders

pytestmark = pytest.mark.integration

SLICE, GB = "user-1001.slice", 1 << 30


@asynccontextmanager
async def kept(folder: Path, *penalties: Penalty) -> AsyncIterator[tuple[Keeper, Path]]:
    """An agent's keeper over a made-up cgroup, which is given too."""
    group, pulse = folder / slice_path(SLICE), Pulse()
    group.mkdir(parents=True)
    for name, text in PLAIN.items():
        (group / name).write_text(f"{text}\n")
    keeper = Keeper(
        CgroupFs(folder, pulse),
        None,
        unable=None,
        facts=lambda: HostFacts(cores=16, has_swap=True, devices=("8:0",)),
        people=dict,
        state=folder / "caps.json",
        exporter=Exporter(AGENT),
        changed=pulse,
        verify_s=0.05,
    )
    keeper.follow(orders(huerto=Tenant(plan=PlanId("standard"), enforced_from=0.0)))
    keeper.penalize(penalties)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(keeper.keep())
        yield keeper, group
        task.cancel()


async def told(keeper: Keeper, holds: Callable[[SiteUse], bool]) -> SiteUse:
    """The word of the site, as it travels."""
    here = Attached(attachment=Attachment.SLICE, why=Why("x"), slice=SLICE)
    keeper.attach({SITE: here})
    while True:
        if found := Helds(keeper.state(), {}).get(SITE):
            word = use(slice=found.slice, wanted=found.wanted, held=found.held, short=found.short)
            if holds(word):
                return msgspec.structs.replace(word, because=dict(found.because), told=True)
        await asyncio.sleep(0.01)


async def verified(coop: Served, word: SiteUse) -> tuple[int, str]:
    async with agent(coop, HOST) as socket:
        await tell(coop, socket, sites={SITE: word})
        said = await run(coop, "caps", "verify", HOST)
    return said.code, " ".join(said.out.split())


async def test_memory_on_its_way_down_is_no_promise_of_half_a_minute(
    coop: Served, tmp_path: Path
) -> None:
    """It takes as long as it takes: not all is held (8). What somebody changed meanwhile is a difference (7)."""
    async with kept(tmp_path / "cgroups") as (keeper, group):
        (group / "memory.current").write_text(f"{3 * GB}\n")
        word = await told(keeper, lambda word: len(word.short) == 2)
    assert {why.code for why in word.short} == {"cap-in-steps"} and word.held != word.wanted
    code, out = await verified(coop, word)
    assert (code, "half a minute" in out) == (Exit.NOT_HELD, False), out
    assert "Not all is held, for the reasons above: huerto." in out
    assert word.held is not None
    other = msgspec.structs.replace(word, held=msgspec.structs.replace(word.held, tasks_max=99))
    code, out = await verified(coop, other)
    assert (code, "half a minute" in out) == (Exit.CHANGES, True), out


async def test_what_was_refused_is_not_held_and_not_put_right_soon(
    coop: Served, tmp_path: Path
) -> None:
    """Of the whole slice; what the kernel has no file for, or takes without holding it, of that alone."""
    async with kept(tmp_path / "cgroups") as (keeper, group):
        (group / "pids.max").unlink()
        (group / "pids.max").mkdir()
        word = await told(keeper, lambda word: bool(word.short))
    assert [why.code for why in word.short] == ["cap-refused"] and word.held != word.wanted
    code, out = await verified(coop, word)
    assert (code, "half a minute" in out) == (Exit.NOT_HELD, False), out
    async with kept(tmp_path / "others") as (keeper, group):
        (group / "memory.swap.max").unlink()
        word = await told(keeper, lambda word: bool(word.short))
    assert [why.code for why in word.short] == ["cap-no-file"] and word.held != word.wanted
    code, out = await verified(coop, word)
    assert (code, "half a minute" in out) == (Exit.NOT_HELD, False), out


async def test_a_site_that_is_shut_in_by_its_user_alone_is_no_difference(
    coop: Served, tmp_path: Path
) -> None:
    """A delegated subtree has no file for addresses: not all is held, and nobody will put that right."""
    isolated = penalty(Level.ISOLATE, resource=Resource.EGRESS, share=1.0)
    async with kept(tmp_path / "cgroups", isolated) as (keeper, _):
        word = await told(keeper, lambda word: bool(word.short))
    assert [why.code for why in word.short] == ["cap-egress-by-user"] and word.held != word.wanted
    code, out = await verified(coop, word)
    assert (code, "half a minute" in out) == (Exit.NOT_HELD, False), out
