"""What to do about a matter: the commands that a person can type, and the page that shows it."""

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from controller import calls
from controller.calls import REASON
from controller.notify.matters import OVER, Matter
from fleet.model import Hold

SITES = 8  # answered one by one; the others are counted
MOVES = frozenset({"gated-not-fenced"})  # wants the word that the old host is stopped

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


def commands(matter: Matter) -> Iterable[str]:
    """What a person can type; in every language the same."""
    if matter.stage == OVER:
        if matter.what == "penalties":
            yield f"relevo site explain {matter.subject}"
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


def path(matter: Matter) -> str:
    if matter.stage == OVER and matter.what != "penalties":
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
