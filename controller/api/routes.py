"""What each path takes, gives and refuses, and who may ask: one table that serves, checks and describes the API.

A handler takes a `Call[Query, Body]` and returns its answer; its annotations are the contract.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, get_args, get_type_hints

import msgspec
from aiohttp import web

from controller.api.answers import BODY_BYTES, answer, body
from controller.api.auth import WHO, Handler
from controller.api.invalid import raise_named, whole_numbers
from controller.api.language import language
from controller.api.problems import BadRequest
from runtime.words import LANGUAGES

Q = TypeVar("Q", bound=msgspec.Struct)
B = TypeVar("B")

Method = Literal["GET", "PUT", "POST", "DELETE"]
# Who may ask. `open`: anybody. `host`: an agent, by its own token. The others are what people's tokens stand for, each
# with all that those before it may; a `member` sees what belongs to them.
Role = Literal["open", "host", "member", "viewer", "operator", "admin"]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A query without parameters of its own."""


@dataclass(frozen=True, slots=True)
class Content:
    """An answer, or a body, that is not JSON: its media type, and what it holds."""

    media: str
    says: str
    status: int = 200
    schema: Mapping[str, Any] | None = None
    limit_bytes: int = BODY_BYTES


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """A request, read and found valid. What is put in `headers` goes out with the answer."""

    request: web.Request
    query: Q
    body: B
    lang: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The path's `{id}`."""
        return self.request.match_info["id"]

    @property
    def who(self) -> str:
        """The name of whoever asks, known by their token."""
        return self.request[WHO]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One line of the table. `path` as aiohttp writes it; `gives` and `takes` where that is not JSON.

    `refuses`: slugs of the problems that it may answer, beyond those that every route may.
    """

    method: Method
    path: str
    role: Role
    handler: Callable[..., Awaitable[object]]
    summary: str
    more: str
    query: type[msgspec.Struct]
    body: type[msgspec.Struct] | None
    answer: object | None
    gives: tuple[Content, ...]
    takes: Content | None
    refuses: tuple[str, ...]
    headers: Mapping[str, str]
    creates: bool

    @property
    def lasts(self) -> bool:
        """Whether it goes on until somebody leaves: a stream, or a WebSocket."""
        return any(it.media == "text/event-stream" or it.status == 101 for it in self.gives)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Read and check what is asked, have it answered, and write that as JSON."""
        call = Call(request, self._query(request), await self._body(request), language(request))
        found = await self.handler(call)
        if isinstance(found, web.StreamResponse):
            return found
        assert isinstance(found, msgspec.Struct), "what is answered has a type"
        # What a `Location` was given for is new. Source: RFC 9110 §9.3.4
        response = answer(found, call.lang, status=201 if "Location" in call.headers else 200)
        response.headers.update(call.headers)
        return response

    def _query(self, request: web.Request) -> msgspec.Struct:
        """Raises BadRequest, which names the parameter."""
        said: dict[str, str] = {}
        for name, value in request.query.items():
            if name in said:
                raise BadRequest(
                    f"{name} is said twice.",
                    field=name,
                    value=value[:40],
                    remedy=f"Say {name} once.",
                )
            said[name] = value
        if (lang := said.pop("lang", LANGUAGES[0])) not in LANGUAGES:
            remedy = f"`lang` is one of {', '.join(LANGUAGES)}."
            raise BadRequest("No such language.", field="lang", value=lang[:40], remedy=remedy)
        try:
            return msgspec.convert(said, self.query, strict=False)
        except msgspec.ValidationError as error:
            raise_named(error, self.query, said, slug="bad-request")

    async def _body(self, request: web.Request) -> object:
        """Raises BadRequest, msgspec.DecodeError."""
        if self.takes is not None:
            return await body(request, self.takes.limit_bytes)
        if self.body is None:
            return None
        said = await body(request)
        try:
            return msgspec.json.decode(said, type=self.body)
        except msgspec.ValidationError as error:
            plain = msgspec.json.decode(said)
            with suppress(msgspec.ValidationError):
                return msgspec.convert(whole_numbers(plain), self.body)
            raise_named(error, self.body, plain, slug="invalid-body")


def route(
    method: Method,
    path: str,
    handler: Callable[..., Awaitable[object]],
    *,
    role: Role,
    gives: tuple[Content, ...] = (),
    takes: Content | None = None,
    refuses: tuple[str, ...] = (),
    headers: Mapping[str, str] | None = None,
    creates: bool = False,
) -> Route:
    """A line of the table. Query, body and answer are those of the handler's annotations; its docstring says the rest.

    `headers`: request headers that it heeds, each with what it means. `creates`: what it gives a `Location` for is new.
    """
    hints = get_type_hints(handler)
    query, body = get_args(hints["call"])
    summary, _, more = (inspect.getdoc(handler) or path).partition("\n")
    return Route(
        method=method,
        path=path,
        role=role,
        handler=handler,
        summary=summary.rstrip("."),
        more=more.strip(),
        query=query,
        body=None if body is type(None) or takes is not None else body,
        answer=_answer(hints["return"]),
        gives=gives,
        takes=takes,
        refuses=refuses,
        headers=headers or {},
        creates=creates,
    )


def _answer(hint: object) -> object | None:
    """Of what a handler returns, what becomes JSON."""
    members = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    found = [kind for kind in members if kind not in (web.Response, web.StreamResponse)]
    assert len(found) <= 1, "one shape of JSON for each route"
    return found[0] if found else None


class Table:
    """All routes by method and path; what is in no line of it is served to nobody."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._known = {(str(route.method), route.path): route for route in self.routes}
        assert len(self._known) == len(self.routes), "two routes of one method and path"

    def of(self, request: web.Request) -> Route | None:
        """The line that serves `request`; None where there is none: such a path or method does not exist."""
        resource = request.match_info.route.resource
        if request.match_info.http_exception is not None or resource is None:
            return None
        method = "GET" if request.method == "HEAD" else request.method
        return self._known.get((method, resource.canonical))

    def role_of(self, request: web.Request) -> Role | None:
        """Who may ask this; None where nobody may, for there is no such path or method."""
        return line.role if (line := self.of(request)) else None

    def register(self, app: web.Application) -> None:
        app[TABLE] = self
        for line in self.routes:
            app.router.add_route(line.method, line.path, line.serve)
            if line.method == "GET" and not line.lasts:
                app.router.add_route("HEAD", line.path, line.serve)


TABLE = web.AppKey("table", Table)


def path_parameters(path: str) -> tuple[str, ...]:
    """The names in a path: `{id}` gives `id`."""
    return tuple(re.findall(r"{(\w+)[^}]*}", path))


__all__ = ["TABLE", "Call", "Content", "Handler", "Nothing", "Role", "Route", "Table", "route"]
