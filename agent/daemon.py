"""The agent's wiring: senses, orders, links and beats of one host, and its life as a daemon."""

import asyncio
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Never

import aiohttp
import click

from agent import serve
from agent.beat import Beats, Identity, last_state
from agent.config import Config
from agent.credential import Change, Credentials
from agent.hosting import Hosting
from agent.join import join
from agent.link import Asked, Links
from agent.orders import FileCache, Follower
from agent.ports import Dial, Traffic
from agent.questions import Reply
from agent.sense.copies import CopySense
from agent.sense.edge import EdgeSense
from agent.sense.load import LoadSense
from agent.sense.packages import PackageSense
from agent.sense.service import ServiceSense
from agent.sense.shutdown import Shutdown
from agent.websocket import Dialler, Trust
from failover.policy import Policy
from fleet import messages
from fleet.messages import (
    AgentState,
    Applied,
    Check,
    EdgeReport,
    Load,
    Orders,
    Recall,
    Recalled,
    Service,
)
from fleet.model import ControllerId, HostId, Role
from fleet.pastuse import PastAsked
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime import config as settings
from runtime import log, supervise
from runtime.certificates import LOOK_S
from runtime.probes import Probes

LAST_WORDS_S = 0.5
# Containers and network namespaces share their machine's boot id: this names one of their own.
BOOT_ID = "RELEVO_BOOT_ID"

_log = log.logger("agent")


