"""What people are told, when, and in which words: pure."""

import ast
from pathlib import Path

import msgspec
from babel.messages.pofile import read_po
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.notify import due, headlines, matters, wording
from controller.notify.due import Draft
from controller.notify.letter import Letter
from controller.notify.matters import DAY_S, Matter, Plea, Scene, Severity, Trouble
from controller.notify.voice import Voice
from failover.judge import Kind, Verdict
from fleet.caps import Evidence, Level, Nature, Penalty, Process, Resource
from fleet.model import (
    Entry,
    HeldSite,
    Hold,
    HostId,
    Incident,
    IncidentId,
    MovedSite,
    Phase,
    SiteId,
    Why,
)
from fleet.notified import MATTERS_KEPT, Notified
from fleet.penalized import Penalized
from runtime.words import LOCALE, placeholders
from tests.unit.test_docs import understand

WALL = 1_800_000_000.0
WEB1, WEB2 = HostId("web1"), HostId("web2")
ENGLISH = Voice("en", "c1", "https://c1.coop.example:7410")
SPANISH = Voice("es", "c1", "https://c1.coop.example:7410")
UP = Verdict(kind=Kind.UP, since=0.0, why=Why("answers"))


DOWN = Why("said-by", {"witness": "edge", "id": "edge1", "health": "down", "since_s": 2.1})
SITE = SiteId("shop")
PLEA = Plea(at=99.0, whys=(Why("isolation-no-culprit", {"resource": "cpu"}),))


def incident(host: HostId = WEB1, **values: object) -> Incident:
    began = Incident(
        id=IncidentId(f"i-{host}"),
        cause=f"host:{host}:b",
        subject=host,
        verdict="dead",
        began_at=WALL - 3,
        moved=(MovedSite(site=SiteId("choir"), source=host, target=WEB2),),
        timeline=(
            Entry(
                phase=Phase.VERDICT, at=WALL, offset_s=2.1, why=Why("verdict", {"verdict": "dead"})
            ),
        ),
        testimony=(DOWN,),
    )
    return msgspec.structs.replace(began, **values)


def hold(host: HostId = WEB1, code: str = "gated-not-fenced", sites: int = 1) -> Hold:
    held = tuple(
        HeldSite(site=SiteId(f"shop{n}"), source=host, target=WEB2, why=Why(code, {"host": host}))
        for n in range(sites)
    )
    return Hold(
        id=f"move-{host}",
        kind="move",
        subject=host,
        why=Why(code, {"host": host}),
        since=WALL,
        sites=held,
    )


def scene(*incidents: Incident, holds: tuple[Hold, ...] = (), **values: object) -> Scene:
    known = {"verdicts": {WEB1: UP, WEB2: UP}, **values}
    return Scene(
        wall=WALL,
        now=100.0,
        incidents={i.id: i for i in incidents},
        holds={h.id: h for h in holds},
        **known,  # type: ignore[arg-type]
    )


class Reader:
    """A receiver to whom everything arrives at once."""

    def __init__(self) -> None:
        self.record = Notified(since=WALL - 1)
        self.got: list[Draft] = []

    def look(self, at: float, seen: Scene, gone: dict[str, float] | None = None) -> list[str]:
        """The words of every letter that is due at `at`, counted from WALL."""
        dues = due.due(matters.standing(seen), self.record, gone or {}, WALL + at)
        worst = min((d.matter.severity for d in dues), key=lambda s: s.rank, default=Severity.INFO)
        if not dues or due.letter_at(self.record, worst) > WALL + at:
            return []
        drafts = due.drafts(dues, self.record, "ana")
        for draft in drafts:
            self.record = due.after(self.record, draft, WALL + at, sent=True)
        self.got += drafts
        return [told(draft).subject for draft in drafts]


def told(draft: Draft, voice: Voice = ENGLISH) -> Letter:
    return wording.letter(draft, [voice], WALL, cluster="k")


def test_an_incident_is_told_once_for_each_of_its_stages() -> None:
    """Moved, proven, over: three letters, whatever is looked at in between."""
    reader = Reader()
    assert reader.look(0, scene(incident())) == ["[relevo] web1 is dead: 1 site moved"]
    assert reader.look(1, scene(incident())) == []
    proven = scene(incident(complete=True))
    assert reader.look(8, proven) == ["[relevo] web1: 1 site moved, proven by real requests"]
    over = scene(incident(complete=True, closed_at=WALL + 60))
    assert reader.look(61, over) == ["[relevo] web1: over, nobody need do anything"]
    assert reader.look(5000, over) == []


