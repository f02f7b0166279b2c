"""The six kinds of things a fleet declares, so that reading, comparing and storing treat them alike."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from fleet.model import Fleet, Host, Location, Member, Plan, Site, Zone

Item = Location | Host | Plan | Member | Site | Zone

# In the order of a fleet file: what is referred to comes before what refers to it.
KINDS: Mapping[str, type[Item]] = MappingProxyType(
    {
        "locations": Location,
        "hosts": Host,
        "plans": Plan,
        "members": Member,
        "sites": Site,
        "zones": Zone,
    }
)


def id_field(kind: str) -> str:
    """The field that holds an item's key."""
    return "name" if kind == "zones" else "id"


def id_of(item: Item) -> str:
    return item.name if isinstance(item, Zone) else item.id


def items(fleet: Fleet, kind: str) -> Mapping[str, Item]:
    return cast(Mapping[str, Item], getattr(fleet, kind))


def assemble(parts: Mapping[str, Mapping[str, Item]]) -> Fleet:
    """A fleet of `parts`, by kind and id; a kind left out is empty."""
    locations, hosts, plans, members, sites, zones = (dict(parts.get(kind, {})) for kind in KINDS)
    return Fleet(
        locations=cast(dict, locations),  # type: ignore[type-arg]  # the kind fixes the types
        hosts=cast(dict, hosts),  # type: ignore[type-arg]
        plans=cast(dict, plans),  # type: ignore[type-arg]
        members=cast(dict, members),  # type: ignore[type-arg]
        sites=cast(dict, sites),  # type: ignore[type-arg]
        zones=cast(dict, zones),  # type: ignore[type-arg]
    )
