"""The commands on caps against a server that says what the API's own types say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.signals import HostSigns, Signals, SiteSigns
from agent.usage.history import DAY, History
from agent.usage.ledger import SLOT_S, Ledger, Row, terms
from cli.failures import Exit
from controller.api.capshapes import (
    AtEdges,
    BesideCaps,
    Differing,
    EnforcementTold,
    HostCaps,
    Pending,
    Report,
    Reported,
    Share,
    Short,
    SiteCaps,
    SiteUsage,
    Waiting,
)
from controller.chain import Link
from controller.holders import Holder
from deploy.demo.plans import SOLIDARITY
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
from fleet.messages import Past, SiteUse
from fleet.model import Caps, HostId, Note, PlanId, SiteId, Why
from fleet.penalized import Ended
from fleet.quota import DiskUse
from tests.unit.commands import relevo
from tests.unit.test_cli import answering, says

SMALL = SOLIDARITY.caps
LARGE = msgspec.structs.replace(SMALL, cpu_percent=150)
NOTE = Note(owner="ana", reason="a campaign", since=0, until=4e9)
PENALTY = Penalty(
    site=SiteId("huerto"),
    level=Level.CAP,
    resource=Resource.CPU,
    nature=Nature.CRAWLED,
    share=0.5,
    since=1_795_229_264,
    until=4e9,
    why=Why("cap-share", {"percent": 50}),
)
CHAIN = (
    Link(cap="cpu_quota_us", plan=1_500_000, wanted=750_000, held=750_000, because=PENALTY.why),
    Link(cap="memory_max_bytes", plan=1 << 30, override=2 << 30, wanted=2 << 30, held=2 << 30),
    Link(cap="tasks_max", plan=120, wanted=120, held=99, because=Why("cap-plan"), differs=True),
    Link(cap="swap_max_bytes", plan=1 << 20),
)
SITE = SiteCaps(
    host=HostId("mx1-web-01"),
    age_s=4.0,
    driver="systemd",
    site=SiteId("huerto"),
    plan=PlanId("standard"),
    attachment=Attachment.SLICE,
    slice="user-1001.slice",
    enforced_from=1_795_229_264.0,
    enforced=True,
    override=Override(caps={"memory_max_bytes": 2 << 30}, note=NOTE),
    ruling=Ruling(word="quarantine", level=Level.CAP, note=NOTE),
    penalties=(PENALTY,),
    evidence=Evidence(
        site=SiteId("huerto"),
        at=0,
        every_s=2,
        stall=(0.1, 0.1, 0.8),
        use=(0.0, 0.0, 3 << 20),
        gaps=(1,),
        resource=Resource.IO,
        signs=("listens",),
        processes=(Process(pid=77, user="huerto", command="php-fpm: pool huerto", cpu_cores=1.4),),
        urls={"/wp-login.php": 900},
    ),
    known=True,
    chain=CHAIN,
    differs=("tasks_max",),
    past=(Ended(penalty=PENALTY, host=HostId("mx1-web-09"), ended=1_795_229_864.0),),
    short=(Why("cap-not-held", {"caps": "tasks_max"}),),
    beside=(
        BesideCaps(
            slice="user-1002.slice",
            known=True,
            chain=(Link(cap="tasks_max", plan=120, wanted=20, held=20),),
            differs=(),
            short=(),
        ),
    ),
    edges=AtEdges(
        state="slowed",
        until=None,
        in_flight=10,
        queue=100,
        queue_wait_s=10.0,
        requests_per_s=12.5,
        requests_burst=None,
        client_requests_per_min=150,
    ),
    waits={
        "disk_bytes": Waiting(holds=20 << 30, plan=10 << 30),
        "tasks": Waiting(holds=200, plan=120, comes=1_796_083_200.0),
    },
)
HOST = HostCaps(
    host=HostId("mx1-web-01"),
    age_s=4.0,
    driver="systemd",
    drift=3,
    sites=2,
    enforced=2,
    attachments={"slice": 1},
    differing=(
        Differing(site=SiteId("huerto"), slice="user-1001.slice", age_s=4.0, chain=CHAIN[2:3]),
    ),
    unknown=(SiteId("blog"),),
    help=(Why("no-culprit"),),
    short=(Short(site=SiteId("huerto"), slice="user-1001.slice", short=(Why("cap-not-held"),)),),
)


def changed(told: HostCaps, **said: object) -> HostCaps:
    return msgspec.structs.replace(told, **said)


REPORT = Report(
    days=7.0,
    sites=(
        Reported(
            site=SiteId("huerto"),
            plan=PlanId("standard"),
            host=HostId("mx1-web-01"),
            attachment=Attachment.POOL,
            enforced=False,
            shadow_min=14.0,
            penalized_min=0.0,
            penalties=2,
            level="cap",
            history=None,
            waits=True,
        ),
    ),
    quiet=80,
    unheard=3,
    next=None,
)
ENFORCEMENT = EnforcementTold(
    words=Enforcement(plans={PlanId("plus"): Turn(since=1_795_229_264.0)}),
    enforced=3,
    at_edges=2,
    shadow=90,
    waiting=2,
    unable=4,
    pending=(Pending(plan=PlanId("plus"), since=1_795_229_264.0, sites=7),),
)


def plain(told: object) -> Any:
    """As the API writes it: with a reason's sentence."""
    text = msgspec.json.encode(told).replace(b'"values":', b'"text":"So it is.","values":')
    return msgspec.json.decode(text)


