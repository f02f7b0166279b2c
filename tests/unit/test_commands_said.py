"""Every command line that relevo says, prints or alerts with is one that it understands when it is pasted."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from babel.messages.pofile import read_po

from cli.main import OWN, STARTED
from runtime.words import LOCALE
from tests.unit.test_docs import understand

ROOT = Path(__file__).parents[2]
ROOMS = ("agent", "cli", "controller", "deploy", "failover", "fleet", "runtime")
COMMANDS = "|".join(sorted((*OWN, *STARTED)))
SAID = re.compile(rf"(?<![\w/.-])relevo (?=(?:{COMMANDS})\b)")
FILLED = re.compile(
    r"\{\{.*?\}\}|\{[^{}]*\}|\$\w+"
)  # a value comes there: of Python, Jinja, Prometheus
# A word of a command line, in quotes or not; a mark after it ends the command.
WORD = re.compile(r"""\s*((?:[^\s"'`]|"[^"]*"|'[^']*')+)""")
MARKS = ".,;:)!?…"
FUNCTIONS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def lines(text: str) -> Iterator[list[str]]:
    """The words after each `relevo` that begins a command, to the end of the clause."""
    text = FILLED.sub("X1", text).replace("X1/", "")
    for found in SAID.finditer(text):
        words = []
        for word in WORD.findall(re.split(r"[`\n]", text[found.start() :], maxsplit=1)[0]):
            words.append(word.rstrip(MARKS) if not word.endswith(('"', "'")) else word)
            if word[-1] in MARKS or word == "-":
                break
        if words[:2] != [
            "relevo",
            "init",
        ]:  # what was done once: it is named, and not to be done again
            yield [word for word in words if word and word != "-"]


def wrong(words: list[str]) -> str:
    """Why it is none; prose may go on after a command, but never with an option."""
    options = [n for n, word in enumerate(words) if word.startswith("-")]
    shortest = max(options, default=1) + 1
    error = ""
    for end in range(len(words), shortest - 1, -1):
        try:
            understand(shlex.join(shlex.split(" ".join(words[:end]))))
        except (click.UsageError, ValueError) as reason:
            error = error or f"{' '.join(words)}: {reason}"
        else:
            return ""
    return error


def documented(module: ast.Module) -> set[int]:
    """Docstrings: these are for who reads the source."""
    return {
        id(node.body[0].value)
        for node in ast.walk(module)
        if isinstance(node, FUNCTIONS) and node.body and isinstance(node.body[0], ast.Expr)
    }


def sentences(path: Path) -> Iterator[str]:
    """Every text that a module can say, with a value in the place of each that is filled in."""
    module = ast.parse(path.read_text())
    skipped = documented(module)
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else filled(part)
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            yield node.value if isinstance(node.value, str) else ""


def filled(part: ast.expr) -> str:
    """What stands for a value: the reason's own words are an option."""
    return '--reason "…"' if "REASON" in ast.unparse(part) else "X1"


def translations(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for message in read_po(file, "es"):
            strings = message.string
            yield from strings if isinstance(strings, tuple) else (str(strings),)


def strings(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for each in value.values():
                yield from strings(each)
        case list():
            for each in value:
                yield from strings(each)


def said(source: str) -> Iterator[tuple[str, list[str]]]:
    """Each command line of a kind of source, and the file that it is in."""
    for path, texts in texts_of(source):
        for text in texts:
            yield from ((str(path.relative_to(ROOT)), words) for words in lines(text))


def texts_of(source: str) -> Iterator[tuple[Path, Iterator[str]]]:
    match source:
        case "alerts":
            path = ROOT / "deploy/prometheus/relevo.rules.yml"
            yield path, iter([" ".join(path.read_text().split("\n"))])
        case "dashboards":
            for path in sorted((ROOT / "deploy/grafana").glob("*.json")):
                yield path, strings(json.loads(path.read_text()))
        case "pages":
            for path in sorted((ROOT / "controller/web/templates").glob("*.html")):
                yield path, iter(path.read_text().splitlines())
        case "translations":
            for path in sorted(LOCALE.glob("*/LC_MESSAGES/*.po")):
                yield path, translations(path)
        case _:
            for path in sorted((ROOT / source).rglob("*.py")):
                yield path, sentences(path)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the files that commands name exist."""
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "COPY", "ARCHIVO", "fleet.yaml", "X1"):
        (tmp_path / name).touch()


@pytest.mark.parametrize("source", [*ROOMS, "alerts", "dashboards", "translations", "pages"])
def test_what_is_said_can_be_pasted(source: str) -> None:
    """Sentences, findings, tables, letters, alerts: with each option that the command needs."""
    assert [f"{path}: {error}" for path, words in said(source) if (error := wrong(words))] == []


def test_the_walk_finds_what_is_said() -> None:
    """In each kind of source that has some."""
    counts = {
        source: sum(1 for _ in said(source))
        for source in ("agent", "cli", "controller", "fleet", "runtime", "alerts", "translations")
    }
    assert all(counts.values()), counts
    assert counts["controller"] > 20 and counts["alerts"] > 20 and counts["translations"] > 5


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Until then: relevo site explain {site}.", True),
        ("relevo caps report names them.", True),
        ('say so: relevo caps arm --plan {plan} --reason "…", when shadow has watched it', True),
        ("relevo caps arm --plan {plan}, when shadow has watched it", False),
        ("before a person says so: relevo site quarantine {site}.", False),
        ("or relevo caps shadow --site SITE", False),
        ("relevo site explain SITE --now and then", False),
        ("relevo host show", False),
        ("relevo only observes, and relevo holds its breath", True),
    ],
)
def test_a_command_that_can_not_be_pasted_is_noticed(text: str, right: bool) -> None:
    """One that lacks its reason, its argument, or has an option that there is not."""
    assert all(not wrong(words) for words in lines(text)) is right
