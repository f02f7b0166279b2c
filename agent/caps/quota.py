"""Which Unix user may keep how much on which file system: plans, overrides and what is kept already. Pure.

The kernel counts by user, so sites that share one share its quota: the sum of their plans. What is kept is kept: unlike
a share of a CPU it is not given back, and with less than the sum a site could be refused inside its own plan. A site of
several users has its whole plan in each of them, for the kernel adds nobody up.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.caps.quotamounts import Mount
from agent.discover.accounts import SHARED
from agent.layout.attached import Attached
from fleet.caps import Tenant, armed, as_armed, effective
from fleet.messages import Orders
from fleet.model import Caps, Count, SiteId, Why
from fleet.quota import NO_QUOTA, UNIT_BYTES, Quota, quota
from fleet.units import format_bytes

# What a site that keeps more than its plan when that is turned on may add yet: sessions, logs, a database's growth.
MARGIN_RATIO = 0.05

Key = tuple[str, int]
"""A mount's place and a uid."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What one user keeps, and is held to."""

    used_bytes: Count
    used_inodes: Count
    quota: Quota


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One file system: `enforced`, `counted`, `off`, or what went wrong. `refused`: limits that it did not take."""

    state: str
    users: dict[int, Kept] = {}
    refused: dict[int, str] = {}


class Ours(msgspec.Struct, frozen=True, kw_only=True):
    """What we have put on a user; `was` there before, and is put back at the end."""

    sites: tuple[SiteId, ...]
    quota: Quota
    was: Quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    uid: int
    home: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is known when it is decided; `now` is Unix s. `people`: this host's users, no system's."""

    orders: Orders
    attached: Mapping[SiteId, Attached]
    people: Mapping[str, Person]
    mounts: Mapping[Path, Mount]
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A user on a file system: whose it is, what its plans allow together, and whether all of them are in force."""

    sites: tuple[SiteId, ...]
    mount: Mount
    plan: Quota
    in_force: bool
    because: Mapping[str, Why] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What to hold a user to, and why, by field. `release`: it is not ours any more once that is so."""

    sites: tuple[SiteId, ...]
    quota: Quota
    because: Mapping[str, Why] = field(default_factory=dict)
    release: bool = False


def paths(
    tenants: Mapping[SiteId, Tenant],
    attached: Mapping[SiteId, Attached],
    people: Mapping[str, Person],
) -> frozenset[Path]:
    """Where sites' files are: the homes of their users, and their document roots."""
    return frozenset(
        path
        for site, tenant in tenants.items()
        for user in _users(tenant)
        if user in people
        for path in _places(people[user], attached.get(site))
    )


def holders(world: World) -> dict[Key, Holder]:
    """Every user of a site that is there, on every file system that it has files of the site on."""
    theirs: dict[Key, dict[SiteId, tuple[Tenant, Caps]]] = defaultdict(dict)
    mounts: dict[str, Mount] = {}
    for site, tenant, caps in known(world):
        for user in _users(tenant):
            person = world.people.get(user)
            for path in _places(person, world.attached.get(site)) if person else ():
                if person and (mount := world.mounts.get(path)):
                    mounts[mount.place] = mount
                    theirs[mount.place, person.uid][site] = tenant, caps
    return {key: _holder(world, mounts[key[0]], those) for key, those in theirs.items()}


def _users(tenant: Tenant) -> Iterator[str]:
    return (user for user in tenant.users if user not in SHARED)


def _places(person: Person, attached: Attached | None) -> Iterator[Path]:
    yield person.home
    yield from attached.roots if attached else ()


def known(world: World) -> Iterator[tuple[SiteId, Tenant, Caps]]:
    """Those whose plan these orders know, and that were looked for on this host (rule R7)."""
    for site, tenant in sorted(world.orders.tenants.items()):
        plan = world.orders.plans.get(tenant.plan)
        if plan and site in world.attached:
            held = armed(plan, tenant.held, world.now)
            yield site, tenant, effective(held, tenant.override, world.now)


def _holder(world: World, mount: Mount, those: Mapping[SiteId, tuple[Tenant, Caps]]) -> Holder:
    allowed = [caps for _, caps in those.values()]
    tenants = [tenant for tenant, _ in those.values()]
    return Holder(
        sites=tuple(those),
        mount=mount,
        plan=quota(sum(c.disk_bytes for c in allowed), sum(c.inodes for c in allowed)),
        in_force=all(_in_force(tenant, world.now) for tenant in tenants),
        because=_because(world, tenants),
    )


def _in_force(tenant: Tenant, now: float) -> bool:
    return tenant.enforced_from is not None and tenant.enforced_from <= now


