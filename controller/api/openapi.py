"""The API's description, made from the table of routes and the types of its handlers. Source: OpenAPI 3.1.0."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import msgspec

from controller.api import relations
from controller.api.kinds import MEDIA, TYPES, Kind, ProblemDetails, by_status
from controller.api.routes import Content, Nothing, Role, Route, Table, path_parameters
from runtime.words import LANGUAGES

Json = dict[str, Any]
REF = "#/components/schemas/{name}"

WHO: Mapping[Role, str] = {
    "open": "Anybody may ask.",
    "host": "An agent asks, with its host's own token.",
    "member": "Needs a member's token, which shows what is theirs, or more.",
    "viewer": "Needs a viewer's token, or more.",
    "operator": "Needs an operator's token, or more.",
    "admin": "Needs an admin's token.",
}
ABOUT = """What a relevo controller tells and does.

Every controller answers; what changes something is done by the one that leads, the others answer `not-leading`.

- **Tokens** are sent as `Authorization: Bearer <token>`. Each operation says which role it needs (`x-relevo-role`).
- **Reasons** have a stable `code`, its `values`, and a sentence in the language of `?lang=` or `Accept-Language`.
- **Problems** are `application/problem+json` (RFC 9457) with a stable `type`, the `field` and its `value` where one is
  wrong, and the `remedy`. The type of a refusal (409) is the code of its reason.
- **Lists** come in pages: `limit` bounds one, `next` of its answer is the `cursor` of the one that follows; it is null
  on the last one. The same address stands in the header `Link`, `rel="next"`.
