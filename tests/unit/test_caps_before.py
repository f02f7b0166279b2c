"""What a host held of a slice before relevo came: what nobody speaks of stays, and the rest is given back."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from agent.caps.aims import Aim, noted
from agent.caps.driver import EVERY
from agent.caps.limits import FREE
from agent.caps.ours import Memory, read
from agent.caps.telling import OWN
from fleet.caps import IoLimit, Level, Limits, Tenant
from fleet.model import PlanId, Why
from runtime.pulse import Pulse
from runtime.words import explain
from tests.unit.test_caps_keeper import (
    BOTH,
    FACTS,
    ONE,
    PLAN,
    SHOP,
    TWO,
    Kernel,
    attached,
    changed,
    keeping_house,
    orders,
    penalty_of,
)
from tests.unit.test_caps_limits import GB, MB, STANDARD

OTHER_DISK = IoLimit(
    read_bytes_per_s=5 * MB, write_bytes_per_s=5 * MB, read_ops_per_s=50, write_ops_per_s=50
)
# Debian's user-.slice.d/10-defaults.conf has TasksMax=33%; the rest is an admin's own.
HOSTS: Limits = changed(
    FREE,
    tasks_max=10_813,
    cpu_quota_us=2_000_000,
    memory_max_bytes=8 * GB,
    swap_max_bytes=GB,
    io={"8:16": OTHER_DISK},
    io_weight=300,
)


def set_up() -> Kernel:
    return Kernel(Pulse(), holds={ONE: HOSTS, TWO: HOSTS})


async def test_a_person_s_word_in_shadow_takes_no_limit_of_the_host_s_away(tmp_path: Path) -> None:
    """A squeeze sets what it is about; the fork bomb that it is for still ends at the host's own number."""
    async with keeping_house(tmp_path, kernel=set_up()) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        host.keeper.penalize((penalty_of(SHOP, Level.SOFT),))
        await host.until(lambda: host.held().cpu_weight == 20)
        await host.settled()
        assert host.held() == changed(HOSTS, cpu_weight=20)
        assert host.held(TWO) == HOSTS
        kept = host.keeper.state()[SHOP]
        assert kept.wanted == kept.held == changed(HOSTS, cpu_weight=20, io_weight=None)
        own = {"cpu_quota_us", "memory_max_bytes", "swap_max_bytes", "tasks_max", "io"}
        assert kept.because == dict.fromkeys(own, OWN) | {"cpu_weight": Why("cap-soft")}
        assert "no plan and no penalty" in explain(OWN)
        host.keeper.penalize(())
        await host.until(lambda: host.held() == HOSTS)


@pytest.mark.parametrize("restarts", [False, True])
async def test_caps_that_go_back_to_shadow_leave_what_was_there_before(
    tmp_path: Path, restarts: bool
) -> None:
    """Armed, the plan holds; then each slice has again what it had, after a restart of the agent too."""
    async with keeping_house(tmp_path, kernel=set_up()) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        assert host.held().tasks_max == STANDARD.tasks
        if not restarts:
            host.keeper.follow(orders(None))
            await host.until(lambda: host.held() == HOSTS and host.held(TWO) == HOSTS)
        kernel = host.kernel
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held() == HOSTS and host.held(TWO) == HOSTS)
        await host.until(lambda: not read(tmp_path / "caps.json")[0])


async def test_who_changes_what_nobody_speaks_of_is_let_be(tmp_path: Path) -> None:
    """An admin's new number is no drift, holds beside ours, and is what stays at the end."""
    async with keeping_house(tmp_path, kernel=set_up()) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        host.keeper.penalize((penalty_of(SHOP, Level.SOFT),))
        await host.until(lambda: host.held().cpu_weight == 20)
        host.kernel.holds[ONE] = changed(host.held(), tasks_max=500, frozen=True)
        host.kernel.reloaded.beat()
        await host.settled()
        assert host.held() == changed(HOSTS, cpu_weight=20, tasks_max=500, frozen=True)
        assert (host.keeper.drift, host.kernel.events) == (0, []), "an admin's freeze is no stop"
        host.kernel.holds[ONE] = changed(host.held(), cpu_weight=77)
        host.kernel.reloaded.beat()
        await host.until(lambda: host.held().cpu_weight == 20)
        await host.until(lambda: host.keeper.drift == 1)
        host.keeper.penalize(())
        await host.until(lambda: host.held() == changed(HOSTS, tasks_max=500, frozen=True))