class HostSenses:
    """All senses of this host behind the one port that the beat reads."""

    def __init__(
        self,
        load: LoadSense,
        packages: PackageSense,
        neighbours: Probes,
        shutdown: Shutdown,
        service: ServiceSense | None,
        edge: EdgeSense | None,
    ) -> None:
        self._load, self._packages, self._neighbours = load, packages, neighbours
        self._shutdown, self._service, self._edge = shutdown, service, edge
        self.stopping = False

    def state(self) -> AgentState:
        state = self._shutdown.state
        return last_state(state) if self.stopping else state

    def load(self, now: float) -> Load:
        return self._load.load(now)

    def uptime_s(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def service(self, now: float) -> Service | None:
        return self._service.service(now) if self._service else None

    def package_run(self) -> bool:
        return self._packages.running()

    def checks(self, now: float) -> Mapping[HostId, Check]:
        """The neighbours' probes; on an edge HAProxy's checks, which visitors depend on, take their place."""
        own = self._neighbours.checks(now)
        return {**own, **self._edge.checks(now)} if self._edge else own

    def edge(self, now: float) -> EdgeReport | None:
        return self._edge.report(now) if self._edge else None


class Appliers:
    """Makes orders true on this host. `hosted`: what it does for its sites follows at once, and is done soon after."""

    def __init__(
        self,
        neighbours: Probes,
        traffic: Traffic | None,
        hosted: Callable[[Orders], None] = lambda _: None,
    ) -> None:
        self._neighbours, self._traffic, self._hosted = neighbours, traffic, hosted

    async def apply(self, orders: Orders) -> tuple[str, ...]:
        """Raises DriverError. Orders without routes leave HAProxy as it is (rule R7)."""
        self._hosted(orders)
        refused = self._neighbours.follow(orders.probes)
        if self._traffic is None:
            if Role.EDGE in orders.roles:
                refused += ("the role edge: agent.toml has no [edge]",)
        elif orders.routes is not None:
            refused += await self._traffic.follow(orders.routes, orders.epoch)
        return refused


def identity(host: HostId, metrics_port: int | None = None) -> Identity:
    """Who this agent is, within what a beat may say. Raises BadConfig."""
    boot_id = os.environ.get(BOOT_ID) or Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    if not re.match(messages.BOOT_ID, boot_id):
        raise settings.BadConfig(
            f"{BOOT_ID} = {boot_id[:80]!r}: give 1 to 64 letters, digits and '-'"
        )
    return Identity(
        host=host,
        boot_id=boot_id,
        kernel=os.uname().release[: messages.KERNEL_MAX],
        version=version("relevo")[: messages.VERSION_MAX],
        metrics_port=metrics_port,
    )


class Agent:
    """One host's agent, wired. `dial` and `traffic` reach the world; `probing` asks web servers."""

    def __init__(
        self,
        config: Config,
        *,
        dial: Dial,
        traffic: Traffic | None,
        probing: aiohttp.ClientSession,
        exporter: Exporter,
        asked: Asked = lambda: None,
    ) -> None:
        me = identity(config.host, config.metrics.scraped_at)
        exporter.info("relevo_agent_build", version=me.version)
        watchdog = supervise.Watchdog("beat", *(["edge"] if traffic else []))
        packages = PackageSense(config.package_locks)
        self._traffic, self._exporter = traffic, exporter
        self._listens = asyncio.Event()
        self._neighbours = Probes(probing)
        self._copies = CopySense(config.copies, exporter)
        self._shutdown = Shutdown(
            wait_s=config.shutdown_wait_s,
            orders=lambda: self.orders.newest,
            changed=lambda: self.beats.hurry(),  # noqa: PLW0108 - it does not exist yet
        )
        self._service = self._edge = None
        if config.service:
            self._service = ServiceSense(config.service, probing, packages, exporter)
        if traffic:
            self._edge = EdgeSense(traffic, every_s=config.beat_s, watchdog=watchdog)
        self.links = Links(
            map(ControllerId, config.controllers),
            dial,
            self._deliver,
            random=random.SystemRandom(),
            reconnect_max_s=config.reconnect_max_s,
            exporter=exporter,
            asked=asked,
            question=self._question,
        )
        self.hosting = Hosting(config, exporter, self.links.usage)
        self.orders = Follower(
            config.host,
            FileCache(config.state / "orders.json"),
            Appliers(self._neighbours, traffic, self.hosting.follow).apply,
            acknowledge=self.links.applied,
            exporter=exporter,
        )
        self._senses = HostSenses(
            LoadSense(exporter),
            packages,
            self._neighbours,
            self._shutdown,
            self._service,
            self._edge,
        )
        self.beats = Beats(
            me,
            self._senses,
            self.orders,
            self.links,
            beat_s=config.beat_s,
            policy=Policy(),
            exporter=exporter,
            watchdog=watchdog,
        )
        _log.info("agent starts", host=me.host, version=me.version, boot_id=me.boot_id)

    def _deliver(self, offered: Orders | Recall) -> Applied | Recalled | None:
        answer = self.orders.offer(offered)
        if isinstance(offered, Orders):
            self._shutdown.orders_arrived()
        return answer

    def _question(self, asked: PastAsked, reply: Reply) -> None:
        self.hosting.questions.ask(asked, reply)

    def services(self, door: serve.Door) -> dict[str, Coroutine[Any, Any, Any]]:
        """What this agent does, each eternal, by name."""
        services: dict[str, Coroutine[Any, Any, Any]] = {
            "beats": self.beats.keep(),
            "links": self.links.keep(),
            "orders": self.orders.keep(),
            "neighbours": self._neighbours.keep(),
            "copies": self._copies.keep(),
            "shutdown": self._shutdown.keep(),
            "serve": serve.keep(door, self._exporter, self.beats.unwell, self._listens),
            **self.hosting.services(),
        }
        if self._service:
            services["service"] = self._service.keep()
        if self._traffic and self._edge:
            services |= {"edge": self._edge.keep(), "traffic": self._traffic.keep()}
        return services

    async def ready(self) -> None:
        """Wait until this agent does its work: its door listens, and the links, begun before it, dial.

        A controller that is away delays nothing: an agent without one is as it should be.
        """
        await self._listens.wait()

    async def last_words(self) -> None:
        """One more beat that says whether only this agent goes, or the machine."""
        self._senses.stopping = True
        await self.beats.last_words(LAST_WORDS_S)


async def main(config: Config, credentials: Credentials, door: serve.Door) -> None:
    """Live until SIGTERM."""
    exporter = Exporter(AGENT)
    traffic = haproxy(config, exporter)
    async with aiohttp.ClientSession() as linking, aiohttp.ClientSession() as probing:
        urls = {ControllerId(id): url for id, url in config.controllers.items()}
        trust = Trust(config.controllers, config.ca)
        change = Change(linking, config.host, urls, credentials, trust)
        agent = Agent(
            config,
            dial=Dialler(linking, config.host, urls, credentials, trust).dial,
            traffic=traffic,
            probing=probing,
            exporter=exporter,
            asked=change.ask,
        )
        await supervise.serve(
            ready=agent.ready(),
            on_stop=agent.last_words,
            credential=change.keep(),
            certificates=keep_certificates(door, trust, exporter),
            **agent.services(door),
        )


async def keep_certificates(door: serve.Door, trust: Trust, exporter: Exporter) -> Never:
    """Eternal: take what was renewed, and measure when it ends."""
    ends = "relevo_certificate_expires_timestamp_seconds"
    first = True
    while True:
        trust.tls()
        if trust.ends_at is not None:
            exporter.set(ends, trust.ends_at, certificate="ca")
        if door.shown is not None and (door.shown.look() or first):
            exporter.set(ends, door.shown.ends_at, certificate="metrics")
        first = False
        await asyncio.sleep(LOOK_S)


def haproxy(config: Config, exporter: Exporter) -> Traffic | None:
    """The edge's driver, on edges only: other hosts neither need nor load it."""
    if config.edge is None:
        return None
    from agent.edge.haproxy import HAProxy  # noqa: PLC0415

    return HAProxy(config.edge, exporter)


def prepare(config: Config) -> tuple[Credentials, serve.Door]:
    """Check what the configuration points to, before anything runs. Raises BadConfig."""
    credentials, door = Credentials(config.token), serve.Door(config.metrics)
    Trust(config.controllers, config.ca)
    identity(config.host)
    if config.service and config.service.restart:
        _program("service.restart[0]", config.service.restart[0])
    if config.edge:
        _program("edge.binary", config.edge.binary)
    try:
        config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise settings.BadConfig(f"state = {config.state}: {error.strerror}") from error
    if not os.access(config.state, os.W_OK | os.X_OK):
        raise settings.BadConfig(f"state = {config.state}: this user can't write there")
    return credentials, door


def _program(field: str, value: str) -> None:
    if shutil.which(value) is None:
        raise settings.BadConfig(
            f"{field} = {value!r}: no such program here; install it, or give the path of one"
        )


@click.group("agent", invoke_without_command=True)
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/relevo/agent.toml"),
    show_default=True,
    help="the agent's configuration file",
)
@click.pass_context
def command(context: click.Context, path: Path) -> None:
    """Run the agent of this host, or do what a command below says."""
    if context.invoked_subcommand is not None:
        return
    try:
        config = settings.load(path, Config)
        credentials, door = prepare(config)
    except settings.BadConfig as error:
        click.echo(f"relevo agent: {error}", err=True)
        raise SystemExit(2) from error
    log.configure(debug=config.debug)
    supervise.run(main(config, credentials, door))


command.add_command(join)
