"""JSON in and JSON out: typed bodies of bounded size, values with their reasons spelled out."""

import asyncio
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import msgspec
from aiohttp import web
from msgspec import inspect

from controller.api.problems import BadRequest
from fleet.model import Why
from runtime.words import explain

BODY_BYTES = 64 << 10
BODY_S = 30.0  # a body takes no longer to come
SENTENCES = (
    4096  # of some hundred bytes; a reason without a measured value is asked for again and again
)

Worder = Callable[[Any, str], None]


def answer(value: msgspec.Struct, lang: str, *, status: int = 200) -> web.Response:
    """`value` as JSON, every reason in it with its sentence in `lang`."""
    return web.Response(body=told(value, lang), status=status, content_type="application/json")


def told(value: msgspec.Struct, lang: str) -> bytes:
    """`value` as JSON with the sentences of its reasons, which its type says where to find."""
    plain = msgspec.to_builtins(value)
    if (word := _worder(type(value))) is not None:
        word(plain, lang)
    return msgspec.json.encode(plain)


def worded(value: object, lang: str) -> object:
    """Plain `value`, of no type that would say where, with a `text` beside the code of every Why in it."""
    match value:
        case {"code": str(code), "values": dict(values), **rest} if not rest:
            return {"code": code, "values": values, "text": explain(Why(code, values), lang)}
        case dict():
            return {key: worded(below, lang) for key, below in value.items()}
        case list() | tuple():
            return [worded(below, lang) for below in value]
        case _:
            return value


@lru_cache(SENTENCES)
def _sentence(code: str, values: tuple[tuple[str, str | int | float], ...], lang: str) -> str:
    return explain(Why(code, dict(values)), lang)


@cache
def _worder(kind: type) -> Worder | None:
    """What words the reasons in a plain `kind` in place; None where it has none."""
    return _of_type(inspect.type_info(kind))


def _of_type(kind: inspect.Type) -> Worder | None:
    match kind:
        case inspect.StructType(cls=cls) if cls is Why:
            return _why
        case inspect.StructType(fields=fields, array_like=False):
            below = [(field.encode_name, _of_type(field.type)) for field in fields]
            return _struct([(name, word) for name, word in below if word is not None])
        case inspect.UnionType(types=types):
            words = [word for word in map(_of_type, types) if word is not None]
            assert len(words) <= 1, "a reason in one of several shapes can't be found by type"
            return _optional(words[0]) if words else None
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return _each(_of_type(item))
        case inspect.DictType(value_type=item):
            return _each_value(_of_type(item))
    return None


def _why(plain: Any, lang: str) -> None:
    plain["text"] = _sentence(plain["code"], tuple(plain["values"].items()), lang)


def _struct(below: list[tuple[str, Worder]]) -> Worder | None:
    def word(plain: Any, lang: str) -> None:
        for name, one in below:
            if (found := plain.get(name)) is not None:
                one(found, lang)

    return word if below else None


def _optional(below: Worder) -> Worder:
    def word(plain: Any, lang: str) -> None:
        if plain is not None:
            below(plain, lang)

    return word


def _each(below: Worder | None) -> Worder | None:
    def word(plain: Any, lang: str) -> None:
        assert below is not None
        for one in plain:
            below(one, lang)

    return word if below else None


def _each_value(below: Worder | None) -> Worder | None:
    each = _each(below)

    def word(plain: Any, lang: str) -> None:
        assert each is not None
        each(plain.values(), lang)

    return word if each else None


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
