"""`relevo layout`: how this host runs each site, and moving one site's PHP into a unit of its own and back."""

import asyncio
import fcntl
import os
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from agent.caps.dirty import unbounded
from agent.caps.ours import Ours
from agent.caps.quotalook import on_disk
from agent.config import Config
from agent.layout.adoption import kept
from agent.layout.attach import attach
from agent.layout.attached import Attached
from agent.layout.carry import Carrier, Systemctl
from agent.layout.moves import CantMove, Places, Plan
from agent.layout.running import CGROUPS, Reader
from agent.layout.survey import Host, convert, undo
from agent.layout.table import WIDTH, row, table
from agent.layout.texts import shown
from agent.layout.wishes import (
    DONE,
    adopting,
    after_adopting,
    leave,
    nobody_adopts,
    releasing,
    size_why,
    taken,
    wish,
)
from agent.ports import DriverError
from fleet.caps import effective
from fleet.messages import Orders
from fleet.model import SiteId, Why
from runtime import clock
from runtime import config as settings
from runtime.words import LANGUAGES, explain

CONFIG = Path("/etc/relevo/agent.toml")
LOCK = (
    "layout.lock"  # beside the agent's state, which is root's: what others may open, they may hold
)


class NoOrders(Exception):
    """Which sites are at home here is not known; the message says what to do."""


def orders_of(config: Path) -> tuple[Orders, Path]:
    """Its agent's newest orders, with or without a controller, and where its state is. Raises NoOrders."""
    try:
        state = settings.load(config, Config).state
        path = state / "orders.json"
        orders = msgspec.json.decode(path.read_bytes(), type=Orders)
    except settings.BadConfig as error:
        raise NoOrders(str(error)) from error
    except FileNotFoundError as error:
        raise NoOrders(f"{path}: not there: has this host joined, and its agent run?") from error
    except (OSError, ValueError) as error:
        raise NoOrders(f"{path}: {error}") from error
    if not orders.tenants:
        raise NoOrders(f"{path}: no site is at home here, or the controllers do not tell of caps")
    return orders, state


@click.group("layout", invoke_without_command=True)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=CONFIG,
    show_default=True,
    help="the agent's configuration, which says where its orders are",
)
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="where the host's files are, to look at those of another one",
)
@click.option("--json", "as_json", is_flag=True, help="print JSON: one object for each site")
@click.pass_context
def command(context: click.Context, config: Path, root: Path, as_json: bool) -> None:
    """How this host runs each site: what can be seen and held of it, and what would better it.

    Reads the web server's and php-fpm's configuration, and where processes run. Run it as root.
    """
    context.obj = config
    if context.invoked_subcommand is not None:
        return
    orders, state = _orders(config)
    running = Reader(str(root.resolve())).look()
    found = attach(orders.tenants, running, Path(CGROUPS), kept(state))
    remedies = {site: said for site, one in found.items() if (said := _remedy(site, one, orders))}
    if as_json:
        rows = [row(site, one, remedies.get(site)) for site, one in sorted(found.items())]
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
    else:
        click.echo(table(found, _language(), remedies), nl=False)
        waits = unbounded(root.resolve())
        for why in (*on_disk(orders.tenants, found, root.resolve()), *([waits] if waits else [])):
            click.echo(textwrap.fill(shown(explain(why, _language())), WIDTH))


@command.command("convert")
@click.argument("site")
@click.option("--yes", is_flag=True, help="do it (else only say what would be done)")
@click.pass_obj
def convert_command(config: Path, site: str, yes: bool) -> None:
    """Move SITE's pool out of a shared php-fpm into a unit of its own, in its slice; no request fails.

    The socket keeps its name, its owner and its mode, so the web server is not touched. Stopped half-way, visitors are
    served all the same: run it again to go on.
    """
    _move(config, lambda: _plan(config, site, None), yes)


@command.command("adopt")
@click.argument("site")
@click.option("--yes", is_flag=True, help="do it (else only say what would be done)")
@click.pass_obj
def adopt_command(config: Path, site: str, yes: bool) -> None:
    """Hold the workers of SITE's pool in its slice, while its php-fpm goes on serving all of its pools.

    The agent does it, and takes in new workers every two seconds. No file is changed, nothing is restarted.
    """
    _wish(config, site, yes, adopt=True)


@command.command("release")
@click.argument("site")
@click.option("--yes", is_flag=True, help="do it (else only say what would be done)")
@click.pass_obj
def release_command(config: Path, site: str, yes: bool) -> None:
    """Let the workers of SITE's pool run where its php-fpm does again; no request fails."""
    _wish(config, site, yes, adopt=False)


def _wish(config: Path, site: str, yes: bool, *, adopt: bool) -> None:
    orders, state = _orders(config)
    parent = click.get_current_context().parent
    root = parent.params["root"] if parent else Path("/")
    here = attach(orders.tenants, Reader(str(root)).look(), Path(CGROUPS), kept(state))
    if (one := here.get(id := SiteId(site))) is None:
        raise click.BadParameter(f"{site} is not at home on this host", param_hint="SITE")
    try:
        for line in _adopting(config, root, id, one) if adopt else releasing(id):
            click.echo(textwrap.fill(line, WIDTH))
        if not _agreed(yes):
            return
        wish(state, id, adopt=adopt)
    except DriverError as error:
        said = shown(f"relevo layout: {error}")
        click.echo(textwrap.fill(said, WIDTH, break_on_hyphens=False), err=True)
        raise SystemExit(1) from error
    if adopt:
        said = after_adopting(id, asyncio.run(taken(state, id)), _language())
        click.echo(textwrap.fill(shown(said), WIDTH))
        return
    left = 0 if one.adoptable is None else asyncio.run(leave(id, one.adoptable))
    if left:
        click.echo(f"{left} workers are still at a request: they end after it, held by nothing.")
    click.echo(DONE)


