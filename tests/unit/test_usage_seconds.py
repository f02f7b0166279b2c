"""Sites that are watched are read each second, and rounds see what they would have seen without."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.layout.attached import Attached
from agent.signals import Signals
from agent.usage import seconds
from agent.usage.habits import Observer
from agent.usage.looking import Looking, Seen, Wanted
from agent.usage.sampler import Sampler
from agent.usage.seconds import KEPT, SITES_MAX
from agent.usage.web import WebSide
from fleet.caps import Attachment, Resource
from fleet.model import SiteId, Why
from tests.unit.cgroups import State, Tree

A, B = SiteId("a"), SiteId("b")
MIB = 1 << 20


def sliced(*folders: Path) -> Attached:
    return Attached(attachment=Attachment.SLICE, why=Why("own-unit"), cgroups=folders)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def busy(tree: Tree, second: int, name: str = "a") -> None:
    """What the site has used by then: one core each other second, a MiB more memory, a MiB read."""
    tree.change(
        name,
        cpu_us=(second + 1) // 2 * 1_000_000,
        memory=second * MIB,
        tasks=second,
        io={"8:0": (second * MIB, 0, second, 0)},
    )


def watching(tree: Tree, names: tuple[str, ...] = ("a", "b")) -> Sampler:
    one = Sampler(descriptors=1000, proc=tree.proc, sys=tree.sys)
    sites = {
        SiteId(name): sliced(tree.put(name, State(io={"8:0": (0, 0, 0, 0)}))) for name in names
    }
    one.follow(sites, close=[A])
    return one


def test_what_a_round_averages_is_seen_second_by_second(tree: Tree) -> None:
    """A watched site's bursts of one second; of memory what it had; nothing of a site that is not watched."""
    one = watching(tree)
    for second in range(7):
        busy(tree, second)
        busy(tree, second, "b")
        one.second(100.0 + second)
    assert one.seconds.of(A, Resource.CPU) == (1.0, 0.0, 1.0, 0.0, 1.0, 0.0)
    assert one.seconds.of(A, Resource.MEMORY) == tuple(n * MIB for n in range(1, 7))
    assert one.seconds.of(A, Resource.IO) == (MIB,) * 6
    assert one.seconds.of(A, Resource.TASKS) == tuple(range(1, 7))
    assert one.seconds.of(A, Resource.EGRESS) == one.seconds.of(B, Resource.CPU) == ()


def test_rounds_see_the_same_with_it(tmp_path: Path) -> None:
    """Rates, sizes and events of every round are those of a sampler that never looks between."""

    def story(tree: Tree, one: Sampler, between: Callable[[float], None]) -> list[Signals]:
        told = []
        for second in range(0, 12, 2):
            busy(tree, second)
            tree.change("a", oom_kill=second // 4, tasks_refused=second)
            between(100.0 + second)
            told.append(one.round(100.0 + second).signals)
            busy(tree, second + 1)
            between(101.0 + second)
        return told

    first, second = Tree(tmp_path / "one"), Tree(tmp_path / "two")
    one, two = watching(first), watching(second)
    assert story(first, one, one.second) == story(second, two, lambda _: None)
    assert len(one.seconds.of(A, Resource.CPU)) == 11


def test_a_minute_is_kept_of_a_few_and_forgotten_with_the_watch(tree: Tree) -> None:
    """Neither time nor many watched sites make it grow; a site that vanished or came back has no wrong rate."""
    names = tuple(f"s{n:03}" for n in range(SITES_MAX + 10))
    one = watching(tree, (*names, "a"))
    one.follow({SiteId(n): sliced(tree.root / n) for n in names}, close=map(SiteId, names))
    for second in range(KEPT + 20):
        one.second(100.0 + second)
    kept = [len(one.seconds.of(SiteId(name), Resource.CPU)) for name in names]
    assert kept == [KEPT] * SITES_MAX + [0] * 10
    tree.remove("s000")
    one.second(200.0)
    tree.put("s000", State(cpu_us=5))
    one.second(201.0)
    assert len(one.seconds.of(SiteId("s000"), Resource.CPU)) == KEPT
    one.follow({SiteId(n): sliced(tree.root / n) for n in names}, close=())
    one.second(202.0)
    assert not any(one.seconds.of(SiteId(name), Resource.CPU) for name in names)


def test_the_thread_looks_once_between_two_rounds(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds keep their pace; a site is read at each of them and once between."""
    monkeypatch.setattr(seconds, "EVERY_S", 0.1)
    one, enough = watching(tree), threading.Event()
    at: list[float] = []

    def give(seen: Seen) -> None:
        at.append(seen.signals.at)
        if len(at) == 6:
            enough.set()

    looking = Looking(
        one,
        WebSide(),
        Observer(),
        every_s=0.2,
        wall=lambda: 0.0,
        series=lambda _: (),
        give=give,
    )
    attached = {A: sliced(tree.root / "a")}
    looking.wanted = Wanted(attached=attached, close=frozenset({A}))
    thread = threading.Thread(target=looking.sample)
    thread.start()
    try:
        assert enough.wait(20)
        counted = len(looking.seconds(A, Resource.TASKS))
    finally:
        looking.stop.set()
        thread.join(10)
    assert counted > 6  # six rounds alone make five
    assert at[-1] - at[0] > 0.7
