"""Expected errors as problem+json: the one place that knows status codes. Source: RFC 9457.

What is not listed here is a bug, and stays a 500.
"""

import re
from collections.abc import Mapping
from math import ceil

import msgspec
from aiohttp import web

from controller.admission import NotAdmitted, NotKnownYet
from controller.api.auth import Handler, NotAllowed
from controller.api.kinds import KINDS, MEDIA, TYPES
from controller.api.language import language
from controller.commands import NotLeading, Unknown
from controller.declare import Outdated
from controller.questions import NoAnswer, NotLinked, TooManyQuestions
from controller.sight import Refused
from controller.store import Ambiguous, LeaseLost, StoreError
from fleet.documents import BadDocument
from fleet.model import Why
from fleet.single import BadItem
from runtime.words import explain

# A visible character, in the same words for Python as for ECMAScript, whose white space is not Python's.
VISIBLE = r"[^\s\x1c-\x1f\x85\ufeff]"
BLANK = f"Expected `str` matching regex {VISIBLE!r}"  # as msgspec says it
AT = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")


class BadRequest(Exception):
    """The request can't be understood; `slug` says how, `field` where."""

    def __init__(
        self,
        detail: str,
        *,
        field: str = "",
        value: str = "",
        remedy: str = "",
        slug: str = "bad-request",
    ) -> None:
        super().__init__(detail)
        self.detail, self.field, self.value, self.remedy = detail, field, value, remedy
        self.slug = slug


class NotFound(Exception):
    """There is no such thing here."""


class Busy(Exception):
    """Too many of these at once; later there is room."""


class TooMany(Exception):
    """Asked too often; `wait_s` later it may be asked again."""

    def __init__(self, said: str, wait_s: float) -> None:
        super().__init__(said)
        self.wait_s = wait_s


EXPECTED = (
    TooMany,
    BadRequest,
    NotFound,
    Busy,
    NotAdmitted,
    NotAllowed,
    NotKnownYet,
    Unknown,
    Refused,
    NotLeading,
    msgspec.DecodeError,  # ValidationError is one
    BadDocument,
    BadItem,
    NotLinked,
    NoAnswer,
    TooManyQuestions,
    StoreError,
)


# Problems that their message says whole.
SAID: dict[type[Exception], str] = {
    NotAdmitted: "not-admitted",
    NotAllowed: "not-allowed",
    NotKnownYet: "not-ready",
    Busy: "busy",
    Unknown: "not-found",
    NotFound: "not-found",
    NotLinked: "host-not-linked",
    NoAnswer: "host-silent",
    TooManyQuestions: "busy",
}


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except EXPECTED as error:
        return rendered(error, language(request))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _http(request, error)


def rendered(error: Exception, lang: str) -> web.Response:
    """One of EXPECTED, as a response."""
    match error:
        case _ if slug := next((s for kind, s in SAID.items() if isinstance(error, kind)), ""):
            return problem(slug, _sentence(str(error)))
        case Outdated():
            headers = {"ETag": f'"{error.tag}"'} if error.tag else {}
            return _refused("outdated", error.why, lang, headers)
        case Refused():
            return _refused("refused", error.why, lang)
        case msgspec.ValidationError():
            said = str(error).replace(BLANK, "Must not be blank")
            at = AT.search(said)
            return problem("invalid-body", AT.sub("", said), field=at["field"] if at else "")
        case msgspec.DecodeError():
            return problem("malformed-json", str(error))
        case BadRequest():
            return problem(
                error.slug,
                error.detail,
                field=error.field,
                value=error.value,
                remedy=error.remedy,
            )
        case TooMany():
            wait = {"Retry-After": str(max(1, ceil(error.wait_s)))}
            return problem("too-many-requests", str(error), headers=wait)
        case BadDocument() | BadItem():
            return _flawed(error)
    return _store(error)


def _flawed(error: BadDocument | BadItem) -> web.Response:
    if isinstance(error, BadItem):
        return _item(error)
    count = len(error.problems)
    detail = f"{count} problem{'s' if count > 1 else ''}; nothing was applied."
    return problem("bad-fleet", detail, problems=msgspec.to_builtins(error.problems))


def _refused(
    slug: str, why: Why, lang: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """The type of a refusal is its reason's code."""
    text = explain(why, lang)
    said = {"code": why.code, "values": why.values, "text": text}
    return problem(slug, text, headers=headers, type=TYPES + why.code, why=said)


def _item(error: BadItem) -> web.Response:
    """The first finding is the problem's own; all are in `problems`."""
    first, *others = error.findings
    more = f" And {len(others)} more; nothing was changed." if others else ""
    told = [
        {
            "field": finding.field,
            "value": finding.value,
            "message": finding.message,
            "remedy": finding.remedy,
            "said": str(finding),
        }
        for finding in error.findings
    ]
    return problem(
        "bad-item",
        f"{first.message[:1].upper()}{first.message[1:]}.{more}",
        field=first.field,
        value=first.value,
        remedy=first.remedy,
        problems=told,
    )


def _store(error: Exception) -> web.Response:
    match error:
        case NotLeading() | LeaseLost():
            return problem("not-leading", "This controller does not lead now.")
        case Ambiguous():
            return problem(
                "may-have-been-applied", "The store did not answer: it may have been applied."
            )
    detail = f"Nothing was applied: {type(error).__name__}: {error}"
    return problem("store-failed", detail)


def _http(request: web.Request, error: web.HTTPException) -> web.Response:
    """What the router says."""
    match error:
        case web.HTTPNotFound():
            return problem("no-such-path", f"There is no {request.path} here.")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{request.path} takes {allowed}, not {request.method}."
            return problem("method-not-allowed", detail, headers={"Allow": allowed})
    return problem("bad-request", error.text or error.reason, status=error.status)


def problem(
    slug: str,
    detail: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> web.Response:
    """A response of the kind `slug`, which also says what to do; of `more` what is empty is left out."""
    kind = KINDS[slug]
    body: dict[str, object] = {
        "type": kind.type,
        "title": kind.title,
        "status": status or kind.status,
        "detail": detail,
        "remedy": kind.remedy,
    }
    body |= {name: value for name, value in more.items() if value}
    authenticate = {"WWW-Authenticate": "Bearer"} if kind.status == 401 else {}
    return web.Response(
        body=msgspec.json.encode({name: value for name, value in body.items() if value}),
        status=status or kind.status,
        content_type=MEDIA,
        headers={**authenticate, **(headers or {})},
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
