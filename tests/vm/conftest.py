"""The virtual machines that tests go on from: installed and configured once a run, then saved."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from deploy.deb.__main__ import build
from tests.vm import capped
from tests.vm.image import CACHE, Image, debian
from tests.vm.installed import NEW, OLD, Pair, begin
from tests.vm.machine import Saved


@pytest.fixture(scope="session")
def image() -> Image:
    if os.geteuid() != 0:
        pytest.fail("a Debian image is made by root: run this as root, or leave tests/vm out")
    return debian()


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Where machines are saved: some 100 MB each, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="saved-", dir=CACHE) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def packages(image: Image) -> Iterator[dict[str, bytes]]:
    """The package of this tree, as two releases: the one that is installed, and its successor."""
    with tempfile.TemporaryDirectory(dir=CACHE) as made:
        yield {version: build(version, Path(made)).read_bytes() for version in (OLD, NEW)}


@pytest.fixture(scope="session")
def packaged(image: Image, folder: Path, packages: dict[str, bytes]) -> Pair:
    """Two machines of a co-op where all is well: what docs/install.md says has been done, literally."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(begin(image, folder, packages[OLD]))


@pytest.fixture(scope="session")
def shadowed(image: Image, folder: Path, packages: dict[str, bytes]) -> Saved:
    """A hosting server of eight sites with its agent, where every plan is in shadow."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(capped.begin(image, _new(folder, "shadowed"), packages[OLD]))


@pytest.fixture(scope="session")
def tight(shadowed: Saved, folder: Path) -> Saved:
    """The same with every site held to a small plan."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(capped.ordered(shadowed, _new(folder, "tight"), "tight"))


@pytest.fixture(scope="session")
def wide(shadowed: Saved, folder: Path) -> Saved:
    """The same with every site held to a plan that lets it hurt its neighbours."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(capped.ordered(shadowed, _new(folder, "wide"), "wide"))


def _new(folder: Path, name: str) -> Path:
    own = folder / name
    own.mkdir()
    return own
