"""The log of changes: what is kept of each, and what taking one back means."""

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.demo.coop import coop
from fleet.chunks import CHUNK_LIMIT_BYTES
from fleet.diff import Changes, apply, diff
from fleet.documents import load, write
from fleet.history import (
    DETAILS_KEPT_BYTES,
    LINE_CHARS,
    LOG_KEPT,
    LoggedChange,
    LostDetails,
    inverse,
    kept,
    logged,
    pack,
    to_undo,
    touching,
    unpack,
)
from fleet.kinds import KINDS, items
from fleet.model import Domain, Fleet, Site, SiteId
from fleet.single import BadItem, canonical, raise_if_bad, tag_of, with_item, without_item
from tests.unit.fleets import GOOD, fleets
from tests.unit.test_fleet_changes import grown, varied

GOOD_FLEET = load(GOOD, "fleet.yaml").fleet
HUERTO = GOOD_FLEET.sites[SiteId("huerto")]


def entry(changes: Changes, number: int = 1) -> LoggedChange:
    return logged(changes, pack(changes), number=number, at=1.0, who="ana", reason="a test")


@given(fleets())
@settings(max_examples=20, deadline=None)
def test_applying_an_export_changes_nothing(fleet: Fleet) -> None:
    """For any fleet: what it is written as, read again, differs in nothing."""
    assert not diff(fleet, load(write(fleet), "export").fleet)


@given(fleets(), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_what_a_change_did_can_be_told_and_taken_back(old: Fleet, rng: Random) -> None:
    """Packed and unpacked it is the same change, and its inverse makes the old fleet again."""
    new = varied(old, rng)
    changes = diff(old, new)
    assert unpack(entry(changes), pack(changes)) == changes
    assert apply(new, inverse(changes)) == old
    assert to_undo(new, changes) == (inverse(changes), ())
    assert to_undo(old, changes) == (Changes(), ())


@given(fleets(), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_only_what_is_as_the_change_left_it_is_taken_back(old: Fleet, rng: Random) -> None:
    """After a later change each item is taken back, is back already, or is named as changed again."""
    first = varied(old, rng)
    second = varied(first, rng)
    did = diff(old, first)
    back, other = to_undo(second, did)
    undone = apply(second, back)
    assert not diff(undone, second).changes or back
    again = {(c.kind, c.id) for c in diff(first, second).changes}
    assert {(c.kind, c.id) for c in other} <= again
    assert {(c.kind, c.id) for c in back.changes}.isdisjoint(again)
    later = entry(diff(first, second), 2)
    places = [(c.kind, c.id) for c in other]
    assert touching(places, [(later, diff(first, second))]) == ((2,) if other else ())


def test_details_of_any_size_come_in_pieces_that_the_store_takes() -> None:
    """10,500 sites at once: pieces within the limit, less than a tenth of the fleet's own size."""
    changes = diff(Fleet(), grown(coop(), 10))
    parts = pack(changes)
    assert max(map(len, parts.values())) <= CHUNK_LIMIT_BYTES
    assert sum(map(len, parts.values())) < 500_000
    assert unpack(entry(changes), parts) == changes


def test_an_entry_is_small_whatever_it_tells() -> None:
    """A change of everything has a summary and a few short lines; the rest is in its details."""
    told = entry(diff(Fleet(), grown(coop(), 2)))
    assert len(msgspec.json.encode(told)) < 2000
    assert all(len(line) <= LINE_CHARS for line in told.first)
    assert "sites: 2100 added" in told.summary


def test_lost_or_damaged_details_are_said_to_be_lost() -> None:
    """A missing piece, another one's bytes, or fields of a newer version tell no half of a change."""
    changes = diff(GOOD_FLEET, without_item(GOOD_FLEET, "sites", "blog"))
    parts = pack(changes)
    (digest,) = parts
    for wrong in ({}, {digest: b"x"}, {digest: parts[digest][:-9]}):
        with pytest.raises(LostDetails, match="change 1"):
            unpack(entry(changes), wrong)


def test_the_log_is_bounded_by_number_and_by_size() -> None:
    """The last hundred are kept; of large ones the oldest lose their details first, never their entry."""
    few = [
        LoggedChange(number=n, at=0, who="a", reason="", summary="", details=(f"d{n}",))
        for n in range(1, 151)
    ]
    entries, details = kept(few)
    assert [e.number for e in entries] == list(range(151 - LOG_KEPT, 151))
    assert details == {f"d{n}" for n in range(51, 151)}
    large = [msgspec.structs.replace(e, details_bytes=DETAILS_KEPT_BYTES // 3) for e in few]
    entries, details = kept(large)
    assert len(entries) == LOG_KEPT
    assert details == {"d150", "d149", "d148"}


# --- single items


@given(fleets())
@settings(max_examples=15, deadline=None)
def test_an_item_can_be_taken_out_and_put_back(fleet: Fleet) -> None:
    """The fleet is the same again, and the item's tag, which depends on what is declared only."""
    for kind in ("sites", "hosts", "members"):
        for id, item in items(fleet, kind).items():
            again = msgspec.json.decode(msgspec.json.encode(item), type=KINDS[kind])
            assert (canonical(again), tag_of(again)) == (item, tag_of(item))
            assert with_item(without_item(fleet, kind, id), kind, item) == fleet


def test_a_tag_tells_any_two_declarations_apart() -> None:
    """Each field that changes, changes it."""
    others = (
        msgspec.structs.replace(HUERTO, standbys=()),
        msgspec.structs.replace(HUERTO, max_data_loss_s=7.0),
        msgspec.structs.replace(HUERTO, id=SiteId("blog")),
    )
    assert len({tag_of(HUERTO), *map(tag_of, others)}) == 4


def test_domains_of_an_item_become_canonical_or_are_told() -> None:
    """A control panel may send names in their own script; what is no name at all is a finding."""
    wrong = Domain("https://x")
    site = msgspec.structs.replace(HUERTO, domains=(Domain("Ñandú.example.org"), wrong))
    item = canonical(site)
    assert isinstance(item, Site) and item.domains == ("xn--and-6ma2c.example.org", wrong)
    with pytest.raises(BadItem) as bad:
        raise_if_bad(with_item(GOOD_FLEET, "sites", item))
    assert [finding.field for finding in bad.value.findings] == ["sites.huerto.domains[1]"]
