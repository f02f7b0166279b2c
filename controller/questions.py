"""Questions to hosts by the links that their agents hold: few at a time, each for a limited time.

Every controller asks for itself: agents are linked to each. Who has no link to a host says who has.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import count

import msgspec

from controller.ports import ConnectionLost
from fleet.model import ControllerId, HostId, Observation
from fleet.pastuse import PastAsked, PastTold
from metrics.exporter import Exporter

ANSWER_S = 8.0  # a host's disk may take 5, an ocean 1; people wait no longer for a picture
OF_ONE_HOST = 4  # open at a time: a host answers one after another
OF_ALL = 64

_encode = msgspec.json.Encoder().encode

Send = Callable[[bytes], Awaitable[None]]
"""Raises ConnectionLost."""


class NotLinked(Exception):
    """The host has no link to this controller. `elsewhere`: where the controllers are that hear it, by their words."""

    def __init__(self, host: HostId, elsewhere: Mapping[ControllerId, str] | None = None) -> None:
        places = [f"{id} ({url})" if url else id for id, url in sorted((elsewhere or {}).items())]
        others = f"; it has one to {', '.join(places)}" if places else ", nor to any other"
        said = others if elsewhere is not None else ""
        super().__init__(f"the agent of {host} has no link to this controller{said}")


class NoAnswer(Exception):
    """The host was asked, and gave no answer; the message names it and says what is known of why."""


class TooManyQuestions(Exception):
    """As many are open as may be."""


class Questions:
    """One controller's open questions. What a host says that it was not asked is dropped (rule R15)."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._numbers = count(1)
        self._open: dict[int, tuple[HostId, asyncio.Future[PastTold]]] = {}

    async def ask(self, host: HostId, asked: PastAsked, send: Send | None) -> PastTold:
        """Its answer to `asked`, whose number is given here; `send` None: the host has no link.

        Raises NotLinked, NoAnswer, TooManyQuestions.
        """
        if send is None:
            self._count("not-linked")
            raise NotLinked(host)
        if len(self._open) >= OF_ALL or self._of(host) >= OF_ONE_HOST:
            self._count("busy")
            raise TooManyQuestions(f"{self._of(host)} questions to {host} are open already")
        number = next(self._numbers)
        answer: asyncio.Future[PastTold] = asyncio.get_running_loop().create_future()
        self._open[number] = (host, answer)
        try:
            async with asyncio.timeout(ANSWER_S):
                await send(_encode(msgspec.structs.replace(asked, number=number)))
                told = await answer
        except ConnectionLost as error:
            self._count("silent")
            raise NoAnswer(f"the link to {host} broke: {error}") from error
        except TimeoutError as error:
            self._count("silent")
            raise NoAnswer(f"the host {host} did not answer within {ANSWER_S:g} s") from error
        finally:
            del self._open[number]
        if told.error:
            self._count("failed")
            raise NoAnswer(f"the host {host} can't tell: {told.error}")
        self._count("answered")
        return told

    def take(self, host: HostId, told: PastTold) -> None:
        """What `host` says; of what it was not asked, or is no longer, nothing is kept."""
        asked, answer = self._open.get(told.number, (None, None))
        if asked == host and answer is not None and not answer.done():
            answer.set_result(told)

    def _of(self, host: HostId) -> int:
        return sum(asked == host for asked, _ in self._open.values())

    def _count(self, outcome: str) -> None:
        self._exporter.count("relevo_link_questions_total", outcome=outcome)


def hearing(
    host: HostId, me: ControllerId, observers: Mapping[ControllerId, Observation]
) -> frozenset[ControllerId]:
    """The other controllers that hear `host` well, by what they told last."""
    return frozenset(id for id, said in observers.items() if id != me and host not in said.words)
