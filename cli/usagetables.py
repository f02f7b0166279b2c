"""What a site uses, against each plan, as people read it."""

from collections.abc import Callable, Mapping

from rich.console import RenderableType

from cli.capanswers import Disk, Past, Usage
from cli.durations import shown
from cli.tables import facts, plain, size, table

SHARES = ("cpu", "memory", "tasks", "read", "write", "requests")
HAPPENED = {
    "memory_high_hits": "slowed {} times at memory.high",
    "memory_max_hits": "{} times at its memory's maximum",
    "oom_hits": "{} times without memory",
    "oom_kills": "{} processes ended for want of memory",
    "tasks_refused": "{} new processes refused",
    "throttled_periods": "held by its CPU quota in {} tenths of a second",
}


def usage(of: Usage) -> list[RenderableType]:
    """What a site uses now, and what each plan would have meant for it."""
    use = of.use
    if use is None:
        return [plain(f"{of.site}: its host has said nothing of it to this controller")]
    past = use.past
    parts: list[RenderableType] = [
        facts(
            ("site", f"{of.site}, plan {of.plan}, on {of.host}, told {shown(of.age_s)} ago"),
            ("CPU", _told(use.cpu_cores, lambda cores: f"{cores:.2f} cores")),
            ("throttled", f"{use.throttled_ratio:.0%} of the time" if use.throttled_ratio else ""),
            ("memory", _told(use.memory_bytes, lambda it: size(int(it)))),
            ("of it cache", size(use.file_bytes) if use.file_bytes is not None else ""),
            ("swap", size(use.swap_bytes) if use.swap_bytes else ""),
            ("reads", _told(use.read_bytes_per_s, lambda it: f"{size(int(it))}/s")),
            ("writes", _told(use.write_bytes_per_s, lambda it: f"{size(int(it))}/s")),
            ("processes", _told(use.tasks, lambda it: f"{it:.0f}")),
            ("requests", _told(use.requests_per_s, lambda it: f"{it:.1f}/s")),
            ("a request takes", _took(use.took_s)),
            ("keeps", _kept(use.disk)),
            *((f"disk {id}", f"{size(int(rate))}/s") for id, rate in sorted(use.devices.items())),
            ("in the last hour", happened(of.last_hour)),
            ("95 % of the time", _usual(past) if past else ""),
            ("only", "an estimate, from its access log" if use.attachment == "log" else ""),
        ),
        "",
    ]
    days = f" IN {past.days:.0f} d" if past else ""
    rows = [
        (
            f"{plan} *" if plan == of.plan else plan,
            *(_share(getattr(share, f"{name}_ratio")) for name in SHARES),
            _share(
                max(filter(None, (share.disk_ratio, share.inodes_ratio)), default=share.disk_ratio)
            ),
            _at_cap(past, plan),
        )
        for plan, share in of.against.items()
    ]
    columns = (">CPU", ">MEM", ">PROC", ">READ", ">WRITE", ">REQ", ">DISK", f">AT A CAP{days}")
    return [*parts, table("PLAN", *columns, rows=rows)]


def _at_cap(past: Past | None, plan: str) -> str:
    """What nobody compared is not known, which is not zero; what was only lately says since when."""
    if past is None or plan not in past.at_cap_min:
        return "?"
    days = f" in {past.at_cap_days[plan]:.0f} d" if plan in past.at_cap_days else ""
    return f"{past.at_cap_min[plan]:.0f} min{days}"


def _took(took_s: float | None) -> str:
    """Most access logs do not say it: then there is no line of it."""
    return "" if took_s is None else f"{took_s:.3f} s, an estimate from its access log"


def _kept(disk: Disk | None) -> str:
    if disk is None or disk.used_bytes is None:
        return "not known"
    beside = ", with the other sites of its users" if disk.shared else ""
    return f"{size(disk.used_bytes)} in {disk.used_inodes} files{beside}"


def _told(value: float | None, said: Callable[[float], str]) -> str:
    return "not known" if value is None else said(value)


def _share(ratio: float | None) -> str:
    return "?" if ratio is None else f"{ratio:.0%}"


def _usual(of: Past) -> str:
    cpu = "" if of.cpu_p95_cores is None else f"at most {of.cpu_p95_cores:.2f} cores"
    memory = "" if of.memory_p95_bytes is None else f"at most {size(of.memory_p95_bytes)}"
    return ", ".join(filter(None, (cpu, memory)))


def happened(of: Mapping[str, int]) -> str:
    """What the kernel counted; a count of a newer release is left to --json."""
    return ", ".join(said.format(of[name]) for name, said in HAPPENED.items() if of.get(name))
