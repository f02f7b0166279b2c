"""What a person's word holds: a site, and of it half of whatever sites of its host wait for while the word stands."""

from collections.abc import Mapping

import msgspec

from agent.isolate.climb import Climb
from agent.isolate.grip import TIGHT, shares
from agent.isolate.house import House
from agent.isolate.measure import taken as have
from agent.isolate.policy import CONTENDED
from agent.isolate.state import State
from fleet.caps import Level, Penalty, Resource, Ruling
from fleet.model import SiteId, Why


def ordered(house: House, wall: float) -> dict[SiteId, float]:
    """Whom people hold in quarantine at `wall` (Unix s), each since when."""
    rulings = ((site, house.ruling(site, wall)) for site in house.rulings)
    return {
        site: ruling.note.since
        for site, ruling in rulings
        if ruling and ruling.word == "quarantine" and site in house.tenants
    }


def taken(climb: Climb) -> dict[SiteId, dict[Resource, float]]:
    """Of what people take half, and since when (Unix s), from whom they hold at a cap or above.

    A person names a site, and no resource: it is what relevo took of it until now, and what sites wait for meanwhile,
    if it has some part of that. It stays as long as people hold it: what is held is no longer waited for.
    """
    contended = [on for on in CONTENDED if climb.stands(on)]
    found = {}
    for site in climb.house.rulings:
        ruling = climb.house.ruling(site, climb.wall)
        if ruling is None or ruling.word != "quarantine" or ruling.level < Level.CAP:
            continue
        step = climb.record(site).step
        mine = shares(step) if step is not None and climb.holds(site, step) else {}
        new = {
            *(on for on in contended if _takes(climb, site, on)),
            *(on for on in mine if on in CONTENDED and mine[on] < 1),
        }
        if ruling.level is Level.CAP:
            new.add(Resource.CPU)
        before = climb.before.taken.get(site, {})
        later = sorted(new - before.keys(), key=CONTENDED.index)
        if known := {**before, **dict.fromkeys(later, climb.wall)}:
            found[site] = known
    return found


def _takes(climb: Climb, site: SiteId, resource: Resource) -> bool:
    """Whether it has so much of what sites wait for that they may wait for it."""
    used = {id: have(signs, resource) for id, signs in climb.signals.sites.items()}
    return used.get(site, 0.0) > climb.policy.share * sum(used.values())


def quarantine(site: SiteId, ruling: Ruling, state: State) -> tuple[Penalty, ...]:
    """What a person's word holds, in shadow too: it is no plan's, and no policy's."""
    level = ruling.level
    first = Penalty(
        site=site,
        level=level,
        resource=Resource.EGRESS if level >= Level.ISOLATE else Resource.CPU,
        nature=ruling.nature,
        share=TIGHT if level is Level.CAP else 1.0,
        since=ruling.note.since,
        until=ruling.note.until,
        owner=ruling.note.owner[:100],
        why=Why("isolation-by-person", {"owner": ruling.note.owner, "reason": ruling.note.reason}),
        enforced=True,
    )
    if level < Level.CAP:
        return (first,)
    beside: Mapping[Resource, float] = state.taken.get(site, {})
    return (
        first,
        *(
            msgspec.structs.replace(first, level=Level.CAP, resource=on, share=TIGHT, since=since)
            for on, since in beside.items()
            if on is not first.resource
        ),
    )
