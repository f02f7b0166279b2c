"""Whether a host's kernel holds what it should: the exit code of that, and what is the matter in words."""

from collections.abc import Iterator, Sequence

from cli.answers import Reason
from cli.capanswers import HostCaps, SiteCaps
from cli.durations import shown
from cli.failures import Exit
from cli.tables import why
from fleet.messages import USAGE_OLD_S

NAMED = 20
LOOK = "On the host: systemctl status relevo-agent, journalctl -u relevo-agent"

# Which caps each file of a cgroup holds, as their reasons name them.
DISKS = frozenset({"read_bytes_per_s", "write_bytes_per_s", "read_ops_per_s", "write_ops_per_s"})
FILES = {
    "cpu.weight": frozenset({"cpu_weight"}),
    "cpu.max": frozenset({"cpu_quota_us"}),
    "memory.high": frozenset({"memory_high_bytes"}),
    "memory.max": frozenset({"memory_max_bytes"}),
    "memory.low": frozenset({"memory_low_bytes"}),
    "memory.swap.max": frozenset({"swap_max_bytes"}),
    "pids.max": frozenset({"tasks_max"}),
    "io.max": DISKS,
    "io.weight": frozenset({"io_weight"}),
    "cgroup.freeze": frozenset({"frozen"}),
}
OF_SLICES = frozenset[str]().union(*FILES.values()) | {"egress_closed"}

Finding = tuple[Exit, str]


def findings(of: HostCaps) -> tuple[Finding, ...]:
    """What is the matter, the gravest first, each with its remedy; none: all is held."""
    return tuple(_findings(of)) if of.sites else ()


def verdict(of: HostCaps) -> Exit:
    """Of the gravest."""
    return next((code for code, _ in findings(of)), Exit.OK)


def lacking(of: HostCaps | SiteCaps) -> str:
    """What its host can't hold, without the last point; of a controller that tells no reasons, as its agent says it."""
    return (" ".join(map(why, of.lacks)) or of.unable).rstrip(".")


def held(of: HostCaps) -> str:
    """Where nothing is the matter, what that means."""
    if not of.sites:
        return "No site is served there: there is nothing to hold."
    if not of.enforced:
        return "Nothing is to be held there: the caps of all its sites only watch."
    only = f" At the edges only: {some(of.at_edges)}." if of.at_edges else ""
    return f"The kernel holds what it should.{only}"


def _findings(of: HostCaps) -> Iterator[Finding]:
    if of.age_s is None:
        silent = "Nothing is known: its agent has said nothing to this controller"
        yield Exit.NOT_KNOWN, f"{silent}. {LOOK}."
        return
    if of.age_s > USAGE_OLD_S:
        told = f"Its last word is {shown(of.age_s)} old: what the kernel holds now is not known"
        yield Exit.NOT_KNOWN, f"{told}, and the rest here is as it was then. {LOOK}."
    if any(_unexplained(of)):
        others = "The kernel holds something else than it should; its agent puts that right within half a minute"
        yield Exit.CHANGES, f"{others}. Where it stays: relevo site explain SITE."
    if not of.driver:
        edges = "only edges hold its sites, where there are some"
        yield Exit.NOT_HELD, f"Nothing can be held there, {edges}: {lacking(of)}."
    elif lacks := lacking(of):
        yield Exit.NOT_HELD, f"Not all can be held there: {lacks}."
    if of.short:
        names = dict.fromkeys(one.site for one in of.short)
        yield Exit.NOT_HELD, f"Not all is held, for the reasons above: {some([*names])}."
    if of.unheld:
        remedy = (
            "relevo layout on the host says what gives each a slice; else route: edges in the fleet, "
            'or relevo caps shadow --site SITE --reason "…"'
        )
        nobody = f"In force, and held by no slice and no edge: {some(of.unheld)}"
        yield Exit.NOT_HELD, f"{nobody}. {remedy}."
    if of.untold:
        wait = "An agent that began a moment ago tells it within a minute"
        yield Exit.NOT_KNOWN, f"In force, and nothing is told of: {some(of.untold)}. {wait}."


def _unexplained(of: HostCaps) -> Iterator[str]:
    """The caps that differ, but for those of which their host says itself that it could not hold them, or not yet."""
    known: dict[tuple[str, str], frozenset[str]] = {}
    for found in of.short:
        told = known.get((found.site, found.slice), frozenset())
        known[found.site, found.slice] = told.union(*map(_explained, found.short))
    for other in of.differing:
        told = known.get((other.site, other.slice), frozenset())
        yield from (link.cap for link in other.chain if link.cap not in told)


def _explained(short: Reason) -> frozenset[str]:
    """The caps of a slice that one reason speaks of; what was refused may be any of them."""
    match short.code:
        case "cap-in-steps" | "cap-makes-room":
            return FILES.get(str(short.values.get("limit")), frozenset())
        case "cap-no-file":
            return FILES.get(str(short.values.get("file")), frozenset())
        case "cap-not-held":
            names = frozenset(str(short.values.get("caps")).split(", "))
            return names | DISKS if "io" in names else names
        case "cap-egress-by-user":
            return frozenset({"egress_closed"})
        case "cap-refused":
            return OF_SLICES
    return frozenset()


def some(names: Sequence[str]) -> str:
    """Of many a few are named."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
