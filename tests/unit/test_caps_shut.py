"""Whom the firewall is closed to stays so, whoever is not spoken of any more; a disk that refuses changes nothing."""

from pathlib import Path

from agent.caps.egress import Rules
from fleet.caps import Level
from tests.unit.test_caps_keeper import (
    BOTH,
    NEWS,
    PLAN,
    SHOP,
    attached,
    changed,
    keeping_house,
    orders,
    penalty_of,
)


async def test_the_firewall_forgets_nobody_of_whom_nobody_speaks(tmp_path: Path) -> None:
    """Rule R7, through a restart too: until a site is told to be removed, or has a tenant here again."""
    async with keeping_house(tmp_path) as host:
        host.keeper.attach({SHOP: attached(None, 1001), NEWS: attached(None, 1002)})
        host.keeper.follow(orders())
        host.keeper.penalize((penalty_of(SHOP, Level.ISOLATE),))
        shut = Rules(sites=frozenset({1001, 1002}), isolated=frozenset({1001}))
        await host.until(lambda: host.wall.rules[-1:] == [shut])
        await host.until((tmp_path / "outward.json").exists)
        host.keeper.follow(changed(orders(), tenants={}))  # as an older controller's are
        host.keeper.penalize((changed(penalty_of(SHOP, Level.ISOLATE), enforced=False),))
        await host.settled()
        assert host.wall.rules[-1] == shut
    async with keeping_house(tmp_path) as host:
        host.keeper.follow(changed(orders(), tenants={}))
        await host.until(lambda: host.wall.rules == [shut])
        host.now = 200.0  # the isolation ends (rule R11); the plan's word on mail does not
        await host.until(lambda: host.wall.rules[1:] == [Rules(sites=frozenset({1001, 1002}))])
        host.keeper.follow(changed(orders(), tenants={}, removed_sites=(SHOP,)))
        await host.until(lambda: host.wall.rules[-1] == Rules(sites=frozenset({1002})))
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.wall.rules[-1] == Rules())


async def test_an_isolation_of_which_nobody_knows_the_end_ends_within_a_day(tmp_path: Path) -> None:
    """As an earlier release kept it, without its end."""
    (tmp_path / "outward.json").write_text('{"shop": {"mail": ["shop"], "isolated": ["shop"]}}')
    async with keeping_house(tmp_path) as host:
        host.keeper.follow(changed(orders(), tenants={}))
        shut = Rules(sites=frozenset({1001}), isolated=frozenset({1001}))
        await host.until(lambda: host.wall.rules == [shut])
        host.now = 100.0 + 86_399
        await host.settled()
        assert host.wall.rules == [shut]
        host.now += 1
        await host.until(lambda: host.wall.rules[1:] == [Rules(sites=frozenset({1001}))])


async def test_what_the_firewall_holds_that_cannot_be_kept_is_held_all_the_same(
    tmp_path: Path,
) -> None:
    """A disk that refuses, or a file that is none, holds up no rule."""
    (tmp_path / "outward.json").mkdir()
    async with keeping_house(tmp_path) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.wall.rules == [Rules(sites=frozenset({1001, 1002}))])
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        host.keeper.follow(changed(orders(), tenants={}))
        await host.settled()
        assert host.wall.rules == [Rules(sites=frozenset({1001, 1002}))]
