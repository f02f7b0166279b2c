"""Why a value does not fit a type, for every field of it, in the words of the file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, get_args, get_origin

import msgspec

from fleet.findings import Finding, Path, Suggestions
from fleet.yamltree import Node, plain

WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
}
NAMES = {"PlanCaps": "plan's caps"}  # of what is not called as its type is
LINE_END = r"$(?!\n)"
PATTERNS = {  # the pattern of a type, as the model has it without its end: what it means
    r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}": "a name: letters, digits and _ . -, a letter or digit first, 63 at most",
    r"^[A-Z]{2}": "a country: two capital letters (ISO 3166-1), such as MX",
    r"^[A-Z]{3}": "a currency: three capital letters (ISO 4217), such as EUR",
    r"^/[!-~]*": 'a path: "/" first, no spaces',
}
# msgspec's words: "Expected `int` >= 1 - at `$.port`", "Expected `int | null`, got `str`".
EXPECTED = re.compile(r"Expected `(?P<types>[^`]+)`(?P<rule>.*)", re.DOTALL)
AT = re.compile(r" - at `\$(.*)`$")
GOT = re.compile(r", got (?:`[^`]+`|[0-9]+)$")
MATCHING = re.compile(r" matching regex '(.*)'$")
INDEX = re.compile(r"\[([0-9]+)\]")


@dataclass(slots=True)
class Explained:
    """`good`: the fields that fit, converted."""

    good: dict[str, object] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def explain(
    said: Mapping[str, Node],
    type_: type[msgspec.Struct],
    path: Path,
    suggest: Suggestions,
    *,
    given: str = "",
) -> Explained:
    """Judge what `said` gives for each field of `type_`; the field `given` comes from elsewhere."""
    explained = Explained()
    fields = {f.name: f for f in msgspec.structs.fields(type_) if f.name != given}
    for name in said.keys() - fields.keys():
        what = NAMES.get(type_.__name__, type_.__name__.lower())
        remedy = suggest(name, fields, among=what, otherwise=f"it may have {', '.join(fields)}")
        finding = Finding(path=(*path, name), message=f"is not a field of a {what}", remedy=remedy)
        explained.findings.append(finding)
    for name, info in fields.items():
        if name not in said:
            if info.required:
                finding = Finding(
                    path=(*path, name), message="is missing", remedy=_wanted(info.type)
                )
                explained.findings.append(finding)
            continue
        wrong = missing_or_wrong(said[name], info.type, (*path, name), suggest)
        if wrong:
            explained.findings.extend(wrong)
        else:
            explained.good[name] = msgspec.convert(plain(said[name]), info.type)
    return explained


def missing_or_wrong(node: Node, type_: object, path: Path, suggest: Suggestions) -> list[Finding]:
    """Everything in `node` that does not fit `type_`."""
    try:
        msgspec.convert(plain(node), type_)
    except msgspec.ValidationError as error:
        said = str(error)
    else:
        return []
    if (
        isinstance(type_, type)
        and issubclass(type_, msgspec.Struct)
        and isinstance(node.value, dict)
    ):
        return explain(node.value, type_, path, suggest).findings
    arguments = get_args(type_)
    if get_origin(type_) is tuple and arguments[-1] is Ellipsis and isinstance(node.value, list):
        return [
            finding
            for index, child in enumerate(node.value)
            for finding in missing_or_wrong(child, arguments[0], (*path, index), suggest)
        ]
    return [_scalar(node, type_, path, said, suggest)]


def _scalar(node: Node, type_: object, path: Path, said: str, suggest: Suggestions) -> Finding:
    value = node.text if not isinstance(node.value, dict | list) else None
    if words := choices(type_):
        remedy = suggest(value or "", words, among=",".join(words))
        message = f"is not one of {', '.join(words)}"
        return Finding(path=path, value=value, message=message, remedy=remedy)
    if node.value is None:
        return Finding(path=path, message="has no value", remedy="leave it out, or give one")
    if (at := AT.search(said)) and isinstance(node.value, list):
        index = int(step[1]) if (step := INDEX.match(at[1])) else 0
        path, node = (*path, index), node.value[index]
        value = node.text if not isinstance(node.value, dict | list) else None
    found = EXPECTED.match(GOT.sub("", AT.sub("", said)))
    if not found:
        return Finding(path=path, value=value, message=f"does not fit: {said}")
    wanted = " or ".join(WORDS.get(t, t) for t in found["types"].split(" | ") if t != "null")
    if matching := MATCHING.match(found["rule"]):
        pattern = matching[1].replace("\\\\", "\\").removesuffix(LINE_END)
        meaning = PATTERNS.get(pattern, f"text that matches {pattern}")
        return Finding(path=path, value=value, message=f"is not {meaning}")
    remedy = _rewritten(node, wanted, value)
    return Finding(path=path, value=value, message=f"is not {wanted}{found['rule']}", remedy=remedy)


def _rewritten(node: Node, wanted: str, value: str | None) -> str:
    if value is None:
        return ""
    if wanted == "text" and not isinstance(node.value, str):
        return f'quote it: "{value}"'
    if wanted == "a list":
        return f"write [{value}]"
    return ""


def choices(type_: object) -> list[str]:
    """The words that an enumeration or a literal type allows."""
    for part in (type_, *get_args(type_)):
        if isinstance(part, type) and issubclass(part, Enum):
            return [member.value for member in part]
        if get_origin(part) is Literal:
            return [str(word) for word in get_args(part)]
    return []


def _wanted(type_: object) -> str:
    words = choices(type_)
    return f"one of {', '.join(words)}" if words else ""
