"""What had an end is deleted from the store when it is reached, and not before (rules R11, R16)."""

from typing import NamedTuple

import pytest

from controller.incidents import Times
from controller.mirror import Mirror
from controller.settle import encode
from controller.store import Delete, Op, Put
from controller.upkeep import Upkeep
from failover.plan import Situation
from failover.policy import Policy
from fleet import keys
from fleet.access import ApiToken, JoinToken
from fleet.caps import Override, Ruling
from fleet.model import (
    Arming,
    Fleet,
    HostId,
    Incident,
    IncidentId,
    Note,
    SiteId,
    Switches,
)
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.unit.test_progress import NoZones
from tests.unit.wires import a_link

SITE, WEB1 = SiteId("huerto"), HostId("web1")
OLD, OPEN = IncidentId("20261101-web1"), IncidentId("20261102-web2")
END, DAY_S = 1_800_000_000.0, 86_400.0
NOTE = Note(owner="ana", reason="works", since=0.0, until=END)
DIGEST = "0" * 64
NOTHING = Situation(
    fleet=Fleet(),
    places={},
    verdicts={},
    drains={},
    withdrawn=frozenset(),
    boots={},
    memory_available_ratio={},
)


class Ended(NamedTuple):
    """A part of the mirror that ends at END, how long it is kept after that, and what is written then."""

    part: str
    said: object
    then: Op
    kept_s: float = 0.0


def an_incident(id: IncidentId, closed_at: float | None) -> Incident:
    return Incident(
        id=id, cause="c", subject=WEB1, verdict="dead", began_at=0.0, closed_at=closed_at
    )


INCIDENTS = {OLD: an_incident(OLD, END), OPEN: an_incident(OPEN, None)}
OVERRIDE = Override(caps={"processes": 9}, note=NOTE)
RULING = Ruling(word="release", note=NOTE)
JOIN = JoinToken(host=WEB1, digest=DIGEST, by="ana", since=0.0, until=END)
TOKEN = ApiToken(name="t", digest=DIGEST, role="viewer", by="ana", since=0.0, until=END)
PAUSED, AGAIN = Switches(all=Arming.ARM, paused=NOTE), Switches(all=Arming.ARM)
ENDED = [
    Ended("incidents", INCIDENTS, Delete(keys.incident(OLD)), 14 * DAY_S),
    Ended("drains", {WEB1: NOTE}, Delete(keys.drain(WEB1))),
    Ended("refusals", {WEB1: NOTE}, Delete(keys.refusal(WEB1))),
    Ended("overrides", {SITE: OVERRIDE}, Delete(keys.override(SITE))),
    Ended("rulings", {SITE: RULING}, Delete(keys.ruling(SITE))),
    Ended("joins", {WEB1: JOIN}, Delete(keys.access_join(WEB1)), DAY_S),
    Ended("api_tokens", {"t": TOKEN}, Delete(keys.access_token("t")), 14 * DAY_S),
    Ended("switches", PAUSED, Put(keys.SWITCHES, encode(AGAIN))),
]


@pytest.mark.parametrize("ended", ENDED, ids=lambda ended: ended.part)
def test_r11_r16_what_had_an_end_is_deleted_then_and_not_before(ended: Ended) -> None:
    """A second before it is kept, a second after it is written once; an incident that is open has no end."""
    mirror = Mirror()
    assert hasattr(mirror, ended.part)
    setattr(mirror, ended.part, ended.said)
    upkeep = Upkeep(mirror, a_link(Exporter(CONTROLLER)), NoZones(), Policy())
    end = END + ended.kept_s
    assert [*upkeep.missing(NOTHING, Times(wall=end - 1, now=0.0))] == []
    assert [*upkeep.missing(NOTHING, Times(wall=end + 1, now=2.0))] == [ended.then]
