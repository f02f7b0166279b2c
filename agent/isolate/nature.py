"""Heavy, crawled, viral or hacked, by cheap signs: each nature has its own way up the ladder (caps.md §1.13)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.isolate.policy import HOUR_S, Policy
from agent.isolate.state import HOURS, Frame
from agent.signals import SiteSigns
from fleet.caps import Level, Nature, Resource
from fleet.model import Caps, SiteId

# Signs of a break-in. The others an owner makes too, and often together: an import added to the crontab that works for
# long without a visitor, a server of his own, a newsletter by a relay. So those only add to one of these.
STRONG = frozenset({"fan-out", "runs-from-uploads"})
CRON = "cron-changed"


@dataclass(frozen=True, slots=True)
class Way:
    """How high a nature may climb without a person, how many soft steps come before a cap, and why.

    Soft steps are counted while they are remembered, be they of one squeeze or of several; only the CPU has them.
    """

    highest: Level
    softs: int
    reason: str


# A crowd is turned away at the edges first, by rates that are counted for a minute: that shows in a second trial of
# 30 s, and not in one. People get one more; each is paid by the neighbours, who did nothing either (caps.md D.3).
WAYS: Mapping[Nature, Way] = {
    Nature.HEAVY: Way(Level.STOP, 1, "its own code: only less of it helps"),
    Nature.CRAWLED: Way(
        Level.CAP, 2, "its visitors are machines: the edges turn them away; the site did nothing"
    ),
    Nature.VIRAL: Way(
        Level.CAP, 3, "its visitors are people: it is held last, and never closed for its success"
    ),
    Nature.HACKED: Way(Level.STOP, 0, "every minute harms others: it is cut off before it is slow"),
}

CROWDS = frozenset({Nature.CRAWLED, Nature.VIRAL})


def showing(
    before: Mapping[SiteId, Mapping[str, float]],
    sites: Mapping[SiteId, SiteSigns],
    policy: Policy,
    at: float,
) -> dict[SiteId, dict[str, float]]:
    """Site -> sign -> since when it shows without a break (ladder time); `before` is that of the last round.

    A change of the crontab is an event, and shows for an hour.
    """
    found: dict[SiteId, dict[str, float]] = {}
    for site, signs in sites.items():
        if site not in before and not _is_odd(signs, policy):
            continue  # nearly all of them, nearly always
        known = before.get(site, {})
        shown = {sign: known.get(sign, at) for sign in _shown(signs, policy)}
        if at - known.get(CRON, -HOUR_S) < HOUR_S:
            shown[CRON] = known[CRON]
        if shown:
            found[site] = shown
    return found


def _is_odd(signs: SiteSigns, policy: Policy) -> bool:
    return bool(
        signs.direct_mail_per_s
        or signs.refused_mail_per_s
        or signs.new_destinations_per_s
        or signs.runs_from_uploads
        or signs.listens
        or signs.cron_changed
        or (signs.cpu_cores or 0.0) >= policy.signs.miner_cores
    )


def mails(signs: SiteSigns) -> float:
    """Connections to mail servers elsewhere that it made or tried, per second."""
    return (signs.direct_mail_per_s or 0.0) + (signs.refused_mail_per_s or 0.0)


def _shown(signs: SiteSigns, policy: Policy) -> Iterator[str]:
    limits = policy.signs
    if mails(signs) >= limits.direct_mails_per_s:
        # One thing that it does, and so one sign, whether or not port 25 is open to it.
        yield "refused-mail" if signs.refused_mail_per_s else "direct-mail"
    if (signs.new_destinations_per_s or 0.0) >= limits.destinations_per_s:
        yield "fan-out"
    if signs.runs_from_uploads:
        yield "runs-from-uploads"
    if signs.listens:
        yield "listens"
    if signs.cron_changed:
        yield CRON
    if (
        (signs.cpu_cores or 0.0) >= limits.miner_cores
        and signs.requests_per_s is not None
        and signs.requests_per_s < limits.miner_requests_per_s
    ):
        yield "miner"


def standing(shown: Mapping[str, float], policy: Policy, at: float) -> tuple[str, ...]:
    """The signs that have shown for long enough to count, by name."""
    return tuple(
        sorted(
            sign
            for sign, since in shown.items()
            if at - since >= (policy.signs.miner_s if sign == "miner" else policy.signs.for_s)
        )
    )


def is_hacked(signs: Sequence[str], policy: Policy) -> bool:
    """Whether `signs` are enough to cut a site off: several, one of them none that an owner makes too."""
    return len(signs) >= policy.signs.needed and not STRONG.isdisjoint(signs)


def nature(
    site: SiteId,
    window: Sequence[Frame],
    caps: Caps,
    past: Mapping[Resource, Sequence[float]],
    policy: Policy,
    at: float,
) -> Nature:
    """What kind of trouble a suspect is, hacked apart: by its requests, and by how many ask."""
    limits = policy.signs
    recent = [one for frame in window[-3:] if (one := frame.sites.get(site)) is not None]
    rates = [one.requests_per_s for one in recent if one.requests_per_s is not None]
    if not rates:
        return Nature.HEAVY
    rate = sum(rates) / len(rates)
    usual = past.get(Resource.WEB)
    hour = int(at // HOUR_S) % HOURS
    known = usual is not None and usual[hour] > 0
    many = 2 * usual[hour] if usual and known else limits.crowd_share * caps.requests_per_s
    if rate < max(many, limits.crowd_requests_per_s):
        return Nature.HEAVY
    clients = next((one.clients for one in reversed(recent) if one.clients is not None), None)
    # Whose visitors nobody counts is crawled: that is what a crowd is most often.
    if clients is None or rate * 60 >= clients * limits.client_requests_per_min:
        return Nature.CRAWLED
    return Nature.VIRAL
