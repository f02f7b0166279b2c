"""`relevo discover`: what runs on this host, as a fleet document to complete. Reads only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec

from agent.discover.draft import Wishes, draft, text
from agent.discover.host import NothingToRead, look
from fleet.model import NAMED


def _id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not NAMED.match(value):
        raise click.BadParameter("letters, digits and _ . -, a letter or digit first, 63 at most")
    return value


def _known(name: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(name, metavar="ID", callback=_id, help=help)


@click.command("discover")
@_known("--host", "this host's id (else its host name)")
@_known("--location", "the data centre it is in")
@_known("--plan", "the plan of every site here")
@_known("--member", "the member of every site here (else one for each Unix user)")
@click.option(
    "--route",
    type=click.Choice(["direct", "edges"]),
    default="direct",
    show_default=True,
    help="how visitors reach the sites: at this host's own addresses, or through edges",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="where the host's files are: a backup's or a container's, read without asking the running host",
)
@click.option(
    "--only",
    type=click.Choice(["hosts", "members", "sites"]),
    help="print the lines of one section, to put below the heading of a document that there is",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="print JSON: the fleet, its marks, and what was not taken",
)
def command(root: Path, only: str | None, as_json: bool, **wishes: str) -> None:
    """Print what runs on this host as a fleet document; change nothing.

    Reads the configuration of Apache, nginx and php-fpm, passwd, and the names of MariaDB's databases. What could
    not be told is marked with ?, and the document is refused until that is filled in. Run it as root.
    """
    try:
        drawn = draft(look(str(root.resolve())), Wishes(**wishes))
    except NothingToRead as error:
        click.echo(f"relevo discover: {error}", err=True)
        raise SystemExit(1) from error
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(drawn), indent=2))
    else:
        click.echo(text(drawn, only), nl=False)
