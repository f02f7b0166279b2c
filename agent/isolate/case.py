"""What a move on the ladder is about, and what is told of it once it is made."""

from dataclasses import dataclass

from agent.isolate.attribution import Suspect
from fleet.caps import Level, Nature, Resource
from fleet.model import SiteId, Why

PUNISHING = Level.SOFT  # from here on something is held; a watch holds nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One move of one site. `harder`: more is taken from it than before, or of something else."""

    site: SiteId
    was: Level
    to: Level
    why: Why
    share: float = 1.0
    enforced: bool = False
    harder: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a move is about: the resource, the kind of trouble, and what was measured. Ratios are 0..1."""

    resource: Resource
    nature: Nature = Nature.HEAVY
    suspect: Suspect | None = None
    stall: float | None = None
    fell: float | None = None
    signs: tuple[str, ...] = ()
    mails_per_s: float | None = None
