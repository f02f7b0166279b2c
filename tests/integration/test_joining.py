"""From `relevo init` to a host that is let in and out again: real processes, real TLS, on loopback."""

import asyncio
import os
import secrets
import signal
import ssl
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from agent.credential import Change, Credentials, make, write_secret
from agent.join import CantJoin, Places, joined
from agent.ports import DriverError
from agent.websocket import Dialler, Trust
from controller.authority import Authority, names_of
from controller.config import Config
from fleet.access import Joining, JoinOffer, NewCredential, digest
from fleet.model import ControllerId, HostId
from runtime.certificates import fingerprint_of
from runtime.clock import wall
from runtime.config import load
from tests.ports import free_port

pytestmark = pytest.mark.integration

RELEVO = (sys.executable, "-c", "from cli.main import main; main()")
FLEET = """\
version: 1
locations: {mx1: {country: MX}}
hosts:
  web-01: {tag: clara, location: mx1, addresses: [127.0.0.1]}
  far-01: {tag: rosa, location: mx1, addresses: [203.0.113.77]}
"""


class Credential(msgspec.Struct):
    host: str
    changing: bool
    revoked: bool
    linked: bool


class Access(msgspec.Struct):
    hosts: list[Credential]


@dataclass
class Coop:
    """A folder with everything of a controller, its admin and its hosts."""

    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def etc(self) -> Path:
        return self.folder / "etc"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def places(self, host: str = "web-01") -> Places:
        return Places(config=self.folder / host / "agent.toml", state=self.folder / host / "state")

    async def start(self, *arguments: str | Path) -> Process:
        environment = {**os.environ, "HOME": str(self.folder), "LC_ALL": "C.UTF-8", "COLUMNS": "80"}
        for name in ("RELEVO_URL", "RELEVO_TOKEN", "RELEVO_CA", "SUDO_USER"):
            environment.pop(name, None)
        return await asyncio.create_subprocess_exec(
            *RELEVO, *map(str, arguments), env=environment, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )

    async def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        process = await self.start(*arguments)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def done(self, *arguments: str | Path) -> str:
        """What a command that must succeed prints."""
        code, out, err = await self.run(*arguments)
        assert code == 0, err
        return out

    async def init(self) -> str:
        state = self.folder / "controller"
        more = ("--directory", self.etc, "--state", state, "--admin", "ana")
        return await self.done("init", "c1", "127.0.0.1", "--port", str(self.port), *more)

    @asynccontextmanager
    async def running(self, *arguments: str | Path) -> AsyncGenerator[Process, None]:
        """A daemon, ended with the body; its log goes where it can be read when a test fails."""
        process = await self.start(*arguments)
        async with asyncio.TaskGroup() as group:
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                group.create_task(_copied(stream))
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.terminate()
                async with asyncio.timeout(10):
                    await process.wait()

    @asynccontextmanager
    async def controller(self) -> AsyncGenerator[Process, None]:
        """The controller, leading, with the fleet applied."""
        async with self.running("controller", "--config", self.etc / "controller.toml") as process:
            async with asyncio.timeout(40):
                while b'"leader":true' not in await self.look("/v1/status"):
                    await asyncio.sleep(0.05)
            (self.folder / "fleet.yaml").write_text(FLEET)
            await self.done("fleet", "apply", self.folder / "fleet.yaml", "--reason", "first")
            yield process

    async def look(self, path: str) -> bytes:
        """What the API says to the admin; empty where nobody answers yet."""
        token = (self.folder / ".config" / "relevo" / "token").read_text().strip()
        tls = ssl.create_default_context(cafile=self.etc / "ca.pem")
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
            try:
                async with session.get(self.url + path, headers=headers) as answer:
                    return await answer.read()
            except aiohttp.ClientConnectionError:
                return b""

    async def token(self, host: str = "web-01") -> tuple[str, str]:
        """(where to join, the token), as the printed command has them."""
        words = (await self.done("host", "token", host)).split()
        assert words[:3] == ["relevo", "agent", "join"] and words[4] == "--token"
        return words[3], words[5]

    async def join(self, url: str, token: str, host: str = "web-01") -> tuple[int, str, str]:
        places = self.places(host)
        where = ("--config", places.config, "--state", places.state)
        return await self.run("agent", "join", url, "--token", token, *where)

    async def host(self, id: str = "web-01") -> Credential:
        found = msgspec.json.decode(await self.look("/v1/access"), type=Access)
        return next(host for host in found.hosts if host.host == id)

    async def linked(self, *, changing: bool = False) -> None:
        async with asyncio.timeout(40):
            while not ((host := await self.host()).linked and host.changing is changing):
                await asyncio.sleep(0.1)


