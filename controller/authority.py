"""The co-op's own certificate authority: made once, kept on one machine, known to agents by its fingerprint."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runtime.clock import wall
from runtime.config import BadConfig

# Every host trusts it: longer than any machine lives, because a new one means that every host joins anew.
CA_VALID = timedelta(days=20 * 365)
# Apple's devices accept no more than 825 days, and the dashboard is looked at on phones.
SERVER_VALID = timedelta(days=2 * 365)
EARLIER = timedelta(days=1)  # a new machine's clock may be behind
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # for the command line on the controller itself


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, both in PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """`certificate` and `key` in PEM. Raises BadConfig where they are none, or not a pair."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        try:
            self._certificate = x509.load_pem_x509_certificate(certificate)
            private = load_pem_private_key(key, password=None)
        except (ValueError, TypeError) as error:
            raise BadConfig(f"the CA can't be read: {error}") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise BadConfig("the CA's key is not of the kind that relevo makes (EC)")
        if private.public_key() != self._certificate.public_key():
            raise BadConfig("the CA's key does not belong to its certificate")
        self._key, self.pem = private, certificate

    @classmethod
    def make(cls, name: str) -> "Authority":
        """A new one, whose subject says `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(name)
        public = key.public_key()
        built = (
            _builder(subject, subject, public, CA_VALID)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(built.public_bytes(Encoding.PEM), _pem(key))

    @classmethod
    def read(cls, certificate: Path, key: Path) -> "Authority":
        """Raises BadConfig."""
        try:
            return cls(certificate.read_bytes(), key.read_bytes())
        except OSError as error:
            raise BadConfig(
                f"{error.filename}: {error.strerror}; the CA's key is on the controller where `relevo init` was run"
            ) from error

    @property
    def key(self) -> bytes:
        """In PEM. Whoever has it can pass for any controller."""
        return _pem(self._key)

    def issue(
        self, name: str, names: tuple[str, ...], *, client: bool = False, at: float | None = None
    ) -> Issued:
        """For a server known by `names`, DNS names and IP literals, a client, or both; good from `at` (Unix s)."""
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] if names else []
        usages += [ExtendedKeyUsageOID.CLIENT_AUTH] if client else []
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        built = (
            _builder(_name(name), self._certificate.subject, key.public_key(), SERVER_VALID, at)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([_alternative(n) for n in dict.fromkeys(names)]),
                critical=False,
            )
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Issued(built.public_bytes(Encoding.PEM), _pem(key))


def names_of(certificate: bytes) -> tuple[str, ...]:
    """The DNS names and IP literals that a certificate is for. Raises BadConfig."""
    try:
        found = x509.load_pem_x509_certificate(certificate)
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as error:
        raise BadConfig(f"no certificate with names: {error}") from error
    return tuple(str(name.value) for name in names)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common[:64])]
    )  # RFC 5280: ub-common-name


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    valid: timedelta,
    at: float | None = None,
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(wall() if at is None else at, UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + valid)
    )
