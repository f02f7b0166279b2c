"""A question about a site's past on its way: asked over a link, found, put together, and taken as an answer."""

import asyncio
import sqlite3
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.link import Links
from agent.questions import WAITING_MAX, Questions, Reply
from agent.usage.archive import Archive
from agent.usage.bins import binned
from agent.usage.history import History
from agent.usage.ledger import MEASURES, SLOT_S, Row, Summary
from controller.ports import ConnectionLost
from controller.questions import (
    ANSWER_S,
    OF_ONE_HOST,
    NoAnswer,
    NotLinked,
    TooManyQuestions,
    hearing,
)
from controller.questions import Questions as Asking
from fleet.messages import Beat
from fleet.model import ControllerId, HostId, Observation, PlanId, SiteId, Word
from fleet.pastuse import ROWS_MAX, STEPS_S, PastAsked, PastRow, PastTold, Spread, step_for
from metrics.catalogue import AGENT, CONTROLLER
from metrics.exporter import Exporter
from tests.unit.test_agent_link import Controller
from tests.unit.wires import a_beat

SITE, PLAN = SiteId("huerto"), PlanId("standard")
H1, H2 = HostId("h1"), HostId("h2")
C1, C2, C3 = (ControllerId(f"c{n}") for n in (1, 2, 3))
DAY_S = 86_400
NOON = 1_795_262_400  # Unix s


def row(slot: int, seen_s: float = 300.0, **cpu: float) -> Row:
    told = Summary(cpu.get("average", 0.5), cpu.get("p95", 1.0), cpu.get("max", 2.0))
    return Row(site=SITE, slot=slot, seen_s=seen_s, measures={"cpu_cores": told})


def question(since: float, until: float, step_s: int = SLOT_S, number: int = 7) -> PastAsked:
    return PastAsked(number=number, site=SITE, since=since, until=until, step_s=step_s, plan=PLAN)


# --- put together


def test_the_steps_are_whole_slots() -> None:
    """A controller asks for no step that the host's rows can't make up, and each divides a day."""
    assert STEPS_S[0] == SLOT_S
    assert all(step % SLOT_S == 0 and DAY_S % step == 0 for step in STEPS_S)