async def _copied(stream: asyncio.StreamReader) -> None:
    async for line in stream:
        print(line.decode(), end="")  # noqa: T201 - pytest shows it of a test that failed


@pytest.mark.long
async def test_a_host_is_let_in_changes_its_credential_and_is_shut_out(tmp_path: Path) -> None:
    """init, token, join, linked; rotate, linked again; revoke, linked no more; a new token, linked once more."""
    coop, why = Coop(tmp_path), ("--reason", "a test")
    said = await coop.init()
    assert "ca.key" in said and "systemctl enable --now relevo-controller" in said
    assert (coop.etc / "ca" / "ca.key").stat().st_mode & 0o777 == 0o600
    code, _, err = await coop.run("init", "c1", "127.0.0.1", "--directory", coop.etc)
    assert code == 1 and "nothing is overwritten" in err
    async with coop.controller():
        url, token = await coop.token()
        assert url == coop.url
        code, out, err = await coop.join(url, token)
        assert (code, err) == (0, "") and "This host is web-01" in out
        places = coop.places()
        first = places.token.read_text()
        assert places.token.stat().st_mode & 0o777 == 0o600
        code, _, err = await coop.join(url, token)
        assert code == 1 and "was used already" in err and "ask for another one" in err
        places.config.write_text(places.config.read_text() + "[metrics]\nport = 0\n")
        async with coop.running("agent", "--config", places.config) as agent:
            await coop.linked()
            await coop.done("host", "rotate", "web-01", *why)
            await coop.linked(changing=False)
            async with asyncio.timeout(20):
                while (second := places.token.read_text()) == first:
                    await asyncio.sleep(0.05)
            await coop.linked()
            assert agent.returncode is None
            assert (places.state / "token.previous").read_text() == first
            await coop.done("host", "revoke", "web-01", *why)
            host = await coop.host()
            assert host.revoked and not host.linked
            await asyncio.sleep(1)  # it dials again and again
            assert not (await coop.host()).linked
        code, out, err = await coop.join(*await coop.token())  # its configuration is kept
        assert code == 0, err
        assert (
            places.token.read_text() not in (first, second)
            and "[metrics]" in places.config.read_text()
        )
        async with coop.running("agent", "--config", places.config):
            await coop.linked()
        told = await coop.done("audit")
        for line in ("ana: revoke credential web-01", "host web-01: change credential", "a test"):
            assert line in told


async def test_an_agent_that_dies_while_it_changes_its_credential_logs_in(tmp_path: Path) -> None:
    """Killed after the controllers have the new one and before its file has: it finishes when it starts."""
    coop = Coop(tmp_path)
    await coop.init()
    async with coop.controller():
        assert (await coop.join(*await coop.token()))[0] == 0
        places = coop.places()
        places.config.write_text(places.config.read_text() + "[metrics]\nport = 0\n")
        await coop.done("host", "rotate", "--all", "--reason", "a test")
        credentials, old = Credentials(places.token), places.token.read_text()
        trust = Trust({"c1": coop.url}, places.ca)
        made = credentials.make()
        async with aiohttp.ClientSession() as session:
            url = f"{coop.url}/v1/hosts/web-01/credential"
            async with session.put(
                url,
                data=msgspec.json.encode(NewCredential(digest=digest(made))),
                headers={"Authorization": f"Bearer {old.strip()}"},
                ssl=trust.tls(),
            ) as answer:
                assert answer.status == 200
        assert places.token.read_text() == old
        async with coop.running("agent", "--config", places.config) as agent:
            await coop.linked()
            async with asyncio.timeout(20):
                while places.token.read_text() == old:
                    await asyncio.sleep(0.05)
            agent.send_signal(signal.SIGKILL)
        assert places.token.read_text() == f"{made}\n"
        async with coop.running("agent", "--config", places.config):
            await coop.linked()


