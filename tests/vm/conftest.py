"""The virtual machines that tests go on from: installed and configured once a run, then saved."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tests.vm import coop
from tests.vm.image import CACHE, Image, debian
from tests.vm.machine import Saved


@pytest.fixture(scope="session")
def image() -> Image:
    if os.geteuid() != 0:
        pytest.skip("a Debian image is made by root")
    return debian()


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Where machines are saved: some 100 MB each, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="saved-", dir=CACHE) as made:
        yield Path(made)


@pytest.fixture(scope="session")
def program(image: Image, folder: Path) -> Saved:
    """A machine with the program installed as the document says, and nothing configured."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coop.install(image, folder))


@pytest.fixture(scope="session")
def begun(program: Saved, folder: Path) -> tuple[Saved, Saved]:
    """Two machines of a co-op where all is well: what the document says has been done, literally."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coop.begin(program, folder))
