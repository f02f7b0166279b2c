"""What a host calls people for is said by each of its own reasons: on the page, in the notice, in the documents."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller import calls
from controller.notify import matters
from controller.notify.due import Draft, Due
from controller.notify.letter import Letter
from controller.notify.matters import Plea
from controller.notify.voice import Voice
from controller.notify.wording import letter
from controller.web import words
from controller.web.summary import summarise
from controller.web.words import Speech
from fleet.model import SiteId, Why
from runtime.words import LANGUAGES, explain
from tests.unit.test_dashboard_pages import HUERTO, WEB1, english, read_all, well
from tests.unit.test_docs import understand
from tests.unit.test_notices import WALL, scene

ROOT = Path(__file__).parents[2]
VALUES: dict[str, str | int | float] = {
    "site": "huerto",
    "sites": 7,
    "times": 3,
    "held": 2,
    "most": 2,
    "resource": "cpu",
    "stall_percent": 40,
    "for_s": 90,
}
GENERAL = "in trouble, and no site is found to be the cause"


def codes() -> Iterator[str]:
    """Of every reason that is made where the ladder asks for people."""
    for path in sorted((ROOT / "agent/isolate").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and "asks.append(" in ast.unparse(node):
                yield from re.findall(r"Why\('([a-z-]+)'", ast.unparse(node))


CODES = sorted(set(codes()))


def asked(*named: str) -> tuple[Why, ...]:
    return tuple(Why(code, dict(VALUES)) for code in named)


def told(*whys: Why, language: str = "en") -> Letter:
    (matter,) = (m for m in matters.standing(scene(help={WEB1: Plea(at=99.0, whys=whys)})))
    draft = Draft(id="x", dues=(Due(matter=matter),), follows=())
    return letter(draft, [Voice(language, "c1", "https://c1")], WALL, cluster="k")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reason_to_call_has_a_headline_of_its_own(language: str) -> None:
    """Nobody is sent to look for a backup when the cause is known, in either language."""
    assert len(CODES) > 5, "the walk found too little to test anything"
    assert set(CODES) == calls.CALLS.keys() == words.CALLS.keys()
    said = {code: explain(calls.headline(WEB1, *asked(code)), language) for code in CODES}
    assert len(set(said.values())) == len(CODES)
    assert all(WEB1 in headline and "{" not in headline for headline in said.values())
    assert {code for code, headline in said.items() if GENERAL in headline} <= {
        "isolation-no-culprit"
    }


@pytest.mark.parametrize("code", CODES)
async def test_the_page_and_the_notice_say_what_the_host_said(code: str) -> None:
    """The headline, the sentence, and for a site that is named the way to it."""
    (why,) = asked(code)
    headline = explain(calls.headline(WEB1, why))
    mail = told(why)
    assert mail.subject == f"[relevo] {headline}"
    assert explain(why) in mail.text
    for line in mail.notices[0].commands:
        understand(line)
        assert "SITE" not in line and "HOST" not in line
    look = replace(well(), help={WEB1: (why,)})
    first, below = english(look)
    assert first == "1 thing needs you"
    assert f"{headline}. {explain(why)} {words.CALLS[code]}" in below
    assert ("a backup, a disk" in below) == (code == "isolation-no-culprit")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_host_that_calls_for_two_things_is_told_of_both(language: str) -> None:
    """By the notice, on the first page, and on the page of the host: the more pressing is the headline."""
    both = asked("isolation-no-culprit", "isolation-stopped-again")
    mail = told(*both, language=language)
    pages = await read_all(replace(well(), help={WEB1: both}), ["/", f"/hosts/{WEB1}"], language)
    for why in both:
        said = explain(why, language)
        assert said in mail.text
        assert [page for page in pages if said not in page] == []
    assert explain(calls.headline(WEB1, both[1]), language) in mail.subject
    assert explain(calls.headline(WEB1, both[0]), language) in mail.text
    assert f"relevo host show {WEB1}" in mail.notices[0].commands
    assert "relevo site explain huerto" in mail.notices[0].commands


def test_another_site_is_news_and_another_number_is_none() -> None:
    """A call for a second site is told; how long it has lasted is not told anew."""

    def stage(*whys: Why) -> str:
        (matter,) = matters.standing(scene(help={WEB1: Plea(at=99.0, whys=whys)}))
        return matter.stage

    one = Why("isolation-stopped-again", {**VALUES, "site": "huerto", "times": 3})
    more = Why("isolation-stopped-again", {**VALUES, "site": "huerto", "times": 4})
    other = Why("isolation-stopped-again", {**VALUES, "site": "blog", "times": 3})
    assert stage(one) == stage(more) != stage(one, other)
    assert stage(one, other) == stage(other, one)
    whole = Why("isolation-too-many", {**VALUES, "site": "blog"})
    assert stage(whole) == stage(Why("isolation-too-many", dict(VALUES)))
    _, below = english(replace(well(), help={WEB1: (one, other)}))
    assert explain(one) in below and explain(other) in below


def test_what_a_host_makes_up_is_no_command() -> None:
    """A reason that nobody knows is told as it is; a name that is none is not typed by anybody."""
    mail = told(Why("never-heard-of", {"site": "x"}))
    assert mail.subject == "[relevo] mx1-web-01 asks for help"
    assert "never-heard-of" in mail.text
    evil = told(Why("isolation-in-shadow", {**VALUES, "site": "x; rm -rf ~"}))
    assert not [line for line in evil.notices[0].commands if ";" in line]
    bare = told(Why("isolation-in-shadow"))
    assert bare.notices[0].commands
    _, below = english(replace(well(), help={WEB1: (Why("never-heard-of"),)}))
    assert "mx1-web-01 asks for help." in below and GENERAL not in below


def test_a_call_leads_to_the_site_that_it_names() -> None:
    """Where that is one of the fleet; else to the host."""
    for why, path in (
        (asked("isolation-look-again")[0], f"/ui/sites/{HUERTO}"),
        (Why("isolation-look-again", {"site": SiteId("nobody")}), f"/ui/hosts/{WEB1}"),
        (Why("isolation-no-culprit", {"resource": "cpu"}), f"/ui/hosts/{WEB1}"),
    ):
        said = summarise(replace(well(), help={WEB1: (why,)}), Speech("en", 0.0))
        assert [point.path for point in said.points] == [path]


def test_a_call_that_is_over_does_not_say_that_all_is_well() -> None:
    """A site that was let go is still to be looked at."""
    over = Draft(id="x", dues=(Due(matter=matters.over(f"help/{WEB1}", "s")),), follows=())
    mail = letter(over, [Voice("en", "c1")], WALL, cluster="k")
    assert mail.subject == "[relevo] mx1-web-01 no longer asks for help"


def test_the_document_lists_what_people_are_called_for() -> None:
    """Each headline as it is sent, and no other."""
    text = (ROOT / "docs/caps.md").read_text().partition("## Being called")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (HOST[^|]*|SITE on HOST[^|]*) \|", text, re.M)
    named: dict[str, str | int | float] = {**VALUES, "site": "SITE", "sites": 7, "times": 3}
    said = {explain(calls.headline("HOST", Why(code, named))) for code in CODES}
    assert set(rows) == said
