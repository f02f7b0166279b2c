"""Certificates that are renewed under a running server: real handshakes before and after, on loopback."""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from agent.websocket import Trust
from controller.authority import SERVER_VALID, Authority
from controller.config import Config
from controller.daemon import measure_certificate
from controller.install import replace
from controller.stores import Etcd
from fleet.model import ControllerId
from metrics.catalogue import CONTROLLER
from metrics.exporter import Exporter
from runtime.certificates import Shown, ends_at, fingerprint, fingerprint_of
from runtime.config import BadConfig

pytestmark = pytest.mark.integration


class Server:
    """An echo behind a certificate that can be renewed."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.make("a test")
        self.certificate, self.key, self.ca = folder / "c.crt", folder / "c.key", folder / "ca.pem"
        self.ca.write_bytes(self.authority.pem)
        for path in (self.certificate, self.key):
            path.touch(mode=0o640)
        self.renew()
        self.shown = Shown(self.certificate, self.key)
        self.port = 0

    def renew(self, *, halfway: bool = False) -> None:
        issued = self.authority.issue("c", ("127.0.0.1",))
        replace(self.key, issued.key)
        if not halfway:
            replace(self.certificate, issued.certificate)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None, None]:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with closing(writer):
                while line := await reader.readline():
                    writer.write(line)
                    await writer.drain()

        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=self.shown.context)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, str]:
        """A verified connection, and the fingerprint of what was shown."""
        tls = ssl.create_default_context(cafile=self.ca)
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return reader, writer, fingerprint_of(ssl.DER_cert_to_PEM_cert(shown))


async def test_a_renewed_certificate_is_shown_to_whoever_connects_next(tmp_path: Path) -> None:
    """A connection from before goes on; the next handshake gets the new certificate; the old one is gone."""
    server = Server(tmp_path)
    async with server.serving():
        reader, writer, before = await server.connect()
        assert before == fingerprint(server.certificate)
        server.renew()
        assert fingerprint(server.certificate) != before
        async with asyncio.TaskGroup() as group:
            renewed = asyncio.Event()
            keeping = group.create_task(server.shown.keep(lambda _: renewed.set(), every_s=0.02))
            async with asyncio.timeout(5):
                await renewed.wait()
            keeping.cancel()
        with closing((await server.connect())[1]):
            pass
        _, later, after = await server.connect()
        assert after == fingerprint(server.certificate) != before
        writer.write(b"still here\n")
        async with asyncio.timeout(5):
            assert await reader.readline() == b"still here\n"
        writer.close()
        later.close()


async def test_half_a_renewal_changes_nothing_until_it_is_whole(tmp_path: Path) -> None:
    """A key without its certificate, no file, no PEM: the old pair is shown, and the new one once it is there."""
    server = Server(tmp_path)
    async with server.serving():
        before = fingerprint(server.certificate)
        server.renew(halfway=True)
        assert not server.shown.look()
        for spoil in (lambda: server.certificate.write_text("no PEM"), server.certificate.unlink):
            spoil()
            assert not server.shown.look()
            _, writer, shown = await server.connect()
            writer.close()
            assert shown == before
        server.certificate.touch()
        server.renew()
        assert server.shown.look() and not server.shown.look()
        _, writer, shown = await server.connect()
        writer.close()
        assert shown == fingerprint(server.certificate) != before


async def test_a_ca_that_was_replaced_counts_from_the_next_connection(tmp_path: Path) -> None:
    """An agent trusts the new file without a restart; one that can't be read changes nothing."""
    ca = tmp_path / "ca.pem"
    first, second = Authority.make("one"), Authority.make("two")
    ca.write_bytes(first.pem)
    trust = Trust({"c1": "https://127.0.0.1:7410"}, ca)
    old = trust.tls()
    assert isinstance(old, ssl.SSLContext)
    assert trust.tls() is old and trust.ends_at == ends_at(ca)
    ca.write_text("no PEM")
    assert trust.tls() is old
    ca.write_bytes(second.pem)
    new = trust.tls()
    assert isinstance(new, ssl.SSLContext) and new is not old
    assert new.get_ca_certs(binary_form=True) == [ssl.PEM_cert_to_DER_cert(second.pem.decode())]


def test_what_can_not_be_shown_is_said_with_its_path(tmp_path: Path) -> None:
    """No file, no PEM, or a key of another certificate."""
    server = Server(tmp_path)
    with pytest.raises(BadConfig, match=r"no\.crt"):
        Shown(tmp_path / "no.crt", server.key)
    with pytest.raises(BadConfig, match=r"ca\.pem.*no certificate with its key"):
        Shown(server.ca, server.key)
    with pytest.raises(BadConfig, match="no certificate in PEM"):
        ends_at(server.key)


async def test_when_the_certificate_for_etcd_ends_is_measured_and_again_once_renewed(
    tmp_path: Path,
) -> None:
    """The store's own, of a controller that shows one; before it ends somebody must know."""
    authority, cert = Authority.make("a test"), tmp_path / "client.crt"
    store = Etcd(endpoints=("https://etcd1:2379",), ca=cert, cert=cert, key=cert)
    exporter = Exporter(CONTROLLER)
    name = 'relevo_certificate_expires_timestamp_seconds{certificate="store"}'

    async def measured() -> float:
        async with asyncio.timeout(5):
            while not (
                found := re.search(rf"^{re.escape(name)} (\S+)$", exporter.render().decode(), re.M)
            ):
                await asyncio.sleep(0.01)
        return float(found[1])

    cert.write_bytes(authority.issue("relevo", (), client=True, at=0.0).certificate)
    config = Config(id=ControllerId("c1"), store=store)
    async with asyncio.TaskGroup() as group:
        measuring = group.create_task(measure_certificate(config, exporter, look_s=0.01))
        first = await measured()
        assert first == SERVER_VALID.total_seconds()
        cert.write_bytes(authority.issue("relevo", (), client=True, at=86_400.0).certificate)
        async with asyncio.timeout(5):
            while await measured() != first + 86_400:
                await asyncio.sleep(0.01)
        measuring.cancel()
