"""Answers as people read them: tables that fit 80 columns, nothing cut off, nothing interpreted."""

from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cli.answers import (
    Audited,
    Credential,
    Failover,
    Hold,
    Host,
    Incident,
    Note,
    Reason,
    Site,
    Status,
    Token,
)
from cli.durations import shown
from runtime.clock import iso, wall

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
BARS = " ▁▂▃▄▅▆▇█"
STYLES = {
    "up": "green",
    "suspect": "yellow",
    "restarting": "yellow",
    "agent-lost": "yellow",
    "unknown": "dim",
    "dead": "bold red",
    "service-down": "bold red",
    "leaving": "magenta",
    "open": "bold red",
    "observed": "yellow",
    "complete": "green",
    "closed": "dim",
}


def console() -> Console:
    """Made when it is used, for standard output as it is then."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=False)


def plain(text: str, style: str = "") -> Text:
    """Text from elsewhere: what could steer a terminal is made visible."""
    safe = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return Text(safe, style=style or STYLES.get(text, ""))


def table(*columns: str, rows: Iterable[Sequence[str]]) -> Table:
    """Columns that begin with `>` are numbers; cells are folded, never cut."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        right = column.startswith(">")
        made.add_column(
            column.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*(plain(cell) for cell in row))
    return made


def facts(*pairs: tuple[str, RenderableType]) -> Table:
    """A name and what it is, line by line; what is empty is left out."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        text = plain(value) if isinstance(value, str) else value
        if not isinstance(text, Text) or text.plain:
            made.add_row(name, text)
    return made


def lines(texts: Iterable[str]) -> Text:
    """Each on a line of its own."""
    return Text("\n").join(plain(text) for text in texts)


def when(at: float) -> str:
    """A Unix time, in UTC to the second: hosts and people are in several time zones."""
    return iso(at)[:19].replace("T", " ") + "Z"


def note(said: Note) -> str:
    left = shown(said.until - wall())
    return f"by {said.owner}, for {left} more: {said.reason}"


def why(reason: Reason | None) -> str:
    return "" if reason is None else reason.text or reason.code


def status(of: Status) -> Table:
    role = "leads" if of.leader else "follows"
    ready = "" if of.ready else ", NOT READY"
    counts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(of.hosts.items(), key=_many_first))
    return facts(
        ("controller", f"{of.controller} ({role}{ready}), relevo {of.version}"),
        ("cluster", f"{of.cluster}, revision {of.revision}"),
        ("failover", _armed(of.arming)),
        ("paused", plain(note(of.paused) if of.paused else "", "bold yellow")),
        ("stopped", plain(why(of.rewound), "bold red")),
        ("store", plain(f"refuses: {of.store_error}" if of.store_error else "", "bold red")),
        (
            "in doubt",
            "this controller doubts itself; it decides nothing" if of.doubts_itself else "",
        ),
        ("brake", f"{of.budget.spent} of {of.budget.allowed} causes spent in the last hour"),
        ("hosts", f"{sum(of.hosts.values())}: {counts}" if of.hosts else "none declared yet"),
        (
            "sites",
            f"{of.sites.total}: {of.sites.away} away from home, {of.sites.held} held",
        ),
        ("incidents", f"{of.incidents_open} open"),
    )


def _armed(arming: str) -> Text:
    if arming == "arm":
        return plain("armed: sites move by themselves", "green")
    return plain("observing: nothing moves by itself", "yellow")


def _many_first(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def hosts(of: Sequence[Host]) -> Table:
    """`sites`: served here, of those at home here."""
    rows = [
        (
            host.id,
            host.verdict,
            shown(host.since_s),
            shown(host.beat_age_s) or "never",
            f"{host.load.cpu_ratio:.0%}" if host.load else "",
            f"{host.load.memory_used_ratio:.0%}" if host.load else "",
            f"{host.sites_here}/{host.sites_home}",
            ", ".join(_marks(host)),
        )
        for host in of
    ]
    return table("HOST", "VERDICT", ">FOR", ">BEAT", ">CPU", ">MEM", ">SITES", "NOTE", rows=rows)


def _marks(host: Host) -> list[str]:
    marks = [role for role in host.roles if role != "web"]
    if host.draining:
        marks.append("draining")
    if host.withdrawn:
        marks.append("not in DNS")
    return marks


def host(of: Host) -> list[RenderableType]:
    load, agent = of.load, of.agent
    parts: list[RenderableType] = [
        facts(
            ("host", f"{of.id} ({of.tag}), {', '.join(of.roles)} in {of.location}"),
            ("addresses", ", ".join(of.addresses)),
            ("verdict", Text.assemble(plain(of.verdict), f" for {shown(of.since_s)}")),
            ("", why(of.why)),
            ("draining", note(of.draining) if of.draining else ""),
            ("not in DNS", note(of.withdrawn) if of.withdrawn else ""),
            (
                "load",
                f"CPU {load.cpu_ratio:.0%}, memory {load.memory_used_ratio:.0%}, {load.load_1min:.1f} in 1 min"
                if load
                else "",
            ),
            (
                "agent",
                f"{agent.version}, {agent.state}, orders {agent.orders}, up for {shown(agent.uptime_s)}"
                if agent
                else "never heard",
            ),
            ("sites", f"{of.sites_here} served here, {of.sites_home} at home here"),
        )
    ]
    if words := _words(of):
        parts += ["", table("WITNESS", "SAYS", ">FOR", rows=words)]
    if of.sites:
        parts += ["", sites(of.sites)]
    return parts


def _words(of: Host) -> list[tuple[str, str, str]]:
    rows = []
    for id, reach in sorted(of.evidence.reach.items()):
        said = "no beat yet" if reach.age_s is None else f"last beat {shown(reach.age_s)} ago"
        rows.append((f"controller {id}", said + ("" if reach.trusted else ", doubts itself"), ""))
    for id, opinion in sorted(of.evidence.opinions.items()):
        rows.append((f"{opinion.witness} {id}", opinion.health, shown(opinion.since_s)))
    return rows


def sites(of: Sequence[Site]) -> Table:
    """HOME only where a site is not there; HELD is the reason's code, whose sentence `site show` has."""
    rows = [
        (
            site.id,
            site.host or "not placed",
            site.home if site.host not in (None, site.home) else "",
            site.mode,
            "armed" if site.armed else "observed",
            site.hold.code if site.hold else "",
        )
        for site in of
    ]
    return table("SITE", "HOST", "HOME", "MODE", "FAILOVER", "HELD", rows=rows)


