"""What really holds a site whose caps are in force: its host's kernel, the edges, both or nobody. Pure."""

import re
from typing import Literal

from controller.uses import SiteWord
from fleet.messages import USAGE_OLD_S, SiteUse
from fleet.model import Placement, Site

Holder = Literal["kernel", "edges"]
SESSIONS = re.compile(r"user-[0-9]+\.slice")


def holders(
    site: Site, place: Placement | None, driver: str, use: SiteUse | None
) -> tuple[Holder, ...]:
    """Best first; none: its caps are words. `driver` is its host's ("": none), `use` what that said of it last.

    Who is attached by its access log, or not at all, has no slice: only the edges can hold it, if visitors come there.
    """
    kernel = bool(driver) and use is not None and _is_in_slice(use) and not _waits(use)
    edges = site.route == "edges" and place is not None
    found: tuple[tuple[Holder, bool], ...] = (("kernel", kernel), ("edges", edges))
    return tuple(name for name, holds in found if holds)


def _is_in_slice(use: SiteUse) -> bool:
    """Also where it is seen nowhere now: it is held on in the slice that it was in, told beside its users' own."""
    return bool(use.slice) or any(not SESSIONS.fullmatch(one.slice) for one in use.beside)


def _waits(use: SiteUse) -> bool:
    """Its slice is others' too, who are in shadow: until they are not, it holds nobody."""
    return any(
        why.code == "cap-waits-for" and why.values.get("slice") == use.slice for why in use.short
    )


def is_told(word: SiteWord | None, latest: float) -> bool:
    """Whether its host, heard last at `latest` (loop clock), says what its slice is to hold, if it has one."""
    if word is None or word.at < latest - USAGE_OLD_S:
        return False
    return not word.use.slice or word.use.wanted is not None
