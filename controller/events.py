"""What happens, as it happens: a bounded memory of events that streams follow, each at its own pace."""

from collections import deque
from dataclasses import dataclass

from runtime.pulse import Pulse

KEPT = 1000


@dataclass(frozen=True, slots=True)
class Happening:
    """One event: `id` grows by one, `data` is JSON-ready."""

    id: int
    kind: str
    data: dict[str, object]


class Events:
    """The last 1,000 events. A reader that falls further behind is told that it missed some, never slows us."""

    def __init__(self) -> None:
        self.added = Pulse()
        self._kept: deque[Happening] = deque(maxlen=KEPT)
        self._last = 0

    def publish(self, kind: str, **data: object) -> None:
        self._last += 1
        self._kept.append(Happening(self._last, kind, data))
        self.added.beat()

    def since(self, id: int) -> tuple[Happening, ...]:
        """Every kept event after `id`, oldest first. A gap after `id` means that some were forgotten."""
        return tuple(event for event in self._kept if event.id > id)

    @property
    def last(self) -> int:
        return self._last

    @property
    def forgotten(self) -> int:
        """The newest event that is no longer remembered; 0 while all are."""
        return self._last - len(self._kept)
