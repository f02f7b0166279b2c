"""Every story of isolation ends as it is written; `pytest --rewrite` writes it anew, to be reviewed as a diff."""

import re
from pathlib import Path

import pytest

from agent.isolate.table import TABLE
from fleet.caps import Nature
from tests.unit.heldstories import told

STORIES = sorted((Path(__file__).parents[1] / "scenarios" / "isolation").glob("*.txt"))
MOVE = re.compile(r"-> \S+ (?P<was>[a-z]+) to [a-z]+[^:]*: (?P<code>isolation [a-z ]+?)(?: \(|$)")


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_of_isolation_is_decided_as_told(
    path: Path, request: pytest.FixtureRequest
) -> None:
    """Played anew from its events, the story has the same right-hand side."""
    text = path.read_text()
    now = told(text)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert now == text


def test_every_row_of_the_table_has_its_story() -> None:
    """From each level, by each reason that leads away from it, some story goes."""
    shown = {
        (found["was"], found["code"].replace(" ", "-"))
        for path in STORIES
        for found in MOVE.finditer(path.read_text())
    }
    rows = {(level.name.lower(), row.code) for (level, _), row in TABLE.items()}
    assert rows - shown == set()
    assert shown - rows == set()


def test_every_nature_has_its_story() -> None:
    """Heavy, crawled, viral and hacked: each is told with its own way up."""
    told_of = {
        found for path in STORIES for found in re.findall(r"nature ([a-z]+)", path.read_text())
    }
    assert {nature.value for nature in Nature} - told_of == set()


def test_every_story_of_isolation_says_first_what_it_shows() -> None:
    """The first line of each is a sentence for people."""
    for path in STORIES:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), path.name
