"""Told stories of what people arm: orders on the left, what holds each site on the right. Time is in days.

    day  site NAME PLAN HOST  |  plan NAME TASKS [keep]  |  no plan NAME
    day  arm SCOPE [from DAY]  |  shadow SCOPE  |  inherit SCOPE         SCOPE: all, or one plan, host or site

`80` holds; `120, 80 watched`: the plan says 80 and 120 goes on to hold.
"""

from collections.abc import Iterator
from typing import cast

from msgspec.structs import replace

from deploy.demo.plans import PLANS
from fleet import enforcement
from fleet.caps import Enforcement, Turn
from fleet.enforcement import Said, Scope
from fleet.inforce import Forces
from fleet.model import Domain, HostId, MemberId, Plan, PlanId, Site, SiteId

DAY_S = 86_400.0
BEGAN = 1_795_000_000.0
LEFT = 34  # column of the arrow


class Story:
    def __init__(self) -> None:
        self.words = Enforcement()
        self.plans: dict[PlanId, Plan] = {}
        self.sites: dict[SiteId, tuple[Site, HostId]] = {}
        self.now = BEGAN

    def play(self, event: list[str]) -> None:
        match event:
            case ["site", id, plan, host]:
                self.sites[SiteId(id)] = site(id, plan, host), HostId(host)
            case ["plan", id, tasks, *keep]:
                new = {**self.plans, PlanId(id): plan_of(id, int(tasks))}
                self.change(new, keep=keep == ["keep"])
            case ["no", "plan", id]:
                self.change({name: p for name, p in self.plans.items() if name != id}, keep=False)
            case ["arm", *scope, "from", day]:
                self.arm(scope, BEGAN + float(day) * DAY_S)
            case ["arm", *scope]:
                self.arm(scope, self.now)
            case ["shadow" | "inherit" as verb, *scope]:
                turn = Turn(said=self.now) if verb == "shadow" else None
                self.words = enforcement.shadowed(self.words, *scoped(scope), turn)
            case []:
                pass
            case _:
                raise ValueError(event)

    def change(self, new: dict[PlanId, Plan], *, keep: bool) -> None:
        self.words = enforcement.changed(self.words, self.plans, new, keep=keep, now=self.now)
        self.plans = new

    def arm(self, of: list[str], since: float) -> None:
        scope, id = scoped(of)
        said = Said(scope=scope, id=id, since=since)
        self.words = enforcement.arm(self.words, said, self.plans, self.sites, self.now)

    def holds(self) -> Iterator[str]:
        forces = Forces(self.words, self.plans)
        for id, (declared, host) in sorted(self.sites.items()):
            if declared.plan not in self.plans:
                continue
            force, caps = forces.of(id, declared.plan, host), self.plans[declared.plan].caps
            if not force.is_on(self.now):
                yield f"{id} shadow"
                continue
            held = force.caps(caps, self.now).tasks
            yield f"{id} {held}" + (f", {caps.tasks} watched" if held != caps.tasks else "")


def plan_of(id: str, tasks: int) -> Plan:
    like = PLANS[PlanId("solidarity")]
    return replace(like, id=PlanId(id), caps=replace(like.caps, tasks=tasks))


def site(id: str, plan: str, host: str) -> Site:
    return Site(
        id=SiteId(id),
        member=MemberId("m"),
        plan=PlanId(plan),
        domains=(Domain(f"{id}.example.org"),),
        home=HostId(host),
    )


def scoped(of: list[str]) -> tuple[Scope, str]:
    scope, *id = of
    return cast("Scope", scope), id[0] if id else ""


def told(text: str) -> str:
    """The whole story with its right-hand side made anew; it is empty where nothing has changed."""
    story, lines, before = Story(), [], ""
    for line in text.splitlines():
        left = line.partition("->")[0].rstrip()
        if not left or left.startswith("#"):
            lines.append(line.rstrip())
            continue
        day, *event = left.split()
        story.now = BEGAN + float(day) * DAY_S
        story.play(event)
        now = "; ".join(story.holds())
        lines.append(f"{left:<{LEFT}}-> {now}" if now != before else left)
        before = now
    return "\n".join(lines) + "\n"
