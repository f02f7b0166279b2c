"""Who may keep how much on disk, from plain values: plans, what is kept already, what was set before."""

import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.caps.quota import (
    Aim,
    Holder,
    Kept,
    Key,
    Ours,
    Person,
    Seen,
    World,
    aims,
    ask,
    hard,
    holders,
    next_change_s,
    paths,
)
from agent.caps.quotamounts import Mount
from agent.caps.quotauses import uses
from agent.layout.attached import Attached
from fleet.caps import Attachment, Held, Override, Tenant
from fleet.messages import Orders
from fleet.model import Caps, Epoch, HostId, Note, PlanId, SiteId, Why
from fleet.quota import NO_QUOTA, UNIT_BYTES, DiskUse, Quota, quota, quota_of
from tests.unit.test_caps_limits import GB, MB, STANDARD

SHOP, NEWS, BLOG = SiteId("shop"), SiteId("news"), SiteId("blog")
SRV = Mount(place="/srv", kind="ext4", source="/dev/vdb")
ROOT = Mount(place="/", kind="btrfs", source="/dev/vda1")
PEOPLE = {
    "shop": Person(uid=1001, home=Path("/srv/shop")),
    "news": Person(uid=1002, home=Path("/srv/news")),
    "ana": Person(uid=1003, home=Path("/home/ana")),
}
SMALL = msgspec.structs.replace(STANDARD, disk_bytes=10 * GB, inodes=10_000)
LARGE = msgspec.structs.replace(STANDARD, disk_bytes=20 * GB, inodes=50_000)
PLANS: dict[PlanId, Caps] = {PlanId("small"): SMALL, PlanId("large"): LARGE}
OVER = Override(
    caps={"disk_bytes": 30 * GB}, note=Note(owner="ana", reason="a film", since=50.0, until=200.0)
)


def tenant(*users: str, plan: str = "small", since: float | None = 0.0) -> Tenant:
    return Tenant(plan=PlanId(plan), users=users, enforced_from=since)


def world(
    tenants: dict[SiteId, Tenant],
    *,
    roots: dict[SiteId, str] | None = None,
    plans: dict[PlanId, Caps] | None = None,
    removed: tuple[SiteId, ...] = (),
    attached: set[SiteId] | None = None,
) -> World:
    orders = Orders(
        epoch=Epoch(1, 1),
        cluster="c",
        host=HostId("h1"),
        plans=PLANS if plans is None else plans,
        tenants=tenants,
        removed_sites=removed,
    )
    looked = {
        site: _with(roots or {}, site) for site in (tenants if attached is None else attached)
    }
    found = paths(tenants, looked, PEOPLE)
    mounts = {path: SRV if path.is_relative_to("/srv") else ROOT for path in found}
    return World(orders=orders, attached=looked, people=PEOPLE, mounts=mounts, now=100.0)


def _with(roots: dict[SiteId, str], site: SiteId) -> Attached:
    own = (Path(roots[site]),) if site in roots else ()
    return Attached(attachment=Attachment.POOL, why=Why("x"), roots=own)


def kept(used_bytes: int = 1 * GB, inodes: int = 100, held: Quota = NO_QUOTA) -> Kept:
    return Kept(used_bytes=used_bytes, used_inodes=inodes, quota=held)


def seen(state: str = "enforced", **users: Kept) -> dict[str, Seen]:
    uids = {PEOPLE[name].uid: each for name, each in users.items()}
    return {"/srv": Seen(state=state, users=uids)}


def aimed(of: World, found: dict[str, Seen], ours: dict[Key, Ours] | None = None) -> dict[Key, Aim]:
    return aims(of, holders(of), found, ours or {})


def used(of: World, found: dict[str, Seen]) -> dict[SiteId, DiskUse]:
    return uses(of, holders(of), found, aimed(of, found))


