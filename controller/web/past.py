"""What a site used in the last days, drawn: its host is asked while the reader waits. What nobody saw is left out."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from aiohttp import web

from controller.api.past import PastQuery, PastStep, SitePast, Spreading
from controller.api.problems import NotFound
from controller.questions import NoAnswer, NotLinked, TooManyQuestions
from controller.web.frame import Frame
from controller.web.words import Speech
from fleet.model import SiteId
from runtime.clock import wall

DAYS = (1, 7, 40)
HEIGHT = 100  # of a picture, in its own units; it is as wide as it has steps
DAY_S = 86_400

Ask = Callable[[SiteId, PastQuery], Awaitable[SitePast]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One measure over time. Each path is of bars, in units of steps and HEIGHT; `spread` None: nothing is known."""

    title: str
    numbers: tuple[str, str, str]
    spread: Spreading | None
    average: str
    p95: str
    unseen: str


class PastPages:
    def __init__(self, frame: Frame, ask: Ask) -> None:
        self._frame, self._ask = frame, ask

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/sites/{id}/past", self.past)]

    async def past(self, request: web.Request) -> web.Response:
        """?days= one of DAYS."""
        look, id = self._frame.look(), SiteId(request.match_info["id"])
        if id not in look.fleet.sites:
            raise web.HTTPNotFound
        asked = request.query.get("days", "")
        days = next((each for each in DAYS if str(each) == asked), DAYS[1])
        used: SitePast | None = None
        trouble: Exception | None = None
        if (
            "X-Live" not in request.headers
        ):  # a page that looks again has its pictures, and no host is asked for them
            try:
                used = await self._ask(id, PastQuery(since=wall() - days * DAY_S))
            except (NotFound, NotLinked, NoAnswer, TooManyQuestions) as error:
                trouble = error
        return self._frame.page(
            request,
            "past",
            look,
            id=id,
            days=days,
            choices=DAYS,
            used=used,
            trouble=trouble,
            troubled=troubled,
            pictures=pictures,
        )


def troubled(error: Exception, say: Speech) -> str:
    """Why there is no answer; the error itself has the names."""
    match error:
        case NotLinked():
            return say.t("Its host is not linked to this controller. Look at it by another one.")
        case NoAnswer():
            return say.t("Its host was asked, and gave no answer.")
        case TooManyQuestions():
            return say.t("Too many ask this host at the moment. Try again.")
    return say.t("It is on no host yet.")


def pictures(of: SitePast, say: Speech) -> tuple[Picture, ...]:
    """Of each measure, those of which something is known first."""
    measures: tuple[tuple[str, str, Callable[[float], str]], ...] = (
        ("cpu_cores", say.t("CPU, in cores"), lambda it: say.decimal(it, 2)),
        ("memory_bytes", say.t("Memory, in MiB"), lambda it: say.number(round(it / (1 << 20)))),
        ("read_bytes_per_s", say.t("Reads, in KiB/s"), lambda it: say.number(round(it / 1024))),
        ("write_bytes_per_s", say.t("Writes, in KiB/s"), lambda it: say.number(round(it / 1024))),
        ("tasks", say.t("Processes"), lambda it: say.number(round(it))),
        ("requests_per_s", say.t("Requests a second"), lambda it: say.decimal(it, 1)),
    )
    drawn = (_picture(of, field, title, said) for field, title, said in measures)
    return tuple(sorted(drawn, key=lambda picture: picture.spread is None))


def _picture(of: SitePast, field: str, title: str, said: Callable[[float], str]) -> Picture:
    spread: Spreading | None = getattr(of.overall, field)
    told: list[Spreading | None] = [getattr(step, field) for step in of.steps]
    top = max((max(it.average, it.p95) for it in told if it is not None), default=0.0)
    numbers = (spread.average, spread.p95, spread.max) if spread else ()
    average, p95, most = map(said, numbers) if numbers else ("", "", "")
    return Picture(
        title=title,
        numbers=(average, p95, most),
        spread=spread,
        average=_bars(_heights((None if it is None else it.average for it in told), top)),
        p95=_bars(_heights((None if it is None else it.p95 for it in told), top)),
        unseen=_bars(_unseen(of.steps)),
    )


def _heights(values: Iterable[float | None], top: float) -> list[int]:
    """Of bars; what is known is one unit high at least, so that zero is told from nothing."""
    return [
        0 if value is None else max(1, round(value / top * HEIGHT)) if top > 0 else 1
        for value in values
    ]


def _unseen(steps: Sequence[PastStep]) -> list[int]:
    return [0 if step.seen_s > 0 else HEIGHT for step in steps]


def _bars(heights: Sequence[int]) -> str:
    """The data of an SVG path; equal neighbours are one bar. Source: SVG 2, path data."""
    path, begin = [], 0
    for n in range(1, len(heights) + 1):
        if n == len(heights) or heights[n] != heights[begin]:
            if heights[begin]:
                width, height = n - begin, heights[begin]
                path.append(f"M{begin} {HEIGHT}v-{height}h{width}v{height}z")
            begin = n
    return "".join(path)
