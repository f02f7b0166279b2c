"""Who may do what: tokens of people and programs, credentials of hosts, and the audit of all that was done."""

import click

from cli import answers, tables
from cli.client import Controllers
from cli.durations import shown
from cli.looks import raw, read, segment, show
from cli.options import for_s, reason, talks
from runtime.clock import wall

DAY_S = 86_400
ROLES = ("viewer", "operator", "admin", "member")


@click.group()
def token() -> None:
    """Tokens of people and programs: make, list and revoke them."""


@token.command("create")
@click.argument("name")
@click.option(
    "--role",
    required=True,
    type=click.Choice(ROLES),
    help="viewer looks; operator also orders, and changes single sites, hosts and members (control panels); "
    "admin also applies fleet files and decides who may; member sees its own sites",
)
@click.option("--member", help="whose sites it shows, by id; with --role member")
@for_s("365d", most_s=5 * 366 * DAY_S)
@reason
@talks
def create(
    to: Controllers,
    as_json: bool,
    name: str,
    role: str,
    member: str | None,
    for_s: float,
    reason: str,
) -> None:
    """Make a token for NAME, a person or a program. It is shown once."""
    if (role == "member") != (member is not None):
        raise click.UsageError("say --member ID with --role member, and only then")
    said = {"name": name, "role": role, "member": member, "for_s": for_s, "reason": reason}
    body = to.order("POST", "/v1/tokens", said)
    if as_json:
        return raw(body)
    made = read(body, answers.Secret)
    click.echo(made.token)
    end = tables.when(made.until)
    click.echo(
        f"This is the token of {name} ({role}), good until {end}. It is shown this once.\n"
        "It belongs into ~/.config/relevo/token, mode 0600, on the computer where it is used.",
        err=True,
    )
    return None


@token.command("list")
@talks
def list_tokens(to: Controllers, as_json: bool) -> None:
    """Who has a token, of which role, and until when."""
    body = to.every("/v1/access", "tokens", "hosts")
    raw(body) if as_json else show(tables.tokens(read(body, answers.Access).tokens))


@token.command("revoke")
@click.argument("name")
@reason
@talks
def revoke(to: Controllers, as_json: bool, name: str, reason: str) -> None:
    """End the token of NAME at once."""
    body = to.order("DELETE", f"/v1/tokens/{segment(name)}", {"reason": reason})
    raw(body) if as_json else show(f"the token of {name} opens nothing any more")


@click.command("token")
@click.argument("id")
@click.option("--reason", default="the host joins", show_default=True, help="why; it is kept")
@talks
def host_token(to: Controllers, as_json: bool, id: str, reason: str) -> None:
    """Print the command by which the host ID joins: good once, for one hour."""
    body = to.order("POST", f"/v1/hosts/{segment(id)}/join", {"reason": reason})
    if as_json:
        return raw(body)
    made = read(body, answers.Secret)
    url = made.url or to.urls[0]
    click.echo(f"relevo agent join {url} --token {made.token}")
    click.echo(
        f"Run this on {id}, as root, within {shown(made.until - wall())}. It works once.", err=True
    )
    return None


@click.command("credentials")
@talks
def credentials(to: Controllers, as_json: bool) -> None:
    """Which hosts may log in, by whose word, and which are to change their credential."""
    body = to.every("/v1/access", "tokens", "hosts")
    if as_json:
        return raw(body)
    found = read(body, answers.Access).hosts
    return show(tables.credentials(found) if found else "No host has joined: relevo host token ID")


@click.command("rotate")
@click.argument("id", required=False)
@click.option("--all", "everyone", is_flag=True, help="every host that has a credential")
@reason
@talks
def rotate(to: Controllers, as_json: bool, id: str | None, everyone: bool, reason: str) -> None:
    """Have a host's agent make itself another credential; its sites notice nothing."""
    if (id is None) != everyone:
        raise click.UsageError("say which host, or --all")
    hosts = None if id is None else [segment(id)]
    body = to.order("POST", "/v1/credentials/change", {"hosts": hosts, "reason": reason})
    if as_json:
        return raw(body)
    whom = "every host" if id is None else id
    return show(f"{whom} is asked to change; to see who has: relevo host credentials")


@click.command("revoke")
@click.argument("id")
@reason
@talks
def revoke_host(to: Controllers, as_json: bool, id: str, reason: str) -> None:
    """End a host's credential and links at once; its sites stay as they are. It can join anew."""
    body = to.order("DELETE", f"/v1/hosts/{segment(id)}/credential", {"reason": reason})
    raw(body) if as_json else show(
        f"{id} can't log in any more; to let it in: relevo host token {id}"
    )


@click.command()
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="so many, the newest",
)
@talks
def audit(to: Controllers, as_json: bool, limit: int) -> None:
    """Who did what, when and why; newest first."""
    body = to.get("/v1/audit", limit=str(limit))
    if as_json:
        return raw(body)
    found = read(body, answers.Audit).entries
    return show(*(tables.audit(found) or ["Nothing yet."]))
