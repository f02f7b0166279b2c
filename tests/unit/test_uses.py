"""What a controller believes of what hosts tell of their sites: its own, bounded, with an end (R15)."""

from typing import Any

import msgspec
import pytest

from agent.caps.verified import ERROR_MAX
from agent.signals import HostSigns, Signals, SiteSigns
from agent.usage.report import Held, Tellings, Word
from controller.uses import AHEAD_S, REASONS_MAX, VALUE_CHARACTERS, Uses, tidy
from fleet.caps import (
    Attachment,
    Evidence,
    IoLimit,
    Level,
    Limits,
    Penalty,
    Process,
    Resource,
    Ruling,
)
from fleet.messages import (
    BEAT_LIMIT_BYTES,
    BESIDE_MAX,
    BESIDE_SHORT_MAX,
    FRAME_LIMIT_BYTES,
    SHORT_MAX,
    Beside,
    Past,
    SiteUse,
    Usage,
    usage_limit_bytes,
)
from fleet.model import HostId, Note, SiteId, Why
from fleet.penalized import KEPT_S, TERM_S, Penalized
from fleet.skew import AGENTS, unknown_kind
from runtime.clock import wall
from tests.unit.test_penalties import A, B, Desk

pytestmark = pytest.mark.virtual_time
OURS, THEIRS = SiteId("huerto"), SiteId("blog")
LIMITS = Limits(
    cpu_weight=100,
    cpu_quota_us=None,
    memory_high_bytes=None,
    memory_max_bytes=None,
    memory_low_bytes=0,
    swap_max_bytes=None,
    tasks_max=None,
)


def desk() -> tuple[Desk, Uses]:
    """`huerto` is on host a, `blog` on host b."""
    made = Desk("huerto", "blog")
    made.mirror.ready = True
    made.place({OURS: A, THEIRS: B})
    return made, Uses(made.mirror, made.exporter)


def use(**said: Any) -> SiteUse:
    return SiteUse(attachment=Attachment.SLICE, **said)


def penalty(site: SiteId = OURS, **said: Any) -> Penalty:
    now = wall()
    plain = Penalty(
        site=site, level=Level.CAP, resource=Resource.CPU, since=now, until=now + 60, why=Why("cap-soft")
    )  # fmt: skip
    return msgspec.structs.replace(plain, **said)


async def test_only_the_host_of_a_site_is_believed() -> None:
    """Use, penalties and evidence of another host's site are dropped; a host that is not declared has no say at all."""
    made, uses = desk()
    evidence = (Evidence(site=THEIRS, at=wall(), every_s=2),)
    said = Usage(
        host=A, sites={OURS: use(), THEIRS: use()}, penalties=(penalty(THEIRS),), evidence=evidence
    )
    uses.take(A, said)
    uses.take(HostId("stranger"), said)
    assert uses.of(OURS) is not None and uses.of(THEIRS) is None
    word = uses.hosts[A]
    assert (set(word.sites), word.penalties, word.evidence) == ({OURS}, {}, {})
    assert uses.hosts.keys() == {A}
    told = made.exporter.render().decode()
    assert "relevo_usage_foreign_sites_total 2.0" in told  # in use, and in penalties and evidence


async def test_what_a_host_lacks_is_kept_as_reasons_no_longer_than_ours() -> None:
    """And forgotten when it says that it lacks nothing."""
    _, uses = desk()
    lacks = (Why("unable-quota", {"error": "x" * 9999}), Why("unable-root"))
    uses.take(A, Usage(host=A, unable="so it is", lacks=lacks))
    long, root = uses.hosts[A].lacks
    assert (root, len(str(long.values["error"]))) == (lacks[1], VALUE_CHARACTERS)
    uses.take(A, Usage(host=A))
    assert (uses.hosts[A].lacks, uses.hosts[A].unable) == ((), "")


