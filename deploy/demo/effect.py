"""Measures by effect alone: asks as the public would until every answer is right; no controller is believed."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from dns.rdatatype import AAAA, A, RdataType

from deploy.demo.lab import Door, Kind, Lab, Machine
from deploy.demo.visit import NoAnswer, resolve, visit
from fleet.model import Site

EVERY_S = 0.02
PATIENCE_S = 1.0

P = TypeVar("P")
Q = TypeVar("Q")


class Incomplete(Exception):
    """Time is over and not every answer is right; the message names some that are not."""


@dataclass(frozen=True, slots=True)
class Record:
    """One name's addresses of one kind."""

    site: Site
    kind: RdataType

    def __str__(self) -> str:
        return f"{self.kind.name} of {self.site.domains[0]}"


class _Converging(Generic[P, Q]):
    """Questions that are asked again and again until each has been answered right once."""

    def __init__(
        self, wanted: Mapping[P, Iterable[Q]], is_right: Callable[[P, Q], Awaitable[bool]]
    ) -> None:
        self._is_right = is_right
        self._now = asyncio.get_running_loop().time
        self._attempts: list[asyncio.Task[None]] = []
        self.missing = {place: list(questions) for place, questions in wanted.items()}
        self.last = self._now()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as attempts:
            async with asyncio.TaskGroup() as places:
                for place in self.missing:
                    places.create_task(self._ask_at(place, attempts))
            for attempt in self._attempts:
                attempt.cancel()

    async def _ask_at(self, place: P, attempts: asyncio.TaskGroup) -> None:
        """In turns until one answer here is right, then all that are left at once."""
        missing = self.missing[place]
        all_of_them = len(missing)
        for turn in count():
            if not missing:
                return
            at_once = len(missing) < all_of_them
            for question in tuple(missing) if at_once else (missing[turn % all_of_them],):
                attempt = attempts.create_task(self._attempt(place, question))
                self._attempts.append(attempt)
            await asyncio.sleep(EVERY_S)

    async def _attempt(self, place: P, question: Q) -> None:
        if await self._is_right(place, question) and question in self.missing[place]:
            self.missing[place].remove(question)
            self.last = self._now()


async def converged(
    wanted: Mapping[P, Iterable[Q]],
    is_right: Callable[[P, Q], Awaitable[bool]],
    *,
    until: float,
) -> float:
    """When (loop time, s) the last of `wanted` was first answered right, each question at each place.

    Asked every 20 ms, whatever has become of the questions before. Raises Incomplete at `until`.
    """
    converging = _Converging(wanted, is_right)
    try:
        async with asyncio.timeout_at(until):
            await converging.run()
    except TimeoutError:
        left = [f"{q} at {place}" for place, some in converging.missing.items() for q in some]
        raise Incomplete(f"{len(left)} answers are not right: {', '.join(left[:3])}…") from None
    return converging.last


class Public:
    """Asks the edges and the name servers of `lab`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._hosts = {machine.name: machine for machine in lab.of(Kind.WEB)}

    async def served(
        self, sites: Iterable[Site], doors: Iterable[Door], *, not_by: str = "", until: float
    ) -> float:
        """When every site behind the edges answers at every door, and from another host than `not_by`."""
        avoided = self._hosts[not_by].tag if not_by else ""
        named = {str(site.id): site for site in sites if site.route == "edges"}

        async def is_right(door: Door, id: str) -> bool:
            loop_time = asyncio.get_running_loop().time
            try:
                answer = await visit(door, named[id].domains[0], until=loop_time() + PATIENCE_S)
            except NoAnswer:
                return False
            return answer.is_from(id) and answer.host != avoided

        return await converged(dict.fromkeys(doors, tuple(named)), is_right, until=until)

    async def announced(self, sites: Iterable[Site], *, not_by: str = "", until: float) -> float:
        """When every name server has, for every direct site, the addresses of one host that is not `not_by`."""
        records = tuple(
            Record(site, kind)
            for site in sites
            if site.route == "direct"
            for kind in self._kinds(self._hosts[site.home])
        )

        async def is_right(server: Door, record: Record) -> bool:
            name = record.site.domains[0]
            try:
                found = await resolve(server, name, record.kind, timeout_s=PATIENCE_S)
            except NoAnswer:
                return False
            return any(
                found == self._addresses(machine, record.kind)
                for machine in self._hosts.values()
                if machine.name != not_by
            )

        places = dict.fromkeys(self._lab.name_servers, records)
        return await converged(places, is_right, until=until)

    def _kinds(self, machine: Machine) -> tuple[RdataType, ...]:
        return tuple(kind for kind in (A, AAAA) if self._addresses(machine, kind))

    def _addresses(self, machine: Machine, kind: RdataType) -> frozenset[str]:
        return frozenset(a for a in machine.addresses if (":" in a) is (kind is AAAA))
