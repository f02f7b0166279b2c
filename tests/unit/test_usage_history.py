"""What is kept of use: forty days of rows, and what each plan would have meant."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from agent.signals import SiteSigns
from agent.usage.archive import Archive
from agent.usage.history import DAY, DAYS, History
from agent.usage.ledger import SLOT_S, Ledger, Row, Summary, terms
from fleet.caps import Attachment
from fleet.model import Caps, PlanId, SiteId
from tests.unit.test_usage_ledger import CAPS, LARGE, PLANS, SMALL, A, busy, signals

B = SiteId("b")


def row(site: SiteId, slot: int, cores: float = 0.25, **values: object) -> Row:
    measures = {
        "cpu_cores": Summary(cores, cores * 2, cores * 3),
        "memory_bytes": Summary(9, 10, 11),
    }
    fields = {"site": site, "slot": slot, "seen_s": 300.0, "measures": measures, **values}
    return msgspec.convert(fields, Row)


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "usage.sqlite", max_bytes=1 << 30)


def test_rows_come_back_as_they_were(history: History, tmp_path: Path) -> None:
    """Also after a restart; only those of the site, and only since when they are asked for."""
    history.write([row(A, 10), row(B, 10), row(A, 11, 0.5)])
    history.close()
    again = History(tmp_path / "usage.sqlite", max_bytes=1 << 30)
    assert again.rows(A, 0) == (row(A, 10), row(A, 11, 0.5))
    assert again.rows(A, 11) == (row(A, 11, 0.5),)
    assert again.rows(SiteId("c"), 0) == ()
    again.close()
    assert (tmp_path / "usage.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_restart_within_five_minutes_loses_nothing(history: History) -> None:
    """Two rows of the same slot are one: averages by their time, the larger of the rest."""
    half = {"cpu_cores": Summary(1.0, 1.0, 1.0)}
    history.write([row(A, 5, seen_s=100.0, at_cap_s={SMALL: 60.0}, shadow_s=60.0)])
    history.write([row(A, 5, seen_s=100.0, at_cap_s={SMALL: 30.0}, measures=half)])
    (found,) = history.rows(A, 0)
    assert found.measures["cpu_cores"] == Summary(0.625, 1.0, 1.0)
    assert found.measures["memory_bytes"] == Summary(9, 10, 11)
    assert (found.seen_s, found.shadow_s) == (200.0, 60.0)
    assert history.past([A], 5)[A].at_cap_min == {SMALL: 1.5}
    history.close()


def test_the_past_is_told_against_each_plan(history: History) -> None:
    """Minutes at each plan's cap over all its days; percentiles and shadow of the last week."""
    old, now = 0, 20 * DAY
    history.write([row(A, old, 4.0, at_cap_s={SMALL: 300.0, LARGE: 120.0}, shadow_s=300.0)])
    history.write([row(A, now - n, at_cap_s={SMALL: 30.0}, shadow_s=60.0) for n in range(20)])
    past = history.past([A, B], now)
    assert past.keys() == {A}
    assert past[A].days == 20.0
    assert past[A].at_cap_min == {SMALL: 15.0, LARGE: 2.0}
    assert past[A].shadow_min == 20.0
    assert (past[A].cpu_p95_cores, past[A].memory_p95_bytes) == (0.5, 10)
    history.close()


def compared(
    ledger: Ledger, slot: int, plans: dict[PlanId, Caps], signs: SiteSigns
) -> tuple[Row, ...]:
    """Two readings in `slot`, against `plans`."""
    begin = slot * SLOT_S
    for now in (begin, begin + 10.0):
        ledger.add(signals(now, a=signs), {A}, terms(plans, {}, [], now), now)
    return ledger.close()


def test_a_plan_that_a_site_stays_below_is_told_as_zero(history: History) -> None:
    """It is what was compared, day by day, which is not what nobody looked at."""
    only: dict[PlanId, Caps] = {SMALL: CAPS}
    ledger = Ledger()
    for slot in (0, DAY, 2 * DAY, 3 * DAY):
        history.write(compared(ledger, slot, only if slot < 2 * DAY else PLANS, busy(1.2, tasks=4)))
    past = history.past([A], 3 * DAY)[A]
    assert past.at_cap_min == {SMALL: pytest.approx(4 / 6, abs=0.01), LARGE: 0.0}
    assert (past.days, past.at_cap_days) == (3.0, {LARGE: 1.0}), "and since when it was"
    history.close()


