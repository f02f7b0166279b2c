"""Sites counted by host: once for each change of the fleet, of the placements or of what is held."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from controller.mirror import Mirror
from fleet.model import Fleet, HeldSite, Hold, HostId, Placement, Site, SiteId


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """`sites` by id. `home` and `here`: how many are at home on a host, and served there; `near`: either of both.

    `away`: how many are served elsewhere than at home. `held`: what keeps a site where it is.
    """

    sites: tuple[Site, ...]
    home: Counter[HostId]
    here: Counter[HostId]
    near: Mapping[HostId, tuple[Site, ...]]
    away: int
    held: Mapping[SiteId, HeldSite]


def count(fleet: Fleet, places: Mapping[SiteId, Placement], holds: Mapping[str, Hold]) -> Count:
    """All sites, wherever they are."""
    sites = tuple(site for _, site in sorted(fleet.sites.items()))
    home: Counter[HostId] = Counter(site.home for site in sites)
    here: Counter[HostId] = Counter()
    near: dict[HostId, list[Site]] = {}
    away = 0
    for site in sites:
        near.setdefault(site.home, []).append(site)
        if (place := places.get(site.id)) is None:
            continue
        here[place.host] += 1
        if place.host != site.home:
            away += 1
            near.setdefault(place.host, []).append(site)
    return Count(
        sites=sites,
        home=home,
        here=here,
        near={host: tuple(some) for host, some in near.items()},
        away=away,
        held={held.site: held for hold in holds.values() for held in hold.sites},
    )


class Census:
    """The newest count. The mirror replaces what changed: the same objects give the same count."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._of: tuple[object, object, object] | None = None
        self._count = count(Fleet(), {}, {})

    def now(self) -> Count:
        mirror = self._mirror
        of = self._of
        if (
            of is None
            or of[0] is not mirror.fleet
            or of[1] is not mirror.places
            or of[2] is not mirror.holds
        ):
            self._of = (mirror.fleet, mirror.places, mirror.holds)
            self._count = count(mirror.fleet, mirror.places, mirror.holds)
        return self._count
