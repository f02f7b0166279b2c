"""A plan that became stricter than it was armed: its host and the edges hold what was armed, and measure the rest."""

import pytest
from msgspec.structs import replace

from agent.caps import quota
from agent.caps.limits import HostFacts
from agent.caps.wants import World, next_change_s, shares
from agent.isolate.house import House
from agent.layout.attached import Attached
from agent.usage.ledger import terms
from deploy.demo.plans import PLANS
from failover.limits import edge_limits, in_force
from fleet.caps import Attachment, Held, Override, Tenant
from fleet.messages import Orders
from fleet.model import Epoch, HostId, Note, PlanId, SiteId, Why

SHOP = SiteId("shop")
STANDARD = PlanId("standard")
CAPS = PLANS[STANDARD].caps
# 200 tasks and 4 GiB were armed at 10; from 20 on the plan's own 120 and 1 GiB hold.
HELD = (Held(since=10.0, caps={"tasks": 200, "memory_max_bytes": 4 << 30}), Held(since=20.0))
TENANT = Tenant(plan=STANDARD, users=("shop",), enforced_from=10.0, held=HELD)
SLICE = "user-1001.slice"


def world(now: float, tenant: Tenant = TENANT) -> World:
    orders = Orders(
        epoch=Epoch(1, 1),
        cluster="c",
        host=HostId("h1"),
        plans={id: plan.caps for id, plan in PLANS.items()},
        tenants={SHOP: tenant},
    )
    attached = Attached(attachment=Attachment.SLICE, why=Why("x"), slice=SLICE, uids=(1001,))
    return World(
        orders=orders,
        attached={SHOP: attached},
        people={"shop": 1001},
        penalties=(),
        facts=HostFacts(cores=8, memory_total_bytes=64 << 30, has_swap=True),
        now=now,
    )


@pytest.mark.parametrize(
    ("now", "tasks", "code"), [(11.0, 200, "cap-as-armed"), (21.0, 120, "cap-plan")]
)
def test_a_host_holds_what_was_armed_and_says_so(now: float, tasks: int, code: str) -> None:
    """Of each cap that its plan has made stricter; the others are the plan's, and from its date all are."""
    wanted = shares(world(now))[SLICE].wanted
    assert wanted.limits.tasks_max == tasks
    assert wanted.because["tasks_max"].code == code
    assert wanted.because["memory_high_bytes"].code == code
    assert wanted.because["cpu_weight"].code == "cap-plan"


def test_an_override_stands_above_what_was_armed() -> None:
    """It is the reason then; what it leaves alone is as it was armed."""
    note = Note(owner="ana", reason="a campaign", since=0.0, until=99.0)
    lent = replace(TENANT, override=Override(caps={"tasks": 300}, note=note))
    wanted = shares(world(11.0, lent))[SLICE].wanted
    assert (wanted.limits.tasks_max, wanted.because["tasks_max"].code) == (300, "cap-override")
    assert wanted.limits.memory_max_bytes == 4 << 30
    assert wanted.because["memory_max_bytes"].code == "cap-as-armed"


def test_a_host_wakes_when_the_plan_s_own_numbers_begin() -> None:
    """Its kernel and its file systems."""
    assert next_change_s(world(11.0)) == pytest.approx(9.0)
    assert [*TENANT.turns()] == [10.0, 10.0, 20.0]


def test_what_is_stricter_is_measured_as_in_shadow() -> None:
    """Against the plan as it is, for as long as something looser holds in its place."""
    plans = {id: plan.caps for id, plan in PLANS.items()}
    found = [terms(plans, {SHOP: TENANT}, (), now).shadowed for now in (11.0, 21.0)]
    assert found == [{SHOP: CAPS}, {}]


def test_a_site_s_part_is_by_what_holds_it() -> None:
    """Who is above its plan is judged by the numbers that were armed."""
    house = House(plans={STANDARD: CAPS}, tenants={SHOP: TENANT}, rulings={})
    assert [house.caps(now)[SHOP].tasks for now in (11.0, 21.0)] == [200, 120]


def test_the_edges_hold_what_was_armed_until_its_date() -> None:
    """Step by step in time, as all that they hold."""
    held = (Held(since=10.0, caps={"in_flight": 99}), Held(since=20.0))
    steps = edge_limits(CAPS, enforced_from=10.0, held=held)
    found = [
        (step.in_flight if step else None) for step in (in_force(steps, t) for t in (9, 11, 21))
    ]
    assert found == [None, 99, CAPS.in_flight]


def test_a_quota_says_that_it_is_as_it_was_armed() -> None:
    """Of disk and of files, each by itself."""
    held = (Held(since=10.0, caps={"disk_bytes": 99 << 30}),)
    of = quota.World(
        orders=world(11.0, replace(TENANT, held=held)).orders,
        attached={},
        people={},
        now=11.0,
        mounts={},
    )
    because = quota._because(of, [of.orders.tenants[SHOP]])
    assert {name: why.code for name, why in because.items()} == {"disk_bytes": "cap-as-armed"}
