"""A whole controller over a store in memory, served over real TLS on loopback."""

import asyncio
import hashlib
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Never

import aiohttp
import msgspec

from controller.api.pace import FAILING, Pace
from controller.api.server import Api, listening
from controller.config import Config, Listen
from controller.dns import Zones
from controller.parts import Controller
from controller.ports import Answer
from controller.store import EmbeddedStore
from deploy.demo.certificates import Authority
from fleet.messages import Check, Target
from fleet.model import ControllerId, HostId
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from tests.unit.fleets import GOOD

ADMINS = {"ana": "the-token-of-ana", "beto": "the-token-of-beto"}
AGENTS = {"mx1-web-01": "clara", "mx1-web-09": "rosa", "mx1-edge-01": "pino", "new-host": "nuevo"}
# Without the zone, so that nothing is asked of an address that is not ours.
FLEET = GOOD.partition("zones:")[0]


class Nowhere:
    """A visitor whom nothing answers: the fleet's addresses are not on this machine."""

    async def ask(self, address: str, port: int, *, domain: str, path: str, proof: str) -> Answer:
        return Answer(0, error="unreachable")


class Blind:
    """Probes that see nothing, for the same reason."""

    def follow(self, probes: Mapping[HostId, Target]) -> tuple[str, ...]:
        return ()

    async def keep(self) -> Never:
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")

    def checks(self, now: float) -> dict[HostId, Check]:
        return {}


@dataclass(frozen=True, slots=True)
class Served:
    controller: Controller
    url: str
    ca: Path
    session: aiohttp.ClientSession

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = ADMINS["ana"],
        said: object = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, object]]:
        """The status, and the answer's JSON object."""
        status, _, told = await self.raw(
            method, path, token=token, said=said, body=body, headers=headers
        )
        return status, msgspec.json.decode(told, type=dict[str, object])

    async def raw(
        self,
        method: str,
        path: str,
        *,
        token: str | None = ADMINS["ana"],
        said: object = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        body = msgspec.json.encode(said) if said is not None else body
        sent = None if body is None else BytesIO(body)
        admission = {"Authorization": f"Bearer {token}"} if token is not None else {}
        async with self.session.request(
            method, self.url + path, data=sent, headers={**admission, **(headers or {})}
        ) as response:
            return response.status, response.headers, await response.read()

    async def apply(self, fleet: str = FLEET) -> dict[str, object]:
        status, told = await self.ask("PUT", "/v1/fleet?file=coop.yaml", body=fleet.encode())
        assert status == 200, told
        return told

    async def placed(self, fleet: str = FLEET) -> None:
        """Declare `fleet`, and wait until each of its sites has a host."""
        await self.apply(fleet)
        mirror = self.controller.mirror
        await self.until(lambda: mirror.places.keys() == mirror.fleet.sites.keys() != set())

    async def until(self, true: Callable[[], bool], within_s: float = 5) -> None:
        """Wait, looking again at each change of the mirror and each round, until `true`."""
        changed = self.controller.mirror.changed
        async with asyncio.timeout(within_s):
            while not true():
                await changed.within(changed.count, 0.02)


def digests(tokens: Mapping[str, str]) -> dict[str, str]:
    return {name: hashlib.sha256(token.encode()).hexdigest() for name, token in tokens.items()}


@asynccontextmanager
async def controller_served(
    directory: Path, agents: Mapping[str, str] = AGENTS, failing: Pace = FAILING
) -> AsyncGenerator[Served, None]:
    """A leading controller with nothing declared yet, over a store in memory. `agents`: host -> token.

    `failing`: how often an address may fail to be let in.
    """
    async with (
        EmbeddedStore.open(None) as store,
        served_over(store, directory, agents, failing) as served,
    ):
        yield served


@asynccontextmanager
async def served_over(
    store: EmbeddedStore,
    directory: Path,
    agents: Mapping[str, str] = AGENTS,
    failing: Pace = FAILING,
) -> AsyncGenerator[Served, None]:
    """A controller that leads over `store`; none of its services has ended when the test has."""
    authority = Authority(directory)
    own = authority.issue("controller", ("127.0.0.1",))
    config = Config(id=ControllerId("c1"), state=directory)
    exporter = Exporter(CONTROLLER)
    tls = ssl.create_default_context(cafile=str(authority.path))
    listen = Listen(port=0, certificate=own.certificate, key=own.key)
    controller = Controller(
        config,
        store,
        exporter=exporter,
        tokens={HostId(host): digest for host, digest in digests(agents).items()},
        admins=digests(ADMINS),
        name_servers=lambda cluster: Zones(cluster, {}, exporter=exporter),
        visitor=Nowhere(),
        probing=Blind(),
    )
    async with (
        listening(Api(controller, failing), listen) as port,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(controller.run())
        served = Served(controller, f"https://127.0.0.1:{port}", authority.path, session)
        await served.until(lambda: controller.decides)
        yield served
        assert not running.done(), "the daemon would have ended"
        running.cancel()
