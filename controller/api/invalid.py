"""What is wrong with an input, for whoever wrote it: the field, the value that was found there, and what it may be."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

import msgspec

from controller.api.problems import AT, BLANK, BadRequest
from fleet.model import NAME

NAMED = re.compile(r"^Object (?:missing required|contains unknown) field `(?P<name>[^`]*)`")
STEP = re.compile(r"(?P<name>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")
VALUE_CHARACTERS = 200  # of a wrong value, to recognize it by

Schema = Mapping[str, Any]


def raise_named(
    error: msgspec.ValidationError,
    kind: type[msgspec.Struct],
    said: object,
    *,
    slug: str,
) -> NoReturn:
    """Raise `error`, about an input `said` that should have been a `kind`, as a problem that helps."""
    text = str(error).replace(BLANK, "Must not be blank")
    at = AT.search(text)
    field = at["field"] if at else ""
    if missing := NAMED.match(text):
        field = f"{field}.{missing['name']}" if field else missing["name"]
    raise BadRequest(
        AT.sub("", text) + ("" if text.endswith(".") else "."),
        field=field,
        value=value_at(said, field),
        remedy=remedy(kind, field),
        slug=slug,
    ) from error


def whole_numbers(said: object) -> object:
    """`said` with 1.0 as 1: for JSON Schema a number without a fraction is an integer (draft 2020-12, §4.2.3)."""
    match said:
        case float() if said.is_integer():
            return int(said)
        case dict():
            return {key: whole_numbers(value) for key, value in said.items()}
        case list():
            return [whole_numbers(value) for value in said]
    return said


def value_at(said: object, field: str) -> str:
    """What stands at `field`, as JSON of bounded length; empty where nothing does, or which of several is not known."""
    for step in STEP.finditer(field):
        index = step["index"]
        if isinstance(said, Mapping) and index is None and step["name"] in said:
            said = said[step["name"]]
        elif isinstance(said, list) and index is not None and index.isdigit():
            said = said[int(index)]
        else:
            return ""
    text = said if isinstance(said, str) else msgspec.json.encode(said).decode()
    return text[:VALUE_CHARACTERS] if field else ""


def remedy(kind: type[msgspec.Struct], field: str) -> str:
    """What may stand at `field`, in a sentence; what fields there are, where there is no such one."""
    schema = resolved(_schema(kind), _schema(kind))
    for step in STEP.finditer(field):
        if step["name"] is None:
            return ""
        fields: Schema = schema.get("properties", {})
        if step["name"] not in fields:
            return f"There are: {', '.join(fields)}." if fields else "There are no fields here."
        schema = resolved(fields[step["name"]], _schema(kind))
    return f"`{field}` is {described(schema)}." if field and described(schema) else ""


def resolved(schema: Schema, whole: Schema) -> Schema:
    while (reference := schema.get("$ref")) is not None:
        schema = whole["$defs"][reference.rsplit("/", 1)[-1]]
    return schema


def described(schema: Schema) -> str:
    """A field's schema in words; empty where there are none that help."""
    if "anyOf" in schema:
        return " or ".join(filter(None, map(described, schema["anyOf"])))
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    match schema.get("type"):
        case "string" if schema.get("pattern") == NAME:
            return "a name: a letter or digit, then up to 62 letters, digits, `_`, `.` or `-`"
        case "string" if "maxLength" in schema:
            return f"text of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
        case "integer" | "number" as number:
            return ("a whole number" if number == "integer" else "a number") + _bounds(schema)
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case str(other):
            return {"string": "text", "array": "a list", "object": "an object"}.get(other, "")
    return ""


def _bounds(schema: Schema) -> str:
    said = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    found = [f" {word} {schema[name]:,}" for name, word in said.items() if name in schema]
    return ",".join(found)


@cache
def _schema(kind: type[msgspec.Struct]) -> Schema:
    return msgspec.json.schema(kind)
