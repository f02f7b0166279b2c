"""Tells of what changes in the store, on every controller: leader, incidents, holds, penalties, people's orders."""

from collections.abc import Mapping
from typing import Never, TypeVar

import msgspec

from controller.events import Events
from controller.mirror import Mirror
from controller.penalties import steps
from fleet.model import AuditEntry, ControllerId, Hold, Incident, IncidentId, SiteId
from fleet.penalized import Penalized

K = TypeVar("K")
V = TypeVar("V")


class News:
    """Compares the mirror with what was told last; what changed twice in between is told once, as it is then."""

    def __init__(self, mirror: Mirror, events: Events) -> None:
        self._mirror, self._events = mirror, events
        self._leader: ControllerId | None = None
        self._incidents: Mapping[IncidentId, Incident] = {}
        self._holds: Mapping[str, Hold] = {}
        self._audit: Mapping[str, AuditEntry] = {}
        self._penalties: Mapping[SiteId, Penalized] = {}

    async def tell(self) -> Never:
        """Eternal. What stands in the store when it is first read is no news."""
        mirror = self._mirror
        while not mirror.ready:
            await mirror.changed.after(mirror.changed.count)
        self._remember()
        while True:
            count = mirror.changed.count
            self._compare()
            self._remember()
            await mirror.changed.after(count)

    def _remember(self) -> None:
        mirror = self._mirror
        self._leader, self._incidents = mirror.leader, mirror.incidents
        self._holds, self._audit = mirror.holds, mirror.audit
        self._penalties = mirror.penalties

    def _compare(self) -> None:
        mirror, publish = self._mirror, self._events.publish
        if mirror.leader != self._leader:
            publish("leader", controller=mirror.leader)
        for entry in _new(self._audit, mirror.audit):
            publish(
                "audit",
                who=entry.who,
                what=entry.what,
                subject=entry.subject,
                reason=entry.reason,
            )
        for incident in _new(self._incidents, mirror.incidents):
            publish("incident", incident=msgspec.to_builtins(incident))
        for site in _differing(self._penalties, mirror.penalties):
            for step in steps(self._penalties.get(site), mirror.penalties.get(site)):
                told = msgspec.to_builtins(step.penalty)
                publish("penalty", what=step.what, host=step.host, penalty=told)
        if mirror.holds is not self._holds and mirror.holds != self._holds:
            publish("holds", holds=sorted(mirror.holds))


def _differing(before: Mapping[K, V], now: Mapping[K, V]) -> list[K]:
    """Keys that came, went, or whose value was replaced."""
    if now is before:
        return []
    return [key for key in before.keys() | now.keys() if before.get(key) is not now.get(key)]


def _new(before: Mapping[K, V], now: Mapping[K, V]) -> list[V]:
    """What was added or replaced; the mirror keeps the same object for what did not change."""
    if now is before:
        return []
    return [value for key, value in now.items() if before.get(key) is not value]
