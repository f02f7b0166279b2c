"""The agent's own HTTP: /metrics and /healthz; beyond loopback only with TLS and a token."""

import asyncio
import hmac
from collections.abc import Callable
from typing import Never

from aiohttp import web
from aiohttp.typedefs import Handler

from agent import config
from agent.ports import DriverError
from agent.websocket import is_loopback
from metrics.exporter import CONTENT_TYPE, Exporter
from runtime import log
from runtime.certificates import Shown
from runtime.config import BadConfig, secret

_log = log.logger("serve")


class Door:
    """Who may come in, and how: read from the configuration once. Raises BadConfig."""

    def __init__(self, config: config.Metrics) -> None:
        self.address, self.port = config.address, config.port
        if not is_loopback(config.address) and not config.is_guarded:
            raise BadConfig(
                f"metrics.address = {config.address} is beyond loopback: "
                "set certificate, key and token in [metrics], or use 127.0.0.1"
            )
        if bool(config.certificate) != bool(config.key):
            raise BadConfig("metrics: certificate and key come together; set both or none")
        self._token = secret(config.token).encode() if config.token else None
        self.shown: Shown | None = None
        if config.certificate and config.key:
            try:
                self.shown = Shown(config.certificate, config.key)
            except BadConfig as error:
                raise BadConfig(f"metrics: {error}") from error

    def admits(self, authorization: str) -> bool:
        """Whether this Authorization header opens; compared in constant time."""
        if self._token is None:
            return True
        return hmac.compare_digest(authorization.encode(), b"Bearer " + self._token)


def application(door: Door, exporter: Exporter, unwell: Callable[[float], str]) -> web.Application:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not door.admits(request.headers.get("Authorization", "")):
            return web.Response(status=401, headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(body=exporter.render(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(request: web.Request) -> web.Response:
        reason = unwell(asyncio.get_running_loop().time())
        return web.Response(status=503 if reason else 200, text=f"{reason or 'ok'}\n")

    app = web.Application(middlewares=[guard])
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    return app


async def keep(
    door: Door, exporter: Exporter, unwell: Callable[[float], str], listens: asyncio.Event
) -> Never:
    """Eternal: serve, and set `listens` once we do. Raises DriverError if the address is taken."""
    runner = web.AppRunner(application(door, exporter, unwell), access_log=None)
    await runner.setup()
    try:
        tls = door.shown.context if door.shown else None
        site = web.TCPSite(runner, door.address, door.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise DriverError(f"can't serve metrics: {error.strerror or error}") from error
        _log.info("serving", addresses=[address[:2] for address in runner.addresses])
        listens.set()
        await asyncio.Event().wait()
        raise AssertionError
    finally:
        await runner.cleanup()
