"""The controllers' store: recover it after it was rewound."""

from collections.abc import Iterable
from importlib.metadata import entry_points

import click

from cli import answers
from cli.client import Controllers
from cli.looks import raw, read, show
from cli.options import talks

SHOWN = 20  # of each list; --json has them all


class Store(click.Group):
    """Its own commands talk to a controller; those that need the store itself come with the controller."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        found = {entry.name for entry in entry_points(group="relevo.store")}
        return sorted({*super().list_commands(ctx), *found})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group="relevo.store", name=cmd_name):
            loaded: click.Command = entry.load()
            return loaded
        return super().get_command(ctx, cmd_name)


@click.group(cls=Store)
def store() -> None:
    """The controllers' store: recover, move, restore."""


@store.command("recover")
@click.option("--yes", is_flag=True, help="do it; without, only say what would be done")
@click.option(
    "--reason", default="recovery after a restore", show_default=True, help="why; it is kept"
)
@click.option("--anyway", is_flag=True, help="though hosts say nothing: they are gone for good")
@talks
def recover(to: Controllers, as_json: bool, yes: bool, reason: str, anyway: bool) -> None:
    """After a restore from an older copy: give the store back what it has forgotten.

    Where each site is served is read from what agents and edges hold. Traffic stays as it is.
    """
    path = "/v1/store/recovery"
    body = to.order("POST", path, {"reason": reason, "anyway": anyway}) if yes else to.get(path)
    raw(body) if as_json else show("\n".join(_lines(read(body, answers.Recovery), done=yes)))


def _lines(found: answers.Recovery, *, done: bool) -> list[str]:
    said = [
        f"{len(found.heard)} hosts say what they hold.",
        _some("Wait for these, which say nothing, or say --anyway: ", found.silent, "."),
        f"{len(found.moved)} sites are elsewhere than the store says:" if found.moved else "",
        *_short(f"  {site} is at {host}" for site, host in sorted(found.moved.items())),
    ]
    for conflict in found.conflicts:
        words = ", ".join(f"{w.witness} says {w.host} ({w.epoch})" for w in conflict.said)
        said.append(f"in doubt: {conflict.site} stays at {conflict.kept}; {words}")
    if found.conflicts:
        said.append(
            "Look where these answer, move them if need be, then: "
            'relevo failover arm --site ID --reason "…"'
        )
    if found.strays:
        said.append(
            f"Edges serve {len(found.strays)} domains that the fleet does not declare, such as {found.strays[0]}. "
            "They go on; apply your newest fleet file."
        )
    if found.strangers:
        said.append(f"Hosts with another cluster's orders: {', '.join(found.strangers)}.")
    if done:
        said.append(
            f"The store is recovered: generation {found.generation} begins, orders go out again."
        )
    else:
        said.append("Nothing was written. To recover, repeat it with --yes.")
    return [line for line in said if line]


def _some(before: str, names: tuple[str, ...], after: str) -> str:
    return before + ", ".join(names[:5]) + (" …" if len(names) > 5 else "") + after if names else ""


def _short(lines: Iterable[str]) -> list[str]:
    every = list(lines)
    more = len(every) - SHOWN
    return every[:SHOWN] + ([f"  … and {more} more"] if more > 0 else [])
