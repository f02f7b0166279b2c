"""Stories in a simulated co-op."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from failover.policy import Policy
from tests.simulation.clock import play
from tests.simulation.coop import Shape
from tests.simulation.world import World, world

Play = Callable[..., None]


@pytest.fixture
def in_world(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Play a story in a settled world whose controllers trust themselves."""

    def run(
        story: Callable[[World], Awaitable[None]],
        shape: Shape | None = None,
        policy: Policy | None = None,
    ) -> None:
        async def whole() -> None:
            async with world(1, shape, policy) as made:
                await asyncio.sleep(12.0)
                await story(made)

        play(monkeypatch, whole())

    return run
