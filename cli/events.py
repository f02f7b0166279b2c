"""Events as they happen. Source: WHATWG HTML, server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import aiohttp
import click
import msgspec

from cli import answers, tables
from cli.client import CONNECT_S, Controllers, Elsewhere
from cli.failures import Exit, Failure
from cli.looks import read
from cli.options import talks

SILENCE_S = 25.0  # a controller says something every 10 s
AGAIN_S = 2.0  # after a lost stream
LINE_BYTES = 4 << 20  # an incident that moved 10,000 sites


@click.command()
@click.option("--follow", "-f", is_flag=True, help="go on until interrupted")
@talks
def events(to: Controllers, as_json: bool, follow: bool) -> None:
    """What has happened lately; with --follow, also what happens from now on."""
    if not follow:
        body = to.every("/v1/events", "events", accept="application/json")
        for event in read(body, answers.Events).events:
            told(event, as_json)
        return
    try:
        asyncio.run(_follow(to, as_json))
    except KeyboardInterrupt:
        return


async def _follow(to: Controllers, as_json: bool) -> None:
    """One stream after the other, each going on where the last one ended."""
    last, lost = "", ""
    async with to.session() as session:
        while True:
            found = False
            for url in to.urls:
                try:
                    async with aclosing(stream(to, session, url, last)) as events:
                        async for event in events:
                            found, last = True, event.id or last
                            told(event, as_json)
                except (aiohttp.ClientError, OSError, Elsewhere) as error:
                    lost = f"{url}: {error or type(error).__name__}"
                    found = found or bool(last)
            if not found:
                raise Failure(f"no controller could be reached: {lost}", Exit.UNREACHABLE)
            click.echo(f"{lost or 'the stream has ended'}; trying again", err=True)
            await asyncio.sleep(AGAIN_S)


async def stream(
    to: Controllers, session: aiohttp.ClientSession, url: str, last: str
) -> AsyncGenerator[answers.Event, None]:
    """Events of one controller after `last`, or all that it remembers. Raises Failure, OSError, ClientError."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
    async with session.get(
        f"{url}/v1/events", params={"history": "1"}, headers=headers, timeout=timeout
    ) as response:
        if response.status >= 400:
            to.refused(url, response.status, await response.read())
        fields: dict[str, str] = {}
        async for line in lines(response.content):
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields.get("event"):
                yield answers.Event(
                    id=fields.get("id", ""),
                    event=fields["event"],
                    data=msgspec.json.decode(fields.get("data", "{}"), type=dict[str, object]),
                )
                fields = {}


async def lines(content: aiohttp.StreamReader) -> AsyncGenerator[str, None]:
    """Lines of any length up to LINE_BYTES."""
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES:
            raise OSError(f"a line of more than {LINE_BYTES:,} bytes")
        for line in whole:
            yield line.decode(errors="replace")


def told(event: answers.Event, as_json: bool) -> None:
    """One line for each event."""
    if as_json:
        click.echo(msgspec.json.encode(event))
        return
    tables.console().print(tables.plain(f"{event.event:9} {sentence(event)}"))


def sentence(event: answers.Event) -> str:
    """What an event says, in a line."""
    data = event.data
    match event.event:
        case "verdict":
            return f"{data.get('host')}: {data.get('old')} -> {data.get('new')}. {text(data)}"
        case "incident":
            found = msgspec.convert(data.get("incident"), answers.Incident)
            last = found.timeline[-1] if found.timeline else None
            line = f" +{last.offset_s:.1f} s {last.phase}: {tables.why(last.why)}" if last else ""
            return f"{found.id} ({found.verdict}, {found.state}){line}"
        case "audit":
            because = f" ({data['reason']})" if data.get("reason") else ""
            subject = str(data.get("subject", "")).partition("\n")[0]
            return f"{data.get('who')}: {data.get('what')} {subject}{because}"
        case "holds":
            waiting = data.get("holds")
            count = len(waiting) if isinstance(waiting, list) else 0
            return f"{count} waiting; see: relevo holds" if count else "nothing is held"
        case "reset":
            return "some events may be lost"
    return ", ".join(f"{name}: {value}" for name, value in data.items())


def text(data: dict[str, object]) -> str:
    why = data.get("why")
    return str(why.get("text", "")) if isinstance(why, dict) else ""
