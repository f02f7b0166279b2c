"""Commands on failover as a whole: arm it, watch only, pause, resume."""

from collections.abc import Callable

import click

from cli import answers, tables
from cli.client import Controllers
from cli.looks import raw, read, show
from cli.options import for_s, reason, talks
from cli.orders import done


@click.group()
def failover() -> None:
    """Whether sites move by themselves."""


def scoped(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say for what: everything, or one location, host or site."""
    for name in ("site", "host", "location"):
        command = click.option(f"--{name}", metavar="ID", help=f"only this {name}")(command)
    return click.option("--all", "everything", is_flag=True, help="everything")(command)


def arming(name: str, word: str | None, said: str, help: str) -> click.Command:
    """A command that gives a scope this word, or takes its own word away."""

    @click.command(name, help=help)
    @scoped
    @reason
    @talks
    def command(
        to: Controllers,
        as_json: bool,
        reason: str,
        everything: bool,
        location: str | None,
        host: str | None,
        site: str | None,
    ) -> None:
        named = {"location": location, "host": host, "site": site}
        chosen = [(scope, id) for scope, id in named.items() if id is not None]
        if len(chosen) + everything != 1:
            raise click.UsageError("say one of --all, --location, --host and --site")
        scope, id = chosen[0] if chosen else ("all", None)
        order = {"scope": scope, "id": id, "arming": word, "reason": reason}
        body = to.order("PUT", "/v1/failover/arming", order)
        done(body, as_json, f"{f'{scope} {id}' if id else 'everything'}: {said}")

    return command


failover.add_command(arming("arm", "arm", "armed", "Let sites move by themselves."))
failover.add_command(
    arming("observe", "observe", "only observed", "Watch and say what would move; move nothing.")
)
failover.add_command(
    arming(
        "inherit", None, "as its surroundings", "Forget a scope's own word: the wider one holds."
    )
)


@failover.command()
@reason
@for_s("1h", most_s=7 * 86_400)
@talks
def pause(to: Controllers, as_json: bool, reason: str, for_s: float) -> None:
    """Stop everything automatic for a while; people can still act."""
    body = to.order("POST", "/v1/failover/pause", {"reason": reason, "for_s": for_s})
    done(body, as_json, "failover is paused")


@failover.command()
@reason
@talks
def resume(to: Controllers, as_json: bool, reason: str) -> None:
    """End a pause."""
    body = to.order("DELETE", "/v1/failover/pause", {"reason": reason})
    done(body, as_json, "failover goes on")


@failover.command()
@talks
def status(to: Controllers, as_json: bool) -> None:
    """What is armed, what is paused, what the brake has spent."""
    body = to.get("/v1/failover")
    raw(body) if as_json else show(tables.failover(read(body, answers.Failover)))
