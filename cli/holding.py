"""Commands on what holds one site: explain it, see its use, quarantine it, release it, lend it more for a while."""

import re

import click
import msgspec

from cli import answers, capanswers, captables, pasttables, usagetables
from cli.caps import Date
from cli.client import Controllers
from cli.durations import WRITTEN, Duration
from cli.looks import raw, read, segment, show
from cli.options import for_s, reason, talks
from fleet.pastuse import KEPT_S
from runtime.clock import wall

WEEK_S, YEAR_S = 7 * 86_400, 366 * 86_400
LEVELS = ("watch", "soft", "cap", "isolate", "stop")
NATURES = ("heavy", "crawled", "viral", "hacked")
# A letter alone counts in 1,024, as systemd and php.ini have it.
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40} | {
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
AMOUNT = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?P<unit>[A-Za-z]{0,3})")


class Cap(click.ParamType[tuple[str, int | float]]):
    """`memory_max_bytes=2G`."""

    name = "cap=value"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int | float]:
        if isinstance(value, tuple):
            return value
        name, _, said = str(value).partition("=")
        found = AMOUNT.fullmatch(said.strip())
        if not name or found is None or found["unit"] not in UNITS:
            self.fail(f"{value!r} is no cap; write it like memory_max_bytes=2G", param, ctx)
        number = float(found["number"]) * UNITS[found["unit"]]
        return name.strip(), int(number) if number.is_integer() else number


@click.command()
@click.argument("id", metavar="SITE")
@talks
def explain(to: Controllers, as_json: bool, id: str) -> None:
    """What holds a site, from its plan to the kernel, and why."""
    body = to.get(f"/v1/sites/{segment(id)}/caps")
    raw(body) if as_json else show(*captables.site(read(body, capanswers.SiteCaps)))


class Back(click.ParamType[float]):
    """How long ago, or a date: Unix s."""

    name = "ago"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if WRITTEN.fullmatch(str(value).strip().lower()):
            return wall() - Duration(KEPT_S).convert(value, param, ctx)
        return Date().convert(value, param, ctx)


@click.command()
@click.argument("id", metavar="SITE")
@click.option(
    "--since", type=Back(), metavar="AGO", help="its past from then on: 6h, 7d, or 2026-12-01"
)
@click.option("--until", type=Back(), metavar="AGO", help="until then; else until now")
@click.option(
    "--step",
    "step_s",
    type=Duration(86_400),
    help="how long one step is, from 5m; else as many as fit",
)
@click.option("--plan", metavar="ID", help="how long it was at a cap of this plan; else its own")
@talks
def usage(
    to: Controllers,
    as_json: bool,
    *,
    id: str,
    since: float | None,
    until: float | None,
    step_s: float | None,
    plan: str | None,
) -> None:
    """What a site uses, and how long it would have been at a cap of each plan; with --since, what it used."""
    path = f"/v1/sites/{segment(id)}/usage"
    if since is None:
        if until or step_s or plan:
            raise click.UsageError("say --since, such as --since 7d")
        body = to.get(path)
        return raw(body) if as_json else show(*usagetables.usage(read(body, capanswers.Usage)))
    said = {"since": since, "until": until, "step_s": step_s and int(step_s), "plan": plan}
    body = to.get(f"{path}/past", **{name: str(it) for name, it in said.items() if it is not None})
    return raw(body) if as_json else show(*pasttables.past(read(body, capanswers.SitePast)))


def _done(body: bytes, as_json: bool, said: str) -> None:
    if as_json:
        return raw(body)
    return show(f"{said} (revision {msgspec.json.decode(body, type=answers.Done).revision})")


remove = click.option("--remove", is_flag=True, help="end it now: its host decides again")


@click.command()
@click.argument("id", metavar="SITE")
@click.option(
    "--level",
    type=click.Choice(LEVELS),
    default="isolate",
    show_default=True,
    help="how hard; from isolate on edges close it to visitors",
)
@click.option(
    "--nature",
    type=click.Choice(NATURES),
    default="heavy",
    show_default=True,
    help="what you take it for",
)
@remove
@reason
@for_s("2h", most_s=WEEK_S)
@talks
def quarantine(
    to: Controllers,
    as_json: bool,
    *,
    id: str,
    level: str,
    nature: str,
    remove: bool,
    reason: str,
    for_s: float,
) -> None:
    """Hold a site at a level of the ladder for a while, whatever its host would decide."""
    path = f"/v1/sites/{segment(id)}/quarantine"
    if remove:
        return _done(
            to.order("DELETE", path, {"reason": reason}), as_json, f"{id}: no quarantine stands"
        )
    said = {"reason": reason, "for_s": for_s, "level": level, "nature": nature}
    return _done(to.order("PUT", path, said), as_json, f"{id} is in quarantine: {level}")


@click.command()
@click.argument("id", metavar="SITE")
@remove
@reason
@for_s("2h", most_s=WEEK_S)
@talks
def release(
    to: Controllers, as_json: bool, id: str, remove: bool, reason: str, for_s: float
) -> None:
    """Lift what relevo decided of a site, and let it decide nothing more of it for a while."""
    path = f"/v1/sites/{segment(id)}/release"
    if remove:
        return _done(
            to.order("DELETE", path, {"reason": reason}), as_json, f"{id}: no release stands"
        )
    said = {"reason": reason, "for_s": for_s}
    return _done(to.order("PUT", path, said), as_json, f"{id} is released")


@click.command()
@click.argument("id", metavar="SITE")
@click.argument("caps", nargs=-1, type=Cap(), metavar="[CAP=VALUE]...")
@click.option("--remove", is_flag=True, help="back to the plan's caps now")
@reason
@for_s("7d", most_s=YEAR_S)
@talks
def override(
    to: Controllers,
    as_json: bool,
    id: str,
    caps: tuple[tuple[str, int | float], ...],
    remove: bool,
    reason: str,
    for_s: float,
) -> None:
    """Put other caps in the place of the plan's for a while, such as memory_max_bytes=2G tasks=200.

    It replaces the override before. Names and units are those of plans; K, M, G and T count in 1,024.
    """
    path = f"/v1/sites/{segment(id)}/override"
    if remove == bool(caps):
        raise click.UsageError("name caps, such as memory_max_bytes=2G, or say --remove")
    if remove:
        body = to.order("DELETE", path, {"reason": reason})
        return _done(body, as_json, f"{id} has its plan's caps")
    if len(dict(caps)) < len(caps):
        raise click.UsageError("name each cap once")
    said = {"caps": dict(caps), "reason": reason, "for_s": for_s}
    return _done(to.order("PUT", path, said), as_json, f"{id} has caps of its own")