def test_what_nobody_could_see_is_compared_with_no_plan(history: History) -> None:
    """Of a site of which only the access log is known there is no zero, whatever plans there are."""
    asked = SiteSigns(attachment=Attachment.LOG, requests_per_s=3.0)
    (kept,) = compared(Ledger(), 5, PLANS, asked)
    assert kept.at_cap_s == {}
    history.write([kept])
    assert history.past([A], 5)[A].at_cap_min == {}
    history.close()


def test_a_plan_that_is_never_reached_costs_a_row_a_day(history: History, tmp_path: Path) -> None:
    """Each five minutes a row of each plan would fill the disk; forty days later it is forgotten like the rest."""
    none = dict.fromkeys(PLANS, 0.0)
    history.write([row(A, slot, at_cap_s=none) for slot in range(2 * DAY)])
    assert _caps(tmp_path) == 2 * len(PLANS)
    history.write([row(A, slot, at_cap_s=none) for slot in range(2 * DAY, 42 * DAY, 100)])
    past = history.past([A], 42 * DAY)[A]
    assert (past.days, past.at_cap_min, past.at_cap_days) == (DAYS, none, {})
    assert _caps(tmp_path) <= DAYS * len(PLANS)
    history.close()


def _caps(directory: Path) -> int:
    db = sqlite3.connect(directory / "usage.sqlite")
    (count,) = db.execute("SELECT count(*) FROM caps").fetchone()
    db.close()
    return int(count)


def test_forty_days_are_kept_and_no_more(history: History) -> None:
    """Of a site that is gone too; what each plan would have meant goes with them."""
    history.write([row(A, 0, at_cap_s={SMALL: 60.0}), row(B, 0), row(A, DAY)])
    history.write([row(A, DAYS * DAY + 1)])
    assert [found.slot for found in history.rows(A, 0)] == [DAY, DAYS * DAY + 1]
    assert history.rows(B, 0) == ()
    assert history.past([A], DAYS * DAY + 1)[A].at_cap_min == {}
    history.close()


def test_a_clock_that_is_ahead_for_a_while_takes_a_day_and_no_more(history: History) -> None:
    """A year's step forward, seen at one telling, and set right before the next."""
    days = [day * DAY for day in range(1, 31)]
    history.write([row(A, slot) for slot in days])
    history.write([row(A, 400 * DAY)])
    history.write([row(A, 31 * DAY)])
    assert {found.slot for found in history.rows(A, 0)} >= {*days[2:], 31 * DAY}
    history.close()


def test_a_full_history_forgets_its_oldest_day(tmp_path: Path) -> None:
    """Its size is bounded; the newest rows are kept, whatever there is."""
    path = tmp_path / "usage.sqlite"
    history = History(path, max_bytes=1 << 20)
    sites = [SiteId(f"s{n}") for n in range(20)]
    for day in range(12):
        slots = range(day * DAY, day * DAY + 100)
        assert history.write([row(site, slot) for slot in slots for site in sites])
    kept = history.rows(sites[0], 0)
    assert kept[-1].slot == 11 * DAY + 99 and kept[0].slot >= DAY
    history.close()
    assert path.stat().st_size <= 1 << 20


@pytest.mark.parametrize("content", [b"no database at all" * 500, b""])
def test_a_file_that_is_none_is_set_aside(tmp_path: Path, content: bytes) -> None:
    """The history begins anew, and the old file stays for people to look at."""
    path = tmp_path / "usage.sqlite"
    path.write_bytes(content)
    history = History(path, max_bytes=1 << 30)
    assert history.write([row(A, 1)])
    assert history.rows(A, 0) == (row(A, 1),)
    history.close()
    aside = tmp_path / "usage.sqlite.unreadable"
    assert aside.exists() == bool(content)


