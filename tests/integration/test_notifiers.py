"""The ways to people, against real servers and a real program: taken, refused, hanging, in the clear."""

import asyncio
import hashlib
import hmac
import json
import os
import re
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from cli.failures import Exit
from controller.config import Config
from controller.notify.hook import Hook
from controller.notify.letter import Letter, Notice, NotSent
from controller.notify.mail import Mailer
from controller.notify.post import Post, notifier
from controller.notify.settings import Command, Mail, Webhook
from controller.notify.webhook import Poster
from deploy.demo.certificates import Authority
from fleet.model import Hold, Why
from runtime.config import BadConfig, load
from tests.integration.controllers import ADMINS, controller_served
from tests.integration.mailserver import PASSWORD, USER, Inbox, mail_server, silent_server
from tests.unit.commands import Said, relevo

pytestmark = pytest.mark.integration

LETTER = Letter(
    id="a" * 24,
    at="2026-11-21T04:05:06.789Z",
    kind="notice",
    severity="act",
    cluster="k",
    controller="c1",
    follows=("b" * 24, "c" * 24),
    subject="[relevo] web1: 3 sitios esperan a una persona",
    text="Está retenido: ñandú →\n  relevo site move …\n" + "x" * 2000 + "\n",
    notices=(
        Notice(key="k", what="holds", stage="s", severity="act", subject="web1", headline="h"),
    ),
)


def mail(port: int, **values: object) -> Mail:
    said = {"tls": "none", "to": ["ana@coop.example"], "timeout_s": 1.0, **values}
    base = {"kind": "mail", "name": "admins", "server": "127.0.0.1", "port": port}
    return msgspec.convert(
        {**base, "from": "relevo@coop.example", **said},
        Mail,
        dec_hook=lambda kind, value: kind(value),
    )


def secret(directory: Path, text: str) -> str:
    path = directory / "secret"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def server_tls(directory: Path) -> tuple[ssl.SSLContext, Path]:
    authority = Authority(directory)
    own = authority.issue("mail", ("127.0.0.1",))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(own.certificate, own.key)
    return context, authority.path


async def test_a_mail_has_its_text_its_thread_and_the_same_id_each_time() -> None:
    """And says that a machine wrote it, so that no machine answers."""
    inbox = Inbox()
    async with mail_server(inbox) as port:
        mailer = Mailer(mail(port, to=["ana@coop.example", "beto@coop.example"]))
        await mailer.send(LETTER)
        await mailer.send(LETTER)
    first, second = inbox.letters
    assert first["Message-ID"] == second["Message-ID"] == f"<relevo.{'a' * 24}@coop.example>"
    assert first["In-Reply-To"] == f"<relevo.{'b' * 24}@coop.example>"
    assert first["References"].split() == [f"<relevo.{i * 24}@coop.example>" for i in "bc"]
    assert first["Auto-Submitted"] == "auto-generated"
    assert first["Subject"] == LETTER.subject
    assert first.get_content().replace("\r\n", "\n") == LETTER.text
    assert inbox.to[0] == ["ana@coop.example", "beto@coop.example"]


@pytest.mark.parametrize("way", ["starttls", "tls"])
async def test_a_mail_goes_encrypted_and_logged_in(tmp_path: Path, way: str) -> None:
    """By STARTTLS or from the start; a certificate of somebody else's ends it before the password is said."""
    context, ca = server_tls(tmp_path)
    inbox, words = Inbox(), {"user": USER.decode(), "password": secret(tmp_path, PASSWORD.decode())}
    async with mail_server(inbox, tls=context, at_once=way == "tls", login=True) as port:
        await Mailer(mail(port, tls=way, ca=str(ca), **words)).send(LETTER)
        assert inbox.encrypted == [True]
        with pytest.raises(NotSent, match="certificate"):
            await Mailer(mail(port, tls=way, **words)).send(LETTER)
        wrong = {**words, "password": secret(tmp_path, "another")}
        with pytest.raises(NotSent, match="535") as refused:
            await Mailer(mail(port, tls=way, ca=str(ca), **wrong)).send(LETTER)
        assert refused.value.final
        assert "another" not in str(refused.value)
    assert len(inbox.letters) == 1


