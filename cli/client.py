"""The API's other end: asks one controller after the other, and says which one it talked to."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

import aiohttp
import msgspec

from cli.failures import Exit, Failure

CONNECT_S = 3.0
ANSWER_S = 30.0  # a large fleet file is judged and applied in this time
CONFLICTS = frozenset({"changed-meanwhile", "fleet-changed"})

# What a person can answer to a refusal, in this command's words.
ANSWERS = {
    "gated-not-fenced": " If you know that it does not, say --old-host-stopped.",
    "standby-not-up": " To move it all the same, say --anyway.",
    "dns-too-many-changes": " If you mean it, say --much.",
    "caps-untried": " If you know better, say --yes; or let them hold --from a later date.",
    "fleet-removes": " If you mean it, say --remove.",
    "fleet-too-many-removed": " If you mean it, say --much.",
    "fleet-changed": " See `relevo fleet log` and `relevo fleet diff FILE`.",
    "host-still-serves": ' First `relevo host drain HOST --reason "…"`, or `relevo site move SITE HOST --reason "…"`.',
}

PAGE = 1000  # as many as the API gives at once
# Empty: as the problem itself says it.
NOT_HERE = {
    "not-leading": "does not lead",
    "not-ready": "has not read the store yet",
    "host-not-linked": "",
}
NULL = msgspec.Raw(b"null")  # an answer in one piece
Method = Literal["GET", "PUT", "POST", "DELETE"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What the API says when it can't do something. Source: RFC 9457."""

    type: str = ""
    title: str = ""
    detail: str = ""
    field: str = ""
    remedy: str = ""
    problems: tuple["FileProblem", ...] = ()

    @property
    def slug(self) -> str:
        return self.type.rsplit("/", 1)[-1]


class FileProblem(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    line: int
    said: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.said}"


class Elsewhere(Exception):
    """This controller can't help; another one may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controllers:
    """Where the controllers are, and how to be let in."""

    urls: tuple[str, ...]
    token: str
    ca: str | None = None
    language: str = "en"

    def get(self, path: str, **query: str) -> bytes:
        return asyncio.run(self.ask("GET", path, query=query))

    def every(self, path: str, *what: str, accept: str = "", **query: str) -> bytes:
        """All pages of a list as one: `what` hold every item; what stands beside them is the last page's."""
        headers = {"Accept": accept} if accept else {}
        items: dict[str, list[msgspec.Raw]] = {name: [] for name in what}
        cursor = ""
        while True:
            asked = {**query, "limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            body = asyncio.run(self.ask("GET", path, query=asked, headers=headers))
            page = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            for name in what:
                items[name] += msgspec.json.decode(page[name], type=list[msgspec.Raw])
            cursor = msgspec.json.decode(page.get("next", NULL), type=str | None) or ""
            if not cursor:
                rest = {name: said for name, said in page.items() if name != "next"}
                return msgspec.json.encode({**rest, **items})

    def order(self, method: Method, path: str, said: Mapping[str, object]) -> bytes:
        return asyncio.run(self.ask(method, path, body=msgspec.json.encode(said)))

    def put(self, path: str, body: bytes, *, headers: Mapping[str, str], **query: str) -> bytes:
        return asyncio.run(self.ask("PUT", path, query=query, body=body, headers=headers))

    def post(self, path: str, body: bytes, **query: str) -> bytes:
        """A question that is too long for a GET."""
        return asyncio.run(self.ask("POST", path, query=query, body=body, changes=False))

    async def ask(
        self,
        method: Method,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        changes: bool = True,
    ) -> bytes:
        """The answer of the first controller that gives one. Raises Failure.

        What `changes` something, as all but a GET does, is repeated elsewhere only if it surely was not done.
        """
        tried = []
        async with self.session() as session:
            for url in self.urls:
                try:
                    async with session.request(
                        method,
                        url + path,
                        params=query,
                        data=None if body is None else BytesIO(body),
                        headers=headers,
                    ) as response:
                        answer = await response.read()
                    if response.status < 400:
                        return answer
                    self.refused(url, response.status, answer)
                except aiohttp.ClientConnectorError as error:
                    tried.append(f"{url}: {_said(error)}")
                except (aiohttp.ClientError, OSError) as error:
                    if method != "GET" and changes:
                        message = "no answer; it may have been done. Look before you repeat it."
                        raise Failure(f"{url}: {message} ({_said(error)})", Exit.FAILED) from error
                    tried.append(f"{url}: {_said(error)}")
                except Elsewhere as other:
                    tried.append(str(other))
        raise Failure("no controller could help:\n  " + "\n  ".join(tried), Exit.UNREACHABLE)

    def refused(self, url: str, status: int, body: bytes) -> None:
        """Raise what a refusal means: Failure, or Elsewhere where another controller may do it."""
        try:
            problem = msgspec.json.decode(body, type=Problem)
        except msgspec.DecodeError:
            message = f"{url}: status {status}, and no answer of relevo's; is this a controller?"
            raise Failure(message, Exit.FAILED) from None
        if problem.slug in NOT_HERE:
            raise Elsewhere(f"{url}: {NOT_HERE[problem.slug] or problem.detail}")
        if problem.problems:
            lines = "\n".join(map(str, problem.problems))
            raise Failure(f"{url}: {problem.title}: {problem.detail}\n{lines}", Exit.FAILED)
        at = f"{problem.field}: " if problem.field else ""
        remedy = ANSWERS.get(problem.slug) or (f" {problem.remedy}" if problem.remedy else "")
        raise Failure(f"{url}: {at}{problem.detail}{remedy}", _code(status, problem.slug))

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[aiohttp.ClientSession, None]:
        if not self.token:
            raise Failure(
                f"no token for {', '.join(self.urls)}; set RELEVO_TOKEN or RELEVO_TOKEN_FILE, "
                "or write it to ~/.config/relevo/token",
                Exit.NOT_ALLOWED,
            )
        for url in self.urls:
            _raise_unless_safe(url)
        timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
        headers = {"Authorization": f"Bearer {self.token}", "Accept-Language": self.language}
        connector = aiohttp.TCPConnector(ssl=_tls(self.ca))
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, headers=headers
        ) as session:
            yield session


def _raise_unless_safe(url: str) -> None:
    """A token never travels in the clear, except inside this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise Failure(f"{url}: not a controller's URL; write it like https://host:7410", Exit.USAGE)
    if parts.scheme == "https" or host == "localhost":
        return
    try:
        local = ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise Failure(f"{url}: the token would travel in the clear; use https", Exit.USAGE)


def _tls(ca: str | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise Failure(f"{ca}: no CA certificate: {error}", Exit.USAGE) from error


def _code(status: int, slug: str) -> Exit:
    match status:
        case 401 | 403:
            return Exit.NOT_ALLOWED
        case 404:
            return Exit.NOT_FOUND
        case 409 | 412 if slug in CONFLICTS or status == 412:
            return Exit.CONFLICT
    return Exit.FAILED


def _said(error: BaseException) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return (
                f"its certificate is not trusted ({error.certificate_error}); give its CA with --ca"
            )
        case aiohttp.ClientConnectorError():
            return f"can't connect: {error.os_error.strerror or error.os_error}"
        case TimeoutError():
            return "no answer in time"
    return str(error) or type(error).__name__