@pytest.mark.long
async def test_a_controllers_certificate_is_renewed_under_its_agents(tmp_path: Path) -> None:
    """Who connects then sees the new one, an agent's link goes on, and the metric says when it ends."""
    coop = Coop(tmp_path)
    await coop.init()
    config = load(coop.etc / "controller.toml", Config)
    tls = ssl.create_default_context(cafile=coop.etc / "ca.pem")

    async def shown() -> bytes:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection("127.0.0.1", coop.port, ssl=tls)
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    async with coop.controller() as controller:
        assert (await coop.join(*await coop.token()))[0] == 0
        places = coop.places()
        metrics = free_port()
        text = f"{places.config.read_text()}[metrics]\nport = {metrics}\n"
        places.config.write_text(text)
        async with (
            coop.running("agent", "--config", places.config),
            aiohttp.ClientSession() as session,
        ):
            await coop.linked()
            before, ends = await shown(), "relevo_certificate_expires_timestamp_seconds"
            assert "good for 730 days more" in await coop.done(
                "controller", "renew", "--directory", coop.etc
            )
            async with asyncio.timeout(30):
                while (after := await shown()) == before:
                    await asyncio.sleep(0.5)
            assert config.listen.certificate is not None
            file = ssl.PEM_cert_to_DER_cert(config.listen.certificate.read_text())
            assert after == file
            async with session.get(f"http://127.0.0.1:{metrics}/metrics") as answer:
                told = await answer.text()
            assert 'relevo_agent_reconnects_total{controller="c1"}' not in told
            assert f'{ends}{{certificate="ca"}}' in told
            token = (tmp_path / ".config" / "relevo" / "token").read_text().strip()
            async with session.get(
                f"{coop.url}/metrics", ssl=tls, headers={"Authorization": f"Bearer {token}"}
            ) as answer:
                told = await answer.text()
            assert (
                f'{ends}{{certificate="server"}}' in told and f'{ends}{{certificate="ca"}}' in told
            )
            assert controller.returncode is None


async def test_a_controller_behind_nat_listens_on_what_it_has(tmp_path: Path) -> None:
    """At an address that is not this machine's nobody can listen: the certificate has it, the socket does not."""
    coop = Coop(tmp_path)
    await coop.done("init", "c1", "203.0.113.7", "--directory", coop.etc, "--admin", "ana")
    config = load(coop.etc / "controller.toml", Config)
    assert config.listen.address == "0.0.0.0"
    assert config.urls == {"c1": "https://203.0.113.7:7410"}
    assert "203.0.113.7" in names_of((coop.etc / "controller.crt").read_bytes())


async def test_another_controller_gets_its_own_files(tmp_path: Path) -> None:
    """A bundle with its certificate and configuration; it is not made twice, and nowhere but where the CA is."""
    coop = Coop(tmp_path)
    await coop.init()
    bundle = tmp_path / "c2.tar"
    more = ("--directory", coop.etc, "--bundle", bundle)
    said = await coop.done("controller", "add", "c2", "c2.example.org", *more)
    assert 'controllers = ["c1", "c2"]' in said and f"scp {bundle} root@c2.example.org:" in said
    assert bundle.stat().st_mode & 0o777 == 0o600
    unpacked = tmp_path / "c2"
    unpacked.mkdir()
    tar = await asyncio.create_subprocess_exec("tar", "-C", unpacked, "-xf", bundle)
    assert await tar.wait() == 0
    assert load(unpacked / "controller.toml", Config).id == "c2"
    assert (unpacked / "controller.key").stat().st_mode & 0o777 == 0o600
    tls = ssl.create_default_context(cafile=unpacked / "ca.pem")
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
        unpacked / "controller.crt", unpacked / "controller.key"
    )
    assert tls.get_ca_certs()
    assert not (unpacked / "ca.key").exists()
    code, _, err = await coop.run("controller", "add", "c2", "c2.example.org", *more)
    assert code == 1 and "c2 is a controller already" in err and "--replace" in err
    bundle.rename(tmp_path / "elsewhere.tar")
    (tmp_path / "taken.tar").touch()
    taken = ("--directory", coop.etc, "--bundle", tmp_path / "taken.tar")
    code, _, err = await coop.run("controller", "add", "c4", "c4.example.org", *taken)
    assert code == 1 and "nothing is overwritten" in err
    code, _, err = await coop.run("controller", "renew", "--directory", unpacked)
    assert code == 1 and "where `relevo init` was run" in err
    code, _, err = await coop.run("controller", "renew", "c3", "--directory", coop.etc)
    assert code == 1 and "known: c1, c2" in err