async def test_a_server_without_starttls_gets_no_letter_in_the_clear(tmp_path: Path) -> None:
    """Who says that it should be encrypted is not sent around it."""
    inbox = Inbox()
    async with mail_server(inbox) as port:
        with pytest.raises(NotSent):
            await Mailer(mail(port, tls="starttls")).send(LETTER)
    assert inbox.tried == 0


async def test_a_mail_that_may_pass_later_is_told_from_one_that_never_will() -> None:
    """4xx is for now, 5xx is for good; one unknown mailbox of two keeps nothing from the other."""
    inbox = Inbox()
    async with mail_server(inbox) as port:
        mailer = Mailer(mail(port, to=["ana@coop.example", "gone@coop.example"]))
        inbox.answers = ["451 try later", "554 no"]
        for final in (False, True):
            with pytest.raises(NotSent) as error:
                await mailer.send(LETTER)
            assert error.value.final is final
        inbox.unknown = {"gone@coop.example"}
        await mailer.send(LETTER)
        assert inbox.to == [["ana@coop.example"]]
        inbox.unknown.add("ana@coop.example")
        with pytest.raises(NotSent, match="every recipient") as error:
            await mailer.send(LETTER)
        assert error.value.final


async def test_a_mail_server_that_hangs_or_is_away_costs_no_more_than_the_timeout() -> None:
    """It is said, and may pass."""
    now = asyncio.get_running_loop().time
    async with silent_server() as port:
        began = now()
        with pytest.raises(NotSent) as error:
            await Mailer(mail(port)).send(LETTER)
        assert now() - began < 2.0
        assert not error.value.final
    with pytest.raises(NotSent):
        await Mailer(mail(port)).send(LETTER)


# --- webhooks


class Hooked:
    """An HTTP server's memory. `answers`: statuses of the next answers, else 200."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[int] = []
        self.hangs = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        if self.hangs.is_set():
            await asyncio.sleep(30)
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, text="so it is")


@asynccontextmanager
async def web_server(
    hooked: Hooked, tls: ssl.SSLContext | None = None
) -> AsyncGenerator[int, None]:
    app = web.Application()
    app.router.add_post("/{tail:.*}", hooked.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_webhook_is_signed_with_its_time_and_has_text_for_chats(tmp_path: Path) -> None:
    """Whoever has the secret can tell that it is ours, and how old it is."""
    hooked, key = Hooked(), "a-long-secret"
    async with web_server(hooked) as port:
        settings = Webhook(
            name="chat",
            url=f"http://127.0.0.1:{port}/hooks/token",
            secret=Path(secret(tmp_path, key)),
        )
        await Poster(settings).send(LETTER)
        await Poster(msgspec.structs.replace(settings, body="text")).send(LETTER)
    headers, body = hooked.headers[0], hooked.bodies[0]
    signed = f"{headers['Relevo-Timestamp']}.".encode() + body
    expected = hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
    assert headers["Relevo-Signature"] == f"v1={expected}"
    assert headers["Relevo-Notice"] == LETTER.id
    told = json.loads(body)
    assert told["text"].startswith(LETTER.subject)
    assert told["notices"][0]["subject"] == "web1"
    assert list(json.loads(hooked.bodies[1])) == ["text"]


async def test_a_webhook_that_refuses_is_told_without_its_address() -> None:
    """The path of a chat's hook is a secret: no error shows it. 5xx and 429 may pass, 404 and redirects do not."""
    hooked = Hooked()
    async with web_server(hooked) as port:
        poster = Poster(Webhook(name="chat", url=f"http://127.0.0.1:{port}/T0KEN", timeout_s=0.5))
        hooked.answers = [500, 429, 404, 302]
        for final in (False, False, True, True):
            with pytest.raises(NotSent) as error:
                await poster.send(LETTER)
            assert error.value.final is final, error.value
            assert "T0KEN" not in str(error.value)
        hooked.hangs.set()
        with pytest.raises(NotSent, match="no answer in time"):
            await poster.send(LETTER)
    with pytest.raises(NotSent, match="can't connect") as error:
        await poster.send(LETTER)
    assert "T0KEN" not in str(error.value)


