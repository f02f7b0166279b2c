"""Each of the design's rules has tests that bear its number, or is said to wait."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
RULES = frozenset(range(1, 17))
WAITING = frozenset({9})  # the data gate: nothing measures yet what a move would lose
# Where it is decided who is penalized and what is kept of visitors there is no world to simulate.
OUTSIDE = frozenset({14, 16})


def numbers(pattern: str, *paths: Path) -> set[int]:
    found = (re.findall(pattern, path.read_text()) for path in paths)
    return {int(number) for each in found for number in each}


def test_every_rule_that_is_kept_names_its_tests() -> None:
    """By `test_rN_…`; one that gets its first test is no longer said to wait."""
    named = numbers(r"def test_r(\d+)_", *TESTS.rglob("test_*.py"))
    assert named == RULES - WAITING


def test_the_simulation_asserts_the_rules_that_it_is_said_to() -> None:
    """In its assertions of each step, or as a story of its own."""
    folder = TESTS / "simulation"
    asserted = numbers(r"\bR(\d+):", *folder.glob("*.py"))
    told = numbers(r"def test_r(\d+)_", *folder.glob("test_*.py"))
    assert asserted | told == RULES - WAITING - OUTSIDE


def test_the_texts_say_which_wait_and_which_are_outside() -> None:
    """Whoever contributes reads the truth, and so does whoever chooses relevo."""
    said = (ROOT / "CONTRIBUTING.md").read_text()
    for number in WAITING | OUTSIDE:
        assert f"R{number}" in said
    lacks = (ROOT / "README.md").read_text().partition("## What is not here yet")[2]
    assert "max_data_loss_s" in lacks.partition("## ")[0]
    for path in (ROOT / "failover").glob("*.py"):
        assert "max_data_loss_s" not in path.read_text(), "the gate is there: say so"