def test_an_incident_and_the_hold_that_it_leaves_are_one_letter_and_one_thread() -> None:
    """What wants a person comes first; each later letter follows the first."""
    reader = Reader()
    (subject,) = reader.look(0, scene(incident(), holds=(hold(),)))
    assert subject == "[relevo] web1: 1 site waits for a person"
    assert reader.look(10, scene(incident(complete=True), holds=(hold(),)))
    assert reader.look(60, scene(incident(complete=True), holds=(hold(code="manual"),)))
    first, second, third = reader.got
    assert first.follows == ()
    assert second.follows == third.follows == (first.id,)
    assert len({first.id, second.id, third.id}) == 3


def test_the_next_leader_sends_the_same_letter_under_the_same_id() -> None:
    """Who stopped between sending and remembering is repeated, and the repetition can be known by its id."""
    one, other = Reader(), Reader()
    one.look(0, scene(incident()))
    other.look(7, scene(incident()))
    assert one.got[0].id == other.got[0].id


def test_a_hold_is_told_again_only_for_another_reason_or_once_a_day() -> None:
    """One site more is no news; a day later it still stands, and that is told once."""
    reader = Reader()
    assert len(reader.look(0, scene(holds=(hold(),)))) == 1
    assert reader.look(600, scene(holds=(hold(sites=9),))) == []
    assert len(reader.look(1200, scene(holds=(hold(code="brake"),)))) == 1
    hourly = [
        reader.look(1200 + h * 3600, scene(holds=(hold(code="brake"),))) for h in range(1, 72)
    ]
    reminders = [subject for subjects in hourly for subject in subjects]
    assert reminders == ["[relevo] Still: web1: 1 site waits for a person"] * 2


def test_what_a_person_has_answered_is_not_repeated() -> None:
    """A hold by a refusal, or by a pause, is good to know, once."""
    reader = Reader()
    assert len(reader.look(0, scene(holds=(hold(code="refused"),)))) == 1
    assert reader.got[0].severity is Severity.INFO
    assert reader.look(3 * DAY_S, scene(holds=(hold(code="refused"),))) == []


def test_a_hold_that_is_gone_for_a_minute_is_told_to_be_over_and_a_shorter_gap_is_not() -> None:
    """People learn that they need do nothing more."""
    reader = Reader()
    reader.look(0, scene(holds=(hold(),)))
    assert reader.look(40, scene(), {"holds/move-web1": 30.0}) == []
    assert reader.look(80, scene(), {"holds/move-web1": 70.0}) == [
        "[relevo] web1: over, nobody need do anything"
    ]
    assert reader.look(9000, scene(), {"holds/move-web1": 9000.0}) == []


def test_a_host_that_flaps_all_day_is_told_a_dozen_times_at_most() -> None:
    """Every minute something else: the words become ever rarer."""
    reader = Reader()
    for minute in range(24 * 60):
        seen = scene(holds=(hold(code="brake" if minute % 2 else "manual"),))
        reader.look(minute * 60.0, seen)
    assert 4 <= len(reader.got) <= 12


def test_three_hundred_hosts_at_once_are_one_digest() -> None:
    """And its text names the first of them, counts the rest, and says how to answer."""
    reader = Reader()
    lost = [
        incident(HostId(f"web{n}"), moved=(), held=hold(HostId(f"web{n}")).sites)
        for n in range(300)
    ]
    holds = tuple(hold(HostId(f"web{n}"), "location-in-question", 3) for n in range(300))
    assert reader.look(0, scene(*lost, holds=holds)) == [
        "[relevo] 600 things at once, 300 want a person"
    ]
    letter = told(reader.got[0])
    assert "… and 560 more" in letter.text
    assert "relevo holds" in letter.text
    assert len(letter.text) < 5000
    assert (len(letter.notices), letter.more) == (40, 560)
    assert reader.look(1, scene(*lost, holds=holds)) == []
    assert len(msgspec.json.encode(reader.record)) < 150_000


