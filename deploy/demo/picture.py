"""The live view as plain values drawn with rich: what is known in, one screen out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.demo.client import EntryItem, HostItem, IncidentItem
from deploy.demo.load import TELL_EVERY_S, Tally
from fleet.model import Phase

COLOURS = {
    "up": "green",
    "suspect": "yellow",
    "leaving": "yellow",
    "restarting": "yellow",
    "service-down": "yellow",
    "agent-lost": "magenta",
    "dead": "bold red",
}
PHASE_COLOURS = {Phase.SYMPTOM: "yellow", Phase.VERDICT: "red", Phase.COMPLETE: "bold green"}
SINGLE = (Phase.EDGE, Phase.DNS_SENT, Phase.DNS_SERVER, Phase.NOTE)
KEYS = (
    ("1-6", "host"),
    ("k", "kill"),
    ("f", "freeze"),
    ("c", "cut"),
    ("s", "shutdown"),
    ("b", "back"),
    ("p", "pause"),
    ("q", "quit"),
)
# For the controllers, where there are several, or an etcd.
LEADER_KEYS = (("l", "kill leader"), ("e", "kill its etcd"), ("m", "its power"))
BARS = " ▁▂▃▄▅▆▇█"
# Lines that are always there: title, hosts' heading, visitors, incident's heading, message, keys, and gaps.
FIXED_LINES = 11


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerItem:
    """`stores`: its machine's member of etcd runs."""

    id: str
    runs: bool
    stores: bool
    leads: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All that one screen shows. `done`: what was done to a host; `failed`: requests by site and door.

    `struck`: the sites that were served, and the doors that were open, where something was done.
    """

    hosts: tuple[HostItem, ...] = ()
    controllers: tuple[ControllerItem, ...] = ()
    keys: tuple[tuple[str, str], ...] = KEYS
    sites: int = 0
    away: int = 0
    incident: IncidentItem | None = None
    tallies: Sequence[Tally] = ()
    ok: int = 0
    failed: Mapping[tuple[str, str], int] = field(default_factory=dict)
    struck: frozenset[str] = frozenset()
    done: Mapping[str, str] = field(default_factory=dict)
    selected: int = 0
    paused: bool = False
    message: str = ""
    missing: str = ""

    def with_selected(self, number: int) -> "Picture":
        return replace(self, selected=max(0, min(number, len(self.hosts) - 1)))


def draw(picture: Picture, width: int, height: int) -> RenderableType:
    """A screen of `width` x `height` characters."""
    lines = max(3, height - FIXED_LINES - max(6, len(picture.hosts)))
    return Group(
        _title(picture),
        Text(),
        _hosts(picture),
        _controllers(picture),
        *_visitors(picture, width),
        Text(),
        *_incident(picture.incident, lines),
        Text(picture.message or picture.missing, style="cyan", no_wrap=True, overflow="ellipsis"),
        _keys(picture.keys),
    )


def _title(picture: Picture) -> Text:
    text = Text(" relevo ", style="bold reverse", no_wrap=True, overflow="ellipsis")
    text.append("  a host dies, its sites live on", style="not reverse not bold")
    text.append(
        f"   {picture.sites} sites, {picture.away} away from home", style="not reverse not bold dim"
    )
    if picture.paused:
        text.append("   PAUSED: nothing moves", style="not reverse bold yellow")
    return text


def _hosts(picture: Picture) -> Table:
    table = Table(box=None, padding=(0, 1), expand=True, header_style="dim")
    table.add_column("", width=3, no_wrap=True)
    for heading, least in (("host", 5), ("tag", 5), ("where", 5), ("verdict", 12)):
        table.add_column(heading, min_width=least, no_wrap=True)
    table.add_column("sites", justify="right", no_wrap=True)
    table.add_column("", ratio=1, no_wrap=True, overflow="ellipsis")
    for number, host in enumerate(picture.hosts):
        chosen = number == picture.selected
        done = picture.done.get(host.id, "")
        why = host.why.text if host.why and host.verdict != "up" else ""
        table.add_row(
            f"{'▸' if chosen else ' '}{number + 1}",
            host.id,
            host.tag,
            host.location,
            Text(f"● {host.verdict}", style=COLOURS.get(host.verdict, "dim")),
            _serves(host),
            Text.assemble((f"{done} " if done else "", "bold red"), (why, "dim")),
            style="bold" if chosen else "",
        )
    return table


def _controllers(picture: Picture) -> Text:
    """One line where there is something to tell: who leads, who runs, whose etcd runs."""
    text = Text(no_wrap=True, overflow="ellipsis")
    if len(picture.keys) == len(KEYS):
        return text
    text.append(" controllers", style="dim")
    for item in picture.controllers:
        text.append(f"   {item.id} ", style="bold" if item.leads else "")
        word, colour = ("leads", "bold green") if item.leads else ("follows", "green")
        text.append(*((word, colour) if item.runs else ("down", "bold red")))
        text.append(", etcd ", style="dim")
        text.append(*(("up", "green") if item.stores else ("down", "bold red")))
    return text


def _serves(host: HostItem) -> str:
    if not host.sites_home and not host.sites_here:
        return "-"
    return str(host.sites_here)


def _visitors(picture: Picture, width: int) -> Iterable[Text]:
    last = picture.tallies[-2:]
    ok = sum(good for tally in last for good, _ in tally.sites.values())
    failed = sum(bad for tally in last for _, bad in tally.sites.values())
    p99_ms = max((tally.p99_ms for tally in last), default=0.0)
    there = sum(count for at, count in picture.failed.items() if not picture.struck.isdisjoint(at))
    elsewhere = sum(picture.failed.values()) - there
    seconds = 2 * TELL_EVERY_S
    now = Text(" visitors  ", style="bold", no_wrap=True, overflow="ellipsis")
    now.append(f"{ok / seconds:4.0f}/s ok", style="not bold green")
    now.append(
        f"  {failed / seconds:4.0f}/s failed", style="bold red" if failed else "not bold dim"
    )
    now.append(f"  p99 {p99_ms:5.0f} ms", style="not bold dim")
    total = Text("   so far  ", no_wrap=True, overflow="ellipsis", style="dim")
    total.append(f"{picture.ok:,} ok, failed: {there:,} where you struck, {elsewhere:,} elsewhere")
    yield now
    yield total
    yield _chart(picture.tallies, width - 12)


def _chart(tallies: Sequence[Tally], width: int) -> Text:
    """One bar per half second: failed requests in red where there are some, else those that went well."""
    text = Text("  history  ", style="dim", no_wrap=True, overflow="crop")
    shown = list(tallies)[-max(1, width) :]
    sums = [
        (sum(g for g, _ in t.sites.values()), sum(b for _, b in t.sites.values())) for t in shown
    ]
    most = max((good + bad for good, bad in sums), default=1) or 1
    for good, bad in sums:
        size = bad if bad else good
        bar = BARS[max(1, round(size / most * (len(BARS) - 1)))] if size else BARS[0]
        text.append(bar, style="not dim red" if bad else "not dim green")
    return text


def _incident(incident: IncidentItem | None, lines: int) -> Iterable[RenderableType]:
    if incident is None:
        yield Text(" No incident yet. Choose a host and press k.", style="dim")
        return
    heading = Text(
        f" {incident.subject.rpartition(':')[2]}: {incident.verdict}", style="bold", no_wrap=True
    )
    if any(entry.why.code == "edge-withdrawn" for entry in incident.timeline):
        heading.append("   visitors come by the other edges", style="not bold")
    else:
        heading.append(f"   {len(incident.moved)} sites moved", style="not bold")
    if incident.held:
        heading.append(f", {len(incident.held)} held", style="not bold yellow")
    if incident.complete and incident.timeline:
        after_s = max(entry.offset_s for entry in incident.timeline)
        heading.append(f"   complete after {after_s:.2f} s", style="not bold green")
    yield heading
    table = Table(box=None, padding=(0, 1), show_header=False, expand=True)
    table.add_column(justify="right", width=9, no_wrap=True, style="dim")
    table.add_column(width=11, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for entry in _fitting(incident.timeline, lines):
        words = entry.why.text or entry.why.code
        about = (
            f"{entry.subject}: {words}" if entry.subject and entry.subject not in words else words
        )
        colour = PHASE_COLOURS.get(entry.phase, "green" if entry.phase is Phase.PROVEN else "")
        table.add_row(f"+{entry.offset_s:.3f} s", Text(entry.phase.value, style=colour), about)
    yield table


def _fitting(timeline: Sequence[EntryItem], lines: int) -> Sequence[EntryItem]:
    """As many entries as fit: single edges and servers are left out first, then what is oldest."""
    if len(timeline) > lines:
        timeline = [entry for entry in timeline if entry.phase not in SINGLE]
    return timeline[-lines:]


def _keys(keys: Iterable[tuple[str, str]]) -> Text:
    text = Text(" ", no_wrap=True, overflow="ellipsis")
    for key, meaning in keys:
        text.append(key, style="bold reverse" if len(key) == 1 else "bold")
        text.append(f" {meaning}  ", style="dim")
    return text
