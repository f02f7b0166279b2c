"""What a move of a pool is planned from, and where its pieces are. Pure."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.discover.php import GIVEN
from agent.discover.php import socket as written
from agent.layout import pools
from agent.layout.steps import Step
from agent.layout.texts import is_utf_8, raw, shown, text_of

PATH_MAX = 107  # of a Unix socket. Source: unix(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things are written."""

    conf: Path = Path("/etc/relevo/php")
    units: Path = Path("/etc/systemd/system")
    tmpfiles: Path = Path("/etc/tmpfiles.d")
    run: Path = Path("/run/relevo-php")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversion has to know to be gone on with, and undone: kept beside the site's configuration.

    `section`: the pool as it was; its bytes are kept as `section_raw` too where they are no UTF-8, as JSON has to be.
    `name`: where the web server asks. `bound`: where the shared master's pool listens, as its file writes it.
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
    section_raw: bytes | None = None


def noted(record: Record) -> str:
    """`record` as it is kept."""
    if not is_utf_8(said := record.section):
        record = msgspec.structs.replace(record, section=shown(said), section_raw=raw(said))
    return msgspec.json.format(msgspec.json.encode(record)).decode() + "\n"


def from_note(said: bytes) -> Record:
    """What `noted` has kept. Raises msgspec.DecodeError."""
    record = msgspec.json.decode(said, type=Record)
    if (section := record.section_raw) is None:
        return record
    return msgspec.structs.replace(record, section=text_of(section), section_raw=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """How the name stands now. `ours`: it leads to the site's own unit; `link`: by a symbolic link.

    `at_boot`: systemd makes it so at the next start of the machine. `boot_link`: a link to the shared master's other
    name is made then, or whenever such files are made. `slice`: where that unit runs; None: it does not.
    """

    ours: bool = False
    link: bool = False
    guarded: bool = False
    at_boot: bool = False
    boot_link: bool = False
    slice: str | None = None
    listening: frozenset[str] = field(
        default_factory=frozenset
    )  # bound names, as php.socket writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The shared master. `text` of its main file; `siblings`: its other pools, by name.

    `is_current`: it runs by what that file says now.
    """

    text: str
    siblings: tuple[str, ...] = ()
    is_running: bool = True
    is_current: bool = True

    @property
    def is_patient(self) -> bool:
        """Whether a reload surely lets requests under way go on for as long as those of a unit of its own may."""
        return self.is_current and pools.seconds(self._said) >= pools.CONTROL_S

    @property
    def patience(self) -> str:
        """The same for people, as its field and value."""
        changed = "" if self.is_current else ", but the file was changed after php-fpm was started"
        return f"process_control_timeout: {self._said}{changed}"

    @property
    def _said(self) -> str:
        return pools.globals_of(self.text).get("process_control_timeout", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`steps` in order; `notes` say what the person who agrees should know."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


class CantMove(Exception):
    """What stands in the way: lines of "field: value: remedy"."""

    def __init__(self, *reasons: str) -> None:
        reasons = tuple(map(shown, reasons))
        super().__init__("\n".join(reasons))
        self.reasons = reasons


def alias_of(name: str) -> str:
    """Where the shared master listens after an undo.

    php-fpm refuses to listen where somebody answers, so it can't take the name while the unit still serves under it.
    """
    return f"{name.removesuffix('.sock')}.shared.sock"


def is_bound_here(record: Record) -> bool:
    return written(record.bound) == record.name


def given(record: Record) -> str:
    return f"{GIVEN}{record.name}"


def units_of(record: Record) -> tuple[str, str]:
    return f"relevo-php@{record.site}.socket", f"relevo-php@{record.site}.service"


def own_socket(record: Record, places: Places) -> Path:
    return places.run / f"{record.site}.sock"


def conf_of(record: Record, places: Places) -> Path:
    return places.conf / f"{record.site}.conf"


def note_of(record: Record, places: Places) -> Path:
    return places.conf / f"{record.site}.json"


def tmpfile_of(record: Record, places: Places) -> Path:
    return places.tmpfiles / f"relevo-php-{record.site}.conf"


def drop_in(record: Record, kind: str, places: Places) -> Path:
    return places.units / f"relevo-php@{record.site}.{kind}.d" / "site.conf"


def service_text(record: Record, places: Places) -> str:
    return (
        # A new version of PHP restarts the shared unit: the site's must not go on with the old one.
        f"[Unit]\nPartOf={record.unit}\n\n[Service]\nSlice={record.slice}\n"
        f"Environment=FPM_SOCKETS={given(record)}=3\n"
        f"ExecStart=\nExecStart={record.program} --nodaemonize --fpm-config {conf_of(record, places)}\n"
    )


def socket_text(record: Record, *, named: bool) -> str:
    """`named`: at its next start, at boot that is, systemd makes the name that the web server knows."""
    who = pools.socket_of(pools.settings(record.section))
    text = (
        f"[Socket]\nSocketUser={who.user}\nSocketGroup={who.group}\n"
        f"SocketMode={who.mode}\nBacklog={who.backlog}\n"
        # A name that is guarded goes on to lead to a socket that was closed, when this one is opened anew. One mount in
        # the other's place: over it, this socket would be what that is mounted on, and could not be closed again.
        "ExecStartPost=-/bin/sh -c "
        '\'if mountpoint -q "$$1"; then umount "$$1"; mount --bind "$$2" "$$1"; fi\' sh '
        f'"{record.name}" "/run/relevo-php/%i.sock"\n'
    )
    return f"{text}Symlinks={record.name}\n" if named else text
