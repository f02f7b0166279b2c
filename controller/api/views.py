"""What a controller knows, shaped for people and tools: pure looks at mirror, board and link."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from controller.api.shapes import (
    AgentTold,
    EvidenceTold,
    Failover,
    HostItem,
    HostTold,
    OpinionTold,
    ReachTold,
    SiteCounts,
    SiteItem,
    SiteTold,
    Spending,
    SpendingTold,
    Status,
    Words,
)
from failover.guards import spent_causes
from failover.judge import Kind
from fleet.model import Host, HostId, Incident, Note, Site, SiteId, Why
from runtime.clock import wall

if TYPE_CHECKING:
    from controller.parts import Controller

NOT_JUDGED = Why("not-judged-here")
VERSION = version("relevo")


class View:
    """One look: everything in it belongs to the same moment."""

    def __init__(self, controller: "Controller") -> None:
        self._controller = controller
        self._mirror, self._board = controller.mirror, controller.board
        self._now, self._wall = asyncio.get_running_loop().time(), wall()
        self._count = controller.census.now()

    # --- the whole

    def status(self) -> Status:
        controller, mirror = self._controller, self._mirror
        spent, allowed = self.spent()
        return Status(
            cluster=mirror.id.cluster,
            version=VERSION,
            controller=controller.config.id,
            leader=self.leads,
            led_by=mirror.leader,
            ready=self.ready,
            arming=mirror.switches.all,
            paused=self.paused,
            rewound=self._board.rewound,
            store_error=self._board.store_error or None,
            doubts_itself=controller.link.doubt.doubts_itself,
            budget=Spending(spent=spent, allowed=allowed),
            hosts=self.verdict_counts(),
            sites=SiteCounts(
                total=len(mirror.fleet.sites), away=self.away(), held=len(self._count.held)
            ),
            incidents_open=len(self.open_incidents()),
            revision=mirror.revision,
        )

    @property
    def leads(self) -> bool:
        return self._controller.leader.leadership is not None

    @property
    def ready(self) -> bool:
        """The mirror is filled, and was looked at once."""
        return self._mirror.ready and self._board.times is not None

    @property
    def paused(self) -> Note | None:
        note = self._mirror.switches.paused
        return note if note is not None and self._wall < note.until else None

    def spent(self) -> tuple[int, int]:
        """Causes that the brake counts now, and how many it lets pass in an hour."""
        allowed = self._controller.config.policy.causes_allowed(len(self._mirror.fleet.hosts))
        return len(spent_causes(self._mirror.budget, self._wall)), allowed

    def verdict_counts(self) -> dict[str, int]:
        verdicts = self._board.verdicts
        hosts = self._mirror.fleet.hosts
        found = Counter(verdicts[id].kind if id in verdicts else Kind.UNKNOWN for id in hosts)
        return {kind.value: count for kind, count in found.items()}

    def away(self) -> int:
        """Sites served elsewhere than at home."""
        return self._count.away

    def open_incidents(self) -> list[Incident]:
        return [i for i in self._mirror.incidents.values() if i.closed_at is None]

    def verdict_of(self, id: HostId) -> tuple[str, float | None, Why]:
        """(verdict, since how many s, why) as this controller judged it last."""
        verdict = self._board.verdicts.get(id)
        if verdict is None:
            return Kind.UNKNOWN.value, None, NOT_JUDGED
        return verdict.kind.value, round(max(0.0, self._now - verdict.since), 2), verdict.why

    # --- hosts

    def hosts(self, ids: Iterable[HostId] | None = None) -> list[HostItem]:
        """All hosts by id, or these in their order."""
        declared = self._mirror.fleet.hosts
        return [self._host(declared[id]) for id in (sorted(declared) if ids is None else ids)]

    def _host(self, host: Host) -> HostItem:
        link, mirror = self._controller.link, self._mirror
        kind, since_s, why = self.verdict_of(host.id)
        heard = link.heard.get(host.id)
        return HostItem(
            id=host.id,
            tag=host.tag,
            location=host.location,
            roles=host.roles,
            addresses=host.addresses,
            verdict=kind,
            since_s=since_s,
            why=why,
            connected=host.id in link.connected,
            beat_age_s=round(self._now - heard.at, 3) if heard else None,
            sites_home=self._count.home[host.id],
            sites_here=self._count.here[host.id],
            draining=self._draining(host.id),
            withdrawn=mirror.withdrawn.get(host.id),
            load=heard.beat.load if heard else None,
            service=heard.beat.service if heard else None,
            boot_id=heard.beat.boot_id if heard else None,
        )

    def _draining(self, id: HostId) -> Note | None:
        note = self._mirror.drains.get(id)
        return note if note is not None and self._wall < note.until else None

    def host(self, id: str) -> HostTold | None:
        """One host with the evidence on it and its sites, each with what holds it."""
        if (host := self._mirror.fleet.hosts.get(HostId(id))) is None:
            return None
        heard = self._controller.link.heard.get(host.id)
        agent = None
        if heard is not None:
            beat = heard.beat
            agent = AgentTold(
                version=beat.version,
                kernel=beat.kernel,
                uptime_s=beat.uptime_s,
                state=beat.state,
                orders=str(beat.orders),
                edge=beat.edge,
            )
        return HostTold(
            **asdict(self._host(host)),
            declared=host,
            max_sites=host.max_sites,
            agent=agent,
            evidence=self._evidence(host.id),
            sites=tuple(self.sites(host=host.id)),
        )

    def _evidence(self, id: HostId) -> EvidenceTold:
        """Every witness' word, as the last round saw it."""
        evidence = self._board.seen.hosts.get(id)
        if evidence is None:
            return EvidenceTold()
        return EvidenceTold(
            reach={
                controller: ReachTold(age_s=_rounded(reach.age_s), trusted=reach.trusted)
                for controller, reach in evidence.reach.items()
            },
            opinions={
                witness: OpinionTold(
                    witness=opinion.kind.value,
                    health=opinion.health,
                    since_s=_rounded(opinion.since_s),
                )
                for witness, opinion in evidence.opinions.items()
            },
        )

    # --- sites

    def sites(self, *, host: str = "", member: str = "", q: str = "") -> list[SiteItem]:
        """Sites at home or served on `host`, of `member`, with `q` in their id or in a domain."""
        return [self.site_item(site) for site in self.sites_with(host=host, member=member, q=q)]

    def sites_with(self, *, host: str, member: str, q: str) -> Sequence[Site]:
        """As declared, by id."""
        sites = self._count.near.get(HostId(host), ()) if host else self._count.sites
        if not (member or q):
            return sites
        return [site for site in sites if _matches(site, member, q.lower())]

    def site_item(self, site: Site) -> SiteItem:
        place = self._mirror.places.get(site.id)
        held = self._count.held.get(site.id)
        return SiteItem(
            id=site.id,
            member=site.member,
            domains=site.domains,
            home=site.home,
            host=place.host if place else None,
            mode=site.effective_mode,
            route=site.route,
            since=place.since if place else None,
            why=place.why if place else None,
            armed=self._armed(site),
            standbys=site.standbys,
            hold=held.why if held else None,
        )

    def _armed(self, site: Site) -> bool:
        place = self._mirror.places.get(site.id)
        host = self._mirror.fleet.hosts.get(place.host if place else site.home)
        return host is not None and self._mirror.switches.armed(site.id, host.id, host.location)

    def site(self, id: str) -> SiteTold | None:
        """One site, with the incidents that moved it."""
        if (site := self._mirror.fleet.sites.get(SiteId(id))) is None:
            return None
        place = self._mirror.places.get(site.id)
        incidents = [
            incident.id
            for incident in reversed(list(self._mirror.incidents.values()))
            if any(move.site == id for move in incident.moved)
        ]
        return SiteTold(
            **asdict(self.site_item(site)),
            declared=site,
            plan=site.plan,
            check=site.check,
            incident=place.incident if place else None,
            incidents=tuple(incidents[:20]),
        )

    # --- failover

    def failover(self) -> Failover:
        mirror, policy = self._mirror, self._controller.config.policy
        switches, (spent, allowed) = mirror.switches, self.spent()
        return Failover(
            arming=Words(
                all=switches.all,
                locations=switches.locations,
                hosts=switches.hosts,
                sites=switches.sites,
            ),
            paused=self.paused,
            rewound=self._board.rewound,
            budget=SpendingTold(spent=spent, allowed=allowed, causes=mirror.budget.spent),
            policy=policy,
        )


def _matches(site: Site, member: str, q: str) -> bool:
    return (not member or site.member == member) and (
        not q or any(q in text.lower() for text in (site.id, *site.domains))
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