def test_a_file_that_breaks_while_it_is_used_is_set_aside(tmp_path: Path) -> None:
    """What a bad disk does to its pages is found when they are read, or written, and ends nothing."""
    path = tmp_path / "usage.sqlite"
    history = History(path, max_bytes=1 << 30)
    history.write([row(SiteId(f"s{n}"), slot) for n in range(50) for slot in range(50)])
    history.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    history = History(path, max_bytes=1 << 30)
    for slot in range(51, 54):
        history.write([row(A, slot)])
    assert history.rows(A, 0)[-1] == row(A, 53)
    assert (tmp_path / "usage.sqlite.unreadable").exists()
    history.close()


def test_somebody_elses_database_is_not_written_to(tmp_path: Path) -> None:
    """A file of another kind is set aside, not changed."""
    path = tmp_path / "usage.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = path.read_bytes()
    history = History(path, max_bytes=1 << 30)
    assert history.write([row(A, 1)])
    history.close()
    assert (tmp_path / "usage.sqlite.unreadable").read_bytes() == before


def test_no_directory_is_no_reason_to_end(tmp_path: Path) -> None:
    """Rows are lost, and kept again once there is room for them."""
    history = History(tmp_path / "not/yet/usage.sqlite", max_bytes=1 << 30)
    assert not history.write([row(A, 1)])
    (tmp_path / "not/yet").mkdir(parents=True)
    assert history.write([row(A, 2)])
    assert [found.slot for found in history.rows(A, 0)] == [2]
    history.close()


def test_what_was_written_is_kept_also_where_nothing_old_can_be_forgotten(
    history: History, tmp_path: Path
) -> None:
    """A disk that takes new rows and no deletion has the new rows."""
    history.write([row(A, 0)])
    with sqlite3.connect(tmp_path / "usage.sqlite") as db:
        db.execute(
            "CREATE TRIGGER full BEFORE DELETE ON slots BEGIN SELECT RAISE(FAIL, 'full'); END"
        )
    db.close()
    assert history.write([row(A, DAYS * DAY + 1)])
    assert history.rows(A, 1) == (row(A, DAYS * DAY + 1),)
    history.close()


def test_rows_for_which_there_is_no_room_are_lost_and_said_to_be(tmp_path: Path) -> None:
    """All of them or none, and so their sites; what fits is kept after that, as theirs."""
    history = History(tmp_path / "usage.sqlite", max_bytes=1 << 17)
    many = [SiteId(f"s{n}") for n in range(2000)]
    assert not history.write([row(site, 1) for site in many])
    assert history.write([row(many[7], 2)])
    assert history.write([row(A, 3)])
    history.close()
    again = History(tmp_path / "usage.sqlite", max_bytes=1 << 17)
    assert (again.rows(many[7], 0), again.rows(A, 0)) == ((row(many[7], 2),), (row(A, 3),))
    again.close()


async def test_the_archive_takes_rows_and_answers(tmp_path: Path) -> None:
    """From any thread; what it took before it closes is on disk."""
    path = tmp_path / "usage.sqlite"
    with Archive(path, max_bytes=1 << 30) as archive:
        assert archive.keep([row(A, 7)])
        assert await archive.rows(A, 0) == (row(A, 7),)
        assert (await archive.past([A], 7)).keys() == {A}
        assert archive.keep([row(A, 8)])
    history = History(path, max_bytes=1 << 30)
    assert [found.slot for found in history.rows(A, 0)] == [7, 8]
    history.close()


async def test_a_disk_that_hangs_holds_up_nobody(tmp_path: Path) -> None:
    """There is room for a few jobs; then rows are lost, and questions have no answer, at once."""
    with Archive(tmp_path / "usage.sqlite", max_bytes=1 << 30) as archive:
        blocker = sqlite3.connect(tmp_path / "usage.sqlite", isolation_level=None)
        await archive.rows(A, 0)
        blocker.execute("BEGIN IMMEDIATE")
        taken = [archive.keep([row(A, n)]) for n in range(12)]
        assert [job is None for job in taken].count(True) >= 3
        assert await archive.rows(A, 0) == ()
        blocker.execute("ROLLBACK")
        blocker.close()
