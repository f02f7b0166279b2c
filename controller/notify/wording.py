"""Matters in words: subject, text, evidence, the commands to answer with; in the language of those who read them."""

import gettext
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote

from controller import calls
from controller.calls import REASON
from controller.notify.due import Draft, Due
from controller.notify.letter import Letter, Notice
from controller.notify.matters import OVER, Matter, Severity
from fleet.model import HeldSite, Hold, Incident, Why
from runtime.clock import iso
from runtime.words import LANGUAGES, LOCALE, explain

DOMAIN = "notices"
SITES = 8  # named or answered one by one; the others are counted
LINES = 25  # of a timeline, the newest
REASONS = 12  # of one hold
IN_DIGEST = 40  # matters of a digest that have a line of their own
WIDE = 160  # characters of a subject
MOVES = frozenset({"gated-not-fenced"})  # wants the word that the old host is stopped

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


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    """English is the fallback of a language whose catalogue was not compiled."""
    if language not in LANGUAGES[1:]:
        return gettext.NullTranslations()
    try:
        return gettext.translation(DOMAIN, LOCALE, [language], fallback=True)
    except (OSError, UnicodeDecodeError):  # a .mo that is none
        return gettext.NullTranslations()


@dataclass(frozen=True, slots=True)
class Voice:
    """One language. `base` is where people reach this controller, "" where nobody has said."""

    language: str
    controller: str
    base: str = ""

    def t(self, sentence: str, **values: object) -> str:
        """A translation that can't be filled is none: the English one is told."""
        try:
            return _catalogue(self.language).gettext(sentence).format_map(values)
        except (LookupError, ValueError):
            return sentence.format_map(values)

    def n(self, one: str, many: str, count: int, **values: object) -> str:
        """As `t`, by number; `{n}` is the count."""
        named = {"n": count, **values}
        try:
            return _catalogue(self.language).ngettext(one, many, count).format_map(named)
        except (LookupError, ValueError):
            return (one if count == 1 else many).format_map(named)

    def why(self, why: Why) -> str:
        return explain(why, self.language)

    def link(self, path: str) -> str:
        return f"{self.base}/ui{path}" if self.base else ""


def letter(draft: Draft, voices: Sequence[Voice], wall: float, *, cluster: str) -> Letter:
    """`draft` in words, one language after the other; the first is also that of the subject.

    Of a digest the most urgent are worded, the others counted: a storm must not cost the failover loop its time.
    """
    told = draft.dues[:IN_DIGEST] if draft.digest else draft.dues
    more = len(draft.dues) - len(told)
    spoken = [tuple(notice(due, voice) for due in told) for voice in voices]
    texts = [
        _short(notices, more, voice) if draft.digest else _whole(notices, voice)
        for notices, voice in zip(spoken, voices, strict=True)
    ]
    return Letter(
        id=draft.id,
        at=iso(wall),
        kind="digest" if draft.digest else "notice",
        severity=draft.severity.value,
        cluster=cluster,
        controller=voices[0].controller,
        follows=draft.follows,
        subject=_subject(draft, spoken[0], voices[0]),
        text=("\n" + "-" * 60 + "\n\n").join(texts),
        notices=spoken[0],
        more=more,
    )


def trial(id: str, receiver: str, by: str, voice: Voice, wall: float, *, cluster: str) -> Letter:
    """What a person asked for, to see that it arrives."""
    text = voice.t(
        "This is a test that {who} asked for: notices for {receiver} arrive here.",
        who=by,
        receiver=receiver,
    )
    lines = [text, *filter(None, [voice.link("/")])]
    return Letter(
        id=id,
        at=iso(wall),
        kind="test",
        severity="info",
        cluster=cluster,
        controller=voice.controller,
        subject="[relevo] " + voice.t("A test"),
        text="\n\n".join(lines) + "\n",
    )


