"""Whatever a host held, and whatever is said of its sites: what nobody speaks of is not changed, and all comes back."""

from dataclasses import dataclass, field

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.caps.aims import HELPED, Aim, laid, noted, unseen
from agent.caps.before import STRICTER
from agent.caps.kernel import only, unlike
from agent.caps.limits import FREE, HostFacts
from agent.caps.ours import Ours, booted
from agent.caps.reckon import differing, reckon
from agent.caps.steps import InUse, in_steps
from agent.caps.wants import World
from agent.layout.attached import Attached
from fleet.caps import Attachment, IoLimit, Level, Limits, Penalty, Resource, Tenant
from fleet.messages import Orders
from fleet.model import Epoch, HostId, PlanId, SiteId, Why
from tests.unit.test_caps_limits import GB, MB, STANDARD, penalty

SHOP, SLICE, ABOVE = SiteId("shop"), "site-shop.slice", "site.slice"
changed = msgspec.structs.replace


def numbers(*some: int) -> st.SearchStrategy[int | None]:
    return st.sampled_from((None, *some))


disks = st.sampled_from(
    [
        IoLimit(read_bytes_per_s=r, write_bytes_per_s=MB, read_ops_per_s=10, write_ops_per_s=10**6)
        for r in (MB, 99 * MB)
    ]
)
holdings = st.builds(
    Limits,
    cpu_weight=st.sampled_from((10, 50, 100, 300)),
    cpu_quota_us=numbers(100_000, 9_000_000),
    memory_high_bytes=numbers(100 * MB, 8 * GB),
    memory_max_bytes=numbers(100 * MB, 8 * GB),
    memory_low_bytes=st.sampled_from((0, 10 * MB, GB)),
    swap_max_bytes=numbers(0, GB),
    tasks_max=numbers(20, 10_813),
    io=st.dictionaries(st.sampled_from(["8:0", "8:16"]), disks),
    io_weight=st.sampled_from((100, 300)),
    egress_closed=st.booleans(),
    frozen=st.booleans(),
)
hosts = st.builds(
    HostFacts,
    cores=st.just(16.0),
    memory_total_bytes=st.just(64 * GB),
    controllers=st.just(frozenset({"cpu", "memory", "io", "pids"})),
    devices=st.sampled_from([(), ("8:0",)]),
    has_swap=st.booleans(),
    has_io_weight=st.booleans(),
)


def by(level: Level, resource: Resource, share: float, owner: str) -> Penalty:
    return changed(penalty(level, resource, share), owner=owner)


penalties = st.builds(
    by,
    st.sampled_from(list(Level)),
    st.sampled_from(list(Resource)),
    st.sampled_from((0.25, 0.5, 1.0)),
    st.sampled_from(("ana", "relevo")),
)


@dataclass(frozen=True)
class Said:
    """Of one round: whether caps are in force, which penalties stand, and whether there is such a slice then.

    `knows`: orders name the site. `used`: its memory, of which half are pages of files. `boots`: before it, as another
    host.
    """

    armed: bool = False
    penalties: tuple[Penalty, ...] = ()
    there: bool = True
    knows: bool = True
    used: int = 0
    boots: bool = False


rounds = st.lists(
    st.builds(
        Said,
        armed=st.booleans(),
        penalties=st.lists(penalties, max_size=2).map(tuple),
        there=st.booleans(),
        knows=st.sampled_from((True, True, True, False)),
        used=st.sampled_from((0, 0, 0, 500 * MB, 3 * GB)),
        boots=st.sampled_from((False, False, True)),
    ),
    min_size=2,
    max_size=6,
)


@dataclass
class House:
    """A host's own limits, what was set at run time above them, and what is ours of it."""

    own: dict[str, Limits]
    facts: HostFacts
    set: dict[str, dict[str, object]] = field(default_factory=lambda: {SLICE: {}, ABOVE: {}})
    ours: dict[str, Ours] = field(default_factory=dict)
    boots: int = 0

    def boot(self, own: Limits) -> None:
        """What was set at run time is gone, and the site's slice has another admin's limits."""
        self.own[SLICE], self.set = own, {SLICE: {}, ABOVE: {}}
        self.boots += 1
        self.ours = {name: booted(mine, str(self.boots)) for name, mine in self.ours.items()}

    def held(self, name: str) -> Limits:
        return changed(self.own[name], **self.set[name])

    def world(self, said: Said) -> World:
        tenant = Tenant(plan=PlanId("standard"), enforced_from=0.0 if said.armed else None)
        orders = Orders(
            epoch=Epoch(1, 1),
            cluster="c",
            host=HostId("h1"),
            plans={PlanId("standard"): STANDARD},
            tenants={SHOP: tenant} if said.knows else {},
        )
        attached = Attached(attachment=Attachment.SLICE, why=Why("x"), slice=SLICE)
        return World(
            orders=orders,
            attached={SHOP: attached},
            people={},
            penalties=said.penalties,
            facts=self.facts,
            now=100.0,
        )

    def round(self, said: Said) -> dict[str, Aim]:
        """As the keeper's, where nothing fails; written and read as its file is."""
        held = {name: self.held(name) for name in self.own if said.there or name == ABOVE}
        aims = reckon(self.world(said), self.ours, None).aims
        new = {
            name: Ours(sites=(), limits=FREE, fields=(), was=self.own[name])
            for name in unseen(aims, held, self.ours)
        }
        aims = laid(aims, held, {**self.ours, **new})
        used = InUse(all_bytes=said.used, file_bytes=said.used // 2)
        for name, aim in aims.items():
            step = in_steps(aim.limits, used if name in held else None, held.get(name))
            self.set[name] |= {each: getattr(step, each) for each in aim.fields}
        wrong = differing(aims, {name: self.held(name) for name in held})
        assert not wrong or said.used
        stays = {name: aim for name, aim in aims.items() if not aim.release or name in wrong}
        kept = noted(stays, self.ours, str(self.boots))
        self.ours = msgspec.json.decode(msgspec.json.encode(kept), type=dict[str, Ours])
        return aims


def loosened(own: Limits, now: Limits) -> set[str]:
    """The fields in which `now` is no stricter than both together."""
    return {
        name
        for name, stricter in STRICTER.items()
        if stricter(getattr(own, name), getattr(now, name)) != getattr(now, name)
    }


@settings(max_examples=150)
@given(own=holdings, other=holdings, above=holdings, facts=hosts, said=rounds)
def test_what_nobody_speaks_of_is_never_changed_and_all_comes_back(
    own: Limits, other: Limits, above: Limits, facts: HostFacts, said: list[Said]
) -> None:
    """Armed, in shadow, squeezed, released, forgotten by the orders, there or not, through boots: nothing looser in
    shadow, ever."""
    house = House({SLICE: own, ABOVE: above}, facts)
    for each in said:
        if each.boots:
            own, other = other, own
            house.boot(own)
        aim = house.round(each).get(SLICE)
        ours = frozenset[str]() if aim is None else aim.fields if each.used else aim.says | HELPED
        now = house.held(SLICE)
        assert unlike(own, now) <= ours
        assert all(now.io.get(disk) == own.io[disk] for disk in own.io.keys() - facts.devices)
        if not each.armed and each.knows and not each.used:
            assert loosened(own, now) == set()
        assert only(house.held(ABOVE), ("memory_low_bytes",), above) == house.held(ABOVE)
        assert house.held(ABOVE).memory_low_bytes >= above.memory_low_bytes
    for there in (said[-1].there, True):
        house.round(Said(there=there))
    assert (house.held(SLICE), house.held(ABOVE)) == (own, above)
    assert house.ours == {}
