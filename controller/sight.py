"""What this controller sees, leading or not: evidence, verdicts, the plan, doubts about the store. Writes nothing.

Every controller looks all the time: the next leader decides from what it has watched, not from a first glance.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Never

import msgspec

from controller import incidents
from controller.board import Board
from controller.events import Events
from controller.incidents import Times
from controller.link import Link
from controller.mirror import Mirror
from controller.store import Store, StoreError
from failover.capacity import Refuge, refusal
from failover.doubt import Reason
from failover.guards import Guarded, Leave, guard
from failover.judge import Verdict, judge
from failover.plan import Situation, propose
from failover.policy import Policy
from failover.rewound import undone
from fleet import keys
from fleet.model import ControllerId, HostId, Incident, Note, Observation, Why
from metrics.exporter import Exporter
from runtime import log
from runtime.clock import wall
from runtime.pulse import Pulse

_log = log.logger("sight")
CONFIRM_S = 1.0  # for our mirror to show what the store said when it was asked


class Refused(Exception):
    """The order can't be followed as things are; `why` says what stands in its way."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.code)
        self.why = why


class Sight:
    """Looks once a round; `looked` beats after each. `board` shows people what was seen."""

    def __init__(
        self,
        *,
        id: ControllerId,
        mirror: Mirror,
        link: Link,
        board: Board,
        events: Events,
        exporter: Exporter,
        policy: Policy,
    ) -> None:
        self._id, self._mirror, self._link, self._board = id, mirror, link, board
        self._events, self._exporter, self._policy = events, exporter, policy
        self.looked = Pulse()
        self.verdicts: Mapping[HostId, Verdict] = {}
        self.rewound: Why | None = (
            None  # until the store begins a new generation: nothing else disproves it
        )
        self._generation = 0
        self._suspicion: Why | None = None
        self._doubts_since: float | None = None

    def look(self, times: Times) -> tuple[Situation, Sequence[Guarded]]:
        """Judge everything anew and plan from it."""
        mirror = self._mirror
        if mirror.id.generation != self._generation:
            self._generation, self.rewound = mirror.id.generation, None
        self._link.watch_itself(self._known_hosts())
        doubts_itself = self._link.doubt.doubts_itself
        if not doubts_itself:
            self._doubts_since = None
        elif self._doubts_since is None:
            self._doubts_since = times.now
        seen = self._link.evidence(mirror.fleet, frozenset(mirror.known), mirror.observers)
        verdicts = judge(self.verdicts, seen, self._policy, times.now)
        self._tell(verdicts)
        self.verdicts = verdicts
        self._suspicion = self.rewound or self._undone()
        situation = self._situation()
        leave = Leave(
            fleet=mirror.fleet,
            switches=mirror.switches,
            budget=mirror.budget,
            verdicts=verdicts,
            rewound=self._suspicion,
            doubts_itself=doubts_itself,
            wall=times.wall,
            refused=mirror.refusals,
        )
        plan = guard(propose(situation, self._policy, times.now), leave, self._policy)
        self._board.update(
            seen=seen, verdicts=verdicts, plan=plan, rewound=self._suspicion, times=times
        )
        self.looked.beat()
        return situation, plan

    def observation(self) -> Observation:
        """What the other controllers should know of what is seen here."""
        return Observation(
            trusted=not self._link.doubt.doubts_itself,
            words=self._link.words(self._mirror.fleet),
        )

    @property
    def another_sees_better(self) -> bool:
        """Whether this controller has doubted itself for a while, and another one does not doubt itself."""
        now = asyncio.get_running_loop().time()
        starts = self._link.doubt.reason is Reason.START
        patience_s = self._policy.first_beat_s if starts else self._policy.unreachable_s
        return (
            self._doubts_since is not None
            and now - self._doubts_since >= patience_s
            and any(said.trusted for id, said in self._mirror.observers.items() if id != self._id)
        )

    def _known_hosts(self) -> frozenset[HostId]:
        """Declared hosts that have reported before: the links that should be."""
        return frozenset(self._mirror.known.keys() & self._mirror.fleet.hosts.keys())

    def _tell(self, verdicts: Mapping[HostId, Verdict]) -> None:
        for host, verdict in verdicts.items():
            old = self.verdicts.get(host)
            if old is None or old.kind is not verdict.kind:
                was = old.kind.value if old else "none"
                _log.info(
                    "verdict", host=host, old=was, new=verdict.kind.value, why=verdict.why.code
                )
                self._events.publish(
                    "verdict",
                    host=host,
                    old=was,
                    new=verdict.kind.value,
                    why=msgspec.to_builtins(verdict.why),
                )

    def _situation(self) -> Situation:
        mirror, heard = self._mirror, self._link.heard
        open_now = incidents.by_subject(mirror.incidents.values())
        return Situation(
            fleet=mirror.fleet,
            places=mirror.places,
            verdicts=self.verdicts,
            drains=self._drains(),
            withdrawn=frozenset(mirror.withdrawn),
            boots={host: self._episode(host, open_now.get(host)) for host in mirror.known},
            memory_available_ratio={
                host: h.beat.load.memory_available_ratio for host, h in heard.items()
            },
        )

    def _episode(self, host: HostId, open_now: Incident | None) -> str:
        """What tells a host's present trouble from an earlier one, so that each is paid for (rule R8).

        An open incident goes on under the leader who follows; else the boot and when the verdict fell.
        """
        if open_now is not None and open_now.cause.startswith(f"host:{host}:"):
            return open_now.cause.removeprefix(f"host:{host}:")
        heard, known = self._link.heard.get(host), self._mirror.known[host]
        boot = heard.beat.boot_id if heard else known.boot_id
        verdict = self.verdicts.get(host)
        return f"{boot}:{verdict.since:.3f}" if verdict else boot

    def _drains(self) -> dict[HostId, Note]:
        """The drains in force: one whose time is over is none, also before it is deleted (rule R11)."""
        return {host: note for host, note in self._mirror.drains.items() if wall() < note.until}

    def refuse_unfit(self, targets: Iterable[HostId]) -> None:
        """For a move that a person orders. Raises Refused if a target can't take sites now, as far as we see."""
        now = asyncio.get_running_loop().time()
        refuge = Refuge(
            verdicts=self.verdicts,
            draining=frozenset(self._drains()),
            serves={},
            memory_available_ratio={},
        )
        # A person who brings sites home has waited as long as they found right.
        policy = msgspec.structs.replace(self._policy, settle_s=1e-9)
        for target in targets:
            why = refusal(target, self._mirror.fleet, refuge, policy, now)
            if why is not None:
                raise Refused(why)

    # Rule R2.

    async def verify(self, store: Store) -> Never:
        """Eternal: find out whether a suspected rewind is one: a mirror may lag behind what agents already have."""
        while True:
            if self._suspicion is not None and self.rewound is None and await self._asked(store):
                self.rewound = self._undone()
                if self.rewound is not None:
                    _log.critical(
                        "the store was rewound: no orders, no moves", **self.rewound.values
                    )
            self._exporter.set("relevo_controller_store_rewound", self.rewound is not None)
            await self.looked.after(self.looked.count)

    async def _asked(self, store: Store) -> bool:
        """Whether our mirror shows all that the store has now, by its own word."""
        try:
            now = await store.list(keys.COMMITS, limit=1)
            async with asyncio.timeout(CONFIRM_S):
                await self._mirror.reached(now.revision)
        except (StoreError, TimeoutError):
            return False
        return True

    def _undone(self) -> Why | None:
        """Agents that hold orders from a future that the store does not have prove that it was rewound (rule R2).

        One edge or two hosts must say so: a single compromised hosting server must not stop the fail-over (R15).
        """
        mirror, ours = self._mirror, self._mirror.epoch
        claims = {
            host: heard.beat
            for host, heard in self._link.heard.items()
            if host in mirror.fleet.hosts
            and heard.beat.cluster
            and (
                heard.beat.cluster != mirror.id.cluster
                or undone(heard.beat.newest, heard.beat.commit, mirror.commits, ours)
            )
        }
        if len(claims) < 2 and not any(mirror.fleet.hosts[host].is_edge for host in claims):
            return None
        host, beat = max(claims.items(), key=lambda claim: claim[1].newest)
        return Why("store-rewound", {"host": host, "epoch": str(beat.newest), "ours": str(ours)})
