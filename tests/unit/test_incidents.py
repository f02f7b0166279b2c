"""What an incident's timeline says of its decision, as a person reads it."""

import pytest

from controller import incidents
from controller.incidents import REASONS, Times
from failover.guards import Guarded
from failover.plan import Cause, Proposal
from fleet.model import HeldSite, HostId, Incident, IncidentId, MovedSite, SiteId, Why
from runtime.words import explain

WEB1, WEB2 = HostId("web1"), HostId("web2")
CAUSE = Cause(id="host:web1:b", host=WEB1, verdict="dead", why=Why("dead"))


def held(count: int, code: str, **values: str | int) -> list[HeldSite]:
    why = Why(code, {**values})
    return [
        HeldSite(site=SiteId(f"{code}-{n}"), source=WEB1, target=None, why=why)
        for n in range(count)
    ]


def lines(guarded: Guarded, language: str = "en") -> list[str]:
    begun = Incident(id=IncidentId("i"), cause="c", subject=WEB1, verdict="dead", began_at=0.0)
    told = incidents.decide(begun, guarded, Times(wall=2.0, now=2.0))
    return [explain(entry.why, language) for entry in told.timeline]


def test_a_decision_says_why_each_held_site_stays_the_most_common_reason_first() -> None:
    """Counts and sentences, with the values that each reason has."""
    sites = (
        *held(3, "manual"),
        *held(8, "gated-not-fenced"),
        *held(2, "standby-not-up", host=WEB2, verdict="dead"),
    )
    assert lines(Guarded(proposal=Proposal(cause=CAUSE), held=sites)) == [
        "Nothing may move: held 13.",
        "Held 8: The site is gated: it moves only when its old host is known to write no more. "
        "A person's word on that lets it move.",
        "Held 3: The site moves only when a person says so.",
        "Held 2: web2 is dead, not up.",
    ]


def test_the_reasons_are_told_beside_moves_too_and_in_spanish() -> None:
    """The reason inside the line is in the reader's language as well."""
    move = MovedSite(site=SiteId("s"), source=WEB1, target=WEB2)
    guarded = Guarded(proposal=Proposal(cause=CAUSE), moves=(move,), held=tuple(held(1, "manual")))
    decided, because = lines(guarded, "es")
    assert "retenidos 1" in decided
    assert because.startswith("Retenidos 1: ")
    assert because.endswith(explain(Why("manual"), "es")) and explain(Why("manual")) not in because


def test_many_different_reasons_are_summed_up() -> None:
    """Ninety standbys that are full make no ninety lines."""
    sites = [s for n in range(90) for s in held(2, "standby-full", host=f"web{n}", max_sites=60)]
    told = lines(Guarded(proposal=Proposal(cause=CAUSE), held=tuple(sites)))
    assert len(told) == 1 + REASONS + 1
    assert told[-1].startswith(f"Held {2 * (90 - REASONS)} more")


def test_an_edge_that_is_kept_says_why() -> None:
    """It has no sites to hold; its own withdrawal is what was stopped."""
    why = Why("paused", {"owner": "ana", "reason": "works"})
    told = lines(Guarded(proposal=Proposal(cause=CAUSE, withdraw=True), withdraw=why))
    assert told[-1] == "web1 stays in the DNS: Failover was paused by ana: works"


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_reason_within_a_reason_never_fails(language: str) -> None:
    """A code that the catalogue lacks, or one that names itself, still gives some text."""
    assert "no-such" in explain(Why("held-because", {"sites": 1, "because": "no-such"}), language)
    assert explain(Why("held-because", {"sites": 1, "because": "held-because"}), language)
