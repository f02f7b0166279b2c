"""Every story of tests/scenarios ends as it is written; `pytest --rewrite` writes it anew, to be reviewed as a diff."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

import failover
from failover.judge import Kind
from tests.unit.stories import told

SCENARIOS = Path(__file__).parents[1] / "scenarios"
STORIES = sorted(SCENARIOS.glob("*.txt"))
# The rooms whose verdicts and holds the stories tell, and those of names in zones, which have tests of their own.
DECIDERS = frozenset({"capacity", "guards", "judge", "plan"})
DNS = frozenset({"dns", "ownership"})
# The first two explain what was done, never what was not; the last is the leader's own finding.
SILENT, FOUND = {"chosen", "drained"}, {"store-rewound"}
# `h is dead: silent and no answers (silence 2 s)`, `hold s at h (for g): brake (spent 3)`.
REASON = re.compile(r"^(?:\S+ is [a-z-]+|hold .*?): (?P<code>[a-z ]+?)(?: \(|$)")
VERDICT = re.compile(r"^\S+ is (?P<kind>[a-z-]+): ")


def reasons(room: str) -> set[str]:
    """Every code with which a module of the pure core explains itself; each is written out where it is used."""
    source = (Path(failover.__file__).parent / f"{room}.py").read_text()
    made = [
        node.args[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Why"
    ]
    codes = {code.value for code in made if isinstance(code, ast.Constant)}
    assert all(isinstance(code, ast.Constant) for code in made), f"{room}: a code that is computed"
    return {str(code) for code in codes}


def decided() -> list[str]:
    """What relevo says, in all stories."""
    return [line for path in STORIES for line in re.findall(r"-> (.*)", path.read_text())]


def found(pattern: re.Pattern[str], lines: Iterable[str]) -> set[str]:
    return {match[1] for line in lines if (match := pattern.match(line))}


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_is_decided_as_told(path: Path, request: pytest.FixtureRequest) -> None:
    """Played anew from its events, the story has the same right-hand side."""
    text = path.read_text()
    now = told(text)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert now == text


def test_every_verdict_has_its_story() -> None:
    """No verdict exists that no story shows."""
    assert {kind.value for kind in Kind} - found(VERDICT, decided()) == set()


def test_every_reason_of_a_verdict_or_a_hold_has_its_story() -> None:
    """The codes of the deciding rooms are, word for word, those of the stories; and no story has another."""
    known = set().union(*map(reasons, DECIDERS)) | FOUND
    shown = {words.replace(" ", "-") for words in found(REASON, decided())}
    assert known - SILENT - shown == set()
    assert shown - known == set()


def test_every_reason_to_leave_a_name_alone_has_its_test() -> None:
    """The codes of names and zones are each named by a unit test of them."""
    tests = [ast.parse(path.read_text()) for path in Path(__file__).parent.glob("test_dns_*.py")]
    named = {
        node.value
        for tree in tests
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set().union(*map(reasons, DNS)) - named == set()


def test_no_room_of_the_core_gives_reasons_unseen() -> None:
    """Each module that explains itself is among those whose reasons are looked for here."""
    rooms = {path.stem for path in Path(failover.__file__).parent.glob("*.py")}
    assert {room for room in rooms if reasons(room)} == DECIDERS | DNS


def test_every_story_says_first_what_it_shows() -> None:
    """The first line of each is a sentence for people."""
    for path in STORIES:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), path.name
