"""What the store keeps of penalties: what hosts tell of themselves, until it ends, and what follows a site away."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.gauges import held
from controller.incidents import Times
from controller.mirror import Mirror
from controller.penalties import AGAIN_S, LATE_S, Said, following, steps, suspicion
from controller.recorder import AUDITED, LOOK_S, WRITES, WRITES_PER_S, Recorder
from controller.store import Delete, Op, Put
from controller.uses import HostWord, Uses
from fleet import keys
from fleet.caps import Evidence, Level, Nature, Penalty, Resource, Ruling
from fleet.model import (
    Domain,
    Fleet,
    Host,
    HostId,
    LocationId,
    MemberId,
    Note,
    Placement,
    PlanId,
    Site,
    SiteId,
    Why,
)
from fleet.penalized import KEPT_S, PAST_KEPT, TERM_S, Penalized
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter

SITE, A, B = SiteId("huerto"), HostId("a"), HostId("b")
NOW = 1_800_000_000.0


def penalty(level: Level = Level.CAP, **said: Any) -> Penalty:
    plain = Penalty(
        site=SITE,
        level=level,
        resource=Resource.CPU,
        since=NOW,
        until=NOW + 900,
        why=Why("cap-soft"),
        enforced=True,
    )
    return msgspec.structs.replace(plain, **said)


def told(*penalties: Penalty, host: HostId = A) -> Said:
    return Said(host=host, penalties=penalties)


def stored(*penalties: Penalty, **said: Any) -> Penalized:
    return msgspec.structs.replace(Penalized(host=A, at=NOW, penalties=penalties), **said)


def test_what_is_told_again_is_not_written_again() -> None:
    """The same word gives the same object; a term that only grows is written every half minute at most."""
    kept = following(None, told(penalty()), A, NOW)
    assert kept is not None
    assert following(kept, told(penalty()), A, NOW + 10) is kept
    longer = told(penalty(until=NOW + 2000))
    assert following(kept, longer, A, NOW + 10) is kept
    written = following(kept, longer, A, NOW + AGAIN_S)
    assert written is not None and written.penalties == longer.penalties and not written.past


def test_who_is_only_watched_leaves_no_trace() -> None:
    """Watching restricts nothing: the store is not told."""
    assert following(None, told(penalty(Level.WATCH)), A, NOW) is None


def test_a_step_up_the_ladder_ends_the_step_before() -> None:
    """What it was is past, with when it ended; what it is stands."""
    kept = stored(penalty(Level.SOFT))
    grown = following(kept, told(penalty(Level.CAP, since=NOW + 60)), A, NOW + 60)
    assert grown is not None
    assert [p.level for p in grown.penalties] == [Level.CAP]
    assert [(old.penalty.level, old.ended) for old in grown.past] == [(Level.SOFT, NOW + 60)]
    assert [(step.what, step.penalty.level) for step in steps(kept, grown)] == [
        ("ended", Level.SOFT),
        ("began", Level.CAP),
    ]


def test_silence_ends_nothing_but_time_does() -> None:
    """A host that says nothing keeps its penalties until their term (R7); after it they are past (R11)."""
    kept = stored(penalty())
    assert following(kept, None, A, NOW + 899) is kept
    after = following(kept, None, A, NOW + 900 + LATE_S)
    assert after is not None and not after.penalties
    assert after.past[0].ended == NOW + 900
    assert following(after, None, A, NOW + 901 + KEPT_S) is None


def test_what_its_host_prolongs_at_its_end_has_not_ended() -> None:
    """Its next word says so, a telling later; one that nobody knew before its end was none."""
    kept = stored(penalty())
    assert following(kept, told(penalty()), A, NOW + 901) is kept
    longer = following(kept, told(penalty(until=NOW + 1800)), A, NOW + 911)
    assert longer is not None and not longer.past and not [*steps(kept, longer)]
    assert [p.until for p in longer.penalties] == [NOW + 1800]
    over = following(kept, told(penalty()), A, NOW + 900 + LATE_S)
    assert over is not None and [old.ended for old in over.past] == [NOW + 900]
    assert following(None, told(penalty()), A, NOW + 901) is None
    assert following(over, told(penalty()), A, NOW + 901) is over


def test_a_word_without_the_penalty_ends_it() -> None:
    """Its host lifted it: now, not at the end of its term."""
    after = following(stored(penalty()), told(), A, NOW + 60)
    assert after is not None and after.past[0].ended == NOW + 60


def test_a_moved_site_leaves_its_penalty_and_takes_a_suspicion_along() -> None:
    """The new host watches it until the term's end, at most a day; it holds nothing by the old one's word (R15)."""
    kept = stored(penalty(nature=Nature.HACKED, until=NOW + 10 * TERM_S))
    after = following(kept, told(host=B), B, NOW + 60)
    assert after is not None and (after.host, after.penalties) == (B, ())
    assert (after.past[0].host, after.past[0].ended) == (A, NOW + 60)
    found = suspicion(kept, B, None, NOW + 60)
    assert found is not None
    assert (found.word, found.level, found.nature) == ("suspect", Level.CAP, Nature.HACKED)
    assert found.note.until == NOW + 60 + TERM_S
    assert suspicion(kept, A, None, NOW + 60) is None
    assert suspicion(kept, B, None, NOW + 11 * TERM_S) is None
    relief = penalty(resource=Resource.MEMORY, share=1.0)  # the memory watchdog accuses nobody
    assert suspicion(stored(relief), B, None, NOW + 60) is None


def test_a_person_s_word_stands_above_a_suspicion() -> None:
    """A release or a quarantine is not replaced; one that has ended is."""
    note = Note(owner="ana", reason="clean", since=NOW, until=NOW + 100)
    said = Ruling(word="release", note=note)
    assert suspicion(stored(penalty()), B, said, NOW + 50) is None
    assert suspicion(stored(penalty()), B, said, NOW + 101) is not None


def test_a_relief_counts_as_no_penalty() -> None:
    """In no gauge, and not in the place of what does hold a site."""
    relief = penalty(resource=Resource.MEMORY, share=1.0, enforced=True)
    soft = penalty(Level.SOFT, resource=Resource.CPU, enforced=True)
    both = stored(relief, soft)
    assert held([stored(relief)], NOW) == {}
    assert held([both, stored(soft)], NOW) == {("soft", True): 2}
    assert both.taking(NOW) == (soft,)


def test_evidence_is_kept_for_two_weeks() -> None:
    """Then it is deleted, whatever still stands (R16)."""
    evidence = Evidence(site=SITE, at=NOW, every_s=2)
    kept = stored(penalty(until=NOW + 2 * KEPT_S), evidence=evidence)
    later = following(kept, None, A, NOW + KEPT_S + 1)
    assert later is not None and later.evidence is None


spans = st.tuples(st.integers(0, 3), st.sampled_from(list(Level)), st.integers(-50, 2000))


@given(st.lists(st.tuples(st.lists(spans, max_size=4), st.sampled_from("ab"), st.integers(1, 400))))
def test_whatever_is_told_all_that_is_kept_ends(
    rounds: list[tuple[list[tuple[int, Level, int]], str, int]],
) -> None:
    """Nothing stands past its end or on a host without the site; the past is bounded; nothing is lost on the way."""
    kept: Penalized | None = None
    now, seen = NOW, 0
    for words, place, pause in rounds:
        host = HostId(place)
        resources = list(Resource)
        said = tuple(
            penalty(level, resource=resources[n], since=now, until=now + for_s)
            for n, level, for_s in {word[0]: word for word in words}.values()
        )
        before = kept
        kept = following(kept, told(*said, host=host), host, now)
        seen += sum(step.what == "began" for step in steps(before, kept))
        if kept is not None:
            assert kept.host == host
            assert all(p.until > now and p.level >= Level.SOFT for p in kept.penalties)
            assert len(kept.past) <= PAST_KEPT
            assert len(kept.past) + len(kept.penalties) == min(
                seen, PAST_KEPT + len(kept.penalties)
            )
        else:
            assert seen == 0
        now += pause


# --- the leader's part


def a_fleet(*sites: str) -> Fleet:
    mx = LocationId("mx")
    return Fleet(
        hosts={h: Host(id=h, tag=h, location=mx, addresses=("192.0.2.1",)) for h in (A, B)},
        sites={
            SiteId(id): Site(
                id=SiteId(id),
                member=MemberId("m"),
                plan=PlanId("p"),
                domains=(Domain(f"{id}.example.org"),),
                home=A,
            )
            for id in sites
        },
    )


class Desk:
    """A recorder over a mirror and words that are written here."""

    def __init__(self, *sites: str) -> None:
        self.mirror = Mirror()
        self.mirror.fleet = a_fleet(*sites)
        self.exporter = Exporter(CONTROLLER)
        self.uses = Uses(self.mirror, self.exporter)
        self.recorder = Recorder(self.mirror, self.uses)
        self.now = 0.0
        self.place(dict.fromkeys(map(SiteId, sites), A))

    def place(self, hosts: Mapping[SiteId, HostId]) -> None:
        self.mirror.places = {
            site: Placement(host=host, since="", why=Why("placed-at-home"))
            for site, host in hosts.items()
        }

    def say(self, host: HostId, *penalties: Penalty) -> None:
        word = self.uses.hosts.setdefault(host, HostWord(at=self.now))
        word.penalties = {p.site: (p,) for p in penalties}

    def look(self, after_s: float = LOOK_S) -> list[Op]:
        """What is written, which is then true."""
        self.now += after_s
        done = self.recorder.missing(Times(wall=NOW + self.now, now=self.now))
        for operation in done:
            self._write(operation)
        return done

    def _write(self, operation: Op) -> None:
        mirror, site = self.mirror, SiteId(keys.leaf(operation.key))
        if operation.key.startswith(keys.PENALTIES):
            others = {id: kept for id, kept in mirror.penalties.items() if id != site}
            if isinstance(operation, Put):
                others[site] = msgspec.json.decode(operation.value, type=Penalized)
            mirror.penalties = others
        if operation.key.startswith(keys.RULINGS) and isinstance(operation, Put):
            ruling = msgspec.json.decode(operation.value, type=Ruling)
            mirror.rulings = {**mirror.rulings, site: ruling}


def written(operations: list[Op], prefix: bytes) -> int:
    return sum(operation.key.startswith(prefix) for operation in operations)


def test_a_penalty_told_while_nobody_led_is_written_by_the_next_leader() -> None:
    """The word is still there when somebody leads, for its host says it again and again."""
    desk = Desk("huerto")
    desk.say(A, penalty())
    assert written(desk.look(), keys.PENALTIES) == 1
    desk.recorder = Recorder(desk.mirror, desk.uses)  # a new leadership
    assert desk.look() == []
    other = Desk("huerto")
    assert other.look() == []
    other.say(A, penalty())
    assert written(other.look(), keys.PENALTIES) == 1


def test_history_is_looked_at_when_it_is_too_old_only() -> None:
    """What has ended is kept for two weeks without a look, then it goes; its evidence may go before it (R16)."""
    desk = Desk("huerto")
    desk.say(A, penalty())
    desk.uses.hosts[A].evidence = {SITE: Evidence(site=SITE, at=NOW - KEPT_S + 1000, every_s=2)}
    desk.look()
    desk.say(A)
    desk.look()
    assert desk.mirror.penalties[SITE].past and desk.mirror.penalties[SITE].evidence
    desk.uses.hosts[A].evidence = {}
    assert desk.look(after_s=500) == []
    assert len(desk.look(after_s=600)) == 1
    assert desk.mirror.penalties[SITE].past and desk.mirror.penalties[SITE].evidence is None
    assert desk.look(after_s=KEPT_S - 2000) == []
    assert len(desk.look(after_s=2000)) == 1
    assert not desk.mirror.penalties


def test_what_a_host_says_of_another_s_site_is_never_written() -> None:
    """Only the host that a site is placed on has a say, whatever words are there (R15)."""
    desk = Desk("huerto")
    desk.say(B, penalty(Level.STOP))
    assert desk.look() == []


def test_a_move_writes_the_suspicion_before_it_closes_the_penalty() -> None:
    """If only the first was written, the next look writes the rest; nothing is forgotten between."""
    desk = Desk("huerto")
    desk.say(A, penalty())
    desk.look()
    desk.place({SITE: B})
    done = desk.look()
    order = [operation.key.split(b"/")[3] for operation in done]
    assert order[:2] == [b"rulings", b"penalties"]
    assert desk.mirror.rulings[SITE].word == "suspect"
    assert desk.mirror.penalties[SITE].penalties == ()
    assert desk.look() == []


def test_looks_are_a_second_apart() -> None:
    """The failover loop's rounds are faster, and are not held up."""
    desk = Desk("huerto")
    desk.look()
    desk.say(A, penalty())
    assert desk.look(after_s=LOOK_S / 2) == []
    assert desk.look(after_s=LOOK_S / 2)


