"""What is kept as evidence of a step: which steps have one, of what it speaks, and where nothing was read."""

import msgspec
import pytest

from agent.isolate import Decision, House, Policy, State, decide, kept
from agent.signals import HostSigns, Signals, SiteSigns
from fleet.caps import Attachment, Evidence, Level, Nature, Resource, Ruling, Tenant
from fleet.model import Note, SiteId
from tests.hogs import CAPS, MIB, PLAN, WALL

SHOP = SiteId("shop")
SITES = [SHOP, *(SiteId(f"n{n:02}") for n in range(19))]
IDLE = SiteSigns(
    attachment=Attachment.SLICE, cpu_cores=0.1, cpu_stall=0.0, memory_stall=0.0, anon_bytes=1 << 26
)
WAITS = msgspec.structs.replace(IDLE, cpu_stall=0.1)
CALM = HostSigns(
    cores=8.0, memory_total_bytes=1 << 33, memory_available_bytes=1 << 32, cpu_stall=0.01
)
HURT = msgspec.structs.replace(CALM, cpu_stall=0.5)


class Host:
    """Twenty sites whose caps hold, and what was decided of each round."""

    def __init__(self) -> None:
        self.state, self.now = State(), 1000.0
        self.rulings: dict[SiteId, Ruling] = {}
        self.evidence: list[Evidence] = []

    def see(self, shop: SiteSigns | None, host: HostSigns = CALM, rounds: int = 1) -> Decision:
        """`shop` beside nineteen ordinary sites; None: nobody read it."""
        others = WAITS if host is HURT else IDLE
        sites = dict.fromkeys(SITES[1:], others) | ({SHOP: shop} if shop else {})
        tenants = dict.fromkeys(SITES, Tenant(plan=PLAN, enforced_from=0.0))
        house = House(plans={PLAN: CAPS}, tenants=tenants, rulings=self.rulings)
        for _ in range(rounds):
            self.now += 2.0
            signals = Signals(at=self.now, host=host, sites=sites)
            decision = decide(self.state, signals, house, Policy(), self.now, WALL + self.now)
            self.state = decision.state
            self.evidence += decision.evidence
        return decision


def doing(**said: object) -> SiteSigns:
    return msgspec.structs.replace(IDLE, **said)


def test_each_harder_grip_has_evidence_of_its_own() -> None:
    """Soft, half of its plan, a quarter: three bundles, each up to its own moment; what is loosened has none."""
    host = Host()
    host.see(IDLE, rounds=10)
    host.see(doing(cpu_cores=6.0), HURT, rounds=40)
    moves = [one.resource for one in host.evidence]
    assert moves == [Resource.CPU] * 3
    assert [one.site for one in host.evidence] == [SHOP] * 3
    ends = [one.at for one in host.evidence]
    assert ends == sorted(set(ends))
    soft, half, quarter = host.evidence
    assert soft.score > 0.6 and half.use[-15:] == quarter.use[-15:] == (6.0,) * 15
    assert quarter.at - half.at >= 30
    step = host.state.records[SHOP].step
    assert step is not None and step.share == 0.25
    host.see(IDLE, rounds=1000)  # loosened to a half, and let go
    assert len(host.evidence) == 3


def test_what_was_not_read_is_a_gap_and_no_zero() -> None:
    """A site that was away, or is new: its series repeats what is beside the gap, and says where that is."""
    host = Host()
    host.see(None, rounds=4)
    host.see(doing(cpu_cores=0.3), rounds=4)
    host.see(None, rounds=2)
    host.see(doing(cpu_cores=6.0), HURT, rounds=2)
    [found] = host.evidence
    assert found.use == (*[0.3] * 10, 6.0, 6.0)
    assert found.gaps == (0, 1, 2, 3, 8, 9)
    assert len(found.stall) == len(found.use)


def test_a_person_s_quarantine_is_proven_once() -> None:
    """From the round in which it begins, with what shows of the site; another word is another one; a restart none."""
    host = Host()
    host.see(doing(cpu_cores=0.7, listens=True), rounds=6)
    note = Note(owner="ana", reason="spam", since=WALL, until=WALL + 9000)
    host.rulings = {SHOP: Ruling(word="quarantine", level=Level.CAP, note=note)}
    host.see(doing(cpu_cores=0.7, listens=True), rounds=3)
    [found] = host.evidence
    assert (found.site, found.resource, found.signs) == (SHOP, Resource.CPU, ("listens",))
    assert found.use == (0.7,) * 7
    host.state = msgspec.json.decode(msgspec.json.encode(kept(host.state)), type=State)
    host.see(IDLE, rounds=3)
    assert len(host.evidence) == 1
    again = msgspec.structs.replace(note, since=host.now + WALL)
    host.rulings = {SHOP: Ruling(word="quarantine", note=again)}
    host.see(IDLE)
    assert len(host.evidence) == 2


def test_a_relief_is_proven_by_the_site_s_own_stall() -> None:
    """Nobody else need suffer for it: what stands beside its reclaim is how long it stood still itself."""
    host = Host()
    host.see(doing(scanned_per_s=0.0), rounds=6)
    stuck = doing(memory_stall=0.7, scanned_per_s=25_600.0, stolen_per_s=100.0)
    host.see(stuck, rounds=8)
    [found] = host.evidence
    assert (found.site, found.resource, found.own) == (SHOP, Resource.MEMORY, True)
    assert found.stall == (*[0.0] * 6, *[0.7] * 6)
    assert found.use == (*[0.0] * 6, *[100 * MIB] * 6)


@pytest.mark.parametrize(
    ("shop", "resource", "peak"),
    [
        (doing(direct_mail_per_s=4.0, new_destinations_per_s=80.0), Resource.EGRESS, 84.0),
        (doing(runs_from_uploads=True, listens=True, cpu_cores=0.9), Resource.CPU, 0.9),
    ],
)
def test_who_is_cut_off_is_shown_by_what_it_did(
    shop: SiteSigns, resource: Resource, peak: float
) -> None:
    """Connections where it goes out, else its work; the evidence names the resource, and what showed."""
    host = Host()
    host.see(IDLE, rounds=6)
    decision = host.see(shop, rounds=2)
    assert [p.nature for p in decision.penalties] == [Nature.HACKED]
    [found] = host.evidence
    assert (found.resource, max(found.use), len(found.signs)) == (resource, peak, 2)
    # For who goes out nobody waits: there is no stall to show, and none is made up.
    assert bool(found.stall) is (resource is Resource.CPU)
