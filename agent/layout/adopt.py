"""Decides which workers of a shared php-fpm move into a scope of their site, in its slice. Pure.

The master stays in its own unit, and their parent: it starts and ends them as ever, by their pids. Scopes hold them.
A worker is its site's by what nobody can forge: its user, and the cgroup that it was born in.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from agent.layout.attached import Adoptable, Attached
from fleet.model import SiteId

ROUND_S = 2.0  # how long a new worker runs uncapped at most; a look at the master's cgroup costs far less than a worker
MOST = 500  # processes of one site in one round; a fork bomb's others wait for the next, which its tasks' cap holds
TITLE = "php-fpm: pool "  # what a worker calls itself. Source: php-src, sapi/fpm/fpm/fpm_children.c
INIT = 1


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """One site's adoption, as its host keeps it. Not `held`: it was asked for, and has not succeeded yet.

    `trouble`: what stands in the way now, for people; "": nothing.
    """

    slice: str
    unit: str
    held: bool = True
    trouble: str = ""


Wishes = Mapping[SiteId, bool]
"""What people said of single sites; of the others the host's configuration counts."""


@dataclass(frozen=True, slots=True)
class Kin:
    """One process; `title` is what it calls itself."""

    pid: int
    uid: int
    parent: int
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is of one site's pool. `master`: the pid; None: it does not run.

    `outside`: who runs in the master's own cgroup. `inside`: who runs in the site's scope, looked at only without a
    master; None: there is no such scope. `is_frozen`: its slice stands still.
    """

    master: int | None
    outside: tuple[Kin, ...] = ()
    inside: tuple[Kin, ...] | None = None
    is_frozen: bool = False


@dataclass(frozen=True, slots=True)
class Begin:
    """Make the scope, in `slice`, of these processes; it ends when the service that they come from does."""

    scope: str
    slice: str
    unit: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Take:
    """Move these processes into the scope."""

    scope: str
    pids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class End:
    """End the scope with all that is in it: workers whose master is dead, who would keep a new one from its sockets."""

    scope: str


Step = Begin | Take | End


def scope_of(site: SiteId) -> str:
    return f"relevo-pool-{site}.scope"


def wanted(
    attached: Mapping[SiteId, Attached], wishes: Wishes, *, everywhere: bool
) -> dict[SiteId, Adoptable]:
    """Whose workers are to be adopted: of those whose can be, who was asked for, or all."""
    return {
        site: one.adoptable
        for site, one in attached.items()
        if one.adoptable is not None and wishes.get(site, everywhere)
    }


def steps(site: SiteId, of: Adoptable, seen: Seen) -> tuple[Step, ...]:
    """From where its processes are to where they should be. Where anything looks odd they stay.

    What a process has started before it was adopted is its site's too, and follows once there is a scope.
    """
    if seen.is_frozen:  # what comes in stands still too, and systemd 252 waits for it
        return ()
    scope = scope_of(site)
    if seen.master is None:
        return (End(scope),) if are_orphans(seen.inside) else ()
    mine = [kin for kin in seen.outside if kin.uid in of.uids and kin.pid != seen.master]
    workers = tuple(kin.pid for kin in mine if kin.parent == seen.master)[:MOST]
    others = tuple(kin.pid for kin in mine if kin.parent != seen.master)[:MOST]
    if seen.inside is None:
        return (Begin(scope, of.slice, of.unit, workers),) if workers else ()
    # One pid that is gone by then may fail a whole call: the short-lived ones go apart.
    return tuple(Take(scope, pids) for pids in (workers, others) if pids)


def are_orphans(inside: tuple[Kin, ...] | None) -> bool:
    """Whether the workers in a scope have outlived their master: init is the parent of every one."""
    workers = [kin for kin in inside or () if kin.title.startswith(TITLE)]
    return bool(workers) and all(kin.parent == INIT for kin in workers)