def _subject(draft: Draft, notices: Sequence[Notice], voice: Voice) -> str:
    if not draft.digest:
        said = notices[0].headline
    else:
        wanting = sum(due.matter.severity is Severity.ACT for due in draft.dues)
        said = voice.n("{n} thing at once", "{n} things at once", len(draft.dues))
        if wanting:
            said += ", " + voice.n("{n} wants a person", "{n} want a person", wanting)
    return plain(f"[relevo] {said}")


def plain(text: str, most: int = WIDE) -> str:
    """One line without control characters: what people typed as a reason can hold anything."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def notice(due: Due, voice: Voice) -> Notice:
    matter = due.matter
    headline = _headline(matter, voice)
    if due.reminder:
        headline = voice.t("Still: {what}", what=headline)
    return Notice(
        key=matter.key,
        what=matter.what,
        stage=matter.stage,
        severity=matter.severity.value,
        subject=matter.subject,
        headline=plain(headline),
        text=tuple(_lines(matter, voice)),
        evidence=_evidence(matter, voice) if matter.stage != OVER else (),
        commands=tuple(dict.fromkeys(_commands(matter))),
        link=voice.link(_path(matter)),
    )


# --- what is the matter


def _headline(matter: Matter, voice: Voice) -> str:
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


def _lines(matter: Matter, voice: Voice) -> Iterable[str]:
    """What is known, and what relevo does about it."""
    if matter.stage == OVER:
        return
    if matter.hold is not None:
        yield from _held(matter.hold, voice)
    elif matter.incident is not None:
        if matter.incident.moved:
            yield _moved(matter.incident, voice)
        for entry in matter.incident.timeline[-LINES:]:
            told = (
                f"{entry.subject}: {voice.why(entry.why)}"
                if entry.subject
                else voice.why(entry.why)
            )
            yield plain(f"{iso(entry.at)} {entry.offset_s:+.2f} s  {told}", 400)
    elif matter.calls:
        yield from (plain(line, 600) for line in _called(matter, voice))
    elif matter.why is not None:
        yield plain(voice.why(matter.why), 400)
    elif matter.detail:
        yield plain(matter.detail, 400)
    if matter.what in ("store", "controllers"):
        yield voice.t("Traffic and DNS stay as they are.")


def _called(matter: Matter, voice: Voice) -> Iterable[str]:
    """Each call; of several each with its headline."""
    for why in matter.calls:
        first = f"{voice.why(calls.headline(matter.subject, why))}. "
        yield (first if len(matter.calls) > 1 else "") + voice.why(why)


def _held(hold: Hold, voice: Voice) -> Iterable[str]:
    """Each reason with its sites."""
    if not hold.sites:
        yield plain(voice.why(hold.why), 400)
    by_reason: dict[tuple[object, ...], list[HeldSite]] = {}
    for item in hold.sites:
        by_reason.setdefault((item.why.code, *sorted(item.why.values.items())), []).append(item)
    for items in list(by_reason.values())[:REASONS]:
        sites = _named([item.site for item in items], voice)
        yield plain(f"{voice.why(items[0].why)} {sites}", 600)
    if (rest := len(by_reason) - REASONS) > 0:
        yield voice.t("… and {n} more", n=rest)


def _moved(incident: Incident, voice: Voice) -> str:
    targets: dict[str, list[str]] = {}
    for move in incident.moved:
        targets.setdefault(move.target, []).append(move.site)
    return "; ".join(f"→ {target}: {_named(sites, voice)}" for target, sites in targets.items())


def _named(sites: Sequence[str], voice: Voice) -> str:
    shown = ", ".join(sites[:SITES])
    more = len(sites) - SITES
    return (
        f"({shown})"
        if more <= 0
        else "(" + voice.t("{sites} and {n} more", sites=shown, n=more) + ")"
    )


def _evidence(matter: Matter, voice: Voice) -> tuple[str, ...]:
    if not matter.testimony and matter.incident:  # from before there were reasons
        return tuple(plain(f"{who}: {what}") for who, what in matter.incident.evidence.items())
    return tuple(plain(explain(word, voice.language)) for word in matter.testimony)


# --- what to do


# What does not turn on more than the subject.
ANSWERS: Mapping[str, tuple[str, ...]] = {
    "hosts": ("relevo host show {subject}",),
    "penalties": ("relevo site explain {subject}", f"relevo site release {{subject}} {REASON}"),
    "disks": (
        "relevo site usage {subject}",
        f"relevo site override {{subject}} disk_bytes=20G --for 7d {REASON}",
    ),
    "brake": ("relevo holds", f"relevo site move SITE HOST {REASON}"),
    "store": ("relevo fleet apply FILE",),
    "controllers": ("relevo status", "journalctl -u relevo-controller"),
}


def _commands(matter: Matter) -> Iterable[str]:
    """What a person can type; in every language the same."""
    if matter.stage == OVER:
        return
    match matter.what:
        case "holds":
            assert matter.hold is not None
            yield from _answers(matter.hold)
        case "incidents" | "orders":
            assert matter.incident is not None
            if matter.stage == "observed":
                yield f"relevo failover arm --host {matter.subject} {REASON}"
            yield f"relevo incidents {matter.incident.id}"
        case "help":
            yield from calls.answers(matter.subject, matter.calls)
        case "store" if matter.stage == "rewound":
            yield from ("relevo store recover", "relevo store recover --yes")
        case _:
            for line in ANSWERS.get(matter.what, ()):
                yield line.format(subject=matter.subject)


def _answers(hold: Hold) -> Iterable[str]:
    codes = {item.why.code for item in hold.sites} or {hold.why.code}
    if "store-rewound" in codes:
        yield "relevo store recover"
        return
    if "paused" in codes:
        yield f"relevo failover resume {REASON}"
    if "observing" in codes:
        yield f"relevo failover arm --host {hold.subject} {REASON}"
    for item in hold.sites[:SITES]:
        stopped = " --old-host-stopped" if item.why.code in MOVES else ""
        yield f"relevo site move {item.site} {item.target or 'HOST'}{stopped} {REASON}"
    if hold.kind != "dns":
        yield f"relevo host show {hold.subject}"
    if len(hold.sites) > SITES or not hold.sites:
        yield "relevo holds"


def _path(matter: Matter) -> str:
    if matter.stage == OVER:
        return "/"
    match matter.what:
        case "holds":
            assert matter.hold is not None
            return f"/holds/{quote(matter.hold.id, safe='')}"
        case "incidents" | "orders":
            assert matter.incident is not None
            return f"/incidents/{quote(matter.incident.id, safe='')}"
        case "hosts" | "help":
            return f"/hosts/{quote(matter.subject, safe='')}"
        case "penalties" | "disks":
            return f"/sites/{quote(matter.subject, safe='')}"
        case "brake":
            return "/failover"
    return "/"


# --- the whole


def _whole(notices: Sequence[Notice], voice: Voice) -> str:
    """Each matter in full; what two of them share is said once."""
    lines: list[str] = []
    for notice in notices:
        lines += [notice.headline, *(f"  {line}" for line in notice.text), ""]
    for title, found in (
        (voice.t("Evidence:"), [line for notice in notices for line in notice.evidence]),
        (voice.t("To answer:"), [line for notice in notices for line in notice.commands]),
        (voice.t("To look:"), [notice.link for notice in notices if notice.link]),
    ):
        if found:
            lines += [title, *(f"  {line}" for line in dict.fromkeys(found)), ""]
    return "\n".join(lines)


def _short(notices: Sequence[Notice], more: int, voice: Voice) -> str:
    """A line for each, what wants a person first."""
    lines = [f"  {notice.headline}" for notice in notices]
    if more:
        lines.append("  " + voice.t("… and {n} more", n=more))
    lines += [
        "",
        voice.t("To answer:"),
        "  relevo status",
        "  relevo holds",
        "  relevo incidents --open",
        "",
    ]
    if where := voice.link("/"):
        lines += [voice.t("To look:"), f"  {where}", ""]
    return "\n".join(lines)