def test_a_user_may_keep_what_its_plan_says_and_a_tenth_more_for_a_while() -> None:
    """The plan is what may be kept, the hard limit a tenth above; in units that every file system can hold."""
    of = world({SHOP: tenant("shop")})
    aim = aimed(of, seen(shop=kept()))["/srv", 1001]
    assert aim.quota == quota_of(SMALL)
    assert (aim.quota.disk_bytes, aim.quota.inodes) == (10 * GB, 10_000)
    assert aim.quota.inodes_hard == 11_000
    assert 10.99 * GB < (aim.quota.disk_hard_bytes or 0) <= 11 * GB
    assert (aim.quota.disk_hard_bytes or 0) % UNIT_BYTES == 0
    assert quota(1, 5) == Quota(
        disk_bytes=UNIT_BYTES, disk_hard_bytes=UNIT_BYTES, inodes=5, inodes_hard=5
    ), "a kernel takes 0 for no limit"


def test_sites_of_one_user_may_keep_what_their_plans_say_together() -> None:
    """The kernel can't tell whose a file is; each of them is told why, and what all of them keep."""
    of = world({SHOP: tenant("shop"), NEWS: tenant("shop", plan="large")})
    found = seen(shop=kept(6 * GB))
    (aim,) = aimed(of, found).values()
    assert (aim.quota.disk_bytes, aim.quota.inodes) == (30 * GB, 60_000)
    assert aim.sites == (NEWS, SHOP)
    for site in (SHOP, NEWS):
        use = used(of, found)[site]
        assert use.because["disk_bytes"] == Why("quota-shared", {"sites": 2})
        assert (use.shared, use.used_bytes, use.ratio) == (True, 6 * GB, 0.2)


def test_each_user_of_a_site_may_keep_all_of_its_plan() -> None:
    """The kernel adds nobody up: that is said, and what is told is of the one nearest to its limit."""
    of = world({SHOP: tenant("shop", "news")})
    found = seen(shop=kept(1 * GB, 5000), news=kept(4 * GB, 10))
    assert {key: aim.quota.disk_bytes for key, aim in aimed(of, found).items()} == {
        ("/srv", 1001): 10 * GB,
        ("/srv", 1002): 10 * GB,
    }
    use = used(of, found)[SHOP]
    assert (use.used_bytes, use.used_inodes, use.ratio) == (5 * GB, 5010, 0.5)
    assert use.because["disk_bytes"] == Why("quota-each", {"users": 2})


def test_an_override_counts_while_it_lasts() -> None:
    """Its limit, and its owner's reason; the next look is due at its end."""
    lent = msgspec.structs.replace(tenant("shop"), override=OVER)
    of = world({SHOP: lent})
    aim = aimed(of, seen(shop=kept()))["/srv", 1001]
    assert aim.quota.disk_bytes == 30 * GB
    assert aim.because == {"disk_bytes": Why("cap-override", {"owner": "ana", "reason": "a film"})}
    assert next_change_s(of) == 100.0
    assert next_change_s(world({SHOP: tenant("shop", since=None)})) == math.inf


def test_a_plan_that_was_made_stricter_holds_as_it_was_armed() -> None:
    """Until it is armed anew; that is said of what differs alone."""
    was = Held(since=0.0, caps={"disk_bytes": 12 * GB})
    of = world({SHOP: msgspec.structs.replace(tenant("shop"), held=(was,))})
    aim = aimed(of, seen(shop=kept()))["/srv", 1001]
    assert (aim.quota.disk_bytes, aim.quota.inodes) == (12 * GB, 10_000)
    assert aim.because == {"disk_bytes": Why("cap-as-armed")}


@pytest.mark.parametrize("since", [None, 101.0])
def test_shadow_holds_nobody_and_tells_what_is_kept(since: float | None) -> None:
    """Nothing is wanted, what somebody else set stays, and how full the plan would be is told."""
    of = world({SHOP: tenant("shop", since=since)})
    found = seen(shop=kept(5 * GB, held=quota(1 * GB, 10)))
    assert aimed(of, found) == {}
    use = used(of, found)[SHOP]
    assert (use.wanted, use.held, use.ratio) == (None, quota(1 * GB, 10), 0.5)


def test_a_user_is_held_when_all_of_its_sites_are_in_force() -> None:
    """Of two sites in one user, the one in shadow keeps the other free."""
    of = world({SHOP: tenant("shop"), NEWS: tenant("shop", since=None)})
    assert aimed(of, seen(shop=kept())) == {}


