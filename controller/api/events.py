"""Events as they happen, to any number of readers up to a limit. Source: WHATWG HTML, server-sent events.

An id is `<process>.<count>`. Whoever comes again with an id that is not remembered, for the controller was started
anew or too much has happened since, is told to read the state again (`reset`), and then what is remembered.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
from aiohttp import ClientError, web

from controller.api.answers import worded
from controller.api.auth import ADMITTED
from controller.api.pages import Paged, paged
from controller.api.problems import Busy, TooMany
from controller.api.routes import Call, Content, Route, route
from controller.api.shapes import Page
from controller.events import Happening

if TYPE_CHECKING:
    from controller.parts import Controller

STREAMS = 100
STREAMS_OF_ONE = 10  # a person's windows, or a program and its successor
AGAIN_MS = 2000  # a browser comes again after this long
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


class EventsQuery(Paged, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`history`: what is remembered comes first. The others are for application/json."""

    history: bool = False


class EventTold(msgspec.Struct, frozen=True, kw_only=True):
    """`event`: its kind, which says what `data` holds."""

    id: str
    event: str
    data: dict[str, object]


class EventsTold(Page, frozen=True, kw_only=True):
    """What is remembered, oldest first. `last`: the newest event's id, for Last-Event-ID."""

    events: tuple[EventTold, ...]
    last: str


class Stream:
    def __init__(self, controller: "Controller") -> None:
        self._events, self._exporter = controller.events, controller.exporter
        self._process = secrets.token_hex(4)
        self._open: Counter[str] = Counter()

    def routes(self) -> list[Route]:
        return [
            route(
                "GET",
                "/v1/events",
                self.stream,
                role="viewer",
                gives=(STREAM,),
                refuses=("busy",),
                headers={"Last-Event-ID": "The last event that was read."},
            )
        ]

    async def stream(self, call: Call[EventsQuery, None]) -> web.StreamResponse | EventsTold:
        """What happens from now on, as server-sent events; with `history` after what is remembered.

        With Last-Event-ID it goes on after that event. The event `reset` says that some may be lost (`why`:
        `restarted`, or `overrun`): read the state again. A comment each 10 s says that the controller is still there;
        who takes nothing for 10 s is cut off. A token may have 10 streams.

        Whoever asks for application/json gets what is remembered, in pages.
        """
        lang, request = call.lang, call.request
        if request.headers.get("Accept", "").startswith("application/json"):
            return self._remembered(call)
        last, reset = self._begin(request, history=call.query.history)
        async with self._counted(call.who):
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            )
            await response.prepare(request)
            try:
                await _send(response, f"retry: {AGAIN_MS}\n\n")
                if reset:
                    await self._reset(response, last, reset)
                await self._follow(response, last, lang, request[ADMITTED].still)
            except (OSError, ClientError):  # includes TimeoutError: the reader is gone
                if request.transport is not None:
                    request.transport.abort()
            return response

    def _remembered(self, call: Call[EventsQuery, None]) -> EventsTold:
        kept = self._events.since(0)
        some, following = paged(call, kept, lambda event: f"{event.id:019d}")
        last = self._id(self._events.last)
        return EventsTold(events=tuple(map(self._told, some)), last=last, next=following)

    @asynccontextmanager
    async def _counted(self, who: str) -> AsyncGenerator[None, None]:
        """Raises TooMany, Busy."""
        if self._open[who] >= STREAMS_OF_ONE:
            raise TooMany(f"{STREAMS_OF_ONE} event streams are open with this token.", QUIET_S)
        if self._open.total() >= STREAMS:
            raise Busy(f"{STREAMS} event streams are open; close one of them.")
        self._open[who] += 1
        self._exporter.set("relevo_api_streams", self._open.total())
        try:
            yield
        finally:
            self._open[who] -= 1
            self._open += Counter()  # forget who has none
            self._exporter.set("relevo_api_streams", self._open.total())

    def _begin(self, request: web.Request, *, history: bool) -> tuple[int, str]:
        """(the last event that the reader has, why it must read the state again)."""
        said, events = request.headers.get("Last-Event-ID", ""), self._events
        if not said:
            return (events.forgotten if history else events.last), ""
        process, _, digits = said.partition(".")
        known = process == self._process and digits.isascii() and digits.isdigit()
        count = int(digits[:18]) if known else 0
        if not known or count > events.last:
            return events.forgotten, "restarted"
        return count, ""  # a count that is forgotten is seen by `_follow`

    async def _follow(
        self, response: web.StreamResponse, last: int, lang: str, admitted: Callable[[], bool]
    ) -> None:
        while admitted():
            count = self._events.added.count
            if last < (forgotten := self._events.forgotten):
                last = forgotten
                await self._reset(response, last, "overrun")
            news = self._events.since(last)
            for event in news:
                await _send(response, self._framed(event, lang))
                last = event.id
            if not news and await self._events.added.within(count, QUIET_S) == count:
                await _send(response, ":\n\n")

    async def _reset(self, response: web.StreamResponse, last: int, why: str) -> None:
        """`last`: what follows comes after it."""
        said = f'id: {self._id(last)}\nevent: reset\ndata: {{"why":"{why}"}}\n\n'
        await _send(response, said)

    def _framed(self, event: Happening, lang: str) -> str:
        data = msgspec.json.encode(worded(event.data, lang)).decode()
        return f"id: {self._id(event.id)}\nevent: {event.kind}\ndata: {data}\n\n"

    def _told(self, event: Happening) -> EventTold:
        return EventTold(id=self._id(event.id), event=event.kind, data=event.data)

    def _id(self, count: int) -> str:
        return f"{self._process}.{count}"


async def _send(response: web.StreamResponse, text: str) -> None:
    async with asyncio.timeout(WRITE_S):
        await response.write(text.encode())
