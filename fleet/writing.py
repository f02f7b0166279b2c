"""A fleet as a file: one line for each item, in a stable order, what is default left out."""

import re
from collections.abc import Iterator
from enum import Enum

import msgspec

from fleet.kinds import KINDS, Item, id_field, items
from fleet.model import Fleet
from fleet.scalars import FALSE, NULL, TRUE
from fleet.units import format_bytes, is_size

VERSION = 1
# Nothing that a reader of YAML, 1.1 or 1.2, could take for something else: `y` and `n` are booleans to some.
PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]+(?: [A-Za-z0-9_./-]+)*|[0-9]+ (?:[KMGT]iB|[kMGT]B)")
RESERVED = NULL | TRUE | FALSE
UNQUOTABLE = re.compile(r'["\\]|[^ -~\u00a1-\ud7ff\ue000-\ufefe\uff00-\ufffd]')


def write(fleet: Fleet) -> str:
    """Canonical YAML: `read(write(fleet)) == fleet`, and equal fleets are written alike."""
    return "\n".join(_lines(fleet)) + "\n"


def _lines(fleet: Fleet) -> Iterator[str]:
    yield f"version: {VERSION}"
    for kind in KINDS:
        if found := items(fleet, kind):
            yield f"\n{kind}:"
            for key in sorted(found):
                yield from _item(kind, key, found[key])


def _item(kind: str, key: str, item: Item) -> Iterator[str]:
    said = declared(item, leave_out=id_field(kind))
    if kind != "plans":
        yield f"  {_text(key)}: {_flow(said)}"
        return
    yield f"  {_text(key)}:"  # caps are many: a line for each
    for name, value in said.items():
        if isinstance(value, dict) and name == "caps":
            yield "    caps:"
            yield from (f"      {cap}: {_flow(cap_value)}" for cap, cap_value in value.items())
        else:
            yield f"    {name}: {_flow(value)}"


def declared(struct: msgspec.Struct, leave_out: str = "") -> dict[str, object]:
    """The fields that differ from their defaults, as bare values, in the order of the type."""
    said = {}
    for f in msgspec.structs.fields(struct):
        value = getattr(struct, f.name)
        if f.name == leave_out or (value == f.default and type(value) is type(f.default)):
            continue
        said[f.name] = _bare(value, f.name)
    return said


def _bare(value: object, name: str) -> object:
    match value:
        case msgspec.Struct():
            return declared(value)
        case Enum():
            return value.value
        case tuple():
            return [_bare(v, name) for v in value]
        case int() if is_size(name):
            return format_bytes(value)
        case _:
            return value


def _flow(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_text(k)}: {_flow(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(_flow(v) for v in value) + "]"
        case str():
            return _text(value)
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case _:
            return _number(value)


def _number(value: object) -> str:
    """YAML 1.1 reads `1e-05` as text: a mantissa with a point is a number to all."""
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _text(text: str) -> str:
    if PLAIN.fullmatch(text) and text not in RESERVED:
        return text
    return '"' + UNQUOTABLE.sub(_escape, text) + '"'


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in '"\\':
        return f"\\{character}"
    return f"\\U{ord(character):08X}"
