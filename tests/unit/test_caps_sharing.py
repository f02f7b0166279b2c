"""Slices that several sites share: nothing before all of them are in force, and one ends no other without a person."""

from itertools import product
from typing import Any

import msgspec
import pytest

from agent.caps.limits import FREE, HostFacts
from agent.caps.sparing import spare
from agent.caps.telling import company, with_company
from agent.caps.wants import Share, World, shares
from agent.layout.attached import Attached
from fleet.caps import Attachment, Level, Penalty, Resource, Tenant
from fleet.messages import Orders
from fleet.model import Epoch, HostId, PlanId, SiteId, Why
from runtime.words import LANGUAGES, explain
from tests.unit.test_caps_limits import STANDARD, penalty

SHOP, NEWS, CLUB = SiteId("shop"), SiteId("news"), SiteId("club")
SHARED = "user-1001.slice"
changed = msgspec.structs.replace
NOBODY: frozenset[SiteId] = frozenset()


def of(site: SiteId, level: Level, **more: Any) -> Penalty:
    return changed(penalty(level, Resource.CPU), site=site, **more)


def held(
    *penalties: Penalty,
    slices: dict[SiteId, str | None] | None = None,
    shadow: frozenset[SiteId] = NOBODY,
) -> dict[str, Share]:
    """Sites of one user: by default all in its slice."""
    where = {SHOP: SHARED, NEWS: SHARED} if slices is None else slices
    tenants = {
        site: Tenant(
            plan=PlanId("standard"),
            users=("ana",),
            enforced_from=None if site in shadow else 0.0,
        )
        for site in where
    }
    attached = {
        site: Attached(
            attachment=Attachment.SLICE if slice else Attachment.POOL, why=Why("x"), slice=slice
        )
        for site, slice in where.items()
    }
    return shares(
        World(
            orders=Orders(
                epoch=Epoch(1, 1),
                cluster="c",
                host=HostId("h1"),
                plans={PlanId("standard"): STANDARD},
                tenants=tenants,
            ),
            attached=attached,
            people={"ana": 1001},
            penalties=penalties,
            facts=HostFacts(cores=16, has_swap=True),
            now=100.0,
        )
    )


def said(share: Share, field: str) -> Why:
    """The reason of a field, which can be said in every language."""
    why = share.wanted.because[field]
    assert all(why.code not in explain(why, language) for language in LANGUAGES)
    return why


@pytest.mark.parametrize("level", [Level.ISOLATE, Level.STOP])
def test_what_one_site_does_ends_no_other_that_shares_its_slice(level: Level) -> None:
    """Its slice is held as by a cap, by the share of it, and says so; alone in it the site is held as it is said."""
    shared = held(of(SHOP, level, share=0.25))[SHARED]
    limits = shared.wanted.limits
    assert not limits.egress_closed and not limits.frozen
    assert (limits.cpu_weight, limits.cpu_quota_us) == (20, 370_000)
    field = "frozen" if level is Level.STOP else "egress_closed"
    assert said(shared, field) == Why("cap-spares", {"site": "shop", "others": "news"})
    alone = held(of(SHOP, level), slices={SHOP: SHARED})[SHARED].wanted.limits
    assert alone.egress_closed and alone.frozen is (level is Level.STOP)


def test_a_users_own_slice_beside_its_sites_is_spared_too() -> None:
    """Each site has a slice for its services: that of the one is held, that of their user is not, whoever is in it."""
    stop = of(SHOP, Level.STOP)
    apart: dict[SiteId, str | None] = {SHOP: "site-shop.slice", NEWS: "site-news.slice"}
    found = held(stop, slices=apart)
    assert found["site-shop.slice"].wanted.limits.frozen
    assert found["site-news.slice"].wanted.limits.cpu_weight == 100
    assert not found[SHARED].wanted.limits.frozen
    assert said(found[SHARED], "frozen").code == "cap-spares"
    # The one lives in its user's slice, the other in a shared pool: its sessions and jobs are there as well.
    found = held(stop, slices={SHOP: SHARED, NEWS: None})
    assert not found[SHARED].wanted.limits.frozen