def site(of: Site) -> Table:
    return facts(
        ("site", f"{of.id}, of {of.member}, plan {of.plan}"),
        ("domains", ", ".join(of.domains)),
        (
            "host",
            f"{of.host or 'not placed yet'} since {of.since}" if of.since else "not placed yet",
        ),
        ("", why(of.why)),
        ("home", of.home),
        ("standbys", ", ".join(of.standbys) or "none"),
        ("mode", f"{of.mode}, {'armed' if of.armed else 'observed only'}, by {of.route}"),
        ("held", why(of.hold)),
        ("incidents", lines(of.incidents)),
    )


def incidents(of: Sequence[Incident]) -> Table:
    rows = [
        (
            incident.id,
            incident.verdict,
            incident.state,
            str(len(incident.moved)),
            str(len(incident.held)),
        )
        for incident in of
    ]
    return table("INCIDENT", "VERDICT", "STATE", ">MOVED", ">HELD", rows=rows)


def _testimony(of: Incident) -> Iterable[str]:
    """Who says what; a controller of an older release says it in English only."""
    if of.testimony:
        return (word.text or word.code for word in of.testimony)
    return (f"{name}: {value}" for name, value in of.evidence.items())


def incident(of: Incident) -> list[RenderableType]:
    moved = "would have moved" if of.observed else "moved"
    parts: list[RenderableType] = [
        facts(
            ("incident", of.id),
            ("subject", f"{of.subject}: {of.verdict}"),
            ("began", when(of.began_at)),
            ("state", of.state),
            ("evidence", lines(_testimony(of))),
        ),
        "",
        table(
            ">AFTER",
            "PHASE",
            "WHERE",
            "WHAT",
            rows=[(f"{e.offset_s:.3f} s", e.phase, e.subject, why(e.why)) for e in of.timeline],
        ),
    ]
    if of.moved:
        rows = [(move.site, move.source, move.target or "") for move in of.moved]
        parts += ["", table(moved.upper(), "FROM", "TO", rows=rows)]
    if of.held:
        held = [(move.site, why(move.why)) for move in of.held]
        parts += ["", table("HELD", "BECAUSE", rows=held)]
    return parts


def holds(of: Sequence[Hold]) -> list[RenderableType]:
    """What is held in one line, and why below it."""
    parts: list[RenderableType] = []
    for hold in of:
        sites = f", {len(hold.sites)} sites" if hold.sites else ""
        parts.append(plain(f"{hold.subject}  {hold.kind}{sites}, since {when(hold.since)}", "bold"))
        parts.append(Padding(plain(why(hold.why)), (0, 0, 0, 2)))
    return parts


def failover(of: Failover) -> Table:
    words = of.arming
    return facts(
        ("failover", _armed(words.all)),
        ("paused", plain(note(of.paused) if of.paused else "", "bold yellow")),
        ("locations", _each(words.locations)),
        ("hosts", _each(words.hosts)),
        ("sites", _each(words.sites)),
        ("stopped", plain(why(of.rewound), "bold red")),
        ("brake", f"{of.budget.spent} of {of.budget.allowed} causes spent in the last hour"),
    )


def _each(words: dict[str, str]) -> str:
    return ", ".join(f"{id}: {word}" for id, word in sorted(words.items()))


def tokens(of: Sequence[Token]) -> Table:
    rows = [
        (
            token.name,
            token.role + (f" of {token.member}" if token.member else ""),
            _end(token.until),
            token.by,
        )
        for token in of
    ]
    return table("NAME", "ROLE", "UNTIL", "BY", rows=rows)


def _end(until: float | None) -> str:
    if until is None:
        return "no end"
    return f"{when(until)[:10]}" if until > wall() else "ended"


def credentials(of: Sequence[Credential]) -> Table:
    rows = [
        (
            known.host,
            "linked" if known.linked else "",
            when(known.since)[:16] if known.since else "",
            known.by,
            _state(known),
        )
        for known in of
    ]
    return table("HOST", "NOW", "SINCE", "BY", "NOTE", rows=rows)


def _state(of: Credential) -> str:
    joining = of.joining is not None and of.joining - wall() > 0
    notes = [
        "revoked" if of.revoked else "",
        "is to change" if of.changing else "",
        f"may join for {shown((of.joining or 0) - wall())}" if joining else "",
    ]
    return ", ".join(filter(None, notes))


def audit(of: Sequence[Audited]) -> list[RenderableType]:
    """What was done in one line, and below it what that changed, and why."""
    parts: list[RenderableType] = []
    for entry in of:
        parts.append(
            plain(f"{when(entry.at)}  {entry.who}: {entry.what} {entry.subject}".rstrip(), "bold")
        )
        change = " -> ".join(filter(None, (entry.before, entry.after)))
        parts += [Padding(plain(text), (0, 0, 0, 2)) for text in (change, entry.reason) if text]
    return parts


def size(count: int) -> str:
    """Rounded to what is read at a glance, the unit with it."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.4g} {UNITS[unit]}"
