"""The kinds of problems that the API answers: each a stable type, a status, what it means and what to do."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from fleet.model import Why

TYPES = "/problems/"
MEDIA = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    slug: str
    status: int
    title: str
    remedy: str = ""

    @property
    def type(self) -> str:
        return TYPES + self.slug


class Flaw(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several things that are wrong: where, what stands there, and what to do; `said` is all of it in a line.

    `file`, `line` and `column` (from 1) where it is in a file.
    """

    field: str
    value: str | None
    message: str
    remedy: str
    said: str
    file: str = ""
    line: int = 0
    column: int = 0


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What could not be done, and what to do about it. Source: RFC 9457.

    `type` is stable: programs may turn on it. `field` and `value`: what of the request is wrong, and what stood there.
    `why`: a reason of the decision, as everywhere. `problems`: all that is wrong, where that is more than one thing.
    """

    type: str
    title: str
    status: int
    detail: str
    remedy: str = ""
    field: str = ""
    value: str = ""
    why: Why | None = None
    problems: tuple[Flaw, ...] = ()


def _table(*kinds: Kind) -> Mapping[str, Kind]:
    return {kind.slug: kind for kind in kinds}


AGAIN = "Ask another controller, or this one again in a few seconds."
LOOK = "Look before you repeat it."
KINDS = _table(
    Kind("bad-request", 400, "Not understood", "Correct the field that is named."),
    Kind("malformed-json", 400, "Not JSON", "Send one JSON object in UTF-8."),
    Kind(
        "not-admitted",
        401,
        "Not admitted",
        "Send `Authorization: Bearer <token>` with a token that this controller knows.",
    ),
    Kind("not-allowed", 403, "Not allowed", "Ask with a token of a role that may do this."),
    Kind("not-found", 404, "Not found", "Look at the list for the ids that there are."),
    Kind("no-such-path", 404, "No such path", "/v1/openapi.json lists the paths."),
    Kind("method-not-allowed", 405, "Not that way", "/v1/openapi.json lists the methods."),
    Kind("too-slow", 408, "Too slow", "Send the whole body at once."),
    Kind("refused", 409, "Refused"),
    Kind(
        "outdated",
        412,
        "Not as it was",
        "Read it again, and repeat the change if it is still right.",
    ),
    Kind("too-large", 413, "Too large", "Send less at once."),
    Kind("address-too-long", 414, "Address too long", "Say less in the query."),
    Kind("headers-too-large", 431, "Headers too large", "Send fewer headers, or shorter ones."),
    Kind("invalid-body", 422, "Not valid", "Correct the field that is named."),
    Kind("bad-fleet", 422, "The fleet file can't be used", "Correct what is listed."),
    Kind("bad-item", 422, "It can't be part of the fleet", "Correct what is listed."),
    Kind(
        "precondition-required",
        428,
        "Not said what it was made for",
        "Send If-Match with the ETag that GET gave.",
    ),
    Kind(
        "too-many-requests",
        429,
        "Too many requests",
        "Wait for as many seconds as `Retry-After` says.",
    ),
    Kind("busy", 503, "Busy", "Close what you need no more, or try later."),
    Kind("not-ready", 503, "Not ready", AGAIN),
    Kind("not-leading", 503, "Not leading", AGAIN),
    Kind(
        "host-not-linked",
        503,
        "Its host is not linked here",
        "Ask a controller to which it is linked; where none is named, look after the host's agent.",
    ),
    Kind("may-have-been-applied", 503, "Perhaps applied", LOOK),
    Kind("store-failed", 503, "The store failed", AGAIN),
    Kind(
        "host-silent",
        504,
        "Its host gave no answer",
        "Ask again in a minute; if it stays so, read the log of the agent of the host that is named. One of an older "
        "release does not know the question.",
    ),
)

# What every order may answer: it is decided by the leader, and committed to the store.
ORDERED = ("not-found", "refused", "not-leading", "may-have-been-applied", "store-failed")


def by_status(slugs: Iterable[str]) -> Mapping[int, tuple[Kind, ...]]:
    """Kinds of problems by their status, lowest first."""
    kinds = [KINDS[slug] for slug in dict.fromkeys(slugs)]
    statuses = sorted({kind.status for kind in kinds})
    return {status: tuple(k for k in kinds if k.status == status) for status in statuses}
