"""Self-doubt (rule R5): an observer that stalled, or lost most of its links at once, suspects itself first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from failover.policy import Policy

Id = TypeVar("Id", bound=str)


class Reason(Enum):
    """Why an observer's views don't count now."""

    NONE = "none"
    START = "start"  # it has not watched for a full detection period yet
    STALLED = "stalled"  # its own loop was late: what it missed may have been sent
    LINKS_LOST = "links-lost"  # most links went at once: the common cause is here


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """`well_since` while it is well; `lost_at` once it was well and is not any more."""

    well_since: float | None = None
    lost_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """What an observer remembers of itself. A fresh one doubts: nothing it has not seen yet is evidence."""

    reason: Reason = Reason.START
    punctual_since: float | None = None
    links: Mapping[str, Link] = field(default_factory=dict)

    @property
    def doubts_itself(self) -> bool:
        return self.reason is not Reason.NONE


def step(
    state: Doubt, links: Mapping[Id, bool], late_s: float, policy: Policy, now: float
) -> Doubt:
    """Judge oneself at `now` (monotonic s), once per round of the loop that was `late_s` late.

    `links` names every link that should be, also one that never was well (False). A link that is no longer
    named is forgotten, not lost. With a single link, losing it is evidence about the other end as much as about
    this one: it takes two to suspect oneself. With none (the only host of a fleet) the loop's punctuality decides.
    """
    punctual = late_s <= policy.stall_s
    since = now if state.punctual_since is None or not punctual else state.punctual_since
    seen: Mapping[str, Link] = {
        id: remember(state.links.get(id, Link()), well, now) for id, well in links.items()
    }
    judged = Doubt(reason=state.reason, punctual_since=since, links=seen)
    if not punctual:
        return _because(judged, Reason.STALLED)
    if lost_most(seen, policy.unreachable_s, now):
        return _because(judged, Reason.LINKS_LOST)
    if now - since >= policy.unreachable_s and mostly_well(seen, policy.unreachable_s, now):
        return _because(judged, Reason.NONE)
    return judged


def remember(link: Link, well: bool, now: float) -> Link:
    """The link's memory after it was seen well or not at `now`."""
    if well:
        return link if link.well_since is not None else Link(well_since=now)
    return link if link.well_since is None else Link(lost_at=now)


def lost_most(links: Mapping[str, Link], within_s: float, now: float) -> bool:
    """Whether two or more, and more than half, of the links that were well went within the last `within_s`."""
    lost = sum(
        link.lost_at is not None and now - link.lost_at < within_s for link in links.values()
    )
    well = sum(link.well_since is not None for link in links.values())
    return lost >= 2 and lost > well


def mostly_well(links: Mapping[str, Link], for_s: float, now: float) -> bool:
    """Whether at least half of all links have been well for `for_s` without a break."""
    settled = sum(
        link.well_since is not None and now - link.well_since >= for_s for link in links.values()
    )
    return 2 * settled >= len(links)


def _because(state: Doubt, reason: Reason) -> Doubt:
    return Doubt(reason=reason, punctual_since=state.punctual_since, links=state.links)
