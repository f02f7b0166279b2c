"""What HAProxy should have: orders merged into what is there, and hostile orders refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edge.plan import SAID_AT_MOST, Served, clip, placed, plan
from fleet.messages import Routes, Target
from fleet.model import Domain, HostId

W1, W2 = HostId("w1"), HostId("w2")
TARGET = Target(address="192.0.2.1", port=80)
A, B = Domain("a.example"), Domain("b.example")
SERVED = Served(hosts={W1: TARGET, W2: TARGET}, domains={A: W1, B: W2}, proof="a-proof-token")


def test_empty_orders_remove_nothing() -> None:
    """A fresh controller knows nothing; what it does not mention stays and is said (R7)."""
    wanted = plan(Routes(), SERVED)
    assert (wanted.hosts, wanted.domains, wanted.proof) == (
        SERVED.hosts,
        SERVED.domains,
        SERVED.proof,
    )
    assert wanted.strays == (A, B, "host w1", "host w2")
    assert wanted.refused == ()


def test_what_was_told_to_be_removed_is_removed() -> None:
    """A tombstone removes a domain and a host; what is ordered again is stronger than its tombstone."""
    routes = Routes(
        hosts={W1: TARGET},
        domains={A: W1},
        removed_domains=(A, B),
        removed_hosts=(W1, W2),
    )
    wanted = plan(routes, SERVED)
    assert (wanted.hosts, wanted.domains) == ({W1: TARGET}, {A: W1})
    assert wanted.said == ()


def test_a_removed_host_that_a_stray_needs_stays() -> None:
    """Removing it would take a site down that nobody told to remove."""
    wanted = plan(Routes(hosts={W1: TARGET}, domains={A: W1}, removed_hosts=(W2,)), SERVED)
    assert W2 in wanted.hosts
    assert wanted.strays == (B, "host w2")


@pytest.mark.parametrize(
    "domain",
    ["x.example\n", "x.example w1", "X.example", "-x.example", "x", "", "x.example;del map", "é.x"],
)
def test_a_domain_that_is_none_is_refused(domain: str) -> None:
    """It reaches neither the socket nor the file, and the others are done."""
    wanted = plan(Routes(hosts={W1: TARGET}, domains={Domain(domain): W1, A: W1}), SERVED)
    assert domain not in wanted.domains
    assert wanted.domains[A] == W1
    assert len(wanted.refused) == 1
    assert "\n" not in wanted.refused[0]


@pytest.mark.parametrize(
    "target",
    [
        Target(address="localhost", port=80),
        Target(address="192.0.2.1\nserver x", port=80),
        Target(address="fe80::1%eth0", port=80),
        Target(address="192.0.2.1", port=0),
        Target(address="192.0.2.1", port=80, check="/' ver HTTP/1.1"),
        Target(address="192.0.2.1", port=80, check="/a\n"),
        Target(address="192.0.2.1", port=80, check="relative"),
    ],
)
def test_an_unusable_target_is_refused_and_the_old_one_stays(target: Target) -> None:
    """A mistake in one host's address takes nothing away."""
    wanted = plan(Routes(hosts={W1: target}, domains={A: W1}), SERVED)
    assert wanted.hosts[W1] == TARGET
    assert wanted.domains[A] == W1
    assert len(wanted.refused) == 1


def test_a_domain_of_a_host_without_address_keeps_its_place() -> None:
    """It is said, and the site is served where it was."""
    wanted = plan(Routes(hosts={W1: TARGET}, domains={A: HostId("w9")}), SERVED)
    assert wanted.domains[A] == W1
    assert wanted.refused == ("domain a.example: its host 'w9' has no usable address",)


def test_a_token_is_refused_without_being_shown() -> None:
    """A refusal is logged; a secret is not."""
    wanted = plan(Routes(proof="it's a secret"), SERVED)
    assert wanted.proof == SERVED.proof
    assert len(wanted.refused) == 1
    assert "secret" not in wanted.refused[0]


def test_what_a_worker_lacks_keeps_its_place_until_the_reload() -> None:
    """A domain that moves to a host still to come is served where it was; a new one waits."""
    wanted = {"a.example": "w9", "b.example": "w1", "c.example": "w9"}
    assert placed(wanted, {"w1"}, {"a.example": "w2"}) == {"a.example": "w2", "b.example": "w1"}


def test_a_long_list_is_clipped_to_what_a_frame_may_carry() -> None:
    """The rest is counted."""
    said = clip(str(number) for number in range(250))
    assert len(said) == SAID_AT_MOST
    assert said[-1] == "and 151 more"
    assert clip(("a", "b")) == ("a", "b")


hosts = st.sampled_from([HostId(f"w{number}") for number in range(5)])
domains = st.dictionaries(
    st.sampled_from([Domain(f"{letter}.example") for letter in "abcdefgh"]), hosts, min_size=2
)


@given(domains, domains, st.frozensets(hosts, min_size=2), st.frozensets(hosts, min_size=2))
def test_nothing_disappears_unsaid_and_planning_twice_changes_nothing(
    ordered: dict[Domain, HostId],
    had: dict[Domain, HostId],
    listed: frozenset[HostId],
    present: frozenset[HostId],
) -> None:
    """Every domain served before is served after; a second plan on the first one's outcome is the same."""
    before: dict[str, str] = {str(domain): host for domain, host in had.items()}
    served = Served(hosts=dict.fromkeys(present, TARGET), domains=before)
    routes = Routes(hosts=dict.fromkeys(listed, TARGET), domains=ordered)
    wanted = plan(routes, served)
    assert wanted.domains.keys() >= had.keys()
    assert wanted.hosts.keys() == present | listed
    assert all(wanted.domains[d] == h for d, h in ordered.items() if h in wanted.hosts)
    assert set(wanted.strays) >= had.keys() - ordered.keys()
    again = plan(routes, Served(hosts=wanted.hosts, domains=wanted.domains))
    assert (again.hosts, again.domains) == (wanted.hosts, wanted.domains)
