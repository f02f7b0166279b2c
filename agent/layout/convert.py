"""Plans how a pool moves into a unit of its own, and back, so that a request always finds a listener. Pure.

The new master listens before the old one is left, the name changes hands by one rename(2), and what waits at the old
listener is served out. Planned from what is, so that a plan that was stopped is gone on with by planning again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.discover.php import GIVEN
from agent.discover.php import socket as written
from agent.layout import pools
from agent.layout.pools import Cut
from agent.layout.steps import (
    Ask,
    Drain,
    Gone,
    Guard,
    Judge,
    Link,
    Point,
    PutAside,
    Step,
    Systemd,
    Unguard,
    Write,
)

PATH_MAX = 107  # of a Unix socket. Source: unix(7)
SECRET = 0o600
UNIX_ONLY = ("listen.acl_users", "listen.acl_groups", "pm.status_listen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things are written."""

    conf: Path = Path("/etc/relevo/php")
    units: Path = Path("/etc/systemd/system")
    tmpfiles: Path = Path("/etc/tmpfiles.d")
    run: Path = Path("/run/relevo-php")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion has to know to be gone on with, and undone: kept beside the site's configuration.

    `section`: the pool as it was. `name`: where the web server asks. `bound`: where the shared master's pool listens,
    as its file writes it.
    """

    site: str
    pool: str
    slice: str
    unit: str
    program: str
    main: str
    file: str
    section: str
    name: str
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """How the name stands now. `ours`: it leads to the site's own unit; `link`: by a symbolic link.

    `at_boot`: systemd makes it so at the next start of the machine.
    """

    ours: bool = False
    link: bool = False
    guarded: bool = False
    at_boot: bool = False
    listening: frozenset[str] = field(
        default_factory=frozenset
    )  # bound names, as php.socket writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The shared master. `text` of its main file; `siblings`: its other pools, by name."""

    text: str
    siblings: tuple[str, ...] = ()
    is_running: bool = True

    @property
    def patience_s(self) -> int:
        """How long a reload lets requests under way go on; 0: it cuts them off."""
        return pools.seconds(pools.globals_of(self.text).get("process_control_timeout", "0"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`steps` in order; `notes` say what the person who agrees should know."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


class CantMove(Exception):
    """What stands in the way: lines of "field: value: remedy"."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


def refuse_odd(record: Record, shared: Shared, *, same_disk: bool) -> None:
    """Raises CantMove with everything that stands in the way of moving this pool out."""
    if reasons := tuple(_odd(record, shared, same_disk)):
        raise CantMove(*reasons)


def _odd(record: Record, shared: Shared, same_disk: bool) -> Iterator[str]:
    said, where = pools.settings(record.section), f"{record.file} [{record.pool}]"
    listen = said.get("listen", "")
    better = f"let it listen at /run/php/{record.site}.sock"
    if not listen.startswith("/"):
        yield f"{where} listen: {listen or 'not set'}: a port can't be handed over; {better}"
    elif not same_disk:
        yield f"{where} listen: {listen}: not on the file system of /run; {better}"
    if len(_given(record)) > PATH_MAX:
        yield f"{where} listen: {listen}: too long a name; {PATH_MAX - len(GIVEN)} characters at most"
    for key in UNIX_ONLY:
        if key in said:
            remedy = f"take it out and reload {record.unit}"
            yield f"{where} {key}: {said[key]}: systemd's socket has no such thing; {remedy}"
    for line in pools.strange_lines(record.section):
        yield f"{where}: {line}: can't be moved with the pool; write what it stands for"
    if "user" not in said:
        yield f"{where} user: not set: name the user whom its PHP runs as"
    if not shared.siblings:
        yield (
            f"{record.main}: {record.pool}: the only pool of {record.unit}, which is the site's own then; "
            f"give that unit Slice={record.slice}"
        )
    if not shared.is_running:
        yield f"{record.unit}: not running: start it, so that its visitors are served meanwhile"


def convert(
    record: Record,
    shared: Shared,
    sockets: Sockets,
    remains: Cut | None,
    templates: Mapping[str, str],
    places: Places,
) -> Plan:
    """From where things stand to a unit of its own. `remains`: the pool as it still is in the shared master's files."""
    return Plan(
        steps=(
            *(() if sockets.ours else _take(record, shared, templates, places)),
            *_guard(record, sockets),
            *(() if remains is None and sockets.at_boot else _release(record, remains, places)),
            *_settle(record, shared, sockets, remains, places),
        ),
        notes=tuple(_convert_notes(record, shared, sockets, remains)),
    )


def _take(
    record: Record, shared: Shared, templates: Mapping[str, str], places: Places
) -> Iterator[Step]:
    """The site's own unit serves beside the shared master, then under its name."""
    own = pools.own(record.section, record.site, _given(record), pools.globals_of(shared.text))
    kept = msgspec.json.format(msgspec.json.encode(record)).decode()
    yield Write(_kept(record, places), f"{kept}\n", SECRET)
    yield Write(_conf(record, places), own, SECRET)
    for name, text in templates.items():
        yield Write(places.units / name, text)
    yield Write(_drop_in(record, "service", places), _service(record, places))
    yield Write(_drop_in(record, "socket", places), _socket(record, named=False))
    yield Systemd("daemon-reload")
    yield Judge(record.program, str(_conf(record, places)))
    yield Systemd("start", _units(record))
    yield Ask(_own_socket(record, places))
    if _is_bound_here(record):
        yield Link(Path(record.name), _own_socket(record, places))
    else:
        yield Point(Path(record.name), _own_socket(record, places))


def _guard(record: Record, sockets: Sockets) -> Iterator[Step]:
    """Where the shared pool listens under another name, that is all that its master removes."""
    if _is_bound_here(record) and not sockets.guarded and not _settled(sockets):
        yield Guard(Path(record.name))
    if not sockets.ours:
        yield Ask(Path(record.name))


def _release(record: Record, remains: Cut | None, places: Places) -> Iterator[Step]:
    """The shared master's pool serves its last request, and is not there at its next start.

    At no boot may both have the name: the shared master would not start at all. So the pool goes first, and the unit is
    enabled in the next step.
    """
    yield Drain(written(record.bound))
    yield Write(_drop_in(record, "socket", places), _socket(record, named=True))
    yield Systemd("daemon-reload")
    if remains is not None and remains.is_all:
        yield PutAside(Path(record.file))
    elif remains is not None:
        yield Write(Path(record.file), remains.rest)
    yield Systemd("enable", (_units(record)[0],))
    if not _is_bound_here(record):
        yield PutAside(_tmpfile(record, places))


def _settle(
    record: Record, shared: Shared, sockets: Sockets, remains: Cut | None, places: Places
) -> Iterator[Step]:
    """Nobody is left who would remove the name: it becomes what systemd makes it at each boot."""
    if _settled(sockets):
        return
    if _holds(record, sockets) or remains is not None:
        if not shared.patience_s or not shared.siblings:
            return
        yield Judge(record.program, record.main)
        yield Systemd("reload", (record.unit,))
        yield Gone(written(record.bound))
        yield Systemd("is-active", (record.unit,))
    if _is_bound_here(record):
        yield Unguard(Path(record.name))
        yield Point(Path(record.name), _own_socket(record, places))
        yield Ask(Path(record.name))


def _settled(sockets: Sockets) -> bool:
    return sockets.ours and sockets.link and not sockets.guarded


def _holds(record: Record, sockets: Sockets) -> bool:
    """Whether the shared master still has the pool in memory."""
    return written(record.bound) in sockets.listening


def _convert_notes(
    record: Record, shared: Shared, sockets: Sockets, remains: Cut | None
) -> Iterator[str]:
    if not sockets.ours:
        yield f"{record.site} gets a PHP of its own in {record.slice}; its opcode cache begins empty."
    if not shared.patience_s and (remains is not None or _holds(record, sockets)):
        yield (
            f"{record.main} process_control_timeout: 0: a reload would cut off requests of {len(shared.siblings)} "
            f"other pools, so there is none: {record.unit} keeps the old pool in memory, idle, until it is next "
            "restarted; the guard of the name stays until then. Set process_control_timeout = 30 there."
        )


def undo(
    record: Record,
    shared: Shared,
    sockets: Sockets,
    file: str | None,
    places: Places,
    *,
    accept_cut: bool,
) -> Plan:
    """Back into the shared master. `file`: what the pool's file says now; None: it is not there. Raises CantMove."""
    if not shared.is_running:
        raise CantMove(f"{record.unit}: not running: start it first")
    alias = alias_of(record.name)
    if len(alias) > PATH_MAX:
        raise CantMove(f"listen: {alias}: too long a name")
    steps: list[Step] = []
    if written(alias) not in sockets.listening:
        if not shared.patience_s and not accept_cut:
            raise CantMove(
                f"{record.main} process_control_timeout: 0: {record.unit} has to be reloaded, which would cut off "
                "requests of its other pools; set it to 30 and restart the unit when few visitors are there, or "
                "accept that now: --accept-cut"
            )
        steps += _bring_back(record, file, alias, places)
    steps += _hand_back(record, sockets, alias, places)
    note = f"The pool listens at {alias} then; {record.name} is a link to it, made at each boot."
    return Plan(steps=tuple(steps), notes=(note,))


def _bring_back(record: Record, file: str | None, alias: str, places: Places) -> Iterator[Step]:
    """The shared master serves the pool again, beside the unit that still has the name."""
    section = pools.listening(record.section, alias)
    found = pools.cut(file or "", record.pool)
    kept = found.rest if found else file or ""
    text = f"{kept.rstrip()}\n\n{section}" if kept.strip() else section
    yield Write(Path(record.file), text)
    yield Write(_tmpfile(record, places), f"L+ {record.name} - - - - {alias}\n")
    yield Judge(record.program, record.main)
    yield Systemd("reload", (record.unit,))
    yield Ask(Path(alias))
    yield Systemd("is-active", (record.unit,))


def _hand_back(record: Record, sockets: Sockets, alias: str, places: Places) -> Iterator[Step]:
    """The name goes back, then the unit goes."""
    # It would take the name with it when it is stopped.
    yield Write(_drop_in(record, "socket", places), _socket(record, named=False))
    yield Systemd("daemon-reload")
    if sockets.guarded:
        yield Unguard(Path(record.name))
    yield Point(Path(record.name), Path(alias))
    yield Ask(Path(record.name))
    yield Drain(written(str(_own_socket(record, places))))
    yield Systemd("disable", (_units(record)[0],))
    yield Systemd("stop", _units(record))
    for path in (
        _drop_in(record, "service", places),
        _drop_in(record, "socket", places),
        _conf(record, places),
        _kept(record, places),  # the last: until then undoing is gone on with from it
    ):
        yield PutAside(path)
    yield Systemd("daemon-reload")


def alias_of(name: str) -> str:
    """Where the shared master listens after an undo.

    php-fpm refuses to listen where somebody answers, so it can't take the name while the unit still serves under it.
    """
    return f"{name.removesuffix('.sock')}.shared.sock"


def _is_bound_here(record: Record) -> bool:
    return written(record.bound) == record.name


def _given(record: Record) -> str:
    return f"{GIVEN}{record.name}"


def _units(record: Record) -> tuple[str, str]:
    return f"relevo-php@{record.site}.socket", f"relevo-php@{record.site}.service"


def _own_socket(record: Record, places: Places) -> Path:
    return places.run / f"{record.site}.sock"


def _conf(record: Record, places: Places) -> Path:
    return places.conf / f"{record.site}.conf"


def _kept(record: Record, places: Places) -> Path:
    return places.conf / f"{record.site}.json"


def _tmpfile(record: Record, places: Places) -> Path:
    return places.tmpfiles / f"relevo-php-{record.site}.conf"


def _drop_in(record: Record, kind: str, places: Places) -> Path:
    return places.units / f"relevo-php@{record.site}.{kind}.d" / "site.conf"


def _service(record: Record, places: Places) -> str:
    return (
        # A new version of PHP restarts the shared unit: the site's must not go on with the old one.
        f"[Unit]\nPartOf={record.unit}\n\n[Service]\nSlice={record.slice}\n"
        f"Environment=FPM_SOCKETS={_given(record)}=3\n"
        f"ExecStart=\nExecStart={record.program} --nodaemonize --fpm-config {_conf(record, places)}\n"
    )


def _socket(record: Record, *, named: bool) -> str:
    """`named`: at its next start, at boot that is, systemd makes the name that the web server knows."""
    who = pools.socket_of(pools.settings(record.section))
    text = (
        f"[Socket]\nSocketUser={who.user}\nSocketGroup={who.group}\n"
        f"SocketMode={who.mode}\nBacklog={who.backlog}\n"
    )
    return f"{text}Symlinks={record.name}\n" if named else text
