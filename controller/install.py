"""`relevo init` and `relevo controller renew`: certificates, a configuration, and what to do next.

Nothing that exists is overwritten, except a certificate that is renewed.
"""

import getpass
import io
import os
import pwd
import secrets
import socket
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from ipaddress import ip_address
from pathlib import Path
from typing import ParamSpec

import click

from controller.authority import LOOPBACK, SERVER_VALID, Authority, names_of
from controller.config import Config
from controller.starting import (
    FLEET_YAML,
    admins_toml,
    controller_toml,
    listen_on,
    url_of,
)
from fleet.access import digest
from fleet.model import DOMAIN, NAMED
from runtime.clock import wall
from runtime.config import BadConfig, load

P = ParamSpec("P")
ETC, STATE = Path("/etc/relevo"), Path("/var/lib/relevo/controller")
USER = "relevo"  # as whom deploy/systemd runs the controller
PORT = 7410


@dataclass(frozen=True, slots=True)
class Places:
    """Where the files of this controller are."""

    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "controller.toml"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def ca_key(self) -> Path:
        return self.directory / "ca" / "ca.key"

    def issued(self, id: str) -> Path:
        """The certificate that was made last for a controller: its names are needed to renew it."""
        return self.directory / "ca" / "issued" / f"{id}.crt"

    def reached(self, id: str) -> Path:
        """Where a controller that was added here is reached: one line, its URL."""
        return self.directory / "ca" / "issued" / f"{id}.url"


@dataclass(frozen=True, slots=True)
class File:
    """A file to be made: by whom it can be read, beside root. `ours`: by the controller's user."""

    path: Path
    content: bytes
    mode: int = 0o644
    ours: bool = False


def tells(command: Callable[P, None]) -> Callable[P, None]:
    """Say what can't be done as one line, with status 1."""

    @wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BadConfig as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            remedy = "; run it as root" if isinstance(error, PermissionError) else ""
            raise click.ClickException(f"{error.filename}: {error.strerror}{remedy}") from error

    return told


directory = click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=ETC,
    show_default=True,
    help="where this controller's files are",
)
port = click.option("--port", type=click.IntRange(1, 65535), default=PORT, show_default=True)


def id_of(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and not NAMED.match(value):
        raise click.BadParameter(f"{value!r} is no id; take letters, digits and . _ -, such as c1")
    return value


def address_of(_: click.Context, __: click.Parameter, value: str) -> str:
    text = value.strip().lower().rstrip(".")
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        if DOMAIN.match(text):
            return text
    raise click.BadParameter(
        f"{value!r} is neither a DNS name nor an IP address; agents and people must reach the controller there"
    )


# --- the first controller


@click.command()
@click.argument("id", callback=id_of)
@click.argument("address", callback=address_of)
@directory
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=STATE,
    show_default=True,
    help="where it will keep its store; the service makes it",
)
@port
@click.option("--admin", help="your name in the audit; when left out, your login name")
@tells
def init(id: str, address: str, directory: Path, state: Path, port: int, admin: str | None) -> None:
    """Make the first controller of a co-op, ID, which agents and people reach at ADDRESS (a DNS name or an IP)."""
    places = Places(directory.absolute())
    name = admin or os.environ.get("SUDO_USER") or getpass.getuser()
    if not NAMED.match(name):
        raise click.UsageError(f"{name!r} can't be a name here; give one with --admin")
    authority = Authority.make(f"relevo CA of {id}, {address}")
    issued = authority.issue(id, (address, *LOOPBACK))
    token = secrets.token_urlsafe(32)
    own = places.directory
    config = controller_toml(
        id, address, port, own, state.absolute(), listen=_listens(listen_on(address))
    )
    write_new(
        File(places.ca_key, authority.key, 0o600),
        File(places.issued(id), issued.certificate),
        File(places.ca, authority.pem),
        File(own / "controller.crt", issued.certificate),
        File(own / "controller.key", issued.key, 0o600, ours=True),
        File(own / "admins.toml", admins_toml(name, digest(token)).encode(), 0o600, ours=True),
        File(own / "fleet.yaml", FLEET_YAML.encode()),
        File(places.config, config.encode()),
    )
    click.echo(f"The controller {id} is ready to start. Its files are in {own}.\n")
    _for_this_user(token, url_of(address, port), authority.pem)
    click.echo(
        f"Copy {places.ca_key} to a safe place off this machine, such as a password manager. Whoever has it\n"
        "can pass for a controller; without it no certificate can be renewed, and every host must join anew.\n"
    )
    _say_user(own)
    click.echo(
        "Next:\n"
        "  systemctl enable --now relevo-controller\n"
        "  relevo status\n"
        f"  editor {own}/fleet.yaml\n"
        f"  relevo fleet apply {own}/fleet.yaml --reason first\n"
        "  relevo host token HOST     prints the command by which HOST joins"
    )