@pytest.mark.parametrize("enforced", [True, False])
def test_a_host_that_flaps_does_not_wash_the_audit_out(enforced: bool) -> None:
    """Of one host's enforced penalties a bounded number is audited in an hour; of shadow's none."""
    desk, entries = Desk("huerto"), 0
    for n in range(100):
        desk.say(A, *([penalty(since=NOW + n, enforced=enforced)] if n % 2 else []))
        entries += written(desk.look(), keys.AUDIT)
    assert entries == (AUDITED if enforced else 0)


def test_a_host_that_flaps_changes_the_store_seldom() -> None:
    """Edges follow what is stored: after a burst a change of one host waits, and the newest one is written then."""
    desk, writes = Desk("huerto"), 0
    for n in range(300):
        desk.say(A, *([penalty(since=NOW + n)] if n % 2 else []))
        writes += written(desk.look(), keys.PENALTIES)
    assert writes <= WRITES + 300 * WRITES_PER_S + 1
    desk.say(A, penalty(Level.STOP, since=NOW + 300))
    desk.look(after_s=10 / WRITES_PER_S)
    assert desk.mirror.penalties[SITE].penalties[0].level is Level.STOP


def test_one_look_writes_a_bounded_number() -> None:
    """Many hosts with penalties take several looks, each one batch; a host's flood keeps no other one waiting."""
    names = [f"s{n:03}" for n in range(120)]
    desk = Desk(*names)
    hosts = [HostId(f"h{n}") for n in range(8)]
    desk.place({SiteId(name): hosts[n % 8] for n, name in enumerate(names)})
    for host in hosts:
        here = names[hosts.index(host) :: 8]
        desk.say(host, *(penalty(site=SiteId(name), enforced=False) for name in here))
    looks = [desk.look() for _ in range(5)]
    assert max(map(len, looks)) <= 50
    assert len(desk.mirror.penalties) == 120 and looks[-1] == []
    assert not any(isinstance(operation, Delete) for look in looks for operation in look)
