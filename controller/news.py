"""Tells of what changes in the store, as it changes, on every controller: leader, incidents, holds, people's orders."""

from collections.abc import Mapping
from typing import Never, TypeVar

import msgspec

from controller.events import Events
from controller.mirror import Mirror
from fleet.model import AuditEntry, ControllerId, Hold, Incident, IncidentId

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
        if mirror.holds is not self._holds and mirror.holds != self._holds:
            publish("holds", holds=sorted(mirror.holds))


def _new(before: Mapping[K, V], now: Mapping[K, V]) -> list[V]:
    """What was added or replaced; the mirror keeps the same object for what did not change."""
    if now is before:
        return []
    return [value for key, value in now.items() if before.get(key) is not value]
