"""Caps, penalties and their evidence as people read them."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table

from cli import captruth
from cli.capanswers import (
    AtEdges,
    Beside,
    Differing,
    Ended,
    Enforcement,
    HostCaps,
    Link,
    Penalty,
    Pending,
    Report,
    Ruling,
    SiteCaps,
    Turn,
    Value,
)
from cli.durations import shown
from cli.prooftables import evidence
from cli.tables import facts, note, plain, size, table, when, why
from cli.usagetables import happened
from runtime.clock import wall

LEVELS = ("baseline", "watch", "soft", "cap", "isolate", "stop")
CAP = LEVELS.index("cap")
US_PER_PERCENT = 10_000
PAST_SHOWN = 5
HELD = {
    "slice": "all of it in one slice: every cap holds",
    "pool": "workers of a shared php-fpm master: seen by user; only the edges can hold it",
    "log": "mod_php and alike: an estimate from the access log; only the edges can hold it",
    "none": "nothing of it can be told from its neighbours",
}
HOLDERS = {"kernel": "by its host's kernel", "edges": "at the edges"}
NOBODY = "BUT NOTHING HOLDS THEM: it is in no slice that is in force, and behind no edge"


def amount(cap: str, value: Value, none: str = "no limit") -> str:
    if value is None:
        return none
    if isinstance(value, bool):
        return "yes" if value else "no"
    if cap == "cpu_quota_us":
        return f"{value / US_PER_PERCENT:g} %"
    return size(value) if "_bytes" in cap else str(value)


def site(of: SiteCaps) -> list[RenderableType]:
    parts: list[RenderableType] = [
        facts(
            ("site", f"{of.site}, plan {of.plan}, on {of.host or 'no host yet'}"),
            ("attachment", _attachment(of)),
            ("caps", _enforced(of.enforced, of.enforced_from, of.held_by)),
            ("only watched", _waits(of)),
            ("in the last hour", happened(of.last_hour)),
            ("host", _driver(of.age_s, of.driver, captruth.lacking(of))),
            ("edges", _edges(of.edges) if of.edges else ""),
            ("word", _ruling(of.ruling) if of.ruling else ""),
            ("override", note(of.override.note) if of.override else ""),
        ),
        "",
        _chain(of.chain, known=of.known),
    ]
    parts += _reasons(of)
    for one in of.beside:
        heading = f"beside it, for sessions and jobs of its users: {one.slice}"
        parts += ["", plain(heading, "bold"), _chain(one.chain, known=one.known), *_reasons(one)]
    for penalty in of.penalties:
        parts += ["", *_penalty(penalty)]
    if of.penalties and of.evidence:
        parts += evidence(of.evidence)
    if of.past:
        parts += ["", table("ENDED", "WAS", "FOR", "WHERE", rows=_past(of.past))]
    return parts


def _reasons(of: SiteCaps | Beside) -> Iterator[RenderableType]:
    """Why a slice is to hold what it is, and why it does not."""
    for link in of.chain:
        if link.because and link.because.code != "cap-plan":
            yield plain(f"{link.cap}: {why(link.because)}")
    if of.differs:
        yield plain(f"the kernel holds something else: {', '.join(of.differs)}", "bold red")
    for short in of.short:
        yield plain(f"not held: {why(short)}", "red" if of.differs else "yellow")


def _attachment(of: SiteCaps) -> str:
    if of.attachment is None:
        return "not told yet"
    if of.attachment == "pool" and of.slice:
        return f"pool: workers of a shared php-fpm master, adopted: every cap holds ({of.slice})"
    said = f"{of.attachment}: {HELD.get(of.attachment, '')}"
    return f"{said} ({of.slice})" if of.slice else said


def _enforced(enforced: bool, since: float | None, by: Sequence[str] | None) -> str:
    """`by`: who holds them; None: of a controller that does not say."""
    if since is None:
        return "shadow: measured and recorded, nothing is enforced"
    if not enforced:
        return f"enforced from {when(since)}"
    who = "" if by is None else f", {' and '.join(HOLDERS.get(one, one) for one in by) or NOBODY}"
    return f"enforced since {when(since)}{who}"


def _waits(of: SiteCaps) -> str:
    """What its plan has made stricter since it was armed."""
    each = [
        f"{cap} {_number(cap, w.plan)} ({_number(cap, w.holds)} holds"
        + (f" until {when(w.comes)})" if w.comes is not None else ")")
        for cap, w in of.waits.items()
    ]
    return f"{', '.join(each)}: {_arm(of.plan)}" if each else ""


def _arm(plan: str) -> str:
    return f'relevo caps arm --plan {plan} --reason "…"'


def _number(cap: str, value: object) -> str:
    return size(value) if isinstance(value, int) and "_bytes" in cap else str(value)


def _driver(age_s: float | None, driver: str, lacks: str) -> str:
    if age_s is None:
        return "has said nothing of it to this controller"
    told = f"told {shown(age_s)} ago"
    if not driver:
        return f"{told}, can enforce nothing: {lacks}"
    return f"{told}, held by {driver}" + (f", but not everything: {lacks}" if lacks else "")


def _edges(of: AtEdges) -> str:
    until = f" until {when(of.until)}" if of.until is not None else ""
    if of.state == "closed":
        return f"closed{until}: a page says to come back later"
    held = [
        (of.in_flight, "{:g} pages at a time, " + f"{of.queue} wait up to {of.queue_wait_s:g} s"),
        (of.requests_per_s, "{:g} a second"),
        (of.requests_burst, "{:g} in one second"),
        (of.client_requests_per_min, "{:g} a minute for one client"),
    ]
    said = "; ".join(words.format(number) for number, words in held if number is not None)
    return f"slowed{until}: {said}" if of.state == "slowed" else f"each lets through {said}"


def _ruling(of: Ruling) -> str:
    level = f" at {LEVELS[of.level]}" if of.word == "quarantine" else ""
    return f"{of.word}{level} {note(of.note)}"


def _chain(links: Iterable[Link], *, known: bool) -> Table:
    none = "no limit" if known else "?"
    rows = [
        (
            link.cap,
            amount(link.cap, link.plan, ""),
            amount(link.cap, link.override, ""),
            amount(link.cap, link.wanted, none),
            amount(link.cap, link.held, none) + (" !" if link.differs else ""),
        )
        for link in links
        if link.plan is not None or link.wanted or link.held
    ]
    return table("CAP", ">PLAN", ">OVERRIDE", ">WANTED", ">HELD", rows=rows)


def _is_relief(of: Penalty) -> bool:
    """The memory watchdog's: a cap of memory that takes nothing."""
    return (of.level, of.resource, of.share) == (CAP, "memory", 1.0)


