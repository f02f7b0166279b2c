"""Expected errors as problem+json: the one place that knows status codes. Source: RFC 9457.

What is not listed here is a bug, and stays a 500.
"""

import re
from collections.abc import Mapping

import msgspec
from aiohttp import web

from controller.api.auth import Handler, NotAdmitted
from controller.api.language import language
from controller.commands import NotLeading, Unknown
from controller.lead import Refused
from controller.store import Ambiguous, LeaseLost, StoreError
from fleet.documents import BadDocument
from runtime.words import explain

BLANK = r"Expected `str` matching regex '\\S'"  # as msgspec says it
AT = re.compile(r" - at `\$\.?(?P<field>[^`]*)`$")


class BadRequest(Exception):
    """The request can't be understood; `status` says how, `field` where."""

    def __init__(
        self,
        detail: str,
        *,
        field: str = "",
        value: str = "",
        remedy: str = "",
        status: int = 400,
        slug: str = "bad-request",
    ) -> None:
        super().__init__(detail)
        self.detail, self.field, self.value, self.remedy = detail, field, value, remedy
        self.status, self.slug = status, slug


class NotFound(Exception):
    """There is no such thing here."""


class Busy(Exception):
    """Too many of these at once; later there is room."""


EXPECTED = (
    BadRequest,
    NotFound,
    Busy,
    NotAdmitted,
    Unknown,
    Refused,
    NotLeading,
    msgspec.DecodeError,  # ValidationError is one
    BadDocument,
    StoreError,
)


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
        case NotAdmitted():
            detail = "Send `Authorization: Bearer <token>` with a token that this controller knows."
            return problem(401, "not-admitted", "Not admitted", detail)
        case Unknown() | NotFound():
            return problem(404, "not-found", "Not found", _sentence(str(error)))
        case Refused():
            why = {
                "code": error.why.code,
                "values": error.why.values,
                "text": explain(error.why, lang),
            }
            return problem(409, error.why.code, "Refused", str(why["text"]), why=why)
        case msgspec.ValidationError():
            said = str(error).replace(BLANK, "Must not be blank")
            at = AT.search(said)
            return problem(
                422, "invalid-body", "Not valid", AT.sub("", said), field=at["field"] if at else ""
            )
        case msgspec.DecodeError():
            return problem(400, "malformed-json", "Not JSON", str(error))
        case BadRequest():
            return problem(
                error.status,
                error.slug,
                "Not understood",
                error.detail,
                field=error.field,
                value=error.value,
                remedy=error.remedy,
            )
        case Busy():
            return problem(503, "busy", "Busy", str(error))
        case BadDocument():
            return _document(error)
    return _store(error)


def _document(error: BadDocument) -> web.Response:
    count = len(error.problems)
    detail = f"{count} problem{'s' if count > 1 else ''}; nothing was applied."
    return problem(
        422,
        "bad-fleet",
        "The fleet file can't be used",
        detail,
        problems=msgspec.to_builtins(error.problems),
    )


def _store(error: Exception) -> web.Response:
    match error:
        case NotLeading() | LeaseLost():
            detail = (
                "This controller does not lead now; ask another one, or again in a few seconds."
            )
            return problem(503, "not-leading", "Not leading", detail)
        case Ambiguous():
            detail = (
                "The store did not answer: it may have been applied. Look before you repeat it."
            )
            return problem(503, "may-have-been-applied", "Perhaps applied", detail)
    return problem(
        503,
        "store-failed",
        "The store failed",
        f"Nothing was applied: {type(error).__name__}: {error}",
    )


def _http(request: web.Request, error: web.HTTPException) -> web.Response:
    """What the router says."""
    match error:
        case web.HTTPNotFound():
            return problem(404, "no-such-path", "No such path", f"There is no {request.path} here.")
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            detail = f"{request.path} takes {allowed}, not {request.method}."
            return problem(
                405, "method-not-allowed", "Not that way", detail, headers={"Allow": allowed}
            )
    return problem(error.status, "http", error.reason, error.text or error.reason)


def problem(
    status: int,
    slug: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> web.Response:
    """A problem+json response; of `more` what is empty is left out."""
    body: dict[str, object] = {
        "type": f"/problems/{slug}",
        "title": title,
        "status": status,
        "detail": detail,
    }
    body |= {name: value for name, value in more.items() if value}
    authenticate = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return web.Response(
        body=msgspec.json.encode(body),
        status=status,
        content_type="application/problem+json",
        headers={**authenticate, **(headers or {})},
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
