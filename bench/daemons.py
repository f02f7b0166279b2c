"""A real controller as a process of its own on loopback, for the benchmarks that need nothing else."""

import asyncio
import hashlib
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil

from deploy.demo.certificates import Authority

TOKEN = "bench-token-bench-token-bench-token"
START_S = 20.0


class Daemon:
    """One running controller: its address, and its process for measuring."""

    def __init__(self, url: str, session: aiohttp.ClientSession, pid: int) -> None:
        self.url, self._session = url, session
        self.process = psutil.Process(pid)

    async def until_ready(self, *, every_s: float = 0.05) -> None:
        async with asyncio.timeout(START_S):
            while True:
                try:
                    async with self._session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(every_s)

    async def put_fleet(self, text: str) -> None:
        """Apply a fleet file. Raises RuntimeError with the answer of a controller that refuses."""
        await self._send("PUT", "/v1/fleet?reason=bench&much=true", data=text.encode())

    async def arm_all(self) -> None:
        body = {"scope": "all", "arming": "arm", "reason": "bench"}
        await self._send("PUT", "/v1/failover/arming", json=body)

    async def get(self, path: str) -> dict[str, object]:
        async with self._session.get(self.url + path, headers=_BEARER) as answer:
            found: dict[str, object] = await answer.json()
            return found

    async def _send(self, method: str, path: str, **body: object) -> None:
        async with self._session.request(
            method,
            self.url + path,
            headers=_BEARER,
            **body,  # type: ignore[arg-type]
        ) as answer:
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")


_BEARER = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def controller(
    home: Path,
    *,
    agents: Mapping[str, str] | None = None,
    policy: str = "",
    authority: Authority | None = None,
    store: str = "",
) -> AsyncIterator[Daemon]:
    """A controller over `home`, which keeps its store between runs; `agents`: host id -> token.

    With an `authority` it serves by TLS, as in production. `store`: its [store] table, else it is the embedded one.
    """
    port = _free_port()
    config = home / "controller.toml"
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    (home / "admins.toml").write_text(f'bench = "{digest}"\n')
    (home / "agents.toml").write_text(
        "".join(
            f'"{host}" = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
            for host, token in (agents or {}).items()
        )
    )
    config.write_text(
        f'id = "c1"\nagents = "{home}/agents.toml"\nadmins = "{home}/admins.toml"\n'
        f'state = "{home}/state"\n'
        f'listen = {{ address = "127.0.0.1", port = {port}{_tls(authority)} }}\n'
        f"[policy]\n{policy}\n{store}\n"
    )
    relevo = Path(sys.executable).parent / "relevo"
    with (home / "controller.log").open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            str(relevo), "controller", "--config", str(config), stdout=out, stderr=out
        )
    try:
        trust = ssl.create_default_context(cafile=authority.path) if authority else True
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(connector=connector) as session:
            scheme = "https" if authority else "http"
            yield Daemon(f"{scheme}://127.0.0.1:{port}", session, process.pid)
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(10):
                await process.wait()


def _tls(authority: Authority | None) -> str:
    if authority is None:
        return ""
    issued = authority.issue("c1", ("127.0.0.1",))
    return f', certificate = "{issued.certificate}", key = "{issued.key}"'


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
