"""Controllers' questions about the past of this host's sites: a few wait, one at a time is answered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Never

import msgspec

from fleet.pastuse import PastAsked, PastTold
from metrics.exporter import Exporter

# Of all controllers together: each asks one host no more than four at a time. Who is beyond is told so.
WAITING_MAX = 8

Find = Callable[[PastAsked], Awaitable[PastTold]]
"""Looks it up, and never for long."""
Reply = Callable[[bytes], None]
"""Takes an answer back to the controller that asked."""


class Questions:
    """`ask` returns at once; answers come from `keep`."""

    def __init__(self, find: Find, exporter: Exporter) -> None:
        self._find, self._exporter = find, exporter
        self._waiting: asyncio.Queue[tuple[PastAsked, Reply]] = asyncio.Queue(WAITING_MAX)

    def ask(self, asked: PastAsked, reply: Reply) -> None:
        """Answer when it is its turn; at once, if there is no room for it."""
        if self._waiting.full():
            told = PastTold(
                number=asked.number,
                site=asked.site,
                error=f"{WAITING_MAX} questions wait there already",
            )
            self._answer(told, reply)
            return
        self._waiting.put_nowait((asked, reply))

    async def keep(self) -> Never:
        """Eternal."""
        while True:
            asked, reply = await self._waiting.get()
            self._answer(await self._find(asked), reply)

    def _answer(self, told: PastTold, reply: Reply) -> None:
        outcome = "failed" if told.error else "answered"
        self._exporter.count("relevo_agent_questions_total", outcome=outcome)
        reply(msgspec.json.encode(told))
