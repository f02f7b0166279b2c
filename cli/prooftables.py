"""What a penalty rests on, as people read it: two lines of bars, what showed, processes and paths."""

from collections.abc import Callable, Mapping, Sequence

from rich.console import RenderableType

from cli.capanswers import Evidence
from cli.tables import BARS, facts, plain, size, table
from runtime.sentences import RESOURCES, SIGNS

GAP = "·"
SHOWN = 48  # what a line has room for
AMOUNTS: Mapping[str | None, Callable[[float], str]] = {
    None: lambda it: f"{it:.2f}",  # of an agent that does not say of what
    "cpu": lambda it: f"{it:.2f} cores",
    "memory": lambda it: f"{size(int(it))}/s grown or reclaimed",
    "io": lambda it: f"{size(int(it))}/s",
    "tasks": lambda it: f"{it:.0f} processes",
    "egress": lambda it: f"{it:.1f} connections/s",
}
SECONDS = {**AMOUNTS, "memory": lambda it: size(int(it))}


def evidence(of: Evidence) -> list[RenderableType]:
    """Series oldest first, with what was not read as such."""
    about = RESOURCES.get(of.resource, of.resource) if of.resource else ""
    signs = ", ".join(SIGNS.get(sign, sign) for sign in of.signs)
    amount, second = (units.get(of.resource, units[None]) for units in (AMOUNTS, SECONDS))
    rows = [
        ("about", about),
        ("shows", signs),
        (
            "it waits itself" if of.own else "neighbours wait",
            _bars(of.stall, of.gaps, lambda it: f"{it:.0%} of the time"),
        ),
        ("it uses", _bars(of.use, of.gaps, amount)),
        ("each second", _bars(of.seconds, (), second)),
    ]
    parts: list[RenderableType] = [facts(*((name, plain(said)) for name, said in rows if said))]
    processes = [
        (str(p.pid), p.user, f"{p.cpu_cores:.2f}", size(p.memory_bytes), p.command)
        for p in of.processes
    ]
    if processes:
        parts.append(table(">PID", "USER", ">CORES", ">MEMORY", "COMMAND", rows=processes))
    if of.urls:
        urls = sorted(of.urls.items(), key=lambda item: -item[1])
        parts.append(table(">ASKED", "PATH", rows=[(str(n), path) for path, n in urls]))
    return parts


def _bars(series: Sequence[float], gaps: Sequence[int], amount: Callable[[float], str]) -> str:
    """A line of bars and its greatest value; empty where there is nothing to see."""
    top = max(series, default=0.0)
    if top <= 0:
        return ""
    unread = frozenset(gaps)
    bars = [
        GAP if n in unread else BARS[round(max(0.0, value) / top * (len(BARS) - 1))]
        for n, value in enumerate(series)
    ]
    return f"{''.join(bars[-SHOWN:])} up to {amount(top)}"
