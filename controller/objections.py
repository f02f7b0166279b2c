"""What stands in the way of a change of the fleet, unless a person says that they know: pure, the gravest first."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from failover import dns
from failover.policy import Policy
from fleet.diff import Changes, tombstone
from fleet.model import Fleet, HostId, SiteId, Why, ZoneIntent, ZoneName

REMOVALS_ALLOWED = 5  # hosts, or sites, that one fleet file may drop without saying that it knows
NAMED_MOST = 5  # things that one sentence names


@dataclass(frozen=True, slots=True)
class Words:
    """What a person knows and says: `remove` lets things go, `much` lets many go, or many DNS names change.

    `keep`: plans that are new, or made stricter, hold at once wherever caps do.
    """

    remove: bool = False
    much: bool = False
    keep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """How things are beside what is declared: where sites are served, edges out of DNS, what each zone should say."""

    serving: Mapping[SiteId, HostId]
    withdrawn: Collection[HostId]
    zones: Mapping[ZoneName, ZoneIntent]


def objections(
    old: Fleet, new: Fleet, changes: Changes, words: Words, scene: Scene, policy: Policy
) -> Iterator[Why]:
    """Everything against making `old` the fleet `new`, for which `words` are not enough."""
    if why := still_serving(new, scene.serving):
        yield why
    if not words.remove and (why := _removals(old, new, changes)):
        yield why
    if not words.much:
        yield from _many_removals(old, changes)
        yield from _many_names(new, scene, policy)


def still_serving(fleet: Fleet, serving: Mapping[SiteId, HostId]) -> Why | None:
    """No host goes that serves a site which stays, whatever is said."""
    stuck = [
        (host, site)
        for site, host in serving.items()
        if site in fleet.sites and host not in fleet.hosts
    ]
    if not stuck:
        return None
    host, site = min(stuck)
    count = sum(other == host for other, _ in stuck)
    return Why("host-still-serves", {"host": host, "site": site, "count": count})


def named(places: Iterable[str]) -> str:
    """The first few of them."""
    found = list(places)
    return ", ".join(found[:NAMED_MOST]) + (", …" if len(found) > NAMED_MOST else "")


def _removals(old: Fleet, new: Fleet, changes: Changes) -> Why | None:
    """Removing wants a word of its own: items, and domains that no site has any more."""
    gone = [f"{c.kind}.{c.id}" for c in changes.changes if c.what == "removed"]
    left = {d for id, site in old.sites.items() if id in new.sites for d in site.domains}
    gone += sorted(left.intersection(tombstone(old, new).domains))
    if not gone:
        return None
    return Why("fleet-removes", {"removed": len(gone), "names": named(gone)})


def _many_removals(fleet: Fleet, changes: Changes) -> Iterator[Why]:
    """A file that was cut short must not remove half a co-op: past a tenth the order must say that it knows."""
    for kind, declared in (("hosts", len(fleet.hosts)), ("sites", len(fleet.sites))):
        removed = sum(c.kind == kind and c.what == "removed" for c in changes.changes)
        allowed = max(REMOVALS_ALLOWED, declared // 10)
        if removed > allowed:
            values: dict[str, str | int | float] = {
                "removed": removed,
                "kind": kind,
                "of": declared,
                "allowed": allowed,
            }
            yield Why("fleet-too-many-removed", values)


def _many_names(fleet: Fleet, scene: Scene, policy: Policy) -> Iterator[Why]:
    """Past the change limit a human decides (rule R10): the order must say that it knows."""
    wanted = dns.intents(fleet, scene.serving, frozenset(scene.withdrawn), scene.zones)
    for name, intent in wanted.items():
        if (before := scene.zones.get(name)) is not None:
            why = dns.too_much(fleet.zones[name], before, intent, policy)
            if why is not None:
                yield why
