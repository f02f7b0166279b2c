"""Something that happens again and again, and that many may wait for; nobody misses it, nobody queues it."""

import asyncio


class Pulse:
    """A count of beats. A waiter that comes late sees at once that it has missed some."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def beat(self) -> None:
        self.count += 1
        woken, self._next = self._next, asyncio.Event()
        woken.set()

    async def after(self, count: int) -> int:
        """Wait until there were more than `count` beats; gives how many there are."""
        while self.count <= count:
            await self._next.wait()
        return self.count

    async def within(self, count: int, timeout_s: float) -> int:
        """As `after`, but gives up after `timeout_s` and says how many there are then."""
        if timeout_s > 0:
            try:
                async with asyncio.timeout(timeout_s):
                    return await self.after(count)
            except TimeoutError:
                pass
        return self.count
