"""Changes are made by the controller that leads: any other passes them on to it, as they came."""

import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Middleware

from controller.api.answers import body
from controller.api.auth import Handler
from controller.commands import NotLeading
from controller.store import Ambiguous
from controller.web.dashboard import PASS_ON, PassOn, is_ours

if TYPE_CHECKING:
    from controller.parts import Controller

PASSED_ON = "Relevo-Passed-On"  # by whom; what was passed on once is not passed on again
READS = frozenset({"GET", "HEAD", "OPTIONS"})
# Of one connection only; aiohttp sets its own. Source: RFC 9110 §7.6.1
HOP = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)  # fmt: skip
CONNECT_S, ANSWER_S = 2.0, 60.0
BODY_BYTES = (
    16 << 20
)  # the largest that any route takes; the leader refuses what is too large for its own


@asynccontextmanager
async def passing_on(controller: "Controller", ca: Path | None) -> AsyncGenerator[Middleware, None]:
    """A middleware that passes changes on while another controller leads; `ca` signed its certificate."""
    tls = ssl.create_default_context(cafile=ca) if ca else True
    timeout = aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout, auto_decompress=False
    ) as session:

        @web.middleware
        async def forwarding(request: web.Request, handler: Handler) -> web.StreamResponse:
            url = _leader(controller)
            if request.method in READS or url is None or PASSED_ON in request.headers:
                return await handler(request)
            if is_ours(request):  # a browser is logged in here: the dashboard speaks for it there
                ask = partial(_passed, session, request, url, controller.config.id)
                request[PASS_ON] = PassOn(ask)
                return await handler(request)
            return await _passed(session, request, url, controller.config.id)

        yield forwarding


def _leader(controller: "Controller") -> str | None:
    """Where the controller is that leads, by the store; None: nobody does, or this one."""
    leader = controller.mirror.leader
    if leader is None or leader == controller.config.id or controller.leader.leadership:
        return None
    return controller.config.urls.get(leader)


async def _passed(
    session: aiohttp.ClientSession,
    request: web.Request,
    url: str,
    by: str,
    spoken: Mapping[str, str] | None = None,
    said: bytes | None = None,
) -> web.Response:
    """`spoken` and `said`: headers and a body in place of those that came.

    Raises NotLeading where the leader can't be reached, Ambiguous where it does not answer.
    """
    came = request.headers if spoken is None else spoken
    headers = {name: value for name, value in came.items() if name.lower() not in HOP}
    try:
        async with session.request(
            request.method,
            url + request.raw_path,
            data=await body(request, BODY_BYTES) if said is None else said,
            headers={**headers, PASSED_ON: by},
            allow_redirects=False,
        ) as answer:
            kept = {n: v for n, v in answer.headers.items() if n.lower() not in HOP}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise NotLeading from error
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Ambiguous(f"the controller that leads did not answer: {error!r}") from error
