"""Moving a pool whose file is no UTF-8: years of volunteers wrote Latin-1, and every byte of it stays."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from agent.discover.files import HostFiles
from agent.layout import pools
from agent.layout.carry import Carrier
from agent.layout.command import carry_out, command
from agent.layout.moves import CantMove, Places, Plan
from agent.layout.running import Reader
from agent.layout.steps import Judge, PutAside, Step, Write
from agent.layout.survey import Host, convert, kept, undo
from agent.ports import DriverError
from fleet.messages import Orders
from fleet.model import Epoch, HostId
from tests.unit.hosttree import write
from tests.unit.test_layout_attach import BASE, HUERTO, LIBRO, TWO, fcgi, pool, vhosts, virtual
from tests.unit.test_layout_carry import Told
from tests.unit.test_layout_command import AGENT

LATIN = "; configuración del año 2009\n".encode("latin-1")
FILE = "/etc/php/8.2/fpm/pool.d/www.conf"


class Etc:
    """A host of two pools in one file; what is written to its /etc lands below its root."""

    def __init__(self, folder: Path, text: bytes, user: str = "libro") -> None:
        self.root, self.run = folder / "host", folder / "run"
        self.run.mkdir(parents=True)
        sites = (virtual(f"{s}.example", self.handler(s)) for s in TWO)
        write(self.root, BASE | vhosts(*sites) | {FILE: ""} | pool("third", "radio"))
        self.file.write_bytes(text)
        self.places = Places(
            conf=folder / "relevo",
            units=folder / "units",
            tmpfiles=folder / "tmpfiles",
            run=self.run / "relevo-php",
        )
        self.carrier = Carrier(self.places, Told())

    @property
    def file(self) -> Path:
        return self.root / FILE.lstrip("/")

    def handler(self, site: str) -> str:
        return f'"proxy:unix:{self.run}/{site}.sock|fcgi://localhost"'

    def here(self) -> Host:
        root = str(self.root)
        running = Reader(root).look()
        return Host(running=running, tenants=TWO, files=HostFiles(root), places=self.places)

    async def carry(self, steps: Iterable[Step]) -> None:
        """Only files: what they are about is played elsewhere."""
        for step in steps:
            if isinstance(step, Write | PutAside):
                below = self.root / str(step.path).lstrip("/")
                path = below if str(step.path).startswith("/etc") else step.path
                await self.carrier.carry_out(replace(step, path=path))


def section(site: str, run: Path, more: bytes = b"") -> bytes:
    said = f"[{site}]\nuser = {site}\nlisten = {run}/{site}.sock\npm = ondemand\n"
    return said.encode() + more


@pytest.mark.parametrize("place", ["before", "in the pool", "in its neighbour", "everywhere"])
async def test_every_byte_of_a_file_that_is_no_utf_8_stays(place: str, short_path: Path) -> None:
    """Its neighbours' lines as they were, its own in the unit's configuration; and it comes back so."""
    run = short_path / "run"
    everywhere = place == "everywhere"
    head = LATIN if everywhere or place == "before" else b""
    mine = section("libro", run, LATIN if everywhere or place == "in the pool" else b"")
    other = section(
        "huerto", run, LATIN + b"; \xc2\xa0" if everywhere or place == "in its neighbour" else b""
    )
    etc = Etc(short_path, head + mine + other)
    plan = convert(etc.here(), LIBRO)
    await etc.carry(plan.steps)
    assert etc.file.read_bytes() == head + other
    after = b"pm = ondemand\n" + mine.partition(b"pm = ondemand\n")[2]
    assert (etc.places.conf / "libro.conf").read_bytes().endswith(after)
    record = kept(etc.places, LIBRO)
    assert record is not None and record.section.encode(errors="surrogateescape") == mine
    back = undo(etc.here(), LIBRO, accept_cut=True)
    await etc.carry(back.steps)
    said = etc.file.read_bytes()
    assert said.startswith(head + other.rstrip(b"\n")) and said.endswith(after)


BYTES = st.binary(max_size=60).filter(lambda said: b"[" not in said)
NO_HEAD = b"; \x0c[b] \x1e[b] \xc2\x85[b] \xe2\x80\xa8[b] \xff"  # all one line, but to Python


@given(before=BYTES, mine=BYTES, after=BYTES)
@example(before=NO_HEAD, mine=NO_HEAD, after=NO_HEAD)
def test_what_is_cut_out_and_what_stays_are_the_file(
    before: bytes, mine: bytes, after: bytes
) -> None:
    """Whatever bytes are around."""
    head, own, tail = before + b"\n", b"[a]\n" + mine + b"\n", b"[b]\n" + after
    found = pools.cut((head + own + tail).decode(errors="surrogateescape"), "a")
    assert found is not None
    assert found.section.encode(errors="surrogateescape") == own
    assert found.rest.encode(errors="surrogateescape") == head + tail


def odd(run: Path) -> dict[str, bytes]:
    return {
        "listen.owner": section("libro", run, "listen.owner = josé\n".encode("latin-1")),
        "listen": section("libro", run).replace(b"libro.sock", b"a\xf1o.sock"),
        "the pool's name": section("libro", run).replace(b"[libro]", b"[a\xf1o]"),
    }


@pytest.mark.parametrize("what", odd(Path("/")))
def test_a_name_that_is_no_utf_8_is_refused_at_planning(what: str, tmp_path: Path) -> None:
    """systemd would not take it: which file, which setting, what to do; and that can be printed."""
    run = tmp_path / "run"
    etc = Etc(tmp_path, odd(run)[what] + section("huerto", run))
    name = b"a\xf1o" if what == "listen" else b"libro"
    sites = etc.root / "etc/apache2/sites-enabled/all.conf"
    sites.write_bytes(sites.read_bytes().replace(b"/libro.sock", b"/" + name + b".sock"))
    with pytest.raises(CantMove, match=f"{FILE}.*{what}.*not UTF-8.*write it in UTF-8") as refused:
        convert(etc.here(), LIBRO)
    str(refused.value).encode()


async def test_what_a_step_can_not_write_stops_the_plan_as_any_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its number and "run it again", never with a traceback."""
    carrier = Carrier(Places(conf=tmp_path), Told())
    unwritable = Write(tmp_path / "a\0b", "text")
    with pytest.raises(DriverError, match="null byte"):
        await carrier.carry_out(unwritable)
    for step in (unwritable, Judge("/nowhere/php\udcf1", "x")):
        with pytest.raises(SystemExit):
            await carry_out(Plan(steps=(step,)), carrier)
        said = capsys.readouterr().err
        assert "Step 1 failed" in said and said.encode()


