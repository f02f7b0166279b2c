"""The whole co-op, running: machines on, fleet applied and armed, visitors coming; all of it gone at the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.demo import network, processes
from deploy.demo.client import Client, client
from deploy.demo.crowd import Visitors, crowd, visitors
from deploy.demo.effect import Incomplete
from deploy.demo.fleet import fleet
from deploy.demo.lab import LONE, Kind, Lab, Staff, Store
from deploy.demo.network import Namespaces, Network
from deploy.demo.packages import DEMO, PREFIX, WITH_ETCD, Tools, bring
from deploy.demo.programs import Outfit
from deploy.demo.stage import POLL_S, Stage
from fleet.model import Fleet
from fleet.writing import write

READY_S = 40.0
LOGS = PREFIX.parent / "demo" / "logs"

Say = Callable[[str], None]
Tailor = Callable[[Lab, Fleet, Tools, Path], Outfit]


class NotReady(Exception):
    """The stage could not be set; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """A stage that is ready, with its controller and its visitors."""

    stage: Stage
    outfit: Outfit
    client: Client
    visitors: Visitors


@asynccontextmanager
async def show(
    say: Say,
    *,
    namespaces: bool | None = None,
    staff: Staff = LONE,
    seed: int = 1,
    tailor: Tailor = Outfit,
    declare: Callable[[Lab], Fleet] = fleet,
) -> AsyncIterator[Show]:
    """The whole co-op, ready; `tailor` and `declare` may give it other files and another fleet.

    Raises NotReady, ApiFailed, Ended, NoNetwork, NotBrought; some in a group.
    """
    etcd = staff.store is Store.ETCD
    store = ", etcd" if etcd else ""
    say(f"bringing HAProxy, Knot, nginx{store} and D-Bus (the first time takes half a minute)")
    tools = Tools(await asyncio.to_thread(bring, WITH_ETCD if etcd else DEMO))
    processes.remove_stale()
    await network.remove_stale()
    async with network.network(namespaces=namespaces, staff=staff) as net:
        if net.missing:
            say(net.missing)
        with processes.folder() as directory:
            if isinstance(net, Namespaces):
                net.enter(net.lab.the(Kind.VISITORS))
            with _logs_kept(directory):
                declared = declare(net.lab)
                outfit = tailor(net.lab, declared, tools, directory)
                async with _running(net, declared, outfit, say, seed) as it:
                    yield it


@asynccontextmanager
async def _running(
    net: Network, declared: Fleet, outfit: Outfit, say: Say, seed: int
) -> AsyncIterator[Show]:
    async with asyncio.TaskGroup() as group:
        stage = Stage(net, declared, group)
        try:
            stage.furnish(outfit)
            stage.start(Kind.CONTROLLER, Kind.PRIMARY, Kind.SECONDARY)
            async with client(
                net.lab.apis.values(), ca=outfit.authority.path, token=outfit.token
            ) as desk:
                await _make_ready(stage, desk, say)
                guests = crowd(net.lab, declared.sites.values(), seed)
                folder = outfit.folder(net.lab.the(Kind.VISITORS))
                async with visitors(guests, directory=folder, group=group) as told:
                    yield Show(stage=stage, outfit=outfit, client=desk, visitors=told)
        finally:
            stage.end()


async def _make_ready(stage: Stage, desk: Client, say: Say) -> None:
    lab, sites = stage.lab, stage.fleet.sites.values()
    until = asyncio.get_running_loop().time() + READY_S
    many = "three controllers, their etcd" if lab.staff.controllers > 1 else "the controller"
    say(f"starting {many} and the name servers")
    await _wait("the controller is not ready", desk.ready, until)
    await _wait("no controller leads", desk.led, until)
    await desk.apply(write(stage.fleet))
    say("starting 4 web hosts and 2 edges")
    stage.start(Kind.WEB, Kind.EDGE)

    async def all_up() -> bool:
        return all(host.verdict == "up" for host in await desk.hosts())

    await _wait("not every agent has reported", all_up, until)
    await desk.arm()
    say("waiting until every site answers at both edges and both name servers have its addresses")
    doors = [door for edge in lab.of(Kind.EDGE) for door in edge.doors]
    try:
        await stage.public.served(sites, doors, until=until)
        await stage.public.announced(sites, until=until)
    except Incomplete as finding:
        raise NotReady(str(finding)) from finding


async def _wait(otherwise: str, condition: Callable[[], Awaitable[bool]], until: float) -> None:
    try:
        async with asyncio.timeout_at(until):
            while not await condition():  # noqa: ASYNC110 - it is asked over the network
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise NotReady(f"{otherwise} after {READY_S:g} s") from None


@contextmanager
def _logs_kept(directory: Path) -> Iterator[None]:
    """When something fails, its logs outlive the demo."""
    try:
        yield
    except BaseException as finding:
        if not isinstance(finding, KeyboardInterrupt | SystemExit | asyncio.CancelledError):
            try:
                processes.keep_logs(directory, LOGS)
                finding.add_note(f"The logs of every program are in {LOGS}.")
            except OSError as error:
                finding.add_note(f"The logs could not be kept: {error}")
        raise
