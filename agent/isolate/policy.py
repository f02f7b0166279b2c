"""The numbers that isolation turns on, each with its reason: agent.toml's [isolation].

Windows (how long something must be seen) are made of rounds of the sampler, and stay. Terms (how long something
holds, or is remembered) are multiplied by `scale`, so that a test goes through a day of them in minutes.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from fleet.caps import Resource

Seconds = Annotated[float, Meta(gt=0)]
Ratio = Annotated[float, Meta(gt=0, le=1)]

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86_400.0
NEW_STEP_S = 6.0  # no term is under three rounds of 2 s, however small the scale: nothing could be seen of it


class Alarm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When the wait for one resource is contention: `stall_ratio` of the time, for `for_s`.

    From `urgent_ratio` there is no time for the gentle step; None: there always is. `floor` is the use under which
    nobody is the cause, in the unit of `agent.isolate.measure.use`.
    """

    stall_ratio: Ratio
    for_s: Seconds
    urgent_ratio: Ratio | None = None
    floor: Annotated[float, Meta(ge=0)]


class MemoryAlarm(Alarm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fifth of the time in which nothing moves is a minute from a machine that answers nobody."""

    urgent_ratio: Ratio | None = 0.2


class Signs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What no web site does, and what tells a crowd from heavy code. Source: caps.md §1.13, D.1."""

    for_s: Seconds = 2.0  # two readings: one is a socket that closed late
    needed: Annotated[int, Meta(ge=2)] = 2  # one has an innocent reason somewhere
    destinations_per_s: Seconds = (
        50.0  # a site calls a handful of services, not fifty new ones a second
    )
    direct_mails_per_s: Seconds = (
        0.2  # no plan allows any; one try in 5 s is a misconfigured plug-in
    )
    miner_cores: Ratio = 0.5  # half a core without a visitor...
    miner_requests_per_s: Annotated[float, Meta(ge=0)] = 0.1
    miner_s: Seconds = 600.0  # ...for longer than most imports and backups keep a core busy
    crowd_requests_per_s: Seconds = 5.0  # fewer requests than that are not what costs the CPU
    crowd_share: Ratio = 0.3  # of its plan's request rate, or twice its own past
    client_requests_per_min: Seconds = (
        30.0  # a reader asks for a page every few seconds, a crawler does not stop
    )


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long steps hold and what they did is remembered. Source: caps.md D.3."""

    watch_s: Seconds = 10 * MINUTE_S
    soft_s: Seconds = 5 * MINUTE_S  # CPI2's term: long enough to see the neighbours well
    cap_s: Seconds = 15 * MINUTE_S  # doubled by each repetition...
    cap_longest_s: Seconds = HOUR_S  # ...to this
    isolate_s: Seconds = DAY_S  # then a person looks
    stop_s: Seconds = 10 * MINUTE_S
    stop_longest_s: Seconds = (
        6 * HOUR_S
    )  # of one that had to be stopped anew: a night, in which a person is asked
    trial_s: Seconds = 30.0  # by then the neighbours are better, or it was somebody else
    recover_s: Seconds = 2 * MINUTE_S  # between 25, 50 and 100 % of the plan
    probation_s: Seconds = DAY_S
    soft_memory_s: Seconds = 30 * MINUTE_S  # soft steps within this count together
    cap_memory_s: Seconds = 3 * HOUR_S  # a cap within this makes the next twice as long
    isolate_memory_s: Seconds = DAY_S  # three caps within this are more than bad luck
    stop_memory_s: Seconds = DAY_S  # a third stop within this is the longest
    acquitted_s: Seconds = (
        30 * MINUTE_S
    )  # whose squeeze helped nobody is left alone for this resource
    apart_s: Seconds = 30.0  # between two actions for one resource: each must be seen to work alone
    ask_s: Seconds = 30.0  # contention that nobody explains for this long wants a person

    def __post_init__(self) -> None:
        if self.apart_s < self.trial_s:
            raise ValueError(
                f"apart_s = {self.apart_s:g} is under trial_s = {self.trial_s:g}: "
                "two steps at once could not be told apart by their effect; raise apart_s"
            )
        if self.soft_s <= self.trial_s or self.cap_s <= 2 * self.trial_s:
            raise ValueError(
                f"soft_s = {self.soft_s:g} and twice cap_s = {self.cap_s:g} must be above "
                f"trial_s = {self.trial_s:g}: a step must not end before it is judged"
            )
        if self.cap_longest_s < self.cap_s:
            raise ValueError(
                f"cap_longest_s = {self.cap_longest_s:g} is under cap_s = {self.cap_s:g}"
            )
        if self.stop_longest_s < self.stop_s:
            raise ValueError(
                f"stop_longest_s = {self.stop_longest_s:g} is under stop_s = {self.stop_s:g}"
            )


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults follow caps.md D.

    `record`: the file that each round's signals are added to, one JSON line each, to be replayed; "": none.
    """

    scale: Annotated[float, Meta(gt=0, le=1)] = 1.0
    record: str = ""
    # PSI "some": with a fifth of the time lost in a queue every page of every neighbour is slower. Two readings.
    cpu: Alarm = Alarm(stall_ratio=0.2, for_s=2.0, floor=0.25)
    # PSI "full": work stands still.
    memory: MemoryAlarm = MemoryAlarm(stall_ratio=0.05, for_s=2.0, floor=1 << 20)
    # Disks are slow in bursts by nature: longer, so that one flush is no contention.
    io: Alarm = Alarm(stall_ratio=0.1, for_s=6.0, floor=1 << 20)
    # Forks, as a share of `forks_per_s`: a full one is what a busy machine never does by itself.
    tasks: Alarm = Alarm(stall_ratio=0.5, for_s=2.0, floor=16)
    forks_per_s: Seconds = 1000.0
    scarce_ratio: Ratio = 0.05  # of memory available: the next allocation may be the one that fails
    window_s: Seconds = 60.0  # what attribution looks back on
    seen_s: Seconds = 10.0  # less than this of it says nothing: an agent that has begun waits
    stale_s: Seconds = (
        12.0  # an idle site's reading is repeated for as long as it is read each 10 s
    )
    signs: Signs = Signs()
    terms: Terms = Terms()
    # Who is a suspect. Source: caps.md D.2.
    score: Ratio = 0.6
    correlation: Ratio = 0.35  # CPI2's
    share: Ratio = 0.1  # who takes less is not whom the neighbours wait for
    # Who takes less than this is no suspect before contention has stood for `patience_s`: a burst of an ordinary site
    # is over by then, and whoever else it is shows.
    plain_share: Ratio = 0.25
    patience_s: Seconds = 20.0
    above_full: Ratio = 0.25  # a quarter of the host above its part counts in full
    steady_spread: Ratio = 0.1  # a stall that varies by less has no rhythm to compare with...
    dominant: Ratio = 0.4  # ...then only who takes this much is a suspect...
    new: Ratio = (
        0.5  # ...where that is so much more than on other days: who is always large is no news...
    )
    rest: Ratio = (
        0.1  # ...or, where no other day is known, the host takes no more than this beside its sites
    )
    # What a step did: what the neighbours wait for each second of work fell by this share of what the site added.
    helped: Ratio = 0.5
    unhelped: Ratio = 0.2
    bitten: Ratio = 0.2  # its own use fell by this share: the step did bite
    caps_before_isolation: Annotated[int, Meta(ge=2)] = 3
    stops_before_longest: Annotated[int, Meta(ge=1)] = (
        2  # once may be chance; each costs its host some seconds
    )
    # Rule R14: one site, or this share of the host's, and never more than `most`, without a person.
    radius_ratio: Ratio = 0.1
    radius_most: Annotated[int, Meta(ge=1, le=5)] = 5
    begins_per_hour: Annotated[int, Meta(ge=2)] = 6  # more is a pendulum: a person looks
    danger_ratio: Ratio = 0.4  # memory stall of the host that a cap did not end...
    danger_s: Seconds = 10.0  # ...for so long: it is the site or the host
    futile_stall_ratio: Ratio = 0.4  # a site that stands still in its own reclaim...
    futile_stolen_ratio: Ratio = 0.1  # ...which finds nearly nothing...
    futile_s: Seconds = 10.0  # ...for so long needs the OOM killer, not patience
    learn_s: Seconds = HOUR_S  # a host that has seen less of its sites can't call anything new

    def __post_init__(self) -> None:
        if self.unhelped >= self.helped:
            raise ValueError(f"unhelped = {self.unhelped:g} must be under helped = {self.helped:g}")
        if self.seen_s >= self.window_s:
            raise ValueError(f"seen_s = {self.seen_s:g} must be under window_s = {self.window_s:g}")
        longest = max(alarm.for_s for alarm in (self.cpu, self.memory, self.io, self.tasks))
        if longest + self.seen_s > self.window_s:
            raise ValueError(
                f"window_s = {self.window_s:g} can't hold an alarm of {longest:g} s and "
                f"seen_s = {self.seen_s:g} before it: its beginning could not be seen"
            )

    def alarm(self, resource: Resource) -> Alarm:
        """Of one of CONTENDED."""
        return {
            Resource.CPU: self.cpu,
            Resource.MEMORY: self.memory,
            Resource.IO: self.io,
            Resource.TASKS: self.tasks,
        }[resource]

    def term(self, seconds: float) -> float:
        """A term as it holds here."""
        return max(seconds * self.scale, min(seconds, NEW_STEP_S))

    def most(self, sites: int) -> int:
        """How many of a host's `sites` may be penalized at once without a person (rule R14)."""
        return max(1, min(self.radius_most, int(sites * self.radius_ratio)))


# What sites of one host wait for because of each other. WEB and EGRESS are no host's scarcity.
CONTENDED = (Resource.MEMORY, Resource.TASKS, Resource.CPU, Resource.IO)  # the most dangerous first
