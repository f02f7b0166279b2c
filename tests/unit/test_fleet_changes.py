"""Fleets written, compared and cut into chunks: what goes in comes out."""

import sys
import time
from itertools import pairwise
from random import Random

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.demo.coop import coop
from fleet.chunks import CHUNK_LIMIT_BYTES, BrokenFleet, FleetPointer, join, split
from fleet.diff import Changes, Conflict, apply, diff, tombstone
from fleet.documents import read, write
from fleet.kinds import KINDS, assemble, items
from fleet.model import Domain, Fleet, Host, HostId, Mode, PlanId, Site, SiteId, Zone
from fleet.units import format_bytes, parse_bytes
from fleet.validate import check
from tests.unit.fleets import GOOD, fleets


@given(fleets())
@settings(max_examples=25, deadline=None)
def test_what_is_written_is_read_again(fleet: Fleet) -> None:
    """Any valid fleet, tricky names included, survives its file; and another reader sees text as text."""
    text = write(fleet)
    assert read(text, "fleet.yaml") == fleet
    assert write(read(text, "fleet.yaml")) == text
    others = yaml.safe_load(text)
    for kind in KINDS:
        assert set(others.get(kind, {})) == set(items(fleet, kind))


@given(fleets())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
def test_valid_fleets_have_no_problems(fleet: Fleet) -> None:
    """The strategy draws valid fleets only, so that the properties speak of real ones."""
    assert check(fleet).problems == ()


