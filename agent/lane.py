"""Work that may hang, one piece at a time: a disk that does not answer costs one thread, and nobody else's."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from agent.ports import DriverError

T = TypeVar("T")


class Lane:
    """Pieces queue for their turn; while one that was given up on still hangs, the next ones fail at once.

    The thread is its own: the loop's few are shared, and a piece that waits for one of those may never begin.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._busy = threading.Event()
        self._thread = ThreadPoolExecutor(1, "lane")

    @property
    def hangs(self) -> bool:
        """Whether there is a piece that has not ended."""
        return self._busy.is_set()

    async def run(self, timeout_s: float | None, work: Callable[[], T]) -> T:
        """Do `work` in a thread. Raises DriverError: its own, or because it is late or can't begin.

        `timeout_s`: None for what only computes, and ends.
        """
        try:
            async with asyncio.timeout(timeout_s), self._turn:
                if self._busy.is_set():
                    raise DriverError("the piece of work before it still hangs")
                self._busy.set()
                doing = self._thread.submit(work)
                doing.add_done_callback(self._ended)  # also of one that was taken back in time
                return await asyncio.wrap_future(doing)
        except TimeoutError as error:
            raise DriverError(f"no end within {timeout_s} s") from error

    def _ended(self, _: object) -> None:
        self._busy.clear()