@pytest.mark.parametrize("there", [True, False])
async def test_after_a_boot_what_the_host_has_then_is_given_back(
    tmp_path: Path, there: bool
) -> None:
    """What was set at run time is gone, and an admin may have changed the host's own files; a restart is no boot."""
    async with keeping_house(tmp_path, kernel=set_up()) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
    own = changed(HOSTS, tasks_max=50, cpu_quota_us=None)
    booted = Kernel(Pulse(), there={ONE, TWO} if there else {TWO}, own={ONE: own})
    booted.holds = {ONE: own, TWO: HOSTS} if there else {TWO: HOSTS}
    memory = Memory(tmp_path / "caps.json", "second")
    assert not memory.knows(ONE, frozenset()), "it is written down before anything is set"
    assert Memory(tmp_path / "caps.json", "first").knows(ONE, frozenset())
    for _ in range(2):
        async with keeping_house(tmp_path, kernel=booted, boot="second") as host:
            host.keeper.attach(BOTH)
            host.keeper.follow(orders())
            await host.until(
                lambda: host.held().cpu_quota_us == host.held(TWO).cpu_quota_us == PLAN
            )
            await host.until(lambda: host.keeper.state().keys() == BOTH.keys())
    async with keeping_house(tmp_path, kernel=booted, boot="second") as host:
        booted.there = {ONE, TWO}
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held() == own and host.held(TWO) == HOSTS)


async def test_sessions_that_come_after_a_boot_have_the_hosts_own_back(tmp_path: Path) -> None:
    """A user's slice beside a site's is not there until somebody logs in, and is held from that moment."""
    apart = {SHOP: attached("site-shop.slice", 1001)}
    kernel = Kernel(Pulse(), there={ONE, "site-shop.slice"}, holds={ONE: HOSTS}, own={ONE: HOSTS})
    tenant = Tenant(plan=PlanId("standard"), users=("shop",), enforced_from=0.0)
    for boot in ("first", "second"):
        async with keeping_house(tmp_path, kernel=kernel, boot=boot) as host:
            host.keeper.attach(apart)
            host.keeper.follow(orders(shop=tenant))
            await host.until(lambda: host.held().cpu_quota_us == PLAN)
            await host.until(host.keeper.state)
        kernel.there, kernel.holds = {"site-shop.slice"}, {}
    async with keeping_house(tmp_path, kernel=kernel, boot="second") as host:
        kernel.there = {ONE, "site-shop.slice"}
        kernel.holds[ONE] = changed(HOSTS, cpu_quota_us=PLAN)
        host.keeper.attach(apart)
        host.keeper.follow(orders(shop=changed(tenant, enforced_from=None)))
        await host.until(lambda: host.held() == HOSTS)


async def test_a_slice_that_comes_later_has_its_own_where_nobody_speaks(tmp_path: Path) -> None:
    """In shadow nothing but the penalty waits for it, and at its end what the slice would have come with."""
    own = changed(HOSTS, cpu_weight=50)
    kernel = Kernel(Pulse(), there=set(), own={ONE: own})
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        host.keeper.penalize((penalty_of(SHOP, Level.SOFT),))
        await host.until(lambda: host.held().cpu_weight == 20)
        kernel.there = {ONE, TWO}
        kernel.holds[ONE] = changed(own, cpu_weight=20)
        kernel.reloaded.beat()
        await host.until(lambda: host.keeper.state()[SHOP].held is not None)
        await host.settled()
        assert host.held() == changed(HOSTS, cpu_weight=20)
        host.keeper.penalize(())
        await host.until(lambda: host.held() == own)


