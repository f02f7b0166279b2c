"""Apache's virtual hosts, as the server itself would read them: includes, variables, conditions and macros followed.

Source: Apache HTTP Server 2.4, the documents of core, mod_macro, mod_so, mod_suexec, mpm-itk and mod_vhost_alias;
Debian's apache2 package, README.Debian.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from agent.discover.apache_syntax import (
    Directive,
    Parsed,
    environment,
    filled,
    parse,
    replaced,
    words,
)
from agent.discover.files import Files
from agent.discover.found import Doubt, VirtualHost
from agent.discover.names import redirected_to
from agent.discover.php import SOCKET, socket

MAIN = "/etc/apache2/apache2.conf"
ENVIRONMENT = "envvars"  # beside the main file, read by apache2ctl
STEPS_LIMIT = 2_000_000  # lines after includes: a host of 1,000 sites has some 100,000
NESTED_LIMIT = 16  # includes in includes, macros in macros
FOLDERS_LIMIT = 5  # folders in folders that one Include searches
PATHS_LIMIT = 20_000  # files that one Include names
VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
EVERYTHING = re.compile(r"\^?/?\??(?:\(?\.[*+]\)?\$?)?")
MOD_PHP = re.compile(r"php\d*_module")
# What holds for every request that comes in without TLS, as certbot and people write it before sending it on.
PLAIN = re.compile(
    r"%\{(?:HTTPS|SERVER_NAME|SERVER_PORT|REQUEST_SCHEME)\} .*|%\{REQUEST_URI\} !\S*well-known.*",
    re.S,
)
# Compiled into Debian's server. Source: `apache2 -l`.
COMPILED = (
    "core", "so", "watchdog", "http_core", "log_config", "logio", "version", "unixd", "http", "mod_so",
    "mod_watchdog", "mod_log_config", "mod_logio", "mod_version", "mod_unixd",
)  # fmt: skip
# Sections whose truth only the running server knows: what they hold is taken as true, and said so.
UNTOLD = {"ifversion", "ifdirective", "ifsection"}
# They hold settings of a part of the host; what runs there counts.
PARTS = {
    "directory", "directorymatch", "location", "locationmatch", "files", "filesmatch", "proxy", "proxymatch",
    "if", "elseif", "else", "limit", "limitexcept", "requireall", "requireany", "requirenone",
}  # fmt: skip


@dataclass(slots=True)
class _Host:
    """The main server, or a virtual host, being read."""

    place: str
    listens: tuple[str, ...] = ()
    name: str | None = None
    aliases: list[str] = field(default_factory=list)
    root: str | None = None
    users: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    proxies: list[str] = field(default_factory=list)
    redirect: str | None = None
    runs_nothing: bool = False  # all requests are sent on, wherever to, or PHP is switched off
    logs: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _At:
    """Where the reader is. `part`: inside a section that speaks of a part of the host only. `used`: a macro's use."""

    file: str
    host: _Host
    part: bool = False
    nested: int = 0
    used: str = ""


