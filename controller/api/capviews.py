"""Looks at caps, use and penalties: of the mirror, and of what hosts said last."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from controller.api.capshapes import (
    AtEdges,
    BesideCaps,
    Differing,
    EnforcementTold,
    HostCaps,
    PenaltyTold,
    Pending,
    Reported,
    Share,
    Short,
    SiteCaps,
    SiteUsage,
    Waiting,
)
from controller.chain import Link, chain, differing, of_disk, unlike
from controller.holders import Holder, holders, is_told
from controller.uses import HostWord, SiteWord
from failover.limits import edge_limits, in_force
from fleet.caps import Penalty, effective, in_background
from fleet.inforce import Force, Forces
from fleet.messages import LIMIT_MAX, Beside, SiteUse
from fleet.model import Caps, HostId, Placement, PlanId, Site, SiteId
from fleet.quota import DiskUse
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

Number = TypeVar("Number", int, float)
WEEK_S = 7 * 86_400.0
LEVELS: dict[int, Literal["", "soft", "cap", "isolate", "stop"]] = {
    2: "soft",
    3: "cap",
    4: "isolate",
    5: "stop",
}


class CapsView:
    """One look: everything in it belongs to the same moment."""

    def __init__(self, controller: "Controller") -> None:
        self._mirror, self._uses = controller.mirror, controller.uses
        self._forces = Forces(controller.mirror.enforcement, controller.mirror.fleet.plans)
        self._now, self._wall = asyncio.get_running_loop().time(), wall()

    def _place(self, site: Site) -> Placement | None:
        return self._mirror.places.get(site.id)

    def _force(self, site: Site) -> Force:
        place = self._place(site)
        return self._forces.of(site.id, site.plan, place.host if place else site.home)

    def _enforced(self, site: Site) -> bool:
        return self._force(site).is_on(self._wall)

    def _held_by(self, site: Site) -> tuple[Holder, ...]:
        """Who would hold it in force: by the last words of its host."""
        place, word = self._place(site), self._uses.of(site.id)
        host = self._uses.hosts.get(place.host) if place else None
        return holders(site, place, host.driver if host else "", word.use if word else None)

    def _age_s(self, word: SiteWord | HostWord | None) -> float | None:
        return round(max(0.0, self._now - word.at), 2) if word else None

    def _held(self, host: HostId | None, word: HostWord | None) -> dict[str, Any]:
        """The fields of a Heldness."""
        told: dict[str, Any] = {"host": host, "age_s": self._age_s(word)}
        if word is not None:
            told |= {"driver": word.driver, "unable": word.unable, "drift": word.drift}
            told["lacks"] = word.lacks
        return told

    def site(self, site: Site) -> SiteCaps:
        mirror, place, word = self._mirror, self._place(site), self._uses.of(site.id)
        host = place.host if place else None
        use = word.use if word else None
        kept = mirror.penalties.get(site.id)
        override = mirror.overrides.get(site.id)
        held = self._held(host, self._uses.hosts.get(host) if host else None)
        return SiteCaps(
            **{**held, "age_s": self._age_s(word)},
            site=site.id,
            plan=site.plan,
            attachment=use.attachment if use else None,
            slice=use.slice if use else "",
            enforced_from=self._force(site).enforced_from,
            enforced=self._enforced(site),
            waits=self._waits(site),
            last_hour=self._uses.happened(site.id),
            override=override,
            ruling=mirror.rulings.get(site.id),
            penalties=kept.standing(self._wall) if kept else (),
            evidence=kept.evidence if kept else None,
            chain=self._chain(site.id, use),
            known=use is not None and use.wanted is not None and use.held is not None,
            differs=differing(use) if use else (),
            past=kept.past if kept else (),
            edges=self._edges(site, kept.penalties if kept else ()),
            short=use.short if use else (),
            beside=tuple(self._beside(site, one) for one in use.beside) if use else (),
            held_by=self._held_by(site) if self._enforced(site) else (),
        )

    def _beside(self, site: Site, one: Beside) -> BesideCaps:
        plan = self._mirror.fleet.plans[site.plan].caps
        changed = effective(plan, self._mirror.overrides.get(site.id), self._wall)
        both = in_background(plan), in_background(changed)
        links = chain(*both, one.wanted, one.held, one.because)
        return BesideCaps(
            slice=one.slice,
            known=one.wanted is not None and one.held is not None,
            chain=links,
            differs=unlike(one.wanted, one.held),
            short=one.short,
        )

    def _edges(self, site: Site, penalties: Iterable[Penalty]) -> AtEdges | None:
        mirror = self._mirror
        if site.route != "edges" or self._place(site) is None:
            return None
        steps = edge_limits(
            mirror.fleet.plans[site.plan].caps,
            override=mirror.overrides.get(site.id),
            enforced_from=self._force(site).enforced_from,
            held=self._force(site).held,
            penalties=penalties,
            ruling=mirror.rulings.get(site.id),
        )
        if (limit := in_force(steps, self._wall)) is None:
            return None
        return AtEdges(
            state=limit.state.value,
            until=limit.until,
            in_flight=_or_none(limit.in_flight),
            queue=limit.queue,
            queue_wait_s=limit.queue_wait_s,
            requests_per_s=_or_none(limit.requests_per_s),
            requests_burst=_or_none(limit.requests_burst),
            client_requests_per_min=_or_none(limit.client_requests_per_min),
        )

    def host(self, id: HostId) -> HostCaps:
        mirror, word = self._mirror, self._uses.hosts.get(id)
        here = [
            mirror.fleet.sites[site]
            for site, place in sorted(mirror.places.items())
            if place.host == id and site in mirror.fleet.sites
        ]
        told = {site.id: found for site in here if (found := self._uses.of(site.id))}
        known = {s: w for s, w in told.items() if w.use.wanted and w.use.held}
        on = [site for site in here if self._enforced(site)]
        latest = word.at if word else self._now
        sure = {s.id: self._held_by(s) for s in on if is_told(told.get(s.id), latest)}
        return HostCaps(
            **self._held(id, word),
            sites=len(here),
            enforced=len(on),
            attachments=dict(Counter(found.use.attachment.value for found in told.values())),
            differing=tuple(
                one for id, found in told.items() for one in self._differing(id, found)
            ),
            short=tuple(one for id, found in told.items() for one in _short(id, found.use)),
            unknown=tuple(site.id for site in here if site.id not in known),
            help=word.help if word else (),
            unheld=tuple(id for id, by in sure.items() if not by),
            at_edges=tuple(id for id, by in sure.items() if by == ("edges",)),
            untold=tuple(site.id for site in on if site.id not in sure),
        )

    def _differing(self, id: SiteId, found: SiteWord) -> Iterator[Differing]:
        """Of its own slice, and of those beside it."""
        use, age_s = found.use, self._age_s(found) or 0.0
        if differing(use):
            links = tuple(link for link in self._chain(id, use) if link.differs)
            yield Differing(site=id, slice=use.slice, age_s=age_s, chain=links)
        for one in use.beside:
            if unlike(one.wanted, one.held):
                of = self._beside(self._mirror.fleet.sites[id], one)
                links = tuple(link for link in of.chain if link.differs)
                yield Differing(site=id, slice=one.slice, age_s=age_s, chain=links)

    def _chain(self, site: SiteId, use: SiteUse | None) -> tuple[Link, ...]:
        mirror = self._mirror
        plan = mirror.fleet.plans[mirror.fleet.sites[site].plan].caps
        changed = effective(plan, mirror.overrides.get(site), self._wall)
        limits = (use.wanted, use.held, use.because) if use else (None, None, {})
        return (
            *chain(plan, changed, *limits),
            *of_disk(plan, changed, use.disk if use else None),
        )

    def usage(self, site: Site) -> SiteUsage:
        word, place = self._uses.of(site.id), self._place(site)
        plans: dict[PlanId, Caps] = {
            id: plan.caps for id, plan in sorted(self._mirror.fleet.plans.items())
        }
        own = effective(plans[site.plan], self._mirror.overrides.get(site.id), self._wall)
        plans[site.plan] = own
        return SiteUsage(
            site=site.id,
            plan=site.plan,
            host=place.host if place else None,
            age_s=self._age_s(word),
            use=word.use if word else None,
            against={id: share(word.use, caps) for id, caps in plans.items()} if word else {},
            last_hour=self._uses.happened(site.id),
        )

    def penalties(self, *, host: str, site: str, ended: bool) -> Iterator[PenaltyTold]:
        """Those that stand; with `ended` those that are over, too."""
        for id, kept in self._mirror.penalties.items():
            if site and id != site:
                continue
            for penalty in kept.standing(self._wall):
                if host in ("", kept.host):
                    yield PenaltyTold(site=id, host=kept.host, penalty=penalty)
            for old in kept.past if ended else ():
                if host in ("", old.host):
                    yield PenaltyTold(site=id, host=old.host, penalty=old.penalty, ended=old.ended)

    def reported(self, site: Site) -> Reported | None:
        """None: there is nothing to tell of it."""
        word, place = self._uses.of(site.id), self._place(site)
        history = word.use.past if word else None
        lately = list(self._lately(site.id))
        if not (lately or (history is not None and history.shadow_min)):
            return None  # most of ten thousand
        would = self._minutes([(p, end) for p, end in lately if not p.enforced])
        was = self._minutes([(p, end) for p, end in lately if p.enforced])
        shadow = history.shadow_min if history and history.shadow_min else would
        level = max((penalty.level for penalty, _ in lately), default=0)
        return Reported(
            site=site.id,
            plan=site.plan,
            host=place.host if place else None,
            attachment=word.use.attachment if word else None,
            enforced=self._enforced(site),
            shadow_min=round(shadow, 1),
            penalized_min=round(was, 1),
            penalties=len(lately),
            level=LEVELS.get(level, ""),
            history=history,
            waits=bool(
                self._force(site).waits(self._mirror.fleet.plans[site.plan].caps, self._wall)
            ),
        )

    def _lately(self, site: SiteId) -> Iterator[tuple[Penalty, float]]:
        """Each penalty of the last week, and when it ended, or now; the memory watchdog's relief is none."""
        if (kept := self._mirror.penalties.get(site)) is None:
            return
        since = self._wall - WEEK_S
        standing = ((penalty, self._wall) for penalty in kept.standing(self._wall))
        ended = ((old.penalty, old.ended) for old in kept.past if old.ended > since)
        yield from (each for each in (*standing, *ended) if not each[0].is_relief)

    def _minutes(self, spans: list[tuple[Penalty, float]]) -> float:
        """Of the last week; two penalties at a time slow a site once."""
        begun = sorted((max(p.since, self._wall - WEEK_S), end) for p, end in spans)
        total, until = 0.0, float("-inf")
        for start, end in begun:
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total / 60

    def unheard(self) -> int:
        """Sites of which this controller has heard nothing."""
        return sum(self._uses.of(site) is None for site in self._mirror.fleet.sites)

    def _waits(self, site: Site) -> dict[str, Waiting]:
        """The caps of its plan that are stricter than what holds."""
        force, plan = self._force(site), self._mirror.fleet.plans[site.plan].caps
        now, later = force.caps(plan, self._wall), force.held[-1] if force.held else None
        comes = later.since if later and later.since > self._wall and not later.caps else None
        return {
            cap: Waiting(holds=getattr(now, cap), plan=getattr(plan, cap), comes=comes)
            for cap in force.waits(plan, self._wall)
        }

    def _pending(self) -> tuple[Pending, ...]:
        """Plans of which stricter numbers wait for a word, wherever caps hold."""
        waiting = Counter(
            site.plan
            for site in self._mirror.fleet.sites.values()
            if self._force(site).waits(self._mirror.fleet.plans[site.plan].caps, self._wall)
        )
        since = self._mirror.enforcement.since
        return tuple(
            Pending(plan=plan, since=since.get(plan), sites=count)
            for plan, count in sorted(waiting.items())
        )

    def enforcement(self) -> EnforcementTold:
        counts: Counter[str] = Counter(
            self._state(site) for site in self._mirror.fleet.sites.values()
        )
        return EnforcementTold(
            words=self._mirror.enforcement,
            enforced=counts["enforced"] + counts["at the edges"],
            shadow=counts["shadow"],
            waiting=counts["waiting"],
            unable=counts["unable"],
            pending=self._pending(),
            at_edges=counts["at the edges"],
        )

    def _state(self, site: Site) -> str:
        since = self._force(site).enforced_from
        if since is None:
            return "shadow"
        if since > self._wall:
            return "waiting"
        match self._held_by(site):
            case ():
                return "unable"
            case ("edges",):
                return "at the edges"
            case _:
                return "enforced"