async def test_what_is_told_seldom_is_kept() -> None:
    """Limits, their reasons and the past stay as they were told last; use does not."""
    _, uses = desk()
    past = Past(days=1.0)
    first = use(
        cpu_cores=1.0, wanted=LIMITS, held=LIMITS, because={"io": Why("cap-plan")}, past=past
    )
    uses.take(A, Usage(host=A, sites={OURS: first}))
    uses.take(A, Usage(host=A, sites={OURS: use(tasks=3)}))
    word = uses.of(OURS)
    assert word is not None
    assert (word.use.cpu_cores, word.use.tasks) == (None, 3)
    assert (word.use.wanted, word.use.held, word.use.past) == (LIMITS, LIMITS, past)
    assert word.use.because == {"io": Why("cap-plan")}
    uses.take(A, Usage(host=A, sites={OURS: use(wanted=LIMITS)}))
    word = uses.of(OURS)
    assert word is not None
    assert (word.use.wanted, word.use.held) == (LIMITS, None), "its slice is not there now"


async def test_what_is_not_held_is_kept_until_it_is_told_that_all_is() -> None:
    """With the limits; an agent that does not know of it tells of limits only when it has some."""
    _, uses = desk()
    beside = (Beside(slice="user-1001.slice", wanted=LIMITS, held=None),)
    open_ = (Why("mail-open", {"x" * 500: "y" * 500}),)

    def known() -> SiteUse:
        word = uses.of(OURS)
        assert word is not None
        return word.use

    uses.take(A, Usage(host=A, sites={OURS: use(told=True, short=open_, beside=beside)}))
    uses.take(A, Usage(host=A, sites={OURS: use(tasks=3)}))
    assert (known().short[0].code, known().beside) == ("mail-open", beside)
    assert len(msgspec.json.encode(known().short)) < 350, "a reason is no longer than ours"
    uses.take(A, Usage(host=A, sites={OURS: use(told=True)}))
    assert (known().short, known().beside) == ((), ())
    uses.take(A, Usage(host=A, sites={OURS: use(told=True, wanted=LIMITS, held=LIMITS)}))
    uses.take(A, Usage(host=A, sites={OURS: use()}))
    assert known().wanted == LIMITS
    uses.take(A, Usage(host=A, sites={OURS: use(told=True)}))
    assert known().wanted is None, "its caps went back to shadow"


async def test_a_part_of_the_sites_leaves_the_others_as_told() -> None:
    """A host of many sites tells a part at a time; penalties are whole each time."""
    made, uses = desk()
    made.place({OURS: A, THEIRS: A})
    uses.take(A, Usage(host=A, sites={OURS: use()}, penalties=(penalty(),)))
    uses.take(A, Usage(host=A, sites={THEIRS: use()}))
    assert set(uses.hosts[A].sites) == {OURS, THEIRS}
    assert uses.hosts[A].penalties == {}


async def test_a_moved_site_is_forgotten_with_its_old_host() -> None:
    """What the old host said is not what the new one holds."""
    made, uses = desk()
    uses.take(A, Usage(host=A, sites={OURS: use()}))
    made.place({OURS: B, THEIRS: B})
    assert uses.of(OURS) is None
    uses.take(A, Usage(host=A))
    assert uses.hosts[A].sites == {}


async def test_no_penalty_lasts_for_ever_or_borrows_a_name() -> None:
    """A term is a day at most; an owner is a person only where that person's word stands in the store."""
    made, uses = desk()
    uses.take(A, Usage(host=A, penalties=(penalty(until=1e11, since=1e11, owner="ana"),)))
    (found,) = uses.hosts[A].penalties[OURS]
    assert found.until <= wall() + TERM_S and found.since <= wall() + AHEAD_S
    assert found.owner == "relevo"
    note = Note(owner="ana", reason="spam", since=0, until=4e9)
    made.mirror.rulings = {OURS: Ruling(word="quarantine", note=note)}
    uses.take(A, Usage(host=A, penalties=(penalty(owner="ana"),)))
    (ordered,) = uses.hosts[A].penalties[OURS]
    assert ordered.owner == "ana"
    # She takes her word back; until its host has heard of it the penalty goes on being hers.
    made.mirror.rulings = {}
    made.mirror.penalties = {OURS: Penalized(host=A, at=wall(), penalties=(ordered,))}
    uses.take(A, Usage(host=A, penalties=(ordered,)))
    assert uses.hosts[A].penalties[OURS][0].owner == "ana"
    uses.take(A, Usage(host=A, penalties=(penalty(owner="ana", since=1),)))
    assert uses.hosts[A].penalties[OURS][0].owner == "relevo"