def test_a_storm_that_lasts_is_a_letter_a_minute_at_most() -> None:
    """A host lost every second for ten minutes: gathered, not streamed."""
    reader = Reader()
    lost: list[Incident] = []
    for second in range(600):
        lost.append(incident(HostId(f"web{second}"), observed=True))
        reader.look(float(second), scene(*lost))
    assert len(reader.got) <= due.FREE + 12
    named = {d.matter.subject for draft in reader.got for d in draft.dues}
    assert len(named) > 500


def test_what_was_over_before_the_receiver_was_known_is_no_news() -> None:
    """A new receiver gets what stands, not the last fortnight."""
    reader = Reader()
    assert reader.look(0, scene(incident(closed_at=WALL - 3600))) == []
    assert len(reader.look(0, scene(incident(WEB2)))) == 1


def test_a_dead_host_with_nothing_armed_wants_a_person() -> None:
    """relevo only observes: the letter names the command that arms it."""
    reader = Reader()
    (subject,) = reader.look(0, scene(incident(observed=True)))
    assert subject == "[relevo] web1 is dead: relevo only observes, and would move 1 site"
    assert reader.got[0].severity is Severity.ACT
    assert 'relevo failover arm --host web1 --reason "…"' in told(reader.got[0]).text


def test_a_dead_host_without_sites_is_told_when_it_lasts() -> None:
    """No incident tells of it, for there was nothing to decide; while it is unsure nothing is over."""
    reader = Reader()
    fresh = Verdict(kind=Kind.DEAD, since=95.0, why=Why("silent", {"silence_s": 5.0}))
    assert reader.look(0, scene(verdicts={WEB1: fresh})) == []
    lasting = scene(
        verdicts={WEB1: Verdict(kind=Kind.DEAD, since=80.0, why=Why("silent", {"silence_s": 20.0}))}
    )
    assert reader.look(0, lasting) == ["[relevo] web1 is dead"]
    doubt = scene(
        verdicts={WEB1: Verdict(kind=Kind.UNKNOWN, since=80.0, why=Why("observers-doubt"))}
    )
    assert matters.unsure(doubt) == {"hosts/web1", "help/web1"}
    assert matters.unsure(scene()) == frozenset()


def test_the_brake_and_a_rewound_store_are_told() -> None:
    """Each with its command."""
    reader = Reader()
    braked = scene(spent=3, allowed=3)
    assert reader.look(0, braked) == [
        "[relevo] The brake is on: the next failure waits for a person"
    ]
    rewound = scene(rewound=Why("store-rewound", {"host": "web1", "epoch": "1.9", "ours": "1.4"}))
    assert reader.look(1, rewound) == [
        "[relevo] The store was rewound: nothing moves, nothing is ordered"
    ]
    assert "relevo store recover --yes" in told(reader.got[-1]).text


def penalized(level: Level, **said: object) -> dict[SiteId, Penalized]:
    plain = Penalty(
        site=SITE,
        level=level,
        resource=Resource.EGRESS,
        nature=Nature.HACKED,
        since=WALL,
        until=WALL + 9000,
        why=Why("cap-isolated"),
        enforced=True,
    )
    evidence = Evidence(
        site=SITE,
        at=WALL,
        every_s=2,
        processes=(Process(pid=7, user="shop", command="xmrig", cpu_cores=3.9),),
        urls={"/wp-login.php": 900, "/": 3},
    )
    penalty = msgspec.structs.replace(plain, **said)
    return {SITE: Penalized(host=WEB1, at=WALL, penalties=(penalty,), evidence=evidence)}


def test_a_site_that_relevo_isolates_or_stops_calls_a_person_once_for_each() -> None:
    """With its proof and the commands to look and to lift it; less, shadow, and what a person ordered call nobody."""
    reader = Reader()
    assert reader.look(0, scene(penalties=penalized(Level.ISOLATE))) == [
        "[relevo] shop is isolated on web1, by a penalty"
    ]
    letter = told(reader.got[0])
    for part in ("xmrig, 3.9 cores", "asked 900 times: /wp-login.php", "relevo site release shop"):
        assert part in letter.text, letter.text
    assert reader.look(60, scene(penalties=penalized(Level.ISOLATE))) == []
    assert reader.look(120, scene(penalties=penalized(Level.STOP))) == [
        "[relevo] shop is stopped on web1, by a penalty"
    ]
    over = reader.look(300, scene(), {"penalties/shop": 60.0})
    assert over == ["[relevo] shop is no longer isolated or stopped"]
    letter = told(reader.got[-1])
    for part in ("relevo can't know", "relevo site explain shop"):  # it may be as hacked as it was
        assert part in letter.text, letter.text
    quiet = Reader()
    for kept in (
        penalized(Level.CAP),
        penalized(Level.STOP, enforced=False),
        penalized(Level.STOP, owner="ana"),
        penalized(Level.STOP, until=WALL - 1),
    ):
        assert quiet.look(0, scene(penalties=kept)) == []


