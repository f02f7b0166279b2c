"""Commands that change something: each with its reason, each with an end where it restricts."""

import click

from cli import access, answers, holding, tables
from cli.client import Controllers
from cli.looks import raw, read, segment, show
from cli.options import for_s, reason, talks


def done(body: bytes, as_json: bool, said: str) -> None:
    if as_json:
        return raw(body)
    found = read(body, answers.Done)
    show(f"{said} (revision {found.revision})")
    for move in found.moved:
        show(tables.plain(f"  {move.site}: {move.source} -> {move.target}"))
    return None


@click.group()
def host() -> None:
    """One host: look at it, empty it, take it back; let it in, or shut it out."""


for command in (access.host_token, access.credentials, access.rotate, access.revoke_host):
    host.add_command(command)


@host.command("show")
@click.argument("id")
@talks
def show_host(to: Controllers, as_json: bool, id: str) -> None:
    """Verdict, evidence, load and sites of a host."""
    body = to.get(f"/v1/hosts/{segment(id)}")
    raw(body) if as_json else show(*tables.host(read(body, answers.Host)))


@host.command()
@click.argument("id")
@reason
@for_s("4h", most_s=31 * 86_400)
@talks
def drain(to: Controllers, as_json: bool, id: str, reason: str, for_s: float) -> None:
    """Move a host's sites away and keep it empty for a while."""
    said = {"reason": reason, "for_s": for_s}
    body = to.order("PUT", f"/v1/hosts/{segment(id)}/drain", said)
    done(body, as_json, f"{id} is being drained")


@host.command()
@click.argument("id")
@reason
@click.option("--bring-home", is_flag=True, help="its own automatic sites come back at once")
@talks
def activate(to: Controllers, as_json: bool, id: str, reason: str, bring_home: bool) -> None:
    """End a drain."""
    said = {"reason": reason, "bring_home": bring_home}
    body = to.order("POST", f"/v1/hosts/{segment(id)}/activate", said)
    done(body, as_json, f"{id} is active")


@host.command()
@click.argument("id")
@reason
@click.option("--site", "only", multiple=True, help="this held site; again for more (all of them)")
@click.option(
    "--old-host-stopped",
    is_flag=True,
    help="your word that the host no longer serves or writes them; gated sites need it",
)
@talks
def approve(
    to: Controllers,
    as_json: bool,
    id: str,
    reason: str,
    only: tuple[str, ...],
    old_host_stopped: bool,
) -> None:
    """Move the sites that are held at a host, each to where relevo would move it."""
    held = {
        site.site: site.target
        for hold in read(to.every("/v1/holds", "holds"), answers.Holds).holds
        for site in hold.sites
        if hold.subject == id and (not only or site.site in only)
    }
    targets = {site: target for site, target in held.items() if target is not None}
    if not targets:
        raise click.ClickException(f"nothing that could move is held at {id}: relevo holds")
    said = {"targets": targets, "reason": reason, "old_host_stopped": old_host_stopped}
    body = to.order("POST", f"/v1/hosts/{segment(id)}/approval", said)
    done(body, as_json, f"{len(targets)} of {len(held)} held sites move")


@host.command()
@click.argument("id")
@reason
@for_s("2h", most_s=7 * 86_400)
@talks
def refuse(to: Controllers, as_json: bool, id: str, reason: str, for_s: float) -> None:
    """Let nothing automatic move a host's sites for a while; people still can."""
    said = {"reason": reason, "for_s": for_s}
    body = to.order("PUT", f"/v1/hosts/{segment(id)}/refusal", said)
    done(body, as_json, f"nothing moves from {id} by itself")


@host.command()
@click.argument("id")
@reason
@talks
def reconsider(to: Controllers, as_json: bool, id: str, reason: str) -> None:
    """Take a refusal back."""
    body = to.order("DELETE", f"/v1/hosts/{segment(id)}/refusal", {"reason": reason})
    done(body, as_json, f"relevo decides about {id} again")


@click.group()
def site() -> None:
    """One site: look at it, move it, hold it, let it go."""


for command in (
    holding.explain,
    holding.usage,
    holding.quarantine,
    holding.release,
    holding.override,
):
    site.add_command(command)


@site.command("show")
@click.argument("id")
@talks
def show_site(to: Controllers, as_json: bool, id: str) -> None:
    """Where a site is, why, and what holds it."""
    body = to.get(f"/v1/sites/{segment(id)}")
    raw(body) if as_json else show(tables.site(read(body, answers.Site)))


@site.command()
@click.argument("id")
@click.argument("target")
@reason
@click.option(
    "--old-host-stopped",
    is_flag=True,
    help="your word that the old host no longer serves or writes this site; a gated site needs it",
)
@click.option("--anyway", is_flag=True, help="even though relevo does not see TARGET up")
@talks
def move(
    to: Controllers,
    as_json: bool,
    id: str,
    target: str,
    reason: str,
    old_host_stopped: bool,
    anyway: bool,
) -> None:
    """Move a site to the host TARGET now."""
    said = {
        "to": target,
        "reason": reason,
        "old_host_stopped": old_host_stopped,
        "anyway": anyway,
    }
    body = to.order("POST", f"/v1/sites/{segment(id)}/move", said)
    moved = read(body, answers.Done).moved
    done(body, as_json, f"{id} is served on {target}" if moved else f"{id} is there already")
