"""A letter to people: what the drivers send, and the JSON that webhooks and commands read."""

from typing import Literal, Protocol

import msgspec


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One matter in words. `commands`: what to type to answer; `link`: its page on the dashboard."""

    key: str
    what: str
    stage: str
    severity: Literal["act", "bad", "info"]
    subject: str
    headline: str
    text: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    link: str = ""


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is the same when a letter is sent again; `follows`: ids of the letters that began its threads.

    `at` is ISO 8601, UTC. `text` is all of it for people to read, in each language of the receiver.
    `more`: of a digest, how many matters are not among its `notices`.
    """

    id: str
    at: str
    kind: Literal["notice", "digest", "test"]
    severity: Literal["act", "bad", "info"]
    cluster: str
    controller: str
    follows: tuple[str, ...] = ()
    subject: str
    text: str
    notices: tuple[Notice, ...] = ()
    more: int = 0


class NotSent(Exception):
    """The receiver was not reached, or refused. `final`: the same again would be refused again."""

    def __init__(self, said: str, *, final: bool = False) -> None:
        super().__init__(said)
        self.final = final


class Notifier(Protocol):
    """One way to one receiver."""

    async def send(self, letter: Letter) -> None:
        """Ends within its own timeout. Raises NotSent."""
        ...
