"""What the processes of this host's sites may send out, by the account that they run as. Pure.

An account that several sites share is closed once all of them are in force, as their slice is held; it is not shut in
for what one of them does.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from agent.caps.egress import Rules
from agent.caps.shut import Shut
from agent.caps.sparing import some
from agent.caps.wants import World
from fleet.caps import Level
from fleet.model import SiteId, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """An account, and the sites that run as it; `shadow`: those of them whose caps are not in force."""

    name: str
    sites: frozenset[SiteId]
    shadow: frozenset[SiteId]


def senders(world: World) -> dict[int, Sender]:
    """By uid."""
    names: dict[int, str] = {}
    sites: dict[int, set[SiteId]] = defaultdict(set)
    for site, tenant in world.orders.tenants.items():
        attached = world.attached.get(site)
        found = {user: world.people[user] for user in tenant.users if user in world.people}
        if attached is not None and attached.in_common:
            found |= world.common
        for user, uid in found.items():
            names[uid] = user
            sites[uid].add(site)
    shadow = {s for s, t in world.orders.tenants.items() if not world.in_force(t)}
    return {
        uid: Sender(name=names[uid], sites=frozenset(of), shadow=frozenset(of & shadow))
        for uid, of in sites.items()
    }


def rules(
    world: World, servers: Rules, shut: Mapping[SiteId, Shut] = MappingProxyType({})
) -> Rules:
    """What these accounts may send out, beside what `servers` names.

    `shut`: whom it was closed to. Of sites that nobody speaks of these stay so, where no other site runs as them now.
    """
    of = senders(world)
    now = {uid: sender for uid, sender in of.items() if not sender.shadow}
    isolated = {
        uid for site in world.orders.tenants if _is_isolated(site, world) for uid in _own(site, of)
    }
    uids = {**world.people, **world.common}
    gone = [was for site, was in shut.items() if site not in world.orders.tenants]
    mail = {uids[user] for was in gone for user in was.mail if user in uids} - of.keys()
    alone = {uids[user] for was in gone for user in was.isolated if user in uids} - of.keys()
    return replace(
        servers, sites=frozenset(now.keys() | mail), isolated=frozenset(isolated | alone)
    )


def shut_by(world: World, before: Mapping[SiteId, Shut]) -> dict[SiteId, Shut]:
    """Whom it is closed to for each site; of one that nobody speaks of, whom it was closed to `before` (rule R7)."""
    of = senders(world)
    found = {site: _shut(site, world, of) for site in world.orders.tenants}
    known = found.keys() | set(world.orders.removed_sites)
    stays = {site: was for site, was in before.items() if site not in known}
    return {site: one for site, one in (stays | found).items() if one.mail or one.isolated}


def _shut(site: SiteId, world: World, of: Mapping[int, Sender]) -> Shut:
    closed = (one.name for one in of.values() if site in one.sites and not one.shadow)
    own = _own(site, of) if _is_isolated(site, world) else ()
    return Shut(mail=tuple(sorted(closed)), isolated=tuple(sorted(of[uid].name for uid in own)))


def open_to(world: World) -> dict[SiteId, tuple[Why, ...]]:
    """What stays open to sites that are in force, and why; of those that this host knows."""
    by_uid = senders(world)
    of: dict[SiteId, list[Sender]] = defaultdict(list)
    for sender in by_uid.values():
        for site in sender.sites:
            of[site].append(sender)
    found = {
        site: (*_mail(of.get(site, ())), *_rest(site, world, by_uid))
        for site, tenant in world.orders.tenants.items()
        if world.in_force(tenant) and site in world.attached
    }
    return {site: whys for site, whys in found.items() if whys}


def _mail(senders: Collection[Sender]) -> tuple[Why, ...]:
    if not senders:
        return (Why("mail-open"),)
    waits = {sender.name: some(sender.shadow) for sender in senders if sender.shadow}
    return tuple(
        Why("mail-waits-for", {"user": user, "sites": sites})
        for user, sites in sorted(waits.items())
    )


def _rest(site: SiteId, world: World, of: Mapping[int, Sender]) -> tuple[Why, ...]:
    attached = world.attached[site]
    held = attached.slice is not None or (_own(site, of) and not attached.in_common)
    return (Why("egress-open"),) if _is_isolated(site, world) and not held else ()


def _own(site: SiteId, of: Mapping[int, Sender]) -> list[int]:
    """The accounts that nobody else runs as; whether anything of it is served now does not count."""
    return [uid for uid, sender in of.items() if sender.sites == {site}]


def _is_isolated(site: SiteId, world: World) -> bool:
    return any(p.level >= Level.ISOLATE for p in world.penalties_of((site,)))