@given(fleets(), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_applying_a_difference_makes_the_one_the_other(old: Fleet, rng: Random) -> None:
    """diff is complete, empty for equal fleets, and reversible; each line of it can be shown."""
    new = varied(old, rng)
    for before, after in ((old, new), (new, old), (Fleet(), new)):
        changes = diff(before, after)
        assert apply(before, changes) == after
        assert bool(changes) == (before != after)
        assert len(str(changes).split("\n")) == len(changes.changes) + 1
        assert all(change.what != "changed" or change.fields for change in changes.changes)
    assert not diff(old, old)


def varied(fleet: Fleet, rng: Random) -> Fleet:
    """Some items fewer, some with another field."""
    parts = {kind: dict(items(fleet, kind)) for kind in KINDS}
    for part in parts.values():
        for id, item in list(part.items()):
            match rng.choice(("keep", "drop", "alter")), item:
                case "drop", _:
                    del part[id]
                case "alter", Site():
                    part[id] = msgspec.structs.replace(item, standbys=(), max_data_loss_s=7.5)
                case "alter", Host():
                    part[id] = msgspec.structs.replace(item, port=81, roles=())
                case "alter", Zone():
                    part[id] = msgspec.structs.replace(item, ttl_s=61)
                case "alter", _:
                    part[id] = msgspec.structs.replace(item, name="another")
    return assemble(parts)


@given(fleets())
@settings(max_examples=20, deadline=None)
def test_chunks_make_the_fleet_again(fleet: Fleet) -> None:
    """join undoes split, and equal fleets have equal chunks."""
    pointer, chunks = split(fleet, by="ana", reason="test", at=1.0)
    assert pointer.digests == chunks.keys()
    travelled = msgspec.json.decode(msgspec.json.encode(pointer), type=FleetPointer)
    assert join(travelled, chunks) == fleet
    assert split(fleet, by="ana", reason="test", at=1.0) == (pointer, chunks)


@given(st.integers(0, 10**18))
def test_sizes_keep_their_value(number: int) -> None:
    """A number of bytes written with a unit is exactly the same number."""
    written = format_bytes(number)
    assert (parse_bytes(written) if isinstance(written, str) else written) == number


def _changed(fleet: Fleet) -> Fleet:
    sites = dict(fleet.sites)
    huerto = sites[SiteId("huerto")]
    sites[SiteId("huerto")] = msgspec.structs.replace(
        huerto,
        mode=Mode.MANUAL,
        standbys=(),
        check=msgspec.structs.replace(huerto.check, path="/x"),
    )
    del sites[SiteId("blog")]
    hosts = dict(fleet.hosts)
    hosts[HostId("us1-web-02")] = msgspec.structs.replace(
        hosts[HostId("us1-web-01")], id=HostId("us1-web-02"), tag="olmo", addresses=("10.2.0.12",)
    )
    plans = dict(fleet.plans)
    plan = plans[PlanId("solidarity")]
    plans[plan.id] = msgspec.structs.replace(
        plan, caps=msgspec.structs.replace(plan.caps, tasks=90)
    )
    return msgspec.structs.replace(fleet, sites=sites, hosts=hosts, plans=plans)


def test_a_difference_is_told_in_words() -> None:
    """Each item has a line with its fields, old and new; the first line counts."""
    old = read(GOOD, "fleet.yaml")
    assert str(diff(old, _changed(old))).split("\n") == [
        "hosts: 1 added; plans: 1 changed; sites: 1 changed, 1 removed",
        "+ host us1-web-02",
        "~ plan solidarity: caps.tasks: 80 -> 90",
        "- site blog",
        "~ site huerto: check.path: default -> /x; mode: default -> manual; standbys: [us1-web-01] -> default",
    ]
    assert str(Changes()) == "no change"


def test_a_difference_fits_only_the_fleet_it_was_made_for() -> None:
    """An item that has changed meanwhile is a conflict, not an overwrite."""
    old = read(GOOD, "fleet.yaml")
    changes = diff(old, _changed(old))
    with pytest.raises(Conflict, match="host us1-web-02 has changed meanwhile"):
        apply(_changed(old), changes)


def test_a_tombstone_names_all_that_is_gone() -> None:
    """Domains, hosts and sites that the new fleet lacks are told to be removed; a moved domain is not."""
    old = read(GOOD, "fleet.yaml")
    gone = tombstone(old, _changed(old))
    assert (gone.domains, gone.hosts, gone.sites) == (
        (Domain("blog.example.org"),),
        (),
        (SiteId("blog"),),
    )
    assert tombstone(old, old) == tombstone(Fleet(), old)


def test_broken_chunks_are_refused_with_the_reason() -> None:
    """A chunk that is missing, damaged, foreign or miscounted never makes a fleet."""
    pointer, chunks = split(read(GOOD, "f"), by="ana", reason="test", at=1.0)
    (digest,) = pointer.chunks["hosts"]
    with pytest.raises(BrokenFleet, match=f"chunk {digest} of hosts is missing"):
        join(pointer, {d: c for d, c in chunks.items() if d != digest})
    with pytest.raises(BrokenFleet, match=f"chunk {digest} of hosts is damaged"):
        join(pointer, {**chunks, digest: chunks[digest] + b" "})
    swapped = {**pointer.chunks, "hosts": pointer.chunks["plans"]}
    with pytest.raises(BrokenFleet, match="is not of this version"):
        join(msgspec.structs.replace(pointer, chunks=swapped), chunks)
    with pytest.raises(BrokenFleet, match="4 hosts in the store, 5 by the pointer"):
        join(msgspec.structs.replace(pointer, counts={**pointer.counts, "hosts": 5}), chunks)
    with pytest.raises(BrokenFleet, match="a newer relevo wrote this fleet: it holds robots"):
        join(msgspec.structs.replace(pointer, chunks={**pointer.chunks, "robots": ()}), chunks)


def test_a_change_at_one_home_touches_one_chunk() -> None:
    """Sites lie together by home, so editing all of a host's sites stages one chunk of some ninety."""
    fleet = coop()
    _, before = split(fleet, by="ana", reason="test", at=1.0)
    sites = {
        id: msgspec.structs.replace(site, max_data_loss_s=7.0)
        if site.home == "mx1-web-01"
        else site
        for id, site in fleet.sites.items()
    }
    assert sum(site.max_data_loss_s == 7.0 for site in sites.values()) > 3
    _, after = split(msgspec.structs.replace(fleet, sites=sites), by="ana", reason="t", at=2.0)
    assert len(after.keys() - before.keys()) == 1


def grown(fleet: Fleet, copies: int) -> Fleet:
    """`fleet` with each member and site `copies` times."""
    sites = {
        id: msgspec.structs.replace(
            site, id=id, domains=tuple(Domain(f"n{n}.{domain}") for domain in site.domains)
        )
        for n in range(copies)
        for site in fleet.sites.values()
        for id in (SiteId(f"{site.id}.{n}"),)
    }
    return msgspec.structs.replace(fleet, sites=sites)


@pytest.mark.patient
def test_ten_thousand_sites_are_quick_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """10,500 sites are read, judged, split and joined in seconds; no chunk is over its limit."""
    fleet = grown(coop(), 10)
    one_home = msgspec.structs.replace(
        fleet,
        sites={
            id: msgspec.structs.replace(s, home=HostId("mx1-web-01"))
            for id, s in fleet.sites.items()
        },
    )
    text = write(fleet)
    times = [time.perf_counter()]
    assert read(text, "fleet.yaml") == fleet
    times.append(time.perf_counter())
    for each in (fleet, one_home):
        pointer, chunks = split(each, by="ana", reason="test", at=1.0)
        assert max(map(len, chunks.values())) <= CHUNK_LIMIT_BYTES
        assert join(pointer, chunks) == each
        times.append(time.perf_counter())
    took = [after - before for before, after in pairwise(times)]
    with capsys.disabled():
        said = (
            f"read {took[0]:.2f} s, split and join {took[1]:.2f} s, all at one home {took[2]:.2f} s"
        )
        sys.stdout.write(f"\n10,500 sites, {len(text) / 1e6:.1f} MB: {said}\n")
    assert sum(took) < 20


def test_an_item_larger_than_a_chunk_is_refused_before_it_is_split() -> None:
    """Validation refuses what the store could not hold; split never cuts an item."""
    fleet = read(GOOD, "f")
    site = fleet.sites[SiteId("huerto")]
    many = tuple(Domain(f"d{n}.{'x' * 60}.example") for n in range(4000))
    huge = msgspec.structs.replace(
        fleet, sites={site.id: msgspec.structs.replace(site, domains=many)}
    )
    assert "sites.huerto: is larger than 65536 bytes" in str(check(huge).problems[0])
    with pytest.raises(ValueError, match="huerto alone is larger"):
        split(huge, by="ana", reason="test", at=1.0)


def test_keys_are_the_ids_of_their_items() -> None:
    """A fleet assembled by hand is held to it as well, and to canonical domains."""
    fleet = read(GOOD, "f")
    site = msgspec.structs.replace(
        fleet.sites[SiteId("huerto")], domains=(Domain("WWW.example.org"),)
    )
    wrong = msgspec.structs.replace(fleet, sites={SiteId("a b"): site})
    assert [str(problem) for problem in check(wrong).problems] == [
        "sites.a b: 'a b' is not the id of its item; use 'huerto'",
        "sites.a b: 'a b' is not usable as an id; letters, digits and _ . -, "
        "a letter or digit first, 63 at most",
        "sites.a b.domains[0]: 'WWW.example.org' is not in the form of the network; write www.example.org",
    ]
