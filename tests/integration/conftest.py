"""The real programs that the integration tests start and end, and a co-op whose sites have their hosts."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from deploy.demo.packages import TESTS, Tools, bring
from tests.integration.controllers import Served, controller_served


@pytest.fixture(scope="session")
def tools() -> Tools:
    """HAProxy, Knot, nginx, D-Bus, Prometheus and Alertmanager, from Debian's packages, none of them installed."""
    return Tools(bring(TESTS))


@pytest_asyncio.fixture
async def coop(tmp_path: Path) -> AsyncGenerator[Served, None]:
    async with controller_served(tmp_path) as served:
        await served.placed()
        yield served
