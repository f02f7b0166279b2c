"""Name servers of the simulation: a primary that enforces prerequisites and rule R10, a secondary one second behind."""

import asyncio
from collections.abc import Iterable, Mapping
from random import Random

from controller.nameservers import ServerView, ZoneReport
from failover.ownership import EMPTY, Mark, Seen, Step, step
from fleet.model import Domain, Epoch, RecordSet, Why, Zone, ZoneIntent

NOTIFY_S = 1.0  # Knot's default delay before it tells its secondaries


class Primary:
    """What the zone says, name by name. `foreign`: names without our mark, that nobody may touch."""

    def __init__(self, foreign: Mapping[Domain, RecordSet]) -> None:
        self.foreign = dict(foreign)
        self.names = {name: Seen(records=records) for name, records in foreign.items()}
        self.history: list[tuple[float, dict[Domain, Seen]]] = [(-60.0, dict(self.names))]
        self.away = False

    def read(self, name: Domain) -> Seen:
        return self.names.get(name, Seen())

    def update(self, name: Domain, expected: Seen, want: RecordSet | None, mark: Mark) -> bool:
        """One update with prerequisites; False: they no longer hold. Asserts rule R10."""
        now = self.read(name)
        if now != expected:
            return False
        assert name not in self.foreign, f"R10: {name} carries no mark of ours and was touched"
        assert want != EMPTY, f"R10: {name} would be emptied"
        for text in now.marks:
            assert Mark.parse(text).epoch < mark.epoch, f"R2: {name}: {text} overwritten by {mark}"
        if want is None:
            del self.names[name]
        else:
            self.names[name] = Seen(records=want, marks=(str(mark),))
        self.history.append((asyncio.get_running_loop().time(), dict(self.names)))
        return True

    def as_of(self, instant: float) -> Mapping[Domain, Seen]:
        return next(names for at, names in reversed(self.history) if at <= instant)


class NameServers:
    """The port, as one controller's cluster writes through it."""

    def __init__(self, cluster: str, primary: Primary, random: Random) -> None:
        self._cluster, self._primary, self._random = cluster, primary, random

    async def converge(self, zone: Zone, intent: ZoneIntent, epoch: Epoch) -> ZoneReport:
        await self._travel()
        if self._primary.away:
            return ZoneReport(error=Why("dns-no-answer", {"server": str(zone.primary)}))
        wanted: dict[Domain, RecordSet | None] = {**dict.fromkeys(intent.removed), **intent.names}
        mark, sent, unchanged = Mark(self._cluster, epoch), [], 0
        holds: list[tuple[Domain, Why]] = []
        for name, want in sorted(wanted.items()):
            seen = self._primary.read(name)
            todo = step(name, seen, want, cluster=self._cluster, epoch=epoch)
            if isinstance(todo, Why):
                holds.append((name, todo))
            elif todo is Step.NOTHING:
                unchanged += 1
            else:
                await self._travel()
                if self._primary.update(name, seen, want, mark):
                    sent.append(name)
        gone = tuple(name for name in intent.removed if self._primary.read(name).empty)
        return ZoneReport(sent=tuple(sent), unchanged=unchanged, removed=gone, holds=tuple(holds))

    async def verify(
        self, zone: Zone, intent: ZoneIntent, names: Iterable[Domain]
    ) -> dict[str, ServerView]:
        await self._travel()
        now = asyncio.get_running_loop().time()
        return {
            str(server): self._view(intent, names, now - NOTIFY_S * place)
            for place, server in enumerate(zone.servers)
        }

    def _view(self, intent: ZoneIntent, names: Iterable[Domain], instant: float) -> ServerView:
        if self._primary.away:
            return ServerView(error=Why("dns-no-answer"))
        says = self._primary.as_of(instant)
        differing = (n for n in names if says.get(n, Seen()).records != intent.names[n])
        return ServerView(differing=tuple(sorted(differing)))

    async def _travel(self) -> None:
        await asyncio.sleep(self._random.uniform(0.001, 0.03))
