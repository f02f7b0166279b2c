"""When visitors of many sites wait for PHP at once: whose queue counts, and how many are more than coincidence."""

import msgspec
import pytest

from agent.isolate.house import House
from agent.isolate.measure import NOBODYS
from agent.isolate.own import Own
from agent.isolate.queues import queued_since, waiting
from agent.isolate.state import Record, State, Step
from agent.signals import HostSigns, Signals, SiteSigns
from fleet.caps import Level, Resource, Ruling, Tenant
from fleet.model import Note, PlanId, SiteId, Why

ROOMY = HostSigns(
    cores=8,
    memory_total_bytes=1 << 33,
    memory_available_bytes=1 << 32,
    cpu_stall=0.01,
    memory_stall=0.0,
    io_stall=0.0,
)
SLOW = SiteSigns(queue=4, requests_per_s=1.0)
WELL = SiteSigns(queue=0, requests_per_s=5.0)
IDLE = SiteSigns(queue=0, requests_per_s=0.0)


def seen(*sites: SiteSigns, host: HostSigns = ROOMY) -> Signals:
    return Signals(at=0, host=host, sites={SiteId(f"s{n}"): one for n, one in enumerate(sites)})


@pytest.mark.parametrize(
    ("sites", "found"),
    [
        ([SLOW] * 2, 0),  # each may have its own trouble
        ([SLOW] * 3, 3),
        ([SLOW] * 3 + [WELL] * 27, 3),
        ([SLOW] * 3 + [WELL] * 28, 0),  # of many there are always three
        ([SLOW] * 3 + [IDLE] * 500, 3),  # who has no visitors has none that wait
        ([SLOW] * 3 + [SiteSigns(requests_per_s=9.0)] * 500, 3),  # whose queue is not known
        ([SiteSigns(queue=4, requests_per_s=20.0)] * 9, 0),  # a fifth of a second
        ([SiteSigns(queue=4, throttled_ratio=0.5)] * 9, 0),  # by their own quota
        ([SiteSigns(queue=1)] * 3, 3),  # nobody is served at all
    ],
)
def test_many_sites_whose_visitors_wait_are_more_than_their_own_trouble(
    sites: list[SiteSigns], found: int
) -> None:
    """From three on, and a tenth of those that have visitors; one that waits for itself is none of them."""
    assert waiting(seen(*sites), NOBODYS) == found


def test_who_is_held_waits_for_that() -> None:
    """A squeezed site's queue is what the squeeze does, be it relevo's or a person's; in shadow nothing does it."""
    held, three = SiteId("s1"), seen(SLOW, SLOW, SLOW)
    step = Step(
        level=Level.SOFT, resource=Resource.CPU, since=0, until=9, why=Why("x"), enforced=True
    )
    note = Note(owner="ana", reason="r", since=0, until=9)
    word = {held: Ruling(word="quarantine", level=Level.SOFT, note=note)}
    for begins, rulings, waits in ((0.0, {}, 0), (None, {}, 3), (None, word, 0)):
        tenants = {held: Tenant(plan=PlanId("plus"), enforced_from=begins)}
        house = House(plans={}, tenants=tenants, rulings=rulings)
        own = Own({held: Record(step=step)}, house, 5.0)
        assert waiting(three, own) == waits
        assert (queued_since(State(), three, own, 5.0) is None) is bool(not waits)


def test_what_explains_it_is_no_riddle() -> None:
    """A contention that stands is looked after as one; where nothing tells of contention, none is ruled out."""
    three = seen(SLOW, SLOW, SLOW)
    assert queued_since(State(), three, NOBODYS, 5.0) == 5.0
    assert queued_since(State(queued=2.0), three, NOBODYS, 5.0) == 2.0
    assert queued_since(State(queued=2.0), seen(SLOW), NOBODYS, 5.0) is None
    assert queued_since(State(queued=2.0, alarms={Resource.IO: 1.0}), three, NOBODYS, 5.0) is None
    blind = msgspec.structs.replace(ROOMY, io_stall=None)
    assert queued_since(State(queued=2.0), seen(SLOW, SLOW, SLOW, host=blind), NOBODYS, 5.0) is None
