"""Pages that order something: each says first what will happen, asks why, and hands over to the commands."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from aiohttp import web

from controller.audited import NotLeading, Person, Unknown
from controller.commands import Commands
from controller.sight import Refused
from controller.store import Ambiguous, LeaseLost, StoreError
from controller.web.frame import SESSION, Frame, speech
from controller.web.look import Look
from controller.web.render import see_other
from controller.web.sessions import PROOF, TOLD, is_proven, is_same_site
from controller.web.words import VERDICTS, Speech
from fleet.access import may
from fleet.model import Arming, HeldSite, Hold, HostId, LocationId, Mode, Role, Site, SiteId

FEW_ROWS = 40  # held sites for each of which every host is offered; beyond that, standbys and home
FORM_S = 30.0  # a form takes no longer to come
REASON_CHARACTERS = 500
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


class Orders:
    def __init__(self, frame: Frame, commands: Commands) -> None:
        self._frame, self._commands = frame, commands

    def routes(self) -> list[web.RouteDef]:
        paths: dict[str, Callable[[Asked], Order]] = {
            "/failover/arming": self.arming,
            "/failover/pause": self.pause,
            "/failover/resume": self.resume,
            "/hosts/{id}/drain": self.drain,
            "/hosts/{id}/activate": self.activate,
            "/hosts/{id}/reconsider": self.reconsider,
            "/sites/{id}/move": self.move,
            "/holds/{id}/approve": self.approve,
            "/holds/{id}/refuse": self.refuse,
        }
        served = []
        for path, make in paths.items():
            handler = self._handler(make)
            served += [web.get(path, handler), web.post(path, handler)]
        return served

    def _handler(
        self, make: Callable[[Asked], Order]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def ask_or_do(request: web.Request) -> web.StreamResponse:
            asked = Asked(request, self._frame.look(), speech(request))
            order = make(asked)
            if request.method != "POST":
                return self._ask(asked, order, {})
            form = await read(request)
            try:
                told = await _carried_out(asked, order, form)
            except NotDone as why:
                asked = Asked(request, self._frame.look(), asked.say)
                return self._ask(asked, order, form, error=why.text, status=why.status)
            request[SESSION].told = told
            response = see_other(order.back)
            if PROOF in request.headers:  # it is told by the controller that passed it on
                response.headers[TOLD] = quote(told)
            return response

        return ask_or_do

    def _ask(
        self, asked: Asked, order: Order, form: Form, *, error: str = "", status: int = 200
    ) -> web.Response:
        return self._frame.page(
            asked.request,
            "order",
            asked.look,
            status=status,
            order=order,
            form=form,
            error=error,
        )

    # --- arming and pausing

    def arming(self, asked: Asked) -> Order:
        """?scope=all, location, host or site; ?id= of it."""
        look, say = asked.look, asked.say
        scope, id = asked.request.query.get("scope", ""), asked.request.query.get("id", "")
        sites, now, name = _scope(look, say, scope, id)
        automatic = sum(site.effective_mode is Mode.AUTOMATIC for site in sites)
        waiting = len(sites) - automatic
        choices = [("arm", say.t("Armed")), ("observe", say.t("Only observed"))]
        if scope != "all":
            choices.append(("inherit", say.t("As the whole it belongs to")))

        async def act(form: Form, person: Person) -> str:
            word = form.get("word", "")
            if word not in dict(choices):
                raise NotDone(say.t("Choose one of them."))
            arming = None if word == "inherit" else Arming(word)
            await self._commands.arm(scope, id, arming, person)
            return say.t("{name}: {word}.", name=name, word=dict(choices)[word])

        return Order(
            title=say.t("Arm or observe: {name}", name=name),
            button=say.t("Set"),
            happens=(
                say.n(
                    "Armed: when its host fails, relevo moves {n} site by itself.",
                    "Armed: when their host fails, relevo moves {n} sites by itself.",
                    automatic,
                ),
                say.n(
                    "{n} site is gated or manual: it waits for a person, armed or not.",
                    "{n} sites are gated or manual: they wait for a person, armed or not.",
                    waiting,
                ),
                say.t("Only observed: relevo tells what it would move, and moves nothing."),
                say.t("The most specific word wins: site, then host, location, all."),
            ),
            fields=(
                Field(
                    name="word",
                    label=say.t("From now on"),
                    kind="choice",
                    options=tuple(choices),
                    chosen="observe" if now is Arming.ARM else "arm",
                ),
            ),
            back={"host": f"/ui/hosts/{id}", "site": f"/ui/sites/{id}"}.get(scope, "/ui/failover"),
            act=act,
        )

    def pause(self, asked: Asked) -> Order:
        say = asked.say

        async def act(form: Form, person: Person) -> str:
            await self._commands.pause(_for_s(form, PAUSES_S, say), person)
            return say.t("Paused.")

        return Order(
            title=say.t("Pause failover"),
            button=say.t("Pause"),
            happens=(
                say.t("Nothing moves by itself until the pause ends or is taken back."),
                say.t("A host that fails meanwhile keeps its sites: they do not answer."),
                say.t("People can still move sites, drain hosts and approve holds."),
            ),
            fields=(_duration(say, PAUSES_S, 2 * HOUR_S),),
            back="/ui/failover",
            act=act,
            grave=True,
        )

    def resume(self, asked: Asked) -> Order:
        say = asked.say
        held = sum(len(h.sites) for h in asked.look.holds.values() if h.why.code == "paused")

        async def act(form: Form, person: Person) -> str:
            await self._commands.resume(person)
            return say.t("Failover goes on.")

        return Order(
            title=say.t("End the pause"),
            button=say.t("Resume failover"),
            happens=(
                say.t("What is armed moves by itself again, at once."),
                say.n(
                    "{n} site is held by the pause now.",
                    "{n} sites are held by the pause now.",
                    held,
                ),
            ),
            back="/ui/failover",
            act=act,
        )

    # --- hosts

    def drain(self, asked: Asked) -> Order:
        look, say, id = asked.look, asked.say, _host(asked)
        here = [site for site in look.sites_at(id) if look.host_of(site) == id]
        automatic = sum(site.effective_mode is Mode.AUTOMATIC for site in here)

        async def act(form: Form, person: Person) -> str:
            await self._commands.drain(id, _for_s(form, DRAINS_S, say), person)
            return say.t("{host} is being drained.", host=id)

        return Order(
            title=say.t("Drain {host}", host=id),
            button=say.t("Drain"),
            happens=(
                say.n(
                    "{n} site moves to its standby at once.",
                    "{n} sites move to their standbys at once.",
                    automatic,
                ),
                say.n(
                    "{n} gated or manual site stays and waits for you among the holds.",
                    "{n} gated or manual sites stay and wait for you among the holds.",
                    len(here) - automatic,
                ),
                say.t("No site is brought here until it is activated, or the time is over."),
            ),
            fields=(_duration(say, DRAINS_S, 8 * HOUR_S),),
            back=f"/ui/hosts/{id}",
            act=act,
            grave=True,
        )

    def activate(self, asked: Asked) -> Order:
        look, say, id = asked.look, asked.say, _host(asked)
        away = [site for site in look.sites_at(id) if site.home == id and look.host_of(site) != id]
        automatic = sum(site.effective_mode is Mode.AUTOMATIC for site in away)

        async def act(form: Form, person: Person) -> str:
            bring_home = form.get("bring_home") == "yes"
            _, moved = await self._commands.activate(id, person, bring_home=bring_home)
            if not moved:
                return say.t("{host} is active.", host=id)
            return say.n(
                "{host} is active; {n} site comes home.",
                "{host} is active; {n} sites come home.",
                len(moved),
                host=id,
            )

        return Order(
            title=say.t("Activate {host}", host=id),
            button=say.t("Activate"),
            happens=(
                say.t("A drain of it ends; sites may be brought here again."),
                say.n(
                    "{n} site of its own is served elsewhere.",
                    "{n} sites of its own are served elsewhere.",
                    len(away),
                ),
            ),
            fields=(
                Field(
                    name="bring_home",
                    label=say.n(
                        "Bring its {n} automatic site home",
                        "Bring its {n} automatic sites home",
                        automatic,
                    ),
                    hint=say.t(
                        "Gated and manual ones are brought home one by one, on the site's page."
                    ),
                    chosen="yes" if automatic else "",
                ),
            ),
            back=f"/ui/hosts/{id}",
            act=act,
        )

    def reconsider(self, asked: Asked) -> Order:
        say, id = asked.say, _host(asked)

        async def act(form: Form, person: Person) -> str:
            await self._commands.reconsider(id, person)
            return say.t("The refusal is taken back.")

        return Order(
            title=say.t("Take the refusal for {host} back", host=id),
            button=say.t("Take it back"),
            happens=(
                say.t("relevo may move its sites by itself again, as far as they are armed."),
            ),
            back=f"/ui/hosts/{id}",
            act=act,
        )

    # --- sites

    def move(self, asked: Asked) -> Order:
        look, say, id = asked.look, asked.say, SiteId(asked.id)
        if (site := look.fleet.sites.get(id)) is None:
            raise web.HTTPNotFound
        now = look.host_of(site)
        options = _targets(look, say, site, now)
        gated = site.effective_mode is Mode.GATED

        async def act(form: Form, person: Person) -> str:
            target = form.get("to", "")
            if target not in dict(options):
                raise NotDone(say.t("Choose where it should go."))
            await self._commands.move(
                id,
                HostId(target),
                person,
                old_host_stopped=form.get("stopped") == "yes",
                anyway=form.get("anyway") == "yes",
            )
            return say.t("{site} moves to {host}.", site=id, host=target)

        return Order(
            title=say.t("Move {site}", site=id),
            button=say.t("Move"),
            happens=(
                say.t(
                    "It is served by {host} now; its visitors are sent to the new host within seconds.",
                    host=now,
                ),
                say.t("relevo copies nothing: the new host must already have its files and data."),
            ),
            fields=(
                Field(
                    name="to",
                    label=say.t("New host"),
                    kind="choice",
                    options=options,
                    chosen=_first_up(look, options),
                ),
                *((_stopped(say, now),) if gated else ()),
                _anyway(say),
            ),
            back=f"/ui/sites/{id}",
            act=act,
            grave=True,
        )

    # --- holds

    def approve(self, asked: Asked) -> Order:
        """Move what is held: all of it, or what is left ticked."""
        look, say, hold = asked.look, asked.say, _hold(asked)
        rows = tuple(_rows(look, say, hold))
        if not rows:
            raise web.HTTPNotFound  # only moves can be approved
        source = HostId(hold.subject)
        gated = any(row.site.effective_mode is Mode.GATED for row in rows)

        async def act(form: Form, person: Person) -> str:
            targets = {
                row.site.id: HostId(form.get(f"to:{row.site.id}", ""))
                for row in rows
                if form.get(f"go:{row.site.id}") == "yes"
            }
            if not targets:
                raise NotDone(say.t("No site is ticked; nothing would move."))
            if not all(targets.values()):
                raise NotDone(say.t("Choose a new host for each site that is ticked."))
            _, moved = await self._commands.approve(
                source,
                targets,
                person,
                old_host_stopped=form.get("stopped") == "yes",
                anyway=form.get("anyway") == "yes",
            )
            return say.n("{n} site moves.", "{n} sites move.", len(moved))

        return Order(
            title=say.t("Approve: move the held sites of {host}", host=source),
            button=say.t("Approve and move"),
            happens=(
                say.n(
                    "Visitors of {n} site are sent to its new host within seconds.",
                    "Visitors of up to {n} sites are sent to their new hosts within seconds.",
                    len(rows),
                ),
                say.t("relevo copies nothing: the new hosts must already have files and data."),
                say.t("What you untick stays held."),
            ),
            rows=rows,
            fields=(*((_stopped(say, source),) if gated else ()), _anyway(say)),
            back="/ui/holds",
            act=act,
            grave=True,
        )

    def refuse(self, asked: Asked) -> Order:
        look, say, hold = asked.look, asked.say, _hold(asked)
        host = HostId(hold.subject)
        if host not in look.fleet.hosts:
            raise web.HTTPNotFound  # a zone's hold ends with its reason

        async def act(form: Form, person: Person) -> str:
            await self._commands.refuse(host, _for_s(form, PAUSES_S, say), person)
            return say.t("Refused: nothing moves from {host} by itself.", host=host)

        return Order(
            title=say.t("Refuse: leave the sites of {host} where they are", host=host),
            button=say.t("Refuse"),
            happens=(
                say.t(
                    "Nothing automatic moves its sites, or takes it out of the DNS, in this time."
                ),
                say.t("While it does not answer, its sites do not either."),
                say.t(
                    "People can still move them; the refusal can be taken back, and ends by itself."
                ),
            ),
            fields=(_duration(say, PAUSES_S, 2 * HOUR_S),),
            back="/ui/holds",
            act=act,
            grave=True,
        )


# --- reading a form, and doing what it says


async def read(request: web.Request) -> Form:
    """The text fields of a form. Raises web.HTTPException."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(FORM_S):
            said = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except ValueError:  # not text
        raise web.HTTPBadRequest from None
    return {name: value for name, value in said.items() if isinstance(value, str)}


