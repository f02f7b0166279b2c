"""Orders that hold a site, or let it go."""

from aiohttp import web

from controller.audited import Person
from controller.holding import Holding
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
from controller.web.words import LEVELS, NATURES, RULINGS
from fleet.caps import Level, Nature
from fleet.model import SiteId

OFFERED = {level.name.lower(): level for level in Level if level > Level.WATCH}


class Containing:
    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    def quarantine(self, asked: Asked) -> Order:
        say, id = asked.say, _site_of(asked)

        async def act(form: Form, person: Person) -> str:
            level, nature = form.get("level", ""), form.get("nature", "")
            if level not in OFFERED or nature not in NATURES:
                raise NotDone(say.t("Choose one of them."))
            for_s = chosen_s(form, PAUSES_S, say)
            await self._holding.quarantine(id, OFFERED[level], Nature(nature), for_s, person)
            return say.t("{site} is in quarantine.", site=id)

        return Order(
            title=say.t("Quarantine {site}", site=id),
            button=say.t("Quarantine"),
            happens=(
                say.t("Its host holds it as you say, whatever it would decide itself."),
                say.t("Isolated: nothing goes out but DNS, mail by its own server, and its data."),
                say.t("Stopped: its processes end."),
                say.t(
                    "In both, visitors who come by edges see a page that says to come back later."
                ),
                say.t("It moves with the site, and ends by itself."),
            ),
            fields=(
                Field(
                    name="level",
                    label=say.t("How hard"),
                    kind="choice",
                    options=tuple((name, say.word(LEVELS, name)) for name in OFFERED),
                    chosen="isolate",
                ),
                Field(
                    name="nature",
                    label=say.t("What you take it for"),
                    kind="choice",
                    options=tuple((name, say.t(word)) for name, word in NATURES.items()),
                    chosen="heavy",
                ),
                duration(say, PAUSES_S, 2 * HOUR_S),
            ),
            back=f"/ui/sites/{id}",
            act=act,
            grave=True,
        )

    def release(self, asked: Asked) -> Order:
        say, id = asked.say, _site_of(asked)
        count = len(asked.look.standing(id))

        async def act(form: Form, person: Person) -> str:
            await self._holding.release(id, chosen_s(form, PAUSES_S, say), person)
            return say.t("{site} is released.", site=id)

        return Order(
            title=say.t("Release {site}", site=id),
            button=say.t("Release"),
            happens=(
                say.n(
                    "{n} penalty of it is lifted at once, and so is a quarantine.",
                    "{n} penalties of it are lifted at once, and so is a quarantine.",
                    count,
                ),
                say.t("For that long relevo does not penalize it, whatever its neighbours suffer."),
                say.t("The caps of its plan go on holding."),
            ),
            fields=(duration(say, PAUSES_S, 2 * HOUR_S),),
            back=f"/ui/sites/{id}",
            act=act,
            grave=True,
        )

    def reconsider(self, asked: Asked) -> Order:
        """Take a person's word on a site back."""
        say, id = asked.say, _site_of(asked)
        ruling = asked.look.rulings.get(id)
        word = ruling.word if ruling else "suspect"
        if word == "suspect":
            raise web.HTTPNotFound  # nobody's word: it ends by itself

        async def act(form: Form, person: Person) -> str:
            await self._holding.unrule(id, word, person)
            return say.t("The host of {site} decides again.", site=id)

        return Order(
            title=say.t("Take the word on {site} back", site=id),
            button=say.t("Take it back"),
            happens=(
                say.t("It is {word} now.", word=say.word(RULINGS, word)),
                say.t("Its host decides by itself again, by what its neighbours suffer."),
            ),
            back=f"/ui/sites/{id}",
            act=act,
        )


def _site_of(asked: Asked) -> SiteId:
    if (id := SiteId(asked.id)) not in asked.look.fleet.sites:
        raise web.HTTPNotFound
    return id
