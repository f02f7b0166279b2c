"""What the dashboard says, in the reader's language: sentences by catalogue, durations, times and numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from fleet.caps import Evidence, Resource
from fleet.model import HeldSite, Incident, Why
from runtime.clock import iso
from runtime.words import catalogue, explain

DOMAIN = "dashboard"
NAMES = {"en": "English", "es": "Español"}

VERDICTS = {
    "up": "up",
    "suspect": "suspect",
    "dead": "dead",
    "agent-lost": "agent lost",
    "service-down": "web service down",
    "leaving": "leaving",
    "restarting": "restarting",
    "unknown": "unknown",
    "drain": "being drained",
    "move": "moved by a person",
    "bring-home": "brought home",
}
PHASES = {
    "symptom": "first symptom",
    "verdict": "verdict",
    "decided": "decided",
    "committed": "committed",
    "edge": "an edge follows",
    "edges": "all edges follow",
    "dns-sent": "DNS sent",
    "dns-server": "a name server answers",
    "dns": "DNS everywhere",
    "proven": "proven",
    "complete": "complete",
    "note": "note",
}
MODES = {
    "automatic": "automatic: moves by itself, once armed",
    "gated": "gated: a person says that its old host is stopped",
    "manual": "manual: moves only when a person says so",
}
ROLES = {"web": "web", "edge": "edge", "database": "database", "mail": "mail"}
HEALTHS = {"up": "answers", "down": "no answer", "unknown": "does not know"}
WITNESSES = {"edge": "edge", "neighbour": "neighbour", "controller": "controller"}
ARMINGS = {"arm": "armed", "observe": "only observed"}
STATES = {"running": "running", "restarting": "restarting", "leaving": "shutting down"}
RESTARTS = {
    "none": "not restarted",
    "running": "being restarted",
    "failed": "a restart failed",
    "done": "restarted",
    "unavailable": "may not be restarted",
}
LEVELS = {
    "baseline": "within its plan",
    "watch": "watched",
    "soft": "last in the queue",
    "cap": "held under its plan",
    "isolate": "isolated",
    "stop": "stopped",
}
RESOURCES = {
    "cpu": "CPU",
    "memory": "memory",
    "io": "disk",
    "tasks": "processes",
    "web": "requests",
    "egress": "traffic outward",
}
NATURES = {
    "heavy": "it costs more than its plan",
    "crawled": "it is crawled",
    "viral": "it is popular",
    "hacked": "it may be hacked",
}
ATTACHMENTS = {
    "slice": "all of it is in a slice of its own: every cap holds",
    "pool": "it shares a php-fpm master: only the edges can hold it, unless its workers are in a slice",
    "log": "it runs inside the web server: what it uses is an estimate, and only the edges can hold it",
    "none": "nothing of it can be told from its neighbours",
}
HOLDERS = {"kernel": "by its host's kernel", "edges": "at the edges"}
RULINGS = {
    "quarantine": "in quarantine",
    "release": "released",
    "suspect": "suspected, for what it did elsewhere",
}
# What the kernel counts for a site, by its name in fleet.messages.HAPPENINGS.
HAPPENINGS = {
    "memory_high_hits": "Slowed, for its memory was high",
    "memory_max_hits": "At its memory's maximum",
    "oom_hits": "Without memory",
    "oom_kills": "Processes ended for want of memory",
    "tasks_refused": "New processes refused",
    "throttled_periods": "Tenths of a second held by its CPU quota",
}
# What a host's call wants of people, by the codes of controller.calls.
CALLS = {
    "isolation-stopped-again": "Look at the site before it runs again, and talk to its owner.",
    "isolation-in-shadow": "Arm its caps, or quarantine it for a while.",
    "isolation-released-suspect": "Take the release back, or talk to its owner.",
    "isolation-held-suspect": "Hold it harder, or look at the host: it may be something else.",
    "isolation-nothing-helps": "Look at the proof and at the host; move the site, or a neighbour.",
    "isolation-too-many": "Look who is held, and for what: is it the sites, or the host?",
    "isolation-no-culprit": "Look at the host: a backup, a disk, the database?",
    "isolation-queues": "Look at the database, the network, and what these sites ask elsewhere.",
    "isolation-pendulum": "Look at the site, and talk to its owner.",
    "isolation-look-again": "Is it clean? Else quarantine it, and talk to its owner.",
}
# Every table of words by the code that stands for them, so that none is left untranslated.
TABLES = (
    VERDICTS, PHASES, MODES, ROLES, HEALTHS, WITNESSES, ARMINGS, STATES, RESTARTS,
    LEVELS, RESOURCES, NATURES, ATTACHMENTS, HOLDERS, RULINGS, HAPPENINGS, CALLS,
)  # fmt: skip
UNITS_S = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Speech:
    """One reader's language, at one moment (`wall`, Unix s): what is told is told as of then."""

    language: str
    wall: float

    def t(self, sentence: str, **values: object) -> str:
        """`sentence`, translated and filled. It never holds HTML: templates escape it like any text."""
        return catalogue(DOMAIN, self.language).gettext(sentence).format_map(values)

    def n(self, one: str, many: str, count: int, **values: object) -> str:
        """As `t`, by number; `{n}` is the count as it reads."""
        text = catalogue(DOMAIN, self.language).ngettext(one, many, count)
        return text.format_map({"n": self.number(count), **values})

    def word(self, table: dict[str, str], code: str) -> str:
        """What `code` stands for; one that the table lacks says itself."""
        return self.t(table[code]) if code in table else code

    def testimony(self, incident: Incident) -> list[tuple[str, str]]:
        """Who says what; of incidents from before there were reasons, as it was written down in English."""
        if not incident.testimony:
            return [(who, str(what)) for who, what in incident.evidence.items()]
        lines = (self.why(word).partition(": ") for word in incident.testimony)
        return [(who, what) for who, _, what in lines]

    def why(self, why: Why | None) -> str:
        return "" if why is None else explain(why, self.language)

    def number(self, count: int) -> str:
        grouped = f"{count:,}"
        return (
            grouped if self.language == "en" else grouped.replace(",", "\N{NARROW NO-BREAK SPACE}")
        )

    def percent(self, ratio: float) -> str:
        return f"{ratio:.0%}" if self.language == "en" else f"{ratio * 100:.0f}\N{NO-BREAK SPACE}%"

    def decimal(self, value: float, digits: int) -> str:
        text = f"{value:.{digits}f}"
        return text if self.language == "en" else text.replace(".", ",")

    def used(self, evidence: Evidence) -> str:
        """The most that a site used of what its evidence is about."""
        most = max(evidence.use)
        match evidence.resource:
            case Resource.MEMORY | Resource.IO:
                return f"{self.decimal(most / (1 << 20), 2)} MiB/s"
            case Resource.EGRESS:
                return f"{self.decimal(most, 2)}/s"
            case Resource.TASKS:
                return self.number(round(most))
            case _:
                return self.decimal(most, 2)

    def span(self, seconds: float | None) -> str:
        """The two largest units at most: `1.2 s`, `4 min 12 s`, `2 d 4 h`; nothing for None."""
        if seconds is None:
            return ""
        if 0 < seconds < 10:
            return f"{self.decimal(seconds, 1)} s"
        left, parts = max(0, round(seconds)), list[str]()
        for unit, size in UNITS_S:
            if left >= size and len(parts) < 2:
                parts.append(f"{left // size} {unit}")
                left %= size
            elif parts:
                break
        return " ".join(parts) or "0 s"

    def ago(self, at: float | None) -> Markup:
        """A moment in the reader's words, its exact time beside them for machines and for who points at it."""
        if at is None:
            return Markup("")
        passed = self.wall - at
        if abs(passed) < 2:
            return _time(at, self.t("just now"))
        if passed < 0:
            return _time(at, self.t("in {span}", span=self.span(-passed)))
        return _time(at, self.t("{span} ago", span=self.span(_coarse(passed))))

    def reasons(self, held: Iterable[HeldSite]) -> list[tuple[str, list[HeldSite]]]:
        """Held sites by what holds them, as it reads: one reason is said once."""
        found: dict[str, list[HeldSite]] = {}
        for each in held:
            found.setdefault(self.why(each.why), []).append(each)
        return list(found.items())

    def since(self, at: float) -> Markup:
        """How long something stands that began at `at`."""
        return _time(at, self.t("for {span}", span=self.span(_coarse(max(1.0, self.wall - at)))))

    def iso(self, at: float) -> str:
        return iso(at)

    def clock(self, at: float) -> Markup:
        """A moment as a clock in UTC shows it: hosts and people are in several time zones."""
        text = iso(at)
        day = "" if text[:10] == iso(self.wall)[:10] else text[:10] + " "
        return _time(at, f"{day}{text[11:19]}\N{NO-BREAK SPACE}UTC")


def _coarse(seconds: float) -> float:
    """Without the units that nobody reads any more: seconds after ten minutes, minutes after a day."""
    if seconds < 600:
        return max(1, round(seconds))
    return seconds // 60 * 60 if seconds < 86_400 else seconds // 3600 * 3600


def _time(at: float, text: str) -> Markup:
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(iso(at), text)


def unix(text: str) -> float | None:
    """The moment that an ISO 8601 text of the store names; None where it names none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