def test_a_host_that_asks_for_help_is_told_of_until_it_says_that_it_is_over() -> None:
    """Silence is no end of it: a host that says nothing more is asked about elsewhere."""
    reader = Reader()
    assert reader.look(0, scene(help={WEB1: PLEA})) == [
        "[relevo] web1 is in trouble, and no site is found to be the cause"
    ]
    assert "relevo host show web1" in told(reader.got[0]).text
    old = scene(help={WEB1: Plea(at=0.0, whys=PLEA.whys)})
    assert not [m for m in matters.standing(old) if m.what == "help"]
    assert matters.unsure(old) == {"help/web1"}
    assert matters.unsure(scene(help={WEB1: Plea(at=99.0)})) == frozenset()


def test_a_controller_tells_of_its_own_trouble_once_it_lasts() -> None:
    """A store that is away for a minute, nobody who leads, copies that fail."""
    assert matters.own(Trouble(controller="c1", store_error="away", store_away_s=30.0)) == ()
    away = matters.own(
        Trouble(controller="c1", store_error="away", store_away_s=61.0, leaderless_s=70.0)
    )
    assert [m.stage for m in away] == ["store"]
    others = matters.own(Trouble(controller="c1", leaderless_s=61.0, snapshot_error="disk full"))
    assert [m.stage for m in others] == ["leaderless", "snapshots"]
    assert all(m.own for m in (*away, *others))


def test_a_letter_holds_text_evidence_the_command_and_the_page() -> None:
    """All that a volunteer needs who is woken by it."""
    reader = Reader()
    reader.look(0, scene(incident(), holds=(hold(),)))
    letter = told(reader.got[0])
    for part in (
        "web1: 1 site waits for a person",
        "The site is gated",
        "+2.10 s Verdict: dead.",
        "edge edge1: down for 2.1 s",
        'relevo site move shop0 web2 --old-host-stopped --reason "…"',
        "https://c1.coop.example:7410/ui/holds/move-web1",
    ):
        assert part in letter.text, letter.text
    assert letter.text.count("edge edge1: down") == 1


def test_every_command_to_answer_with_is_one_that_relevo_understands() -> None:
    """For every reason that holds a site, and for every other matter."""
    reader = Reader()
    codes = (
        "gated-not-fenced",
        "manual",
        "paused",
        "observing",
        "brake",
        "store-rewound",
        "standby-full",
    )
    for n, code in enumerate(codes):
        host = HostId(f"web{n}")
        reader.look(n * 700.0, scene(incident(host, observed=True), holds=(hold(host, code),)))
    lost = Verdict(kind=Kind.AGENT_LOST, since=0.0, why=Why("silent", {"silence_s": 20.0}))
    rewound = Why("store-rewound", {"host": "web1", "epoch": "1.9", "ours": "1.4"})
    reader.look(9000, scene(spent=3, allowed=3, rewound=rewound, verdicts={WEB1: lost}))
    reader.look(9900, scene(penalties=penalized(Level.STOP), help={WEB1: PLEA}))
    said = {c for draft in reader.got for notice in told(draft).notices for c in notice.commands}
    assert len(said) > 20
    for line in said:
        understand(line)


def test_a_receiver_who_reads_spanish_is_told_in_spanish() -> None:
    """Both languages, one after the other, where both are asked for; commands are the same in each."""
    reader = Reader()
    reader.look(0, scene(incident(), holds=(hold(),)))
    both = wording.letter(reader.got[0], [SPANISH, ENGLISH], WALL, cluster="k")
    assert both.subject == "[relevo] web1: 1 sitio espera a una persona"
    assert "Para responder:" in both.text
    assert "borde edge1: no responde desde hace 2.1 s" in both.text
    assert "To answer:" in both.text
    assert both.text.count("relevo site move shop0 web2 --old-host-stopped") == 2


