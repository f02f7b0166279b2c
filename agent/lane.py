"""Work that may hang, one piece at a time: a disk that does not answer costs one thread, not all there are."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from agent.ports import DriverError

T = TypeVar("T")


class Lane:
    """Pieces queue for their turn; while one that was given up on still hangs, the next ones fail at once."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._busy = threading.Event()

    async def run(self, timeout_s: float, work: Callable[[], T]) -> T:
        """Do `work` in a thread. Raises DriverError: its own, or because it is late or can't begin."""
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                if self._busy.is_set():
                    raise DriverError("the piece of work before it still hangs")
                self._busy.set()
                return await asyncio.to_thread(self._work, work)
        except TimeoutError as error:
            raise DriverError(f"no end within {timeout_s:g} s") from error

    def _work(self, work: Callable[[], T]) -> T:
        try:
            return work()
        finally:
            self._busy.clear()
