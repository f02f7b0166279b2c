"""What the processes of this host's sites may send out, by the account that they run as. Pure.

An account that several sites share is closed once all of them are in force, as their slice is held; it is not shut in
for what one of them does.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec

from agent.caps.egress import Rules
from agent.caps.shut import Shut
from agent.caps.sparing import some
from agent.caps.wants import World
from fleet.caps import Level
from fleet.model import SiteId, Why

DAY_S = 86_400.0  # no isolation of relevo's own is longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """An account, and the sites that run as it; `shadow`: those of them whose caps are not in force."""

    name: str
    sites: frozenset[SiteId]
    shadow: frozenset[SiteId]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What the firewall is to hold, and whom that closes it to for each site."""

    rules: Rules
    shut: Mapping[SiteId, Shut]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Who runs as whom: accounts by uid, the uids of each site, and until when (Unix s) a penalty shuts one in."""

    by_uid: Mapping[int, Sender]
    of: Mapping[SiteId, Sequence[int]]
    isolated: Mapping[SiteId, float]

    def senders(self, site: SiteId) -> list[Sender]:
        return [self.by_uid[uid] for uid in self.of.get(site, ())]

    def own(self, site: SiteId) -> list[int]:
        """Those that nobody else runs as; whether anything of it is served now does not count."""
        return [uid for uid in self.of.get(site, ()) if len(self.by_uid[uid].sites) == 1]


def accounts(world: World) -> Accounts:
    """One pass over the sites: with a look for each among all the others, a thousand take a thousand times as long."""
    names: dict[int, str] = {}
    sites: dict[int, set[SiteId]] = defaultdict(set)
    of: dict[SiteId, list[int]] = {}
    for site, tenant in world.orders.tenants.items():
        attached = world.attached.get(site)
        found = {user: world.people[user] for user in tenant.users if user in world.people}
        if attached is not None and attached.in_common:
            found |= world.common
        for user, uid in found.items():
            names[uid] = user
            sites[uid].add(site)
        of[site] = list(dict.fromkeys(found.values()))
    shadow = {s for s, t in world.orders.tenants.items() if not world.in_force(t)}
    return Accounts(
        by_uid={
            uid: Sender(name=names[uid], sites=frozenset(those), shadow=frozenset(those & shadow))
            for uid, those in sites.items()
        },
        of=of,
        isolated=_isolated(world),
    )


def _isolated(world: World) -> dict[SiteId, float]:
    found: dict[SiteId, float] = {}
    for penalty in world.penalties_of(world.orders.tenants):
        if penalty.level >= Level.ISOLATE:
            found[penalty.site] = max(penalty.until, found.get(penalty.site, 0.0))
    return found


def closing(world: World, servers: Rules, before: Mapping[SiteId, Shut]) -> Closing:
    """`before`: whom it was closed to until now."""
    shut = shut_by(world, before)
    return Closing(rules=rules(world, servers, shut), shut=shut)


def rules(
    world: World, servers: Rules, shut: Mapping[SiteId, Shut] = MappingProxyType({})
) -> Rules:
    """What these accounts may send out, beside what `servers` names.

    `shut`: whom it was closed to. Of sites that nobody speaks of these stay so, where no other site runs as them now.
    """
    found = accounts(world)
    now = {uid for uid, sender in found.by_uid.items() if not sender.shadow}
    isolated = {uid for site in found.isolated for uid in found.own(site)}
    uids = {**world.people, **world.common}
    gone = [was for site, was in shut.items() if site not in world.orders.tenants]
    known = found.by_uid.keys()
    mail = {uids[user] for was in gone for user in was.mail if user in uids} - known
    alone = {uids[user] for was in gone for user in was.isolated if user in uids} - known
    return replace(servers, sites=frozenset(now | mail), isolated=frozenset(isolated | alone))


def shut_by(world: World, before: Mapping[SiteId, Shut]) -> dict[SiteId, Shut]:
    """Whom it is closed to for each site; of one that nobody speaks of, whom it was closed to `before` (rule R7).

    Nobody is shut in for longer than it was decided (rule R11).
    """
    of = accounts(world)
    found = {site: _shut(site, of) for site in world.orders.tenants}
    known = found.keys() | set(world.orders.removed_sites)
    stays = {site: _still(was, world.now) for site, was in before.items() if site not in known}
    return {site: one for site, one in (stays | found).items() if one.mail or one.isolated}


def _shut(site: SiteId, of: Accounts) -> Shut:
    closed = (one.name for one in of.senders(site) if not one.shadow)
    own = of.own(site) if site in of.isolated else ()
    return Shut(
        mail=tuple(sorted(closed)),
        isolated=tuple(sorted(of.by_uid[uid].name for uid in own)),
        until=of.isolated[site] if own else None,
    )


def _still(was: Shut, now: float) -> Shut:
    """What an earlier release kept has no end: it is given the longest that there is."""
    if not was.isolated:
        return was
    until = now + DAY_S if was.until is None else was.until
    return msgspec.structs.replace(was, until=until) if now < until else Shut(mail=was.mail)


def open_to(world: World) -> dict[SiteId, tuple[Why, ...]]:
    """What stays open to sites that are in force, and why; of those that this host knows."""
    of = accounts(world)
    waits = {uid: some(one.shadow) for uid, one in of.by_uid.items() if one.shadow}
    found = {
        site: (*_mail(site, of, waits), *_rest(site, world, of))
        for site, tenant in world.orders.tenants.items()
        if world.in_force(tenant) and site in world.attached
    }
    return {site: whys for site, whys in found.items() if whys}


def _mail(site: SiteId, of: Accounts, waits: Mapping[int, str]) -> tuple[Why, ...]:
    """`waits`: whom each account waits for, in a sentence."""
    if not (uids := of.of.get(site)):
        return (Why("mail-open"),)
    told = {of.by_uid[uid].name: waits[uid] for uid in uids if uid in waits}
    return tuple(
        Why("mail-waits-for", {"user": user, "sites": sites})
        for user, sites in sorted(told.items())
    )


def _rest(site: SiteId, world: World, of: Accounts) -> tuple[Why, ...]:
    if site not in of.isolated:
        return ()
    attached = world.attached[site]
    held = attached.slice is not None or (of.own(site) and not attached.in_common)
    return () if held else (Why("egress-open"),)
