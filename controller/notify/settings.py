"""The `[[notify]]` tables of controller.toml."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, field

from controller.notify.matters import What
from fleet.model import Name

EVERYTHING: tuple[What, ...] = (
    "holds", "incidents", "hosts", "penalties", "help", "disks", "brake", "store", "controllers"
)  # fmt: skip
Address = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}$(?!\n)")
]
Seconds = Annotated[float, Meta(gt=0, le=120)]
Url = Annotated[str, Meta(pattern=r"^https?://[!-~]+$(?!\n)", max_length=2000)]
Ports = {"starttls": 587, "tls": 465, "none": 25}


class Receiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have. `what`: which matters; `least`: none that is less urgent than this.

    `languages`: the text in each, one after the other. `give_up_s`: for how long one letter is tried.
    """

    name: Name
    what: Annotated[tuple[What, ...], Meta(min_length=1)] = EVERYTHING
    least: Literal["info", "bad", "act"] = "info"
    languages: Annotated[tuple[Literal["en", "es"], ...], Meta(min_length=1, max_length=2)] = (
        "en",
    )
    timeout_s: Seconds = 15.0
    give_up_s: Annotated[float, Meta(ge=60, le=86_400)] = 14_400.0


class Mail(
    Receiver, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="mail"
):
    """Mail by SMTP. `tls`: begun in the clear and then encrypted, encrypted from the start, or not at all (loopback).

    `password` is a file with one line. `ca`: who signed the server's certificate, where the system does not know it.
    """

    server: Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:-]{1,253}$(?!\n)")]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    ca: Path | None = None
    user: str = ""
    password: Path | None = None
    sender: Address = field(name="from")
    to: Annotated[tuple[Address, ...], Meta(min_length=1, max_length=50)]

    def __post_init__(self) -> None:
        if bool(self.user) != (self.password is not None):
            raise ValueError("user and password come together; set both or neither")
        if self.tls == "none" and not _loopback(self.server):
            raise ValueError(
                f'tls = "none" is for a mail server on this machine, and {self.server} is none: '
                'set tls = "starttls" or "tls", or server = "127.0.0.1"'
            )

    @property
    def effective_port(self) -> int:
        return self.port or Ports[self.tls]


class Webhook(
    Receiver, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="webhook"
):
    """A POST of JSON. `secret` signs it; `url_file` instead of `url` where the address is a secret itself.

    `body` "text": nothing but the text, for chat systems that refuse what they do not know.
    """

    url: Url | None = None
    url_file: Path | None = None
    secret: Path | None = None
    ca: Path | None = None
    body: Literal["whole", "text"] = "whole"

    def __post_init__(self) -> None:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("set one of url and url_file")
        if self.url is not None:
            raise_unless_safe(self.url)


class Command(
    Receiver, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="command"
):
    """A program that gets the letter as JSON on its standard input; ended after `timeout_s`."""

    command: Annotated[tuple[Annotated[str, Meta(min_length=1)], ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if not self.command[0].startswith("/"):
            raise ValueError(f"command begins with a whole path, and {self.command[0]!r} is none")


def raise_unless_safe(url: str) -> None:
    """Raises ValueError where a notice would travel in the clear."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not _loopback(parts.hostname or ""):
        raise ValueError(f"notices to {parts.hostname} would travel in the clear; use https")


def _loopback(server: str) -> bool:
    if server == "localhost":
        return True
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return False