USAGE = SiteUsage(
    site=SiteId("huerto"),
    plan=PlanId("standard"),
    host=HostId("mx1-web-01"),
    age_s=4.0,
    use=SiteUse(
        attachment=Attachment.POOL,
        cpu_cores=0.75,
        memory_bytes=300 << 20,
        file_bytes=200 << 20,
        devices={"8:0": 5 << 20},
        disk=DiskUse(used_bytes=3 << 30, used_inodes=4500),
        past=Past(
            days=30.0,
            at_cap_min={PlanId("standard"): 0.0, PlanId("solidarity"): 212.0},
            cpu_p95_cores=0.9,
        ),
    ),
    against={
        PlanId(name): Share(
            cpu_ratio=ratio,
            memory_ratio=0.3,
            tasks_ratio=None,
            read_ratio=None,
            write_ratio=None,
            requests_ratio=None,
            disk_ratio=0.15,
            inodes_ratio=ratio,
        )
        for name, ratio in (("plus", 0.25), ("solidarity", 0.75), ("standard", 0.5))
    },
    last_hour={"memory_high_hits": 9, "oom_kills": 1, "throttled_periods": 40, "later": 1},
)

LOOKS = [
    (
        ("site", "usage", "huerto"),
        USAGE,
        [
            "CPU 0.75 cores",
            "memory 300 MiB of it cache 200 MiB",
            "disk 8:0 5 MiB/s",
            "in the last hour slowed 9 times at memory.high, 1 processes ended for want of memory",
            "held by its CPU quota in 40 tenths of a second",
            "processes not known",
            "95 % of the time at most 0.90 cores",
            "IN 30 d",
            "keeps 3 GiB in 4500 files",
            "plus 25% 30% ? ? ? ? 25% ?",
            "solidarity 75% 30% ? ? ? ? 75% 212 min",
            "standard * 50% 30% ? ? ? ? 50% 0 min",
        ],
    ),
    (
        ("site", "explain", "huerto"),
        SITE,
        [
            "plan standard, on mx1-web-01",
            "user-1001.slice",
            "slowed: 10 pages at a time, 100 wait up to 10 s; 12.5 a second; 150 a minute for one client",
            "quarantine at cap by ana",
            "150 %",
            "75 %",
            "1 GiB 2 GiB 2 GiB",
            "120 120 99 !",
            "no limit",
            "cpu_quota_us: So it is.",
            "something else: tasks_max",
            "not held: So it is.",
            "sessions and jobs of its users: user-1002.slice",
            "120 20 20",
            "cap cpu to 50%",
            "only recorded: crawled",
            "about the disk",
            "shows a server of its own",
            "·█ up to 80% of the time",
            "·█ up to 3 MiB/s",
            "php-fpm: pool huerto",
            "900 /wp-login.php",
            "10 min mx1-web-09",
            "only watched disk_bytes 10 GiB (20 GiB holds), tasks 120 (200 holds until 2026-12-01",
            "caps arm --plan standard",
        ],
    ),
    (("caps", "status"), ENFORCEMENT, ["caps shadow", "3 sites, 2 of them at the edges only", "plus: from 2026-11-21",
                                     "90 sites", "4 sites, which neither",
                                     "at 7 sites: relevo caps arm --plan plus"]),
    (
        ("caps", "report"),
        REPORT,
        ["huerto standard pool 14 min cap as armed", "80 sites: nothing", "known of 3 sites"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "said", "shown"), LOOKS, ids=[" ".join(c) for c, _, _ in LOOKS]
)
async def test_what_holds_sites_is_told_in_80_columns(
    command: tuple[str, ...], said: object, shown: list[str]
) -> None:
    """Values have their units, reasons their sentence; with --json it is the API's own."""
    async with answering(says(plain(said))) as (url, _):
        result = await relevo(*command, "--url", url)
        as_json = await relevo(*command, "--json", "--url", url)
    assert (result.code, result.err) == (Exit.OK, "")
    flat = " ".join(result.out.split())
    assert [text for text in shown if text not in flat] == [], result.out
    assert result.width <= 80
    told = plain(said)
    told.pop("next", None)
    assert msgspec.json.decode(as_json.out) == told


async def test_a_relief_is_told_as_none_of_the_penalties() -> None:
    """The memory watchdog lifts a limit: the site is held at no cap, and costs no more than its plan."""
    relief = msgspec.structs.replace(
        PENALTY, resource=Resource.MEMORY, share=1.0, why=Why("isolation-futile"), enforced=True
    )
    past = (Ended(penalty=relief, host=HostId("mx1-web-09"), ended=1_795_229_864.0),)
    told = msgspec.structs.replace(SITE, penalties=(relief,), past=past)
    async with answering(says(plain(told))) as (url, _):
        result = await relevo("site", "explain", "huerto", "--url", url)
    flat = " ".join(result.out.split())
    assert "no penalty: its soft memory limit is lifted, for" in flat
    assert "memory limit lifted 10 min" in flat
    assert "cap memory" not in flat and "crawled" not in flat
    assert result.width <= 80


async def test_a_plan_that_a_site_stays_below_has_zero_minutes(tmp_path: Path) -> None:
    """As a real history tells it; a plan that came yesterday says so, and one that nobody compared is not known."""
    old, all_ = {"solidarity": SMALL}, {"solidarity": SMALL, "standard": LARGE}
    history, begin = History(tmp_path / "usage.sqlite", max_bytes=1 << 22), 1000 * DAY
    for slot in range(begin, begin + 30 * DAY + 1, DAY // 2):
        plans = {
            PlanId(id): caps for id, caps in (all_ if slot > begin + 20 * DAY else old).items()
        }
        history.write(
            five_minutes(slot, plans, SiteSigns(attachment=Attachment.SLICE, cpu_cores=1.2))
        )
    past = history.past([SiteId("huerto")], begin + 30 * DAY)[SiteId("huerto")]
    history.close()
    assert USAGE.use is not None
    told = msgspec.structs.replace(USAGE, use=msgspec.structs.replace(USAGE.use, past=past))
    async with answering(says(plain(told))) as (url, _):
        result = await relevo("site", "usage", "huerto", "--url", url)
    flat = " ".join(result.out.split())
    assert "plus 25% 30% ? ? ? ? 25% ?" in flat, flat
    assert "solidarity 75% 30% ? ? ? ? 75% 10 min" in flat
    assert "standard * 50% 30% ? ? ? ? 50% 0 min in 10 d" in flat
    assert result.width <= 80


def five_minutes(slot: int, plans: Mapping[PlanId, Caps], signs: SiteSigns) -> tuple[Row, ...]:
    """As the sampler makes a row of two readings."""
    ledger = Ledger()
    host = HostSigns(cores=4, memory_total_bytes=1 << 36, memory_available_bytes=1 << 35)
    for now in (slot * SLOT_S, slot * SLOT_S + 10):
        signals = Signals(at=now, host=host, sites={SiteId("huerto"): signs})
        ledger.add(signals, {SiteId("huerto")}, terms(plans, {}, [], now), now)
    return ledger.close()


async def test_what_an_access_log_tells_is_labelled_an_estimate() -> None:
    """Also now, not only of its past; of what is attached better nothing of the kind is said."""
    assert USAGE.use is not None
    use = msgspec.structs.replace(USAGE.use, attachment=Attachment.LOG, took_s=0.25)
    async with answering(says(plain(msgspec.structs.replace(USAGE, use=use)))) as (url, _):
        estimated = await relevo("site", "usage", "huerto", "--url", url)
    async with answering(says(plain(USAGE))) as (url, _):
        seen = await relevo("site", "usage", "huerto", "--url", url)
    assert "only an estimate, from its access log" in " ".join(estimated.out.split())
    assert "a request takes 0.250 s, an estimate" in " ".join(estimated.out.split())
    assert "a request takes" not in seen.out, "most logs do not say it"
    assert "estimate" not in seen.out


WELL = msgspec.structs.replace(HOST, differing=(), short=(), unknown=())
GREEN = "The kernel holds what it should."
VERIFIED = {
    "differs": (HOST, Exit.CHANGES, ("huerto tasks_max 120 99 user-1001.slice", "something else")),
    "holds": (WELL, Exit.OK, (GREEN,)),
    "edges": (changed(WELL, at_edges=("blog",)), Exit.OK, (GREEN, "At the edges only: blog.")),
    "shadow": (changed(WELL, enforced=0), Exit.OK, ("Nothing is to be held there",)),
    "no sites": (changed(WELL, sites=0, driver=""), Exit.OK, ("there is nothing to hold",)),
    "short": (
        changed(HOST, differing=()),
        Exit.NOT_HELD,
        ("huerto (user-1001.slice): So it is.", "Not all is held", "above: huerto."),
    ),
    "no driver": (
        changed(WELL, driver="", unable="cgroup v1: boot with another kernel"),
        Exit.NOT_HELD,
        ("Nothing can be held there", "cgroup v1: boot with another kernel."),
    ),
    "in one's own language": (
        changed(WELL, unable="in English", lacks=(Why("unable-root"), Why("unable-v1"))),
        Exit.NOT_HELD,
        ("Not all can be held there: So it is. So it is.",),
    ),
    "a part": (
        changed(WELL, unable="/srv (ext4) keeps no quota of users."),
        Exit.NOT_HELD,
        ("Not all can be held there: /srv (ext4) keeps no quota of users.",),
    ),
    "no slice, no edge": (
        changed(WELL, unheld=("blog",)),
        Exit.NOT_HELD,
        ("no slice and no edge: blog.", "relevo layout on the host"),
    ),
    "untold": (changed(WELL, untold=("blog",)), Exit.NOT_KNOWN, ("nothing is told of: blog.",)),
    "silent": (
        changed(WELL, age_s=None, driver=""),
        Exit.NOT_KNOWN,
        ("has said nothing", "systemctl status relevo-agent"),
    ),
    "old": (
        changed(WELL, age_s=5 * 3600.0),
        Exit.NOT_KNOWN,
        ("Its last word is 5 h old", "systemctl status relevo-agent"),
    ),
    "old, and differs": (changed(HOST, age_s=61.0), Exit.NOT_KNOWN, ("1 min 1 s old", "as it was then")),
}  # fmt: skip


@pytest.mark.parametrize(("told", "code", "shown"), VERIFIED.values(), ids=VERIFIED)
async def test_a_verified_host_is_told_by_the_exit_code_and_in_words(
    told: HostCaps, code: Exit, shown: tuple[str, ...]
) -> None:
    """0 where all is held, and only then it is said so; 7 differs, 8 not all is held, 9 not known: with the remedy."""
    async with answering(says(plain(told))) as (url, requests):
        result = await relevo("caps", "verify", "mx1-web-01", "--url", url)
        as_json = await relevo("caps", "verify", "mx1-web-01", "--json", "--url", url)
    assert (result.code, as_json.code) == (code, code)
    flat = " ".join(result.out.split())
    assert [text for text in shown if text not in flat] == [], result.out
    assert (GREEN in flat) == (GREEN in shown), result.out
    assert {request.path for request in requests} == {"/v1/hosts/mx1-web-01/caps"}
    assert msgspec.json.decode(as_json.out) == plain(told)


async def test_a_verdict_of_an_earlier_controller_is_not_made_up() -> None:
    """It does not say who is held by nobody: what it says is judged, and nothing else."""
    said = {
        k: v for k, v in plain(WELL).items() if k not in {"unheld", "untold", "at_edges", "short"}
    }
    async with answering(says(said)) as (url, _):
        result = await relevo("caps", "verify", "mx1-web-01", "--url", url)
    assert (result.code, GREEN in result.out) == (Exit.OK, True)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (("kernel", "edges"), "by its host's kernel and at the edges"),
        (("edges",), ", at the edges"),
        ((), "BUT NOTHING HOLDS THEM"),
    ],
    ids=["both", "edges", "nobody"],
)
async def test_a_site_in_force_says_who_holds_it(by: tuple[Holder, ...], said: str) -> None:
    """In shadow nobody does, and nothing of it is said."""
    for told, there in ((SITE, True), (msgspec.structs.replace(SITE, enforced_from=None), False)):
        async with answering(says(plain(msgspec.structs.replace(told, held_by=by)))) as (url, _):
            result = await relevo("site", "explain", "huerto", "--url", url)
        assert (said in " ".join(result.out.split())) == there, result.out


