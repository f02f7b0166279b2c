"""One controller's parts over a store, wired: the daemon lives on them, and so does the simulation."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Never

from controller.admission import Admission
from controller.audited import Audited
from controller.board import Board
from controller.census import Census
from controller.commands import Commands
from controller.config import Config
from controller.converge import Converger
from controller.events import Events
from controller.granting import Granting
from controller.holding import Holding
from controller.incidents import Times
from controller.lead import BREATH_S, Leader
from controller.link import Link
from controller.mirror import Mirror
from controller.nameservers import NameServers
from controller.news import News
from controller.notify.letter import Notifier
from controller.notify.post import Post
from controller.notify.settings import Receiver
from controller.observe import Observer
from controller.ports import Probing, Visitor
from controller.prove import Prover
from controller.recover import Recoverer
from controller.sight import Sight
from controller.store import LeaseLost, Store, StoreError
from controller.uses import Uses
from failover.routes import Intent, enforced, target
from fleet import keys
from fleet.model import HostId, Role
from metrics.exporter import Exporter
from runtime import log
from runtime.clock import wall
from runtime.supervise import Watchdog, end_if_cancelled

CAMPAIGN_AGAIN_S = 0.5  # an outage of the store lasts seconds; its return should not

_log = log.logger("controller")


class Controller:
    """One controller's parts over a store; the simulation builds the same with ports of its own.

    `tokens` and `admins`: digests of the credentials in this controller's own files, by host and by name.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        *,
        exporter: Exporter,
        tokens: Mapping[HostId, str],
        admins: Mapping[str, str] | None = None,
        name_servers: Callable[[str], NameServers],
        visitor: Visitor,
        probing: Probing,
        receivers: Sequence[tuple[Receiver, Notifier]] = (),
    ) -> None:
        self.config, self.store = config, store
        self.exporter = exporter
        self.exporter.info("relevo_controller_build", version=version("relevo"))
        self.events = Events()
        self.mirror = Mirror()
        self.census = Census(self.mirror)
        self.board = Board(config.id)
        self.watchdog = Watchdog("lead", "orders")
        self.admission = Admission(self.mirror, admins=admins or {}, agents=tokens)
        self.uses = Uses(self.mirror, self.exporter)
        self.link = Link(
            self.admission.hosts,
            self.exporter,
            probing=probing,
            id=config.id,
            controllers=config.all_controllers,
            policy=config.policy,
            uses=self.uses,
        )
        self.converger = Converger(self.mirror, self.events, name_servers)
        self.prover = Prover(
            self.mirror, self.link, visitor, self.exporter, edge_port=config.edge_port
        )
        self.sight = Sight(
            id=config.id,
            mirror=self.mirror,
            link=self.link,
            board=self.board,
            events=self.events,
            exporter=self.exporter,
            policy=config.policy,
        )
        self.observer = Observer(self.sight, id=config.id, lease_ttl_s=config.lease_ttl_s)
        self.leader = Leader(
            mirror=self.mirror,
            link=self.link,
            sight=self.sight,
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
        self.commands = Commands(self.mirror, self.leader, config.policy, self.uses.machines)
        self.holding = Holding(self.mirror, self.leader, self.uses)
        audited = Audited(self.mirror, self.leader)
        self.recoverer = Recoverer(self.mirror, self.link, self.sight, audited)
        self.granting = Granting(self.mirror, audited, self.admission)
        self.post = Post(self, receivers)

    @property
    def decides(self) -> bool:
        """Whether this controller leads, over a store that has its name."""
        return self.leader.leadership is not None and bool(self.mirror.id.cluster)

    async def run(self) -> None:
        """Eternal: everything that lives as long as the controller."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.follow(), name="mirror")
            group.create_task(self.watch(), name="sight")
            group.create_task(News(self.mirror, self.events).tell(), name="news")
            group.create_task(self.campaign(), name="leader")
            group.create_task(self.tell(), name="others")
            group.create_task(self.verify(), name="rewind")
            group.create_task(self.give_orders(), name="orders")
            group.create_task(self.link.keep_time(), name="time")
            group.create_task(self.probe(), name="probes")
            group.create_task(self.post.run(), name="notify")

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

    async def watch(self) -> Never:
        """Eternal: look while another decides; the leader looks in its own rounds."""
        now, tick_s = asyncio.get_running_loop().time, self.config.tick_s
        while True:
            heard, began = self.link.urgent.count, now()
            if self.leader.leadership is None:
                if self.mirror.ready:
                    self.sight.look(Times(wall=wall(), now=began))
                self.watchdog.finished("lead")
            await asyncio.sleep(BREATH_S)
            await self.link.urgent.within(heard, began + tick_s - now())

    async def tell(self) -> None:
        """Eternal: tell the other controllers, where there are others."""
        if len(self.config.all_controllers) > 1:
            await self.observer.keep(self.store)
        await asyncio.Event().wait()

    async def verify(self) -> None:
        """Eternal: make sure of a suspected rewind of the store (rule R2)."""
        await self.sight.verify(self.store)

    async def follow(self) -> None:
        """Eternal: keep the mirror."""
        await self.mirror.follow(self.store)

    async def knows_the_store(self) -> None:
        """Wait until the mirror has read the store once."""
        while not self.mirror.ready:
            await self.mirror.changed.after(self.mirror.changed.count)

    async def campaign(self) -> None:
        """Eternal: lead whenever we may; a lost leadership ends what only the leader does."""
        said = ""
        while True:
            await self.knows_the_store()
            while self.sight.another_sees_better:
                await self.sight.looked.after(self.sight.looked.count)
            me = self.config.id.encode()
            try:
                async with (
                    self.store.campaign(keys.LEADER, me, ttl=self.config.lease_ttl_s) as leadership,
                    asyncio.TaskGroup() as group,
                ):
                    _log.info("leading", term=leadership.term)
                    said = ""
                    group.create_task(self.converger.run(), name="dns")
                    group.create_task(self.prover.run(), name="prove")
                    await self.leader.lead(leadership)
            except* LeaseLost as lost:
                _log.warning("leadership lost", why=str(lost.exceptions[0]))
            except* StoreError as failed:
                # A store that is away or full ends nothing: agents are heard, orders stand (rule R6).
                error = failed.exceptions[0]
                kind = type(error).__name__
                self.exporter.count("relevo_controller_store_errors_total", kind=kind)
                if repr(error) != said:
                    said = repr(error)
                    _log.warning("can't campaign", error=said)
                await asyncio.sleep(CAMPAIGN_AGAIN_S)
            end_if_cancelled()

    async def give_orders(self) -> Never:
        """Eternal: orders to every agent whenever the store or the connections change, unless it was rewound."""
        while True:
            changed = self.mirror.changed.count
            mirror = self.mirror
            self.link.know(mirror.fleet)
            self.link.changing = self.admission.changing()
            self.link.expel()
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
                        enforcement=mirror.enforcement,
                        overrides=mirror.overrides,
                        rulings=mirror.rulings,
                        penalties=enforced(mirror.penalties),
                    ),
                    mirror.epoch,
                )
            self.exporter.set("relevo_controller_store_revision", mirror.revision)
            self.exporter.set("relevo_controller_ready", mirror.ready)
            self.watchdog.finished("orders")
            await self.mirror.changed.within(changed, 0.1)