async def test_a_webhook_checks_who_answers(tmp_path: Path) -> None:
    """A certificate of somebody else's gets no letter."""
    context, ca = server_tls(tmp_path)
    hooked = Hooked()
    async with web_server(hooked, context) as port:
        url = f"https://127.0.0.1:{port}/"
        with pytest.raises(NotSent, match="certificate"):
            await Poster(Webhook(name="chat", url=url)).send(LETTER)
        assert hooked.bodies == []
        await Poster(Webhook(name="chat", url=url, ca=ca)).send(LETTER)
    assert len(hooked.bodies) == 1


# --- commands


async def test_a_command_gets_the_letter_and_little_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON on its standard input, three words in its environment, nothing of ours."""
    monkeypatch.setenv("SOME_SECRET", "ours")
    out = tmp_path / "out"
    script = "import json, os, sys; json.dump([json.load(sys.stdin), dict(os.environ)], open(sys.argv[1], 'w'))"
    await Hook(Command(name="x", command=(sys.executable, "-c", script, str(out)))).send(LETTER)
    letter, environment = json.loads(out.read_text())
    assert letter["id"] == LETTER.id
    assert environment["RELEVO_SEVERITY"] == "act"
    assert "SOME_SECRET" not in environment


async def test_a_command_that_hangs_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """After its time; what it started is gone too."""
    pid = tmp_path / "pid"
    command = ("/bin/sh", "-c", f"sleep 60 & echo $! > {pid}; wait")
    with pytest.raises(NotSent, match="not done after"):
        await Hook(Command(name="x", command=command, timeout_s=0.5)).send(LETTER)
    child = int(pid.read_text())
    async with asyncio.timeout(5):
        while _lives(child):
            await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" and os.path.exists(
            f"/proc/{pid}"
        )
    except FileNotFoundError:
        return False


async def test_a_command_that_fails_or_does_not_read_is_told_with_its_complaint() -> None:
    """Its status and the end of what it said; a large letter that nobody reads hangs nothing."""
    big = msgspec.structs.replace(LETTER, text="x" * 1_000_000)
    failing = ("/bin/sh", "-c", "echo no modem >&2; exit 3")
    with pytest.raises(NotSent, match="status 3 no modem"):
        await Hook(Command(name="x", command=failing)).send(big)
    await Hook(Command(name="x", command=("/bin/true",))).send(big)
    with pytest.raises(NotSent, match="No such file"):
        await Hook(Command(name="x", command=("/nowhere/at/all",))).send(LETTER)


# --- settings


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"server": "mail.coop.example"}, "on this machine"),
        ({"user": "relevo"}, "come together"),
        ({"to": []}, "length >= 1"),
        ({"to": ["nobody"]}, "regex"),
        ({"what": ["everything"]}, "everything"),
        ({"languages": ["fr"]}, "fr"),
    ],
)
def test_a_setting_that_can_not_be_is_named(said: dict[str, object], why: str) -> None:
    """Before anything runs, with what to do."""
    with pytest.raises(msgspec.ValidationError, match=why):
        mail(25, **said)


def test_a_webhook_never_travels_in_the_clear_beyond_this_machine(tmp_path: Path) -> None:
    """Neither written in the configuration nor in a file that it names."""
    with pytest.raises(ValueError, match="in the clear"):
        Webhook(name="chat", url="http://chat.coop.example/x")
    with pytest.raises(ValueError, match="one of"):
        Webhook(name="chat")
    file = Path(secret(tmp_path, "http://chat.coop.example/x"))
    with pytest.raises(BadConfig, match="in the clear"):
        Poster(Webhook(name="chat", url_file=file))


# --- the whole


async def test_an_admin_sees_that_it_works(tmp_path: Path) -> None:
    """`relevo notify` over the real API: nobody yet; then who is called, a test taken and one refused."""
    inbox = Inbox()
    async with mail_server(inbox) as port, controller_served(tmp_path) as served:

        async def run(*said: str) -> Said:
            where = {"RELEVO_URL": served.url, "RELEVO_CA": str(served.ca)}
            return await relevo("notify", *said, RELEVO_TOKEN=ADMINS["ana"], **where)

        assert "calls nobody" in (await run("list")).out
        assert "calls nobody" in (await run("test")).out
        good = mail(port)
        bad = Command(name="modem", command=("/bin/false",), least="act")
        served.controller.post = Post(
            served.controller, [(good, notifier(good)), (bad, notifier(bad))]
        )
        assert "admins (mail): holds" in (await run("list")).out
        said = await run("test", "admins")
        assert (said.code, said.err) == (0, "")
        assert "admins: taken after" in said.out
        assert "[relevo] A test" in [letter["Subject"] for letter in inbox.letters]
        assert "that ana asked for" in inbox.letters[0].get_content()
        both = await run("test")
        assert both.code == Exit.FAILED
        assert "not sent to: modem" in both.err
        assert "NOT SENT: /bin/false ended with status 1" in " ".join(
            (await run("list")).out.split()
        )
        assert (await run("test", "nobody")).code == Exit.NOT_FOUND
        counted = served.controller.exporter.render().decode()
        assert 'relevo_notices_total{notifier="admins",outcome="sent"} 2.0' in counted
        assert 'relevo_notices_total{notifier="modem",outcome="failed"} 1.0' in counted


async def test_a_hold_in_the_store_becomes_a_mail_in_seconds_and_is_remembered(
    tmp_path: Path,
) -> None:
    """With a server that says 451 once; the record in the store keeps the next leader from repeating it."""
    inbox = Inbox()
    inbox.answers = ["451 try later"]
    async with mail_server(inbox) as port, controller_served(tmp_path) as served:
        controller, settings = served.controller, mail(port, languages=["es", "en"])
        await served.apply()
        note = Why("dns-not-ours", {"name": "choir.example", "addresses": "198.51.100.7"})
        held = Hold(id="dns-choir", kind="dns", subject="choir.example", why=note, since=1.0)
        controller.converger.holds = lambda: {held.id: held}  # type: ignore[method-assign]
        controller.post = Post(controller, [(settings, notifier(settings))])
        async with asyncio.TaskGroup() as group:
            carrying = group.create_task(controller.post.run())
            async with asyncio.timeout(8):
                while not inbox.letters or "admins" not in controller.mirror.notified:
                    await asyncio.sleep(0.02)
                while "holds/dns-choir" not in controller.mirror.notified["admins"].told:
                    await asyncio.sleep(0.02)
            carrying.cancel()
        assert inbox.tried == 2
        (letter,) = inbox.letters
        assert letter["Subject"] == "[relevo] choir.example: su DNS espera a una persona"
        assert "relevo holds" in letter.get_content()
        again = Post(controller, [(settings, notifier(settings))])
        async with asyncio.TaskGroup() as group:
            carrying = group.create_task(again.run())
            await asyncio.sleep(2.0)
            carrying.cancel()
        assert len(inbox.letters) == 1


def test_the_tables_of_the_manual_are_read_as_they_stand(tmp_path: Path) -> None:
    """Every table of docs/notifications.md, in one controller.toml."""
    text = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()
    tables = "\n".join(re.findall(r"```toml\n(.*?)```", text, re.S))
    file = tmp_path / "controller.toml"
    file.write_text(f'id = "c1"\n{tables}')
    config = load(file, Config)
    assert [type(receiver) for receiver in config.notify] == [Mail, Webhook, Command]
    file.write_text(f'id = "c1"\n{tables}\n{tables}')
    with pytest.raises(BadConfig, match="two receivers have the name"):
        load(file, Config)
    file.write_text('id = "c1"\n[[notify]]\nname = "x"\nkind = "pigeon"\n')
    with pytest.raises(BadConfig, match="pigeon"):
        load(file, Config)
