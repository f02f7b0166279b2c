"""Commands on caps as a whole: where they hold, whether the kernels hold them, what shadow found."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import Any

import click

from cli import answers, capanswers, captables, captruth
from cli.client import Controllers
from cli.looks import raw, read, segment, show
from cli.options import reason, talks
from cli.tables import when


class Date(click.ParamType[float]):
    """A day, or an instant, of which the time is UTC unless it says otherwise: Unix s."""

    name = "date"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no date; write 2026-12-01 or 2026-12-01T08:00", param, ctx)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


@click.group()
def caps() -> None:
    """What holds sites inside their plans."""


@caps.command()
@talks
def status(to: Controllers, as_json: bool) -> None:
    """Where caps hold, where they only watch, and of how many sites."""
    body = to.get("/v1/caps/enforcement")
    raw(body) if as_json else show(captables.enforcement(read(body, capanswers.Enforcement)))


@caps.command()
@click.argument("host")
@talks
@click.pass_context
def verify(context: click.Context, to: Controllers, as_json: bool, host: str) -> None:
    """Whether a host's kernel holds what it should, and what is the matter where it does not.

    Exit code 7: it holds something else; 8: not all is held; 9: that is not known, or the host's word is old.
    """
    body = to.get(f"/v1/hosts/{segment(host)}/caps")
    found = read(body, capanswers.HostCaps)
    raw(body) if as_json else show(*captables.host(found))
    context.exit(captruth.verdict(found))


@caps.command()
@talks
def report(to: Controllers, as_json: bool) -> None:
    """What penalties did to sites in the last week, and would have done, caps too, where they only watch.

    How long a site is at the caps that hold it, relevo site usage SITE says.
    """
    body = to.every("/v1/caps/report", "sites")
    raw(body) if as_json else show(*captables.report(read(body, capanswers.Report)))


NARROWER = ("site", "host", "plan")


def scoped(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say for what: everything, or one plan, host or site. The command is given `scope`, and its `id`."""

    @wraps(command)
    def with_scope(*, everything: bool, **options: Any) -> None:
        named = {name: options.pop(name) for name in NARROWER}
        chosen = [(scope, id) for scope, id in named.items() if id is not None]
        if len(chosen) + everything != 1:
            raise click.UsageError("say one of --all, --plan, --host and --site")
        scope, id = chosen[0] if chosen else ("all", None)
        command(scope=scope, id=id, **options)

    told: Callable[..., None] = with_scope
    for name in NARROWER:
        told = click.option(f"--{name}", metavar="ID", help=f"only this {name}")(told)
    return click.option("--all", "everything", is_flag=True, help="everything")(told)


def _ordered(
    to: Controllers, as_json: bool, said: str, scope: str, id: str | None, order: dict[str, object]
) -> None:
    body = to.order("PUT", "/v1/caps/enforcement", {"scope": scope, "id": id, **order})
    if as_json:
        return raw(body)
    subject = f"{scope} {id}" if id else "everything"
    return show(f"{subject}: {said} (revision {read(body, answers.Done).revision})")


yes = click.option(
    "--yes", is_flag=True, help="also where shadow has watched for less than two weeks"
)


@caps.command()
@scoped
@click.option(
    "--from", "since", type=Date(), metavar="DATE", help="2026-12-01, or with a time; else now"
)
@yes
@reason
@talks
def arm(
    to: Controllers,
    as_json: bool,
    *,
    reason: str,
    since: float | None,
    yes: bool,
    scope: str,
    id: str | None,
) -> None:
    """Let caps hold as plans are now, at once or from a date.

    What a plan makes stricter later is only measured until caps are armed again.
    """
    order: dict[str, object] = {"word": "arm", "since": since, "reason": reason}
    if yes:
        order["untried"] = True
    said = "caps hold" if since is None else f"caps hold from {when(since)}"
    if scope != "site":
        said += " where no narrower word is shadow"
    _ordered(to, as_json, said, scope, id, order)


@caps.command()
@scoped
@reason
@talks
def shadow(to: Controllers, as_json: bool, *, reason: str, scope: str, id: str | None) -> None:
    """Measure and record what would be held; hold nothing, also of what is armed within."""
    order: dict[str, object] = {"word": "shadow", "reason": reason}
    _ordered(to, as_json, "caps only watch", scope, id, order)


@caps.command()
@scoped
@yes
@reason
@talks
def inherit(
    to: Controllers, as_json: bool, *, reason: str, yes: bool, scope: str, id: str | None
) -> None:
    """Forget a scope's own word: the wider one holds."""
    order: dict[str, object] = {"word": None, "reason": reason}
    if yes:
        order["untried"] = True
    _ordered(to, as_json, "as its surroundings", scope, id, order)
