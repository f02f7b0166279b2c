"""`relevo site usage --since` against a server that says what the API's own types say."""

import msgspec
import pytest

from cli.failures import Exit
from controller.api.past import PastStep, SitePast, Spreading, overall, steps
from fleet.caps import Attachment
from fleet.model import HostId, PlanId, SiteId
from fleet.pastuse import PastAsked, PastRow, PastTold, Spread
from runtime.clock import wall
from tests.unit.commands import relevo
from tests.unit.test_cli import answering, says

START = 1_795_255_200.0
HOUR = 3600
MIB = 1 << 20


def seen(number: int, cores: float) -> PastRow:
    return PastRow(
        at=START + number * HOUR,
        seen_s=HOUR,
        at_cap_s=60.0,
        cpu_cores=Spread(cores, 2 * cores, 3 * cores),
        memory_bytes=Spread(300.0 * MIB, 400.0 * MIB, 500.0 * MIB),
    )


ASKED = PastAsked(
    number=1,
    site=SiteId("huerto"),
    since=START,
    until=START + 12 * HOUR,
    step_s=HOUR,
    plan=PlanId("standard"),
)
# Begins two hours late, and has a hole of three.
ROWS = tuple(seen(n, 0.0 if n == 2 else n / 10) for n in (2, 3, 4, 8, 9, 10, 11))
STEPS = steps(ASKED, PastTold(number=1, site=SiteId("huerto"), rows=ROWS))
PAST = SitePast(
    site=SiteId("huerto"),
    host=HostId("mx1-web-01"),
    attachment=Attachment.LOG,
    plan=PlanId("standard"),
    since=ASKED.since,
    until=ASKED.until,
    step_s=HOUR,
    p95_estimated=True,
    seen_since=START + 2 * HOUR,
    steps=STEPS,
    overall=overall(START, STEPS),
)


async def test_the_past_is_drawn_with_its_gaps() -> None:
    """Bars over time with a dot where nobody looked; zero is a bar, and what is not known is said so, never drawn."""
    async with answering(says(PAST)) as (url, requests):
        result = await relevo("site", "usage", "huerto", "--since", "12h", "--url", url)
        as_json = await relevo("site", "usage", "huerto", "--since", "12h", "--json", "--url", url)
    assert (result.code, result.err) == (Exit.OK, "")
    assert result.width <= 80
    flat = " ".join(result.out.split())
    assert [text for text in SHOWN if text not in flat] == [], result.out
    assert msgspec.json.decode(as_json.out, type=SitePast) == PAST
    assert requests[0].path == "/v1/sites/huerto/usage/past"
    assert float(requests[0].query["since"]) == pytest.approx(wall() - 12 * HOUR, abs=60)


SHOWN = (
    "CPU ··▁▃▄···▆▇▇█ 0.64 2.20 3.30",
    "memory ··███···████ 300 MiB 400 MiB 500 MiB",
    "processes not known",
    "58% of the time; mx1-web-01 has it since 2026-11-21 12:00:00Z",
    "15:00:00Z for 3 h",
    "7 min of standard",
    "an estimate, from its access log",
    "P95 ≈",
)


async def test_a_past_that_nobody_saw_is_said_so() -> None:
    """Without a record there is no bar and no number."""
    nothing = steps(ASKED, PastTold(number=1, site=SiteId("huerto")))
    empty = msgspec.structs.replace(
        PAST, seen_since=None, steps=nothing, overall=overall(START, nothing)
    )
    assert {getattr(empty.overall, name) for name in ("cpu_cores", "at_cap_s")} == {None}
    async with answering(says(empty)) as (url, _):
        result = await relevo("site", "usage", "huerto", "--since", "12h", "--url", url)
    flat = " ".join(result.out.split())
    assert "0% of the time; mx1-web-01 has no record of it" in flat
    assert "has seen nothing of it in this time" in flat and "█" not in flat and "min" not in flat


async def test_a_time_is_asked_for_as_it_was_said() -> None:
    """Ago or a date, a step and a plan; nonsense asks nobody; a host without a link here is asked for elsewhere."""
    command = ("site", "usage", "huerto")
    async with answering(says(PAST)) as (url, requests):
        said = ("--since", "2026-11-20", "--until", "1d", "--step", "1h", "--plan", "plus")
        assert (await relevo(*command, *said, "--url", url)).code == Exit.OK
        query = dict(requests[0].query)
        for wrong in (("--step", "1h"), ("--since", "41d"), ("--since", "noon")):
            assert (await relevo(*command, *wrong, "--url", url)).code == Exit.USAGE
        assert len(requests) == 1
        detail = "The agent of mx1-web-01 has no link to this controller; it has one to c2."
        async with answering(says(detail, 503, problem="host-not-linked")) as (first, _):
            once = await relevo(*command, "--since", "1h", "--url", first)
            twice = await relevo(*command, "--since", "1h", "--url", first, "--url", url)
    assert (query["since"], query["step_s"], query["plan"]) == ("1795132800.0", "3600", "plus")
    assert float(query["until"]) == pytest.approx(wall() - 86_400, abs=60)
    assert once.code == Exit.UNREACHABLE and detail in once.err
    assert twice.code == Exit.OK


def test_every_step_is_there_and_none_that_was_not_asked_for() -> None:
    """A host that speaks of another time, or of half an hour, is not believed (rule R15)."""
    strange = (
        *(seen(n, 1.0) for n in (-1, 12, 3)),
        PastRow(at=START + HOUR / 2, seen_s=HOUR, tasks=Spread(1.0, 1.0, 1.0)),
    )
    found = steps(ASKED, PastTold(number=1, site=SiteId("huerto"), rows=strange))
    assert [step.at for step in found] == [START + n * HOUR for n in range(12)]
    assert [step.at for step in found if step.seen_s] == [START + 3 * HOUR]
    assert {(step.cpu_cores, step.at_cap_s) for step in found if not step.seen_s} == {(None, None)}
    assert found[3] == PastStep(
        at=START + 3 * HOUR,
        seen_s=HOUR,
        shadow_s=0.0,
        at_cap_s=60.0,
        cpu_cores=Spreading(average=1.0, p95=2.0, max=3.0),
        memory_bytes=Spreading(average=300.0 * MIB, p95=400.0 * MIB, max=500.0 * MIB),
        read_bytes_per_s=None,
        write_bytes_per_s=None,
        tasks=None,
        requests_per_s=None,
    )
