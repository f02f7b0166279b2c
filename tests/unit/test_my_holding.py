"""The words that a member is given for each penalty that the ladder, the watchdog or a person can lay on its site."""

import msgspec
import pytest

from agent.isolate.table import TABLE
from controller.api.myholding import holds, told
from fleet.caps import Level, Nature, Penalty, Resource
from fleet.model import SiteId, Why
from runtime.words import LANGUAGES, explain

PENALTY = Penalty(
    site=SiteId("huerto"),
    level=Level.SOFT,
    resource=Resource.CPU,
    since=0.0,
    until=300.0,
    why=Why("isolation-suspect"),
    enforced=True,
)
LADDER = sorted({(row.to, row.code) for row in TABLE.values() if row.to >= Level.SOFT})


@pytest.mark.parametrize(("level", "code"), LADDER, ids=[f"{le.name}-{c}" for le, c in LADDER])
def test_every_step_of_the_ladder_has_words_for_a_member(level: Level, code: str) -> None:
    """What it means and why, in each language, whatever the host says beside the code."""
    held = msgspec.structs.replace(PENALTY, level=level, why=Why(code, {"site": "zarzamora"}))
    mine = told(held)
    for lang in LANGUAGES:
        for why in (mine.what, mine.why):
            text = explain(why, lang)
            assert text and text != why.code and "{" not in text and "zarzamora" not in text


def test_what_holds_nothing_is_not_told() -> None:
    """Shadow, and a site that is only looked at."""
    assert holds(PENALTY)
    assert not holds(msgspec.structs.replace(PENALTY, enforced=False))
    assert not holds(msgspec.structs.replace(PENALTY, level=Level.WATCH))


@pytest.mark.parametrize(
    ("said", "what", "why"),
    [
        ({"nature": Nature.HACKED, "level": Level.ISOLATE}, "my-site-isolated", "held-as-hacked"),
        ({"why": Why("isolation-futile"), "level": Level.CAP}, "my-site-relieved", "held-for-memory"),
        ({"owner": "ana", "level": Level.STOP}, "my-site-stopped", "held-by-people"),
        ({"why": Why("isolation-danger"), "level": Level.STOP}, "my-site-stopped", "held-in-danger"),
        ({"why": Why("of-a-newer-agent")}, "my-site-last", "held-for-the-host"),
    ],
)  # fmt: skip
def test_a_reason_fits_its_penalty(said: dict[str, object], what: str, why: str) -> None:
    """A person's order comes before all, then what is dangerous; what a newer agent says is said in general."""
    mine = told(msgspec.structs.replace(PENALTY, **said))
    assert (mine.what.code, mine.why.code) == (what, why)


@pytest.mark.parametrize("share", [float("nan"), -1, 1e9, "half of it"])
def test_a_number_that_can_not_be_is_left_out(share: float | str) -> None:
    """A compromised host's share is no text for a member (rule R15): the plainer sentence says it."""
    values: dict[str, str | int | float] = {"stall_percent": 38, "share_percent": share}
    why = told(msgspec.structs.replace(PENALTY, why=Why("isolation-suspect", values))).why
    assert "share_percent" not in why.values
    assert (
        explain(why, "en")
        == "Other sites on its server waited for the CPU because of it (heavy code)."
    )
