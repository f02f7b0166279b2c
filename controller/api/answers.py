"""JSON in and JSON out: typed bodies of bounded size, values with their reasons spelled out."""

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web

from controller.api.problems import BadRequest
from fleet.model import Why
from runtime.words import explain

T = TypeVar("T", bound=msgspec.Struct)
BODY_BYTES = 64 << 10
BODY_S = 30.0  # a body takes no longer to come


def answer(value: object, lang: str, *, status: int = 200) -> web.Response:
    """`value` as JSON, every reason in it with its sentence in `lang`."""
    return web.Response(
        body=msgspec.json.encode(worded(msgspec.to_builtins(value), lang)),
        status=status,
        content_type="application/json",
    )


def worded(value: object, lang: str) -> object:
    """Plain `value` with a `text` beside the code of every Why in it."""
    match value:
        case {"code": str(code), "values": dict(values), **rest} if not rest:
            return {"code": code, "values": values, "text": explain(Why(code, values), lang)}
        case dict():
            return {key: worded(below, lang) for key, below in value.items()}
        case list() | tuple():
            return [worded(below, lang) for below in value]
        case _:
            return value


async def body(request: web.Request, limit_bytes: int = BODY_BYTES) -> bytes:
    """The whole body. Raises BadRequest (413, 408) where it is too large or too slow."""
    too_large = BadRequest(f"The body may have {limit_bytes:,} bytes at most.", slug="too-large")
    if (request.content_length or 0) > limit_bytes:
        raise too_large
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.content.iter_any():
                read += chunk
                if len(read) > limit_bytes:
                    raise too_large
    except TimeoutError:
        raise BadRequest(f"The body did not come within {BODY_S:g} s.", slug="too-slow") from None
    return bytes(read)


async def order(request: web.Request, kind: type[T]) -> T:
    """The body as `kind`. Raises msgspec.DecodeError, BadRequest."""
    return msgspec.json.decode(await body(request), type=kind)
