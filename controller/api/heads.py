"""A head that is too long, or none of HTTP: refused before it becomes a request, and told as every other problem."""

from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from controller.api.problems import problem

# By its limit aiohttp's finding tells a line (the address) from a header, and by nothing else: they must differ.
ADDRESS_BYTES, HEADER_BYTES, HEADERS = 8190, 8192, 128
LIMITS: dict[str, Any] = {
    "max_line_size": ADDRESS_BYTES,
    "max_field_size": HEADER_BYTES,
    "max_headers": HEADERS,
}
TOO_MANY = "Too many headers"


class Reader(web.RequestHandler):
    """aiohttp's protocol, whose own errors are plain text."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no bug of ours is told, and not logged: anybody can send it. The connection ends with it."""
        if not isinstance(exc, BadHttpMessage) or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        response = _told(exc)
        response.force_close()
        return response


def _told(error: BadHttpMessage) -> web.Response:
    if isinstance(error, LineTooLong):
        if error.args[1] == ADDRESS_BYTES:
            return problem("address-too-long", f"An address has {ADDRESS_BYTES} bytes at most.")
        return problem("headers-too-large", f"A header has {HEADER_BYTES} bytes at most.")
    if TOO_MANY in error.message:
        return problem("headers-too-large", f"A request has {HEADERS} headers at most.")
    return problem("bad-request", "This is no request of HTTP/1.1.", remedy="Send a whole one.")


def reading(server: web.Server) -> Reader:
    """The protocol for one more connection of `server`."""
    protocol = server()
    protocol.__class__ = Reader  # a server makes its own kind only, with what it was told
    assert isinstance(protocol, Reader)
    return protocol
