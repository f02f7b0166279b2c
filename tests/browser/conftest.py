"""A co-op with agents that beat, and a Chromium that looks at it."""

import shutil
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from tests.browser.chromium import Browser, driven
from tests.browser.crowd import Crowd, crowd
from tests.integration.controllers import ADMINS, Served, controller_served
from tests.unit.fleets import GOOD

FLEET = GOOD.partition("zones:")[0].replace(
    "members:\n", "members:\n  lucha: {name: '<b>Lucha & “Paz”</b>', language: es}\n"
)
HOSTS = ("mx1-web-01", "mx1-web-09", "us1-web-01", "mx1-edge-01")


class Opens(Protocol):
    def __call__(
        self, profile: Path, *, language: str = "en"
    ) -> AbstractAsyncContextManager[Browser]: ...


@dataclass(frozen=True, slots=True)
class Coop:
    """`url` is the dashboard's."""

    served: Served
    crowd: Crowd

    @property
    def url(self) -> str:
        return f"{self.served.url}/ui"

    async def arm(self) -> None:
        said = {"scope": "all", "arming": "arm", "reason": "a test"}
        status, told = await self.served.ask("PUT", "/v1/failover/arming", said=said)
        assert status == 200, told

    async def enter(self, browser: Browser, path: str = "/") -> None:
        """Log in, and go to `path`."""
        await browser.go(f"{self.url}/login")
        await browser.write("#token", ADMINS["ana"])
        await browser.click("form button")

        async def inside() -> bool:
            return "/login" not in await browser.here()

        await browser.until(inside, "let in")
        if path != "/":
            await browser.go(self.url + path)


@pytest_asyncio.fixture
async def coop(tmp_path: Path) -> AsyncGenerator[Coop, None]:
    """Four hosts, one of them an edge, all up; two sites, one gated and one automatic."""
    tokens = {host: f"token-of-{host}" for host in HOSTS}
    async with controller_served(tmp_path, tokens) as served:
        await served.placed(FLEET)
        controller = served.controller
        async with crowd(served, tokens) as agents:
            await served.until(
                lambda: {v.kind.value for v in controller.board.verdicts.values()} == {"up"}
            )
            yield Coop(served, agents)


@pytest_asyncio.fixture
async def opens() -> AsyncGenerator[Opens, None]:
    if missing := [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]:
        pytest.skip(f"no {' and no '.join(missing)}: apt install chromium chromium-driver")
    async with driven() as opened:
        yield opened


@pytest_asyncio.fixture
async def browser(opens: Opens, tmp_path: Path) -> AsyncGenerator[Browser, None]:
    """An English window with a fresh profile; nothing may complain in its console."""
    async with opens(tmp_path / "profile") as window:
        yield window
        assert await window.complaints() == []
