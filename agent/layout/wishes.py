"""`relevo layout adopt` and `release`: whether the agent holds a pool's workers in their site's slice."""

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import msgspec

from agent.caps.choose import choose
from agent.caps.systemd import Systemd
from agent.config import Caps
from agent.layout import kin
from agent.layout.adopt import ROUND_S, TITLE, Adopted, Kin, scope_of
from agent.layout.adoption import WISHES, kept, read_wishes, write
from agent.layout.attached import Adoptable, Attached
from agent.layout.masters import folder
from agent.layout.running import CGROUPS
from agent.ports import DriverError
from fleet.model import SiteId, Why
from runtime.pulse import Pulse
from runtime.words import explain

# The agent has read the new word by then, also where a round took long.
READ_S = 2 * ROUND_S + 1.0
TAKEN_S = 10.0  # where a round took long, a word may wait for the one after the next
LEAVE_S = 60.0  # Apache and nginx give a request 60 s
EVERY_S = 0.2
DONE = "Done: relevo layout shows it."


def nobody_adopts(settings: Caps, root: Path) -> Why | None:
    """Why the agent of this host, by its own `settings`, adopts nobody's workers; None: it does."""
    # Judged for the agent, which is root, whoever asks.
    chosen = choose(settings, Pulse(), root, uid=0)
    if isinstance(chosen.driver, Systemd):
        return None
    if chosen.driver is None:
        return Why("adoption-unable", {**chosen.why.values, "because": chosen.why.code})
    return Why("adoption-elsewhere", {"subtree": str(settings.subtree)})


def adopting(site: SiteId, one: Attached) -> tuple[str, ...]:
    """What adoption would do and mean, line by line. Raises DriverError where it can't be done."""
    of = one.adoptable
    if of is None:
        raise DriverError(
            f"{site}: only a pool of a php-fpm that many share can be adopted, one whose user no other site has; "
            "see relevo layout"
        )
    return (
        f"The agent takes the workers of {site} from {of.unit} into {scope_of(site)}, in {of.slice}: those that are "
        f"there, and each new one within {ROUND_S:g} s of its start. No request is touched.",
        f"What is held then: CPU, memory, tasks and I/O of {site}, once its caps are in force.",
        "The first two seconds of a new worker are not held, and count for nobody.",
        "Memory that workers have now stays with the old group until they end. A page of the shared opcache is charged "
        "to whoever touched it first: what is in it now to the old group, scripts that this site adds to the site.",
        f"Reloads, restarts and the end of {of.unit} end these workers as before; they die with their master, whatever "
        "ends that.",
    )


def releasing(site: SiteId) -> tuple[str, ...]:
    """The same for the way back."""
    return (
        f"The agent takes no more workers of {site} into {scope_of(site)}, and lifts its caps.",
        "Each worker that is there ends after its request; php-fpm starts others in its own group. No request fails.",
    )


def wish(state: Path, site: SiteId, *, adopt: bool) -> None:
    """Write down what a person wants of `site`; the agent follows in its next round. Raises DriverError."""
    wishes = read_wishes(state)
    if wishes is None:
        raise DriverError(f"{state / WISHES}: can't be read; put it right by hand, or remove it")
    said = msgspec.json.format(msgspec.json.encode({**wishes, site: adopt}))
    write(state / WISHES, said + b"\n")


async def taken(state: Path, site: SiteId, within_s: float = TAKEN_S) -> Adopted | None:
    """What the agent makes of the wish to adopt `site`, by its own word; None: it says nothing within that time."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                one = kept(state).get(site)
                if one is not None and (one.held or one.trouble):
                    return one
                await asyncio.sleep(EVERY_S)
    except TimeoutError:
        return None


def after_adopting(site: SiteId, now: Adopted | None, language: str = "en") -> str:
    """What is said at the end: done is what the agent has done."""
    if now is None:
        why = Why("adoption-noted", {"site": site})
    elif now.trouble:
        why = Why("layout-adoption-fails", {"trouble": now.trouble, "unit": now.unit})
    else:
        return DONE
    return explain(why, language)


async def leave(
    site: SiteId,
    of: Adoptable,
    cgroups: Path = Path(CGROUPS),
    proc: Path = Path("/proc"),
    *,
    read_s: float = READ_S,
    leave_s: float = LEAVE_S,
) -> int:
    """Ask each worker in the scope to end after its request, and wait; gives how many are still there.

    php-fpm's own word for that is SIGQUIT, which it sends at each reload. Source: php-src, sapi/fpm/fpm/fpm_signals.c.
    """
    await asyncio.sleep(read_s)
    scope = cgroups / folder(of.slice) / scope_of(site)
    asked: set[int] = set()
    try:
        async with asyncio.timeout(leave_s):
            while workers := inside(scope, of, cgroups, proc):
                for worker in workers:
                    if worker.pid not in asked:
                        asked.add(worker.pid)
                        _ask_to_end(worker, scope, of, cgroups, proc)
                await asyncio.sleep(EVERY_S)
    except TimeoutError:
        pass
    return len(inside(scope, of, cgroups, proc))


def inside(scope: Path, of: Adoptable, cgroups: Path, proc: Path) -> tuple[Kin, ...]:
    """The workers in `scope` whose master lives: nobody else may be told to end."""
    try:
        master, _ = kin.crowd(of, cgroups, proc)
    except kin.Odd:
        return ()
    return tuple(
        one
        for one in kin.inside(scope, proc) or ()
        if one.uid in of.uids and one.parent == master and one.title.startswith(TITLE)
    )


def _ask_to_end(worker: Kin, scope: Path, of: Adoptable, cgroups: Path, proc: Path) -> None:
    with suppress(ProcessLookupError):
        # Held while it is looked at again: the pid may be somebody else's by now.
        process = os.pidfd_open(worker.pid)
        try:
            if worker in inside(scope, of, cgroups, proc):
                signal.pidfd_send_signal(process, signal.SIGQUIT)
        finally:
            os.close(process)


def size_why(one: Attached, plan_workers: int | None) -> Why | None:
    """What is to be said of a pool's size against its plan; None: nothing, or its workers are held otherwise."""
    size = one.size
    if size is None or one.adopted or plan_workers is None or size.most == plan_workers:
        return None
    values: dict[str, str | int | float] = {
        "pool": size.pool,
        "place": size.place,
        "unit": size.unit,
        "plan": plan_workers,
    }
    if size.most is None:
        return Why("layout-workers-unsaid", values)
    return Why("layout-workers", {**values, "now": size.most})