def test_who_keeps_more_than_the_plan_is_not_refused_at_once() -> None:
    """The plan is held as the lower limit, which has a grace; the hard one is above what is kept, and says so."""
    of = world({SHOP: tenant("shop")})
    found = seen(shop=kept(15 * GB))
    aim = aimed(of, found)["/srv", 1001]
    assert aim.quota.disk_bytes == 10 * GB
    assert 15 * GB < (aim.quota.disk_hard_bytes or 0) < 16 * GB
    assert aim.because["disk_hard_bytes"] == Why("quota-over", {"kept": "15 GiB"})
    assert aim.quota.inodes_hard == 11_000


def test_what_is_over_the_plan_goes_down_and_never_up() -> None:
    """As it shrinks its hard limit follows, in steps; growing into it does not move it, and a larger plan does."""
    most, used_by = 11_000, (15_000, 15_500, 15_549, 14_990, 14_000, 14_400, 9_000, 10_900)
    limits, before = [], None
    for use in used_by:
        before = hard(most, use, before)
        limits.append(before)
    assert limits == [15_550, 15_550, 15_550, 15_550, 14_550, 14_550, 11_000, 11_000]
    assert hard(20_000, 10_900, 11_000) == 20_000


@given(
    most=st.integers(1, 10**9),
    used_by=st.lists(st.integers(0, 2 * 10**9), min_size=2, max_size=20),
)
def test_nothing_in_use_is_refused_when_it_is_turned_on(most: int, used_by: list[int]) -> None:
    """There is room for more whatever is kept; later it comes nearer to the plan, but for what no quota stopped."""
    before = hard(most, used_by[0], None)
    assert before >= most and before > used_by[0]
    for use in used_by[1:]:
        after = hard(most, use, before)
        assert after >= most
        assert after > use if use > before else after <= before
        before = after


