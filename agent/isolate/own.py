"""Who waits for a limit of its own, by its plan or by a penalty: that is no contention, and it is nobody's victim."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from agent.isolate.house import House
from agent.isolate.state import Record
from agent.signals import SiteSigns
from fleet.caps import Level, Resource
from fleet.model import Caps, SiteId

# From SOFT on, whatever it is held for, it goes last for these: agent.caps.limits.
LAST = frozenset({Resource.CPU, Resource.IO})
NOTHING: Mapping[SiteId, Collection[Resource]] = MappingProxyType({})
THROTTLED = 0.1  # of its time by its own quota: what such a site waits for is itself
# Of what it may read or write: a reading is a mean, and half of it spent at the limit is enough to wait there.
NEAR = 0.5
# Of SiteSigns, and the cap that holds it.
ON_DISKS = (
    ("read_bytes_per_s", "read_bytes_per_s"),
    ("write_bytes_per_s", "write_bytes_per_s"),
    ("read_ops_per_s", "read_iops"),
    ("write_ops_per_s", "write_iops"),
)


class Own:
    """The limits that hold the sites of one host; a site's plan is looked up where it is asked for."""

    def __init__(
        self,
        records: Mapping[SiteId, Record],
        house: House,
        wall: float,
        taken: Mapping[SiteId, Collection[Resource]] = NOTHING,
    ) -> None:
        """`taken`: what people take half of."""
        self._records, self._house, self._wall, self._taken = records, house, wall, taken

    def waits(self, site: SiteId, signs: SiteSigns, resource: Resource) -> bool:
        """Whether what `site` waits for `resource` may be a limit of its own."""
        if resource in self._held(site):
            return True
        if resource is Resource.CPU:
            return is_throttled(signs)
        if resource is Resource.MEMORY:
            return bool(signs.memory_high_hits or signs.memory_max_hits)
        if resource is not Resource.IO or not signs.io_stall:
            return False
        caps = self._house.caps_of(site, self._wall)
        return caps is not None and is_near(signs, caps)

    def is_held(self, site: SiteId) -> bool:
        """Whether a penalty holds `site`, by relevo's decision or by a person's word."""
        return bool(self._held(site))

    def _held(self, site: SiteId) -> frozenset[Resource]:
        """What a penalty makes it wait for; a person's word stands in the place of relevo's."""
        ruling = self._house.ruling(site, self._wall)
        if ruling is not None and ruling.word == "quarantine":
            if ruling.level < Level.SOFT:
                return frozenset()
            return LAST.union(self._taken.get(site, ()))
        record = self._records.get(site)
        step = record.step if record else None
        if step is None or step.level < Level.SOFT or not step.enforced:
            return frozenset()
        if not self._house.enforced(site, self._wall):
            return frozenset()
        return LAST.union((step.resource, *step.also))


def is_throttled(signs: SiteSigns) -> bool:
    """Whether its own quota of CPU time holds it."""
    return (signs.throttled_ratio or 0.0) > THROTTLED


def is_near(signs: SiteSigns, caps: Caps) -> bool:
    """Whether it reads or writes about what its plan allows on one disk."""
    rates = ((signs.on_busiest_disk(which), getattr(caps, cap)) for which, cap in ON_DISKS)
    return any(rate is not None and rate >= NEAR * most for rate, most in rates)
