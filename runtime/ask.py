"""One question to a web server, as HAProxy asks it: does it answer in time, and not with a server error?"""

import asyncio

import aiohttp

from fleet.messages import Target

# Each check proves that the server accepts; a kept connection proves that it once did.
NO_KEEPING = {"Connection": "close"}


async def ask(session: aiohttp.ClientSession, url: str, timeout_s: float) -> str:
    """GET `url`; what is wrong with the answer, empty if nothing."""
    try:
        async with (
            asyncio.timeout(timeout_s),
            session.get(url, headers=NO_KEEPING, allow_redirects=False) as answer,
        ):
            return "" if 200 <= answer.status < 500 else f"HTTP {answer.status}"
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except (OSError, aiohttp.ClientError, ValueError) as error:  # ValueError: not a URL
        return f"{type(error).__name__}: {error}"[:200]


def url_of(target: Target) -> str:
    """Where to ask a host. IPv6 literals stand in brackets (RFC 3986 §3.2.2)."""
    address = f"[{target.address}]" if ":" in target.address else target.address
    return f"http://{address}:{target.port}/{target.check.removeprefix('/')}"
