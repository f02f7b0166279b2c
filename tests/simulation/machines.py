"""Machines of the simulation: power, a web server, perhaps HAProxy, and the agent's real link, orders and beat."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Never

from agent.beat import Beats, Identity
from agent.link import Links
from agent.orders import Follower
from agent.ports import Connection, DriverError, EdgeView
from agent.sense.edge import EdgeSense
from failover.policy import Policy
from fleet.messages import (
    AgentState,
    Check,
    EdgeReport,
    Load,
    Orders,
    RestartState,
    Routes,
    Service,
    Target,
    Usage,
)
from fleet.model import ControllerId, Domain, Epoch, Health, Host, HostId, SiteId
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime.probes import Streak, step, view
from runtime.supervise import Watchdog
from tests.simulation.network import Network
from tests.simulation.processes import Process

CHECK_S = 0.5
TELL_S = 2.0  # of use and penalties; agents do each 10 s, and at once when a penalty changes
RECONNECT_MAX_S = 5.0
RESTART_AFTER_S, RESTART_TAKES_S = 5.0, 2.0

Answers = Callable[[HostId], bool]
Dial = Callable[[HostId, ControllerId], Awaitable[Connection]]
Applied = Callable[["Machine", Orders], None]


def now() -> float:
    return asyncio.get_running_loop().time()


class Checker:
    """Asks hosts every half second, as HAProxy or a neighbour's probe does: three failures are DOWN."""

    def __init__(self, asks: Answers) -> None:
        self._asks = asks
        self.streaks: dict[HostId, Streak] = {}

    def follow(self, probes: Mapping[HostId, Target]) -> tuple[str, ...]:
        self.streaks = {
            host: self.streaks.get(host, Streak(target=target, since=now()))
            for host, target in probes.items()
        }
        return ()

    def forget(self) -> None:
        targets = {host: streak.target for host, streak in self.streaks.items()}
        self.streaks = {}
        self.follow(targets)

    def checks(self, now: float) -> dict[HostId, Check]:
        return {host: view(streak, now) for host, streak in self.streaks.items()}

    async def keep(self) -> Never:
        while True:
            for host, streak in list(self.streaks.items()):
                error = "" if self._asks(host) else "no answer"
                self.streaks[host] = step(streak, error, now())
            await asyncio.sleep(CHECK_S)


class HAProxy:
    """An edge's Traffic: applies routes at once and as a whole, keeps them over restarts, never thinks."""

    def __init__(self, checker: Checker) -> None:
        self.up = True
        self.domains: dict[Domain, HostId] = {}
        self.epoch = Epoch()
        self.checker = checker

    async def follow(self, routes: Routes, epoch: Epoch) -> tuple[str, ...]:
        await asyncio.sleep(0.01)
        if not self.up:
            raise DriverError("the runtime socket is gone")
        assert epoch >= self.epoch, f"R2: routes of {epoch} after those of {self.epoch}"
        kept = {d: h for d, h in self.domains.items() if d not in routes.removed_domains}
        self.domains, self.epoch = kept | routes.domains, epoch
        self.checker.follow(routes.hosts)
        return tuple(sorted(kept.keys() - routes.domains.keys()))

    async def look(self) -> EdgeView:
        checks = self.checker.checks(now()) if self.up else {}
        return EdgeView(checks=checks, report=self.report())

    def report(self) -> EdgeReport:
        return EdgeReport(haproxy_up=self.up, routes=self.epoch, domains=len(self.domains))

    async def keep(self) -> None:
        """Nothing is lost here by a restart."""


class Memory:
    """The agent's cache of orders: the machine's disk."""

    def __init__(self) -> None:
        self.orders: Orders | None = None

    def read(self) -> Orders | None:
        return self.orders

    async def write(self, orders: Orders) -> None:
        await asyncio.sleep(0.002)
        self.orders = orders


