"""Who really holds a site whose caps are in force: nobody is held by a word."""

from typing import Any, Literal

import msgspec
import pytest

from agent.caps.limits import FREE
from controller.holders import Holder, holders, is_told
from controller.uses import SiteWord
from fleet.caps import Attachment
from fleet.messages import Beside, SiteUse
from fleet.model import Domain, HostId, MemberId, Placement, PlanId, Site, SiteId, Why

HOST = HostId("mx1-web-01")
PLACE = Placement(host=HOST, since="2026-11-21T12:00:00Z", why=Why("home"))


def site(route: Literal["edges", "direct"]) -> Site:
    return Site(
        id=SiteId("huerto"),
        member=MemberId("huerta"),
        plan=PlanId("standard"),
        domains=(Domain("huerto.example"),),
        home=HOST,
        route=route,
    )


def use(attachment: Attachment, slice: str = "", **said: Any) -> SiteUse:
    return msgspec.structs.replace(SiteUse(attachment=attachment, slice=slice), **said)


def waits(slice: str) -> tuple[Why, ...]:
    return (Why("cap-waits-for", {"slice": slice, "sites": "blog"}),)


SLICE = use(Attachment.SLICE, "huerto.slice", wanted=FREE)
ADOPTED = use(Attachment.POOL, "huerto.slice", wanted=FREE)
POOL, LOG, NONE = (use(kind) for kind in (Attachment.POOL, Attachment.LOG, Attachment.NONE))
SHARED = msgspec.structs.replace(SLICE, short=waits("huerto.slice"))
# Of its users' slice, where only its sessions are.
BESIDE = msgspec.structs.replace(SLICE, short=waits("user-1001.slice"))
AWAY = msgspec.structs.replace(NONE, beside=(Beside(slice="huerto.slice", wanted=FREE),))
SSH = msgspec.structs.replace(LOG, beside=(Beside(slice="user-1001.slice", wanted=FREE),))


@pytest.mark.parametrize(
    ("said", "driver", "direct", "behind"),
    [
        (SLICE, "systemd", ("kernel",), ("kernel", "edges")),
        (ADOPTED, "cgroupfs", ("kernel",), ("kernel", "edges")),
        (BESIDE, "systemd", ("kernel",), ("kernel", "edges")),
        (AWAY, "systemd", ("kernel",), ("kernel", "edges")),
        (SSH, "systemd", (), ("edges",)),
        (SHARED, "systemd", (), ("edges",)),
        (SLICE, "", (), ("edges",)),
        (POOL, "systemd", (), ("edges",)),
        (LOG, "systemd", (), ("edges",)),
        (NONE, "systemd", (), ("edges",)),
        (None, "systemd", (), ("edges",)),
    ],
    ids=[
        "slice",
        "adopted",
        "beside",
        "was there",
        "sessions",
        "waits",
        "no driver",
        "pool",
        "log",
        "none",
        "silent",
    ],
)
def test_a_site_is_held_by_its_slice_or_by_the_edges_or_by_nobody(
    said: SiteUse | None, driver: str, direct: tuple[Holder, ...], behind: tuple[Holder, ...]
) -> None:
    """A slice holds where there is a driver and nobody is waited for; edges where visitors pass them."""
    assert holders(site("direct"), PLACE, driver, said) == direct
    assert holders(site("edges"), PLACE, driver, said) == behind
    assert holders(site("edges"), None, "", None) == (), "no edge leads to a site without a place"


def test_a_slice_of_which_nothing_is_told_is_not_known() -> None:
    """Of a site without a slice there is nothing to tell; silence is no answer."""

    def told(said: SiteUse) -> SiteWord:
        return SiteWord(host=HOST, use=said, at=0.0)

    assert is_told(told(SLICE), 10.0) and is_told(told(LOG), 10.0)
    assert not is_told(None, 0.0)
    assert not is_told(told(use(Attachment.SLICE, "huerto.slice")), 0.0)
    assert not is_told(told(SLICE), 3600.0), "its host speaks, and not of it"