async def test_use_that_is_not_told_is_not_shown_as_no_limit() -> None:
    """A site whose host said nothing has question marks, not freedom."""
    silent = msgspec.structs.replace(
        SITE, age_s=None, known=False, attachment=None, differs=(),
        chain=(Link(cap="tasks_max", plan=120),), penalties=(), past=(), enforced_from=None,
    )  # fmt: skip
    async with answering(says(plain(silent))) as (url, _):
        result = await relevo("site", "explain", "huerto", "--url", url)
    assert "120 ? ?" in " ".join(result.out.split()), result.out
    assert "no limit" not in result.out and "not told yet" in result.out


ORDERS: list[tuple[tuple[str, ...], str, dict[str, object]]] = [
    (
        ("site", "quarantine", "huerto", "--nature", "hacked"),
        "PUT /v1/sites/huerto/quarantine",
        {"reason": "why", "for_s": 7200.0, "level": "isolate", "nature": "hacked"},
    ),
    (
        ("site", "quarantine", "huerto", "--remove"),
        "DELETE /v1/sites/huerto/quarantine",
        {"reason": "why"},
    ),
    (
        ("site", "release", "huerto", "--for", "1h"),
        "PUT /v1/sites/huerto/release",
        {"reason": "why", "for_s": 3600.0},
    ),
    (
        ("site", "override", "huerto", "memory_max_bytes=2G", "tasks=200", "memory_high_ratio=0.8"),
        "PUT /v1/sites/huerto/override",
        {
            "caps": {"memory_max_bytes": 2 << 30, "tasks": 200, "memory_high_ratio": 0.8},
            "reason": "why",
            "for_s": 7 * 86_400.0,
        },
    ),
    (
        ("site", "override", "huerto", "--remove"),
        "DELETE /v1/sites/huerto/override",
        {"reason": "why"},
    ),
    (
        ("caps", "arm", "--plan", "plus", "--from", "2026-12-01"),
        "PUT /v1/caps/enforcement",
        {"scope": "plan", "id": "plus", "word": "arm", "since": 1_796_083_200.0, "reason": "why"},
    ),
    (
        ("caps", "arm", "--all", "--yes"),
        "PUT /v1/caps/enforcement",
        {
            "scope": "all",
            "id": None,
            "word": "arm",
            "since": None,
            "untried": True,
            "reason": "why",
        },
    ),
    (
        ("caps", "shadow", "--all"),
        "PUT /v1/caps/enforcement",
        {"scope": "all", "id": None, "word": "shadow", "reason": "why"},
    ),
    (
        ("caps", "inherit", "--site", "huerto"),
        "PUT /v1/caps/enforcement",
        {"scope": "site", "id": "huerto", "word": None, "reason": "why"},
    ),
    (
        ("caps", "inherit", "--all", "--yes"),
        "PUT /v1/caps/enforcement",
        {"scope": "all", "id": None, "word": None, "untried": True, "reason": "why"},
    ),
]


