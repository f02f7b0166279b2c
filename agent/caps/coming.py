"""What slices that are not there yet will hold by themselves, noted before anything is said of them."""

import asyncio
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from agent.caps.driver import Driver
from agent.caps.limits import FREE
from agent.caps.ours import Ours
from agent.ports import DriverError

AT_ONCE = 8  # calls to systemd in flight: more only wait in its queue, before everybody else's


@dataclass(frozen=True, slots=True)
class Coming:
    """`known`: as if nothing of them were ours yet. `failed`: of which nothing can be told, and why."""

    known: dict[str, Ours] = field(default_factory=dict)
    failed: dict[str, DriverError] = field(default_factory=dict)


async def coming(driver: Driver, slices: Collection[str]) -> Coming:
    found, todo = Coming(), iter(slices)
    async with asyncio.TaskGroup() as group:
        for _ in range(min(AT_ONCE, len(slices))):
            group.create_task(_ask(driver, todo, found))
    return found


async def _ask(driver: Driver, todo: Iterator[str], found: Coming) -> None:
    """One after another of those that nobody else has begun."""
    for slice in todo:
        try:
            was = await driver.by_itself(slice)
        except DriverError as error:
            found.failed[slice] = error
        else:
            found.known[slice] = Ours(sites=(), limits=FREE, fields=(), was=was)
