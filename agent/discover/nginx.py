"""nginx's servers, as nginx itself would read them: includes followed, what `http` sets inherited.

Source: nginx documentation, ngx_http_core_module, ngx_http_rewrite_module, "Server names".
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agent.discover.files import Files
from agent.discover.found import Doubt, VirtualHost
from agent.discover.names import redirected_to
from agent.discover.nginx_syntax import Directive, Parsed, parse
from agent.discover.php import socket

MAIN = "/etc/nginx/nginx.conf"
STEPS_LIMIT = 2_000_000  # directives after includes: a host of 1,000 sites has some 100,000
NESTED_LIMIT = 16
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
REDIRECTS = {"301", "302", "303", "307", "308"}
EVERYTHING = {"^", "^/", ".*", "^.*", "^(.*)", "^(.*)$", "^.*$", "^/(.*)", "^/(.*)$", "(.*)"}


@dataclass(slots=True)
class _Server:
    """One server block being read, or `http` around them all."""

    place: str
    names: list[str] = field(default_factory=list)
    listens: list[str] = field(default_factory=list)
    root: str | None = None
    front_root: str | None = None  # of `location /`
    sockets: list[str] = field(default_factory=list)
    proxies: list[str] = field(default_factory=list)
    redirect: str | None = None
    logs: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _At:
    """Where the reader is. `part`: what of the server is spoken of; "" for the whole, "/" for its front."""

    file: str
    server: _Server
    part: str = ""
    nested: int = 0


class Nginx:
    """Reads from `main` on. `virtual_hosts` keep the configuration's order; `doubts` tell what was not understood."""

    def __init__(self, files: Files, main: str = MAIN) -> None:
        self._files = files
        self._prefix = main.rpartition("/")[0]
        self._parsed: dict[str, Parsed] = {}
        self._open: list[str] = []
        self._servers: list[_Server] = []
        self._upstreams: dict[str, list[str]] = {}
        self._steps = 0
        self.user: str | None = None
        self.doubts: list[Doubt] = []
        self._http = _Server(place=main)
        self._file(main, _At(main, self._http), 0)

    @property
    def virtual_hosts(self) -> tuple[VirtualHost, ...]:
        return tuple(self._finished(server) for server in self._servers)

    @property
    def paths(self) -> frozenset[str]:
        """The files that were read."""
        return frozenset(self._parsed)

    def _finished(self, server: _Server) -> VirtualHost:
        root = server.front_root or server.root or self._http.root
        variables = self._http.variables | server.variables
        if root and "$" in root:
            filled = VARIABLE.sub(lambda v: variables.get(v[1] or v[2], v[0]), root)
            if "$" in filled:
                server.doubts.append(
                    f"its root {root} is filled in for each request: it may serve many sites; write one for each"
                )
            root = None if "$" in filled else filled
        return VirtualHost(
            server="nginx",
            place=server.place,
            names=tuple(dict.fromkeys(server.names)),
            listens=tuple(server.listens) or ("80",),
            root=self._absolute(root).rstrip("/") or "/" if root else None,
            sockets=tuple(dict.fromkeys(s for said in server.sockets for s in self._sockets(said))),
            proxies=tuple(dict.fromkeys(server.proxies)),
            redirect=server.redirect,
            logs=tuple(dict.fromkeys(server.logs)),
            doubts=tuple(dict.fromkeys(server.doubts)),
        )

    def _sockets(self, said: str) -> list[str]:
        return [socket(s) for s in self._upstreams.get(said, [said]) if "$" not in s]

    def _absolute(self, path: str) -> str:
        # Debian's nginx is built with /usr/share/nginx as its prefix. Source: `nginx -V`.
        return path if path.startswith("/") else f"/usr/share/nginx/{path}"

    def _doubt(self, at: _At, line: int, what: str) -> None:
        self.doubts.append(Doubt(about=f"{at.file}:{line}", what=what))

    def _walk(self, directives: Iterable[Directive], at: _At) -> None:
        for directive in directives:
            self._steps += 1
            if self._steps > STEPS_LIMIT:
                if self._steps == STEPS_LIMIT + 1:
                    self._doubt(at, directive.line, f"more than {STEPS_LIMIT} lines: not read on")
                return
            if directive.inside is not None:
                self._block(directive, directive.inside, at)
            elif directive.args and (handler := HANDLERS.get(directive.name)):
                handler(self, directive, directive.args, at)

    def _block(self, block: Directive, inside: tuple[Directive, ...], at: _At) -> None:
        match block.name:
            case "server":
                server = _Server(place=f"{at.file}:{block.line}")
                self._servers.append(server)
                self._walk(inside, _At(at.file, server, nested=at.nested))
            case "upstream" if block.args:
                servers = [d.args[0] for d in inside if d.name == "server" and d.args]
                self._upstreams[block.args[0]] = servers
            case "location":
                part = at.part + " ".join(block.args)
                self._walk(inside, _At(at.file, at.server, part or "?", at.nested))
            case "if" | "limit_except":
                self._walk(inside, _At(at.file, at.server, at.part + "?", at.nested))
            case "http":
                self._walk(inside, at)
            # Others - map, geo, types, events, stream, mail - declare no site.

    # What each directive means.

    def _include(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        pattern = args[0] if args[0].startswith("/") else f"{self._prefix}/{args[0]}"
        paths = self._files.glob(pattern)
        if not paths and not {"*", "?", "["} & set(pattern):
            self._doubt(at, d.line, f"{args[0]} is not there")
        for path in paths:
            self._file(path, at, d.line)

    def _file(self, path: str, at: _At, line: int) -> None:
        if path in self._open or at.nested == NESTED_LIMIT:
            self._doubt(at, line, f"{path} includes itself, or is included too deep: not followed")
            return
        if path not in self._parsed:
            self._parsed[path] = parsed = parse(self._files.read(path) or "")
            for number, trouble in parsed.troubles:
                self.doubts.append(Doubt(about=f"{path}:{number}", what=trouble))
        self._open.append(path)
        self._walk(self._parsed[path].directives, _At(path, at.server, at.part, at.nested + 1))
        self._open.pop()

    def _user(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        self.user = args[0]

    def _server_name(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        for name in args:
            # `.example.org` stands for the name and all below it.
            at.server.names += [name[1:], f"*{name}"] if name.startswith(".") else [name]

    def _listen(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        at.server.listens.append(args[0])

    def _root(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        if at.part == "":
            at.server.root = args[0]
        elif at.part == "/":
            at.server.front_root = args[0]

    def _set(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        # Set twice, or on a condition, it is whatever the request makes of it.
        name = args[0].removeprefix("$")
        if at.part == "" and len(args) > 1 and name not in at.server.variables:
            at.server.variables[name] = args[1]
        else:
            at.server.variables.pop(name, None)

    def _php(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        at.server.sockets.append(args[0].removeprefix("unix:"))

    def _proxy(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        at.server.proxies.append(args[0])

    def _log(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        # "off", a log server, a name of each request's own, and requests of some kind only are no log of it all.
        partial = any(word.startswith("if=") for word in args[1:])
        if at.part == "" and args[0].startswith("/") and "$" not in args[0] and not partial:
            at.server.logs.append(args[0])

    def _return(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        url = args[1] if args[0] in REDIRECTS and len(args) > 1 else args[0]
        if at.part in {"", "/"}:
            at.server.redirect = at.server.redirect or redirected_to(url)

    def _rewrite(self, d: Directive, args: tuple[str, ...], at: _At) -> None:
        if at.part in {"", "/"} and len(args) > 1 and args[0] in EVERYTHING:
            at.server.redirect = at.server.redirect or redirected_to(args[1])


HANDLERS: dict[str, Callable[[Nginx, Directive, tuple[str, ...], _At], None]] = {
    "include": Nginx._include,
    "user": Nginx._user,
    "server_name": Nginx._server_name,
    "listen": Nginx._listen,
    "root": Nginx._root,
    "set": Nginx._set,
    "fastcgi_pass": Nginx._php,
    "access_log": Nginx._log,
    "proxy_pass": Nginx._proxy,
    "uwsgi_pass": Nginx._proxy,
    "return": Nginx._return,
    "rewrite": Nginx._rewrite,
}
