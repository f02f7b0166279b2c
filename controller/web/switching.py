"""Orders about all of failover: what is armed, and the pause."""

from aiohttp import web

from controller.audited import Person
from controller.commands import Commands
from controller.web.asking import (
    HOUR_S,
    PAUSES_S,
    Asked,
    Field,
    Form,
    NotDone,
    Order,
    chosen_s,
    duration,
)
from controller.web.look import Look
from controller.web.words import Speech
from fleet.model import Arming, HostId, LocationId, Mode, Site, SiteId


class Switching:
    def __init__(self, commands: Commands) -> None:
        self._commands = commands

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
            await self._commands.pause(chosen_s(form, PAUSES_S, say), person)
            return say.t("Paused.")

        return Order(
            title=say.t("Pause failover"),
            button=say.t("Pause"),
            happens=(
                say.t("Nothing moves by itself until the pause ends or is taken back."),
                say.t("A host that fails meanwhile keeps its sites: they do not answer."),
                say.t("People can still move sites, drain hosts and approve holds."),
            ),
            fields=(duration(say, PAUSES_S, 2 * HOUR_S),),
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
