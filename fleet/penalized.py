"""What the store keeps of a site's penalties: those that stand, and those of the last two weeks (rules R13, R16)."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fleet.caps import Evidence, Penalty
from fleet.model import HostId

KEPT_S = 14 * 86_400.0  # evidence is deleted then
PAST_KEPT = 40  # of one site: a host that flaps must not fill the store
STANDING_MAX = 6  # one for each resource
TERM_S = 86_400.0  # the longest that relevo penalizes by itself; people may order a week
ORDERED_S = 7 * 86_400.0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A penalty that has ended, `ended` (Unix s) by its term or before; `host` held it."""

    penalty: Penalty
    host: HostId
    ended: float


class Penalized(msgspec.Struct, frozen=True, kw_only=True):
    """The penalties of one site as `host` told them last, at `at` (Unix s); `evidence`: what the newest stands on.

    `past`: newest first. Without anything that stands, it is history.
    """

    host: HostId
    at: float
    penalties: Annotated[tuple[Penalty, ...], Meta(max_length=STANDING_MAX)] = ()
    evidence: Evidence | None = None
    past: Annotated[tuple[Ended, ...], Meta(max_length=PAST_KEPT)] = ()

    def standing(self, wall: float) -> tuple[Penalty, ...]:
        """What stands at `wall` (Unix s), the hardest first."""
        return tuple(
            sorted(
                (penalty for penalty in self.penalties if penalty.until > wall),
                key=lambda penalty: (-penalty.level, penalty.since),
            )
        )

    def taking(self, wall: float) -> tuple[Penalty, ...]:
        """Of what stands all but the memory watchdog's reliefs, which take nothing and count as no penalty."""
        return tuple(penalty for penalty in self.standing(wall) if not penalty.is_relief)