def _listens(address: str) -> str:
    """`address`, or everything where it is not this machine's: behind NAT others reach it by another one's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as trial:
        try:
            trial.bind((address, 0))
        except OSError:
            return "::" if ":" in address else "0.0.0.0"  # noqa: S104 - with TLS and tokens
    return address


def _for_this_user(token: str, url: str, pem: bytes) -> None:
    """Let the command line of whoever ran this in, unless it is set up for something else."""
    home = Path("~/.config/relevo").expanduser()
    files = (
        File(home / "token", f"{token}\n".encode(), 0o600),
        File(home / "url", f"{url}\n".encode()),
        File(home / "ca.pem", pem),
    )
    if any(file.path.exists() for file in files):
        click.echo(
            f"{home} is set up already, and was left as it is. The first admin's token, shown this once:\n"
            f"  {token}\n"
        )
        return
    write_new(*files)
    click.echo(f"Your admin's token is in {home}/token, with the address and the CA beside it.\n")


# --- renewal


@click.command()
@click.argument("id", required=False, callback=id_of)
@directory
@tells
def renew(id: str | None, directory: Path) -> None:
    """Renew the certificate of this controller, or make that of another one, ID; run it where `relevo init` was run.

    A running controller shows the new certificate within seconds, and no link ends.
    """
    places = Places(directory.absolute())
    authority, config = Authority.read(places.ca, places.ca_key), load(places.config, Config)
    whom = id or config.id
    if not places.issued(whom).exists():
        raise BadConfig(
            f"no certificate was made here for {whom}; known: {', '.join(_known(places))}"
        )
    issued = authority.issue(whom, names_of(places.issued(whom).read_bytes()))
    days = SERVER_VALID.days
    if whom == config.id:
        certificate, key = config.listen.certificate, config.listen.key
        if certificate is None or key is None:
            raise BadConfig(f"{places.config}: [listen] names no certificate and key")
        replace(key, issued.key)
        replace(certificate, issued.certificate)
        click.echo(
            f"The certificate of {whom} is good for {days} days more; it is shown within seconds."
        )
    else:
        path = Path(f"relevo-{whom}.tar").absolute()
        files = {
            "controller.crt": (issued.certificate, 0o644),
            "controller.key": (issued.key, 0o600),
        }
        write_new(File(path, pack(files), 0o600))
        click.echo(
            f"{path} holds the new certificate of {whom}, good for {days} days, and its key. On {whom}:\n"
            f"  tar -C {directory} -xf {path.name} && rm {path.name} && chown {USER}: {directory}/controller.key\n"
            "It is shown within seconds. Then remove the file here."
        )
    replace(places.issued(whom), issued.certificate)


def _known(places: Places) -> list[str]:
    return sorted(path.stem for path in places.issued("x").parent.glob("*.crt"))


# --- files


def write_new(*files: File) -> None:
    """Make all of `files`, or none where one of them exists. Raises BadConfig, OSError."""
    if taken := [str(file.path) for file in files if file.path.exists()]:
        raise BadConfig(f"these exist, and nothing is overwritten: {', '.join(taken)}")
    owner = _controllers_user()
    for file in files:
        file.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        opened = os.open(file.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "wb") as out:
            out.write(file.content)
            os.fchmod(out.fileno(), file.mode)
            if file.ours and owner is not None:
                os.fchown(out.fileno(), owner.pw_uid, owner.pw_gid)


def pack(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """An archive of `files`: name -> (content, mode), all of them root's."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, (content, mode) in files.items():
            about = tarfile.TarInfo(name)
            about.size, about.mode, about.mtime = len(content), mode, int(wall())
            about.uname = about.gname = "root"
            archive.addfile(about, io.BytesIO(content))
    return packed.getvalue()


def replace(path: Path, content: bytes) -> None:
    """Whole or not at all, with the owner and mode that it had. Raises OSError."""
    before, fresh = path.stat(), path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    opened = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "wb") as out:
        out.write(content)
        os.fchown(out.fileno(), before.st_uid, before.st_gid)
        os.fchmod(out.fileno(), before.st_mode & 0o777)
        os.fsync(out.fileno())
    fresh.replace(path)


def _controllers_user() -> pwd.struct_passwd | None:
    """Whom the key belongs to: only root can give it away."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(USER)
    except KeyError:
        return None


def _say_user(directory: Path) -> None:
    if os.geteuid() == 0 and _controllers_user() is None:
        click.echo(
            f"There is no user {USER} yet, as whom the service runs. Once there is:\n"
            f"  chown {USER}: {directory}/controller.key {directory}/admins.toml\n"
        )