def _penalty(of: Penalty) -> Iterator[RenderableType]:
    left = shown(of.until - wall())
    shadow = "" if of.enforced else ", only recorded"
    if _is_relief(of):
        yield plain(f"no penalty: its soft memory limit is lifted, for {left} more{shadow}", "bold")
        yield Padding(plain(why(of.why)), (0, 0, 0, 2))
        return
    share = f" to {of.share:.0%}" if of.share < 1 else ""
    level = LEVELS[of.level] if of.level < len(LEVELS) else str(of.level)
    yield plain(
        f"{level} {of.resource}{share}, for {left} more, by {of.owner}{shadow}: {of.nature}", "bold"
    )
    yield Padding(plain(why(of.why)), (0, 0, 0, 2))


def _past(of: Sequence[Ended]) -> list[tuple[str, ...]]:
    return [
        (
            when(old.ended)[:16],
            _was(old.penalty) + ("" if old.penalty.enforced else ", only recorded"),
            shown(old.ended - old.penalty.since),
            old.host,
        )
        for old in of[:PAST_SHOWN]
    ]


def _was(of: Penalty) -> str:
    return "memory limit lifted" if _is_relief(of) else f"{LEVELS[of.level]} {of.resource}"


def host(of: HostCaps) -> list[RenderableType]:
    attached = ", ".join(f"{count} {name}" for name, count in sorted(of.attachments.items()))
    parts: list[RenderableType] = [
        facts(
            ("host", of.host),
            ("told", _driver(of.age_s, of.driver, captruth.lacking(of))),
            ("sites", f"{of.sites}, caps in force for {of.enforced}"),
            ("attached", attached),
            ("repaired", f"{of.drift} times since its agent started" if of.drift else ""),
            ("nothing told", captruth.some(of.unknown)),
            ("asks for help", " ".join(map(why, of.help))),
        )
    ]
    if of.differing:
        rows = [row for found in of.differing for row in _differing(found)]
        parts += ["", table("SITE", "CAP", ">WANTED", ">HELD", "SLICE", rows=rows)]
    if of.short:
        parts.append("")
    for found in of.short:
        where = f"{found.site} ({found.slice})" if found.slice else found.site
        parts += [plain(f"{where}: {why(short)}", "yellow") for short in found.short]
    matters = [plain(said, "bold red") for _, said in captruth.findings(of)]
    return [*parts, "", *(matters or [plain(captruth.held(of), "green" if of.enforced else "")])]


def _differing(of: Differing) -> Iterator[tuple[str, ...]]:
    for link in of.chain:
        values = (amount(link.cap, link.wanted), amount(link.cap, link.held))
        yield of.site, link.cap, *values, of.slice


def report(of: Report) -> list[RenderableType]:
    rows = [
        (
            one.site,
            one.plan,
            one.attachment or "",
            f"{one.shadow_min:g} min" if one.shadow_min else "",
            f"{one.penalized_min:g} min" if one.penalized_min else "",
            one.level,
            "as armed" if one.waits else "enforced" if one.enforced else "shadow",
        )
        for one in of.sites
    ]
    columns = ("SITE", "PLAN", "ATTACHED", ">WOULD", ">PENALIZED", "LEVEL", "CAPS")
    parts: list[RenderableType] = [table(*columns, rows=rows), ""] if rows else []
    rest = f"{of.quiet} sites: nothing to tell of the last {of.days:g} days"
    unheard = f"; nothing is known of {of.unheard} sites" if of.unheard else ""
    return [*parts, plain(f"{rest}{unheard}.")]


def enforcement(of: Enforcement) -> Table:
    unable = f"{of.unable} sites, which neither a slice nor an edge holds" if of.unable else ""
    edges = f", {of.at_edges} of them at the edges only" if of.at_edges else ""
    return facts(
        ("caps", _turn(of.words.all)),
        ("plans", _each(of.words.plans)),
        ("hosts", _each(of.words.hosts)),
        ("sites", _each(of.words.sites)),
        ("enforced", f"{of.enforced} sites{edges}"),
        ("shadow", f"{of.shadow} sites"),
        ("waiting", f"{of.waiting} sites, for their date" if of.waiting else ""),
        ("not enforced", unable),
        *((f"plan {one.plan}", _pending(one)) for one in of.pending),
    )


def _pending(of: Pending) -> str:
    since = f" since {when(of.since)}" if of.since is not None else ""
    return f"stricter{since}, only watched at {of.sites} sites: {_arm(of.plan)}"


def _turn(of: Turn) -> str:
    return "shadow" if of.since is None else f"from {when(of.since)}"


def _each(words: dict[str, Turn]) -> str:
    return ", ".join(f"{id}: {_turn(turn)}" for id, turn in sorted(words.items()))
