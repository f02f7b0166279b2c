"""Mail by SMTP: one connection for each letter, and an incident's story as one thread."""

import asyncio
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path

import aiosmtplib
from aiosmtplib import SMTPException, SMTPRecipientsRefused, SMTPResponseException

from controller.notify.letter import Letter, NotSent
from controller.notify.settings import Mail
from runtime import log
from runtime.clock import wall
from runtime.config import BadConfig, secret

_log = log.logger("notify")
GONE = range(500, 600)  # the server will say the same next time. Source: RFC 5321 §4.2.1


class Mailer:
    """Source: RFC 5321; RFC 3207 (STARTTLS), RFC 5322 §3.6.4 (threads), RFC 3834 (nobody answers a machine)."""

    def __init__(self, settings: Mail) -> None:
        """Reads the password and the CA. Raises BadConfig."""
        self._settings = settings
        self._password = secret(settings.password) if settings.password else None
        self._tls = trust(settings.ca) if settings.tls != "none" else None

    async def send(self, letter: Letter) -> None:
        settings = self._settings
        try:
            message = mail(letter, settings.sender, settings.to, wall())
            async with asyncio.timeout(settings.timeout_s):
                refused, _ = await aiosmtplib.send(
                    message,
                    sender=settings.sender,
                    recipients=list(settings.to),
                    hostname=settings.server,
                    port=settings.effective_port,
                    local_hostname="relevo.invalid",
                    username=settings.user or None,
                    password=self._password,
                    timeout=settings.timeout_s,
                    use_tls=settings.tls == "tls",
                    start_tls=settings.tls == "starttls",
                    tls_context=self._tls,
                )
        except SMTPRecipientsRefused as error:
            codes = [refusal.code for refusal in error.recipients]
            raise NotSent(
                f"{settings.server} refuses every recipient: {error.recipients[0]}",
                final=all(code in GONE for code in codes),
            ) from error
        except SMTPResponseException as error:
            said = f"{settings.server} says {error.code} {error.message}"
            raise NotSent(said, final=error.code in GONE) from error
        except (SMTPException, OSError, ValueError) as error:
            # OSError: TimeoutError and TLS too. ValueError: what the server said was no SMTP.
            kind = type(error).__name__
            raise NotSent(f"{settings.server}: {str(error) or kind}") from error
        for address, response in refused.items():
            _log.warning(
                "one recipient refused", name=settings.name, to=address, code=response.code
            )


def mail(letter: Letter, sender: str, to: tuple[str, ...], at: float) -> EmailMessage:
    """`letter` as a message; the same letter has the same Message-ID each time."""
    domain = sender.rpartition("@")[2]
    message = EmailMessage()
    message["From"] = Address("relevo", addr_spec=sender)
    message["To"] = [Address(addr_spec=address) for address in to]
    message["Subject"] = letter.subject
    message["Date"] = formatdate(at)
    message["Message-ID"] = _id(letter.id, domain)
    if letter.follows:
        message["In-Reply-To"] = _id(letter.follows[0], domain)
        message["References"] = " ".join(_id(id, domain) for id in letter.follows[:20])
    message["Auto-Submitted"] = "auto-generated"
    message["X-Relevo-Severity"] = letter.severity
    if letter.severity == "act":
        message["Importance"] = "high"
    message.set_content(letter.text, cte="quoted-printable")
    return message


def _id(id: str, domain: str) -> str:
    return f"<relevo.{id}@{domain}>"


def trust(ca: Path | None) -> ssl.SSLContext:
    """The system's CAs, or only `ca`. Raises BadConfig."""
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"{ca}: no CA certificate: {error}") from error