async def _carried_out(asked: Asked, order: Order, form: Form) -> str:
    """What is told when it is done. Raises NotDone."""
    say = asked.say
    person = _person(asked, form)
    try:
        return await order.act(form, person)
    except Refused as refused:
        raise NotDone(say.why(refused.why), 409) from refused
    except Unknown as unknown:
        raise web.HTTPNotFound from unknown
    except (NotLeading, LeaseLost) as error:
        text = say.t("This controller does not lead now; nothing was done. Use the one that leads.")
        raise NotDone(text, 503) from error
    except Ambiguous as error:
        text = say.t("The store did not answer: it may have been done. Look before you repeat it.")
        raise NotDone(text, 503) from error
    except StoreError as error:
        text = say.t("The store failed, and nothing was done: {error}", error=str(error))
        raise NotDone(text, 503) from error


def _person(asked: Asked, form: Form) -> Person:
    """Who orders it, and why. Raises NotDone."""
    say, session = asked.say, asked.request[SESSION]
    if not is_same_site(asked.request) or not is_proven(session, form.get("proof", "")):
        raise NotDone(say.t("This form was not from this page, or is too old. Send it again."), 403)
    if not may(session.caller.role, "operator"):
        raise NotDone(say.t("Your token may look, not order."), 403)
    reason = " ".join(form.get("reason", "").split())
    if not reason:
        raise NotDone(say.t("Say why: those who look at this later will want to know."))
    if len(reason) > REASON_CHARACTERS:
        raise NotDone(say.t("The reason has {n} characters at most.", n=REASON_CHARACTERS))
    return Person(name=session.caller.name, reason=reason)


