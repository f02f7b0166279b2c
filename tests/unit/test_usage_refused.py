"""Forks that were refused, counted from a slice whose units they were refused to, on kernels of both kinds."""

import os
from pathlib import Path

import pytest

from agent.layout.attached import Attached
from agent.usage.refused import FOLDERS
from agent.usage.sampler import Sampler
from fleet.caps import Attachment
from fleet.model import SiteId, Why
from tests.unit.cgroups import State, Tree

SITE, SLICE, UNIT = SiteId("a"), "user-1001.slice", "user-1001.slice/php-fpm@a.service"


class Host:
    """One site's slice with its unit in it, read each 2 s."""

    def __init__(self, root: Path, *, tasks_max: int | None = 80) -> None:
        self.tree = Tree(root)
        self.now, self.cpu_us = 100.0, 0
        self.slice = self.tree.put(SLICE, State(tasks_max=tasks_max))
        self.tree.put(UNIT, State())
        self.sampler = Sampler(descriptors=100, proc=self.tree.proc, sys=self.tree.sys)
        own = Attached(attachment=Attachment.SLICE, why=Why("own-unit"), cgroups=(self.slice,))
        self.sampler.follow({SITE: own})

    def refused(self, *, cpu_ms: int = 200, tasks: int = 4) -> int:
        """What the next round says: how many forks were refused since the one before."""
        self.now += 2.0
        self.cpu_us += 1000 * cpu_ms
        self.tree.change(SLICE, cpu_us=self.cpu_us, tasks=tasks)
        return self.sampler.round(self.now).signals.sites[SITE].tasks_refused


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.refused()
    return made


def test_a_fork_bomb_shows_in_the_round_it_is_held_in(host: Host) -> None:
    """Before Linux 6.11 the slice's own file says nothing; its unit's does, and is read when the slice is full."""
    host.tree.change(UNIT, tasks_refused=700)
    assert host.refused(tasks=80) == 700
    host.tree.change(UNIT, tasks_refused=1900)
    assert host.refused(tasks=79) == 1200
    assert host.refused(tasks=80) == 0


def test_where_the_kernel_adds_up_itself_nothing_is_counted_twice(tmp_path: Path) -> None:
    """Since Linux 6.11 a slice's own file counts what was refused below it, and is all that is read."""
    host = Host(tmp_path)
    (host.slice / "pids.events.local").write_text("max 0\n")
    host.refused()
    host.tree.change(UNIT, tasks_refused=700)
    assert host.refused(tasks=80) == 0
    host.tree.change(SLICE, tasks_refused=700)
    assert host.refused(tasks=80) == 700


def test_a_burst_between_two_readings_is_told_ten_seconds_later(host: Host) -> None:
    """Far from its limit when it is read, a site that worked is looked into each 10 s; what was refused is not lost."""
    host.tree.change(UNIT, tasks_refused=3)
    assert [host.refused() for _ in range(6)] == [0, 0, 0, 0, 3, 0]


def test_a_site_that_does_nothing_is_not_looked_into(host: Host) -> None:
    """Nobody forks without a CPU: most sites of a host cost nothing for this."""
    host.tree.change(UNIT, tasks_refused=3)
    assert sum(host.refused(cpu_ms=0) for _ in range(20)) == 0
    assert sum(host.refused() for _ in range(5)) == 3


def test_sessions_come_and_go_and_nothing_is_taken_back(host: Host) -> None:
    """What ends takes its counter with it; what begins or restarts begins at zero."""
    session = f"{SLICE}/session-7.scope"
    host.tree.put(session, State(tasks_refused=5))
    host.tree.change(UNIT, tasks_refused=100)
    assert host.refused(tasks=80) == 105
    host.tree.remove(session)
    assert host.refused(tasks=80) == 0
    host.tree.put(session, State(tasks_refused=2))
    host.tree.change(UNIT, tasks_refused=4)
    assert host.refused(tasks=80) == 6


def test_what_was_refused_before_the_first_look_is_of_another_time(tmp_path: Path) -> None:
    """An agent that begins tells nothing of last week's bomb."""
    host = Host(tmp_path)
    host.tree.change(UNIT, tasks_refused=700)
    assert [host.refused(tasks=80) for _ in range(3)] == [0, 0, 0]


def test_a_limit_of_the_unit_itself_counts_too(tmp_path: Path) -> None:
    """Also where the slice has none to be near to."""
    host = Host(tmp_path, tasks_max=None)
    host.refused()
    host.tree.change(UNIT, tasks_refused=40)
    assert sum(host.refused(tasks=5000) for _ in range(6)) == 40


def test_a_thousand_folders_are_not_all_opened_and_none_stays_open(host: Host) -> None:
    """A site that makes cgroups without end gets no more of our time, and none of our descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    for n in range(2 * FOLDERS):
        host.tree.put(f"{SLICE}/session-{n}.scope", State(tasks_refused=1))
    assert 0 < host.refused(tasks=80) <= FOLDERS
    deep = f"{SLICE}/user@1001.service/app.slice/dbus.service/a/b/c/d"
    host.tree.put(deep, State(tasks_refused=1))
    host.refused(tasks=80)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_slice_that_comes_back_begins_anew(host: Host) -> None:
    """Its session over, a user's slice is gone with all that was counted in it."""
    host.tree.change(UNIT, tasks_refused=700)
    host.refused(tasks=80)
    for name in (UNIT, SLICE):
        host.tree.remove(name)
    host.now += 2.0
    host.sampler.round(host.now)
    host.tree.put(SLICE, State(tasks_max=80))
    host.tree.put(UNIT, State(tasks_refused=9))
    assert host.refused(tasks=80) == 0
    host.tree.change(UNIT, tasks_refused=10)
    assert host.refused(tasks=80) == 1