def test_a_host_whose_names_are_no_utf_8_can_be_printed(tmp_path: Path) -> None:
    """As lines, and as JSON."""
    tree = vhosts(virtual("huerto.example", fcgi("huerto"), "/var/log/a.log"))
    root = write(tmp_path / "host", BASE | tree | pool("huerto", "huerto") | pool("radio", "radio"))
    for path in ("etc/apache2/sites-enabled/all.conf", "etc/php/8.2/fpm/pool.d/huerto.conf"):
        said = (root / path).read_bytes().replace(b"/var/log/a.log", b"/var/log/a\xf1o.log")
        (root / path).write_bytes(said.replace(b"[huerto]", b"[a\xf1o]"))
    config = tmp_path / "agent.toml"
    config.write_text(AGENT.format(state=tmp_path))
    orders = Orders(epoch=Epoch(1, 1), cluster="c", host=HostId("web7"), tenants=TWO)
    (tmp_path / "orders.json").write_bytes(msgspec.json.encode(orders))
    for more in ((), ("--json",)):
        words = ("--config", str(config), "--root", str(root), *more)
        told = CliRunner(env={"LC_ALL": "C.UTF-8"}).invoke(command, words)
        assert told.exit_code == 0, told.exception
        assert HUERTO in told.output and "a\ufffdo" in told.output
