"""Plans how a pool that has a unit of its own goes back into the shared master, as safely as it came. Pure."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
    alias_of,
    conf_of,
    drop_in,
    is_bound_here,
    note_of,
    own_socket,
    socket_text,
    tmpfile_of,
    units_of,
)
from agent.layout.steps import (
    Ask,
    Drain,
    Guard,
    Judge,
    Point,
    PutAside,
    Step,
    Systemd,
    Unguard,
    Write,
)

BLANK = " \t\r\n"  # of a file's end: what else Python takes for blank are its bytes


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
    if not sockets.ours and _says(record, file, record.bound):
        note = f"{record.unit} serves its visitors, and is not touched."
        steps = (Ask(Path(record.name)), *_unname(record, places), *_take_away(record, places))
        return Plan(steps=steps, notes=(note,))
    back: list[Step] = []
    if not (_says(record, file, alias) and written(alias) in sockets.listening):
        if not shared.is_patient and not accept_cut:
            raise CantMove(
                f"{record.main} {shared.patience}: {record.unit} has to be reloaded, which would cut off "
                f"requests of its other pools; set it to {pools.CONTROL_S} and restart the unit when few visitors are "
                "there, or accept that now: --accept-cut"
            )
        if sockets.ours and written(record.bound) in sockets.listening:
            # It still listens under the name that is the unit's: it must not take that away, nor who waits there.
            if is_bound_here(record) and not (sockets.guarded or sockets.link):
                back.append(Guard(Path(record.name)))
                sockets = replace(sockets, guarded=True)
            back.append(Drain(written(record.bound)))
        back += _bring_back(record, file, alias, places)
    else:
        back.append(Judge(record.program, record.main))  # it may have stopped because of that
    back += _hand_back(record, sockets, alias, places)
    note = f"The pool listens at {alias} then; {record.name} is a link to it, made at each boot."
    return Plan(steps=tuple(back), notes=(note,))


def _says(record: Record, file: str | None, listen: str) -> bool:
    """Whether the pool's file has it there: a master listens on at what no file says, until it is reloaded."""
    found = pools.cut(file or "", record.pool)
    return found is not None and pools.settings(found.section).get("listen") == listen


def _bring_back(record: Record, file: str | None, alias: str, places: Places) -> Iterator[Step]:
    """The shared master serves the pool again, beside the unit that still has the name."""
    section = pools.listening(record.section, alias)
    found = pools.cut(file or "", record.pool)
    kept = found.rest if found else file or ""
    text = f"{kept.rstrip(BLANK)}\n\n{section}" if kept.strip(BLANK) else section
    # First what makes the name at boot: where the file is written, and listened at, this is not come to again.
    yield Write(tmpfile_of(record, places), f"L+ {record.name} - - - - {alias}\n")
    yield Write(Path(record.file), text, was=file or "")
    yield Judge(record.program, record.main)
    yield Systemd("reload", (record.unit,))
    yield Ask(Path(alias))
    yield Systemd("is-active", (record.unit,))


def _hand_back(record: Record, sockets: Sockets, alias: str, places: Places) -> Iterator[Step]:
    """The name goes back, then the unit goes."""
    yield from _unname(record, places)
    if sockets.guarded:
        yield Unguard(Path(record.name))
    yield Point(Path(record.name), Path(alias))
    yield Ask(Path(record.name))
    yield from _take_away(record, places)


def _unname(record: Record, places: Places) -> Iterator[Step]:
    """Its socket would take the name with it when it is stopped."""
    yield Write(drop_in(record, "socket", places), socket_text(record, named=False))
    yield Systemd("daemon-reload")


def _take_away(record: Record, places: Places) -> Iterator[Step]:
    """Its unit, when it has served its last request, and what was written for it."""
    yield Drain(written(str(own_socket(record, places))))
    yield Systemd("disable", (units_of(record)[0],))
    yield Systemd("stop", units_of(record))
    for path in (
        drop_in(record, "service", places),
        drop_in(record, "socket", places),
        conf_of(record, places),
        note_of(record, places),  # the last: until then undoing is gone on with from it
    ):
        yield PutAside(path)
    yield Systemd("daemon-reload")
