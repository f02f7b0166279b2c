"""`relevo controller add`: the files of one more controller, or of one in another's place, and what to do with them.

What was made for each is remembered beside the CA's key, so that the next one's files and lines name them all.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from controller.another import Another, another
from controller.authority import LOOPBACK, Authority
from controller.config import Config
from controller.install import (
    USER,
    File,
    Places,
    address_of,
    directory,
    id_of,
    pack,
    port,
    replace,
    tells,
    write_new,
)
from controller.starting import url_of
from runtime.config import BadConfig, load


@click.command()
@click.argument("id", callback=id_of)
@click.argument("address", callback=address_of)
@directory
@port
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    help="where to write it; when left out, relevo-ID.tar",
)
@click.option(
    "--replace",
    "replacing",
    is_flag=True,
    help="ID is a controller that is gone for good: make new files, also for another address",
)
@tells
def add(
    id: str, address: str, directory: Path, port: int, bundle: Path | None, replacing: bool
) -> None:
    """Make the files of another controller, ID, which is reached at ADDRESS; run it where `relevo init` was run."""
    places, path = Places(directory.absolute()), (bundle or Path(f"relevo-{id}.tar")).absolute()
    authority = Authority.read(places.ca, places.ca_key)
    config = load(places.config, Config)
    known = _remembered(places)
    _raise_unless_fit(id, config, known, replacing=replacing)
    made = another(places.config.read_text(), id, address, port, known=known)
    issued = authority.issue(id, (address, *LOOPBACK))
    admins = config.admins.read_bytes() if config.admins.exists() else b""
    packed = pack(
        {
            "controller.toml": (made.text.encode(), 0o644),
            "controller.crt": (issued.certificate, 0o644),
            "controller.key": (issued.key, 0o600),
            "ca.pem": (authority.pem, 0o644),
            "admins.toml": (admins, 0o600),
        }
    )
    remembered = (
        File(places.issued(id), issued.certificate),
        File(places.reached(id), f"{url_of(address, port)}\n".encode()),
    )
    write_new(File(path, packed, 0o600), *(file for file in remembered if not file.path.exists()))
    for file in remembered:
        replace(file.path, file.content)
    click.echo(_words(id, address, places, path, made))
    if others := [str(file) for file in needed(config)]:
        click.echo(_needs(id, address, others))


def _remembered(places: Places) -> dict[str, str]:
    """URLs of the controllers that were added here, by id."""
    found = sorted(places.reached("x").parent.glob("*.url"))
    return {path.stem: path.read_text().strip() for path in found}


def _raise_unless_fit(id: str, config: Config, known: dict[str, str], *, replacing: bool) -> None:
    """Raises BadConfig."""
    if id == config.id:
        raise BadConfig(
            f"{id} is this controller; with the CA's key on another one it is made there, by the same command"
        )
    if config.id not in config.urls:
        raise BadConfig(
            f"[urls] does not say where this controller, {config.id}, is reached; add it, as "
            f'{config.id} = "https://{config.id}.example:{config.listen.port}"'
        )
    declared = id in config.all_controllers or id in known
    if declared and not replacing:
        raise BadConfig(
            f"{id} is a controller already; to renew its certificate: relevo controller renew {id}; "
            "to put another machine in its place: the same command with --replace"
        )
    if replacing and not declared:
        there = ", ".join(sorted(config.all_controllers | known.keys()))
        raise BadConfig(f"there is no controller {id} to replace; there are {there}")


def needed(config: Config) -> Iterator[Path]:
    """Files that the configuration of another controller names, and that its archive does not hold."""
    own = (config.listen.certificate, config.listen.key, config.listen.ca, config.admins)
    found = (path for path in _paths(config) if path not in own and path.is_file())
    yield from dict.fromkeys(found)


def _paths(value: object) -> Iterator[Path]:
    match value:
        case Path():
            yield value
        case msgspec.Struct():
            for name in value.__struct_fields__:
                yield from _paths(getattr(value, name))
        case dict():
            for one in value.values():
                yield from _paths(one)
        case tuple():
            for one in value:
                yield from _paths(one)


def _words(id: str, address: str, places: Places, path: Path, made: Another) -> str:
    own, root = places.directory, f"root@[{address}]" if ":" in address else f"root@{address}"
    return (
        f"{path} holds the files of {id}; its key is in it, so remove it when it is there:\n"
        f"  scp {path} {root}:\n"
        f"  ssh root@{address} 'mkdir -p {own} && tar --keep-old-files -C {own} -xf {path.name}"
        f" && rm {path.name} && chown {USER}: {own}/controller.key {own}/admins.toml'\n"
        f"  rm {path}\n\n"
        f"On every controller {places.config} must then say, before its other sections:\n"
        f"{made.lines['controllers']}\n"
        f"as its list of addresses:\n{made.lines['urls']}"
        + (
            f"and in [store], once {id}'s etcd is there too:\n{made.endpoints}\n"
            if made.endpoints
            else ""
        )
        + "\nSeveral controllers need a store that they share. Restart them one after the other; then each host's\n"
        "agent.toml needs the new line under [controllers], and a restart of its agent."
    )


def _needs(id: str, address: str, paths: list[str]) -> str:
    names = " ".join(shlex.quote(path.removeprefix("/")) for path in paths)
    return (
        f"\nIts configuration also names these files, which {id} needs too, the same or its own:\n"
        f"  tar -C / -cf - {names} | ssh root@{address} 'tar -C / --keep-old-files -xpf -'"
    )
