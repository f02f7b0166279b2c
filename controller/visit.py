"""A visitor made of aiohttp: one request, as a browser sends it, and what came back."""

from types import TracebackType

import aiohttp

from controller.ports import Answer


class HttpVisitor:
    """Asks over plain HTTP with a new connection each time: a kept one could still reach the old host."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "HttpVisitor":
        connector = aiohttp.TCPConnector(force_close=True, limit=64)
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(self, address: str, port: int, *, domain: str, path: str, proof: str) -> Answer:
        assert self._session is not None
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._session.get(
                f"http://{host}:{port}{path}",
                headers={"Host": domain, "x-relevo-proof": proof},
                allow_redirects=False,
            ) as response:
                return Answer(response.status, response.headers.get("x-relevo-host"))
        except (aiohttp.ClientError, OSError) as error:
            return Answer(0, error=f"{type(error).__name__}: {error}")