async def test_of_what_can_not_be_told_nothing_is_touched(tmp_path: Path) -> None:
    """A slice that is not there, and of which systemd does not say what it will hold: that is told, and asked again."""
    kernel = Kernel(Pulse(), there={TWO}, own={ONE: HOSTS}, broken=ONE)
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held(TWO).cpu_quota_us == PLAN)
        await host.until(lambda: SHOP in host.keeper.state())
        told = (Why("cap-refused", {"error": "refused"}),)
        await host.until(lambda: host.keeper.state()[SHOP].short == told)
        assert ONE not in kernel.holds
        kernel.broken = ""
        kernel.reloaded.beat()
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held() == HOSTS)


async def test_what_an_earlier_release_held_is_given_back_as_it_would_have(tmp_path: Path) -> None:
    """Its file names no fields: all that was not the kernel's default was its own."""
    plan = changed(FREE, cpu_quota_us=PLAN, tasks_max=120)
    old = {ONE: {"sites": [SHOP], "limits": msgspec.to_builtins(plan)}}
    (tmp_path / "caps.json").write_bytes(msgspec.json.encode(old))
    kernel = Kernel(Pulse(), holds={ONE: changed(plan, swap_max_bytes=GB)})
    async with keeping_house(tmp_path, kernel=kernel) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.held() == changed(FREE, swap_max_bytes=GB))
        await host.until(lambda: not read(tmp_path / "caps.json")[0])


async def test_what_comes_back_rounded_is_back(tmp_path: Path) -> None:
    """A quota of another period, a weight in BFQ's own terms: nothing is tried for ever, nor told as not held."""
    own = changed(HOSTS, cpu_quota_us=333_333)

    class Rounding(Kernel):
        async def apply(
            self, slice: str, limits: Limits, fields: Collection[str] = EVERY
        ) -> tuple[Why, ...]:
            told = await super().apply(slice, limits, fields)
            now = self.holds[slice]
            quota, weight = now.cpu_quota_us or 0, now.io_weight or 100
            rounded = {"cpu_quota_us": quota // 100 * 100, "io_weight": min(weight, 118)}
            self.holds[slice] = changed(now, **rounded)
            return told

    kernel = Rounding(Pulse(), holds={ONE: own, TWO: own})
    facts = replace(FACTS, has_io_weight=True)
    async with keeping_house(tmp_path, kernel=kernel, facts=facts) as host:
        host.keeper.attach(BOTH)
        host.keeper.follow(orders())
        await host.until(lambda: host.held().cpu_quota_us == PLAN)
        host.keeper.follow(orders(None))
        await host.until(lambda: host.keeper.looked and not host.keeper.state())
        assert host.held() == changed(own, cpu_quota_us=333_300, io_weight=118)
        count = len(kernel.applied)
        await host.settled()
        assert len(kernel.applied) == count and not read(tmp_path / "caps.json")[0]


def test_the_mark_that_helps_a_maximum_down_is_put_where_it_was() -> None:
    """Where only the maximum is spoken of, and by how it was before: with none, and with an admin's own."""
    for mark in (None, 900 * MB):
        says = frozenset({"memory_max_bytes"})
        aim = Aim(
            sites=(SHOP,), limits=changed(FREE, memory_max_bytes=GB), because={}, says=says
        ).on(changed(FREE, memory_high_bytes=mark), None)
        assert aim.fields == says | {"memory_high_bytes"}
        assert aim.limits == changed(FREE, memory_max_bytes=GB, memory_high_bytes=mark)
        mine = noted({ONE: aim}, {})[ONE]
        helped = changed(aim.limits, memory_high_bytes=800 * MB)
        assert aim.on(helped, mine).limits == aim.limits
        over = Aim(sites=(SHOP,), limits=FREE, because={}, release=True).on(helped, mine)
        assert over.limits == changed(FREE, memory_high_bytes=mark)
        assert over.fields == {"memory_high_bytes", "memory_max_bytes"}