@given(st.floats(1.6e9, 4e9), st.floats(0, 40 * DAY_S), st.floats(0, DAY_S))
def test_no_question_asks_for_more_rows_than_an_answer_has(
    since: float, span_s: float, at_least_s: float
) -> None:
    """Whatever is asked of forty days, a step is found of which there are not too many."""
    step = step_for(since, since + span_s, at_least_s)
    assert step in STEPS_S and step >= at_least_s
    assert len(range(int(since // step) * step, int(since + span_s), step)) <= ROWS_MAX


def test_a_step_is_weighed_by_what_was_seen() -> None:
    """An average counts by its time, the greatest stays the greatest, and a cap of the plan is summed."""
    rows = (row(0, 300, average=1.0, p95=2.0, max=9.0), row(2, 100, average=2.0, p95=5.0, max=6.0))
    (made,) = binned(rows, 900, lambda row: {0: 60.0, 2: 30.0}[row.slot])
    assert made == PastRow(at=0, seen_s=400, at_cap_s=90.0, cpu_cores=Spread(1.25, 5.0, 9.0))


ROWS = st.dictionaries(
    st.integers(0, 2000),
    st.tuples(
        st.floats(0, 300),
        st.dictionaries(
            st.sampled_from(MEASURES), st.lists(st.floats(0, 1e9), min_size=3, max_size=3)
        ),
    ),
    max_size=30,
)


@given(ROWS, st.sampled_from(STEPS_S))
def test_nothing_is_lost_and_nothing_made_up(
    told: dict[int, tuple[float, dict[str, list[float]]]], step_s: int
) -> None:
    """Every second that was seen is in one step, no step is without a row, and of no measure more is told than was."""
    rows = [
        Row(
            site=SITE,
            slot=slot,
            seen_s=seen_s,
            measures={name: Summary(*sorted(found)) for name, found in measures.items()},
        )
        for slot, (seen_s, measures) in sorted(told.items())
    ]
    steps = tuple(binned(rows, step_s, lambda row: None))
    assert sum(one.seen_s for one in steps) == pytest.approx(sum(one.seen_s for one in rows))
    assert {one.at for one in steps} == {one.slot * SLOT_S // step_s * step_s for one in rows}
    for one in steps:
        mine = [it for it in rows if it.slot * SLOT_S // step_s * step_s == one.at]
        for measure in MEASURES:
            known = [it.measures[measure] for it in mine if measure in it.measures]
            spread = getattr(one, measure)
            assert (spread is None) == (not known)
            if known:
                assert spread.max == pytest.approx(max(it.max for it in known), abs=0.001)
                assert min(it.average for it in known) - 0.001 <= spread.average <= spread.max
                assert any(spread.p95 == pytest.approx(it.p95, abs=0.001) for it in known)


# --- found


def test_a_history_answers_for_the_time_that_is_asked_about(tmp_path: Path) -> None:
    """From its beginning and before its end; since when there is a record; and what the plan would have held."""
    history = History(tmp_path / "usage.sqlite", max_bytes=1 << 24)
    begin = NOON // SLOT_S
    below = msgspec.structs.replace(row(begin), at_cap_s={PLAN: 0.0})
    capped = msgspec.structs.replace(row(begin + 1), at_cap_s={PLAN: 60.0, PlanId("other"): 300.0})
    history.write([row(begin - 9), below, capped, row(begin + 2)])
    told = history.told(question(NOON, NOON + 2 * SLOT_S))
    assert [one.at for one in told.rows] == [NOON, NOON + SLOT_S]
    assert [one.at_cap_s for one in told.rows] == [0.0, 60.0]
    before = history.told(question(NOON - 9 * SLOT_S, NOON))
    assert [one.at_cap_s for one in before.rows] == [None], "nobody compared them then"
    both = history.told(question(NOON - 9 * SLOT_S, NOON + DAY_S, DAY_S))
    assert [one.at_cap_s for one in both.rows] == [60.0], "of a step what is known of it"
    assert (told.number, told.first, told.error) == (7, NOON - 9 * SLOT_S, "")
    unknown = msgspec.structs.replace(question(0, NOON), site=SiteId("nobody"))
    assert history.told(unknown) == PastTold(number=7, site=SiteId("nobody"))
    history.close()
    assert "can't be opened" in history.told(question(0, NOON)).error


async def test_a_disk_that_hangs_is_said(tmp_path: Path) -> None:
    """An answer without rows says why; before anything is measured, too."""
    with Archive(tmp_path / "usage.sqlite", max_bytes=1 << 24) as archive:
        blocker = sqlite3.connect(tmp_path / "usage.sqlite", isolation_level=None)
        await archive.rows(SITE, 0)
        blocker.execute("BEGIN IMMEDIATE")
        for slot in range(12):
            archive.keep([row(slot)])
        assert "the disk" in (await archive.told(question(0, NOON))).error
        blocker.execute("ROLLBACK")
        blocker.close()
    assert "nothing is measured" in (await archive.told(question(0, NOON))).error


# --- asked and answered at the host


@pytest.mark.virtual_time
async def test_only_a_few_questions_wait() -> None:
    """They are answered one at a time, in order; who comes when there is no room is told so at once."""
    answers: list[PastTold] = []

    async def find(asked: PastAsked) -> PastTold:
        await asyncio.sleep(1)
        return PastTold(number=asked.number, site=asked.site, first=1.0)

    def reply(frame: bytes) -> None:
        answers.append(msgspec.json.decode(frame, type=PastTold))

    questions = Questions(find, Exporter(AGENT))
    for number in range(WAITING_MAX + 2):
        questions.ask(question(0, NOON, number=number), reply)
    assert [one.number for one in answers] == [WAITING_MAX, WAITING_MAX + 1]
    assert all("wait there already" in one.error for one in answers)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(questions.keep())
        await asyncio.sleep(WAITING_MAX + 0.5)
        task.cancel()
    assert [one.number for one in answers[2:]] == list(range(WAITING_MAX))
    assert not any(one.error for one in answers[2:])


@pytest.mark.virtual_time
async def test_whoever_asked_is_answered_and_no_beat_is_late() -> None:
    """The other controllers hear nothing of it; beats keep their time; an answer to a link that broke is dropped."""
    one, two = Controller(), Controller()
    replies: list[Reply] = []
    links = Links(
        (C1, C2),
        lambda id: {C1: one, C2: two}[id].dial(),
        lambda _: None,
        random=Random(1),
        reconnect_max_s=5.0,
        exporter=Exporter(AGENT),
        question=lambda _, reply: replies.append(reply),
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(links.keep())
        for sequence in range(1, 9):
            links.beat(a_beat(H1, sequence=sequence))
            if sequence == 4:
                one.say(question(0, NOON))
            if sequence == 6:
                replies[0](msgspec.json.encode(PastTold(number=7, site=SITE, first=5.0)))
            await asyncio.sleep(0.5)
        task.cancel()
    assert [it.number for _, it in one.heard if isinstance(it, PastTold)] == [7]
    assert not [it for _, it in two.heard if isinstance(it, PastTold)]
    assert [at for at, it in one.heard if isinstance(it, Beat)] == [n * 0.5 for n in range(8)]
    at, beside = (
        next(at for at, it in one.heard if isinstance(it, kind)) for kind in (PastTold, Beat)
    )
    assert (at, beside) == (2.5, 0.0)


# --- asked by a controller


class Line:
    """What a controller sends to a host; `breaks` at the first word."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.sent: list[PastAsked] = []
        self._breaks = breaks

    async def send(self, frame: bytes) -> None:
        if self._breaks:
            raise ConnectionLost("gone")
        self.sent.append(msgspec.json.decode(frame, type=PastAsked))


def told(asked: PastAsked, error: str = "") -> PastTold:
    return PastTold(number=asked.number, site=asked.site, first=5.0, error=error)


@pytest.mark.virtual_time
async def test_an_answer_is_taken_from_whom_it_was_asked_of() -> None:
    """Another host's, a second one and one that comes too late change nothing (rule R15)."""
    asking, line = Asking(Exporter(CONTROLLER)), Line()
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(asking.ask(H1, question(0, NOON), line.send))
        await asyncio.sleep(0)
        (asked,) = line.sent
        asking.take(H2, msgspec.structs.replace(told(asked), first=1.0))
        asking.take(H1, told(asked))
        asking.take(H1, told(asked, "no"))
    assert answer.result() == told(asked)
    asking.take(H1, told(asked))
    with pytest.raises(NoAnswer, match="h1 did not answer within 8 s"):
        await asking.ask(H1, question(0, NOON), line.send)
    asking.take(H1, told(line.sent[-1]))
    assert line.sent[-1].number != asked.number


@pytest.mark.virtual_time
async def test_few_questions_are_open_to_one_host() -> None:
    """The fifth is refused at once, another host's is not; after the time for an answer there is room again."""
    asking, line = Asking(Exporter(CONTROLLER)), Line()

    async def ask(host: HostId) -> str:
        try:
            await asking.ask(host, question(0, NOON), line.send)
        except (NoAnswer, TooManyQuestions) as error:
            return type(error).__name__
        return "answered"

    now = asyncio.get_running_loop().time
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(H1)) for _ in range(OF_ONE_HOST)]
        await asyncio.sleep(1)
        assert (await ask(H1), now()) == ("TooManyQuestions", 1.0)
        other = group.create_task(ask(H2))
    assert {task.result() for task in (*tasks, other)} == {"NoAnswer"}
    assert now() == 1.0 + ANSWER_S
    assert len(line.sent) == OF_ONE_HOST + 1


async def test_a_host_that_is_not_there_is_said_with_who_has_it() -> None:
    """A broken link, none at all, and the controllers whose word on the host is that they hear it."""
    asking, asked = Asking(Exporter(CONTROLLER)), question(0, NOON)
    with pytest.raises(NoAnswer, match="link to h1 broke"):
        await asking.ask(H1, asked, Line(breaks=True).send)
    with pytest.raises(NotLinked):
        await asking.ask(H1, asked, None)
    observers = {C1: Observation(), C2: Observation(), C3: Observation(words={H1: Word.SILENT})}
    assert hearing(H1, C1, observers) == {C2}
    assert str(NotLinked(H1, {C2: "https://c2"})).endswith("it has one to c2 (https://c2)")
    assert str(NotLinked(H1, {})).endswith("nor to any other")
