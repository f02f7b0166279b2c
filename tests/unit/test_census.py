"""What lists show fast is what a slow look would find: sites counted by host, reasons with their sentences."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.answers import told, worded
from controller.api.shapes import DoneMoving, Incidents
from controller.census import count
from fleet.model import (
    Entry,
    Fleet,
    HeldSite,
    Hold,
    HostId,
    Incident,
    IncidentId,
    MemberId,
    MovedSite,
    Phase,
    Placement,
    PlanId,
    Site,
    SiteId,
    Why,
)

HOSTS = [HostId(f"h{n}") for n in range(4)]
hosts = st.sampled_from(HOSTS)
NO = Why("placed-at-home")


def site(id: str, home: HostId) -> Site:
    return Site(id=SiteId(id), member=MemberId("m"), plan=PlanId("p"), domains=(), home=home)


@given(
    st.dictionaries(st.text("abcd", min_size=1, max_size=3), st.tuples(hosts, hosts | st.none()))
)
def test_the_count_is_what_a_look_at_every_site_finds(
    sites: dict[str, tuple[HostId, HostId | None]],
) -> None:
    """At home, served here, near, away, held: for each host as if it were counted alone."""
    fleet = Fleet(sites={SiteId(id): site(id, home) for id, (home, _) in sites.items()})
    places = {
        SiteId(id): Placement(host=where, since="", why=NO)
        for id, (_, where) in sites.items()
        if where is not None
    }
    held = [HeldSite(site=id, source=HOSTS[0], target=None, why=NO) for id in places]
    hold = Hold(id="x", kind="move", subject="h0", why=NO, since=0.0, sites=tuple(held))
    found = count(fleet, places, {"x": hold})
    assert [one.id for one in found.sites] == sorted(sites)
    assert found.held.keys() == places.keys()
    assert found.away == sum(where not in (None, home) for home, where in sites.values())
    for host in HOSTS:
        assert found.home[host] == sum(home == host for home, _ in sites.values())
        assert found.here[host] == sum(where == host for _, where in sites.values())
        near = [one.id for one in found.near.get(host, ())]
        assert near == sorted(id for id, both in sites.items() if host in both)


def incident(code: str, values: dict[str, str | int | float]) -> Incident:
    why = Why(code, values)
    return Incident(
        id=IncidentId("i"),
        cause="c",
        subject="s",
        verdict="dead",
        began_at=1.0,
        moved=(MovedSite(site=SiteId("a"), source=HOSTS[0], target=HOSTS[1]),),
        held=(HeldSite(site=SiteId("b"), source=HOSTS[0], target=None, why=why),),
        timeline=(Entry(phase=Phase.NOTE, at=1.0, offset_s=0.0, why=why),),
    )


@pytest.mark.parametrize("lang", ["en", "es"])
@given(
    st.sampled_from(["not-heard-yet", "no-beat", "placed-at-home", "nonsense"]),
    st.dictionaries(
        st.sampled_from(["host", "age_s", "since_s"]),
        st.text(max_size=5) | st.integers(-9, 9) | st.floats(0, 9),
    ),
)
def test_every_reason_has_its_sentence_wherever_it_stands(
    lang: str, code: str, values: dict[str, str | int | float]
) -> None:
    """What is found by type is what a search through everything finds, also deep in lists."""
    answer = Incidents(incidents=(incident(code, values), incident("no-beat", {})), next=None)
    slow = worded(msgspec.to_builtins(answer), lang)
    assert told(answer, lang) == msgspec.json.encode(slow)


def test_answers_without_reasons_are_left_as_they_are() -> None:
    """Nothing is added where nothing needs a sentence."""
    moved = (MovedSite(site=SiteId("a"), source=HOSTS[0], target=HOSTS[1]),)
    answer = DoneMoving(revision=3, moved=moved)
    assert told(answer, "en") == msgspec.json.encode(answer)
