"""A release of skew, by real processes: the release before this one on one side of the link, this one on the other."""

import asyncio
import io
import os
import re
import subprocess
import sys
import tarfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.link import ACK_S
from tests.integration.test_joining import RELEVO, Coop

pytestmark = [pytest.mark.integration, pytest.mark.long]

ROOT = Path(__file__).parents[2]
GIT_S = 30.0


def git(*arguments: str) -> bytes:
    return subprocess.run(
        ("git", "-C", str(ROOT), *arguments), check=True, capture_output=True, timeout=GIT_S
    ).stdout


def release_before() -> str:
    """The newest tag below this tree's version; RELEVO_SKEW names another commit."""
    if told := os.environ.get("RELEVO_SKEW"):
        return told
    try:
        tags = git("tag", "--merged", "HEAD", "--list", "v*", "--sort=-version:refname").decode()
    except (OSError, subprocess.SubprocessError):
        tags = ""
    here = re.search(r'(?m)^version = "(.*)"$', (ROOT / "pyproject.toml").read_text())
    assert here is not None
    before = [tag for tag in tags.split() if tag != f"v{here[1]}"]
    if not before:
        pytest.skip("there is no release before this one; RELEVO_SKEW=COMMIT takes a commit for it")
    return before[0]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the release before."""
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(git("archive", release_before()))) as archive:
        archive.extractall(folder, filter="data")
    return folder


@dataclass
class Skewed(Coop):
    """A co-op in which the daemons of one kind, "agent" or "controller", are run from other sources."""

    kind: str = ""
    sources: Path = ROOT
    ran: tuple[str, str] = ("", "")

    async def start(self, *arguments: str | Path) -> Process:
        own = {
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "80",
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
        }
        if arguments[:2] == (self.kind, "--config"):
            own["PYTHONPATH"] = str(self.sources)
            self.ran = (self.kind, self._found(own))
        return await asyncio.create_subprocess_exec(
            *RELEVO,
            *map(str, arguments),
            cwd="/",
            env=own,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )

    def _found(self, environment: dict[str, str]) -> str:
        """Where the daemon's link comes from, in that environment."""
        told = f"import {self.kind}.link as link; print(link.__file__)"
        done = subprocess.run(
            (sys.executable, "-c", told),
            cwd="/",
            env=environment,
            check=True,
            capture_output=True,
            timeout=GIT_S,
        )
        return done.stdout.decode().strip()

    async def talks(self) -> None:
        """The host's beats are heard and acknowledged, its orders sent, and nothing it says is refused."""
        await self.linked()
        await asyncio.sleep(2 * ACK_S)  # without acknowledgements the agent would have left by now
        assert (await self.host()).linked
        text = (await self.look("/metrics")).decode()
        assert _value(text, "relevo_link_beats_total") >= 2 * ACK_S
        assert _value(text, "relevo_link_orders_sent_total") == 1
        assert _value(text, "relevo_link_refused_total") == 0


def _value(text: str, metric: str) -> float:
    lines = re.findall(rf"(?m)^{metric}(?:\{{.*\}})? (\S+)$", text)
    return sum(float(value) for value in lines)


@pytest.mark.parametrize("kind", ["agent", "controller"])
async def test_a_release_of_skew_ends_no_link(kind: str, before: Path, tmp_path: Path) -> None:
    """With the older one on either side beats and orders pass, also once it is upgraded over what it has kept."""
    skewed = Skewed(tmp_path, kind=kind)
    await skewed.init()
    places = skewed.places()
    async with skewed.controller():
        assert (await skewed.join(*await skewed.token()))[0] == 0
    places.config.write_text(places.config.read_text() + "[metrics]\nport = 0\n")
    for sources in (before, ROOT):
        skewed.sources = sources
        async with skewed.controller(), skewed.running("agent", "--config", places.config):
            await skewed.talks()
            assert skewed.ran == (kind, str(sources / kind / "link.py"))