def _adopting(config: Path, root: Path, site: SiteId, one: Attached) -> tuple[str, ...]:
    """Raises DriverError, where the pool can't be adopted and where nobody would do it."""
    said = adopting(site, one)
    if why := nobody_adopts(settings.load(config, Config).caps, root.resolve()):
        raise DriverError(explain(why, _language()))
    return said


@command.command("undo")
@click.argument("site")
@click.option("--yes", is_flag=True, help="do it (else only say what would be done)")
@click.option(
    "--accept-cut",
    is_flag=True,
    help="reload the shared php-fpm even if it cuts off requests of its other pools",
)
@click.pass_obj
def undo_command(config: Path, site: str, yes: bool, accept_cut: bool) -> None:
    """Put SITE's pool back into the shared php-fpm that it came from; no request fails."""
    _move(config, lambda: _plan(config, site, accept_cut), yes)


def _plan(config: Path, site: str, undo_by_cut: bool | None) -> Plan:
    orders, state = _orders(config)
    known = orders.tenants
    if site not in known:
        raise click.BadParameter(f"{site} is not at home on this host", param_hint="SITE")
    host = Host(running=Reader().look(), tenants=known)
    try:
        if undo_by_cut is None:
            return convert(host, SiteId(site))
        _raise_if_stopped(state, site)
        return undo(host, SiteId(site), accept_cut=undo_by_cut)
    except CantMove as error:
        for reason in error.reasons:
            click.echo(reason, err=True)
        raise SystemExit(1) from error


def _raise_if_stopped(state: Path, site: str) -> None:
    """In the shared php-fpm nothing would keep it stopped. Raises CantMove."""
    try:
        ours = msgspec.json.decode((state / "caps.json").read_bytes(), type=dict[str, Ours])
    except (OSError, ValueError):
        return  # its agent says that in its own words
    if any(f"relevo-php@{site}.service" in (mine.stopped or ()) for mine in ours.values()):
        remedy = f'wait for its end, or relevo site release {site} --reason "…"'
        raise CantMove(f"{site}: stopped by a penalty: {remedy}")


@contextmanager
def _alone(path: Path, yes: bool) -> Iterator[None]:
    """One conversion at a time: each is planned from files that the others write."""
    if not yes or os.geteuid() != 0:
        yield
        return
    try:
        lock = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        click.echo(f"relevo layout: {error}", err=True)
        raise SystemExit(1) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = "Another relevo layout is at work on this host: wait for its end."
            click.echo(said, err=True)
            raise SystemExit(1) from None
        yield
    finally:
        os.close(lock)


def _move(config: Path, planned: Callable[[], Plan], yes: bool) -> None:
    with _alone(_orders(config)[1] / LOCK, yes):
        _carry(planned(), yes)


def _carry(plan: Plan, yes: bool) -> None:
    if not plan.steps:
        click.echo("Nothing is left to be done.")
    for number, step in enumerate(plan.steps, 1):
        click.echo(shown(f"{number:3}. {step}"))
    for note in plan.notes:
        click.echo(textwrap.fill(shown(f"Note: {note}"), WIDTH))
    if plan.steps and _agreed(yes):
        asyncio.run(carry_out(plan, Carrier(Places(), Systemctl())))


def _agreed(yes: bool) -> bool:
    if not yes:
        click.echo("Nothing was done. To do it: --yes")
    elif os.geteuid() != 0:
        click.echo("relevo layout: this is for root", err=True)
        raise SystemExit(1)
    return yes


async def carry_out(plan: Plan, carrier: Carrier) -> None:
    """Step by step, stopped at the first that fails. Raises SystemExit."""
    for number, step in enumerate(plan.steps, 1):
        try:
            await carrier.carry_out(step)
        except DriverError as error:
            click.echo(shown(f"Step {number} failed: {error}"), err=True)
            click.echo("Visitors are served as before. Run it again to go on.", err=True)
            raise SystemExit(1) from error
        click.echo(shown(f"{number:3}. done: {step}"))


def _orders(config: Path) -> tuple[Orders, Path]:
    try:
        return orders_of(config)
    except NoOrders as error:
        click.echo(f"relevo layout: {error}", err=True)
        raise SystemExit(1) from error


def _remedy(site: SiteId, one: Attached, orders: Orders) -> Why | None:
    """What its pool's size should be; of a plan that these orders do not know nothing can be said."""
    tenant = orders.tenants[site]
    plan = orders.plans.get(tenant.plan)
    caps = effective(plan, tenant.override, clock.wall()) if plan else None
    return size_why(one, caps.php_workers if caps else None)


def _language() -> str:
    said = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return said[:2] if said[:2] in LANGUAGES else LANGUAGES[0]
