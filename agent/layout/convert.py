"""Plans how a pool moves into a unit of its own, so that a request always finds a listener. Pure.

The new master listens before the old one is left, the name changes hands by one rename(2), and what waits at the old
listener is served out. Planned from what is, so that a plan that was stopped is gone on with by planning again.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from agent.discover.php import GIVEN
from agent.discover.php import socket as written
from agent.layout import pools
from agent.layout.moves import (
    PATH_MAX,
    CantMove,
    Places,
    Plan,
    Record,
    Shared,
    Sockets,
    conf_of,
    drop_in,
    given,
    is_bound_here,
    note_of,
    noted,
    own_socket,
    service_text,
    socket_text,
    tmpfile_of,
    units_of,
)
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
from agent.layout.texts import is_utf_8

SECRET = 0o600
# What a pool says of its socket, and systemd is to say.
SOCKETS = ("listen", "listen.owner", "listen.group", "listen.mode")
UNIX_ONLY = ("listen.acl_users", "listen.acl_groups", "pm.status_listen")


def refuse_odd(record: Record, shared: Shared, *, same_disk: bool) -> None:
    """Raises CantMove with everything that stands in the way of moving this pool out."""
    if reasons := (*_unsaid(record), *_odd(record, shared, same_disk)):
        raise CantMove(*reasons)


def _unsaid(record: Record) -> Iterator[str]:
    """What units, and the note of the conversion, have to say and can't."""
    settings = pools.settings(record.section)
    named = {"the file's name": record.file, "the pool's name": record.pool}
    named |= {key: settings.get(key, "") for key in SOCKETS} | {"its socket": record.name}
    for what, name in named.items():
        if not is_utf_8(name):
            where = f"{record.file} [{record.pool}]"
            yield f"{where} {what}: {name}: not UTF-8, as systemd wants it; write it in UTF-8"


def _odd(record: Record, shared: Shared, same_disk: bool) -> Iterator[str]:
    said, where = pools.settings(record.section), f"{record.file} [{record.pool}]"
    listen = said.get("listen", "")
    better = f"let it listen at /run/php/{record.site}.sock"
    if not listen.startswith("/"):
        yield f"{where} listen: {listen or 'not set'}: a port can't be handed over; {better}"
    elif not same_disk:
        yield f"{where} listen: {listen}: not on the file system of /run; {better}"
    if len(given(record)) > PATH_MAX:
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
    slice: str,
) -> Plan:
    """From where things stand to a unit of its own in `slice`, also where an earlier conversion has noted another one.

    `remains`: the pool as it still is in the shared master's files.
    """
    return Plan(
        steps=(
            *(() if sockets.ours else _take(record, shared, sockets, templates, places)),
            *_guard(record, sockets),
            *(() if remains is None and sockets.at_boot else _release(record, remains, places)),
            *_unlink(record, sockets, places),
            *_settle(record, shared, sockets, remains, places),
            *(_change_slice(record, slice, places) if _is_apart(record, sockets, slice) else ()),
        ),
        notes=tuple(_convert_notes(record, shared, sockets, remains, slice)),
    )


def _take(
    record: Record,
    shared: Shared,
    sockets: Sockets,
    templates: Mapping[str, str],
    places: Places,
) -> Iterator[Step]:
    """The site's own unit serves beside the shared master, then under its name."""
    own = pools.own(record.section, record.site, given(record), pools.globals_of(shared.text))
    yield _note(record, places)
    yield Write(conf_of(record, places), own, SECRET)
    for name, text in templates.items():
        yield Write(places.units / name, text)
    yield Write(drop_in(record, "service", places), service_text(record, places))
    yield Write(drop_in(record, "socket", places), socket_text(record, named=False))
    yield Systemd("daemon-reload")
    yield Judge(record.program, str(conf_of(record, places)))
    yield Systemd("start", units_of(record))
    yield Ask(own_socket(record, places))
    if sockets.guarded:
        yield Unguard(Path(record.name))  # of a socket that is no more
    if is_bound_here(record):
        yield Link(Path(record.name), own_socket(record, places))
    else:
        yield Point(Path(record.name), own_socket(record, places))


def _note(record: Record, places: Places) -> Write:
    return Write(note_of(record, places), noted(record), SECRET)


