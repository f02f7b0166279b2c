"""A stream that says when there is something new to look at, and that we are still here.

It tells a digest of what is, never what happened: a page compares it with its own and asks for itself again, so
nothing is lost by a reader that was away. Source: WHATWG HTML, server-sent events.
"""

import asyncio
import hashlib
from typing import TYPE_CHECKING

from aiohttp import ClientError, web

from controller.calls import stage
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

STREAMS = 50  # open pages; each costs a look at a digest four times a second
LOOK_S = 0.25
# A page that is told something asks for itself again, some 15 ms of a core. The more are open, the rarer each is told:
# all of them together cost no more than a sixth of a core, also while the store changes without end.
EACH_S = 0.1
ALIVE_S = 4.0  # how often it says so when nothing is new; pages that hear nothing for 10 s say that they are blind
WRITE_S = 10.0  # a reader that takes nothing for this long is gone
DIGEST = 16  # hex digits


class Live:
    def __init__(self, controller: "Controller") -> None:
        self._controller = controller
        self._open = 0
        self._digest, self._looked_at = "", 0.0

    def digest(self) -> str:
        """What stands now, in 16 hex digits: the store's revision, verdicts, links and doubts."""
        now = asyncio.get_running_loop().time()
        if self._digest and now - self._looked_at < LOOK_S / 2:
            return self._digest
        controller, board, link = self._controller, self._controller.board, self._controller.link
        paused = controller.mirror.switches.paused
        basis = (
            controller.mirror.revision,
            controller.mirror.ready,
            controller.leader.leadership is not None,
            sorted((id, v.kind.value, v.why.code) for id, v in board.verdicts.items()),
            sorted(link.connected),
            link.doubt.doubts_itself,
            board.store_error,
            board.rewound is None,
            paused is not None and wall() < paused.until,
            sorted(
                (id, stage(word.help)) for id, word in controller.uses.hosts.items() if word.help
            ),
        )
        self._digest = hashlib.sha256(repr(basis).encode()).hexdigest()[:DIGEST]
        self._looked_at = now
        return self._digest

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET /ui/live: `look` with a digest when something is new; `alive` when nothing was for a while."""
        if self._open >= STREAMS:
            # A page that may not listen asks again by itself, as after a lost connection.
            return web.Response(status=503, headers={"Retry-After": "30"})
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        self._open += 1
        try:
            await response.prepare(request)
            await self._follow(response)
        except (OSError, ClientError):  # includes TimeoutError: the reader is gone
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._open -= 1
        return response

    async def _follow(self, response: web.StreamResponse) -> None:
        now = asyncio.get_running_loop().time
        changed, told, told_at = self._controller.mirror.changed, "", float("-inf")
        while True:
            count, digest = changed.count, self.digest()
            if digest != told and now() - told_at >= EACH_S * self._open:
                await _send(response, f"event: look\ndata: {digest}\n\n")
                told, told_at = digest, now()
            elif now() - told_at >= ALIVE_S:
                await _send(response, "event: alive\ndata:\n\n")
                told_at = now()
            await changed.within(count, LOOK_S)
            await asyncio.sleep(LOOK_S)  # a burst of commits is one look


async def _send(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(WRITE_S):
        await response.write(text.encode())
