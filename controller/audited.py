"""The one way in for what people order: audited, fenced, and visible before it is answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex

from controller import settle
from controller.entries import entered
from controller.lead import Leader
from controller.mirror import Mirror
from controller.sight import Refused
from controller.store import Cmp, Op
from fleet.model import AuditEntry, Why
from runtime.clock import wall

AUDIT_CHARACTERS = 500  # of each text: a thousand entries stay under 2 MB


class NotLeading(Exception):
    """This controller does not decide now."""


class Unknown(Exception):
    """No such host, site or location in the fleet."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"no {kind} {id!r} in the fleet")


@dataclass(frozen=True, slots=True)
class Person:
    """Who gives an order, and why."""

    name: str
    reason: str


class Audited:
    """Commits of people's orders. Both raise Refused where somebody else was faster, and NotLeading."""

    def __init__(self, mirror: Mirror, leader: Leader) -> None:
        self._mirror, self._leader = mirror, leader

    def must_lead(self) -> None:
        """Who does not lead may see things late: it must not judge an order by them. Raises NotLeading."""
        if self._leader.leadership is None:
            raise NotLeading

    async def commit(
        self,
        operations: Sequence[Op],
        when: Sequence[Cmp],
        person: Person,
        what: str,
        subject: str,
        *,
        before: str = "",
        after: str = "",
    ) -> int:
        """One order, with its entry in the audit: what it changed `before` -> `after`. Gives its revision."""
        entry = AuditEntry(
            at=wall(),
            who=person.name,
            what=what,
            subject=_short(subject),
            reason=_short(person.reason),
            before=_short(before),
            after=_short(after),
        )
        # Two orders of one millisecond have two revisions, or one of them is refused: no entry is lost.
        noted = entered(self._mirror.audit, f"{self._mirror.revision}", entry)
        when = (*when, *self._mirror.unchanged(noted[0].key))
        return await self.txn([*operations, *noted], when)

    async def txn(self, operations: Sequence[Op], when: Sequence[Cmp]) -> int:
        """A transaction that belongs to an order, without an entry of its own."""
        if (leadership := self._leader.leadership) is None:
            raise NotLeading
        result = await leadership.txn(settle.named(operations, token_hex(8)), when)
        if not result.ok:
            raise Refused(Why("changed-meanwhile"))
        await self._mirror.reached(result.revision)
        return result.revision


def _short(text: str) -> str:
    return text if len(text) <= AUDIT_CHARACTERS else text[: AUDIT_CHARACTERS - 1] + "…"
