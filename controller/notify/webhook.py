"""A POST of JSON, signed: chat systems show its `text`, programs read the rest."""

import hashlib
import hmac
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec

from controller.notify.letter import Letter, NotSent
from controller.notify.mail import trust
from controller.notify.settings import Webhook, raise_unless_safe
from runtime.clock import wall
from runtime.config import BadConfig, secret

SAID = 200  # characters of an answer that are told
TRY_AGAIN = frozenset(
    {408, 425, 429}
)  # of 4xx, those that pass. Source: RFC 9110 §15.5, RFC 6585 §4


class Poster:
    """`Relevo-Signature` is v1=HMAC-SHA256 of `<Relevo-Timestamp>.<body>`, so that an old one can't be played again."""

    def __init__(self, settings: Webhook) -> None:
        """Reads the files it names. Raises BadConfig."""
        self._settings = settings
        self._url = _url(settings)
        self._host = urlsplit(self._url).hostname  # all of the address that is ever told
        self._secret = secret(settings.secret).encode() if settings.secret else None
        self._tls = trust(settings.ca) if self._url.startswith("https") else True

    async def send(self, letter: Letter) -> None:
        body = _body(letter, whole=self._settings.body == "whole")
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        connector = aiohttp.TCPConnector(ssl=self._tls)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(
                    self._url,
                    data=body,
                    headers=headers(letter, body, self._secret, int(wall())),
                    allow_redirects=False,
                ) as answer,
            ):
                if answer.status < 300:
                    return
                told = (await answer.content.read(SAID)).decode(errors="replace")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Of aiohttp's errors only the kind: their words can hold the address, which may be a secret.
            raise NotSent(f"{self._host}: {_said(error)}") from error
        status = answer.status
        said = f"{self._host} answers {status} {' '.join(told.split())}".strip()
        raise NotSent(said, final=300 <= status < 500 and status not in TRY_AGAIN)


def headers(letter: Letter, body: bytes, key: bytes | None, at: int) -> dict[str, str]:
    """`at` in Unix s."""
    found = {
        "Content-Type": "application/json",
        "User-Agent": "relevo",
        "Relevo-Notice": letter.id,
        "Relevo-Timestamp": str(at),
    }
    if key is not None:
        signature = hmac.new(key, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
        found["Relevo-Signature"] = f"v1={signature}"
    return found


def _body(letter: Letter, *, whole: bool) -> bytes:
    """`text` is what Slack, Mattermost and Matrix' bridges show; programs find the rest beside it."""
    text = f"{letter.subject}\n\n{letter.text}"
    if not whole:
        return msgspec.json.encode({"text": text})
    return msgspec.json.encode({**msgspec.to_builtins(letter), "text": text})


def _url(settings: Webhook) -> str:
    if settings.url is not None:
        return settings.url
    path = settings.url_file or Path()
    url = secret(path)
    try:
        if not url.startswith(("http://", "https://")):
            raise ValueError("it holds no http or https address")
        raise_unless_safe(url)
    except ValueError as error:
        raise BadConfig(f"{path}: {error}") from error
    return url


def _said(error: BaseException) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted ({error.certificate_error})"
        case aiohttp.ClientConnectorError():
            return f"can't connect: {error.os_error.strerror or error.os_error}"
        case TimeoutError():
            return "no answer in time"
    return type(error).__name__
