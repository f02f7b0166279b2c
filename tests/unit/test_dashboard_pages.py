"""The dashboard without a browser: odd fleets, hostile names, what it says first, and in which words."""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.admission import Caller, NotAdmitted
from controller.api.auth import Handler
from controller.uses import HostWord, SiteWord
from controller.web import dashboard, frame, words
from controller.web.frame import SESSION, Frame, Slice
from controller.web.look import Last, Look, steps
from controller.web.pages import Pages
from controller.web.render import set_up
from controller.web.sessions import IDLE_S, LASTS_S, MOST, Session, Sessions
from controller.web.summary import summarise
from controller.web.words import Speech
from failover.judge import Kind, Verdict
from fleet.caps import (
    Attachment,
    Enforcement,
    Evidence,
    Level,
    Nature,
    Override,
    Penalty,
    Process,
    Resource,
    Ruling,
    Turn,
)
from fleet.documents import read
from fleet.inforce import edition
from fleet.messages import Beside, SiteUse
from fleet.model import (
    Arming,
    AuditEntry,
    Budget,
    ControllerId,
    Entry,
    Fleet,
    HeldSite,
    Hold,
    HostId,
    Incident,
    IncidentId,
    MovedSite,
    Note,
    Phase,
    Placement,
    SiteId,
    Spent,
    Switches,
    Why,
)
from fleet.penalized import Penalized
from runtime.words import LANGUAGES, LOCALE, explain, placeholders
from tests.unit.fleets import GOOD, fleets
from tests.unit.wires import a_beat

WALL, NOW = 1_795_000_000.0, 5_000.0
WEB = Path(frame.__file__).parent
EVIL = "<script>alert('1')</script>\"&{{7*7}}"
VOID = frozenset({"meta", "link", "input", "img", "br"})
Lines = Mapping[str | tuple[str, ...], list[str]]

FLEET = read(GOOD, "good.yaml")
WEB1, WEB9, US1 = HostId("mx1-web-01"), HostId("mx1-web-09"), HostId("us1-web-01")
HUERTO, BLOG = SiteId("huerto"), SiteId("blog")
GATED = Why("gated-not-fenced")
PAUSE = Note(owner="ana", reason="switch", since=WALL, until=WALL + 7200)


def well(fleet: Fleet = FLEET, kinds: Mapping[HostId, Kind] | None = None) -> Look:
    """Everything armed and at home; every host up but those of `kinds`."""
    named = kinds or {}
    verdicts = {
        host: Verdict(kind=named.get(host, Kind.UP), since=NOW - 90, why=Why("answers"))
        for host in fleet.hosts
    }
    places = {
        id: Placement(host=site.home, since="2026-11-21T06:00:00Z", why=Why("placed-at-home"))
        for id, site in fleet.sites.items()
    }
    return Look(
        wall=WALL,
        now=NOW,
        controller=ControllerId("c1"),
        fleet=fleet,
        verdicts=verdicts,
        places=places,
        switches=Switches(all=Arming.ARM),
    )


def hold(host: HostId, *sites: SiteId, why: Why = GATED) -> Hold:
    held = tuple(HeldSite(site=site, source=host, target=US1, why=why) for site in sites)
    return Hold(id=f"move-{host}", kind="move", subject=host, why=why, since=WALL - 60, sites=held)


def incident(
    host: HostId, *sites: SiteId, observed: bool = False, complete: bool = False
) -> Incident:
    return Incident(
        id=IncidentId(f"i-{host}"),
        cause=f"host:{host}",
        subject=host,
        verdict="dead",
        began_at=WALL - 60,
        moved=tuple(MovedSite(site=site, source=host, target=US1) for site in sites),
        observed=observed,
        complete=complete,
    )


def english(look: Look) -> tuple[str, str]:
    """The headline and all that is said below it."""
    said = summarise(look, Speech("en", WALL))
    return said.headline, " | ".join(f"{p.what} {p.does} {p.wants}".strip() for p in said.points)


# --- what is said first


def test_all_well_is_said_and_nothing_else() -> None:
    """An armed co-op with every host up needs nobody."""
    assert english(well()) == ("All is well", "")
    assert summarise(well(), Speech("en", WALL)).tone == "well"


