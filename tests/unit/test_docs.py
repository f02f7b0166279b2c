"""Every command line in the documents is one that `relevo` understands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.main import main

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^ *```[^\n]*\n(.*?)^ *```", re.M | re.S)
SPAN = re.compile(r"`([^`]+)`")


def command_lines(text: str) -> Iterator[str]:
    """In fenced blocks and in spans, as a reader would type them; a span may be folded over two lines."""
    for block in FENCED.findall(text):
        yield from (line.strip() for line in block.splitlines() if re.match(r" *relevo\s", line))
    for span in SPAN.findall(FENCED.sub("", text)):
        line = " ".join(span.split())
        if line.startswith("relevo ") and line != "relevo …":
            yield line


def understand(line: str) -> None:
    """Parse as `relevo` would, running nothing. Raises click.UsageError. `[…]` is taken as given."""
    words = shlex.split(re.sub(r"[\[\]]", "", line), comments=True)[1:]
    command: click.Command = main
    context = click.Context(main, info_name="relevo")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        _, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=found.name)
    alone = isinstance(command, click.Group) and command.invoke_without_command
    if isinstance(command, click.Group) and not alone and words != ["--help"]:
        raise click.UsageError(f"{line}: a group of commands")
    names = {option for parameter in command.params for option in parameter.opts}
    # Said once above the tables: every order needs a reason.
    if "--reason" in names and "--reason" not in words:
        words += ["--reason", "…"]
    try:
        with command.make_context("relevo", words, parent=context.parent):
            pass  # on leaving it the context closes the files it opened
    except click.exceptions.Exit:
        return  # --help


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the files that the documents name exist."""
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "coop.yaml", "fleet.yaml"):
        (tmp_path / name).touch()


@pytest.mark.parametrize("document", DOCS, ids=lambda path: path.name)
def test_relevo_understands_every_command_line_in(document: Path) -> None:
    """Commands, options and the number of arguments are those of the program."""
    wrong = []
    for line in command_lines(document.read_text()):
        try:
            understand(line)
        except click.UsageError as error:
            wrong.append(f"{line}: {error.message}")
    assert wrong == []


def test_the_documents_hold_command_lines() -> None:
    """The lines are found: a block's and a span's."""
    found = [line for document in DOCS for line in command_lines(document.read_text())]
    assert len(found) > 30
    assert any(line.startswith("relevo failover arm --host") for line in found)
    assert any(line.startswith("relevo site move SITE HOST") for line in found)


@pytest.mark.parametrize(
    "line",
    [
        "relevo site move SITE --to HOST --reason x",
        "relevo site mov SITE HOST",
        "relevo host show",
        "relevo failover pause --for soon",
        "relevo site",
    ],
)
def test_a_wrong_command_line_is_noticed(line: str) -> None:
    """An option, a command or an argument that the program does not have is an error."""
    with pytest.raises(click.UsageError):
        understand(line)
