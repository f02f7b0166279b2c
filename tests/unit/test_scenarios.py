"""Every story of tests/scenarios ends as it is written; `pytest --rewrite` writes it anew, to be reviewed as a diff."""

import re
from pathlib import Path

import pytest

import failover
from failover.judge import Kind
from tests.unit.stories import told

SCENARIOS = Path(__file__).parents[1] / "scenarios"
STORIES = sorted(SCENARIOS.glob("*.txt"))
DECIDERS = ("judge", "plan", "capacity", "guards")
# The first two explain what was done, never what was not; the last is the leader's own finding.
SILENT, FOUND = {"chosen", "drained"}, {"store-rewound"}


def reasons() -> set[str]:
    """Every code with which the pure core explains a verdict or a hold."""
    room = Path(failover.__file__).parent
    sources = [(room / f"{name}.py").read_text() for name in DECIDERS]
    return {code for s in sources for code in re.findall(r'Why\(\s*"([a-z-]+)"', s)}


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_the_story_is_decided_as_told(path: Path, request: pytest.FixtureRequest) -> None:
    """Played anew from its events, the story has the same right-hand side."""
    text = path.read_text()
    now = told(text)
    if request.config.getoption("--rewrite"):
        path.write_text(now)
    else:
        assert now == text


def test_every_verdict_and_every_reason_to_hold_has_its_story() -> None:
    """No verdict and no reason exists that no story shows."""
    decided = "\n".join(re.findall(r"-> (.*)", "\n".join(path.read_text() for path in STORIES)))
    untold = [kind.value for kind in Kind if f" is {kind.value}: " not in decided]
    known = (reasons() | FOUND) - SILENT
    untold += sorted(code for code in known if code.replace("-", " ") not in decided)
    assert not untold


def test_every_story_says_first_what_it_shows() -> None:
    """The first line of each is a sentence for people."""
    for path in STORIES:
        first = path.read_text().splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), path.name
