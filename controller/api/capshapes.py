"""What the API answers about caps, use and penalties. Use that can't be attributed is null, never zero."""

from typing import Literal

import msgspec

from controller.api.shapes import Page
from controller.chain import Link
from controller.holders import Holder
from fleet.caps import Attachment, Cap, Enforcement, Evidence, Override, Penalty, Ruling
from fleet.messages import Past, SiteUse
from fleet.model import HostId, PlanId, SiteId, Why
from fleet.penalized import Ended


class Heldness(msgspec.Struct, frozen=True, kw_only=True):
    """How a host holds its caps, by its last word `age_s` ago; null: it has said nothing to this controller.

    `driver` holds them; "": nothing can be enforced there. `lacks` says why, or what alone can't be; `unable` is the
    same in English, of an agent of the release before all that there is. `drift`: how often somebody else's change was
    repaired since its agent started.
    """

    host: HostId | None
    age_s: float | None = None
    driver: str = ""
    unable: str = ""
    lacks: tuple[Why, ...] = ()
    drift: int = 0


class AtEdges(msgspec.Struct, frozen=True, kw_only=True):
    """What each edge lets through to a site now, until `until` (Unix s; null: no end in sight).

    `closed`: a page says to come back later. Null elsewhere: no limit of that.
    """

    state: Literal["open", "slowed", "closed"]
    until: float | None
    in_flight: int | None
    queue: int
    queue_wait_s: float
    requests_per_s: float | None
    requests_burst: int | None
    client_requests_per_min: int | None


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A cap that its plan has made stricter since it was armed: what `holds`, and what the `plan` says.

    `comes` (Unix s): when the plan's holds; null: when somebody arms it.
    """

    holds: Cap
    plan: Cap
    comes: float | None = None


class BesideCaps(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of a site's users, for their sessions and jobs beside its own; fields as in SiteCaps."""

    slice: str
    known: bool
    chain: tuple[Link, ...]
    differs: tuple[str, ...]
    short: tuple[Why, ...]


class Short(msgspec.Struct, frozen=True, kw_only=True):
    """What of a site's caps is not held on its host, and why; `slice`: where, or ""."""

    site: SiteId
    slice: str
    short: tuple[Why, ...]


class SiteCaps(Heldness, frozen=True, kw_only=True):
    """The chain from plan to kernel of one site, and all that bears on it.

    `enforced_from` (Unix s; null: shadow, nothing is enforced) by the most specific word, `enforced`: it has come.
    `known`: its host has told what should be held and what is; else null in the chain is "not told", not "no limit".
    `differs`: caps that the kernel holds otherwise than it should. `past`: penalties that have ended, newest first.
    `edges`: null where they hold nothing of it. `waits`: caps of its plan that are only measured, beside looser ones
    that hold. `last_hour`: how often the kernel refused it something, or held it, as in its usage. `short`: what of its
    caps is not held, and why. `beside`: what its users' slices hold beside its own. `held_by`: who really holds what is
    enforced of it, the kernel by its slice, or the edges; empty: nobody, or it is not enforced.
    """

    site: SiteId
    plan: PlanId
    attachment: Attachment | None
    slice: str
    enforced_from: float | None
    enforced: bool
    override: Override | None
    ruling: Ruling | None
    penalties: tuple[Penalty, ...]
    evidence: Evidence | None
    known: bool
    chain: tuple[Link, ...]
    differs: tuple[str, ...]
    past: tuple[Ended, ...]
    edges: AtEdges | None = None
    waits: dict[str, Waiting] = {}
    last_hour: dict[str, int] = {}
    short: tuple[Why, ...] = ()
    beside: tuple[BesideCaps, ...] = ()
    held_by: tuple[Holder, ...] = ()


class Differing(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of a site of which the kernel holds something else than it should."""

    site: SiteId
    slice: str
    age_s: float
    chain: tuple[Link, ...]


class HostCaps(Heldness, frozen=True, kw_only=True):
    """Whether a host's kernel holds what it should, site by site.

    `attachments`: how many of its sites are attached how. `unknown`: sites of which it has told no limits, or of which
    nothing runs now. `help`: what it needs a person for. `short`: of whom not all is held, and why. Of those that are
    enforced: `unheld`, whom neither a slice nor the edges hold; `at_edges`, whom the edges alone hold; `untold`, of
    whom it is not known.
    """

    sites: int
    enforced: int
    attachments: dict[str, int]
    differing: tuple[Differing, ...]
    unknown: tuple[SiteId, ...]
    help: tuple[Why, ...]
    short: tuple[Short, ...] = ()
    unheld: tuple[SiteId, ...] = ()
    at_edges: tuple[SiteId, ...] = ()
    untold: tuple[SiteId, ...] = ()


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """Use as a share of what the caps allow, 1 being all; null: it can't be attributed."""

    cpu_ratio: float | None
    memory_ratio: float | None
    tasks_ratio: float | None
    read_ratio: float | None
    write_ratio: float | None
    requests_ratio: float | None
    disk_ratio: float | None = None
    inodes_ratio: float | None = None


class SiteUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a site used by its host's last word, and what that host's history says of it (`use.past`).

    `against`: the same use as a share of each plan's caps; its own plan's are with its override. `last_hour`: what the
    kernel counted for it, by this controller's hearing: memory_high_hits, memory_max_hits, oom_hits, oom_kills,
    tasks_refused, throttled_periods (of 100 ms); what did not happen is left out.
    """

    site: SiteId
    plan: PlanId
    host: HostId | None
    age_s: float | None
    use: SiteUse | None
    against: dict[PlanId, Share]
    last_hour: dict[str, int] = {}


class PenaltyTold(msgspec.Struct, frozen=True, kw_only=True):
    """A penalty and the host that gave it; `ended` (Unix s): it is over."""

    site: SiteId
    host: HostId
    penalty: Penalty
    ended: float | None = None


class Penalties(Page, frozen=True, kw_only=True):
    penalties: tuple[PenaltyTold, ...]


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """What penalties did to a site in the last week, and they and caps would have done had they been enforced.

    `shadow_min`: minutes in which it would have been slowed, by its host's history where that is told, else by the
    penalties that were only recorded. `penalized_min`: in which it was, by penalties. `history`: what its host's says.
    `waits`: caps hold as they were armed, and its plan, stricter now, is what it would have been slowed by.
    """

    site: SiteId
    plan: PlanId
    host: HostId | None
    attachment: Attachment | None
    enforced: bool
    shadow_min: float
    penalized_min: float
    penalties: int
    level: Literal["", "soft", "cap", "isolate", "stop"]
    history: Past | None
    waits: bool = False


class Report(Page, frozen=True, kw_only=True):
    """Sites with something to tell, those that would have been slowed longest first. `quiet`: all others."""

    days: float
    sites: tuple[Reported, ...]
    quiet: int
    unheard: int


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A plan of which stricter numbers wait for a word at `sites` of it, `since` (Unix s; null: not known)."""

    plan: PlanId
    since: float | None
    sites: int


class EnforcementTold(msgspec.Struct, frozen=True, kw_only=True):
    """Where caps hold, and of how many sites: `enforced`, in `shadow`, `waiting` for their date, and `unable`.

    `enforced`: a slice or the edges hold them, `at_edges` of them the edges alone. `unable`: enforced by word, and held
    by neither: their hosts can enforce nothing, or have said nothing, or they have no slice and no edge is before them.
    """

    words: Enforcement
    enforced: int
    shadow: int
    waiting: int
    unable: int
    pending: tuple[Pending, ...] = ()
    at_edges: int = 0
