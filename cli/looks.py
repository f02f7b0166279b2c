"""Commands that look: what is, and why."""

from typing import TypeVar

import click
import msgspec
from rich.console import RenderableType

from cli import answers, tables
from cli.client import Controllers
from cli.options import talks

T = TypeVar("T")


def read(body: bytes, kind: type[T]) -> T:
    return msgspec.json.decode(body, type=kind)


def show(*parts: RenderableType) -> None:
    console = tables.console()
    for part in parts:
        console.print(part)


def raw(body: bytes) -> None:
    """The API's own JSON, readable."""
    click.echo(msgspec.json.format(body, indent=2))


@click.command()
@talks
def status(to: Controllers, as_json: bool) -> None:
    """The whole at a glance."""
    body = to.get("/v1/status")
    raw(body) if as_json else show(tables.status(read(body, answers.Status)))


@click.command()
@talks
def hosts(to: Controllers, as_json: bool) -> None:
    """All hosts: verdict, last beat, load, sites."""
    body = to.every("/v1/hosts", "hosts")
    if as_json:
        return raw(body)
    found = read(body, answers.Hosts).hosts
    return show(tables.hosts(found) if found else "No hosts are declared: relevo fleet apply FILE")


@click.command()
@click.option("--host", default="", help="only those at home or served on this host")
@click.option("--member", default="", help="only those of this member")
@click.option("-q", "search", default="", help="only those with this in their id or a domain")
@talks
def sites(to: Controllers, as_json: bool, host: str, member: str, search: str) -> None:
    """Sites: where each is served, whether it may move, what holds it."""
    asked = {"host": host, "member": member, "q": search}
    body = to.every("/v1/sites", "sites", **{name: value for name, value in asked.items() if value})
    if as_json:
        return raw(body)
    found = read(body, answers.Sites).sites
    return show(tables.sites(found) if found else "No such sites.")


@click.command()
@click.argument("id", required=False)
@click.option("--open", "only_open", is_flag=True, help="only those that are not closed")
@talks
def incidents(to: Controllers, as_json: bool, id: str | None, only_open: bool) -> None:
    """Incidents, newest first; with ID, the timeline of one."""
    if id is not None:
        body = to.get(f"/v1/incidents/{segment(id)}")
        return raw(body) if as_json else show(*tables.incident(read(body, answers.Incident)))
    body = to.every("/v1/incidents", "incidents", **({"open": "1"} if only_open else {}))
    if as_json:
        return raw(body)
    found = read(body, answers.Incidents).incidents
    return show(tables.incidents(found) if found else "No incidents.")


@click.command()
@talks
def holds(to: Controllers, as_json: bool) -> None:
    """What waits for a person, or for its reason to go away."""
    body = to.every("/v1/holds", "holds")
    if as_json:
        return raw(body)
    found = read(body, answers.Holds).holds
    return show(*(tables.holds(found) or ["Nothing is held."]))


def segment(id: str) -> str:
    """An id as one segment of a path; ids need no quoting, others are not ids."""
    if not id or not all(c.isalnum() or c in "._-:" for c in id) or not id.isascii():
        raise click.UsageError(f"{id!r} is not an id: letters, digits and . _ - :")
    return id
