"""What every page stands in: the reader's language, the look it is made from, and the way around."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from controller.api.language import language
from controller.web import words
from controller.web.look import Look
from controller.web.render import page
from controller.web.sessions import Session
from controller.web.summary import summarise
from controller.web.words import NAMES, Speech
from fleet.access import may
from runtime.clock import wall
from runtime.words import LANGUAGES

SESSION = web.RequestKey("session", Session)
LANGUAGE_COOKIE = "relevo-language"


def tongue(request: web.Request) -> str:
    """The language that the reader chose, else the one that the browser prefers."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    return chosen if chosen in LANGUAGES and "lang" not in request.query else language(request)


def speech(request: web.Request) -> Speech:
    return Speech(tongue(request), wall())


class Frame:
    """Renders pages over what `look` gives; `digest` says which state of things that is."""

    def __init__(self, look: Callable[[], Look], digest: Callable[[], str]) -> None:
        self.look, self._digest = look, digest

    def page(
        self,
        request: web.Request,
        template: str,
        found: Look,
        *,
        status: int = 200,
        **values: object,
    ) -> web.Response:
        """`template` over `found` and `values`, within the frame."""
        told = within(request, found, self._digest(), values)
        return page(request, template, told, status=status)


def within(
    request: web.Request, found: Look, digest: str, values: dict[str, object]
) -> dict[str, object]:
    """Everything that a template may speak of."""
    session, say = request[SESSION], Speech(tongue(request), found.wall)
    told = ""
    if "X-Live" not in request.headers:  # a page that asks again has shown it already
        told, session.told = session.told, ""
    return {
        "look": found,
        "say": say,
        "t": say.t,
        "n": say.n,
        "summary": summarise(found, say),
        "who": session.caller,
        "may_order": may(session.caller.role, "operator"),
        "proof": session.proof,
        "told": told,
        "digest": digest,
        "path": request.path,
        "here": request.path_qs,
        "languages": NAMES,
        "words": words,
        **values,
    }


@dataclass(frozen=True, slots=True)
class Slice:
    """Page `number` of a long list, from 1 to `pages`."""

    number: int
    pages: int
    first: int
    last: int

    @classmethod
    def of(cls, asked: str, total: int, size: int) -> "Slice":
        """What was asked for, or the nearest page that there is."""
        pages = max(1, math.ceil(total / size))
        wanted = int(asked[:9]) if asked.isascii() and asked.isdigit() else 1
        number = min(max(1, wanted), pages)
        return cls(number, pages, (number - 1) * size, min(number * size, total))