def _for_s(form: Form, offered: Iterable[float], say: Speech) -> float:
    for seconds in offered:
        if form.get("for_s") == f"{seconds:.0f}":
            return seconds
    raise NotDone(say.t("Choose for how long."))


# --- what is asked


def _duration(say: Speech, offered: Iterable[float], chosen: float) -> Field:
    options = tuple((f"{seconds:.0f}", say.span(seconds)) for seconds in offered)
    label = say.t("For how long")
    return Field(name="for_s", label=label, kind="choice", options=options, chosen=f"{chosen:.0f}")


def _stopped(say: Speech, host: HostId) -> Field:
    return Field(
        name="stopped",
        label=say.t("I made sure that {host} is off, or can't write any more", host=host),
        hint=say.t(
            "Two hosts that write the same site spoil its data. relevo has no other proof here."
        ),
    )


def _anyway(say: Speech) -> Field:
    return Field(
        name="anyway",
        label=say.t("Even if relevo does not see the new host up, or it is being drained"),
    )


def _host(asked: Asked) -> HostId:
    if (id := HostId(asked.id)) not in asked.look.fleet.hosts:
        raise web.HTTPNotFound
    return id


def _hold(asked: Asked) -> Hold:
    if (hold := asked.look.holds.get(asked.id)) is None:
        raise web.HTTPNotFound
    return hold


