"""Every contract test runs once per store."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from controller.store import Store
from tests.contract.stores import FACTORIES, Subject

PATIENCE_S = 20.0


@pytest.fixture(params=FACTORIES)
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Subject, None]:
    async with FACTORIES[request.param](tmp_path) as subject, asyncio.timeout(PATIENCE_S):
        yield subject


@pytest.fixture
def store(subject: Subject) -> Store:
    return subject.store
