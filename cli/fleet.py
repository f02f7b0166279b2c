"""Commands on the declared fleet: compare a file, apply it, export, read the log, take a change back."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import RenderableType

from cli import answers, tables
from cli.client import Controllers
from cli.failures import Exit
from cli.looks import raw, read, show
from cli.options import reason, talks
from fleet.diff import worded

ITEM = ("", "WHAT")  # columns that every change has
CHANGES_SHOWN = 40  # of a large change; --json tells all
# The words that let a change pass, by the code of its refusal; what is not here no word lifts.
LIFTS = {
    "fleet-removes": "--remove",
    "fleet-too-many-removed": "--much",
    "dns-too-many-changes": "--much",
}
SIGNS = {"added": "+", "removed": "-", "changed": "~"}

remove = click.option("--remove", is_flag=True, help="yes, this may remove things")
much = click.option(
    "--much", is_flag=True, help="yes, also many of them, or many DNS names, at once"
)
change_number = click.IntRange(min=1)


@click.group()
def fleet() -> None:
    """The declared fleet."""


@fleet.command()
@click.argument("file", type=click.File("rb"))
@talks
@click.pass_context
def diff(context: click.Context, to: Controllers, as_json: bool, file: BinaryIO) -> None:
    """Show what FILE would change, and change nothing. Exit code 7: something; 0: nothing."""
    body = to.post("/v1/fleet/diff", file.read(), file=_name(file))
    found = read(body, answers.Compared)
    if as_json:
        raw(body)
    else:
        _warn(found.warnings)
        show(*_changes(found.changes), found.summary)
        if found.changes:
            _onwards(file, found)
    if found.changes:
        context.exit(Exit.CHANGES)


def _onwards(file: BinaryIO, found: answers.Compared) -> None:
    """What `apply` wants to be told, and the command that does what was shown, where one does."""
    for why in found.refused:
        lifted = f" `apply` wants {LIFTS[why.code]}." if why.code in LIFTS else ""
        show(tables.plain(f"{why.text or why.code}{lifted}", "yellow"))
    if all(why.code in LIFTS for why in found.refused):
        name = file.name if isinstance(file.name, str) else "-"
        words = dict.fromkeys(LIFTS[why.code] for why in found.refused)
        said = shlex.join((name, "--compared-with", str(found.revision), *words))
        show("To apply exactly this:")
        click.echo(f"  relevo fleet apply {said}")  # unbroken, to be copied


@fleet.command("apply")
@click.argument("file", type=click.File("rb"))
@click.option("--reason", default="", help="why; it is kept and shown to everybody")
@click.option(
    "--compared-with",
    "base",
    type=click.IntRange(min=0),
    metavar="REVISION",
    help="the revision that `diff` told; refused if the fleet has changed since",
)
@click.option(
    "--enforce",
    type=click.Choice(["shadow", "keep"]),
    default="shadow",
    help="plans that become stricter: `shadow` watches until they are armed, `keep` holds where caps hold",
)
@remove
@much
@talks
def apply(
    to: Controllers,
    as_json: bool,
    file: BinaryIO,
    *,
    reason: str,
    base: int | None,
    enforce: str,
    remove: bool,
    much: bool,
) -> None:
    """Make FILE the declared fleet, as one change."""
    said = {"file": _name(file), "reason": reason}
    said |= {word: "1" for word, is_said in (("remove", remove), ("much", much)) if is_said}
    said |= {"enforce": enforce} if enforce != "shadow" else {}
    headers = {} if base is None else {"If-Match": f'"{base}"'}
    _done(to.put("/v1/fleet", file.read(), headers=headers, **said), as_json)


@fleet.command()
@talks
def export(to: Controllers, as_json: bool) -> None:
    """Print the declared fleet as a file; applied again it changes nothing."""
    click.echo(to.get("/v1/fleet"), nl=False)


@fleet.command()
@click.argument("change", required=False, type=change_number)
@talks
def log(to: Controllers, as_json: bool, change: int | None) -> None:
    """The last hundred changes, newest first; with CHANGE, all that one did."""
    if change is not None:
        body = to.get(f"/v1/fleet/log/{change}")
        return raw(body) if as_json else show(*_logged(read(body, answers.LoggedTold)))
    body = to.get("/v1/fleet/log")
    if as_json:
        return raw(body)
    found = read(body, answers.Log).log
    return show(_log(found) if found else "Nothing was changed yet: relevo fleet apply FILE")


@fleet.command()
@click.argument("change", required=False, type=change_number)
@reason
@remove
@much
@talks
def undo(
    to: Controllers, as_json: bool, change: int | None, reason: str, remove: bool, much: bool
) -> None:
    """Take CHANGE back, else the last one, as a change of its own. Undone twice, it is there again."""
    said = {"change": change, "reason": reason, "remove": remove, "much": much}
    _done(to.order("POST", "/v1/fleet/undo", said), as_json)


def _done(body: bytes, as_json: bool) -> None:
    if as_json:
        return raw(body)
    found = read(body, answers.Applied)
    _warn(found.warnings)
    number = "" if found.change is None else f"change {found.change}, "
    return show(*_changes(found.changes), f"{found.summary} ({number}revision {found.revision})")


def _name(file: BinaryIO) -> str:
    return "stdin" if file.name in ("-", "<stdin>") else Path(file.name).name


def _warn(warnings: Iterable[answers.Warned]) -> None:
    for warning in warnings:
        place = f"{warning.file}:{warning.line}: " if warning.file else ""
        show(tables.plain(f"{place}{warning.said}", "yellow"))


def _changes(changes: Sequence[answers.Change]) -> Iterator[RenderableType]:
    """A row for each item, and for each field of what only changed."""
    rows = [row for change in changes[:CHANGES_SHOWN] for row in _rows(change)]
    if any(len(row) > len(ITEM) for row in rows):
        yield tables.table(*ITEM, "FIELD", "WAS", "BECOMES", rows=rows)
    elif rows:
        yield tables.table(*ITEM, rows=rows)
    if (more := len(changes) - CHANGES_SHOWN) > 0:
        yield f"… and {more} more; --json tells all"


def _rows(change: answers.Change) -> Iterator[tuple[str, ...]]:
    item = f"{change.kind.removesuffix('s')} {change.id}"
    if not change.fields:
        yield SIGNS.get(change.what, "?"), item
    for n, field in enumerate(change.fields):
        first = (SIGNS["changed"], item) if n == 0 else ("", "")
        yield *first, field.field, worded(field.old), worded(field.new)


def _log(entries: Sequence[answers.Logged]) -> RenderableType:
    rows = [
        (str(entry.change), tables.when(entry.at), entry.who, _what(entry), entry.reason)
        for entry in entries
    ]
    return tables.table(">CHANGE", "WHEN", "WHO", "WHAT", "WHY", rows=rows)


def _what(entry: answers.Logged) -> str:
    """The change itself where it is one line, else its summary."""
    told = entry.first[0] if len(entry.first) == 1 else entry.summary
    return f"undoes {entry.undoes}: {told}" if entry.undoes else told


def _logged(entry: answers.LoggedTold) -> Iterator[RenderableType]:
    yield tables.facts(
        ("change", str(entry.change)),
        ("when", tables.when(entry.at)),
        ("who", entry.who),
        ("why", entry.reason),
        ("undoes", f"change {entry.undoes}" if entry.undoes else ""),
        ("what", entry.summary),
    )
    yield ""
    yield from _changes(entry.changes)