def _rows(look: Look, say: Speech, hold: Hold) -> Iterable[Row]:
    few = len(hold.sites) <= FEW_ROWS
    for held in hold.sites:
        if (site := look.fleet.sites.get(held.site)) is not None:
            options = _targets(look, say, site, held.source, everywhere=few)
            chosen = held.target or _first_up(look, options)
            yield Row(site=site, held=held, options=options, chosen=chosen)


def _targets(
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


def _first_up(look: Look, options: tuple[tuple[str, str], ...]) -> str:
    return next((id for id, _ in options if look.verdict(HostId(id)) == "up"), "")


def _scope(look: Look, say: Speech, scope: str, id: str) -> tuple[list[Site], Arming, str]:
    """The sites that a word of arming is about, what holds for them now, and what to call them."""
    fleet, switches = look.fleet, look.switches
    sites = list(fleet.sites.values())
    if scope == "all" and not id:
        return sites, switches.all, say.t("the whole co-op")
    if scope == "location" and (location := fleet.locations.get(LocationId(id))):
        here = {host for host, h in fleet.hosts.items() if h.location == location.id}
        now = switches.locations.get(location.id, switches.all)
        return [s for s in sites if look.host_of(s) in here], now, location.name or location.id
    if scope == "host" and (host := fleet.hosts.get(HostId(id))):
        now = switches.host_word(host.id, host.location)
        return [s for s in sites if look.host_of(s) == host.id], now, host.id
    if scope == "site" and (site := fleet.sites.get(SiteId(id))):
        return [site], Arming.ARM if look.armed(site) else Arming.OBSERVE, site.id
    raise web.HTTPNotFound
