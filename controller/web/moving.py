"""Orders that move sites, or keep them where they are: drains, moves, and answers to holds."""

from aiohttp import web

from controller.audited import Person
from controller.commands import Commands
from controller.web.asking import (
    DRAINS_S,
    HOUR_S,
    PAUSES_S,
    Asked,
    Field,
    Form,
    NotDone,
    Order,
    anyway,
    chosen_s,
    duration,
    first_up,
    hold_of,
    host_of,
    places_for,
    rows_of,
    stopped,
)
from fleet.model import HostId, Mode, SiteId


class Moving:
    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def drain(self, asked: Asked) -> Order:
        look, say, id = asked.look, asked.say, host_of(asked)
        here = [site for site in look.sites_at(id) if look.host_of(site) == id]
        automatic = sum(site.effective_mode is Mode.AUTOMATIC for site in here)

        async def act(form: Form, person: Person) -> str:
            await self._commands.drain(id, chosen_s(form, DRAINS_S, say), person)
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
            fields=(duration(say, DRAINS_S, 8 * HOUR_S),),
            back=f"/ui/hosts/{id}",
            act=act,
            grave=True,
        )

    def activate(self, asked: Asked) -> Order:
        look, say, id = asked.look, asked.say, host_of(asked)
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
        say, id = asked.say, host_of(asked)

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

    def move(self, asked: Asked) -> Order:
        look, say, id = asked.look, asked.say, SiteId(asked.id)
        if (site := look.fleet.sites.get(id)) is None:
            raise web.HTTPNotFound
        now = look.host_of(site)
        options = places_for(look, say, site, now)
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
                    chosen=first_up(look, options),
                ),
                *((stopped(say, now),) if gated else ()),
                anyway(say),
            ),
            back=f"/ui/sites/{id}",
            act=act,
            grave=True,
        )

    def approve(self, asked: Asked) -> Order:
        """Move what is held: all of it, or what is left ticked."""
        look, say, hold = asked.look, asked.say, hold_of(asked)
        rows = tuple(rows_of(look, say, hold))
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
            fields=(*((stopped(say, source),) if gated else ()), anyway(say)),
            back="/ui/holds",
            act=act,
            grave=True,
        )

    def refuse(self, asked: Asked) -> Order:
        look, say, hold = asked.look, asked.say, hold_of(asked)
        host = HostId(hold.subject)
        if host not in look.fleet.hosts:
            raise web.HTTPNotFound  # a zone's hold ends with its reason

        async def act(form: Form, person: Person) -> str:
            await self._commands.refuse(host, chosen_s(form, PAUSES_S, say), person)
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
            fields=(duration(say, PAUSES_S, 2 * HOUR_S),),
            back="/ui/holds",
            act=act,
            grave=True,
        )