def test_observing_is_said_beside_that_all_is_well() -> None:
    """A co-op that arms nothing may not believe that it is protected."""
    headline, told = english(replace(well(), switches=Switches()))
    assert headline == "All is well; relevo only observes"
    assert "moves nothing" in told
    switches = Switches(hosts={WEB1: Arming.ARM})
    headline, told = english(replace(well(), switches=switches))
    assert headline == "All is well"
    assert "Armed for 1 host" in told


def test_a_dead_host_that_relevo_handles_wants_nobody() -> None:
    """What was moved is told, and that nothing is wanted."""
    look = well(kinds={WEB1: Kind.DEAD})
    places = {**look.places, HUERTO: msgspec.structs.replace(look.places[HUERTO], host=US1)}
    look = replace(look, places=places, incidents={IncidentId("i"): incident(WEB1, HUERTO)})
    headline, told = english(look)
    assert headline == "relevo is on it; you need do nothing"
    assert "mx1-web-01 (clara): dead. relevo moved 1 site; their answers are being proven." in told
    look = replace(look, incidents={IncidentId("i"): incident(WEB1, HUERTO, complete=True)})
    assert "relevo moved 1 site, proven by real requests." in english(look)[1]


def test_a_held_site_wants_a_decision_until_it_is_refused() -> None:
    """A hold is what a person is asked for; once they have refused, they are not asked again."""
    look = replace(well(kinds={WEB1: Kind.DEAD}), holds={"move-mx1-web-01": hold(WEB1, HUERTO)})
    headline, told = english(look)
    assert headline == "1 thing needs you"
    assert "1 site is held. The site is gated" in told
    note = Note(owner="ana", reason="back in a minute", since=WALL, until=WALL + 60)
    headline, told = english(replace(look, refusals={WEB1: note}))
    assert headline == "relevo is on it; you need do nothing"
    assert "ana refused to move the rest: back in a minute" in told
    assert not replace(look, refusals={WEB1: note}).waiting


def test_what_was_only_observed_wants_a_hand() -> None:
    """A dead host of a co-op that observes: nothing moved, and that is said."""
    look = replace(
        well(kinds={WEB9: Kind.DEAD}),
        switches=Switches(),
        incidents={IncidentId("i"): incident(WEB9, BLOG, observed=True)},
    )
    headline, told = english(look)
    assert headline == "1 thing needs you"
    assert "it would have moved 1 site" in told
    assert "Move its sites by hand, or arm relevo to do it." in told


def test_many_lost_hosts_of_a_location_are_one_thing() -> None:
    """A hundred dead hosts in one place are no hundred paragraphs, but one question; two are told by name."""
    hosts = {
        HostId(f"h{n}"): msgspec.structs.replace(FLEET.hosts[WEB1], id=HostId(f"h{n}"), tag=f"t{n}")
        for n in range(100)
    }
    fleet = msgspec.structs.replace(FLEET, hosts=hosts, sites={})
    headline, told = english(well(fleet, dict.fromkeys(hosts, Kind.DEAD)))
    assert headline == "relevo is on it; you need do nothing"
    assert told == "100 of 100 hosts in Ciudad de México are lost. 0 sites are still served there."
    held = {f"move-{id}": hold(id, HUERTO) for id in hosts}
    headline, told = english(replace(well(fleet, dict.fromkeys(hosts, Kind.DEAD)), holds=held))
    assert headline == "1 thing needs you"
    assert "100 sites are held. Is it the network there? Then decide among the holds." in told
    _, told = english(well(fleet, {HostId("h1"): Kind.DEAD, HostId("h2"): Kind.LEAVING}))
    assert "h1 (t1): dead." in told
    assert "h2 (t2): leaving." in told


