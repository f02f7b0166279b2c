"""Who is called when a person is wanted: look, and try."""

import click
import msgspec

from cli.client import Controllers
from cli.failures import Exit, Failure
from cli.looks import raw, read, show
from cli.options import talks


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: str
    what: tuple[str, ...]
    least: str
    waiting: int
    error: str


class Receivers(msgspec.Struct, frozen=True, kw_only=True):
    controller: str
    receivers: tuple[Receiver, ...]


class Test(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    error: str
    took_s: float


class Tests(msgspec.Struct, frozen=True, kw_only=True):
    controller: str
    tests: tuple[Test, ...]


NOBODY = "{controller} calls nobody: add a [[notify]] table to its controller.toml, see docs/notifications.md"


@click.group()
def notify() -> None:
    """Who is called when a person is wanted."""


@notify.command("list")
@talks
def listed(to: Controllers, as_json: bool) -> None:
    """The receivers of notices, and how the last letter to each went."""
    body = to.get("/v1/notifiers")
    if as_json:
        return raw(body)
    found = read(body, Receivers)
    if not found.receivers:
        return show(NOBODY.format(controller=found.controller))
    return show("\n".join(map(_line, found.receivers)))


def _line(item: Receiver) -> str:
    waiting = f"; waiting: {item.waiting}" if item.waiting else ""
    error = f"; NOT SENT: {item.error}" if item.error else ""
    return f"{item.name} ({item.kind}): {', '.join(item.what)}; least {item.least}{waiting}{error}"


@notify.command("test")
@click.argument("name", required=False)
@talks
def test(to: Controllers, as_json: bool, name: str | None) -> None:
    """Send a test to every receiver, or to NAME. Exit code 1 where one was not taken."""
    body = to.order("POST", "/v1/notifiers/test", {"name": name})
    found = read(body, Tests)
    if as_json:
        raw(body)
    elif not found.tests:
        show(NOBODY.format(controller=found.controller))
    else:
        show(
            "\n".join(
                f"{t.name}: {t.error or f'taken after {t.took_s:.2f} s'}" for t in found.tests
            )
        )
    if failed := [t.name for t in found.tests if t.error]:
        raise Failure(f"not sent to: {', '.join(failed)}", Exit.FAILED)