def _short(site: SiteId, use: SiteUse) -> Iterator[Short]:
    """Of its own slice and beyond it, then of those beside."""
    if use.short:
        yield Short(site=site, slice=use.slice, short=use.short)
    for one in use.beside:
        if one.short:
            yield Short(site=site, slice=one.slice, short=one.short)


def share(use: SiteUse, caps: Caps) -> Share:
    """`use` against `caps`."""
    disk = use.disk if use.disk and not use.disk.shared else DiskUse()
    return Share(
        cpu_ratio=_of(use.cpu_cores, caps.cpu_percent / 100),
        memory_ratio=_of(use.memory_bytes, caps.memory_max_bytes),
        tasks_ratio=_of(use.tasks, caps.tasks),
        read_ratio=_of(
            _busiest(use.busiest_read_bytes_per_s, use.read_bytes_per_s), caps.read_bytes_per_s
        ),
        write_ratio=_of(
            _busiest(use.busiest_write_bytes_per_s, use.write_bytes_per_s), caps.write_bytes_per_s
        ),
        requests_ratio=_of(use.requests_per_s, caps.requests_per_s),
        disk_ratio=_of(disk.used_bytes, caps.disk_bytes),
        inodes_ratio=_of(disk.used_inodes, caps.inodes),
    )


def _busiest(told: float | None, only: float | None) -> float | None:
    """Of several disks each is held by itself."""
    return only if told is None else told


def _of(part: float | None, whole: float) -> float | None:
    return None if part is None else round(part / whole, 4)


def _or_none(number: Number) -> Number | None:
    """What no edge counts up to is no limit."""
    return number if number < LIMIT_MAX else None
