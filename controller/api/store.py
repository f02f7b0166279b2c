"""The store over HTTP: what a rewound one has forgotten, and giving it back."""

from typing import TYPE_CHECKING

import msgspec

from controller.api.kinds import ORDERED
from controller.api.routes import Call, Nothing, Route, route
from controller.api.writes import Reason
from controller.commands import Person
from controller.recover import Recalling
from fleet.model import Domain, HostId, SiteId

if TYPE_CHECKING:
    from controller.parts import Controller


class RecoveryOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`anyway`: also where hosts say nothing; what only they know is lost."""

    reason: Reason
    anyway: bool = False


class ToldWord(msgspec.Struct, frozen=True, kw_only=True):
    """`witness` says that the site is at `host`, by orders of `epoch`."""

    witness: HostId
    host: HostId
    epoch: str


class ToldConflict(msgspec.Struct, frozen=True, kw_only=True):
    """Words on one site that can't all be true; it stays at `kept`, observed until a person arms it."""

    site: SiteId
    kept: HostId
    said: tuple[ToldWord, ...]


class ToldRecovery(msgspec.Struct, frozen=True, kw_only=True):
    """`moved`: where sites are, other than the store says. `heard`: whose orders this is read from; `silent`: declared
    hosts that said nothing; `strangers`: hosts that hold another cluster's orders; `strays`: domains that edges serve
    and the fleet does not declare."""

    generation: int
    moved: dict[SiteId, HostId]
    conflicts: tuple[ToldConflict, ...]
    strays: tuple[Domain, ...]
    heard: tuple[HostId, ...]
    silent: tuple[HostId, ...]
    strangers: tuple[HostId, ...]


class StoreRoutes:
    def __init__(self, controller: "Controller") -> None:
        self._recoverer = controller.recoverer

    def routes(self) -> list[Route]:
        path = "/v1/store/recovery"
        return [
            route("GET", path, self.look, role="admin", refuses=ORDERED),
            route("POST", path, self.recover, role="admin", refuses=ORDERED),
        ]

    async def look(self, call: Call[Nothing, None]) -> ToldRecovery:
        """What recovering a store that was rewound would write, by the word of every agent."""
        return _told(await self._recoverer.look())

    async def recover(self, call: Call[Nothing, RecoveryOrder]) -> ToldRecovery:
        """Recover a store that was rewound.

        Placements are read from what agents and edges hold, and the next generation begins. What is in doubt stays
        where it is and is observed until somebody arms it.
        """
        return _told(
            await self._recoverer.recover(
                Person(call.who, call.body.reason), anyway=call.body.anyway
            )
        )


def _told(found: Recalling) -> ToldRecovery:
    recovery = found.recovery
    return ToldRecovery(
        generation=recovery.generation,
        moved=dict(recovery.moved),
        conflicts=tuple(
            ToldConflict(
                site=conflict.site,
                kept=conflict.kept,
                said=tuple(
                    ToldWord(witness=witness, host=host, epoch=str(epoch))
                    for witness, (host, epoch) in sorted(conflict.said.items())
                ),
            )
            for conflict in recovery.conflicts
        ),
        strays=recovery.strays,
        heard=found.heard,
        silent=recovery.silent,
        strangers=found.strangers,
    )
