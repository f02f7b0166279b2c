"""What is asked before anything is ordered: the questions of a form, and the answers that it offers."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from controller.audited import Person
from controller.web.look import Look
from controller.web.words import VERDICTS, Speech
from fleet.model import HeldSite, Hold, HostId, Role, Site

FEW_ROWS = 40  # held sites for each of which every host is offered; beyond that, standbys and home
HOUR_S, DAY_S = 3600.0, 86_400.0
DRAINS_S = (2 * HOUR_S, 8 * HOUR_S, DAY_S, 7 * DAY_S, 30 * DAY_S)
PAUSES_S = (HOUR_S / 2, 2 * HOUR_S, 8 * HOUR_S, DAY_S, 7 * DAY_S)

Form = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One question; a `check` is answered by `yes`."""

    name: str
    label: str
    kind: Literal["choice", "check"] = "check"
    options: tuple[tuple[str, str], ...] = ()
    chosen: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One held site in an answer to a hold, with where it may go."""

    site: Site
    held: HeldSite
    options: tuple[tuple[str, str], ...]
    chosen: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a page asks before it is done. `act` does it, and gives what is told afterwards on `back`."""

    title: str
    button: str
    happens: tuple[str, ...]
    back: str
    act: Callable[[Form, Person], Awaitable[str]]
    fields: tuple[Field, ...] = ()
    rows: tuple[Row, ...] = ()
    grave: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an order's page, and the look it is answered from."""

    request: web.Request
    look: Look
    say: Speech

    @property
    def id(self) -> str:
        return self.request.match_info["id"]


class NotDone(Exception):
    """Why nothing was done, for the person who asked."""

    def __init__(self, text: str, status: int = 422) -> None:
        super().__init__(text)
        self.text, self.status = text, status


def chosen_s(form: Form, offered: Iterable[float], say: Speech) -> float:
    for seconds in offered:
        if form.get("for_s") == f"{seconds:.0f}":
            return seconds
    raise NotDone(say.t("Choose for how long."))


def duration(say: Speech, offered: Iterable[float], chosen: float) -> Field:
    options = tuple((f"{seconds:.0f}", say.span(seconds)) for seconds in offered)
    label = say.t("For how long")
    return Field(name="for_s", label=label, kind="choice", options=options, chosen=f"{chosen:.0f}")


def stopped(say: Speech, host: HostId) -> Field:
    return Field(
        name="stopped",
        label=say.t("I made sure that {host} is off, or can't write any more", host=host),
        hint=say.t(
            "Two hosts that write the same site spoil its data. relevo has no other proof here."
        ),
    )


def anyway(say: Speech) -> Field:
    return Field(
        name="anyway",
        label=say.t("Even if relevo does not see the new host up, or it is being drained"),
    )


def host_of(asked: Asked) -> HostId:
    if (id := HostId(asked.id)) not in asked.look.fleet.hosts:
        raise web.HTTPNotFound
    return id


def hold_of(asked: Asked) -> Hold:
    if (hold := asked.look.holds.get(asked.id)) is None:
        raise web.HTTPNotFound
    return hold


def rows_of(look: Look, say: Speech, hold: Hold) -> Iterable[Row]:
    few = len(hold.sites) <= FEW_ROWS
    for held in hold.sites:
        if (site := look.fleet.sites.get(held.site)) is not None:
            options = places_for(look, say, site, held.source, everywhere=few)
            chosen = held.target or first_up(look, options)
            yield Row(site=site, held=held, options=options, chosen=chosen)


def places_for(
    look: Look, say: Speech, site: Site, now: HostId, *, everywhere: bool = True
) -> tuple[tuple[str, str], ...]:
    """Where a site may go: its standbys and home first, then every other web host."""
    known = [host for host in (*site.standbys, site.home) if host in look.fleet.hosts]
    webs = sorted(id for id, host in look.fleet.hosts.items() if Role.WEB in host.roles)
    others = webs if everywhere or not known else ()
    found = []
    for id in dict.fromkeys((*known, *others)):
        if id != now:
            place = say.t("home") if id == site.home else say.t("standby") if id in known else ""
            verdict = say.word(VERDICTS, look.verdict(id))
            found.append((id, ", ".join(part for part in (f"{id} ({verdict})", place) if part)))
    return tuple(found)


def first_up(look: Look, options: tuple[tuple[str, str], ...]) -> str:
    return next((id for id, _ in options if look.verdict(HostId(id)) == "up"), "")
