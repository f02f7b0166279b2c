"""What is held of sites that are not seen where they were, or that nobody speaks of any more: it stays."""

from pathlib import Path

import pytest

from agent.caps import keeper as keeping
from agent.caps import stops as stopping
from agent.caps.limits import FREE
from agent.layout.attached import Adoptable, Attached
from fleet.caps import Attachment, Level
from fleet.messages import Orders
from fleet.model import Why
from runtime.pulse import Pulse
from tests.unit.test_caps_keeper import (
    NEWS,
    ONE,
    PLAN,
    SHOP,
    UNIT,
    Kernel,
    attached,
    changed,
    keeping_house,
    orders,
    penalty_of,
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "FREEZE_S", 0.05)
    monkeypatch.setattr(keeping, "RETRY_S", 0.05)


APART = "site-shop.slice"


def hacked() -> Kernel:
    """A site in a slice of its own."""
    return Kernel(Pulse(), there={APART}, runs={APART: (UNIT,)})


NOT_SERVED = Attached(attachment=Attachment.NONE, why=Why("layout-not-served"))
IN_A_POOL = Attached(
    attachment=Attachment.POOL,
    why=Why("layout-pool"),
    uids=(1001,),
    adoptable=Adoptable(uids=(1001,), main="m", cgroup="c", unit="u.service", slice=APART),
)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("seen", [NOT_SERVED, attached(None, 1001), IN_A_POOL])
async def test_a_penalty_ends_with_its_term_and_not_with_the_web_servers_configuration(
    tmp_path: Path, seen: Attached
) -> None:
    """An admin's a2dissite, a master that was ended and so is not seen: a stop holds where it held, then it starts."""
    async with keeping_house(tmp_path, kernel=hacked()) as host:
        host.keeper.attach({SHOP: attached(APART, 1001)})
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.STOP),))
        await host.until(lambda: host.kernel.events == [f"kill {APART}"])
        host.keeper.attach({SHOP: seen})
        host.kernel.runs[APART] = (UNIT,)  # a boot, or an upgrade
        await host.until(lambda: host.kernel.events == [f"kill {APART}"] * 2)
        await host.settled()
        assert host.held(APART).egress_closed and host.held(APART).cpu_quota_us is not None
        assert host.wall.rules[-1].isolated == frozenset({1001})
        kept = host.keeper.state()[SHOP]
        assert kept.slice == "" and APART in {one.slice for one in kept.beside}, "it may run apart"
        host.keeper.penalize(())
        await host.until(lambda: host.kernel.events[2:] == [f"start {UNIT}"])
        assert host.wall.rules[-1].isolated == frozenset()


async def test_a_slice_that_was_adopted_into_is_let_go_with_the_adoption(tmp_path: Path) -> None:
    """Its workers are in the shared php-fpm's cgroup again; a site that is seen in another slice has left too."""
    async with keeping_house(tmp_path, kernel=hacked()) as host:
        for seen in (IN_A_POOL, attached("other.slice", 1001)):
            host.keeper.attach({SHOP: attached(APART, 1001)})
            host.keeper.follow(orders())
            await host.until(lambda: host.held(APART).cpu_quota_us == PLAN)
            host.keeper.attach({SHOP: seen})
            await host.until(lambda: host.held(APART) == FREE)


