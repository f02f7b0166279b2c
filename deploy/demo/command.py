"""`relevo demo`: the live view on a terminal, or one fault and one line of JSON."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import click
import msgspec
import uvloop

from deploy.demo.client import ApiFailed
from deploy.demo.lab import Staff, Store
from deploy.demo.network import NoNetwork, NotPossible
from deploy.demo.once import NotComplete, once
from deploy.demo.packages import NotBrought
from deploy.demo.processes import Ended
from deploy.demo.show import NotReady
from deploy.demo.stage import Fault
from deploy.demo.view import live

FAILED, CANNOT = 1, 2
FAULTS = {"1": Fault.KILL} | {fault.value: fault for fault in Fault}


@click.command(name="demo")
@click.option(
    "--once",
    "fault",
    type=click.Choice(list(FAULTS)),
    help="One fault to the host with the most sites, then one line of JSON. 1: kill it.",
)
@click.option("--seed", default=1, show_default=True, help="The order in which visitors come.")
@click.option(
    "--network",
    type=click.Choice(["auto", "namespaces", "loopback"]),
    default="auto",
    show_default=True,
    help="Where the machines live; namespaces need root.",
)
@click.option(
    "--store",
    type=click.Choice([store.value for store in Store]),
    default=Store.EMBEDDED.value,
    show_default=True,
    help="Where the controllers keep their state.",
)
@click.option(
    "--controllers",
    type=click.Choice(["1", "3"]),
    default="1",
    show_default=True,
    help="How many controllers; three need etcd.",
)
def command(fault: str | None, seed: int, network: str, store: str, controllers: str) -> None:
    """A host of a small co-op dies, on real parts, and its sites live on.

    Without a terminal this is `--once 1`. Exit status: 0 complete, 1 not complete or failed, 2 not possible here.
    """
    namespaces = {"auto": None, "namespaces": True, "loopback": False}[network]
    try:
        staff = Staff(store=Store(store), controllers=3 if controllers == "3" else 1)
    except ValueError as error:
        raise click.UsageError(f"--controllers {controllers}: {error} (--store etcd)") from None
    if fault is None and sys.stdin.isatty() and sys.stdout.isatty():
        _run(live(namespaces=namespaces, staff=staff, seed=seed, say=_say))
    else:
        outcome = _run(
            once(FAULTS[fault or "1"], _say, namespaces=namespaces, staff=staff, seed=seed)
        )
        click.echo(msgspec.json.encode(outcome))


def _say(text: str) -> None:
    click.echo(text, err=True)


def _run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main`; ctrl-C and SIGTERM end it in good order. What it finds becomes a line and an exit status."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_interruptible(main))
    except* (ApiFailed, Ended, NoNetwork, NotBrought, NotComplete, NotReady) as group:
        _fail(group, FAILED)
    except* NotPossible as group:
        _fail(group, CANNOT)
    except* asyncio.CancelledError:
        sys.exit(128 + signal.SIGINT)


async def _interruptible(main: Coroutine[Any, Any, Any]) -> Any:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    return await main


def _fail(group: BaseExceptionGroup[BaseException], status: int) -> None:
    for finding in _leaves(group):
        _say(f"relevo demo: {finding}")
        for note in getattr(finding, "__notes__", ()):
            _say(note)
    for note in getattr(group, "__notes__", ()):
        _say(note)
    sys.exit(status)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for finding in group.exceptions:
        found += _leaves(finding) if isinstance(finding, BaseExceptionGroup) else [finding]
    return found


if __name__ == "__main__":
    command()
