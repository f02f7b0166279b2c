"""A real mail server on loopback, and the ways in which one fails."""

import asyncio
import ssl
import warnings
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = b"relevo", b"a-password-of-the-mail-server"


class Inbox:
    """What arrived. `answers`: what is said to the next letters instead of taking them."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.to: list[list[str]] = []
        self.encrypted: list[bool] = []
        self.answers: list[str] = []
        self.tried = 0
        self.unknown: set[str] = set()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.tried += 1
        if self.answers:
            return self.answers.pop(0)
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.letters.append(message)
        self.to.append(list(envelope.rcpt_tos))
        assert server.transport is not None
        self.encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        return "250 OK"


def _let_in(
    server: object, session: object, envelope: object, mechanism: str, data: object
) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER, PASSWORD)
    return AuthResult(success=right, handled=False)


@asynccontextmanager
async def mail_server(
    inbox: Inbox, *, tls: ssl.SSLContext | None = None, at_once: bool = False, login: bool = False
) -> AsyncGenerator[int, None]:
    """Its port. `tls` by STARTTLS, or from the start where `at_once`."""
    starts = tls is not None and not at_once

    def made() -> SMTP:
        # It knows STARTTLS only, and warns of passwords in the clear also where all is encrypted.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return _server()

    def _server() -> SMTP:
        return SMTP(
            inbox,
            hostname="mail.coop.example",
            tls_context=tls if starts else None,
            require_starttls=starts,
            authenticator=_let_in if login else None,
            auth_required=login,
            auth_require_tls=False,
        )

    async with _listening(made, tls if at_once else None) as port:
        yield port


@asynccontextmanager
async def _listening(
    made: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None
) -> AsyncGenerator[int, None]:
    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def silent_server() -> AsyncGenerator[int, None]:
    """It takes the connection, and never says a word."""
    open_: list[asyncio.StreamWriter] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.append(writer)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in open_:
            writer.close()
        server.close()