@pytest.mark.usefixtures("quick")
async def test_a_stopped_site_of_which_nobody_speaks_is_not_started(tmp_path: Path) -> None:
    """Rule R7: it moved away, while it was stopped; here nothing of it is lifted, its users' slices neither."""
    async with keeping_house(tmp_path, kernel=hacked()) as host:
        host.kernel.there.add(ONE)  # its user has logged in
        host.keeper.attach({SHOP: attached(APART, 1001)})
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.STOP),))
        await host.until(lambda: {*host.kernel.events} == {f"kill {APART}", f"kill {ONE}"})
        await host.until(lambda: not host.held(APART).frozen and not host.held(ONE).frozen)
        before = host.held(APART), host.held(ONE)
        assert all(one.egress_closed for one in before)
        host.keeper.follow(orders(news=orders().tenants[NEWS]))
        host.keeper.penalize((changed(penalty_of(SHOP, Level.STOP), enforced=False),))
        for seen in (attached(APART, 1001), None):  # as it was seen last, then not looked for
            host.keeper.attach({SHOP: seen} if seen else {})
            await host.settled()
            assert (host.held(APART), host.held(ONE)) == before
            assert len(host.kernel.events) == 2
        host.keeper.follow(changed(orders(news=orders().tenants[NEWS]), removed_sites=(SHOP,)))
        await host.until(lambda: host.held(APART) == host.held(ONE) == FREE)
        assert f"start {UNIT}" in host.kernel.events


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "said", [changed(orders(), plans={}), changed(orders(), tenants={}, sites=(SHOP,))]
)
async def test_a_stop_ends_with_its_term_where_orders_say_too_little_of_a_site(
    tmp_path: Path, said: Orders
) -> None:
    """An unknown plan, or an older controller: the site is here, so it starts; its plan is what stays held of it."""
    async with keeping_house(tmp_path, kernel=hacked()) as host:
        host.kernel.there.add(ONE)
        host.keeper.attach({SHOP: attached(APART, 1001)})
        host.keeper.follow(orders())
        await host.until(lambda: host.held(APART).cpu_quota_us == PLAN)
        await host.until(lambda: host.held(ONE).cpu_quota_us == PLAN)
        plan = host.held(APART), host.held(ONE)
        host.keeper.penalize((penalty_of(SHOP, Level.STOP),))
        await host.until(lambda: {*host.kernel.events} == {f"kill {APART}", f"kill {ONE}"})
        await host.until(lambda: not host.held(APART).frozen and not host.held(ONE).frozen)
        before = host.held(APART), host.held(ONE)
        host.keeper.follow(said)
        host.keeper.penalize((changed(penalty_of(SHOP, Level.STOP), enforced=False),))
        await host.settled()
        assert len(host.kernel.events) == 2
        assert (host.held(APART), host.held(ONE)) == before
        host.now = 200.0
        await host.until(lambda: f"start {UNIT}" in host.kernel.events)
        await host.until(lambda: (host.held(APART), host.held(ONE)) == plan)


@pytest.mark.parametrize(
    "said",
    [
        changed(orders(), plans={}),
        changed(orders(), tenants={}, sites=(SHOP,)),
        changed(orders(), tenants={}),
    ],
)
async def test_a_penalty_ends_where_nobody_speaks_of_its_site(tmp_path: Path, said: Orders) -> None:
    """Rules R7 and R11, through a restart too: what its plan holds stays, what the penalty took is given back."""
    cap = changed(penalty_of(SHOP, Level.CAP), share=0.5)
    kernel = hacked()
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach({SHOP: attached(APART, 1001)})
        host.keeper.follow(orders())
        await host.until(lambda: host.held(APART).cpu_quota_us == PLAN)
        plan = host.held(APART)
        host.keeper.penalize((cap,))
        await host.until(lambda: host.held(APART).cpu_quota_us == PLAN / 2)
        capped = host.held(APART)
        host.keeper.follow(said)
        host.keeper.penalize((changed(cap, enforced=False),))
        await host.settled()
        assert host.held(APART) == capped
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach({})
        host.keeper.follow(said)
        await host.settled()
        assert host.held(APART) == capped, "for as long as it was decided"
        host.now = 200.0
        await host.until(lambda: host.held(APART) == plan)
        await host.settled()
        assert host.held(APART) == plan


async def test_of_a_site_that_was_penalized_in_shadow_by_a_person_nothing_stays(
    tmp_path: Path,
) -> None:
    """Nothing but the penalty was held: at its end the slice is nobody's business any more."""
    person = changed(penalty_of(SHOP, Level.CAP), share=0.5, owner="ana")
    async with keeping_house(tmp_path, kernel=hacked()) as host:
        host.keeper.attach({SHOP: attached(APART, 1001)})
        host.keeper.follow(orders(None))
        host.keeper.penalize((person,))
        await host.until(lambda: host.held(APART).cpu_quota_us == PLAN / 2)
        host.keeper.follow(changed(orders(), tenants={}))
        host.now = 200.0
        await host.until(lambda: host.held(APART) == FREE)
        await host.until(lambda: APART not in (tmp_path / "caps.json").read_text())
