"""Certificates of a server: taken anew from their files while it runs, and when they end."""

import asyncio
import ssl
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Never

from runtime import log
from runtime.config import BadConfig

LOOK_S = 10.0  # a renewed certificate has weeks; a person who renewed it waits for the log line

_log = log.logger("certificates")


class Shown:
    """The certificate that a server shows: `context` always shows the newest one that could be read.

    Raises BadConfig where there is none to begin with.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate, self._key = certificate, key
        self._seen = self._stamps()
        self._newest, self.ends_at = self._load()  # the latter in Unix s
        # The handshake is handed over to the newest context: its pair was read whole before anybody is shown it.
        self.context, _ = self._load()
        self.context.sni_callback = self._hand_over

    def _hand_over(
        self, connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
    ) -> None:
        connection.context = self._newest

    def _load(self) -> tuple[ssl.SSLContext, float]:
        for path in (self._certificate, self._key):
            try:
                path.read_bytes()
            except OSError as error:
                raise BadConfig(f"{path}: {error.strerror or error}") from error
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._certificate, self._key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise BadConfig(
                f"{self._certificate} and {self._key}: no certificate with its key: {error}"
            ) from error
        return context, ends_at(self._certificate)

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(stamp(path) for path in (self._certificate, self._key))

    def look(self) -> bool:
        """Whether there was a new certificate. Half of one, or none, changes nothing and is tried again."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        try:
            self._newest, self.ends_at = self._load()
        except BadConfig as error:
            _log.warning("the new certificate can't be used; the old one stays", error=str(error))
            return False
        self._seen = stamps
        _log.info("certificate renewed", certificate=str(self._certificate))
        return True

    async def keep(self, renewed: Callable[[float], None], every_s: float = LOOK_S) -> Never:
        """Eternal: look for a new certificate, and tell `renewed` when it ends once it is shown."""
        while True:
            await asyncio.sleep(every_s)
            if self.look():
                renewed(self.ends_at)


async def told(certificate: Path, tell: Callable[[float], None], every_s: float = LOOK_S) -> Never:
    """Eternal: `tell` when a certificate that others take from its file ends (Unix s), again once it is another."""
    seen: object = None
    while True:
        if (now := stamp(certificate)) != seen:
            seen = now
            try:
                tell(ends_at(certificate))
            except BadConfig as error:
                _log.warning("nobody knows when it ends", error=str(error))
        await asyncio.sleep(every_s)


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size


def fingerprint(certificate: Path) -> str:
    """The SHA-256 (hex) of the first certificate in a PEM file. Raises BadConfig."""
    return fingerprint_of(read(certificate))


def read(certificate: Path) -> str:
    """A file of PEM that holds a certificate. Raises BadConfig."""
    try:
        pem = certificate.read_text()
        fingerprint_of(pem)
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise BadConfig(f"{certificate}: no certificate in PEM: {error}") from error
    return pem


def fingerprint_of(pem: str) -> str:
    """The SHA-256 (hex) of the first certificate in `pem`. Raises ValueError."""
    end = pem.find(ssl.PEM_FOOTER)
    if end < 0:
        raise ValueError("no END CERTIFICATE")
    start = max(pem.find(ssl.PEM_HEADER), 0)
    return sha256(ssl.PEM_cert_to_DER_cert(pem[start : end + len(ssl.PEM_FOOTER)])).hexdigest()


def ends_at(certificate: Path) -> float:
    """When the first certificate of a PEM file ends, in Unix s. Raises BadConfig."""
    from cryptography import x509  # noqa: PLC0415 - 10 MB that an agent without certificates needs not

    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise BadConfig(f"{certificate}: no certificate in PEM: {error}") from error
    return found.not_valid_after_utc.timestamp()