@pytest.mark.parametrize(
    ("trouble", "tone", "says"),
    [
        ({"ready": False}, "bad", "has not read its store yet"),
        ({"store_error": "NoSpace: full"}, "act", "The store refuses: NoSpace: full"),
        (
            {"rewound": Why("store-rewound", {"host": "h", "epoch": "1.9", "ours": "1.2"})},
            "act",
            "The store was rewound: h holds epoch 1.9",
        ),
        ({"fleet_broken": "chunk missing"}, "act", "can't be read: chunk missing"),
        ({"doubts_itself": True}, "watch", "doubts itself"),
        ({"leads": False}, "act", "No controller leads."),
        ({"leads": False, "leader": "c2", "verdicts": {}}, "well", "c2 leads; this controller"),
        ({"fleet": Fleet()}, "act", "No fleet is declared yet."),
        (
            {"budget": Budget(spent=tuple(Spent(at=WALL, cause=f"{n}", incident=IncidentId("")) for n in range(3)))},
            "act",
            "The brake is on: 3 of 3",
        ),
        (
            {"switches": Switches(all=Arming.ARM, paused=PAUSE)},
            "watch",
            "Paused by ana for 2 h more: switch",
        ),
    ],
)  # fmt: skip
def test_trouble_above_the_hosts_is_said_plainly(
    trouble: dict[str, object], tone: str, says: str
) -> None:
    """A store, a leader or a switch in the way is what the first screen says, and what stays as it is."""
    look = replace(well(), **trouble)  # type: ignore[arg-type]
    assert says in english(look)[1]
    assert summarise(look, Speech("en", WALL)).tone == tone


@given(
    st.sampled_from(LANGUAGES),
    st.dictionaries(st.sampled_from([WEB1, WEB9, US1]), st.sampled_from(Kind)),
)
def test_every_mixture_of_verdicts_can_be_said(language: str, kinds: dict[HostId, Kind]) -> None:
    """Whatever the judge finds, each point is a sentence, and only what needs a person says so."""
    look = well(kinds=kinds)
    said = summarise(look, Speech(language, WALL))
    assert all(point.what.strip() and "{" not in point.what + point.does for point in said.points)
    assert all(bool(point.wants) == (point.tone == "act") for point in said.points)
    assert said.wants == (Kind.AGENT_LOST in kinds.values())


def test_an_isolated_site_and_a_host_that_asks_for_help_want_a_person() -> None:
    """A slowed one is watched; what is only recorded, or what a person ordered, is not told here."""
    held = {HUERTO: penalized(why=Why("cap-isolated"))}
    headline, told = english(replace(well(), penalties=held))
    assert headline == "1 thing needs you"
    assert "huerto: isolated, by a penalty. Nothing goes out but DNS" in told
    slowed = replace(well(), penalties={HUERTO: penalized(Level.CAP), BLOG: penalized(Level.SOFT)})
    assert english(slowed)[0] == "relevo is watching something; you need do nothing"
    assert "2 sites are slowed" in english(slowed)[1]
    for kept in (penalized(enforced=False), penalized(owner="ana"), penalized(until=WALL - 1)):
        assert english(replace(well(), penalties={HUERTO: kept})) == ("All is well", "")
    asks = replace(well(), help={WEB1: (Why("isolation-no-culprit", {"resource": "cpu"}),)})
    assert "mx1-web-01 is in trouble" in english(asks)[1]
    assert english(replace(well(), penalties={HUERTO: relieved()})) == ("All is well", "")
    beside = penalized(Level.SOFT)
    (relief,) = relieved().penalties
    both = msgspec.structs.replace(beside, penalties=(*beside.penalties, relief))
    assert "1 site is slowed" in english(replace(well(), penalties={HUERTO: both}))[1]
    sites = {SiteId(f"s{n}"): penalized() for n in range(9)}
    headline, told = english(replace(well(), penalties=sites))
    assert headline == "4 things need you"
    assert "6 more sites are isolated or stopped." in told


# --- pages of odd fleets


@asynccontextmanager
async def served(
    look: Look, role: str = "admin"
) -> AsyncGenerator[TestClient[web.Request, web.Application], None]:
    """The pages that are read, over one look, on loopback."""

    @web.middleware
    async def known(request: web.Request, handler: Handler) -> web.StreamResponse:
        caller = msgspec.convert({"name": EVIL, "role": role}, Caller)
        request[SESSION] = Session(token="", caller=caller, began_at=NOW, used_at=NOW, told=EVIL)
        return await handler(request)

    app = web.Application(middlewares=[known])
    set_up(app)
    app.router.add_routes(Pages(Frame(lambda: look, lambda: "d1g357")).routes())
    async with TestClient(TestServer(app)) as client:
        yield client


