"""The demo's own certificate authority, as files in one folder; its key is never written down."""

from dataclasses import dataclass
from pathlib import Path

from controller import authority


@dataclass(frozen=True, slots=True)
class Certificate:
    certificate: Path
    key: Path


class Authority:
    """A certificate authority that lives as long as this object; `path` is its certificate."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "ca.pem"
        self._directory = directory
        self._authority = authority.Authority.make("relevo demo")
        self.path.write_bytes(self._authority.pem)

    @property
    def key(self) -> bytes:
        """In PEM, for who plays the controller that has it."""
        return self._authority.key

    def issue(
        self, name: str, addresses: tuple[str, ...] = (), *, client: bool = False
    ) -> Certificate:
        """For a server at `addresses` (IP literals), a client, or both; the key is readable by us alone."""
        made = self._authority.issue(name, addresses, client=client)
        issued = Certificate(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        issued.certificate.write_bytes(made.certificate)
        issued.key.touch(mode=0o600)
        issued.key.write_bytes(made.key)
        return issued
