"""Templates, static files and the headers that every answer carries."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import aiohttp_jinja2
import jinja2
from aiohttp import web

from fleet.model import Host, HostId

HERE = Path(__file__).parent
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
YEAR_S = 365 * 86_400

# Nothing but our own files, and no page of ours within another's. Source: W3C CSP Level 3.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


@dataclass(frozen=True, slots=True)
class File:
    """A static file: its content, and the version that its address carries."""

    content: bytes
    media: str
    version: str


@cache
def files() -> Mapping[str, File]:
    """Every static file by name; small enough to be kept."""
    found = {}
    for path in sorted((HERE / "static").iterdir()):
        if path.suffix in TYPES:
            content = path.read_bytes()
            version = hashlib.sha256(content).hexdigest()[:12]
            found[path.name] = File(content, TYPES[path.suffix], version)
    return found


def static(name: str) -> str:
    """The address of a static file; a new content has a new one."""
    return f"/ui/static/{name}?v={files()[name].version}"


async def serve_static(request: web.Request) -> web.Response:
    if (file := files().get(request.match_info["name"])) is None:
        raise web.HTTPNotFound
    fresh = request.query.get("v") == file.version
    response = web.Response(body=file.content, content_type=file.media, charset="utf-8")
    response.headers["Cache-Control"] = f"public, max-age={YEAR_S if fresh else 60}, immutable"
    response.enable_compression()
    return response


def set_up(app: web.Application) -> jinja2.Environment:
    """Whatever a template prints is escaped; a name that it does not know is an error."""
    environment = aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static
    environment.filters["short"] = short
    environment.filters["sum_of"] = sum_of
    return environment


def short(host: str, location: str) -> str:
    """A host's name within its location: mx1-web-07 is web-07 there."""
    return host.removeprefix(f"{location}-") or host


def sum_of(hosts: Iterable[Host], counts: Counter[HostId]) -> int:
    return sum(counts[host.id] for host in hosts)


def page(
    request: web.Request, template: str, values: Mapping[str, object], *, status: int = 200
) -> web.Response:
    response = aiohttp_jinja2.render_template(f"{template}.html", request, values, status=status)
    # Kept nowhere: after leaving, the browser's way back shows nothing.
    response.headers["Cache-Control"] = "no-store"
    response.enable_compression()
    return response


def see_other(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})
