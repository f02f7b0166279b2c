"""Judges how each site is attached, from what runs on its host. Pure.

The least of what is seen counts: a site of which one part runs in a shared process is not called held.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from agent.discover.accounts import SHARED, is_person
from agent.discover.found import VirtualHost
from agent.layout.adopt import Adopted
from agent.layout.attached import Adoptable, Attached, PoolSize
from agent.layout.masters import folder, slice_of
from agent.layout.running import Running
from agent.layout.served import Part, Served, served
from fleet.caps import Attachment, Tenant
from fleet.model import SiteId, Why

NO_SLICE = frozenset({"-.slice", "system.slice", "user.slice", "init.scope"})  # many share these
NAMES_MAX = 5  # of neighbours in a sentence

Values = dict[str, str | int | float]


def attach(
    tenants: Mapping[SiteId, Tenant],
    running: Running,
    cgroups: Path,
    adopted: Mapping[SiteId, Adopted] = MappingProxyType({}),
) -> dict[SiteId, Attached]:
    """Each of `tenants` as it runs here; `cgroups` is where the kernel shows its cgroups."""
    host = served(tenants, running, cgroups)
    judged = ((site, _Site(site, host, adopted.get(site))) for site in tenants)
    return {
        site: replace(one.attached(), roots=one.roots(), in_common=one.is_in_common())
        for site, one in judged
    }


class _Site:
    """One site being judged."""

    def __init__(self, id: SiteId, host: Served, adopted: Adopted | None) -> None:
        self._adopted = adopted
        self._id, self._tenant, self._host = id, host.tenants[id], host
        self._virtual = host.virtual_hosts(id)
        self._sockets = host.parts(id)
        self._parts = tuple({p.pool.place: p for p in self._sockets.values()}.values())
        self._users = [u for u in self._tenant.users if u not in SHARED]
        self._own = host.own_users(id)
        self._others = host.neighbours(id)
        self._logs = host.logs(id)
        accounts = [host.running.accounts.get(user) for user in self._own]
        self._uids = tuple(a.uid for a in accounts if a is not None and is_person(a))

    def attached(self) -> Attached:
        shared = [part for part in self._parts if self._pool_others(part)]
        if shared:
            return self._by_log(self._shared_pool(shared[0]))
        inside = next((virtual for virtual in self._virtual if virtual.inside), None)
        if self._parts and inside is not None:
            return self._partly_inside(inside)
        if self._parts:
            return self._by_parts()
        if self._tenant.slice and inside is None:
            return self._in_slice(self._tenant.slice)
        return self._without_php()

    def is_in_common(self) -> bool:
        """Whether some of its PHP runs as an account that many share."""
        inside = any(virtual.inside and not virtual.users for virtual in self._virtual)
        return inside or any(part.pool.user in SHARED for part in self._parts)

    def roots(self) -> tuple[Path, ...]:
        """The document roots of its virtual hosts."""
        said = (virtual.root for virtual in self._virtual)
        return tuple(sorted({Path(root) for root in said if root and root.startswith("/")}))

    def _pool_others(self, part: Part) -> list[SiteId]:
        return sorted(self._host.by_pool.get(part.pool.place, frozenset()) - {self._id})

    def _by_parts(self) -> Attached:
        slices = {slice_of(part.master.cgroup) for part in self._parts}
        wanted = self._tenant.slice
        held = next(iter(slices)) if len(slices) == 1 else None
        alone = all(part.is_alone for part in self._parts)
        if held and alone and wanted in {None, held} and (wanted or not self._is_for_many(held)):
            return self._in_slice(held)
        if not alone:
            return self._in_pool(
                self._least_told(part for part in self._parts if not part.is_alone)
            )
        return self._outside(next(iter(self._parts)), wanted or self._likely_slice())

    def _in_slice(self, slice: str) -> Attached:
        """Everything of it that this host can tell is in `slice`, or in its users' slices beside it."""
        directory = self._directory(f"/{folder(slice)}")
        own = tuple(self._directory(f"/{folder(f'user-{uid}.slice')}") for uid in self._uids)
        if directory in own:
            own = (directory, *(path for path in own if path != directory))
        elif self._is_of_users(slice) or self._others_in(slice):
            services = tuple(self._directory(part.master.cgroup) for part in self._parts)
            return self._held(slice, (*services, *own), self._shares(slice))
        else:
            own = (directory, *own)
        return self._held(slice, own, self._why_held(slice, beside=len(own) > 1))

    def _common_slice(self) -> str | None:
        users = (part.pool.user for part in self._parts)
        return self._host.common_slice(self._id, next(users, None))

    def _why_held(self, slice: str, *, beside: bool) -> Why:
        again = [self._host.doubled[s] for s in self._sockets if s in self._host.doubled]
        if again:
            unit, pool = again[0].master.unit, again[0].pool.name
            return Why(
                "layout-doubled", {"slice": slice, "unit": unit, "pool": pool, "site": self._id}
            )
        common = None if self._tenant.slice else self._common_slice()
        if common and common != slice:
            others = _some(self._others)
            values: Values = {"slice": slice, "others": others, "wanted": common, "site": self._id}
            return Why("layout-slice-apart", values)
        if leaks := self._leaks(slice):
            return Why("layout-slice-leaks", {"slice": slice, "where": ", ".join(leaks)})
        if not self._parts:
            return Why("layout-slice-named", {"slice": slice})
        if beside:
            users = ", ".join(self._own)
            return Why("layout-slice-beside", {"slice": slice, "users": users})
        unit = self._parts[0].master.unit
        return Why("layout-own-slice", {"slice": slice, "unit": unit})

    def _shares(self, slice: str) -> Why:
        others = sorted({*self._others, *self._others_in(slice)})
        return Why("layout-slice-shared", {"slice": slice, "others": _some(others)})

    def _others_in(self, slice: str) -> frozenset[SiteId]:
        return self._host.by_slice.get(slice, frozenset()) - {self._id}

    def _is_for_many(self, slice: str) -> bool:
        """Whether it is nobody's: one cap on it would hold sites together that have no user in common."""
        return slice in NO_SLICE or bool(self._others_in(slice) - set(self._others))

    def _held(self, slice: str, cgroups: tuple[Path, ...], why: Why) -> Attached:
        return Attached(
            attachment=Attachment.SLICE,
            why=why,
            slice=slice,
            cgroups=cgroups,
            uids=self._uids,
            socket=self._socket(),
            status=self._status(),
            logs=self._logs,
        )

    def _is_of_users(self, slice: str) -> bool:
        accounts = self._host.running.accounts
        uids = {accounts[user].uid for user in self._users if user in accounts}
        return slice in {f"user-{uid}.slice" for uid in uids}

    def _leaks(self, slice: str) -> list[str]:
        """Where processes of its own users run now, outside everything that holds it."""
        inside = {slice} | self._users_slices()
        found = set()
        for uid in self._uids:
            for cgroup in self._host.running.people.get(uid, ()):
                parts = cgroup.split("/")
                if not inside & set(parts):
                    found.add(parts[-1] or "/")
        return sorted(found)

    def _in_pool(self, part: Part) -> Attached:
        values: Values = {"pool": part.pool.name, "unit": part.master.unit, "site": self._id}
        if self._is_foreign(part) or not self._uids:
            user = part.pool.user or "?"
            why = Why("layout-pool-of-all", {**values, "user": user})
        elif part.pool.status is None:
            why = Why("layout-pool-silent", values)
        else:
            why = Why("layout-pool", values)
        pooled = replace(self._seen(why, ()), adoptable=self._adoptable(), size=self._size())
        return self._as_adopted(pooled)

    def _least_told(self, parts: Iterable[Part]) -> Part:
        return max(parts, key=self._is_foreign)

    def _is_foreign(self, part: Part) -> bool:
        """Whether its PHP runs as nobody of this site's own: of what it costs, its users' processes say nothing."""
        return part.pool.user not in self._own

    def _adoptable(self) -> Adoptable | None:
        """Only where each of its pools runs as a user of its own, under one master that systemd runs."""
        masters = {part.master.main: part.master for part in self._parts}
        users = {part.pool.user for part in self._parts}
        slice = self._tenant.slice or self._likely_slice()
        its_own = not slice.startswith("user-") or slice in self._users_slices()
        if len(masters) != 1 or not users <= set(self._own) or slice in NO_SLICE or not its_own:
            return None
        (master,) = masters.values()
        if not master.unit.endswith(".service") or not self._uids:
            return None
        return Adoptable(
            uids=self._uids, main=master.main, cgroup=master.cgroup, unit=master.unit, slice=slice
        )

    def _as_adopted(self, pooled: Attached) -> Attached:
        """What is held of a pool whose workers this host's agent keeps in a slice."""
        of, now = pooled.adoptable, self._adopted
        if of is None or now is None or now.slice != of.slice:
            return pooled
        if not now.held and not now.trouble:
            return pooled  # the first try is under way
        if not now.held:
            why = Why("layout-adoption-fails", {"unit": of.unit, "trouble": now.trouble})
            return replace(pooled, why=why)
        own = tuple(self._directory(f"/{folder(name)}") for name in sorted(self._users_slices()))
        directory = self._directory(f"/{folder(of.slice)}")
        cgroups = (directory, *(path for path in own if path != directory))
        why = self._why_adopted(of, now)
        return replace(pooled, why=why, slice=of.slice, cgroups=cgroups, adopted=True)

    def _why_adopted(self, of: Adoptable, now: Adopted) -> Why:
        values: Values = {"slice": of.slice, "unit": of.unit}
        if now.trouble:
            return Why("layout-adopted-short", {**values, "trouble": now.trouble})
        # A worker that was born a moment ago is no leak.
        if leaks := [place for place in self._leaks(of.slice) if place != of.unit]:
            return Why("layout-slice-leaks", {"slice": of.slice, "where": ", ".join(leaks)})
        return Why("layout-adopted", values)

    def _users_slices(self) -> frozenset[str]:
        return frozenset(f"user-{uid}.slice" for uid in self._uids)

    def _size(self) -> PoolSize | None:
        if len(self._parts) != 1:
            return None
        part = self._parts[0]
        pool = part.pool
        return PoolSize(pool=pool.name, place=pool.place, unit=part.master.unit, most=pool.workers)

    def _outside(self, part: Part, wanted: str) -> Attached:
        values: Values = {"unit": part.master.unit, "slice": wanted}
        cgroups = tuple(self._directory(part.master.cgroup) for part in self._parts)
        return self._seen(Why("layout-unit-outside", values), cgroups)

    def _seen(self, why: Why, cgroups: tuple[Path, ...]) -> Attached:
        return Attached(
            attachment=Attachment.POOL,
            why=why,
            cgroups=cgroups,
            uids=self._uids,
            socket=self._socket(),
            status=self._status(),
            logs=self._logs,
        )

    def _shared_pool(self, part: Part) -> Why:
        others = _some(self._pool_others(part))
        return Why("layout-pool-shared", {"pool": part.pool.name, "others": others})

    def _without_php(self) -> Attached:
        if not self._virtual:
            domain = next(iter(self._tenant.domains), "?")
            return Attached(
                attachment=Attachment.NONE, why=Why("layout-not-served", {"domain": domain})
            )
        server = self._virtual[0].server
        values: Values = {"server": server, "log": _listed(self._logs)}
        if self._tenant.slice:
            return self._by_log(Why("layout-not-in-slice", {**values, "slice": self._tenant.slice}))
        return self._by_log(Why("layout-log", values))

    def _partly_inside(self, virtual: VirtualHost) -> Attached:
        """Some of it could be held, but nobody could tell that part from the whole."""
        values: Values = {
            "server": virtual.server,
            "place": virtual.place,
            "pool": self._parts[0].pool.name,
        }
        unlogged = Why("layout-part-unlogged", values)
        if any(one.inside and not self._host.own_logs(self._id, one) for one in self._virtual):
            return self._unseen(unlogged)
        why = Why("layout-part-inside", {**values, "log": _listed(self._logs)})
        return self._by_log(why)

    def _by_log(self, why: Why) -> Attached:
        if logs := self._logs:
            return Attached(attachment=Attachment.LOG, why=why, uids=self._uids, logs=logs)
        server = self._virtual[0].server if self._virtual else "?"
        return self._unseen(Why("layout-no-log", {"server": server}))

    def _unseen(self, why: Why) -> Attached:
        return Attached(attachment=Attachment.NONE, why=why, uids=self._uids)

    def _socket(self) -> Path | None:
        """The one that it is reached at, if it is one, and a file."""
        said = {part.pool.listen for part in self._parts}
        one = said.pop() if len(said) == 1 else None
        return Path(one) if one and one.startswith("/") else None

    def _status(self) -> tuple[Path, str] | None:
        said = [part.pool.status for part in self._parts if part.pool.status]
        if len(self._parts) != 1 or not said:  # of several pools no single one tells
            return None
        return Path(said[0][0]), said[0][1]

    def _likely_slice(self) -> str:
        return self._common_slice() or proposed(self._id, self._uids)

    def _directory(self, cgroup: str) -> Path:
        return self._host.cgroups / cgroup.lstrip("/")


def proposed(site: SiteId, uids: tuple[int, ...]) -> str:
    """The best slice for a site with users of its own: its user's where they are one to one, else the site's own."""
    if len(uids) == 1:
        return f"user-{uids[0]}.slice"
    # "-" would make it a child of another slice. Source: systemd.unit(5), "String escaping".
    return f"site-{site.replace('-', chr(92) + 'x2d')}.slice"


def _listed(logs: Iterable[Path]) -> str:
    return ", ".join(map(str, logs))


def _some(sites: Sequence[SiteId]) -> str:
    more = f" +{len(sites) - NAMES_MAX}" if len(sites) > NAMES_MAX else ""
    return ", ".join(sites[:NAMES_MAX]) + more