async def test_a_host_whose_clock_is_ahead_tells_of_one_penalty() -> None:
    """It began when its host says, at the first telling and at each after it: another instant is another penalty."""
    _, uses = desk()
    since = wall() + 30
    for _ in range(2):
        uses.take(A, Usage(host=A, penalties=(penalty(since=since, until=since + 900),)))
        assert [one.since for one in uses.hosts[A].penalties[OURS]] == [since]


async def test_evidence_is_of_the_last_two_weeks() -> None:
    """Older is forgotten, newer than now is not believed, the newest stays, and no path keeps its query (R16)."""
    _, uses = desk()

    def proof(at: float) -> Evidence:
        return Evidence(site=OURS, at=at, every_s=2)

    now = wall()
    for at in (now - 100, now - 200, now + 9999):
        uses.take(A, Usage(host=A, evidence=(proof(at),)))
    assert uses.hosts[A].evidence[OURS].at == now - 100
    uses.hosts[A].evidence[OURS] = proof(now - KEPT_S - 1)
    uses.take(A, Usage(host=A))
    assert uses.hosts[A].evidence == {}
    asked = {"/cart?who=ana": 2, "/cart?who=beto": 3, "/": 1}
    uses.take(A, Usage(host=A, evidence=(msgspec.structs.replace(proof(now), urls=asked),)))
    assert uses.hosts[A].evidence[OURS].urls == {"/cart": 5, "/": 1}


async def test_a_resource_has_one_penalty() -> None:
    """Ten thousand of one site are one."""
    _, uses = desk()
    uses.take(A, Usage(host=A, penalties=(penalty(),) * 10_000))
    assert len(uses.hosts[A].penalties[OURS]) == 1


async def test_the_watchdog_s_relief_hides_no_cap_of_memory() -> None:
    """Both stand: what is taken of a site's memory, and that its soft limit is lifted."""
    _, uses = desk()
    cap = penalty(resource=Resource.MEMORY, share=0.5, enforced=True)
    relief = penalty(resource=Resource.MEMORY, enforced=True, why=Why("isolation-futile"))
    uses.take(A, Usage(host=A, penalties=(cap, relief)))
    assert [one.share for one in uses.hosts[A].penalties[OURS]] == [0.5, 1.0]


async def test_reasons_are_no_longer_than_ours() -> None:
    """A code and values of any length and number are cut to what a sentence holds."""
    _, uses = desk()
    long = Why("c" * 999, {f"{'n' * 99}{n}": "v" * 9999 for n in range(99)})
    assert len(msgspec.json.encode(tidy(long))) < 12 * (VALUE_CHARACTERS + 80) + 100
    because = {f"f{n}": long for n in range(999)}
    uses.take(A, Usage(host=A, sites={OURS: use(wanted=LIMITS, held=LIMITS, because=because)}))
    word = uses.of(OURS)
    assert word is not None and len(word.use.because) == REASONS_MAX


async def test_a_frame_may_be_as_large_as_its_host_s_sites_need() -> None:
    """A host without sites has beats only; before the store is known nobody is cut off for what can't be judged."""
    made, uses = desk()
    assert uses.limit_bytes(HostId("c")) == FRAME_LIMIT_BYTES
    assert FRAME_LIMIT_BYTES < uses.limit_bytes(B) < uses.limit_bytes(A)  # both are at home on a
    assert usage_limit_bytes(10_000) == BEAT_LIMIT_BYTES
    made.mirror.ready = False
    assert uses.limit_bytes(HostId("c")) == BEAT_LIMIT_BYTES


