"""What is the matter, in one line."""

from controller import calls
from controller.notify.matters import OVER, Matter
from controller.notify.voice import Voice
from fleet.model import Incident

VERDICTS = {
    "up": "up",
    "dead": "dead",
    "agent-lost": "without its agent",
    "service-down": "without its web service",
    "leaving": "shutting down",
    "drain": "being drained",
    "move": "moved by a person",
    "bring-home": "brought home",
}


def headline(matter: Matter, voice: Voice) -> str:
    subject = voice.controller if matter.own else matter.subject
    if matter.stage == OVER:
        return _over_headline(matter, subject, voice)
    match matter.what:
        case "holds":
            return _hold_headline(matter, voice)
        case "incidents" | "orders":
            assert matter.incident is not None
            return _incident_headline(matter, matter.incident, voice)
        case "hosts":
            return voice.t(
                "{subject} is {verdict}", subject=subject, verdict=_verdict(matter.stage, voice)
            )
        case "penalties":
            return _isolation_headline(matter, voice)
        case "help":
            return _call_headline(matter, voice)
        case "disks":
            return _disk_headline(matter, voice)
        case "brake":
            return voice.t("The brake is on: the next failure waits for a person")
        case "store":
            return _store_headline(matter, voice)
    return _controller_headline(matter.stage, subject, voice)


def _over_headline(matter: Matter, subject: str, voice: Voice) -> str:
    if matter.what == "help":  # what a person should look at may go on
        return voice.t("{subject} no longer asks for help", subject=subject)
    if matter.what == "penalties":  # so may what was found there
        return voice.t("{subject} is no longer isolated or stopped", subject=subject)
    return voice.t("{subject}: over, nobody need do anything", subject=subject)


def _store_headline(matter: Matter, voice: Voice) -> str:
    if matter.stage == "rewound":
        return voice.t("The store was rewound: nothing moves, nothing is ordered")
    return voice.t("The declared fleet can't be read")


def _controller_headline(stage: str, subject: str, voice: Voice) -> str:
    match stage:
        case "store":
            return voice.t("The controller {subject} can't use its store", subject=subject)
        case "leaderless":
            return voice.t("No controller leads, says {subject}", subject=subject)
    return voice.t("The controller {subject} can't copy the store", subject=subject)


def _isolation_headline(matter: Matter, voice: Voice) -> str:
    named = {"subject": matter.subject, "host": matter.detail}
    if matter.stage == "stop":
        return voice.t("{subject} is stopped on {host}, by a penalty", **named)
    return voice.t("{subject} is isolated on {host}, by a penalty", **named)


def _call_headline(matter: Matter, voice: Voice) -> str:
    """That of the most pressing, and how many others there are; the text has each."""
    first = voice.why(calls.headline(matter.subject, matter.calls[0]))
    if not (more := len(matter.calls) - 1):
        return first
    return voice.n(
        "{first}; {n} more call for help", "{first}; {n} more calls for help", more, first=first
    )


def _disk_headline(matter: Matter, voice: Voice) -> str:
    named = {"subject": matter.subject, "host": matter.detail}
    if matter.stage == "full":
        return voice.t("{subject} keeps more than its plan's disk on {host}", **named)
    return voice.t("{subject} has nearly filled its disk on {host}", **named)


def _verdict(kind: str, voice: Voice) -> str:
    return voice.t(VERDICTS[kind]) if kind in VERDICTS else kind


def _hold_headline(matter: Matter, voice: Voice) -> str:
    assert matter.hold is not None
    count = len(matter.hold.sites)
    if not count:
        return voice.t("{subject}: its DNS waits for a person", subject=matter.subject)
    return voice.n(
        "{subject}: {n} site waits for a person",
        "{subject}: {n} sites wait for a person",
        count,
        subject=matter.subject,
    )


def _incident_headline(matter: Matter, incident: Incident, voice: Voice) -> str:
    subject = incident.subject.removeprefix(f"{incident.verdict}:")
    named = {"subject": subject, "verdict": _verdict(incident.verdict, voice)}
    count = len(incident.moved)
    match matter.stage:
        case "closed":
            return voice.t("{subject}: over, nobody need do anything", subject=subject)
        case "observed":
            return voice.n(
                "{subject} is {verdict}: relevo only observes, and would move {n} site",
                "{subject} is {verdict}: relevo only observes, and would move {n} sites",
                count,
                **named,
            )
        case "held":
            return voice.n(
                "{subject} is {verdict}: nothing moves, {n} site is held",
                "{subject} is {verdict}: nothing moves, {n} sites are held",
                len(incident.held),
                **named,
            )
        case "moved":
            return voice.n(
                "{subject} is {verdict}: {n} site moved",
                "{subject} is {verdict}: {n} sites moved",
                count,
                **named,
            )
        case "complete":
            return voice.n(
                "{subject}: {n} site moved, proven by real requests",
                "{subject}: {n} sites moved, proven by real requests",
                count,
                **named,
            )
    return voice.t("{subject} is {verdict}", **named)
