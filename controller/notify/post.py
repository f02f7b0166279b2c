"""The controller's post: looks at what stands, and has every receiver told by a courier of its own."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Never

from controller.notify import matters, wording
from controller.notify.courier import Courier, Standing
from controller.notify.fills import Fills
from controller.notify.hook import Hook
from controller.notify.letter import Notifier, NotSent
from controller.notify.mail import Mailer
from controller.notify.matters import Plea, Scene, Trouble
from controller.notify.settings import Command, Mail, Receiver, Webhook
from controller.notify.voice import Voice
from controller.notify.webhook import Poster
from controller.store import StoreError
from failover.guards import spent_causes
from fleet import keys
from runtime.clock import wall
from runtime.pulse import Pulse

if TYPE_CHECKING:
    from controller.parts import Controller

LOOK_S = 0.25  # between two looks: a second is gathered anyway
TEST_S = 20.0  # of a test: a person waits for it at a terminal, which gives up after 30 s
ASK_S = 15.0  # between two questions to the store whether it answers, and who leads


def notifier(receiver: Mail | Webhook | Command) -> Notifier:
    """The way to `receiver`, with the secrets that it names. Raises BadConfig."""
    match receiver:
        case Mail():
            return Mailer(receiver)
        case Webhook():
            return Poster(receiver)
        case Command():
            return Hook(receiver)


@dataclass(frozen=True, slots=True)
class Tried:
    """How a test went; `error` is empty where it arrived."""

    name: str
    error: str
    took_s: float


@dataclass(slots=True)
class Health:
    """What this controller knows of its own way to the store. Instants of the loop's clock; None: all is well."""

    store_error: str = ""
    away_since: float | None = None
    leaderless_since: float | None = None


@dataclass(slots=True)
class _Look:
    standing: Standing = field(default_factory=Standing)
    pulse: Pulse = field(default_factory=Pulse)


class Post:
    """Nothing is looked at where nobody is to be told."""

    def __init__(
        self, controller: "Controller", receivers: Sequence[tuple[Receiver, Notifier]] = ()
    ) -> None:
        self._controller, self._health, self._look = controller, Health(), _Look()
        self._fills = Fills(controller.uses)
        config = controller.config
        self.couriers = tuple(
            Courier(
                receiver,
                way,
                mirror=controller.mirror,
                leadership=lambda: controller.leader.leadership,
                exporter=controller.exporter,
                controller=config.id,
                base=config.urls.get(config.id, ""),
            )
            for receiver, way in receivers
        )

    async def run(self) -> None:
        """Eternal. A courier waits for its own receiver only."""
        if not self.couriers:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask(), name="ask")
            for courier in self.couriers:
                group.create_task(self._carry(courier), name=f"notify {courier.receiver.name}")
            while True:
                self._look.standing = self._standing()
                self._look.pulse.beat()
                await asyncio.sleep(LOOK_S)

    async def _carry(self, courier: Courier) -> Never:
        count = self._look.pulse.count
        while True:
            count = await self._look.pulse.after(count)
            await courier.round(self._look.standing)

    def _standing(self) -> Standing:
        controller = self._controller
        own = matters.own(self._trouble())
        if not controller.decides or controller.board.times is None:
            return Standing(own=own)
        scene = self._scene()
        return Standing(
            own=own,
            fleet=matters.standing(scene),
            unsure=matters.unsure(scene),
            doubts=self._fills.doubts,
        )

    def _scene(self) -> Scene:
        controller, mirror, board = (
            self._controller,
            self._controller.mirror,
            self._controller.board,
        )
        at = wall()
        return Scene(
            wall=at,
            now=asyncio.get_running_loop().time(),
            holds=mirror.holds,
            incidents=mirror.incidents,
            verdicts=board.verdicts,
            spent=len(spent_causes(mirror.budget, at)),
            allowed=controller.config.policy.causes_allowed(len(mirror.fleet.hosts)),
            rewound=controller.sight.rewound,
            fleet_broken=mirror.fleet_broken,
            penalties=mirror.penalties,
            help={
                host: Plea(at=word.at, whys=word.help)
                for host, word in controller.uses.hosts.items()
            },
            disks=self._fills.look(),
            testimony=board.testimony,
        )

    def _trouble(self) -> Trouble:
        health, now = self._health, asyncio.get_running_loop().time()
        return Trouble(
            controller=self._controller.config.id,
            store_error=health.store_error,
            store_away_s=_since(health.away_since, now),
            leaderless_s=_since(health.leaderless_since, now),
            snapshot_error=self._controller.board.snapshot_error,
        )

    async def _ask(self) -> Never:
        """Eternal: whether the store answers us, and whether anybody leads; a mirror alone can't tell."""
        health, now = self._health, asyncio.get_running_loop().time
        while True:
            try:
                leader = await self._controller.store.get(keys.LEADER)
            except StoreError as error:
                health.store_error = str(error) or type(error).__name__
            else:
                health.store_error = self._controller.board.store_error
                health.leaderless_since = _begun(health.leaderless_since, leader is None, now())
            health.away_since = _begun(health.away_since, bool(health.store_error), now())
            await asyncio.sleep(ASK_S)

    async def test(self, name: str | None, by: str) -> tuple[Tried, ...]:
        """Send a letter that says that it is a test to every receiver, or to the one of this name. Raises KeyError."""
        chosen = [c for c in self.couriers if name is None or c.receiver.name == name]
        if name is not None and not chosen:
            raise KeyError(name)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._try(courier, by)) for courier in chosen]
        return tuple(task.result() for task in tasks)

    async def _try(self, courier: Courier, by: str) -> Tried:
        receiver, config = courier.receiver, self._controller.config
        voice = Voice(receiver.languages[0], config.id, config.urls.get(config.id, ""))
        cluster = self._controller.mirror.id.cluster
        letter = wording.trial(
            uuid.uuid4().hex[:24], receiver.name, by, voice, wall(), cluster=cluster
        )
        now = asyncio.get_running_loop().time
        began, error = now(), ""
        try:
            await courier.hand_over(letter, most_s=TEST_S)
        except NotSent as failed:
            error = str(failed)
        return Tried(receiver.name, error, round(now() - began, 3))


def _begun(since: float | None, true: bool, now: float) -> float | None:
    """Since when it has been true."""
    return None if not true else now if since is None else since


def _since(at: float | None, now: float) -> float:
    return 0.0 if at is None else now - at