def _because(world: World, tenants: list[Tenant]) -> dict[str, Why]:
    if len(tenants) > 1:
        return {"disk_bytes": Why("quota-shared", {"sites": len(tenants)})}
    tenant, because = tenants[0], dict[str, Why]()
    plan = world.orders.plans[tenant.plan]
    held = armed(plan, tenant.held, world.now)
    for name in ("disk_bytes", "inodes"):
        if getattr(held, name) != getattr(plan, name):
            because[name] = Why("cap-as-armed")
    if len(users := {*_users(tenant)} & world.people.keys()) > 1:
        because["disk_bytes"] = Why("quota-each", {"users": len(users)})
    was = as_armed(tenant.held, world.now)
    because |= {name: Why("cap-as-armed") for name in ("disk_bytes", "inodes") if name in was}
    if (over := tenant.override) and over.note.since <= world.now < over.note.until:
        said = Why("cap-override", {"owner": over.note.owner, "reason": over.note.reason})
        because |= {name: said for name in ("disk_bytes", "inodes") if name in over.caps}
    return because


def aims(
    world: World,
    found: Mapping[Key, Holder],
    seen: Mapping[str, Seen],
    ours: Mapping[Key, Ours],
) -> dict[Key, Aim]:
    """What to hold now, and why; of file systems that hold nobody nothing.

    Let go is who is in shadow, was told to be removed, or lives elsewhere now; who is not spoken of stays (rule R7).
    """
    wanted: dict[Key, Aim] = {}
    for key, holder in found.items():
        kept = kept_of(seen, key)
        if holder.in_force and kept:
            wanted[key] = _aim(holder, kept, ours.get(key))
    for key, mine in ours.items():
        if key not in wanted and kept_of(seen, key):
            gone = all(_spoken_of(site, world) for site in mine.sites)
            limits = mine.was if gone else mine.quota
            wanted[key] = Aim(sites=mine.sites, quota=limits, release=gone)
    return wanted


def kept_of(seen: Mapping[str, Seen], key: Key) -> Kept | None:
    """None: it holds nobody, or was not to be seen."""
    mount = seen.get(key[0])
    return mount.users.get(key[1]) if mount and mount.state == "enforced" else None


def _spoken_of(site: SiteId, world: World) -> bool:
    """Whether it is known where `site` is held, so that what is held elsewhere is over."""
    tenant = world.orders.tenants.get(site)
    if tenant is None:
        return site in world.orders.removed_sites
    return tenant.plan in world.orders.plans and site in world.attached


def _aim(holder: Holder, kept: Kept, mine: Ours | None) -> Aim:
    # Who is held to nothing now may keep more than when we last said something: it begins anew.
    before = mine.quota if mine and kept.quota != NO_QUOTA else NO_QUOTA
    plan, because = holder.plan, dict(holder.because)
    most_bytes, most_inodes = plan.disk_hard_bytes or 0, plan.inodes_hard or 0
    room_bytes = hard(most_bytes, kept.used_bytes, before.disk_hard_bytes)
    room_bytes = -(-room_bytes // UNIT_BYTES) * UNIT_BYTES
    room_inodes = hard(most_inodes, kept.used_inodes, before.inodes_hard)
    if room_bytes > most_bytes:
        because["disk_hard_bytes"] = Why("quota-over", {"kept": size(kept.used_bytes)})
    if room_inodes > most_inodes:
        because["inodes_hard"] = Why("quota-over", {"kept": kept.used_inodes})
    limits = msgspec.structs.replace(plan, disk_hard_bytes=room_bytes, inodes_hard=room_inodes)
    return Aim(sites=holder.sites, quota=limits, because=because)


def hard(most: int, used: int, before: int | None) -> int:
    """What the kernel refuses at: `most`, but nothing that is in use is refused at once, and a little may be added.

    Who keeps more goes down to `most` as it shrinks, in steps of the margin, and never up again by what it writes
    itself. `before`: what we had it at; None: nothing. More than that is root's doing: a copy of a site that was away
    or was restored is stopped by no quota.
    """
    margin = max(1, int(most * MARGIN_RATIO))
    if before is not None and used > before:
        # A file system's own blocks pass a limit too, by little: to be given a margin for them each time, again and
        # again, would be no limit.
        return max(most, used + min(margin, used - before))
    room = used + margin
    if before is not None and before - room < margin:
        room = before
    return max(most, room)


def ask(world: World, keys: Iterable[Key]) -> dict[str, dict[int, None]]:
    """Whom of `keys` to look at, by mount: those that are there, and of a kind that counts users."""
    asked: dict[str, dict[int, None]] = defaultdict(dict)
    present = {mount.place: mount for mount in world.mounts.values()}
    for place, uid in keys:
        if place in present and present[place].has_quota:
            asked[place][uid] = None
    return asked


def size(size_bytes: int) -> str:
    """For people; whole MiB where there is one."""
    return str(format_bytes((size_bytes >> 20 << 20) or size_bytes))


def next_change_s(world: World) -> float:
    """How long until an override or a shadow begins or ends; infinite if none does."""
    ends = (at for tenant in world.orders.tenants.values() for at in tenant.turns())
    return min((at - world.now for at in ends if at > world.now), default=float("inf"))
