"""What isolation remembers from one round to the next; without its window it is kept on disk."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from agent.signals import SiteSigns
from fleet.caps import Level, Nature, Resource
from fleet.model import SiteId, Why

# Instants of a State are in ladder time: Unix s when the first round was, then by the monotonic clock. A wall clock
# that is set can neither end a penalty nor prolong it.


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """Ladder time. `offset`: wall minus `at`.

    `seen`: the monotonic instant of the last round, None in a new process.
    """

    at: float
    seen: float | None = None
    offset: float = 0.0

    def wall(self, at: float) -> float:
        """An instant as people read it."""
        return at + self.offset


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What an earlier cap of the same squeeze leaves of one more resource; a step above a cap keeps it."""

    share: float
    since: float
    why: Why


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Where a site stands on the ladder, and until when.

    `before`, `use`: the victims' stall and the site's own use as it began; `usual`: the victims' stall without that
    use, as far as it is known, or 0; `judged`: its trial is over.
    `also`: what it holds beside what it was last for.
    """

    level: Level
    resource: Resource
    nature: Nature = Nature.HEAVY
    share: float = 1.0
    since: float
    until: float
    before: float = 0.0
    usual: float = 0.0
    use: float = 0.0
    judged: bool = False
    why: Why
    enforced: bool = False
    also: dict[Resource, Part] = {}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known against one site, and for it.

    `begun`: when it was squeezed out of nothing, `softs`, `caps` and `stops`: when it came to those levels, oldest
    first.
    `acquitted`: resource -> until when its squeeze is known to help nobody.
    """

    step: Step | None = None
    begun: tuple[float, ...] = ()
    softs: tuple[float, ...] = ()
    caps: tuple[float, ...] = ()
    stops: tuple[float, ...] = ()
    acquitted: dict[Resource, float] = {}

    @property
    def level(self) -> Level:
        return self.step.level if self.step else Level.BASELINE


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One round in the window. `stall`: what the victims suffered by each resource (0..1); `used_bytes`: of memory.

    `busy`: what the whole host used of each resource of which that is known, by whomever, as a site's use is told.
    """

    at: float
    stall: dict[Resource, float]
    sites: Mapping[SiteId, SiteSigns]
    used_bytes: float | None = None
    busy: dict[Resource, float] = {}


# Site -> resource -> for each hour of the day (UTC) the most it used, fading over a week.
Past = dict[SiteId, dict[Resource, tuple[float, ...]]]
HOURS = 24
Hours = Annotated[tuple[float, ...], Meta(min_length=HOURS, max_length=HOURS)]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """`alarms`: resource -> since when contention stands; `calm`: resource -> the victims' stall before that, or 0.

    `signs`: site -> sign -> since when it shows. `acted`: resource -> the last action for it; `shadowed`: the last one
    that was only recorded. `futile`: since when a site reclaims in vain; `relieved`: until when its memory.high is
    lifted for it. `ordered`: since when (Unix s) people hold a site; `taken`: of what they take half of it, each since
    when (Unix s). `endangered`: since when the host is; `queued`:
    since when visitors of many sites wait for nothing that is known. `since`: the first round ever; `met`: that of each
    site; `learned`: the last one that the past was brought up to date in.
    """

    clock: Clock | None = None
    records: dict[SiteId, Record] = {}
    alarms: dict[Resource, float] = {}
    calm: dict[Resource, float] = {}
    acted: dict[Resource, float] = {}
    shadowed: dict[Resource, float] = {}
    signs: dict[SiteId, dict[str, float]] = {}
    futile: dict[SiteId, float] = {}
    relieved: dict[SiteId, float] = {}
    ordered: dict[SiteId, float] = {}
    taken: dict[SiteId, dict[Resource, float]] = {}
    endangered: float | None = None
    queued: float | None = None
    past: dict[SiteId, dict[Resource, Hours]] = {}
    since: float | None = None
    met: dict[SiteId, float] = {}
    learned: float = 0.0
    window: tuple[Frame, ...] = ()


def kept(state: State) -> State:
    """What of `state` outlives its process: no window, no instant of a monotonic clock, and nothing that was to stand
    without a break.
    """
    clock = state.clock and msgspec.structs.replace(state.clock, seen=None)
    return msgspec.structs.replace(
        state, clock=clock, window=(), alarms={}, calm={}, futile={}, endangered=None, queued=None
    )


def told(clock: Clock | None, now: float, wall: float) -> Clock:
    """The clock of a round at `now` (monotonic s) and `wall` (Unix s).

    In one process ladder time goes on by the monotonic clock, whatever the wall clock does. Across a restart there is
    only the wall clock: forward it counts, backward nothing has passed.
    """
    if clock is None:
        return Clock(at=wall, seen=now)
    if clock.seen is None or now < clock.seen:
        at = clock.at + max(0.0, wall - clock.wall(clock.at))
        return Clock(at=at, seen=now, offset=wall - at)
    at = clock.at + (now - clock.seen)
    # A clock that is slewed stays within a second; one that was set is followed in what people are told.
    offset = clock.offset if abs(wall - at - clock.offset) < 1.0 else wall - at
    return Clock(at=at, seen=now, offset=offset)
