"""Rule R2's way back: what a restored store has forgotten, from what hosts and edges hold."""

from hypothesis import given
from hypothesis import strategies as st

from failover.recover import Claim, Recovery, recover
from fleet.model import Domain, Epoch, HostId, Placement, SiteId, Why
from tests.simulation.coop import Shape, fleet_of

FLEET = fleet_of(Shape(web=3, edges=2))
WEB1, WEB2, WEB3, EDGE1, EDGE2 = map(HostId, ("web1", "web2", "web3", "edge1", "edge2"))
SITE, DIRECT = SiteId("site0-web1"), SiteId("direct-web1")
AT_HOME = {
    id: Placement(host=site.home, since="", why=Why("placed-at-home"))
    for id, site in FLEET.sites.items()
}


def edge(revision: int, goes: HostId) -> Claim:
    """An edge that sends every domain home, but SITE's to `goes`."""
    domains = {d: site.home for site in FLEET.sites.values() for d in site.domains}
    return Claim(epoch=Epoch(1, revision), domains=domains | {FLEET.sites[SITE].domains[0]: goes})


def host(revision: int, *sites: SiteId) -> Claim:
    return Claim(epoch=Epoch(1, revision), sites=frozenset(sites))


def recovered(**claims: Claim) -> Recovery:
    return recover(FLEET, AT_HOME, {HostId(id): claim for id, claim in claims.items()}, 1)


def test_r2_a_move_that_the_store_forgot_is_read_from_the_edges() -> None:
    """The dead source's older orders still name the site: the edges know better."""
    found = recovered(
        edge1=edge(50, WEB2), edge2=edge(50, WEB2), web1=host(40, SITE), web2=host(50, SITE)
    )
    assert found.moved == {SITE: WEB2}
    assert found.conflicts == ()
    assert found.generation == 2
    assert found.silent == (WEB3,)


def test_r2_an_edge_that_lagged_behind_is_outdone_by_the_newer_one() -> None:
    assert recovered(edge1=edge(40, WEB1), edge2=edge(50, WEB2)).moved == {SITE: WEB2}


def test_r2_edges_of_one_epoch_that_disagree_are_a_conflict_and_nothing_moves() -> None:
    found = recovered(edge1=edge(50, WEB2), edge2=edge(50, WEB3))
    assert found.moved == {}
    (conflict,) = found.conflicts
    assert (conflict.site, conflict.kept) == (SITE, WEB1)


def test_r15_a_host_that_claims_more_than_the_edges_know_moves_no_traffic() -> None:
    """It may be a liar, or the edges were cut off when it was ordered: a person looks, visitors go where they go."""
    found = recovered(edge1=edge(50, WEB2), web2=host(50, SITE), web3=host(10**9, SITE))
    assert found.moved == {SITE: WEB2}
    assert {conflict.site for conflict in found.conflicts} <= {SITE}


def test_r15_a_host_gets_no_site_that_the_fleet_does_not_give_it() -> None:
    elsewhere = next(
        h for h in FLEET.hosts if h not in (FLEET.sites[DIRECT].home, *FLEET.sites[DIRECT].standbys)
    )
    claims = {elsewhere: host(99, DIRECT)}
    assert recover(FLEET, AT_HOME, claims, 1).moved == {}


def test_r2_a_direct_site_is_where_its_only_claimant_is() -> None:
    standby = FLEET.sites[DIRECT].standbys[0]
    assert recover(FLEET, AT_HOME, {standby: host(50, DIRECT)}, 1).moved == {DIRECT: standby}


def test_r2_a_direct_site_that_two_living_hosts_claim_is_a_conflict() -> None:
    standby = FLEET.sites[DIRECT].standbys[0]
    found = recover(FLEET, AT_HOME, {WEB1: host(40, DIRECT), standby: host(50, DIRECT)}, 1)
    assert found.moved == {}
    assert [conflict.site for conflict in found.conflicts] == [DIRECT]


def test_r7_what_edges_serve_and_the_fleet_does_not_declare_is_named() -> None:
    stray = Claim(epoch=Epoch(1, 9), domains={Domain("new.coop.example"): WEB1})
    assert recovered(edge1=stray).strays == ("new.coop.example",)


WORDS = st.builds(
    Claim,
    epoch=st.builds(Epoch, st.integers(1, 3), st.integers(1, 5)),
    sites=st.frozensets(st.sampled_from(sorted(FLEET.sites))),
    domains=st.none()
    | st.dictionaries(
        st.sampled_from([d for site in FLEET.sites.values() for d in site.domains]),
        st.sampled_from(sorted(FLEET.hosts)),
    ),
)


@given(st.dictionaries(st.sampled_from(sorted(FLEET.hosts)), WORDS))
def test_r2_whatever_is_claimed_the_next_generation_is_above_all_of_it(
    claims: dict[HostId, Claim],
) -> None:
    """And a site goes only where some witness says that it is."""
    found = recover(FLEET, AT_HOME, claims, 1)
    assert all(found.generation > claim.epoch.generation for claim in claims.values())
    for site, target in found.moved.items():
        assert any(
            (host == target and site in claim.sites)
            or (claim.domains or {}).get(FLEET.sites[site].domains[0]) == target
            for host, claim in claims.items()
        )