class Reader(HTMLParser):
    """A page as a browser takes it: which elements there are, in balance."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def read_all(look: Look, paths: list[str], language: str) -> list[str]:
    """Every page, well-formed, with one heading and no element that a name brought in."""
    found = []
    async with served(look) as client:
        for path in paths:
            answer = await client.get(path, headers={"Accept-Language": language})
            page = await answer.text()
            assert answer.status == 200, path
            reader = Reader(page)
            assert page.count("<h1") == 1, path
            assert page.count("<script") == 1, "a script that is not ours"
            assert len(reader.ids) == len(set(reader.ids)), path
            assert reader.tags <= KNOWN, reader.tags - KNOWN
            found.append(page)
    return found


TAGS = """
html head title script body a p header div nav ul li form label main section h1 h2 h3 ol span b dl dt dd
table thead tbody tr th td caption time meter footer button
"""
KNOWN = VOID | frozenset(TAGS.split())


def paths_of(look: Look) -> list[str]:
    return [
        *("/", "/sites", "/sites?only=away", "/sites?only=held", "/sites?q=a&page=9", "/incidents", "/holds"),
        *("/failover", "/log"),
        *(f"/hosts/{id}" for id in look.fleet.hosts),
        *(f"/sites/{id}" for id in look.fleet.sites),
        *(f"/incidents/{id}" for id in look.incidents),
        *(f"/holds/{id}" for id in look.holds),
    ]  # fmt: skip


async def test_an_empty_co_op_has_every_page() -> None:
    """Before anything is declared each page says so, and none fails."""
    empty = Look(wall=WALL, now=NOW, controller=ControllerId("c1"))
    for language in LANGUAGES:
        pages = await read_all(empty, paths_of(empty), language)
        assert EVIL not in "".join(pages)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(fleets(), st.sampled_from(LANGUAGES), st.data())
async def test_every_page_of_every_fleet_is_well_formed(
    fleet: Fleet, language: str, data: st.DataObject
) -> None:
    """Any valid fleet, any verdicts, holds and incidents: pages are whole; no name is markup."""
    kinds = {host: data.draw(st.sampled_from(Kind)) for host in fleet.hosts}
    look = well(fleet)
    verdicts = {
        host: Verdict(kind=kind, since=NOW - 5, why=Why("move", {"owner": EVIL, "reason": EVIL}))
        for host, kind in kinds.items()
    }
    first = next(iter(fleet.hosts))
    names = data.draw(st.lists(st.text(max_size=40), min_size=4, max_size=4))
    note = Note(owner=EVIL, reason=names[0], since=WALL, until=WALL + 60)
    entry = Entry(phase=Phase.NOTE, at=WALL, offset_s=1, why=Why(names[1]), subject=EVIL)
    happened = msgspec.structs.replace(
        incident(first, *fleet.sites), timeline=(entry, entry), evidence={names[2]: EVIL}
    )
    look = replace(
        look,
        verdicts=verdicts,
        holds={f"move-{first}": hold(first, *fleet.sites, why=Why(names[3]))},
        incidents={happened.id: happened},
        drains={first: note},
        refusals={first: note},
        withdrawn={first: note},
        audit={"1": AuditEntry(at=WALL, who=EVIL, what=names[0], subject=names[1], reason=EVIL)},
        store_error=EVIL,
    )
    pages = await read_all(look, paths_of(look), language)
    assert "<script>alert" not in "".join(pages)


async def test_a_huge_fleet_has_short_pages() -> None:
    """With 20,000 sites no page lists more than a screenful or four."""
    sites = {
        SiteId(f"s{n:05}"): msgspec.structs.replace(FLEET.sites[HUERTO], id=SiteId(f"s{n:05}"))
        for n in range(20_000)
    }
    look = well(msgspec.structs.replace(FLEET, sites=sites))
    look = replace(
        look, holds={"h": hold(WEB1, *sites)}, incidents={IncidentId("i"): incident(WEB1, *sites)}
    )
    paths = ["/", "/sites", "/sites?page=400", "/hosts/mx1-web-01", "/holds/h", "/incidents/i"]
    pages = await read_all(look, paths, "en")
    assert max(map(len, pages)) < 150_000
    assert "s19999" in pages[2]
    assert "Page 400 of 400" in pages[2]


def relieved(**said: object) -> Penalized:
    """By the memory watchdog."""
    return penalized(Level.CAP, resource=Resource.MEMORY, **said)


def penalized(level: Level = Level.ISOLATE, **said: object) -> Penalized:
    """With hostile names wherever a host chooses them."""
    plain = Penalty(
        site=HUERTO,
        level=level,
        resource=Resource.CPU,
        nature=Nature.CRAWLED,
        since=WALL - 60,
        until=WALL + 600,
        why=Why(EVIL, {"text": EVIL}),
        enforced=True,
    )
    evidence = Evidence(
        site=HUERTO,
        at=WALL - 60,
        every_s=2,
        stall=(0.1, 0.75),
        use=(0.5, 2.25),
        processes=(Process(pid=7, user=EVIL, command=EVIL),),
        urls={EVIL: 900, "/": 1},
    )
    penalty = msgspec.structs.replace(plain, **said)
    return Penalized(host=WEB1, at=WALL, penalties=(penalty,), evidence=evidence)


async def test_a_site_s_page_says_what_holds_it_and_why() -> None:
    """Penalty, proof, use against its plan, words of people; what a host made up is text."""
    use = SiteUse(attachment=Attachment.SLICE, cpu_cores=0.5, memory_bytes=1, slice=EVIL)
    note = Note(owner=EVIL, reason=EVIL, since=WALL, until=WALL + 60)
    look = replace(
        well(),
        penalties={HUERTO: penalized()},
        rulings={HUERTO: Ruling(word="quarantine", note=note)},
        overrides={HUERTO: Override(caps={"cpu_percent": 200}, note=note)},
        use_of=lambda site: SiteWord(host=WEB1, use=use, at=NOW - 4) if site == HUERTO else None,
    )
    for language, says in (
        ("en", ("isolated", "it is crawled", "25% of its cap", "up to 75%", "asked 900 times")),
        (
            "es",
            ("aislado", "lo recorren robots", "25\N{NO-BREAK SPACE}% de su límite", "900 veces"),
        ),
    ):
        (page,) = await read_all(look, ["/sites/huerto"], language)
        assert "<script>alert" not in page
        assert [text for text in says if text not in page] == []
    (other,) = await read_all(look, ["/sites/blog"], "en")
    assert "said nothing of it" in other and "only measured" in other
    shadow = replace(look, penalties={HUERTO: penalized(enforced=False)})
    (page,) = await read_all(shadow, ["/sites/huerto"], "en")
    assert "only recorded" in page
    shown_proof = penalized().evidence
    assert shown_proof is not None
    proof = msgspec.structs.replace(shown_proof, resource=Resource.IO, use=(1.0, 3 << 20), own=True)
    disk = replace(look, penalties={HUERTO: msgspec.structs.replace(penalized(), evidence=proof)})
    (page,) = await read_all(disk, ["/sites/huerto"], "en")
    assert "It waited for itself (disk)" in page and "up to 3.00 MiB/s" in page
    over = replace(look, penalties={HUERTO: penalized(until=WALL - 1)})
    (page,) = await read_all(over, ["/sites/huerto"], "en")
    assert "isolated" not in page and "asked" not in page


async def test_a_site_s_page_says_of_a_relief_that_nothing_is_taken() -> None:
    """It is no cap, and no site that costs too much: its soft limit is lifted, so that it ends what is too much."""
    kept = relieved(why=Why("isolation-futile"))
    for language, says in (("en", "soft memory limit is lifted"), ("es", "está levantado")):
        (page,) = await read_all(
            replace(well(), penalties={HUERTO: kept}), ["/sites/huerto"], language
        )
        assert says in page and explain(Why("isolation-futile"), language) in page
        assert "held under its plan" not in page and "it is crawled" not in page
        assert "asked 900 times" in page or language != "en"
    shadow = relieved(enforced=False)
    (page,) = await read_all(replace(well(), penalties={HUERTO: shadow}), ["/sites/huerto"], "en")
    assert "soft memory limit would be lifted" in page


async def test_a_site_s_page_says_what_of_its_caps_is_not_held() -> None:
    """Of its own slice and of those beside it, with the reason; what a host made up is text."""
    beside = Beside(slice="user-1001.slice", short=(Why(EVIL, {"text": EVIL}),))
    short = (Why("cap-no-file", {"file": "io.max"}),)
    use = SiteUse(attachment=Attachment.SLICE, short=short, beside=(beside,))
    word = SiteWord(host=WEB1, use=use, at=NOW - 4)
    look = replace(well(), use_of=lambda site: word if site == HUERTO else None)
    for language, says in (("en", "Not held"), ("es", "No se aplica")):
        (page,) = await read_all(look, ["/sites/huerto"], language)
        assert page.count(says) == 2 and "io.max" in page and "user-1001.slice" in page
        assert "<script>alert" not in page


async def test_a_site_s_page_says_what_the_kernel_counted() -> None:
    """In the last hour, of that site alone; a count of another release says its name."""
    use = SiteUse(attachment=Attachment.SLICE)
    look = replace(
        well(),
        use_of=lambda site: SiteWord(host=WEB1, use=use, at=NOW - 4),
        happened=lambda site: {"oom_kills": 3, "later": 1} if site == HUERTO else {},
    )
    for language, says in (
        ("en", "Processes ended for want of memory</dt><dd>3 in the last hour"),
        ("es", "Procesos terminados por falta de memoria</dt><dd>3 en la última hora"),
    ):
        (page,) = await read_all(look, ["/sites/huerto"], language)
        assert says in page and "<dt>later</dt>" in page
        (page,) = await read_all(look, ["/sites/blog"], language)
        assert "later" not in page


async def test_a_site_s_page_says_which_caps_are_stricter_than_what_holds() -> None:
    """By name, beside the word that caps hold; of a site that has all of its plan there is no line."""
    look = well()
    plan = look.fleet.plans[look.fleet.sites[HUERTO].plan]
    roomier = msgspec.structs.replace(plan.caps, tasks=plan.caps.tasks + 1)
    name = edition(roomier)
    turn = Turn(since=WALL - 9, editions={plan.id: name})
    words_of = Enforcement(sites={HUERTO: turn}, editions={name: roomier})
    for language, says in (("en", "Stricter since"), ("es", "Más estricto")):
        (page,) = await read_all(replace(look, enforcement=words_of), ["/sites/huerto"], language)
        assert says in page and ">tasks<" in page
    (page,) = await read_all(look, ["/sites/huerto"], "en")
    assert "Stricter since" not in page


async def test_a_host_s_page_says_how_it_holds_caps_and_that_it_asks_for_help() -> None:
    """Also that it can't hold any; what it made up is text."""
    beat = Last(beat=a_beat(WEB1), age_s=0.1)
    look = replace(
        well(),
        heard={WEB1: beat, WEB9: beat},
        help={WEB1: (Why(EVIL),)},
        caps_on={
            WEB1: HostWord(at=NOW, driver="systemd", drift=3),
            WEB9: HostWord(at=NOW, unable=EVIL),
        },
    )
    one, other = await read_all(look, ["/hosts/mx1-web-01", "/hosts/mx1-web-09"], "en")
    assert "It asks for help" in one and "held by systemd, repaired 3 times" in one
    assert "nothing can be enforced" in other and "It asks for help" not in other
    assert "<script>alert" not in one + other