- **Limits**: past a token's rate the answer is 429 with `Retry-After` in s. Bodies above their limit are a 413.
- **Names of units** end fields: `_s` seconds, `_bytes`, `_ratio` (0 to 1). Instants are seconds since 1970 (UTC)."""
SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A person's or a program's token.",
    },
    "host": {"type": "http", "scheme": "bearer", "description": "A host's own token."},
}
# Source: RFC 9110 §8.8.3 (entity tags), WHATWG HTML §9.2 (event ids).
HEADERS: Mapping[str, Json] = {
    "If-Match": {"anyOf": [{"const": "*"}, {"type": "string", "pattern": r'^(W/)?"[!#-~]*"$'}]},
    "If-None-Match": {"type": "string", "enum": ["*"]},
    "Last-Event-ID": {"type": "string"},
}
COMMON = ("bad-request", "address-too-long", "headers-too-large")
GUARDED = ("not-admitted", "not-allowed", "too-many-requests")
BODY = ("malformed-json", "too-slow", "too-large", "invalid-body")


def described(table: Table) -> Json:
    """The whole document, as plain values."""
    kinds: list[Any] = [ProblemDetails]
    for line in table.routes:
        kinds += [kind for kind in (line.query, line.body, line.answer) if kind is not None]
    made, components = msgspec.json.schema_components(
        kinds, schema_hook=_anything, ref_template=REF
    )
    schemas = {repr(kind): schema for kind, schema in zip(kinds, made, strict=True)}
    components["Why"] = _worded(components["Why"])
    for line in table.routes:
        if line.body is not None:
            components[_leaf(schemas[repr(line.body)])] |= relations.of(line.body)
    queries = {repr(line.query): _leaf(schemas[repr(line.query)]) for line in table.routes}
    paths: Json = {}
    for line in table.routes:
        query = components[queries[repr(line.query)]]
        paths.setdefault(line.path, {})[line.method.lower()] = _operation(line, query, schemas)
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "relevo",
            "version": version("relevo"),
            "description": ABOUT,
            "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {
                name: it for name, it in components.items() if name not in queries.values()
            },
            "securitySchemes": SCHEMES,
        },
    }
    plain: Json = msgspec.json.decode(msgspec.json.encode(document))
    return plain


def _leaf(reference: Json) -> str:
    return str(reference["$ref"]).rsplit("/", 1)[-1]


def _anything(kind: type) -> Json:
    """A value as it was declared: any JSON."""
    assert kind is object, f"{kind} has no schema"
    return {"description": "Any JSON value."}


def _worded(why: Json) -> Json:
    """A reason, as it is answered: with its sentence."""
    properties = {**why["properties"], "text": {"type": "string"}}
    return {**why, "properties": properties, "required": ["code", "values", "text"]}


def _operation(line: Route, query: Json, schemas: Mapping[str, Json]) -> Json:
    said = [line.more, query.get("description", "") if line.query is not Nothing else ""]
    operation: Json = {
        "operationId": _name(line),
        "summary": line.summary,
        "description": "\n\n".join([text for text in said if text] + [WHO[line.role]]),
        "tags": [_tag(line.path)],
        "x-relevo-role": line.role,
        "security": _security(line.role),
        "parameters": [*_in_path(line), *_in_query(line, query), *_in_headers(line)],
        "responses": _responses(line, schemas),
    }
    if line.takes is not None:
        operation["requestBody"] = {"required": True, "content": _content(line.takes)}
    elif line.body is not None:
        content = {"application/json": {"schema": schemas[repr(line.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _name(line: Route) -> str:
    """Stable for programs that are made from this document: `get_hosts_id`."""
    words = line.path.removeprefix("/v1").replace("{", "").replace("}", "").replace(".", "/")
    return "_".join([line.method.lower(), *filter(None, words.split("/"))])


def _tag(path: str) -> str:
    first = path.removeprefix("/v1").split("/")[1]
    return "state of this controller" if path.removeprefix("/v1") == path else first


def _security(role: Role) -> list[Json]:
    if role == "open":
        return []
    return [{"host": []}] if role == "host" else [{"token": []}]


def _in_path(line: Route) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in path_parameters(line.path)
    ]


def _in_query(line: Route, query: Json) -> list[Json]:
    required = query.get("required", [])
    own = [
        {"name": name, "in": "query", "required": name in required, "schema": schema}
        for name, schema in query.get("properties", {}).items()
    ]
    lang = {"type": "string", "enum": list(LANGUAGES)}
    says = "The language of sentences; else that of Accept-Language."
    return [*own, {"name": "lang", "in": "query", "schema": lang, "description": says}]


def _in_headers(line: Route) -> list[Json]:
    return [
        {"name": name, "in": "header", "schema": HEADERS[name], "description": says}
        for name, says in line.headers.items()
    ]


def _responses(line: Route, schemas: Mapping[str, Json]) -> Json:
    found: Json = {}
    for status, kinds in by_status(_refuses(line)).items():
        found[str(status)] = _problem(status, kinds, schemas)
    if line.answer is not None:
        content = {"application/json": {"schema": schemas[repr(line.answer)]}}
        for status in (200, 201) if line.creates else (200,):
            found[str(status)] = {"description": f"{line.summary}.", "content": dict(content)}
    for given in line.gives:
        said = found.setdefault(str(given.status), {"description": given.says})
        if given.status != 101:
            said.setdefault("content", {}).update(_content(given))
    return dict(sorted(found.items()))


def _refuses(line: Route) -> list[str]:
    guarded = GUARDED if line.role != "open" else ()
    body = BODY if line.body is not None else BODY[1:3] if line.takes is not None else ()
    return [*COMMON, *guarded, *body, *line.refuses]


def _problem(status: int, kinds: tuple[Kind, ...], schemas: Mapping[str, Json]) -> Json:
    lines = [f"- `{kind.type}`: {kind.title}. {kind.remedy}".rstrip() for kind in kinds]
    if status == 409:
        lines = [f"- `{TYPES}<code of the reason>`: refused, and why."]
    found: Json = {
        "description": "\n".join(lines),
        "content": {MEDIA: {"schema": schemas[repr(ProblemDetails)]}},
    }
    if status == 429:
        says = "Seconds after which to ask again."
        found["headers"] = {"Retry-After": {"description": says, "schema": {"type": "integer"}}}
    return found


def _content(content: Content) -> Json:
    schema = content.schema or {"type": "string", "description": content.says}
    return {content.media: {"schema": dict(schema)}}
