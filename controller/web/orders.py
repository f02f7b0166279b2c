"""Pages that order something: each says first what will happen, asks why, and hands over to the commands."""

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from aiohttp import web

from controller.audited import NotLeading, Person, Unknown
from controller.commands import Commands
from controller.holding import Holding
from controller.sight import Refused
from controller.store import Ambiguous, LeaseLost, StoreError
from controller.web.asking import Asked, Form, NotDone, Order
from controller.web.containing import Containing
from controller.web.frame import SESSION, Frame, speech
from controller.web.moving import Moving
from controller.web.render import see_other
from controller.web.sessions import PROOF, TOLD, is_proven, is_same_site
from controller.web.switching import Switching
from fleet.access import may

FORM_S = 30.0  # a form takes no longer to come
REASON_CHARACTERS = 500


class Orders:
    def __init__(self, frame: Frame, commands: Commands, holding: Holding) -> None:
        self._frame = frame
        self._switching, self._moving = Switching(commands), Moving(commands)
        self._containing = Containing(holding)

    def routes(self) -> list[web.RouteDef]:
        paths: dict[str, Callable[[Asked], Order]] = {
            "/failover/arming": self._switching.arming,
            "/failover/pause": self._switching.pause,
            "/failover/resume": self._switching.resume,
            "/hosts/{id}/drain": self._moving.drain,
            "/hosts/{id}/activate": self._moving.activate,
            "/hosts/{id}/reconsider": self._moving.reconsider,
            "/sites/{id}/move": self._moving.move,
            "/sites/{id}/quarantine": self._containing.quarantine,
            "/sites/{id}/release": self._containing.release,
            "/sites/{id}/reconsider": self._containing.reconsider,
            "/holds/{id}/approve": self._moving.approve,
            "/holds/{id}/refuse": self._moving.refuse,
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
