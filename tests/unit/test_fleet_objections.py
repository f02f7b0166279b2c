"""What a change of the fleet is refused for, and which word lets it pass."""

from itertools import product
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.objections import NAMED_MOST, Scene, Words, named, objections
from failover.policy import Policy
from fleet.diff import diff, tombstone
from fleet.documents import read
from fleet.model import (
    Domain,
    Fleet,
    HostId,
    RecordSet,
    SiteId,
    Tombstone,
    ZoneIntent,
    ZoneName,
)
from fleet.single import without_item
from tests.unit.fleets import GOOD, fleets
from tests.unit.test_fleet_changes import varied

FLEET = read(GOOD, "f")
HOME = {id: site.home for id, site in FLEET.sites.items()}
NOWHERE = Scene(serving={}, withdrawn=(), zones={})
QUIET = Scene(serving=HOME, withdrawn=(), zones={})


def codes(new: Fleet, words: Words, scene: Scene = QUIET, old: Fleet = FLEET) -> list[str]:
    found = objections(old, new, diff(old, new), words, scene, Policy())
    return [why.code for why in found]


def without_domain(fleet: Fleet, id: str) -> Fleet:
    """The site keeps a domain that is new."""
    site = fleet.sites[SiteId(id)]
    other = msgspec.structs.replace(site, domains=(Domain("other.example.org"),))
    return msgspec.structs.replace(fleet, sites={**fleet.sites, site.id: other})


def test_removing_anything_wants_its_word() -> None:
    """An item of any kind, or a domain; adding and changing want none."""
    bare = without_item(without_item(FLEET, "sites", "blog"), "hosts", "mx1-web-09")
    for fewer in (
        without_item(FLEET, "sites", "blog"),
        without_item(FLEET, "zones", "example.org"),
        without_domain(FLEET, "blog"),
        bare,
    ):
        assert codes(fewer, Words()) == ["fleet-removes"]
        assert codes(fewer, Words(remove=True)) == []
        assert codes(FLEET, Words(), old=fewer) in ([], ["fleet-removes"])
    assert codes(FLEET, Words(), old=Fleet()) == []


@given(fleets(), st.booleans(), st.booleans())
@settings(max_examples=20, deadline=None)
def test_no_word_lets_a_host_go_that_serves_a_site_that_stays(
    fleet: Fleet, remove: bool, much: bool
) -> None:
    """Whichever host goes, by whatever words, wherever the sites are served now."""
    hosts = sorted(fleet.hosts)
    serving = {id: HostId(hosts[n % len(hosts)]) for n, id in enumerate(fleet.sites)}
    scene = Scene(serving=serving, withdrawn=(), zones={})
    for id in hosts:
        found = codes(without_item(fleet, "hosts", id), Words(remove, much), scene, old=fleet)
        assert ("host-still-serves" in found) == (id in serving.values())


@given(fleets(), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_without_words_nothing_gets_a_tombstone(old: Fleet, rng: Random) -> None:
    """What passes without --remove removes no host, no site and no domain (rule R7); and the other way round."""
    for before, after in ((old, varied(old, rng)), (old, old), (Fleet(), old)):
        found = codes(after, Words(much=True), NOWHERE, old=before)
        removed = any(change.what == "removed" for change in diff(before, after).changes)
        assert found == ["fleet-removes"] * (removed or tombstone(before, after) != Tombstone())


def test_many_removals_want_both_words() -> None:
    """A file that was cut short: of 60 sites half are gone."""
    site = FLEET.sites[SiteId("blog")]
    many = {
        SiteId(f"s{n}"): msgspec.structs.replace(
            site, id=SiteId(f"s{n}"), domains=(Domain(f"s{n}.example.org"),)
        )
        for n in range(60)
    }
    old = msgspec.structs.replace(FLEET, sites=many)
    for left, much in ((54, False), (30, True)):
        some = {id: many[id] for id in list(many)[:left]}
        new = msgspec.structs.replace(FLEET, sites=some)
        assert codes(new, Words(remove=True), old=old) == ["fleet-too-many-removed"] * much
        assert codes(new, Words(remove=True, much=True), old=old) == []


def test_many_names_want_their_word() -> None:
    """A host's new address changes the names of its direct sites, which is much for a zone of few (rule R10)."""
    zone = ZoneName("example.org")
    names = {Domain(f"s{n}.example.org"): RecordSet(a=("10.1.0.19",)) for n in range(100)}
    site = FLEET.sites[SiteId("blog")]
    many = msgspec.structs.replace(site, domains=tuple(names))
    old = msgspec.structs.replace(FLEET, sites={site.id: many})
    host = old.hosts[HostId("mx1-web-09")]
    moved = msgspec.structs.replace(host, addresses=("10.1.0.99",))
    new = msgspec.structs.replace(old, hosts={**old.hosts, host.id: moved})
    scene = Scene(serving={site.id: host.id}, withdrawn=(), zones={zone: ZoneIntent(names=names)})
    assert codes(new, Words(remove=True), scene, old=old) == ["dns-too-many-changes"]
    assert codes(new, Words(much=True), scene, old=old) == []


def test_a_sentence_names_a_few_things_only() -> None:
    """However many there are."""
    assert named("ab") == "a, b"
    assert named("abcdefgh").count(",") == NAMED_MOST
    assert named(map(str, product("ab", repeat=4))).endswith(", …")
