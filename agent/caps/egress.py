"""What sites may send out, by user: port 25 is closed but to the mail servers, and an isolated site is shut in.

By user, because that holds wherever a process runs: in a slice, a shared pool or a stray session. One table of our own,
replaced whole in one transaction; what is in other tables is other people's.
Source: nft(8); kernel, networking/nf_conntrack.
"""

import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from agent.caps.kernel import look
from agent.lane import Lane
from agent.ports import DriverError

TABLE = "inet relevo"
# Far above any nft that works; a kernel without the tables fails sooner.
RUN_S = 5.0
END_S = 6.0  # one that is not even killed by then waits for the kernel, and nobody for it
SAID_MAX = 300
COUNT_S = 2.0  # whoever counts has other things to look at


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By uid. `sites`: those who may send mail by the mail servers only; `isolated`: who may send nothing else either.

    Addresses beside this machine's own: `mail` servers, the `resolvers` and `databases` that isolated sites still need.
    """

    sites: frozenset[int] = frozenset()
    isolated: frozenset[int] = frozenset()
    mail: tuple[str, ...] = ()
    resolvers: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()


class Firewall(Protocol):
    async def hold(self, rules: Rules) -> bool:
        """Make `rules` true, idempotent; gives whether somebody else had changed them. Raises DriverError."""
        ...


def render(rules: Rules) -> str:
    """The table as `nft -f` reads it. Adding it first makes the deletion valid where it is not there."""
    return f"""\
table {TABLE}
delete table {TABLE}
table {TABLE} {{
{_set("sites", "uid", map(str, sorted(rules.sites | rules.isolated)))}
{_set("isolated", "uid", map(str, sorted(rules.isolated)))}
{_set("refused", "uid", map(str, sorted(rules.sites | rules.isolated)), counter=True)}
{_set("mail4", "ipv4_addr", _of(4, rules.mail))}
{_set("mail6", "ipv6_addr", _of(6, rules.mail))}
{_set("resolvers4", "ipv4_addr", _of(4, rules.resolvers))}
{_set("resolvers6", "ipv6_addr", _of(6, rules.resolvers))}
{_set("databases4", "ipv4_addr", _of(4, rules.databases))}
{_set("databases6", "ipv6_addr", _of(6, rules.databases))}
	chain egress {{
		type filter hook output priority filter; policy accept;
		oifname "lo" accept
		meta skuid @sites tcp dport 25 jump mail
		meta skuid @isolated jump isolated
	}}
	chain mail {{
		ip daddr @mail4 accept
		ip6 daddr @mail6 accept
		meta skuid @refused counter reject with tcp reset
	}}
	chain isolated {{
		ct direction reply accept
		ip daddr @resolvers4 meta l4proto {{ tcp, udp }} th dport 53 accept
		ip6 daddr @resolvers6 meta l4proto {{ tcp, udp }} th dport 53 accept
		ip daddr @databases4 accept
		ip6 daddr @databases6 accept
		meta l4proto tcp counter reject with tcp reset
		counter reject
	}}
}}
"""


def _set(name: str, kind: str, elements: Iterable[str], *, counter: bool = False) -> str:
    listed = ", ".join(elements)
    held = f"elements = {{ {listed} }}; " if listed else ""
    counted = "counter; " if counter else ""
    return f"\tset {name} {{ type {kind}; {counted}{held}}}"


def _of(version: int, addresses: Collection[str]) -> list[str]:
    found = {ip_address(each) for each in addresses}
    return [str(each) for each in sorted(found, key=str) if each.version == version]


class _Counter(msgspec.Struct):
    packets: int


class _Element(msgspec.Struct):
    val: int
    counter: _Counter


class _Elements(msgspec.Struct):
    elem: list[dict[Literal["elem"], _Element]] = []


class _Listed(msgspec.Struct):
    nftables: list[dict[str, msgspec.Raw]]


def counts(listed: bytes) -> dict[int, int]:
    """Packets by uid of a set as `nft -j` lists it: libnftables-json(5). Raises DriverError."""
    try:
        of = msgspec.json.decode(listed, type=_Listed).nftables
        sets = [msgspec.json.decode(one["set"], type=_Elements) for one in of if "set" in one]
    except (msgspec.DecodeError, RecursionError) as error:
        raise DriverError(f"nft lists what is no set: {error}") from error
    return {
        element.val: element.counter.packets
        for one in sets
        for held in one.elem
        for element in held.values()
    }


class Nft:
    """The firewall by the command `nft`, which reads the rules at `path`; they stay when the agent goes."""

    def __init__(self, path: Path, command: str = "nft") -> None:
        self._path, self._command = path, command
        self._disk, self._commands = Lane(), Lane()
        self._held: Rules | None = None
        self._listed = ""  # our table as nft itself writes it

    async def hold(self, rules: Rules) -> bool:
        if self._held is None and not rules.sites | rules.isolated and not await self._is_there():
            return False  # nothing to hold, and nothing of ours to take away
        changed = False
        if rules == self._held:
            if await self._list() == self._listed:
                return False
            changed = True
        await look(self._disk, self._path.write_text, render(rules))
        await self._run("-f", str(self._path))
        self._held, self._listed = rules, await self._list()
        return changed

    def refused(self) -> Mapping[int, int]:
        """Connections to mail servers elsewhere that were refused to each uid since the rules were last written.

        From any thread; blocks for up to COUNT_S. Nothing is asked where nothing is held. Raises DriverError.
        """
        held = self._held
        if held is None or not held.sites | held.isolated:
            return {}
        return counts(self._say(["-j", "list", "set", *TABLE.split(), "refused"], COUNT_S))

    async def _is_there(self) -> bool:
        return shutil.which(self._command) is not None and bool(await self._list())

    async def _list(self) -> str:
        """Our table without its counters; empty where there is none."""
        try:
            return await self._run("-s", "list", "table", *TABLE.split())
        except DriverError:
            return ""

    async def _run(self, *arguments: str) -> str:
        """In a thread of its own: to begin a process holds up whoever begins it, an event loop by 10 ms and more."""
        return (await self._commands.run(END_S, partial(self._say, arguments, RUN_S))).decode(
            errors="replace"
        )

    def _say(self, arguments: Sequence[str], within_s: float) -> bytes:
        """What the command answers; blocks. Raises DriverError."""
        try:
            done = subprocess.run(  # noqa: S603 - the administrator's nft, and words of our own
                [self._command, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DriverError(f"{self._command}: no answer within {within_s:g} s") from error
        except OSError as error:
            raise DriverError(f"{self._command}: {error.strerror}: egress stays open") from error
        if done.returncode:
            told = done.stderr.decode(errors="replace").strip()
            raise DriverError(f"{self._command}: {told[:SAID_MAX] or done.returncode}")
        return done.stdout
