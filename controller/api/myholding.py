"""What a member is told of a penalty on its site: what it means for the site, until when, and why.

Nobody else's site, no person's name and no host's own words are in it: of what a host gives as its reason only the
code, the resource and two shares are read (rule R15).
"""

from typing import Literal, assert_never

import msgspec

from fleet.caps import Level, Nature, Penalty, Resource
from fleet.model import SiteId, Why

# Reasons of the ladder by which a site is held for what its neighbours suffer.
FOR_NEIGHBOURS = frozenset(
    f"isolation-{code}"
    for code in (
        *("suspect", "gently", "blunt", "urgent", "again", "many"),
        *("persists", "partly", "unbitten"),
    )
)
LEVELS: dict[Level, Literal["soft", "cap", "isolate", "stop"]] = {
    Level.SOFT: "soft",
    Level.CAP: "cap",
    Level.ISOLATE: "isolate",
    Level.STOP: "stop",
}


class MyPenalty(msgspec.Struct, frozen=True, kw_only=True):
    """How a site is held from `since` until `until` (Unix s), or was until `ended`: what that means, and why.

    `share` of its plan is left to it.
    """

    site: SiteId
    level: Literal["soft", "cap", "isolate", "stop"]
    resource: Resource
    share: float
    since: float
    until: float
    ended: float | None
    what: Why
    why: Why


def holds(penalty: Penalty) -> bool:
    """Whether the site's owner would notice: what is only looked at, or in shadow, holds nothing."""
    return penalty.enforced and penalty.level in LEVELS


def told(penalty: Penalty, ended: float | None = None) -> MyPenalty:
    """Of a penalty that `holds`."""
    return MyPenalty(
        site=penalty.site,
        level=LEVELS[penalty.level],
        resource=penalty.resource,
        share=penalty.share,
        since=penalty.since,
        until=penalty.until,
        ended=ended,
        what=_what(penalty),
        why=_why_held(penalty),
    )


def _what(penalty: Penalty) -> Why:
    match penalty.level:
        case _ if penalty.why.code == "isolation-futile":
            return Why("my-site-relieved")
        case Level.CAP:
            return Why("my-site-capped", {"percent": round(penalty.share * 100)})
        case Level.ISOLATE:
            return Why("my-site-isolated")
        case Level.STOP:
            return Why("my-site-stopped")
        case Level.SOFT | Level.WATCH | Level.BASELINE:
            return Why("my-site-last")
    assert_never(penalty.level)


def _why_held(penalty: Penalty) -> Why:
    code = penalty.why.code
    if penalty.owner != "relevo":
        return Why("held-by-people")
    if penalty.nature is Nature.HACKED or code == "isolation-hacked":
        return Why("held-as-hacked")
    if code == "isolation-futile":
        return Why("held-for-memory")
    if code in {"isolation-danger", "isolation-after-stop"}:
        return Why("held-in-danger", {"resource": penalty.resource.value})
    if code in FOR_NEIGHBOURS:
        shares = {name: _percent(penalty, name) for name in ("stall_percent", "share_percent")}
        nature = {"nature": penalty.nature.value, "resource": penalty.resource.value}
        return Why(
            "held-for-neighbours", {**nature, **{n: s for n, s in shares.items() if s is not None}}
        )
    return Why("held-for-the-host")


def _percent(penalty: Penalty, name: str) -> int | None:
    said = penalty.why.values.get(name)
    return round(said) if isinstance(said, int | float) and 0 <= said <= 100 else None
