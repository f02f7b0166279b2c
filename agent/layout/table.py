"""What `relevo layout` shows: how each site is attached, what that lets its host hold, and what would better it."""

import textwrap
from collections.abc import Mapping

import msgspec

from agent.layout.attached import Attached
from agent.layout.texts import shown
from fleet.caps import Attachment
from fleet.model import SiteId, Why
from runtime.words import explain

WIDTH = 100
# What an attachment lets a host hold.
HELD = {
    Attachment.SLICE: "CPU, memory, tasks, I/O, what it sends out",
    Attachment.POOL: "requests at the edges, what it sends out (by user); use is seen by user",
    Attachment.LOG: "requests at the edges; use is an estimate",
    Attachment.NONE: "requests at the edges; use is not known",
}
ADOPTED = "adopted: CPU, memory, tasks, I/O, what it sends out; a new worker after 2 s"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One site, for programs. `why` is in English; `code` is for programs."""

    site: SiteId
    attachment: Attachment
    adopted: bool
    held: str
    slice: str | None
    cgroups: tuple[str, ...]
    uids: tuple[int, ...]
    logs: tuple[str, ...]
    code: str
    why: str
    remedy: str | None


def row(site: SiteId, one: Attached, remedy: Why | None) -> Row:
    """For programs."""
    return Row(
        site=site,
        attachment=one.attachment,
        adopted=one.adopted,
        held=_held(one),
        remedy=shown(explain(remedy)) if remedy else None,
        slice=one.slice,
        cgroups=tuple(shown(str(path)) for path in one.cgroups),
        uids=one.uids,
        logs=tuple(shown(str(path)) for path in one.logs),
        code=one.why.code,
        why=shown(explain(one.why)),
    )


def _held(one: Attached) -> str:
    return ADOPTED if one.adopted else HELD[one.attachment]


def table(
    found: Mapping[SiteId, Attached], language: str, remedies: Mapping[SiteId, Why] = {}
) -> str:
    """For people: a line for each site, and below it why, and what would better it."""
    wide = max((len(site) for site in found), default=4)
    lines = []
    for site, one in sorted(found.items(), key=lambda item: (item[1].attachment.value, item[0])):
        lines.append(f"{site:{wide}}  {one.attachment.value:5}  {_held(one)}")
        indent = " " * (wide + 9)
        for why in filter(None, (one.why, remedies.get(site))):
            said = shown(explain(why, language))
            lines.append(
                textwrap.fill(said, WIDTH, initial_indent=indent, subsequent_indent=indent)
            )
    counts = {kind: sum(one.attachment is kind for one in found.values()) for kind in Attachment}
    total = ", ".join(f"{count} {kind.value}" for kind, count in counts.items() if count)
    return "\n".join([*lines, "", f"{len(found)} sites: {total}", ""])
