"""The demo's picture and its measuring, on plain values."""

import asyncio

import pytest
from rich.console import Console

from deploy.demo.client import EntryItem, HostItem, IncidentItem, Reason
from deploy.demo.effect import Incomplete, converged
from deploy.demo.fleet import fleet
from deploy.demo.lab import in_namespaces, on_loopback
from deploy.demo.load import Tally
from deploy.demo.picture import Picture, draw
from fleet.documents import read
from fleet.model import MovedSite, Phase
from fleet.writing import write

PHASES = (
    *(Phase.SYMPTOM, Phase.VERDICT, Phase.DECIDED, Phase.COMMITTED, Phase.EDGE, Phase.EDGE),
    *(Phase.EDGES, Phase.DNS_SENT, Phase.DNS_SERVER, Phase.DNS_SERVER, Phase.DNS, Phase.PROVEN),
    *(Phase.COMPLETE, Phase.NOTE),
)


def screen(picture: Picture, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(draw(picture, width, height), end="")
    return capture.get().splitlines()


def picture() -> Picture:
    hosts = tuple(
        HostItem(
            id=machine.name,
            tag=machine.tag,
            location=machine.location,
            verdict="dead" if machine.name == "web1" else "service-down",
            why=Reason("x", "No beat for 5.07 s, and no live edge has had an answer from it."),
            sites_home=6,
            sites_here=6,
        )
        for machine in in_namespaces().hosts
    )
    timeline = tuple(
        EntryItem(phase=phase, at=100.0 + n, offset_s=0.1 * n, why=Reason("x", "Words. " * 30))
        for n, phase in enumerate(PHASES)
    )
    moved = (MovedSite(site="a", source="web1", target="web2"),)  # type: ignore[arg-type]
    return Picture(
        hosts=hosts,
        sites=24,
        incident=IncidentItem(
            id="i",
            subject="web1",
            verdict="dead",
            began_at=1,
            timeline=timeline,
            moved=moved,
            complete=True,
        ),
        tallies=[Tally(at=n, sites={"a": (100, n % 7)}) for n in range(300)],
        failed={("a", "10.0.0.1:80"): 40, ("b", "10.0.0.1:80"): 2, ("b", "10.0.0.2:80"): 3},
        struck=frozenset({"a", "10.0.0.2:80"}),
        message="m" * 200,
    )


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_the_picture_fits_the_screen_and_its_last_line_is_the_keys(width: int, height: int) -> None:
    """However long the words, no line wraps, none is lost below the edge, and the keys stay in sight."""
    lines = screen(picture(), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert lines[-1].rstrip().endswith("quit")


def test_what_matters_of_a_timeline_stays_when_the_screen_is_small() -> None:
    """Single edges and servers give way before the verdict does."""
    shown = "\n".join(screen(picture(), 80, 24))
    for phase in (Phase.VERDICT, Phase.DECIDED, Phase.COMMITTED, Phase.PROVEN, Phase.COMPLETE):
        assert f" {phase.value} " in shown
    assert f" {Phase.DNS_SERVER.value} " in "\n".join(screen(picture(), 120, 40))


def test_failed_requests_are_told_apart() -> None:
    """Requests for a struck host's sites, and those by a struck edge, are counted apart from all others."""
    assert "failed: 43 where you struck, 2 elsewhere" in "\n".join(screen(picture(), 80, 24))


def test_the_demo_s_fleet_has_the_shape_that_is_promised() -> None:
    """24 sites, 20 behind the edges and 4 direct; web1 has clearly the most; standbys are other hosts."""
    for lab in (in_namespaces(), on_loopback(100, list(range(21000, 21010)))):
        declared = fleet(lab)
        routes = [site.route for site in declared.sites.values()]
        assert (routes.count("edges"), routes.count("direct")) == (20, 4)
        homes = [site.home for site in declared.sites.values()]
        first, second = sorted((homes.count(home) for home in set(homes)), reverse=True)[:2]
        assert homes.count(homes[0]) == first >= second + 3
        assert all(site.home not in site.standbys for site in declared.sites.values())
        assert all(len(set(site.standbys)) == 3 for site in declared.sites.values())
        assert read(write(declared), "demo.yaml") == declared


@pytest.mark.virtual_time
async def test_converged_tells_when_the_last_answer_turned_right() -> None:
    """Each question counts from its first right answer; the last of them is the result, within 20 ms."""
    now = asyncio.get_running_loop().time
    right_at = {("here", "a"): 1.0, ("here", "b"): 1.5, ("there", "a"): 0.2, ("there", "b"): 2.0}

    async def is_right(place: str, question: str) -> bool:
        return now() >= right_at[place, question]

    found = await converged({"here": "ab", "there": "ab"}, is_right, until=now() + 10)
    assert 2.0 <= found <= 2.021


@pytest.mark.virtual_time
async def test_converged_is_not_delayed_by_questions_that_hang() -> None:
    """Questions asked while nothing answers may hang; the next one counts."""
    now = asyncio.get_running_loop().time

    async def is_right(place: str, question: str) -> bool:
        if now() < 1.0:
            await asyncio.sleep(100)
        return True

    found = await converged({"here": "abcdefgh"}, is_right, until=now() + 10)
    assert 1.0 <= found <= 1.041


@pytest.mark.virtual_time
async def test_converged_names_what_is_missing_when_time_is_over() -> None:
    """The finding says how many answers are not right, and names some."""
    now = asyncio.get_running_loop().time

    async def is_right(place: str, question: str) -> bool:
        return question == "a"

    with pytest.raises(Incomplete, match="1 answers are not right: b at here"):
        await converged({"here": "ab"}, is_right, until=now() + 3)