async def test_a_host_s_page_says_that_its_word_is_old_and_that_it_can_not_hold_all() -> None:
    """A dead agent's last word is no green one; what a host lacks is told beside what it has."""
    words_of = {
        WEB1: HostWord(at=NOW - 3600, driver="systemd"),
        WEB9: HostWord(at=NOW - 9, driver="systemd", unable="nft is missing"),
    }
    beat = Last(beat=a_beat(WEB1), age_s=0.1)
    look = replace(well(), heard={WEB1: beat, WEB9: beat}, caps_on=words_of)
    old, lacks = await read_all(look, ["/hosts/mx1-web-01", "/hosts/mx1-web-09"], "en")
    assert "what it holds now is not known" in old and "not everything" not in old
    assert "what it holds now is not known" not in lacks
    assert "not everything" in lacks and "nft is missing" in lacks


async def test_what_a_host_can_not_hold_is_told_in_the_reader_s_language() -> None:
    """All of it, what it holds or not; an agent of the release before tells it in English alone."""
    root, disk = Why("unable-root"), Why("unable-quota", {"error": EVIL})
    words_of = {
        WEB1: HostWord(at=NOW, unable="so it is", lacks=(root,)),
        WEB9: HostWord(at=NOW, driver="systemd", unable="so it is", lacks=(root, disk)),
    }
    beat = Last(beat=a_beat(WEB1), age_s=0.1)
    look = replace(well(), heard={WEB1: beat, WEB9: beat}, caps_on=words_of)
    for language, says in (("en", "The agent is not root"), ("es", "El agente no es root")):
        pages = await read_all(look, ["/hosts/mx1-web-01", "/hosts/mx1-web-09"], language)
        assert all(says in page and "so it is" not in page for page in pages)
        assert ("Quotas of disks" if language == "en" else "Las cuotas de disco") in pages[1]
        assert "<script>alert" not in pages[1]


