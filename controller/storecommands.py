"""Commands on a store that no controller uses now: move it, restore it, look into a copy."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import click

from controller import copies
from controller.config import Config
from controller.copies import BadCopy, NotEmpty
from controller.snapshots import restored
from controller.store import Leadership, Store, StoreError
from controller.stores import opening
from fleet import keys
from runtime.clock import iso, wall
from runtime.config import BadConfig, load

TTL_S = 10
PATIENCE_S = 15.0  # longer than a dead controller's lease
FILE = click.Path(path_type=Path, dir_okay=False)
CONFIG = "/etc/relevo/controller.toml"


@click.command("move")
@click.option("--from", "old", type=FILE, required=True, help="controller.toml of the old store")
@click.option("--to", "new", type=FILE, required=True, help="controller.toml of the new store")
def move(old: Path, new: Path) -> None:
    """Take everything from one store to another, empty one: embedded to etcd, or back.

    Stop every controller first; traffic and DNS stay as they are meanwhile. The old store is left as it is: start no
    controller on it again, for agents would not follow it.
    """
    _do(_move(old, new))


async def _move(old: Path, new: Path) -> str:
    async with _alone(old) as (source, _):
        copy = await copies.take(source, wall())
    if not copy.id.cluster:
        raise click.ClickException(f"the store of {old} holds no co-op: there is nothing to move")
    generation = copy.id.generation + 1
    async with _alone(new) as (target, leadership):
        await copies.give(leadership, target, copy, generation=generation)
    return f"{len(copy.items)} keys moved, as generation {generation}. Start the controllers with {new}."


@click.command("restore")
@click.argument("copy", type=FILE)
@click.option("--config", type=FILE, default=CONFIG, show_default=True, help="a controller's own")
def restore(copy: Path, config: Path) -> None:
    """Fill the empty store of --config from COPY, a snapshot. Stop every controller first.

    Agents hold newer orders than the copy: start the controllers, then `relevo store recover`.
    """
    _do(_restore(copy, config))


async def _restore(path: Path, config: Path) -> str:
    copy = copies.read(path)
    async with _alone(config) as (store, leadership):
        await copies.give(leadership, store, copy, generation=copy.id.generation)
    return (
        f"{len(copy.items)} keys restored, as of {iso(copy.taken_at)}. Start the controllers; what agents know "
        "better is given back by: relevo store recover"
    )


@click.command("check")
@click.argument("copy", type=FILE)
def check(copy: Path) -> None:
    """Restore COPY, a snapshot, in memory, and say what is in it."""
    _do(_check(copy))


async def _check(path: Path) -> str:
    copy = copies.read(path)
    mirror = await restored(copy)
    return (
        f"taken {iso(copy.taken_at)} at revision {copy.revision}, generation {copy.id.generation}: "
        f"{len(mirror.fleet.hosts)} hosts, {len(mirror.fleet.sites)} sites, {len(mirror.places)} of them placed"
    )


@asynccontextmanager
async def _alone(path: Path) -> AsyncGenerator[tuple[Store, Leadership], None]:
    """The store of a controller's configuration, with nobody else deciding there."""
    config = load(path, Config)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opening(config.store, config.state))
        try:
            async with asyncio.timeout(PATIENCE_S):
                leadership = await stack.enter_async_context(
                    store.campaign(keys.LEADER, b"relevo store", ttl=TTL_S)
                )
        except TimeoutError:
            leader = await store.get(keys.LEADER)
            who = leader.value.decode() if leader else "somebody"
            raise click.ClickException(
                f"{who} leads over the store of {path}: stop every controller first"
            ) from None
        yield store, leadership


def _do(work: Coroutine[Any, Any, str]) -> None:
    """Run it and say what it gives; what stands in the way is one line, and status 1."""
    try:
        click.echo(asyncio.run(work))
    except NotEmpty:
        raise click.ClickException(
            "the new store is not empty: nothing was written over what is there; give an empty one"
        ) from None
    except (BadConfig, BadCopy, StoreError) as error:
        raise click.ClickException(str(error)) from None