class Machine:
    """One host. `answering_since`, `dark_since`: since when it does, or does not, answer visitors."""

    def __init__(
        self,
        host: Host,
        network: Network,
        random: Random,
        *,
        controllers: tuple[ControllerId, ...],
        dial: Dial,
        asks: Callable[[HostId, HostId], bool],
        applied: Applied,
    ) -> None:
        self.host, self.id = host, host.id
        self._network, self._random = network, random
        self._controllers, self._dial, self._applied = controllers, dial, applied
        self.powered, self.frozen, self.web_up = True, False, True
        self.boot, self.leaving = 0, False
        self.web_changed_at, self.booted_at = 0.0, 0.0
        self.checker = Checker(lambda other: asks(self.id, other))
        self.haproxy = HAProxy(self.checker) if host.is_edge else None
        self.memory = Memory()
        self.agent: Process | None = None
        self.checking: Process | None = None
        self.agent_state = AgentState.RUNNING
        self.beats: Beats | None = None
        self.sense: EdgeSense | None = None
        self.lies: dict[HostId, Health] = {}
        self.usage: Usage | None = None
        self.claimed: set[SiteId] = set()  # whom it has ever claimed to penalize
        self.busy = False  # something is being done to it
        self.answering_since: float | None = 0.0
        self.dark_since: float | None = None
        self.follower: Follower | None = None

    @property
    def answers(self) -> bool:
        """Whether a visitor who reaches this machine gets an answer."""
        serves = self.haproxy.up if self.haproxy else self.web_up
        return self.powered and not self.frozen and serves

    def note(self) -> None:
        """Remember when it began or ceased to answer."""
        if self.answers:
            self.dark_since = None
            self.answering_since = (
                self.answering_since if self.answering_since is not None else now()
            )
        else:
            self.answering_since = None
            self.dark_since = self.dark_since if self.dark_since is not None else now()

    def boot_up(self, group: asyncio.TaskGroup) -> None:
        """Power on, a new boot: checks begin anew, and the agent works from the orders on its disk."""
        self.powered, self.frozen, self.web_up, self.leaving = True, False, True, False
        self.boot, self.booted_at, self.web_changed_at = self.boot + 1, now(), now()
        self.agent_state = AgentState.RUNNING
        if self.haproxy:
            self.haproxy.up = True
        self.checker.forget()
        self.checking = Process(f"{self.id} checks")
        self.checking.start(group, self.checker.keep())
        self.start_agent(group)
        self.note()

    def power_off(self) -> None:
        self.powered = False
        for process in (self.agent, self.checking):
            if process:
                process.kill()
        self.note()

    def freeze(self) -> None:
        self.frozen = True
        for process in (self.agent, self.checking):
            if process and not process.killed:
                process.freeze()
        self.note()

    def thaw(self) -> None:
        self.frozen = False
        for process in (self.agent, self.checking):
            if process:
                process.thaw()
        self.note()

    def set_web(self, up: bool) -> None:
        if up is not self.web_up:
            self.web_up, self.web_changed_at = up, now()
        self.note()

    def start_agent(self, group: asyncio.TaskGroup) -> None:
        assert self.agent is None or self.agent.killed, f"{self.id} has an agent already"
        self.agent_state = AgentState.LEAVING if self.leaving else AgentState.RUNNING
        self.agent = Process(f"{self.id} agent")
        self.agent.start(group, self._run_agent())

    async def _run_agent(self) -> None:
        exporter = Exporter(AGENT)
        follower = Follower(
            self.id,
            self.memory,
            self._apply,
            acknowledge=lambda applied: links.applied(applied),  # noqa: PLW0108 - it does not exist yet
            exporter=exporter,
        )
        self.follower = follower
        links = Links(
            self._controllers,
            lambda controller: self._dial(self.id, controller),
            follower.offer,
            random=self._random,
            reconnect_max_s=RECONNECT_MAX_S,
            exporter=exporter,
        )
        identity = Identity(
            host=self.id, boot_id=f"{self.id}-{self.boot}", kernel="6.1", version="0"
        )
        self.beats = Beats(
            identity,
            self,
            follower,
            links,
            beat_s=0.5,
            policy=Policy(),
            exporter=exporter,
            watchdog=Watchdog("beat"),
        )
        async with asyncio.TaskGroup() as group:
            if self.haproxy:
                watchdog = Watchdog("edge")
                self.sense = EdgeSense(self.haproxy, every_s=0.5, watchdog=watchdog)
                group.create_task(self.sense.keep())
            group.create_task(links.keep())
            group.create_task(follower.keep())
            group.create_task(self.beats.keep())
            group.create_task(self._tell(links))

    def tell(self, usage: Usage | None) -> None:
        """Say this of sites from now on, again and again; None: nothing."""
        self.usage = usage
        self.claimed |= {penalty.site for penalty in usage.penalties} if usage else set()

    async def _tell(self, links: Links) -> Never:
        while True:
            if self.usage is not None:
                links.usage((self.usage,))
            await asyncio.sleep(TELL_S)

    async def _apply(self, orders: Orders) -> tuple[str, ...]:
        refused: tuple[str, ...] = ()
        if orders.routes is not None and self.haproxy:
            refused = await self.haproxy.follow(orders.routes, orders.epoch)
        elif orders.probes:
            self.checker.follow(orders.probes)
        self._applied(self, orders)
        return refused

    # The senses of the beat.

    def state(self) -> AgentState:
        return self.agent_state

    def load(self, now: float) -> Load:
        return Load(
            cpu_ratio=0.1,
            load_1min=0.1,
            memory_total_bytes=8 << 30,
            memory_available_bytes=4 << 30,
            swap_used_bytes=0,
            receive_bytes_per_s=0.0,
            transmit_bytes_per_s=0.0,
        )

    def uptime_s(self) -> float:
        return now() - self.booted_at

    def service(self, now: float) -> Service | None:
        if self.haproxy:
            return None
        for_s = now - self.web_changed_at
        if self.web_up:
            return Service(check=Check(health=Health.UP, since_s=for_s))
        restart = RestartState.NONE
        if for_s >= RESTART_AFTER_S:
            over = for_s >= RESTART_AFTER_S + RESTART_TAKES_S
            restart = RestartState.FAILED if over else RestartState.RUNNING
        return Service(check=Check(health=Health.DOWN, since_s=for_s), restart=restart)

    def package_run(self) -> bool:
        return False

    def checks(self, now: float) -> Mapping[HostId, Check]:
        told = dict(self.sense.checks(now) if self.sense else self.checker.checks(now))
        lies = {host: Check(health=health, since_s=60.0) for host, health in self.lies.items()}
        return told | {host: lie for host, lie in lies.items() if host in told}

    def edge(self, now: float) -> EdgeReport | None:
        return self.sense.report(now) if self.sense else None