async def test_a_site_in_force_is_well_only_where_something_holds_it() -> None:
    """By its slice, at the edges, or by nobody; what an access log tells of it is an estimate."""
    look = replace(well(), enforcement=Enforcement(sites={HUERTO: Turn(since=WALL - 9)}))
    host = {WEB1: HostWord(at=NOW, driver="systemd")}
    direct = msgspec.structs.replace(look.fleet.sites[HUERTO], route="direct")
    alone = msgspec.structs.replace(look.fleet, sites={**look.fleet.sites, HUERTO: direct})
    sliced = SiteUse(attachment=Attachment.SLICE, slice="huerto.slice", requests_per_s=1.0)
    logged = SiteUse(attachment=Attachment.LOG, requests_per_s=1.0)
    for fleet, use, says, well_held, estimate in (
        (look.fleet, sliced, "by its host's kernel, at the edges", True, False),
        (look.fleet, logged, "at the edges", True, True),
        (alone, sliced, "by its host's kernel", True, False),
        (alone, logged, "in force, and nothing holds it", False, True),
    ):
        word = SiteWord(host=WEB1, use=use, at=NOW - 4)
        now = replace(look, fleet=fleet, caps_on=host, use_of={HUERTO: word}.get)
        (page,) = await read_all(now, ["/sites/huerto"], "en")
        assert says in page.replace("&#39;", "'"), (use.attachment, fleet is alone)
        assert ('<span class="tag well">enforced' in page) == well_held
        assert ("an estimate, from its access log" in page) == estimate