def test_a_persons_word_holds_and_tells_everyone_whom_it_holds() -> None:
    """The neighbour reads whose penalty it is; a penalty that touches nobody else says nothing of others."""
    ordered = of(SHOP, Level.STOP, owner="ana")
    shared = held(ordered)[SHARED]
    assert shared.wanted.limits.frozen and shared.wanted.limits.egress_closed
    told = said(shared, "frozen")
    assert told.values == {"because": "cap-stopped", "of": "shop", "others": "news"}
    assert "news" in explain(told) and "shop" in explain(told, "es")
    alone = held(ordered, slices={SHOP: SHARED})[SHARED]
    assert said(alone, "frozen") == Why("cap-stopped")


def test_what_a_person_ordered_says_whom_else_it_holds() -> None:
    """In its own reason, for who reads it at the site; relevo's does not, for it spares them."""
    said = Why("isolation-by-person", {"owner": "ana", "reason": "spam"})
    ordered = of(SHOP, Level.STOP, owner="ana", why=said)
    ours, watched = of(SHOP, Level.STOP), of(SHOP, Level.WATCH, owner="ana", why=said)
    shared = company(held(ordered, slices={SHOP: "site-shop.slice", NEWS: None}))
    assert shared == {SHOP: {NEWS}, NEWS: {SHOP}}
    told = with_company((ordered, ours, watched), shared)
    assert told[1:] == (ours, watched)
    assert "news" in explain(told[0].why) and "spam" in explain(told[0].why)
    assert with_company((ordered,), company(held(slices={SHOP: SHARED}))) == (ordered,)


def test_a_slice_whose_sites_all_are_to_be_isolated_is() -> None:
    """It is held as its mildest site; a site that only the watchdog relieved is as mild as one that nobody accused."""
    both = held(of(SHOP, Level.STOP), of(NEWS, Level.ISOLATE))[SHARED]
    assert both.wanted.limits.egress_closed and not both.wanted.limits.frozen
    assert said(both, "frozen").code == "cap-spares"
    relief = changed(penalty(Level.CAP, Resource.MEMORY), site=NEWS)
    spared = held(of(SHOP, Level.ISOLATE), relief)[SHARED]
    assert not spared.wanted.limits.egress_closed


def test_a_milder_penalty_is_no_word_of_the_watchdog() -> None:
    """An isolation for memory that takes no share of it slows the slice; it does not lift its high mark."""
    isolate = changed(penalty(Level.ISOLATE, Resource.MEMORY), site=SHOP)
    limits = held(isolate)[SHARED].wanted.limits
    assert (limits.cpu_weight, limits.memory_high_bytes is None) == (20, False)


def test_a_neighbour_in_shadow_is_held_by_nothing_but_a_person() -> None:
    """Neither by the plan of the other nor by its penalties; whom it waits for is known."""
    shared = held(of(SHOP, Level.CAP, share=0.5), shadow=frozenset({NEWS}))[SHARED]
    assert shared.wanted.limits == FREE and shared.waits_for == (NEWS,)
    ordered = of(SHOP, Level.CAP, share=0.5, owner="ana")
    shared = held(ordered, shadow=frozenset({NEWS}))[SHARED]
    assert shared.wanted.limits.cpu_quota_us == 750_000
    mixed: dict[SiteId, str | None] = {SHOP: SHARED, NEWS: None}
    found = held(slices=mixed, shadow=frozenset({NEWS}))[SHARED]
    assert found.wanted.limits == FREE and found.waits_for == (NEWS,)


@pytest.mark.parametrize(("one", "two", "owner"), [*product(Level, Level, ("relevo", "ana"))])
def test_nobody_is_held_harder_than_a_cap_by_another(one: Level, two: Level, owner: str) -> None:
    """For every pair: what relevo decided of one site bears on the other at most as a cap, or as its own penalty."""
    penalties = (of(SHOP, one, owner=owner), of(NEWS, two))
    mercy = spare(penalties, (SHOP, NEWS))
    for penalty_, was in zip(mercy.held, penalties, strict=True):
        assert penalty_.level <= was.level
        other = two if was.site == SHOP else one
        assert was.owner != "relevo" or penalty_.level <= max(Level.CAP, other)
        assert was.owner == "relevo" or penalty_ == was
    assert mercy.spared == tuple(p for p, h in zip(penalties, mercy.held, strict=True) if p != h)
