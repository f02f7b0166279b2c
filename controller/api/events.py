"""Events as they happen, to any number of readers up to a limit. Source: WHATWG HTML, server-sent events.

An id is `<process>.<count>`: after a restart of the controller a reader learns that it may have missed some.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
from aiohttp import ClientError, web

from controller.api.answers import answer, worded
from controller.api.auth import ADMITTED
from controller.api.problems import Busy
from controller.api.routes import Call, Content, Route, route
from controller.events import KEPT, Happening

if TYPE_CHECKING:
    from controller.parts import Controller

STREAMS = 100
QUIET_S = 10.0  # after this long a comment says that we are still here
WRITE_S = 10.0  # a reader that takes nothing for this long is gone

TEXT = {"type": "string"}
STREAM = Content(
    "text/event-stream",
    "Server-sent events, each with an id, a kind and JSON data.",
    schema={
        "type": "object",
        "description": "One event. `data` is a JSON object.",
        "properties": {
            "id": TEXT,
            "event": TEXT,
            "data": {**TEXT, "contentMediaType": "application/json"},
        },
        "required": ["event", "data"],
    },
)


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`history`: what is remembered comes first."""

    history: bool = False


class Stream:
    def __init__(self, controller: "Controller") -> None:
        self._events, self._exporter = controller.events, controller.exporter
        self._process = secrets.token_hex(4)
        self._open = 0

    def routes(self) -> list[Route]:
        return [
            route(
                "GET",
                "/v1/events",
                self.stream,
                role="viewer",
                gives=(STREAM,),
                refuses=("busy",),
                headers={"Last-Event-ID": "Go on after this event."},
            )
        ]

    async def stream(self, call: Call[EventsQuery, None]) -> web.StreamResponse:
        """What happens from now on; with `history`, or a Last-Event-ID, what is remembered first.

        Who accepts application/json only gets what is remembered, as one answer.
        """
        lang, request = call.lang, call.request
        if request.headers.get("Accept", "").startswith("application/json"):
            kept = [self._told(event) for event in self._events.since(0)]
            return answer({"events": kept, "last": self._id(self._events.last)}, lang)
        last, missed = self._begin(request, history=call.query.history)
        async with self._counted():
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            )
            await response.prepare(request)
            try:
                if missed:
                    await _send(response, "event: missed\ndata: {}\n\n")
                await self._follow(response, last, lang, request[ADMITTED].still)
            except (OSError, ClientError):  # includes TimeoutError: the reader is gone
                if request.transport is not None:
                    request.transport.abort()
            return response

    @asynccontextmanager
    async def _counted(self) -> AsyncGenerator[None, None]:
        if self._open >= STREAMS:
            raise Busy(f"{STREAMS} event streams are open; close one of them.")
        self._open += 1
        self._exporter.set("relevo_api_streams", self._open)
        try:
            yield
        finally:
            self._open -= 1
            self._exporter.set("relevo_api_streams", self._open)

    def _begin(self, request: web.Request, *, history: bool) -> tuple[int, bool]:
        """(the last event that the reader has, whether it may have missed some)."""
        said = request.headers.get("Last-Event-ID", "")
        if not said:
            return 0 if history else self._events.last, False
        process, _, count = said.partition(".")
        if process == self._process and count.isascii() and count.isdigit():
            return min(int(count[:18]), self._events.last), False
        return 0, True

    async def _follow(
        self, response: web.StreamResponse, last: int, lang: str, admitted: Callable[[], bool]
    ) -> None:
        while admitted():
            count = self._events.added.count
            news = self._events.since(last)
            forgotten = self._events.last - KEPT
            if last and last < forgotten:
                await _send(response, "event: missed\ndata: {}\n\n")
            for event in news:
                await _send(response, self._framed(event, lang))
                last = event.id
            if not news and await self._events.added.within(count, QUIET_S) == count:
                await _send(response, ":\n\n")

    def _framed(self, event: Happening, lang: str) -> str:
        data = msgspec.json.encode(worded(event.data, lang)).decode()
        return f"id: {self._id(event.id)}\nevent: {event.kind}\ndata: {data}\n\n"

    def _told(self, event: Happening) -> dict[str, object]:
        return {"id": self._id(event.id), "event": event.kind, "data": event.data}

    def _id(self, count: int) -> str:
        return f"{self._process}.{count}"


async def _send(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(WRITE_S):
        await response.write(text.encode())
