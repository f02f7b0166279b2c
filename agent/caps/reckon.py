"""What the keeper works out of all slices at once, from values that nobody changes: also for a thread. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.caps.aims import Aim, aims_of
from agent.caps.egress import Rules
from agent.caps.kernel import comparable, unlike
from agent.caps.ours import Ours
from agent.caps.outward import Closing, closing, open_to
from agent.caps.shut import Shut
from agent.caps.telling import Kept, company, joined, tell, unlimited, waiting
from agent.caps.wants import World, next_change_s, shares
from fleet.caps import Limits
from fleet.model import SiteId, Why


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewalled:
    """Beside which firewall, that was closed to `shut`. `holds`: it does what it is told."""

    servers: Rules
    shut: Mapping[SiteId, Shut]
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reckoned:
    """What follows from one look at the world.

    `known`: the slices that were ours. `adopted`: those with workers of a shared php-fpm. `beyond`: what no slice holds
    of a site, and why. `change_s`: how long until it is another world by itself.
    """

    aims: Mapping[str, Aim]
    known: Mapping[str, Ours]
    adopted: frozenset[str | None]
    company: Mapping[SiteId, frozenset[SiteId]]
    beyond: Mapping[SiteId, tuple[Why, ...]]
    closing: Closing | None
    change_s: float


def reckon(world: World, known: Mapping[str, Ours], firewall: Firewalled | None) -> Reckoned:
    shared = shares(world, known)
    is_open = open_to(world) if firewall is not None and firewall.holds else {}
    return Reckoned(
        aims=aims_of(world, shared, known),
        known=known,
        adopted=frozenset(each.slice for each in world.attached.values() if each.adopted),
        company=company(shared),
        beyond=joined(waiting(shared), unlimited(shared, world.facts), is_open),
        closing=closing(world, firewall.servers, firewall.shut) if firewall is not None else None,
        change_s=next_change_s(world),
    )


def differing(aims: Mapping[str, Aim], held: Mapping[str, Limits]) -> dict[str, frozenset[str]]:
    """In which fields of ours slices that are there hold something else, by name; those that don't are not in it."""
    found = {
        name: unlike(aim.limits, comparable(aim.limits, now)) & aim.fields
        for name, aim in aims.items()
        if (now := held.get(name)) is not None
    }
    return {name: fields for name, fields in found.items() if fields}


def told(
    aims: Mapping[str, Aim],
    held: Mapping[str, Limits],
    short: Mapping[str, tuple[Why, ...]],
    beyond: Mapping[SiteId, tuple[Why, ...]],
    before: Mapping[SiteId, Kept],
) -> Mapping[SiteId, Kept]:
    """As `tell`; `before` itself where nothing has changed."""
    now = tell(aims, held, short, beyond)
    return before if now == before else now