@pytest.mark.parametrize(
    ("command", "route", "body"), ORDERS, ids=[" ".join(c) for c, _, _ in ORDERS]
)
async def test_an_order_about_caps_goes_where_it_should(
    command: tuple[str, ...], route: str, body: dict[str, object]
) -> None:
    """Whole, with its reason and its end; without a reason nobody is asked."""
    async with answering(says({"revision": 7})) as (url, requests):
        without = await relevo(*command, "--url", url)
        assert (without.code, requests) == (Exit.USAGE, [])
        result = await relevo(*command, "--reason", "why", "--url", url)
    assert (result.code, result.err) == (Exit.OK, "")
    assert "revision 7" in result.out
    assert f"{requests[0].method} {requests[0].path}" == route
    assert msgspec.json.decode(await requests[0].read()) == body


@pytest.mark.parametrize(
    "command",
    [
        ("site", "override", "huerto"),
        ("site", "override", "huerto", "tasks=200", "--remove"),
        ("site", "override", "huerto", "tasks"),
        ("site", "override", "huerto", "memory_max_bytes=2 parsecs"),
        ("site", "override", "huerto", "tasks=1", "tasks=2"),
        ("site", "quarantine", "huerto", "--for", "8d"),
        ("caps", "arm"),
        ("caps", "arm", "--all", "--site", "huerto"),
        ("caps", "arm", "--all", "--from", "tomorrow"),
    ],
    ids=" ".join,
)
async def test_what_makes_no_sense_about_caps_is_refused(command: tuple[str, ...]) -> None:
    """Before anybody is asked."""
    async with answering(says({"revision": 7})) as (url, requests):
        result = await relevo(*command, "--reason", "why", "--url", url)
    assert (result.code, requests) == (Exit.USAGE, [])


async def test_arming_too_soon_says_the_word_that_does_it_all_the_same() -> None:
    """The sentence is the controller's, with what shadow found; the remedy is in this command's words."""
    refusal = {
        "type": "/problems/caps-untried",
        "title": "Refused",
        "status": 409,
        "detail": "Shadow has watched these caps for 3 of 14 days (7 sites).",
    }
    async with answering(says(refusal, 409)) as (url, _):
        result = await relevo("caps", "arm", "--all", "--reason", "why", "--url", url)
    assert result.code == Exit.FAILED
    said = " ".join(result.err.split())
    assert "for 3 of 14 days (7 sites). If you know better, say --yes" in said