@pytest.mark.parametrize("count", [1, 60, 1000])
async def test_what_an_agent_tells_is_taken_whole(count: int) -> None:
    """With its longest reasons, evidence and limits on four disks each frame fits, and every site is known after.

    So it does with what is not held of each, and with what two slices hold beside it.
    """
    ids = [SiteId(f"a-site-of-forty-characters-{n:013}") for n in range(count)]
    made = Desk(*ids)
    made.mirror.ready = True
    uses = Uses(made.mirror, made.exporter)
    long = Why("cap-override", {"owner": "o" * 100, "reason": "r" * 500})
    disk = IoLimit(
        read_bytes_per_s=10**10, write_bytes_per_s=10**10, read_ops_per_s=10**6, write_ops_per_s=10**6
    )  # fmt: skip
    limits = msgspec.structs.replace(LIMITS, io={f"259:{n}": disk for n in range(4)})
    short = (Why("cap-refused", {"error": "e" * ERROR_MAX}),)
    name, because = "s" * 60 + ".slice", {"tasks_max": long}
    beside = Beside(
        slice=name, wanted=limits, held=limits, because=because, short=short * BESIDE_SHORT_MAX
    )
    held = Held(
        slice=name,
        wanted=limits,
        held=limits,
        because=because,
        short=short * SHORT_MAX,
        beside=(beside,) * BESIDE_MAX,
    )
    process = Process(pid=10**6, user="u" * 32, command="c" * 200, cpu_cores=1 / 3)
    evidence = tuple(
        Evidence(
            site=id,
            at=wall(),
            every_s=2,
            stall=(1 / 3,) * 60,
            use=(1 / 3,) * 60,
            processes=(process,) * 10,
            urls={f"/{n}{'p' * 190}": n for n in range(10)},
        )
        for id in ids[:20]
    )
    word = Word(
        driver="systemd",
        held=dict.fromkeys(ids, held),
        evidence=evidence,
        penalties=tuple(penalty(id, why=long) for id in ids[:20]),
    )
    signs = SiteSigns(attachment=Attachment.SLICE, cpu_cores=1 / 3, requests_per_s=1 / 3)
    signals = Signals(at=1.0, host=HostSigns(cores=8, memory_total_bytes=1, memory_available_bytes=1),
                      sites=dict.fromkeys(ids, signs))  # fmt: skip
    for usage in Tellings(A).all(signals, word, {}):
        frame = msgspec.json.encode(usage)
        assert len(frame) <= uses.limit_bytes(A)
        uses.take(A, msgspec.json.decode(frame, type=Usage))
    assert uses.hosts[A].sites.keys() == set(ids)
    assert uses.hosts[A].evidence.keys() == uses.hosts[A].penalties.keys() == set(ids[:20])


async def test_a_controller_that_knows_nothing_of_use_ignores_it() -> None:
    """To a release without it, it is a whole message of a kind that it does not know: counted, and the link goes on."""
    frame = msgspec.json.encode(Usage(host=A, sites={OURS: use(tasks=1)}))
    assert unknown_kind(frame, AGENTS - {"usage"}) == "usage"
    assert unknown_kind(frame, AGENTS) is None


@pytest.mark.parametrize(
    "said",
    [
        {"sites": {"huerto": {"attachment": "slice", "memory_bytes": 10**400}}},
        {"sites": {"huerto": {"attachment": "slice", "held": {"tasks_max": -1}}}},
        {"evidence": [{"site": "huerto", "at": 1, "every_s": 2, "urls": {"/": 10**400}}]},
        {"evidence": [{"site": "huerto", "at": 1, "every_s": 2, "stall": [0.1] * 121}]},
        {"penalties": [{"site": "huerto", "level": 6}]},
        {"help": [{"code": "x"}] * 11},
    ],
    ids=["memory", "held", "urls", "stall", "level", "help"],
)
async def test_what_no_agent_tells_is_refused_whole(said: dict[str, object]) -> None:
    """No number is beyond 64 bits and no list without an end, wherever a host may put one."""
    frame = msgspec.json.encode({"type": "usage", "host": "a", **said})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(frame, type=Usage)


async def test_a_penalty_can_not_have_begun_before_there_was_time() -> None:
    """Whatever a host says of when it began, it is a moment that people can be shown."""
    _, uses = desk()
    uses.take(A, Usage(host=A, penalties=(penalty(since=-1e308),)))
    assert uses.hosts[A].penalties[OURS][0].since >= wall() - KEPT_S - 1