def _is_apart(record: Record, sockets: Sockets, slice: str) -> bool:
    """Whether its unit was noted for another slice, or runs in one, where systemd has left it."""
    return slice != record.slice or sockets.slice not in {None, slice}


def _change_slice(record: Record, slice: str, places: Places) -> Iterator[Step]:
    """Its unit begins again elsewhere; its socket stays, at which visitors wait. The note is the last to say so."""
    moved = msgspec.structs.replace(record, slice=slice)
    _, service = units_of(moved)
    yield Write(drop_in(moved, "service", places), service_text(moved, places))
    yield Systemd("daemon-reload")
    yield Systemd("restart", (service,))
    yield Ask(own_socket(moved, places))
    yield _note(moved, places)


def _guard(record: Record, sockets: Sockets) -> Iterator[Step]:
    """Where the shared pool listens under another name, that is all that its master removes."""
    is_guarded = sockets.ours and sockets.guarded
    if is_bound_here(record) and not is_guarded and not _settled(sockets):
        yield Guard(Path(record.name))
    if not sockets.ours:
        yield Ask(Path(record.name))


def _release(record: Record, remains: Cut | None, places: Places) -> Iterator[Step]:
    """The shared master's pool is not there at its next start.

    At no start may both have the name: the shared master would not start at all, at a boot or when somebody restarts
    it. So nothing is waited for here, the pool goes first, and the unit is enabled in the next step.
    """
    yield Write(drop_in(record, "socket", places), socket_text(record, named=True))
    yield Systemd("daemon-reload")
    if remains is not None and remains.is_all:
        yield PutAside(Path(record.file), was=remains.whole)
    elif remains is not None:
        yield Write(Path(record.file), remains.rest, was=remains.whole)
    yield Systemd("enable", (units_of(record)[0],))


def _unlink(record: Record, sockets: Sockets, places: Places) -> Iterator[Step]:
    """What an undo has left, finished or not: it would turn the name to where nobody listens."""
    if sockets.boot_link:
        yield PutAside(tmpfile_of(record, places))


def _settle(
    record: Record, shared: Shared, sockets: Sockets, remains: Cut | None, places: Places
) -> Iterator[Step]:
    """The old pool has served its last request, and nobody is left who would remove the name.

    It becomes what systemd makes it at each boot.
    """
    if _settled(sockets):
        return
    old = _old(record, remains)
    if not old.isdisjoint(sockets.listening) or remains is not None:
        is_reloaded = shared.is_patient and shared.siblings
        if is_reloaded or remains is not None:
            yield from map(Drain, sorted(old))
        if not is_reloaded:
            return
        yield Judge(record.program, record.main)
        yield Systemd("reload", (record.unit,))
        yield from map(Gone, sorted(old))
        yield Systemd("is-active", (record.unit,))
    if is_bound_here(record):
        yield Unguard(Path(record.name))
        yield Point(Path(record.name), own_socket(record, places))
        yield Ask(Path(record.name))


def _settled(sockets: Sockets) -> bool:
    return sockets.ours and sockets.link and not sockets.guarded


def _old(record: Record, remains: Cut | None) -> frozenset[str]:
    """Where the shared master may have the pool in memory: as it was, and as an undo wrote it that was given up."""
    listens = {record.bound}
    if remains is not None:
        listens.add(pools.settings(remains.section).get("listen", record.bound))
    return frozenset(map(written, listens))


def _convert_notes(
    record: Record, shared: Shared, sockets: Sockets, remains: Cut | None, slice: str
) -> Iterator[str]:
    if not sockets.ours:
        yield f"{record.site} gets a PHP of its own in {slice}; its opcode cache begins empty."
    elif _is_apart(record, sockets, slice):
        yield (
            f"{record.site} moves from {sockets.slice or record.slice} to {slice}: its own php-fpm is restarted, "
            f"visitors wait meanwhile, and a request that takes more than {pools.CONTROL_S} s is cut off; its "
            "opcode cache begins empty."
        )
    is_held = not _old(record, remains).isdisjoint(sockets.listening)
    if not shared.is_patient and (remains is not None or is_held):
        yield (
            f"{record.main} {shared.patience}: a reload would cut off requests of {len(shared.siblings)} "
            f"other pools, so there is none: {record.unit} keeps the old pool in memory, idle, until it is next "
            f"restarted; the guard of the name stays until then. Set process_control_timeout = {pools.CONTROL_S} there."
        )
