"""A client of the store while something breaks: it writes, watches, holds a lease, and checks what it was told."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from controller.store import Ambiguous, Lease, LeaseLost, NoSpace, Store, Unavailable

EVERY_S = 0.05
SETTLE_S = 15.0


@dataclass(slots=True, eq=False)
class Witness:
    """Values are numbers, each written once below `w/`."""

    store: Store
    lease: Lease
    written: list[int] = field(default_factory=list)
    doubtful: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    heard: list[tuple[int, int]] = field(default_factory=list)  # (revision, value)
    _last: float = 0.0
    _longest_s: float = 0.0
    _number: int = 0

    @property
    def longest_silence_s(self) -> float:
        """The one that goes on included."""
        return max(self._longest_s, asyncio.get_running_loop().time() - self._last)

    async def write(self) -> None:
        while True:
            self._number += 1
            number = self._number
            try:
                await self.store.put(b"w/%d" % (number % 7), b"%d" % number)
                self.written.append(number)
            except Ambiguous:
                self.doubtful.append(number)
            except (Unavailable, NoSpace, LeaseLost):
                self.refused.append(number)
            await asyncio.sleep(EVERY_S)

    async def listen(self, after: int) -> None:
        now = asyncio.get_running_loop().time
        self._last = now()
        async with aclosing(self.store.watch(b"w/", after=after)) as batches:
            async for batch in batches:
                if batch.events:
                    self._longest_s, self._last = self.longest_silence_s, now()
                for event in batch.events:
                    self.heard.append((event.kv.mod_revision, int(event.kv.value)))

    async def settled(self) -> None:
        """Wait until what is written now is heard."""
        async with asyncio.timeout(SETTLE_S):
            begun = len(self.written)
            while len(self.written) < begun + 3:
                await asyncio.sleep(EVERY_S)
            last = self.written[-1]
            while not any(value == last for _, value in self.heard):
                await asyncio.sleep(EVERY_S)

    def check(self) -> None:
        """Nothing missed, nothing twice, in order; what was refused never happened."""
        revisions = [revision for revision, _ in self.heard]
        assert revisions == sorted(set(revisions))
        values = [value for _, value in self.heard]
        assert len(values) == len(set(values))
        last = values[-1]
        assert {n for n in self.written if n <= last} <= set(values)
        assert set(values) <= {*self.written, *self.doubtful, self._number}
        assert not set(values) & set(self.refused)


@asynccontextmanager
async def witness(store: Store, *, ttl: int = 6) -> AsyncGenerator[Witness, None]:
    """At work within the block; checked at its end."""
    lease = await store.grant(ttl)
    await store.put(b"leased", b"", lease=lease.id)
    after = (await store.list(b"w/")).revision
    one = Witness(store, lease)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.write()), group.create_task(one.listen(after))]
        await one.settled()
        yield one
        await one.settled()
        for task in tasks:
            task.cancel()
    one.check()