@pytest.mark.parametrize(
    ("more", "room"),
    [
        (5 * GB, 11 * GB // 20),
        (GB // 4, GB // 4),
        (UNIT_BYTES, UNIT_BYTES),
        (0, 0),
        (-GB // 4, GB // 4),
    ],
)
def test_a_site_that_comes_back_with_more_is_not_refused_at_once(more: int, room: int) -> None:
    """Root copied into it past its quota while it was away: room as much as it was passed by, a twentieth at most.

    Who is at the limit gains nothing by it, and little who passed it by what a file system needs for itself.
    """
    left = quota_of(SMALL)
    limit = left.disk_hard_bytes or 0
    of = world({SHOP: tenant("shop")})
    mine = {("/srv", 1001): Ours(sites=(SHOP,), quota=left, was=NO_QUOTA)}
    aim = aimed(of, seen(shop=kept(limit + more, 11_000 + 30, held=left)), mine)["/srv", 1001]
    margin = (aim.quota.disk_hard_bytes or 0) - (limit + more)
    assert room <= margin <= room + UNIT_BYTES
    assert aim.quota.inodes_hard == 11_060
    assert aim.quota.disk_bytes == left.disk_bytes


def test_files_beside_the_home_count_where_they_are() -> None:
    """A document root on another file system is held there too, by the same plan; btrfs counts nobody, and says so."""
    of = world({NEWS: tenant("ana")}, roots={NEWS: "/srv/www/news"})
    assert set(holders(of)) == {("/", 1003), ("/srv", 1003)}
    assert ask(of, holders(of)) == {"/srv": {1003: None}}
    found = seen(ana=kept())
    assert set(aimed(of, found)) == {("/srv", 1003)}
    use = used(of, found)[NEWS]
    assert use.used_bytes is None, "what is kept on the other one is not known"
    assert use.because["disk_bytes"] == Why("quota-kind", {"mount": "/", "kind": "btrfs"})


@pytest.mark.parametrize(
    ("kind", "state", "code"),
    [
        ("ext4", "off", "quota-off"),
        ("ext4", "counted", "quota-counted"),
        ("xfs", "off", "quota-mount"),
        ("xfs", "counted", "quota-mount"),
        ("ext4", "Operation not permitted", "quota-unseen"),
        ("zfs", "off", "quota-kind"),
    ],
)
def test_a_file_system_that_holds_nobody_says_what_would(kind: str, state: str, code: str) -> None:
    """By its kind and by what is missing; what is counted all the same is told."""
    of = world({SHOP: tenant("shop")})
    mount = Mount(place="/srv", kind=kind, source="/dev/vdb")
    of = World(
        orders=of.orders,
        attached=of.attached,
        people=of.people,
        mounts=dict.fromkeys(of.mounts, mount),
        now=of.now,
    )
    found = seen(state, shop=kept()) if state == "counted" else seen(state)
    assert aimed(of, found) == {}
    use = used(of, found)[SHOP]
    assert use.because["disk_bytes"].code == code
    assert (use.used_bytes, use.held) == (1 * GB if state == "counted" else None, None)


def test_a_site_without_a_user_of_its_own_is_told_so() -> None:
    """What the web server's user keeps is everybody's."""
    of = world({SHOP: tenant("www-data"), NEWS: tenant()})
    assert holders(of) == {}
    assert {use.because["disk_bytes"].code for use in used(of, {}).values()} == {"quota-no-user"}


MINE = {("/srv", 1001): Ours(sites=(SHOP,), quota=quota_of(SMALL), was=quota(3 * GB, 7))}


@pytest.mark.parametrize(
    ("of", "released"),
    [
        (world({SHOP: tenant("shop", since=None)}), True),
        (world({NEWS: tenant("news")}, removed=(SHOP,)), True),
        (world({SHOP: tenant("news")}), True),
        (world({NEWS: tenant("news")}), False),
        (world({SHOP: tenant("shop", plan="unheard")}), False),
        (world({SHOP: tenant("news")}, attached=set()), False),
    ],
    ids=["shadow", "removed", "another user", "not spoken of", "unknown plan", "not looked for"],
)
def test_let_go_is_what_was_told_to_be(of: World, released: bool) -> None:
    """What was there before relevo is put back; what nobody speaks of stays held (rule R7)."""
    found = seen(shop=kept(held=quota_of(SMALL)), news=kept())
    aim = aimed(of, found, MINE)["/srv", 1001]
    assert aim.release is released
    assert aim.quota == (quota(3 * GB, 7) if released else quota_of(SMALL))


def test_of_who_is_let_go_nothing_is_wanted_any_more() -> None:
    """What is put back is not ours to want: somebody else's change of it is no difference."""
    of = world({SHOP: tenant("shop", since=None)})
    found = seen(shop=kept(held=quota_of(SMALL)))
    use = uses(of, holders(of), found, aimed(of, found, MINE))[SHOP]
    assert (use.wanted, use.held) == (None, quota_of(SMALL))


def test_who_is_held_to_nothing_any_more_begins_anew() -> None:
    """What was lifted by somebody is not put under what is kept since, and that may grow by a whole twentieth."""
    of, kept_bytes = world({SHOP: tenant("shop")}), 11 * GB + GB // 4
    for held, room in ((quota_of(SMALL), GB // 4), (NO_QUOTA, 11 * GB // 20)):
        aim = aimed(of, seen(shop=kept(kept_bytes, held=held)), MINE)["/srv", 1001]
        assert room <= (aim.quota.disk_hard_bytes or 0) - kept_bytes <= room + UNIT_BYTES


def test_what_cannot_be_seen_now_is_neither_held_nor_let_go() -> None:
    """A file system that is not mounted, or can't be asked, changes nothing of what is known."""
    of = world({SHOP: tenant("shop")})
    for found in ({}, seen("Input/output error"), seen("off")):
        assert aimed(of, found, MINE) == {}


def test_a_holder_is_told_with_its_plan() -> None:
    """One user, one file system, one plan: what everything else is decided from."""
    of = world({SHOP: tenant("shop", plan="large")})
    assert holders(of) == {
        ("/srv", 1001): Holder(sites=(SHOP,), mount=SRV, plan=quota_of(LARGE), in_force=True)
    }
    assert quota_of(LARGE).disk_bytes == 20 * GB and 20 * GB > 512 * MB