async def test_controllers_made_one_after_the_other_are_all_in_the_last_ones_files(
    tmp_path: Path,
) -> None:
    """Though the first one's controller.toml says nothing of them yet; and the lines for all are those of the file."""
    coop = Coop(tmp_path)
    await coop.init()
    for id, address in (("c2", "203.0.113.11"), ("c3", "203.0.113.12")):
        bundle = ("--directory", coop.etc, "--bundle", tmp_path / f"{id}.tar")
        said = await coop.done("controller", "add", id, address, *bundle)
    third = await _unpacked(tmp_path / "c3.tar")
    assert third.controllers == ("c1", "c2", "c3")
    assert third.urls == {
        "c1": coop.url,
        "c2": "https://203.0.113.11:7410",
        "c3": "https://203.0.113.12:7410",
    }
    assert 'controllers = ["c1", "c2", "c3"]\n' in said
    assert all(f'{id} = "{url}"\n' in said for id, url in third.urls.items())


async def test_a_controller_is_replaced_by_one_at_another_address(tmp_path: Path) -> None:
    """It keeps its id; its certificate, also when it is renewed, is for the new address; others are told its line."""
    coop = Coop(tmp_path)
    await coop.init()
    more = ("--directory", coop.etc, "--bundle")
    await coop.done("controller", "add", "c2", "203.0.113.11", *more, tmp_path / "old.tar")
    (coop.etc / "relevo.tsig").write_text("c2VjcmV0\n")
    own = coop.etc / "controller.toml"
    own.write_text(f'{own.read_text()}[dns_keys.relevo]\nsecret = "{coop.etc}/relevo.tsig"\n')
    new = ("controller", "add", "c2", "203.0.113.21", "--replace", *more, tmp_path / "new.tar")
    said = await coop.done(*new)
    assert (await _unpacked(tmp_path / "new.tar")).urls["c2"] == "https://203.0.113.21:7410"
    assert 'c2 = "https://203.0.113.21:7410"' in said and "203.0.113.11" not in said
    named = f"tar -C / -cf - {str(coop.etc / 'relevo.tsig')[1:]} | ssh root@203.0.113.21"
    assert named in said, "what its configuration names and the archive does not hold"
    assert "203.0.113.21" in names_of((coop.etc / "ca" / "issued" / "c2.crt").read_bytes())
    wrong = {"c1": "is this controller", "c9": "there are c1, c2"}
    for id, why in wrong.items():
        code, _, err = await coop.run(
            "controller", "add", id, "192.0.2.1", "--replace", *more, tmp_path / "x.tar"
        )
        assert code == 1 and why in err
        assert not (tmp_path / "x.tar").exists()
    own.write_text(own.read_text().replace('c1 = "', '# c1 = "'))
    code, _, err = await coop.run("controller", "add", "c3", "192.0.2.3", *more, tmp_path / "x.tar")
    assert code == 1 and "[urls] does not say where this controller, c1, is reached" in err


async def _unpacked(bundle: Path) -> Config:
    """The configuration in an archive."""
    folder = bundle.with_suffix("")
    folder.mkdir()
    tar = await asyncio.create_subprocess_exec("tar", "-C", folder, "-xf", bundle)
    assert await tar.wait() == 0
    return load(folder / "controller.toml", Config)


# --- what goes wrong while a host joins


