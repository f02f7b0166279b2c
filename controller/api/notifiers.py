"""Who is called over HTTP: the receivers of notices, and a test of each."""

from typing import TYPE_CHECKING

import msgspec

from controller.api.problems import NotFound
from controller.api.routes import Call, Nothing, Route, route
from fleet.model import Name

if TYPE_CHECKING:
    from controller.parts import Controller


class ReceiverTold(msgspec.Struct, frozen=True, kw_only=True):
    """`waiting`: matters due and not told yet. `sent_at` is Unix s; `error`: why the last letter was not sent."""

    name: str
    kind: str
    what: tuple[str, ...]
    least: str
    languages: tuple[str, ...]
    waiting: int
    sent_at: float | None
    error: str


class ReceiversTold(msgspec.Struct, frozen=True, kw_only=True):
    """As `controller` knows them: each has a configuration of its own."""

    controller: str
    receivers: tuple[ReceiverTold, ...]


class TestOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name`: of one receiver; null: all of them."""

    name: Name | None = None


class TestedTold(msgspec.Struct, frozen=True, kw_only=True):
    """`error` is empty where the test was taken."""

    name: str
    error: str
    took_s: float


class TestsTold(msgspec.Struct, frozen=True, kw_only=True):
    controller: str
    tests: tuple[TestedTold, ...]


class Notifiers:
    def __init__(self, controller: "Controller") -> None:
        self._controller = controller

    def routes(self) -> list[Route]:
        test = route(
            "POST", "/v1/notifiers/test", self.test, role="operator", refuses=("not-found",)
        )
        return [route("GET", "/v1/notifiers", self.look, role="viewer"), test]

    async def look(self, call: Call[Nothing, None]) -> ReceiversTold:
        """Who is called by this controller, and how the last letter to each went."""
        told = [
            ReceiverTold(
                name=courier.receiver.name,
                kind=type(courier.receiver).__name__.lower(),
                what=courier.receiver.what,
                least=courier.receiver.least,
                languages=courier.receiver.languages,
                waiting=courier.waiting,
                sent_at=courier.sent_at,
                error=courier.error,
            )
            for courier in self._controller.post.couriers
        ]
        return ReceiversTold(controller=self._controller.config.id, receivers=tuple(told))

    async def test(self, call: Call[Nothing, TestOrder]) -> TestsTold:
        """Send a letter that says that it is a test, now; the controller that leads sends it."""
        try:
            tried = await self._controller.post.test(call.body.name, call.who)
        except KeyError as error:
            raise NotFound(f"no receiver {call.body.name!r} in the configuration") from error
        tests = tuple(TestedTold(name=t.name, error=t.error, took_s=t.took_s) for t in tried)
        return TestsTold(controller=self._controller.config.id, tests=tests)
