"""The controller as a daemon: its configuration, its files and sockets, its life."""

import asyncio
import tomllib
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import click

from controller.adding import add
from controller.api.server import Api, serve_api
from controller.config import Config
from controller.dns import Zones
from controller.dnswire import read_keys
from controller.install import renew
from controller.notify.post import notifier
from controller.parts import Controller
from controller.snapshots import Keeper
from controller.store import StoreError
from controller.stores import Embedded, Etcd, opening
from controller.visit import HttpVisitor
from fleet.model import HostId
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from runtime import log
from runtime.certificates import LOOK_S, told
from runtime.config import BadConfig, load
from runtime.probes import Probes
from runtime.supervise import run, serve

MOST_PROBES = 500  # a fleet without edges is a small one


def read_digests(path: Path) -> dict[str, str]:
    """A file of `name = "<sha256 hex of a token>"`; empty where there is no such file. Raises BadConfig."""
    try:
        found = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML: {error}") from error
    for name, digest in found.items():
        if (
            not isinstance(digest, str)
            or len(digest) != 64
            or set(digest) - set("0123456789abcdef")
        ):
            raise BadConfig(f"{path}: {name}: expected the SHA-256 of a token, 64 hex digits")
    return found


async def _main(config: Config) -> None:
    if len(config.all_controllers) > 1 and isinstance(config.store, Embedded):
        raise BadConfig(
            f"controllers = {list(config.controllers)}: each would decide by an embedded store of its own; "
            f'let them share one ([store] kind = "etcd"), or name one: controllers = ["{config.id}"]'
        )
    agents, admins = read_digests(config.agents), read_digests(config.admins)
    tsig = read_keys(config.dns_keys)
    receivers = [(receiver, notifier(receiver)) for receiver in config.notify]
    try:
        config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise BadConfig(
            f"state = {config.state}: {error.strerror or error}; name a folder that this user may make"
        ) from error
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(opening(config.store, config.state))
        except StoreError as error:
            raise BadConfig(str(error)) from error
        visitor = await stack.enter_async_context(HttpVisitor(timeout_s=config.proof_timeout_s))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        exporter = Exporter(CONTROLLER)
        controller = Controller(
            config,
            store,
            exporter=exporter,
            tokens={HostId(host): digest for host, digest in agents.items()},
            admins=admins,
            visitor=visitor,
            probing=Probes(session, most=MOST_PROBES),
            name_servers=lambda cluster: Zones(cluster, tsig, exporter=exporter),
            receivers=receivers,
        )
        keeper = Keeper(
            config.snapshots, config.state, controller.mirror, store, exporter, controller.board
        )
        listens = asyncio.Event()

        async def ready() -> None:
            await listens.wait()
            await controller.knows_the_store()

        await serve(
            ready=ready(),
            services=controller.run(),
            snapshots=keeper.keep(),
            api=serve_api(Api(controller), config.listen, listens),
            certificates=measure_certificate(config, exporter),
        )


async def measure_certificate(config: Config, exporter: Exporter, look_s: float = LOOK_S) -> None:
    """Eternal: when the certificate that is shown to etcd ends; the store takes a renewed one by itself."""
    if not isinstance(config.store, Etcd) or config.store.cert is None:
        await asyncio.Event().wait()
        return

    def tell(ends_at: float) -> None:
        name = "relevo_certificate_expires_timestamp_seconds"
        exporter.set(name, ends_at, certificate="store")

    await told(config.store.cert, tell, look_s)


@click.group("controller", invoke_without_command=True)
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/relevo/controller.toml"),
    show_default=True,
    help="the controller's configuration file",
)
@click.pass_context
def command(context: click.Context, path: Path) -> None:
    """Run a controller of a co-op, or do what a command below says."""
    if context.invoked_subcommand is not None:
        return
    try:
        config = load(path, Config)
    except BadConfig as error:
        click.echo(f"relevo controller: {error}", err=True)
        raise SystemExit(2) from error
    log.configure(debug=config.debug)
    run(_main(config))


command.add_command(add)
command.add_command(renew)