class Apache:
    """Reads from `main` on. `virtual_hosts` keep the configuration's order; `doubts` tell what was not understood."""

    def __init__(self, files: Files, main: str = MAIN) -> None:
        self._files = files
        self._server_root = main.rpartition("/")[0]
        self._variables = environment(files.read(f"{self._server_root}/{ENVIRONMENT}") or "")
        self._modules = set(COMPILED) | {f"{name}.c" for name in COMPILED}
        self._macros: dict[str, tuple[str, Directive]] = {}
        self._parsed: dict[str, Parsed] = {}
        self._open: list[str] = []
        self._hosts: list[_Host] = []
        self._steps = 0
        self._conditions: list[str] = []  # each RewriteCond that waits for its rule
        self.doubts: list[Doubt] = []
        self._main = _Host(place=main)
        self._include(main, _At(main, self._main), 0)

    @property
    def virtual_hosts(self) -> tuple[VirtualHost, ...]:
        """Those declared; without any, the main server, if it has a name of its own."""
        hosts = self._hosts or ([self._main] if self._main.name else [])
        return tuple(self._finished(host) for host in hosts)

    @property
    def user(self) -> str | None:
        """Whom the server itself runs as."""
        return self._variables.get("APACHE_RUN_USER")

    @property
    def paths(self) -> frozenset[str]:
        """The files that were read."""
        return frozenset(self._parsed)

    @property
    def _has_php(self) -> bool:
        """Whether mod_php is loaded, of whatever version."""
        return any(MOD_PHP.fullmatch(module) for module in self._modules)

    def _finished(self, host: _Host) -> VirtualHost:
        names = ([host.name] if host.name else []) + host.aliases
        return VirtualHost(
            server="apache",
            place=host.place,
            names=tuple(dict.fromkeys(names)),
            listens=host.listens,
            root=host.root or self._main.root,
            users=tuple(dict.fromkeys(host.users)),
            sockets=tuple(dict.fromkeys(host.sockets)),
            proxies=tuple(dict.fromkeys(host.proxies)),
            redirect=host.redirect,
            logs=tuple(dict.fromkeys(host.logs)),
            inside=self._has_php
            and not (host.sockets or host.proxies or host.redirect or host.runs_nothing),
            doubts=tuple(dict.fromkeys(host.doubts)),
        )

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
                self._section(directive, directive.inside, at)
            elif handler := HANDLERS.get(directive.name):
                handler(self, directive, words(self._filled(directive.text)), at)

    def _filled(self, text: str) -> str:
        return filled(text, VARIABLE, lambda found: self._variables.get(found[1], found[0]))

    def _section(self, section: Directive, inside: tuple[Directive, ...], at: _At) -> None:
        said = words(self._filled(section.text))
        name = section.name
        if name == "virtualhost":
            host = _Host(place=at.used or f"{at.file}:{section.line}", listens=said)
            self._hosts.append(host)
            self._walk(inside, replace(at, host=host, part=False))
        elif name in CONDITIONS:
            if self._holds(name, said):
                self._walk(inside, at)
        elif name == "macro" and said:
            self._macros[said[0].lower()] = (at.file, section)
        elif name in PARTS:
            if name in {"proxy", "location"}:
                self._handed(" ".join(said), at)
            self._walk(inside, replace(at, part=True))
        else:
            if name in UNTOLD:
                what = f"whether <{name} {section.text}> holds is not told here: taken as true"
            else:
                what = f"<{name}> is not understood; what it holds is taken as part of what is around it"
            self._doubt(at, section.line, what)
            self._walk(inside, at)

    def _holds(self, kind: str, said: tuple[str, ...]) -> bool:
        word = said[0] if said else ""
        negated = word.startswith("!")
        return CONDITIONS[kind](self, word.removeprefix("!")) != negated

    def _has_module(self, word: str) -> bool:
        return word in self._modules

    def _is_defined(self, word: str) -> bool:
        return word in self._variables

    def _file_exists(self, word: str) -> bool:
        return self._files.exists(self._absolute(word))

    def _absolute(self, path: str) -> str:
        return path if path.startswith("/") else f"{self._server_root}/{path}"

    # What each directive means.

    def _define(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if said:
            self._variables[said[0]] = said[1] if len(said) > 1 else ""

    def _undefine(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if said:
            self._variables.pop(said[0], None)

    def _load_module(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if len(said) < 2:
            return
        file = said[1].rpartition("/")[2].removesuffix(".so")
        short = file.removeprefix("mod_")
        # A module's source file is what <IfModule> may name; an MPM's lacks the prefix.
        # PHP's is named as its identifier is, whatever its file's version.
        named = f"mod_{said[0].removesuffix('_module')}"
        sources = {file, short, f"mod_{short}", short.removeprefix("mpm_"), named}
        self._modules |= {said[0]} | {f"{source}.c" for source in sources}

    def _server_root_is(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if said:
            self._server_root = said[0].rstrip("/")

    def _included(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if not said:
            return
        if "${" in said[0]:
            self._doubt(at, d.line, f"{said[0]} names a variable that is defined nowhere")
            return
        paths = self._paths(self._absolute(said[0]))
        if not paths and d.name == "include":
            self._doubt(at, d.line, f"{said[0]} names no file")
        for path in paths:
            self._include(path, at, d.line)

    def _paths(self, pattern: str, nested: int = 0) -> list[str]:
        """Files, folders searched whole."""
        found: list[str] = []
        for path in self._files.glob(pattern):
            if len(found) >= PATHS_LIMIT:
                break
            if not self._files.is_folder(path):
                found.append(path)
            elif nested < FOLDERS_LIMIT:
                found += self._paths(f"{path.rstrip('/')}/*", nested + 1)
        return found

    def _include(self, path: str, at: _At, line: int) -> None:
        if path in self._open or at.nested == NESTED_LIMIT:
            self._doubt(at, line, f"{path} includes itself, or is included too deep: not followed")
            return
        if path not in self._parsed:
            text = self._files.read(path)
            self._parsed[path] = parsed = parse(text or "")
            for number, trouble in parsed.troubles:
                self.doubts.append(Doubt(about=f"{path}:{number}", what=trouble))
        self._open.append(path)
        self._walk(self._parsed[path].directives, replace(at, file=path, nested=at.nested + 1))
        self._open.pop()

    def _use(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if not said or said[0].lower() not in self._macros:
            self._doubt(
                at, d.line, f"uses the macro {d.text.partition(' ')[0]}, which is defined nowhere"
            )
            return
        if at.nested == NESTED_LIMIT:
            self._doubt(at, d.line, "macros are nested too deep: not followed")
            return
        file, macro = self._macros[said[0].lower()]
        names = words(macro.text)[1:]
        values = dict(zip(names, said[1:], strict=False))
        # The longest first, so that $name does not eat the beginning of $names.
        pattern = "|".join(re.escape(name) for name in sorted(values, key=len, reverse=True))
        inside = macro.inside or ()
        if pattern:
            inside = replaced(inside, re.compile(pattern), values)
        used = at.used or f"{at.file}:{d.line}"
        self._walk(inside, replace(at, file=file, nested=at.nested + 1, used=used))

    def _server_name(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if said:
            at.host.name = said[0]

    def _server_alias(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        at.host.aliases += said

    def _document_root(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if not said:
            return
        if "${" in said[0]:
            at.host.doubts.append(
                f"its DocumentRoot {said[0]} names a variable that is defined nowhere"
            )
            return
        at.host.root = self._absolute(said[0]).rstrip("/") or "/"

    def _virtual_root(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        at.host.doubts.append(
            f"{d.name} {d.text}: it serves every name that has a folder there; "
            "write a site for each of those"
        )

    def _user(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        if said and at.host is not self._main:
            at.host.users.append(said[0])

    def _user_expression(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        at.host.doubts.append(f"its user is an expression ({d.text}): name its users")

    def _handler(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        self._handed(" ".join(said), at)

    def _handed(self, text: str, at: _At) -> None:
        """Note where PHP is handed to."""
        if at.host is self._main:
            return
        at.host.sockets += [socket(found) for found in SOCKET.findall(text)]

    def _log(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        # Requests of a part of it (env=, expr=) are not all; a pipe, or a log server, is no file.
        if said and not any(word.startswith(("env=", "expr=")) for word in said[1:]):
            path = self._absolute(said[0])
            if said[0][:1] not in "|$" and ":" not in said[0] and "${" not in path:
                at.host.logs.append(path)

    def _proxy_pass(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        text = " ".join(said)
        self._handed(text, at)
        at.host.proxies += [
            word for word in said if re.match(r"(?:https?|wss?|ajp|uwsgi|scgi)://", word)
        ]

    def _redirect(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        pattern, url = (said[-2], said[-1]) if len(said) > 1 else ("", "")
        if not at.part and EVERYTHING.fullmatch(pattern):
            at.host.redirect = at.host.redirect or redirected_to(url)

    def _rewrite_condition(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        self._conditions.append(" ".join(said))

    def _rewrite_rule(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        conditions, self._conditions = self._conditions, []
        if len(said) < 2 or at.part or not EVERYTHING.fullmatch(said[0]):
            return
        if not conditions:
            at.host.redirect = at.host.redirect or redirected_to(said[1])
        secure = any(listens.endswith(":443") for listens in at.host.listens)
        if said[1].startswith("https://") and (
            not conditions or (not secure and all(map(PLAIN.fullmatch, conditions)))
        ):
            at.host.runs_nothing = True

    def _php_flag(self, d: Directive, said: tuple[str, ...], at: _At) -> None:
        """Source: PHP manual, "How to change configuration settings": mod_php's `engine`."""
        name, value = (*said, "", "")[:2]
        if name == "engine" and not at.part:
            at.host.runs_nothing = value.lower() in {"off", "0", "false"}


CONDITIONS: dict[str, Callable[[Apache, str], bool]] = {
    "ifmodule": Apache._has_module,
    "ifdefine": Apache._is_defined,
    "iffile": Apache._file_exists,
}
HANDLERS: dict[str, Callable[[Apache, Directive, tuple[str, ...], _At], None]] = {
    "define": Apache._define,
    "undefine": Apache._undefine,
    "loadmodule": Apache._load_module,
    "serverroot": Apache._server_root_is,
    "include": Apache._included,
    "includeoptional": Apache._included,
    "use": Apache._use,
    "servername": Apache._server_name,
    "serveralias": Apache._server_alias,
    "documentroot": Apache._document_root,
    "virtualdocumentroot": Apache._virtual_root,
    "virtualdocumentrootip": Apache._virtual_root,
    "suexecusergroup": Apache._user,
    "assignuserid": Apache._user,
    "assignuseridexpr": Apache._user_expression,
    "sethandler": Apache._handler,
    "addhandler": Apache._handler,
    "fastcgiexternalserver": Apache._handler,
    "customlog": Apache._log,
    "transferlog": Apache._log,
    "proxypass": Apache._proxy_pass,
    "proxypassmatch": Apache._proxy_pass,
    "redirect": Apache._redirect,
    "redirectpermanent": Apache._redirect,
    "redirecttemp": Apache._redirect,
    "redirectmatch": Apache._redirect,
    "rewritecond": Apache._rewrite_condition,
    "rewriterule": Apache._rewrite_rule,
    "php_admin_flag": Apache._php_flag,
    "php_flag": Apache._php_flag,
    "php_admin_value": Apache._php_flag,
    "php_value": Apache._php_flag,
}
