"""Matters in words: subject, text, evidence, the commands to answer with; in the language of those who read them."""

from collections.abc import Iterable, Sequence

from controller import calls
from controller.notify.answers import commands, path
from controller.notify.due import Draft, Due
from controller.notify.headlines import headline
from controller.notify.letter import Letter, Notice
from controller.notify.matters import OVER, Matter, Severity
from controller.notify.voice import Voice, plain
from fleet.model import HeldSite, Hold, Incident
from runtime.clock import iso
from runtime.words import explain

SITES = 8  # named one by one; the others are counted
LINES = 25  # of a timeline, the newest
REASONS = 12  # of one hold
IN_DIGEST = 40  # matters of a digest that have a line of their own


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


def notice(due: Due, voice: Voice) -> Notice:
    matter = due.matter
    said = headline(matter, voice)
    if due.reminder:
        said = voice.t("Still: {what}", what=said)
    return Notice(
        key=matter.key,
        what=matter.what,
        stage=matter.stage,
        severity=matter.severity.value,
        subject=matter.subject,
        headline=plain(said),
        text=tuple(_lines(matter, voice)),
        evidence=_evidence(matter, voice) if matter.stage != OVER else (),
        commands=tuple(dict.fromkeys(commands(matter))),
        link=voice.link(path(matter)),
    )


def _lines(matter: Matter, voice: Voice) -> Iterable[str]:
    """What is known, and what relevo does about it."""
    if matter.stage == OVER:
        yield from _ended(matter, voice)
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


def _ended(matter: Matter, voice: Voice) -> Iterable[str]:
    """Of most there is nothing to say."""
    if matter.what == "penalties":
        yield voice.t(
            "Its penalty has ended, or it has moved. Whether the cause was mended, relevo can't know."
        )


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