class Impostor:
    """Answers like a controller, over TLS with any certificate; remembers what it was sent."""

    def __init__(
        self, folder: Path, authority: Authority, *, pem: bytes, at: float | None = None
    ) -> None:
        issued = authority.issue("c", ("127.0.0.1",), at=at)
        certificate, key = folder / "impostor.crt", folder / "impostor.key"
        certificate.write_bytes(issued.certificate)
        key.write_bytes(issued.key)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate, key)
        self._pem = pem
        self.sent: list[str] = []

    async def _answer(self, request: web.Request) -> web.Response:
        self.sent.append(f"{request.path} {request.headers.get('Authorization', '')}".strip())
        if request.path == "/v1/ca":
            return web.Response(body=self._pem)
        offer = JoinOffer(host=HostId("web-01"), addresses=(), controllers={}, until=wall() + 60)
        return web.Response(body=msgspec.json.encode(offer))

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[str, None]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
            await site.start()
            yield f"https://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


def joining(authority: Authority) -> Joining:
    return Joining(secrets.token_urlsafe(32), fingerprint_of(authority.pem.decode()))


async def refused(url: str, by: Joining, folder: Path) -> str:
    """Why joining failed; nothing was written."""
    places = Places(config=folder / "agent.toml", state=folder / "state")
    with pytest.raises(CantJoin) as error:
        await joined(url, by, places, anyway=False)
    assert not places.config.exists() and not places.ca.exists()
    return str(error.value)


async def test_a_man_in_the_middle_gets_no_token(tmp_path: Path) -> None:
    """With a CA of his own he is seen through; with ours in his hands, but not its key, he gets no word."""
    ours, his = Authority.make("ours"), Authority.make("his")
    own = Impostor(tmp_path, his, pem=his.pem)
    async with own.listening() as url:
        said = await refused(url, joining(ours), tmp_path)
    assert "shows another CA" in said and "the token was not sent" in said
    assert own.sent == ["/v1/ca"]
    relaying = Impostor(tmp_path, his, pem=ours.pem)
    async with relaying.listening() as url:
        said = await refused(url, joining(ours), tmp_path)
    assert "does not show a certificate of the CA" in said and "the token was not sent" in said
    assert relaying.sent == ["/v1/ca"]
    silly = Impostor(tmp_path, his, pem=b"<html>")
    async with silly.listening() as url:
        assert "Is this a controller?" in await refused(url, joining(ours), tmp_path)


async def test_a_clock_that_is_wrong_is_said_to_be(tmp_path: Path) -> None:
    """Where a certificate is not valid yet, or no longer, the machine's own time is told, and how to set it."""
    ours = Authority.make("ours")
    for days, which in ((10, "not valid yet"), (-1000, "no longer valid")):
        controller = Impostor(tmp_path, ours, pem=ours.pem, at=wall() + days * 86_400)
        async with controller.listening() as url:
            said = await refused(url, joining(ours), tmp_path)
        assert which in said and "timedatectl" in said and "by this machine's clock" in said
        assert controller.sent == ["/v1/ca"]


async def test_each_mistake_while_joining_is_told_with_what_to_do(tmp_path: Path) -> None:
    """Nobody there, an address that is none, a token in the clear, a wrong machine, another host's configuration."""
    ours = Authority.make("ours")
    token = joining(ours)
    said = await refused(f"https://127.0.0.1:{free_port()}", token, tmp_path)
    assert "can't reach" in said and "port open" in said
    assert "looks like https://" in await refused("c1.example.org", token, tmp_path)
    assert "in the clear" in await refused("http://203.0.113.1:7410", token, tmp_path)
    coop = Coop(tmp_path / "coop")
    coop.folder.mkdir()
    await coop.init()
    code, _, err = await coop.join(coop.url, f"join.{'x' * 43}.")
    assert code == 2 and "copy the whole line" in err
    async with coop.controller():
        code, _, err = await coop.join(*await coop.token("far-01"), "far-01")
        assert code == 1 and "203.0.113.77" in err and "behind NAT" in err
        code, _, err = await coop.run("host", "token", "nobody")
        assert code == 5 and "nobody" in err
        url, token_text = await coop.token()
        wrong = token_text.replace(token_text[5:12], "wrong-0")
        code, _, err = await coop.join(url, wrong)
        assert code == 1 and "relevo host token" in err
        places = coop.places("far-01")
        assert (await coop.join(url, token_text))[0] == 0
        places.config.parent.mkdir(exist_ok=True)
        places.config.write_text(coop.places().config.read_text())
        where = ("--config", places.config, "--state", places.state, "--anyway")
        url, token_text = await coop.token("far-01")
        code, _, err = await coop.run("agent", "join", url, "--token", token_text, *where)
        assert code == 1 and "the token is for far-01" in err and "this is web-01" in err


