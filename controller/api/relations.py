"""What fields of one body have to do with each other, as its JSON Schema says it."""

from collections.abc import Mapping
from typing import Any

Relations = Mapping[str, Any]


def either(without: Mapping[str, Any], having: Mapping[str, Any], *, present: str) -> Relations:
    """Two ways to say it; the field `present` must stand in the second one, and may be null in the first."""
    return {"oneOf": [{"properties": without}, {"properties": having, "required": [present]}]}


def of(kind: type) -> Relations:
    """What `kind` declares as its RELATIONS: keywords beside those that its fields give."""
    found: Relations = getattr(kind, "RELATIONS", {})
    return found
