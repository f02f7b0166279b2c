"""The command line against a whole controller over TLS: both ends mean the same."""

import re
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from cli.failures import Exit
from deploy.demo.certificates import Authority
from tests.integration.controllers import ADMINS, FLEET, Served, controller_served
from tests.unit.commands import Said, relevo

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def log_elsewhere() -> Iterator[None]:
    """The controller lives in this process: its log is not what a command prints."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.__stderr__))
    yield
    structlog.reset_defaults()


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as controller:
        yield controller


async def run(served: Served, *arguments: str, ca: Path | None = None) -> Said:
    environment = {"RELEVO_TOKEN": ADMINS["ana"], "RELEVO_CA": str(ca or served.ca)}
    return await relevo(*arguments, RELEVO_URL=served.url, **environment)


async def done(served: Served, *arguments: str) -> str:
    """What a command that must succeed prints; it fits 80 columns."""
    result = await run(served, *arguments)
    assert (result.code, result.err) == (Exit.OK, ""), arguments
    assert result.width <= 80
    return result.out


async def test_an_admins_day(served: Served, tmp_path: Path) -> None:
    """Declare, look, arm, pause, drain, move, read the incident: every command over the real API."""
    file = tmp_path / "coop.yaml"
    file.write_text(FLEET)
    assert "none declared yet" in await done(served, "status")
    assert "hosts: 4 added" in await done(served, "fleet", "apply", str(file), "--reason", "first")
    assert "no change" in await done(served, "fleet", "apply", str(file))
    assert "no change" in await done(served, "fleet", "diff", str(file))
    controller = served.controller
    await served.until(lambda: len(controller.mirror.places) == 2)
    await served.until(lambda: "mx1-web-01" in controller.board.verdicts)
    assert "4: 4 unknown" in await done(served, "status")
    assert "mx1-web-01" in await done(served, "hosts")
    assert "controller c1" in await done(served, "host", "show", "mx1-web-01")
    assert "huerto" in await done(served, "sites", "--host", "mx1-web-01")
    assert "At home." in await done(served, "site", "show", "blog")
    why = ("--reason", "a test")
    assert "armed" in await done(served, "failover", "arm", "--all", *why)
    assert "a test" in await done(served, "failover", "pause", *why) + await done(
        served, "failover", "status"
    )
    assert "goes on" in await done(served, "failover", "resume", *why)
    assert "being drained" in await done(served, "host", "drain", "mx1-web-01", *why)
    await served.until(lambda: bool(controller.mirror.holds))
    assert "gated" in await done(served, "holds")
    assert "active" in await done(served, "host", "activate", "mx1-web-01", *why)
    moved = await done(
        served, "site", "move", "huerto", "us1-web-01", "--old-host-stopped", "--anyway", *why
    )
    assert "huerto: mx1-web-01 -> us1-web-01" in moved
    incident = next(id for id in controller.mirror.incidents if id.endswith("huerto"))
    assert incident in await done(served, "incidents")
    assert "Moved by ana: a test" in await done(served, "incidents", incident)
    assert "ana: move huerto (a test)" in await done(served, "events")
    file.write_text((await run(served, "fleet", "export")).out)
    assert "no change" in await done(served, "fleet", "diff", str(file))


async def test_a_change_of_the_fleet_from_diff_to_undo(served: Served, tmp_path: Path) -> None:
    """Compared, refused without its word, applied, outdated by another, told by the log, undone."""
    file = tmp_path / "coop.yaml"
    file.write_text(FLEET)
    await done(served, "fleet", "apply", str(file), "--reason", "first")
    file.write_text(FLEET.partition("  blog:")[0].replace("tag: rosa", "tag: rosal"))
    compared = await run(served, "fleet", "diff", str(file))
    assert compared.code == Exit.CHANGES
    said = " ".join(compared.out.split())
    assert "~ host mx1-web-09 tag rosa rosal" in said
    assert "- site blog" in said
    assert "`apply` wants --remove" in said
    revision = re.search(r"--compared-with (\d+)", said)
    assert revision
    apply = ("fleet", "apply", str(file), "--compared-with", revision[1])
    refused = await run(served, *apply)
    assert refused.code == Exit.FAILED and "say --remove" in refused.err
    assert "change 2" in await done(served, *apply, "--remove", "--reason", "smaller")
    outdated = await run(served, *apply, "--remove")
    assert outdated.code == Exit.CONFLICT
    assert "the last change is 2, by ana" in outdated.err
    log = " ".join((await done(served, "fleet", "log")).split())
    assert "smaller" in log and "first" in log
    assert "rosal" in await done(served, "fleet", "log", "2")
    assert (await run(served, "fleet", "log", "9")).code == Exit.NOT_FOUND
    why = ("--reason", "too early")
    assert "change 3" in await done(served, "fleet", "undo", *why)
    assert "undoes 2" in " ".join((await done(served, "fleet", "log")).split())
    again = await run(served, "fleet", "undo", "2", *why)
    assert again.code == Exit.FAILED and "Nothing is left of what change 2 did." in again.err


async def test_each_failure_says_what_it_is(served: Served, tmp_path: Path) -> None:
    """Refused, unknown, conflicting, not admitted, not trusted: an exit code and a sentence each."""
    file = tmp_path / "coop.yaml"
    file.write_text(FLEET.replace("home: mx1-web-09", "home: mx1-web-08"))
    bad = await run(served, "fleet", "apply", str(file))
    assert bad.code == Exit.FAILED
    line = next(
        n for n, text in enumerate(file.read_text().splitlines(), 1) if "mx1-web-08" in text
    )
    assert f"coop.yaml:{line}: sites.blog.home: 'mx1-web-08'" in bad.err
    assert (await run(served, "host", "show", "nobody")).code == Exit.NOT_FOUND
    await served.placed()
    gated = await run(served, "site", "move", "huerto", "us1-web-01", "--reason", "x")
    assert gated.code == Exit.FAILED
    assert "say --old-host-stopped" in gated.err
    stranger = await relevo(
        "status", RELEVO_URL=served.url, RELEVO_CA=str(served.ca), RELEVO_TOKEN="wrong"
    )
    assert stranger.code == Exit.NOT_ALLOWED
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    untrusted = await run(served, "status", ca=other.path)
    assert untrusted.code == Exit.UNREACHABLE
    assert "--ca" in untrusted.err and served.url in untrusted.err
