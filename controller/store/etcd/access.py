"""How etcd is reached and who we are to it: endpoints, certificates, user and password."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Never

import grpc

from controller.store.protocol import Denied
from runtime.certificates import stamp


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM: who signs etcd's certificates, and our own certificate with its key, if etcd asks for one."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None

    @property
    def stamps(self) -> tuple[object, ...]:
        """What changes when one of the files is renewed."""
        return tuple(stamp(path) for path in (self.ca, self.certificate, self.key) if path)

    def credentials(self) -> grpc.ChannelCredentials:
        """Raises Denied, naming the file.

        OpenSSL reads them first: given a broken one, gRPC's core ends the process (an assertion in C++).
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise Denied(f"ca = {self.ca}: no certificates in PEM can be read: {error}") from error
        if self.certificate is None or self.key is None:
            return grpc.ssl_channel_credentials(self.ca.read_bytes())
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            raise Denied(
                f"cert = {self.certificate} and key = {self.key}: not a certificate and its key in PEM: {error}"
            ) from error
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.key.read_bytes(), self.certificate.read_bytes()
        )


def _no_password() -> Never:
    """Else OpenSSL would ask on the terminal."""
    raise ssl.SSLError("the key is encrypted; keep it without a password, readable by relevo alone")


@dataclass(frozen=True, slots=True)
class Login:
    """A user of etcd's own."""

    name: str
    password: str

    def __repr__(self) -> str:
        return f"Login({self.name!r})"