async def test_who_may_only_look_is_offered_no_orders() -> None:
    """A viewer's pages have no buttons that would be refused."""
    look = replace(well(kinds={WEB1: Kind.DEAD}), holds={"move-mx1-web-01": hold(WEB1, HUERTO)})
    paths = ("/hosts/mx1-web-01", "/sites/huerto", "/holds", "/holds/move-mx1-web-01", "/failover")
    for role, offered in (("viewer", False), ("operator", True)):
        async with served(look, role) as client:
            for path in paths:
                page = await (await client.get(path)).text()
                assert (" …</a>" in page or " …<span" in page) is offered, path


# --- words


def sentences_of_pages() -> Lines:
    """Every sentence that templates and code speak, by where."""
    found: dict[str | tuple[str, ...], list[str]] = {}
    methods = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
    for file, _, said, _, _ in extract_from_dir(WEB, methods, keywords={"t": None, "n": (1, 2)}):
        found.setdefault(said if isinstance(said, str) else tuple(said), []).append(file)
    for table in (*words.TABLES, dashboard.REFUSALS):
        for word in table.values():
            found.setdefault(word, []).append("a table of words")
    return found


def test_every_sentence_is_in_spanish_with_the_same_values() -> None:
    """Nothing is left in English, nothing is lost in translation, and no old sentence is kept."""
    with (LOCALE / "es" / "LC_MESSAGES" / "dashboard.po").open("rb") as file:
        spanish = read_po(file, "es")
    found = sentences_of_pages()
    assert len(found) > 300, "the walk found too little to test anything"
    translated = {
        message.id if isinstance(message.id, str) else tuple(message.id): message.string
        for message in spanish
        if message.id
    }
    assert translated.keys() - found.keys() == set()
    for said, files in found.items():
        strings = translated.get(said)
        assert strings, f"no Spanish for {said} in {files}"
        ours = (said,) if isinstance(said, str) else said
        theirs = (strings,) if isinstance(strings, str) else tuple(strings)
        for english_text, spanish_text in zip(ours, theirs, strict=True):
            assert spanish_text
            assert placeholders(english_text) == placeholders(spanish_text), said


