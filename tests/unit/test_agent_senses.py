"""The senses' judgements: rates from counters, a service's outages told as stories, neighbours' probes, locks."""

import fcntl
import multiprocessing
import os
from itertools import pairwise
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sense import service
from agent.sense.load import DiskCounters, LoadSense, Look, between, look, parse_pressure, pressure
from agent.sense.packages import PackageSense, locked
from agent.sense.service import Action, Seen, State
from fleet.messages import RestartState, Target
from fleet.model import Health
from metrics.catalogue import AGENT
from metrics.exporter import Exporter
from runtime import probes
from runtime.ask import url_of

PSI = """\
some avg10=2.50 avg60=0.40 avg300=0.15 total=3352624
full avg10=1.00 avg60=0.00 avg300=0.00 total=0
"""


def test_pressure_is_the_share_of_ten_seconds() -> None:
    """The `some` line's avg10, as a ratio."""
    assert parse_pressure(PSI) == 0.025


@pytest.mark.parametrize("text", ["", "full avg10=1.00\n", "some avg10\n", "some avg10=x\n"])
def test_a_pressure_file_of_another_shape_is_an_error(text: str) -> None:
    """It is never taken for calm."""
    with pytest.raises((ValueError, KeyError)):
        parse_pressure(text)


def test_a_kernel_without_pressure_has_none(tmp_path: Path) -> None:
    """None, not zero; also when one of the three files is strange."""
    assert pressure(tmp_path) is None
    (tmp_path / "pressure").mkdir()
    for name in ("cpu", "memory", "io"):
        (tmp_path / "pressure" / name).write_text(PSI)
    seen = pressure(tmp_path)
    assert seen is not None and seen.io == 0.025
    (tmp_path / "pressure" / "io").write_text("?")
    assert pressure(tmp_path) is None


def test_two_looks_make_rates() -> None:
    """Bytes, busy time and CPU over the seconds between; the new disk and link count nothing yet."""
    before = Look(
        at=10.0,
        cpu_total_s=100.0,
        cpu_idle_s=50.0,
        links={"eth0": (1000, 500)},
        disks={"sda": DiskCounters(read_bytes=0, write_bytes=100, busy_ms=1000)},
    )
    after = Look(
        at=12.0,
        cpu_total_s=104.0,
        cpu_idle_s=53.0,
        links={"eth0": (3000, 700), "eth1": (10**9, 10**9)},
        disks={
            "sda": DiskCounters(read_bytes=4096, write_bytes=100, busy_ms=2000),
            "sdb": DiskCounters(read_bytes=10**9, write_bytes=10**9, busy_ms=10**9),
        },
    )
    load = between(before, after)
    assert load.cpu_ratio == 0.25
    assert (load.receive_bytes_per_s, load.transmit_bytes_per_s) == (1000, 100)
    assert load.disks["sda"].read_bytes_per_s == 2048
    assert load.disks["sda"].busy_ratio == 0.5
    assert load.disks["sdb"].write_bytes_per_s == 0


COUNTS = st.integers(0, 2**64)


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS), min_size=2, max_size=5), st.floats(0, 100))
def test_no_rate_is_ever_negative(counts: list[tuple[int, int, int]], pause_s: float) -> None:
    """Counters that restart or wrap, and clocks that stand still, give zero or more, and ratios up to one."""
    looks = [
        Look(
            at=n * pause_s,
            cpu_total_s=float(a),
            cpu_idle_s=float(b),
            links={"eth0": (a, b)},
            disks={"sda": DiskCounters(read_bytes=a, write_bytes=b, busy_ms=c)},
        )
        for n, (a, b, c) in enumerate(counts)
    ]
    for before, after in pairwise(looks):
        load = between(before, after)
        assert 0 <= load.cpu_ratio <= 1
        assert load.receive_bytes_per_s >= 0 <= load.transmit_bytes_per_s
        assert load.disks["sda"].read_bytes_per_s >= 0 <= load.disks["sda"].write_bytes_per_s
        assert 0 <= load.disks["sda"].busy_ratio <= 1


def test_this_machine_can_be_looked_at() -> None:
    """A real look has memory and CPU time, and a second one within SAMPLE_S is not made."""
    assert look(0.0).memory_total_bytes > 2**20 < look(0.0).cpu_total_s * 2**20
    sense = LoadSense(Exporter(AGENT))
    assert sense.load(100.0) is sense.load(101.9)
    assert sense.load(100.0) is not sense.load(102.1)