def test_what_was_written_down_before_there_were_reasons_is_told_as_it_stands() -> None:
    """An incident of a release before this one has its evidence in English only."""
    old = incident(testimony=(), evidence={"edge edge1": "down for 2.10 s"})
    reader = Reader()
    reader.look(0, scene(old, holds=(hold(),)))
    spanish = wording.letter(reader.got[0], [SPANISH], WALL, cluster="k")
    assert "edge edge1: down for 2.10 s" in spanish.text


def test_what_people_typed_breaks_no_subject() -> None:
    """A reason with line ends stays one line."""
    odd = Why("refused", {"owner": "ana", "reason": "no\r\nBcc: all@example.org\x00"})
    item = Hold(id="edge-web1", kind="dns", subject="web1\r\nX: y", why=odd, since=WALL)
    reader = Reader()
    (subject,) = reader.look(0, scene(holds=(item,)))
    assert "\n" not in subject and "\r" not in subject
    assert all(
        "\n" not in line and "\x00" not in line
        for n in told(reader.got[0]).notices
        for line in n.text
    )


def test_every_sentence_of_the_notices_has_its_spanish() -> None:
    """With the same values in it."""
    sources = [path.read_text() for path in Path(wording.__file__).parent.glob("*.py")]
    said = set(headlines.VERDICTS.values())
    for node in (node for source in sources for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("t", "n"):
            said |= {
                a.value
                for a in node.args
                if isinstance(a, ast.Constant) and isinstance(a.value, str)
            }
    with (LOCALE / "es" / "LC_MESSAGES" / "notices.po").open("rb") as file:
        catalogue = read_po(file, "es")
    known: set[str] = set()
    for message in catalogue:
        if not message.id:
            continue
        ids = [str(id) for id in (message.id if isinstance(message.id, tuple) else [message.id])]
        strings = message.string if isinstance(message.string, tuple) else (message.string,)
        assert all(strings) and not message.fuzzy, ids
        for text in strings:
            assert placeholders(str(text)) == placeholders(ids[-1]), ids
        known |= set(ids)
    assert said == known


stages = st.sampled_from(["a", "b", "c"])
worlds = st.lists(st.dictionaries(st.integers(0, 12), stages, max_size=12), max_size=40)


def plain(key: int, stage: str) -> Matter:
    return Matter(
        key=f"store/{key}",
        what="store",
        stage=stage,
        severity=Severity.ACT,
        subject="x",
        story=f"s{key}",
        lasts=True,
    )


@settings(max_examples=60, deadline=None)
@given(worlds, st.floats(1, 900))
def test_whatever_happens_nothing_is_told_twice_in_a_row_and_what_stands_is_told_in_the_end(
    world: list[dict[int, str]], step_s: float
) -> None:
    """Safety at each step; once all is quiet, every matter's last stage has been told."""
    record, at, last = Notified(since=WALL), WALL, dict[str, str]()
    steps = [*world, *[world[-1] if world else {}] * 40]
    for n, now in enumerate(steps):
        at += step_s if n < len(world) else 3600.0
        standing = [plain(key, stage) for key, stage in now.items()]
        dues = due.due(standing, record, {}, at)
        if not dues or due.letter_at(record, Severity.ACT) > at:
            continue
        for draft in due.drafts(dues, record, "r"):
            for item in draft.dues:
                assert item.reminder or last.get(item.matter.key) != item.matter.stage
                last[item.matter.key] = item.matter.stage
            record = due.after(record, draft, at, sent=True)
    for key, stage in (steps[-1] if steps else {}).items():
        assert last[f"store/{key}"] == stage


def test_what_is_kept_of_a_receiver_is_bounded() -> None:
    """However much was told: what stands is the last to be forgotten."""
    many = [plain(n, "a") for n in range(MATTERS_KEPT + 500)]
    draft = Draft(id="x", dues=tuple(due.Due(matter=m) for m in many), follows=())
    record = due.after(Notified(since=WALL), draft, WALL, sent=True)
    small = due.kept(record, ["store/7"], WALL)
    assert len(small.told) == MATTERS_KEPT
    assert "store/7" in small.told
