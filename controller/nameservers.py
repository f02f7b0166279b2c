"""What the controller asks of DNS: bring a zone's primary to an intent, then see that every server says it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from fleet.model import Domain, Epoch, Why, Zone, ZoneIntent


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneReport:
    """What one round of writing did. Names sorted.

    `sent` were written and accepted; `removed` are names told to be removed that the primary no longer has;
    `holds` were left as they are, each with its reason. After an `error` names may be in none of them: the
    next round reads anew and goes on.
    """

    sent: tuple[Domain, ...] = ()
    unchanged: int = 0
    removed: tuple[Domain, ...] = ()
    holds: tuple[tuple[Domain, Why], ...] = ()
    error: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerView:
    """What one authoritative server says: the asked names that differ from the intent, or why it can't be told."""

    differing: tuple[Domain, ...] = ()
    error: Why | None = None

    @property
    def converged(self) -> bool:
        return not self.differing and self.error is None


class NameServers(Protocol):
    """Neither method raises for what a server does, or fails to do; one call is one round."""

    async def converge(self, zone: Zone, intent: ZoneIntent, epoch: Epoch) -> ZoneReport:
        """Bring the primary to `intent`, decided at `epoch`; names already right cost no write."""
        ...

    async def verify(
        self, zone: Zone, intent: ZoneIntent, names: Iterable[Domain]
    ) -> dict[str, ServerView]:
        """Ask each authoritative server once for `names`; keyed by `str` of the server."""
        ...