# --- several credentials


@pytest.mark.parametrize("status", [401, 429])
async def test_a_credential_that_is_refused_does_not_keep_the_others_from_being_tried(
    tmp_path: Path, status: int
) -> None:
    """Also where neighbours behind the same address were refused too often; the one that is taken comes first then."""
    path = tmp_path / "token"
    write_secret(path, "old")
    new, tried = make(path), list[str]()

    async def link(request: web.Request) -> web.StreamResponse:
        tried.append(request.headers["Authorization"].removeprefix("Bearer "))
        if tried[-1] != new:
            return web.Response(status=status)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        return socket

    app = web.Application()
    app.router.add_get("/v1/link/{host}", link)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        c1, credentials = ControllerId("c1"), Credentials(path)
        async with aiohttp.ClientSession() as session:
            trust = Trust({"c1": url}, None)
            dialler = Dialler(session, HostId("h1"), {c1: url}, credentials, trust)
            for _ in range(2):
                await (await dialler.dial(c1)).close()
            assert tried == ["old", new, new]
            new = "another"
            with pytest.raises(DriverError, match=r"not accepted.*relevo host token h1"):
                await dialler.dial(c1)
    finally:
        await runner.cleanup()


# --- a change of the credential, however it is interrupted


class Keeper:
    """A controller's end of a change: `faults` say what becomes of the next requests."""

    def __init__(self, secret: str) -> None:
        self.known, self.asked = digest(secret), True
        self.faults: list[str] = []

    async def put(self, request: web.Request) -> web.StreamResponse:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "not-leading":
            return web.json_response({"detail": "does not lead"}, status=503)
        if fault == "lost-before" and request.transport:
            request.transport.abort()
            return web.Response()
        bearer = request.headers["Authorization"].removeprefix("Bearer ")
        if digest(bearer) != self.known:
            return web.json_response({"detail": "not its own"}, status=401)
        new = msgspec.json.decode(await request.read(), type=NewCredential).digest
        if new != self.known and not self.asked:
            return web.json_response({"detail": "not asked"}, status=409)
        if new != self.known:
            self.known, self.asked = new, False
        if fault == "lost-after" and request.transport:
            request.transport.abort()
        return web.Response()


@pytest.mark.parametrize(
    "faults",
    [
        [],
        ["lost-before"],
        ["lost-after"],
        ["not-leading", "not-leading", "lost-after", "lost-before"],
        ["lost-after", "lost-after", "not-leading", "lost-before", "lost-before"],
    ],
    ids=lambda faults: "+".join(faults) or "none",
)
async def test_a_change_that_is_interrupted_anywhere_is_finished_by_repeating_it(
    tmp_path: Path, faults: list[str]
) -> None:
    """Before or after the commit, with a new start of the agent each time: it can always log in."""
    path = tmp_path / "token"
    write_secret(path, "first")
    keeper = Keeper("first")
    keeper.faults = faults.copy()
    app = web.Application()
    app.router.add_put("/v1/hosts/h1/credential", keeper.put)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        controllers = {ControllerId("c1"): url}
        trust = Trust({"c1": url}, None)
        rounds = 0
        async with aiohttp.ClientSession() as session:
            while path.read_text() == "first\n":
                credentials = Credentials(path)  # as after a crash
                try:
                    await Change(session, HostId("h1"), controllers, credentials, trust).once()
                except DriverError as error:
                    assert url in str(error)
                assert keeper.known in map(digest, Credentials(path).candidates())
                rounds += 1
                assert rounds < 10
    finally:
        await runner.cleanup()
    assert keeper.known == digest(path.read_text().strip()) and not keeper.asked
    assert not keeper.faults
