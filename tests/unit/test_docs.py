"""Every command line in the documents is one that `relevo` understands."""

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from agent.config import Config
from cli.main import main
from runtime.config import load

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
REASONED = {"commands.md"}  # the reference: above its tables stands what every order needs
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


def understand(line: str, *, reasoned: bool = False) -> None:
    """Parse as `relevo` would, running nothing. Raises click.UsageError. `[…]` is taken as given.

    `reasoned`: that every order needs a reason is said once, beside it.
    """
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
    if reasoned and "--reason" in names and "--reason" not in words:
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
            understand(line, reasoned=document.name in REASONED)
        except click.UsageError as error:
            wrong.append(f"{line}: {error.message}")
    assert wrong == []


def test_a_block_of_an_agent_s_settings_changes_nothing_when_it_is_pasted_whole(
    tmp_path: Path,
) -> None:
    """What stands in it is the default; what a reader may want otherwise is commented out, and right when it is not."""
    text = (ROOT / "docs/caps.md").read_text()
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 3
    default = settings("", tmp_path)
    for block in blocks:
        assert settings(block, tmp_path) == default, block
        examples = re.sub("^# ", "", block, flags=re.M)
        assert (settings(examples, tmp_path) == default) == (examples == block)


def settings(block: str, folder: Path) -> Config:
    """As an agent reads them. Raises BadConfig."""
    needed = 'host = "h1"\ntoken = "/etc/relevo/token"\ncontrollers = {c1 = "https://c1:7410"}\n'
    (folder / "agent.toml").write_text(needed + block)
    return load(folder / "agent.toml", Config)


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
        "relevo caps shadow --host HOST",
    ],
)
def test_a_wrong_command_line_is_noticed(line: str) -> None:
    """An option, a command or an argument that the program does not have is an error."""
    with pytest.raises(click.UsageError):
        understand(line)


SHIMS = {
    "relevo": """echo '{"hosts": [{"addresses": ["web1"]}, {"addresses": ["web2"]}]}'""",
    "jq": 'sed \'s/[^w]*//; s/"]}, {"addresses": \\["/\\n/g; s/"].*//\'',
    "ssh": 'sh -c "$(printf %s "$2" | sed "s#/etc/relevo#$PWD/${1#root@}#")"',
    "systemctl": 'echo "$@" >> restarted',
}
JOINED = 'host = "web1"\n\n[controllers]\nc1 = "https://203.0.113.10:7410"\n\n[service]\n'


def test_the_lines_for_all_hosts_add_the_controllers_to_each(tmp_path: Path) -> None:
    """What install.md has typed for three controllers makes an agent.toml that names all three."""
    loops = [
        text for text in FENCED.findall((ROOT / "docs" / "install.md").read_text()) if "ssh" in text
    ]
    for name, does in SHIMS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    for host in ("web1", "web2"):
        (tmp_path / host).mkdir()
        (tmp_path / host / "agent.toml").write_text(JOINED)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for loop in loops:
        subprocess.run(("bash", "-ec", loop), cwd=tmp_path, env=environment, check=True, timeout=20)
    for host in ("web1", "web2"):
        told = tomllib.loads((tmp_path / host / "agent.toml").read_text())
        assert told["controllers"] == {
            "c1": "https://203.0.113.10:7410",
            "c2": "https://203.0.113.11:7410",
            "c3": "https://203.0.113.12:7410",
        }
    assert (tmp_path / "restarted").read_text() == "restart relevo-agent\n" * 2