def test_every_code_has_a_word() -> None:
    """Whatever the model can name, a page can say."""
    assert words.VERDICTS.keys() >= {kind.value for kind in Kind}
    assert words.PHASES.keys() == {phase.value for phase in Phase}
    assert words.LEVELS.keys() == {level.name.lower() for level in Level}
    assert words.RESOURCES.keys() == {resource.value for resource in Resource}
    assert words.NATURES.keys() == {nature.value for nature in Nature}
    assert words.ATTACHMENTS.keys() == {attachment.value for attachment in Attachment}
    assert words.ARMINGS.keys() == {arming.value for arming in Arming}
    assert Speech("es", WALL).word(words.VERDICTS, "never-heard-of") == "never-heard-of"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (59.6, "1 min"), (252, "4 min 12 s"),
        (3600, "1 h"), (11_100, "3 h 5 min"), (86_399, "23 h 59 min"), (187_200, "2 d 4 h"), (86_460, "1 d"),
    ],
)  # fmt: skip
def test_durations_read_well(seconds: float, text: str) -> None:
    """The two largest units at most, and none that is zero between them."""
    assert Speech("en", WALL).span(seconds) == text


@given(st.floats(0, 1e10), st.sampled_from(LANGUAGES))
def test_every_duration_can_be_said(seconds: float, language: str) -> None:
    """No span fails, and each is short."""
    say = Speech(language, WALL)
    assert re.fullmatch(r"[\d.,]+ (d|h|min|s)( \d+ (h|min|s))?", say.span(seconds))
    assert say.ago(WALL - seconds).startswith("<time datetime=")


def test_what_ten_edges_say_is_told_once() -> None:
    """Lines that differ in their subject alone are one step, from the first to the last."""
    follows = Why("edge-follows")
    entries = [
        Entry(phase=Phase.EDGE, at=WALL + n, offset_s=n, why=follows, subject=f"e{n}")
        for n in range(10)
    ]
    done = Entry(phase=Phase.EDGES, at=WALL + 10, offset_s=10, why=Why("edges-follow"))
    told = steps([*entries, done, done])
    assert [len(step.subjects) for step in told] == [10, 0, 0]
    assert (told[0].first, told[0].last) == (entries[0], entries[-1])


@given(st.text(max_size=12), st.integers(0, 10_000), st.integers(1, 100))
def test_a_page_of_a_list_is_always_one_that_there_is(asked: str, total: int, size: int) -> None:
    """Whatever number is asked for, what is shown lies within the list."""
    part = Slice.of(asked, total, size)
    assert 1 <= part.number <= part.pages
    assert 0 <= part.first <= part.last <= total
    assert part.last - part.first <= size


# --- sessions


class Door:
    """Tokens as they are now: what is taken out has ended."""

    def __init__(self) -> None:
        self.known = {"good": Caller(name="ana", role="operator")}

    def admit(self, token: str) -> Caller:
        if token not in self.known:
            raise NotAdmitted("wrong-token", "No.")
        return self.known[token]


@pytest.mark.virtual_time
async def test_a_session_ends_by_age_by_idleness_and_with_its_token() -> None:
    """Nobody stays logged in for ever, and a revoked token is out at the next request."""
    door = Door()
    sessions = Sessions(door.admit)
    used, idle = sessions.begin(" good\n"), sessions.begin("good")
    for _ in range(int(LASTS_S // IDLE_S)):
        assert sessions.of(used)
        await asyncio.sleep(IDLE_S - 1)
    assert sessions.of(idle) is None
    assert sessions.of(used)
    await asyncio.sleep(IDLE_S - 1)
    assert sessions.of(used) is None
    revoked = sessions.begin("good")
    assert sessions.of(revoked)
    door.known.clear()
    assert sessions.of(revoked) is None
    for token in ("", "wrong", "x" * 10_000):
        with pytest.raises(NotAdmitted):
            sessions.begin(token)


@pytest.mark.virtual_time
async def test_sessions_are_bounded_and_the_idlest_makes_room() -> None:
    """However often somebody logs in, memory does not grow, and who is looking stays."""
    sessions = Sessions(Door().admit)
    first = sessions.begin("good")
    for _ in range(MOST + 50):
        await asyncio.sleep(1)
        assert sessions.of(first)
        sessions.begin("good")
    assert len(sessions) == MOST


def test_a_member_sees_no_other_members_sites() -> None:
    """A member's token is refused at the door, as is no token."""
    member = Caller(name="huerto", role="member")
    with pytest.raises(NotAdmitted) as refused:
        Sessions(lambda token: member).begin("good")
    assert refused.value.reason == "not-allowed"
