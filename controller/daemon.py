"""The controller, wired: store, mirror, link, leadership and all that only the leader does."""

import asyncio
import tomllib
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Never

import aiohttp
import click

from controller.api.server import Api, serve_api
from controller.board import Board
from controller.commands import Commands
from controller.config import Config
from controller.converge import Converger
from controller.dns import Zones
from controller.dnswire import read_keys
from controller.events import Events
from controller.lead import Leader
from controller.link import Link
from controller.mirror import Mirror
from controller.nameservers import NameServers
from controller.ports import Probing, Visitor
from controller.prove import Prover
from controller.store import LeaseLost, Store, StoreError
from controller.store.embedded import EmbeddedStore
from controller.visit import HttpVisitor
from failover.routes import Intent, target
from fleet import keys
from fleet.model import HostId, Role
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from runtime import log
from runtime.config import BadConfig, load
from runtime.probes import Probes
from runtime.supervise import Watchdog, end_if_cancelled, run, serve

CAMPAIGN_AGAIN_S = 0.5  # an outage of the store lasts seconds; its return should not

_log = log.logger("controller")
MOST_PROBES = 500  # a fleet without edges is a small one


class Controller:
    """One controller's parts over a store; the simulation builds the same with ports of its own."""

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        exporter: Exporter,
        tokens: Mapping[HostId, str],
        name_servers: Callable[[str], NameServers],
        visitor: Visitor,
        probing: Probing,
    ) -> None:
        self.config, self.store = config, store
        self.exporter = exporter
        self.exporter.info("relevo_controller_build", version=version("relevo"))
        self.events = Events()
        self.mirror = Mirror()
        self.board = Board(config.id)
        self.watchdog = Watchdog("lead", "orders")
        self.link = Link(
            tokens,
            self.exporter,
            probing=probing,
            id=config.id,
            controllers=config.all_controllers,
            policy=config.policy,
        )
        self.converger = Converger(self.mirror, self.events, name_servers)
        self.prover = Prover(
            self.mirror, self.link, visitor, self.exporter, edge_port=config.edge_port
        )
        self.leader = Leader(
            mirror=self.mirror,
            link=self.link,
            board=self.board,
            events=self.events,
            convergence=self.converger,
            proofs=self.prover,
            exporter=self.exporter,
            policy=config.policy,
            tick_s=config.tick_s,
            watchdog=self.watchdog,
        )
        self.probing = probing
        self.commands = Commands(self.mirror, self.leader, self.events, config.policy)

    async def probe(self) -> Never:
        """Eternal: where a co-op has no edges, look at the services ourselves (rule R4)."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.probing.keep(), name="probes")
            while True:
                changed, fleet = self.mirror.changed.count, self.mirror.fleet
                has_edges = any(host.is_edge for host in fleet.hosts.values())
                self.probing.follow(
                    {}
                    if has_edges
                    else {
                        id: target(host)
                        for id, host in fleet.hosts.items()
                        if Role.WEB in host.roles and host.addresses
                    }
                )
                while self.mirror.fleet is fleet:
                    changed = await self.mirror.changed.after(changed)

    async def follow(self) -> None:
        """Eternal: keep the mirror."""
        await self.mirror.follow(self.store)

    async def knows_the_store(self) -> None:
        """Wait until the mirror has read the store once."""
        while not self.mirror.ready:
            await self.mirror.changed.after(self.mirror.changed.count)

    async def campaign(self) -> None:
        """Eternal: lead whenever we may; a lost leadership ends what only the leader does."""
        while True:
            await self.knows_the_store()
            me = self.config.id.encode()
            try:
                async with (
                    self.store.campaign(keys.LEADER, me, ttl=self.config.lease_ttl_s) as leadership,
                    asyncio.TaskGroup() as group,
                ):
                    _log.info("leading", term=leadership.term)
                    self.events.publish("leader", controller=self.config.id)
                    group.create_task(self.converger.run(), name="dns")
                    group.create_task(self.prover.run(), name="prove")
                    await self.leader.lead(leadership)
            except* LeaseLost as lost:
                _log.warning("leadership lost", why=str(lost.exceptions[0]))
            except* StoreError as failed:
                # A store that is away ends nothing: agents are heard, orders stand (rule R6).
                _log.warning("can't campaign", error=repr(failed.exceptions[0]))
                await asyncio.sleep(CAMPAIGN_AGAIN_S)
            end_if_cancelled()

    async def give_orders(self) -> Never:
        """Eternal: orders to every agent whenever the store or the connections change, unless it was rewound."""
        while True:
            changed = self.mirror.changed.count
            mirror = self.mirror
            self.link.know(mirror.fleet)
            ready = self.link.settled and self.board.rewound is None
            if ready and mirror.commits and mirror.fleet_pointer:
                self.link.order(
                    Intent(
                        cluster=mirror.id.cluster,
                        commit=max(mirror.commits, key=lambda name: mirror.commits[name]),
                        fleet=mirror.fleet,
                        places=mirror.places,
                        tombstones=tuple(mirror.tombstones.values()),
                        proof=mirror.proof,
                    ),
                    mirror.epoch,
                )
            self.exporter.set("relevo_controller_store_revision", mirror.revision)
            self.exporter.set("relevo_controller_ready", mirror.ready)
            self.watchdog.finished("orders")
            if self.leader.leadership is None:
                self.watchdog.finished("lead")  # who does not lead has no such rounds
            await self.mirror.changed.within(changed, 0.1)


def read_digests(path: Path) -> dict[str, str]:
    """A file of `name = "<sha256 hex of a token>"`. Raises BadConfig."""
    try:
        found = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML: {error}") from error
    for name, digest in found.items():
        if (
            not isinstance(digest, str)
            or len(digest) != 64
            or set(digest) - set("0123456789abcdef")
        ):
            raise BadConfig(f"{path}: {name}: expected the SHA-256 of a token, 64 hex digits")
    return found


async def _main(config: Config) -> None:
    if len(config.all_controllers) > 1:
        raise BadConfig(
            f"controllers = {list(config.controllers)}: each would decide by an embedded store of its own; "
            f'until a store that they share is configured, name one: controllers = ["{config.id}"]'
        )
    agents, admins = read_digests(config.agents), read_digests(config.admins)
    tsig = read_keys(config.dns_keys)
    try:
        config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadConfig(
            f"state = {config.state}: {error.strerror or error}; name a folder that this user may make"
        ) from error
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(EmbeddedStore.open(config.state / "store.db"))
        except StoreError as error:
            raise BadConfig(str(error)) from error
        visitor = await stack.enter_async_context(HttpVisitor(timeout_s=config.proof_timeout_s))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        exporter = Exporter(CONTROLLER)
        controller = Controller(
            config,
            store,
            exporter=exporter,
            tokens={HostId(host): digest for host, digest in agents.items()},
            visitor=visitor,
            probing=Probes(session, most=MOST_PROBES),
            name_servers=lambda cluster: Zones(cluster, tsig, exporter=exporter),
        )
        listens = asyncio.Event()

        async def ready() -> None:
            await listens.wait()
            await controller.knows_the_store()

        await serve(
            ready=ready(),
            mirror=controller.follow(),
            leader=controller.campaign(),
            orders=controller.give_orders(),
            time=controller.link.keep_time(),
            probes=controller.probe(),
            api=serve_api(Api(controller, admins), config.listen, listens),
        )


@click.command("controller", help="Run the controller of a co-op.")
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/relevo/controller.toml"),
    show_default=True,
    help="the controller's configuration file",
)
def command(path: Path) -> None:
    try:
        config = load(path, Config)
    except BadConfig as error:
        click.echo(f"relevo controller: {error}", err=True)
        raise SystemExit(2) from error
    log.configure(debug=config.debug)
    run(_main(config))
