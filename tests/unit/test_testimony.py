"""What each witness said of a host is kept as reasons, told in the reader's language (rule R13)."""

import pytest

from controller.board import Board
from controller.incidents import Times, begin, in_english
from controller.web.words import Speech
from failover.evidence import Evidence, Opinion, Reach, Report, Seen, Witness
from failover.guards import Guarded
from failover.judge import Kind, Verdict
from failover.plan import Cause, Proposal
from fleet.messages import AgentState
from fleet.model import ControllerId, Health, HostId, Incident, IncidentId, Why
from runtime.words import explain

WEB1 = HostId("web1")
C1, C2, C3 = map(ControllerId, ("c1", "c2", "c3"))
EVIDENCE = Evidence(
    known=True,
    reach={
        C1: Reach(age_s=2.006, trusted=True, watched_s=9.0),
        C2: Reach(age_s=3.0, trusted=False, watched_s=9.0),
        C3: Reach(age_s=None, trusted=True, watched_s=9.0),
    },
    opinions={HostId("edge1"): Opinion(kind=Witness.EDGE, health=Health.DOWN, since_s=2.0)},
    report=Report(boot_id="b", state=AgentState.LEAVING),
)
TOLD = {
    "en": {
        "controller c1": "last beat 2.01 s ago",
        "controller c2": "no beat for 3 s, doubts itself",
        "controller c3": "does not hear it",
        "edge edge1": "down for 2 s",
        "its own report": "shutting down",
    },
    "es": {
        "controlador c1": "último latido hace 2.01 s",
        "controlador c2": "sin latido desde hace 3 s, duda de sí mismo",
        "controlador c3": "no lo oye",
        "borde edge1": "no responde desde hace 2 s",
        "su propio informe": "apagándose",
    },
}


def board() -> Board:
    made = Board(C1)
    seen = Seen(controllers=frozenset({C1, C2, C3}), hosts={WEB1: EVIDENCE})
    made.update(seen=seen, verdicts={}, plan=(), rewound=None, times=Times(wall=0.0, now=0.0))
    return made


@pytest.mark.parametrize("language", TOLD)
def test_each_witness_is_told_in_the_readers_language(language: str) -> None:
    """A name, a colon and a word, whatever was seen; nothing of it stays in English."""
    lines = [explain(word, language) for word in board().testimony(WEB1)]
    assert lines == [f"{who}: {what}" for who, what in TOLD[language].items()]


def test_an_incident_says_the_same_in_english_to_those_who_read_no_reasons() -> None:
    """As it did before: a witness and its word."""
    assert in_english(board().testimony(WEB1)) == TOLD["en"]
    assert board().testimony(HostId("nobody")) == ()


def test_r13_an_incident_keeps_the_word_of_each_witness_of_its_verdict() -> None:
    """As reasons, and in English; nothing is made up where nobody said anything."""
    why = Why("dead")
    cause = Cause(id="host:web1:b", host=WEB1, verdict="dead", why=why)
    guarded = Guarded(proposal=Proposal(cause=cause))
    verdict, times = Verdict(kind=Kind.DEAD, since=1.0, why=why), Times(wall=2.0, now=2.0)
    begun = begin(guarded, verdict, times, board().testimony(WEB1))
    assert begun.testimony == board().testimony(WEB1)
    assert begun.evidence == TOLD["en"]
    silent = begin(guarded, verdict, times, ())
    assert silent.testimony == () and silent.evidence == {}


def test_the_dashboard_tells_them_in_its_readers_language_and_old_ones_as_they_are() -> None:
    """Of an incident from before there were reasons only the English is known."""
    say = Speech("es", 0.0)
    incident = Incident(
        id=IncidentId("i"), cause="c", subject="web1", verdict="dead", began_at=0.0,
        testimony=board().testimony(WEB1),
    )  # fmt: skip
    assert dict(say.testimony(incident)) == TOLD["es"]
    old = Incident(
        id=IncidentId("i"), cause="c", subject="web1", verdict="dead", began_at=0.0,
        evidence={"controller c1": "last beat 2.01 s ago"},
    )  # fmt: skip
    assert say.testimony(old) == [("controller c1", "last beat 2.01 s ago")]