def story(events: str, **seen: object) -> list[str]:
    """One check a second, `+` or `-`; `.` says that the restart's command has ended. What changed, with its time."""
    state, told, now = State(), [], 0.0
    for event in events.replace(" ", ""):
        if event == ".":
            state = service.ended(state, now)
            continue
        before = state
        state, action = service.step(
            state,
            Seen(error="" if event == "+" else "refused", **seen),  # type: ignore[arg-type]
            now,
        )
        if state.health is not before.health:
            told.append(f"{now:g} {state.health.value}")
        if state.restart is not before.restart:
            told.append(f"{now:g} {state.restart.value}")
        assert (action is Action.RESTART) == (
            before.restart is not state.restart and state.restart is RestartState.RUNNING
        )
        now += 1
    return told


def test_two_failures_are_down_and_one_success_is_up() -> None:
    """A single lost check is no outage."""
    assert story("+-+--+") == ["0 up", "4 down", "5 up"]


def test_a_restart_that_helps_is_done_and_the_next_outage_soon_after_gets_none() -> None:
    """One try per outage; it is another outage only after a minute of health."""
    told = story("+-- ----- . -+ --- --------")
    assert told == ["0 up", "2 down", "7 running", "9 up", "9 done", "11 down"]


def test_a_restart_that_does_not_help_has_failed_after_five_seconds() -> None:
    """It stays failed as long as the outage lasts."""
    told = story("+-- ----- . ----- ----------")
    assert told == ["0 up", "2 down", "7 running", "13 failed"]


def test_a_check_that_passes_before_the_restart_has_ended_proves_nothing() -> None:
    """The old process may have answered a last time: only a check after the command's end counts."""
    assert story("-- ----- + . +") == ["1 down", "6 running", "7 up", "8 done"]


def test_no_restart_during_a_package_run() -> None:
    """dpkg restarts what it upgrades: we stay out of its way."""
    assert story("+" + "-" * 60, package_run=True) == ["0 up", "2 down"]


def test_without_a_command_there_is_nothing_to_try() -> None:
    """And that is said, so that people know."""
    told = story("+" + "-" * 20, can_restart=False)
    assert told == ["0 up", "2 down", "7 unavailable"]


def test_a_minute_of_health_makes_the_next_outage_a_new_one() -> None:
    """It gets a restart of its own."""
    told = story("-- ----- . +" + "+" * 60 + "-- -----")
    assert told[:4] == ["1 down", "6 running", "7 up", "7 done"]
    assert told[4:] == ["67 none", "69 down", "74 running"]


def test_three_failed_probes_are_down_and_two_good_ones_are_up() -> None:
    """Before that nobody knows; one of the other kind begins the row anew."""
    streak = probes.Streak(target=Target(address="10.0.0.1", port=80))
    told = ""
    for now, event in enumerate("--+- -- +- ++ +- -+ - --".replace(" ", "")):
        streak = probes.step(streak, "" if event == "+" else "refused", float(now))
        told += {Health.UP: "U", Health.DOWN: "D", Health.UNKNOWN: "?"}[streak.health]
    assert told == "?????DDDDUUUUUUUD"


def test_ipv6_targets_stand_in_brackets() -> None:
    """RFC 3986."""
    assert url_of(Target(address="fd00::1", port=8080, check="/x?y")) == "http://[fd00::1]:8080/x?y"
    assert url_of(Target(address="10.0.0.1", port=80)) == "http://10.0.0.1:80/"


def _hold(path: str, held: Event, done: Event) -> None:
    file = os.open(path, os.O_RDWR)
    fcntl.lockf(file, fcntl.LOCK_EX)
    held.set()
    done.wait(10)


def test_a_lock_held_by_another_process_is_a_package_run(tmp_path: Path) -> None:
    """Asked without taking it: dpkg never waits for us. A missing lock is no run."""
    path = tmp_path / "lock-frontend"
    sense = PackageSense([tmp_path / "missing", path])
    assert not sense.running()
    path.touch()
    assert not sense.running()
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(str(path), held, done))
    holder.start()
    try:
        assert held.wait(10)
        assert locked(path) and sense.running()
    finally:
        done.set()
        holder.join(10)
    assert not sense.running()
    with path.open("r+") as ours:
        fcntl.lockf(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
