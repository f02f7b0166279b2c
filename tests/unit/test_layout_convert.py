"""Moves of a pool, planned: played on a small world of names, listeners and boots, stopped after every step."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from agent.layout import pools
from agent.layout.convert import convert, refuse_odd
from agent.layout.moves import CantMove, Places, Plan, Record, Shared, Sockets, alias_of
from agent.layout.steps import (
    Ask,
    Drain,
    Gone,
    Guard,
    Judge,
    Link,
    Point,
    PutAside,
    Step,
    Systemd,
    Unguard,
    Write,
)
from agent.layout.undo import undo

NAME, FILE, MAIN = (
    "/run/php/a.sock",
    "/etc/php/8.2/fpm/pool.d/a.conf",
    "/etc/php/8.2/fpm/php-fpm.conf",
)
SECTION = "[a]\nuser = ana\nlisten = /run/php/$pool.sock\nlisten.owner = www-data\npm = ondemand\n"
BOTH = "; years of it\n[b]\nlisten = /run/php/b.sock\n" + SECTION
PLACES = Places()
changed = msgspec.structs.replace
OWN = str(PLACES.run / "a.sock")
SOCKET_UNIT = "relevo-php@a.socket"
DROP_IN = str(PLACES.units / f"{SOCKET_UNIT}.d/site.conf")
SERVICE = "relevo-php@a.service"
SERVICE_IN = str(PLACES.units / f"{SERVICE}.d/site.conf")
USERS, SITES = "user-1001.slice", "site-a.slice"
KEPT, CONF = str(PLACES.conf / "a.json"), str(PLACES.conf / "a.conf")
TMPFILE = str(PLACES.tmpfiles / "relevo-php-a.conf")


def record(section: str = SECTION, bound: str = NAME) -> Record:
    return Record(
        site="a",
        pool="a",
        slice=USERS,
        unit="php8.2-fpm.service",
        program="/usr/sbin/php-fpm8.2",
        main=MAIN,
        file=FILE,
        section=section,
        name=NAME,
        bound=bound,
    )


@dataclass
class World:
    """Names in the file system, who listens behind them, what is loaded, and what a boot would make of it."""

    files: dict[str, str]
    patience_s: int = 30
    sockets: dict[str, int] = field(default_factory=dict)  # a name of a socket -> the listener
    links: dict[str, str] = field(default_factory=dict)
    mounted: set[str] = field(default_factory=set)
    alive: dict[int, str] = field(default_factory=dict)  # listener -> the name it was bound as
    shared: dict[str, int] = field(default_factory=dict)  # what the shared master listens at
    own: int | None = None
    loaded: str = ""
    said: str = USERS  # the fleet's and the host's word on where it should run
    service: str = ""  # what systemd has read of its service
    slice: str | None = None  # where it runs
    enabled: bool = False
    number: int = 0
    busy: set[int] = field(default_factory=set)  # listeners at which visitors wait

    def listen(self, name: str) -> int:
        self.number += 1
        self.alive[self.number], self.sockets[name] = name, self.number
        self.links.pop(name, None)
        return self.number

    def served(self, name: str = NAME) -> str | None:
        """Who answers a visitor there."""
        listener = self.at(name)
        if listener not in self.alive:
            return None
        return "own" if listener == self.own else "shared"

    def close(self, listener: int) -> None:
        assert listener not in self.busy, "visitors waited there"
        del self.alive[listener]

    def at(self, name: str = NAME) -> int | None:
        return self.sockets.get(self.links.get(name, name))

    def unlink(self, name: str) -> None:
        if name not in self.mounted:  # else EBUSY
            self.sockets.pop(name, None)
            self.links.pop(name, None)

    def reload(self) -> None:
        """As php-fpm does it; a socket that somebody answers at ends it, which is asserted never to happen."""
        wanted = {self.listen_of(FILE)} - {None}
        for name in wanted - self.shared.keys():
            assert name is not None and self.served(name) is None, "php-fpm would not start"
            self.shared[name] = self.listen(name)
        for name in self.shared.keys() - wanted:
            self.close(self.shared.pop(name))
            self.unlink(name)

    def restart(self) -> None:
        """Of the shared master, by somebody: an upgrade of PHP."""
        for name in [*self.shared]:
            self.alive.pop(self.shared.pop(name))
            if self.at(name) not in self.alive:
                self.unlink(name)
        self.reload()

    def listen_of(self, file: str) -> str | None:
        found = pools.cut(self.files.get(file, ""), "a")
        return pools.settings(found.section)["listen"] if found else None

    def do(self, step: Step) -> None:  # noqa: C901 - one case for each step
        match step:
            case Write():
                assert step.was in (None, self.files.get(str(step.path), "")), "changed meanwhile"
                self.files[str(step.path)] = step.text
            case PutAside():
                assert step.was in (None, self.files.get(str(step.path), "")), "changed meanwhile"
                self.files.pop(str(step.path), None)
            case Systemd():
                self._systemd(step)
            case Link():
                assert str(step.name) not in self.mounted, "EBUSY"
                self.sockets[str(step.name)] = self.sockets[str(step.target)]
                self.links.pop(str(step.name), None)
            case Point():
                assert str(step.name) not in self.mounted, "EBUSY"
                self.sockets.pop(str(step.name), None)
                self.links[str(step.name)] = str(step.target)
            case Guard():
                self.mounted.add(str(step.name))
            case Unguard():
                self.mounted.discard(str(step.name))
            case Ask():
                assert self.served(str(step.socket)), step
            case Gone():
                assert step.bound not in self.alive.values(), step
            case Drain():
                here = self.at()
                self.busy -= {n for n, name in self.alive.items() if name == step.bound} - {here}
            case Judge():
                pass
        if (listener := self.at()) in self.alive and listener is not None:
            self.busy.add(listener)  # there is always somebody who asks

    def _systemd(self, step: Systemd) -> None:
        match step.verb:
            case "daemon-reload":
                self.loaded = self.files.get(DROP_IN, "")
                self.service = self.files.get(SERVICE_IN, "")
            case "start":
                if self.own is None:
                    assert DROP_IN in self.files and CONF in self.files
                    self.own = self.listen(OWN)
                    self.begin()
            case "restart":
                assert step.units == (SERVICE,), "the socket has to stay"
                self.begin()
            case "stop":
                if self.own is not None:
                    self.close(self.own)
                    self.own = None
                self.unlink(OWN)
                if "Symlinks=" in self.loaded:  # RemoveOnStop=
                    self.unlink(NAME)
            case "reload":
                self.reload()
            case "enable" | "disable":
                self.enabled = step.verb == "enable"

    def begin(self) -> None:
        """The service is where systemd has read that it belongs only from its next start on."""
        self.slice = self.service.partition("Slice=")[2].partition("\n")[0]

    def boot(self) -> None:
        """What is on disk decides; /run is empty. Both at the name would end the shared master: see `reload`."""
        self.sockets, self.links, self.alive, self.shared = {}, {}, {}, {}
        self.mounted, self.own, self.busy = set(), None, set()
        if said := self.files.get(TMPFILE):
            self.links[said.split()[1]] = said.split()[-1]
        self.loaded, self.service = self.files.get(DROP_IN, ""), self.files.get(SERVICE_IN, "")
        if self.enabled:
            self.own = self.listen(OWN)
            self.begin()
            if "Symlinks=" in self.loaded:
                self.links[NAME] = OWN
        self.reload()

    def seen(self) -> Sockets:
        ours = self.own is not None and self.served() == "own"
        return Sockets(
            ours=ours,
            link=NAME in self.links,
            guarded=NAME in self.mounted,
            at_boot=self.enabled,
            boot_link=TMPFILE in self.files,
            listening=frozenset(self.alive.values()),
        )

    def noted(self) -> Record:
        if KEPT in self.files:
            return msgspec.json.decode(self.files[KEPT], type=Record)
        section = pools.cut(self.files[FILE], "a")
        assert section is not None
        return record(section.section, pools.settings(section.section)["listen"])

    def convert(self) -> Plan:
        text = self.files.get(FILE)
        remains = pools.cut(text, "a") if text is not None else None
        return convert(self.noted(), self._shared(), self.seen(), remains, {}, PLACES, self.said)

    def undo(self, *, accept_cut: bool = False) -> Plan:
        files = self.files.get(FILE)
        return undo(self.noted(), self._shared(), self.seen(), files, PLACES, accept_cut=accept_cut)

    def _shared(self) -> Shared:
        text = f"[global]\nprocess_control_timeout = {self.patience_s}s\nrlimit_files = 4096\n"
        return Shared(text=text, siblings=("b",))


def world(text: str = SECTION, patience_s: int = 30) -> World:
    made = World({FILE: text}, patience_s)
    made.reload()
    return made


def converted(patience_s: int = 30) -> World:
    made = world(SECTION, patience_s)
    for step in made.convert().steps:
        made.do(step)
    return made


def undone() -> World:
    made = converted()
    for step in made.undo().steps:
        made.do(step)
    return made


def impatient() -> World:
    return world(SECTION, 0)


BEGINNINGS: Mapping[str, Callable[[], World]] = {
    "plain": world,
    "undone": undone,
    "impatient": impatient,
}


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_visitors_are_served_after_every_step_and_going_on_ends_well(beginning: str) -> None:
    """Out of the shared master: whatever step it stops after, they are served, and planning again completes it."""
    start = BEGINNINGS[beginning]()
    steps = start.convert().steps
    assert len(steps) > 10
    for stop in range(len(steps) + 1):
        now = copy.deepcopy(start)
        for step in steps[:stop]:
            now.do(step)
            assert now.served(), f"nobody answers after: {step}"
        for step in now.convert().steps:
            now.do(step)
            assert now.served(), f"stopped after {stop}, gone on with, nobody answers after: {step}"
        assert now.served() == "own" and now.enabled and now.listen_of(FILE) is None
        assert now.slice == USERS and now.convert().steps == ()


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_boot_after_any_step_leaves_the_neighbours_served(beginning: str) -> None:
    """The shared master starts whatever was stopped when; the site is down only between two adjacent steps."""
    start = BEGINNINGS[beginning]()
    steps = start.convert().steps
    down = []
    for stop in range(len(steps) + 1):
        now = copy.deepcopy(start)
        for step in steps[:stop]:
            now.do(step)
        now.boot()  # asserts that php-fpm starts
        if not now.served():
            down.append(stop)
        for step in now.convert().steps:
            now.do(step)
        now.boot()
        assert now.served() == "own"
    put = next(n for n, s in enumerate(steps) if isinstance(s, PutAside) and s.path == Path(FILE))
    assert down == [put + 1] and str(steps[put + 1]) == f"systemctl enable {SOCKET_UNIT}"


def again() -> World:
    """Put back, and converted once more without a reload: the shared master listens on at what no file says."""
    made = undone()
    made.patience_s = 0
    for step in made.convert().steps:
        made.do(step)
    made.patience_s = 30
    assert made.served() == "own" and alias_of(NAME) in made.seen().listening
    return made


@pytest.mark.parametrize("beginning", [converted, again])
def test_an_undo_is_as_safe(beginning: Callable[[], World]) -> None:
    """Back into the shared master: served after every step, after a boot at any, and when it is gone on with."""
    start = beginning()
    steps = start.undo().steps
    for stop in range(len(steps)):
        now = copy.deepcopy(start)
        for step in steps[:stop]:
            now.do(step)
            assert now.served(), f"nobody answers after: {step}"
        booted = copy.deepcopy(now)
        booted.boot()
        assert booted.served(), f"nobody answers after a boot after: {steps[:stop][-1:]}"
        for step in now.undo().steps if KEPT in now.files else ():
            now.do(step)
            assert now.served()
        assert now.served() == "shared" and not now.enabled and now.own is None
        now.boot()
        assert now.served() == "shared"
        assert {FILE, TMPFILE} == now.files.keys()


def apart() -> World:
    """Converted when each site got a slice of its own, whoever its users were."""
    made = world()
    made.said = SITES
    made.files[KEPT] = msgspec.json.encode(changed(made.noted(), slice=SITES)).decode()
    for step in made.convert().steps:
        made.do(step)
    assert made.slice == SITES
    made.said = USERS
    return made


def test_a_unit_moves_into_the_slice_that_its_sites_share() -> None:
    """What was converted before follows: its service begins anew elsewhere, its socket stays; stopped, it goes on."""
    start = apart()
    plan = start.convert()
    assert [str(step) for step in plan.steps if isinstance(step, Systemd)] == [
        "systemctl daemon-reload",
        f"systemctl restart {SERVICE}",
    ]
    (note,) = plan.notes
    assert SITES in note and USERS in note and "cut off" in note
    for stop in range(len(plan.steps) + 1):
        for boots in (False, True):
            now = copy.deepcopy(start)
            for step in plan.steps[:stop]:
                now.do(step)
                assert now.served() == "own", f"nobody answers after: {step}"
            if boots:
                now.boot()
            for step in now.convert().steps:
                now.do(step)
                assert now.served() == "own", f"stopped after {stop}, nobody answers after: {step}"
            assert now.slice == USERS and now.noted().slice == USERS
            assert now.convert().steps == ()


def test_a_conversion_that_stopped_before_sites_shared_a_slice_ends_in_it() -> None:
    """Whatever step it had come to in its old slice."""
    start = world()
    start.said = SITES
    start.files[KEPT] = msgspec.json.encode(changed(start.noted(), slice=SITES)).decode()
    steps = start.convert().steps
    for stop in range(len(steps) + 1):
        now = copy.deepcopy(start)
        for step in steps[:stop]:
            now.do(step)
        now.said = USERS
        for step in now.convert().steps:
            now.do(step)
            assert now.served(), f"stopped after {stop}, nobody answers after: {step}"
        assert (now.served(), now.slice) == ("own", USERS) and now.convert().steps == ()


@pytest.mark.parametrize("stop", range(6))
def test_a_unit_that_moved_into_a_shared_slice_is_put_back_as_any_other(stop: int) -> None:
    """Moved wholly, or stopped on the way."""
    now = apart()
    for step in now.convert().steps[:stop]:
        now.do(step)
    for step in now.undo().steps:
        now.do(step)
        assert now.served(), f"nobody answers after: {step}"
    now.boot()
    assert now.served() == "shared" and now.own is None and now.files.keys() == {FILE, TMPFILE}


def test_a_site_that_was_put_back_serves_under_its_old_name_for_ever() -> None:
    """Reloads of the shared master change nothing, and it can be moved out again."""
    now = undone()
    now.reload()
    assert now.served() == "shared" and now.listen_of(FILE) == alias_of(NAME)
    for step in now.convert().steps:
        now.do(step)
    assert now.served() == "own" and TMPFILE not in now.files


def test_a_pool_that_somebody_wrote_again_is_taken_out_again() -> None:
    """Before the shared master reads it and does not start: that needs no reload."""
    now = converted()
    now.files[FILE] = SECTION
    with pytest.raises(AssertionError, match="would not start"):
        copy.deepcopy(now).reload()
    steps = now.convert().steps
    assert not any(isinstance(s, Systemd) and s.verb == "reload" for s in steps)
    for step in steps:
        now.do(step)
    now.reload()
    assert now.served() == "own" and FILE not in now.files


def test_a_master_that_cuts_off_requests_is_not_reloaded() -> None:
    """The name stays guarded, which is said; when the master was restarted by somebody, the rest is done."""
    now = world(patience_s=0)
    plan = now.convert()
    assert not any(isinstance(s, Systemd) and s.verb == "reload" for s in plan.steps)
    assert any("process_control_timeout: 0" in note for note in plan.notes)
    for step in plan.steps:
        now.do(step)
    assert NAME in now.mounted and now.convert().steps == ()
    now.reload()  # somebody's
    assert now.served() == "own"
    assert [str(step).split()[0] for step in now.convert().steps] == ["lift", "make", "ask"]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_a_restart_of_the_shared_master_finds_its_pools_but_for_a_moment(beginning: str) -> None:
    """Somebody's, between any two steps: it would not start where a pool of its files is served by another.

    That is so for as long as some files are written, and while nothing is waited for.
    """
    start = BEGINNINGS[beginning]()
    steps = start.convert().steps
    dead = []
    for stop in range(len(steps) + 1):
        now = copy.deepcopy(start)
        for step in steps[:stop]:
            now.do(step)
        try:
            now.restart()
        except AssertionError:
            dead.append(stop)
    if beginning == "undone":  # its pool listens beside the name, which is a link
        assert not dead
        return
    assert dead == [*range(dead[0], dead[-1] + 1)]
    meanwhile = steps[dead[0] : dead[-1] + 1]
    assert all(isinstance(step, Guard | Ask | Write | Systemd | PutAside) for step in meanwhile)
    assert all(step.verb == "daemon-reload" for step in meanwhile if isinstance(step, Systemd))


@pytest.mark.parametrize("patience_s", [0, 1, 29, 30])
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_an_undo_of_what_stopped_on_its_way_is_as_safe(beginning: str, patience_s: int) -> None:
    """After whatever step a conversion was given up: served after every step back, and at the end by the shared one."""
    start = BEGINNINGS[beginning]()
    steps = start.convert().steps
    for stop in range(1, len(steps) + 1):
        now = copy.deepcopy(start)
        for step in steps[:stop]:
            now.do(step)
        now.patience_s = patience_s
        for step in now.undo(accept_cut=True).steps:
            now.do(step)
            assert now.served(), f"stopped after {steps[stop - 1]}, nobody answers after: {step}"
        assert now.served() == "shared" and now.own is None and KEPT not in now.files
        now.boot()
        assert now.served() == "shared"


def test_an_undo_of_what_a_panel_wrote_again_leaves_the_shared_one_its_socket() -> None:
    """The name is the shared master's own by then: the unit that goes must not take it along."""
    now = converted()
    now.boot()
    now.files[FILE] = SECTION
    now.shared.clear()
    now.links.pop(NAME)
    now.reload()  # after the admin removed the name
    assert now.seen().at_boot and now.served() == "shared"
    for step in now.undo().steps:
        now.do(step)
        assert now.served() == "shared", step
    assert now.own is None and KEPT not in now.files


def test_who_stays_converted_keeps_nothing_of_an_undo_that_was_given_up() -> None:
    """Whatever step it had come to: served on the way, and nothing left that would turn the name to nobody."""
    start = converted()
    steps = start.undo().steps
    for stop in range(1, len(steps) + 1):
        now = copy.deepcopy(start)
        for step in steps[:stop]:
            now.do(step)
        for step in now.convert().steps:
            now.do(step)
            assert now.served(), f"stopped after {steps[stop - 1]}, nobody answers after: {step}"
        assert now.served() == "own" and now.convert().steps == ()
        assert TMPFILE not in now.files and now.listen_of(FILE) is None


def test_a_second_conversion_that_stopped_anywhere_leaves_no_link_behind() -> None:
    """The first one's undo had made it, for each boot."""
    start = undone()
    steps = start.convert().steps
    for stop in range(len(steps) + 1):
        now = copy.deepcopy(start)
        for step in steps[:stop]:
            now.do(step)
        for step in now.convert().steps:
            now.do(step)
        assert TMPFILE not in now.files and now.served() == "own"


def test_an_edit_that_came_between_plan_and_step_is_not_written_over() -> None:
    """Another conversion's, or a panel's: the step stops, and planned again it is right."""
    now = world(BOTH)
    steps = now.convert().steps
    now.files[FILE] += "[c]\nlisten = /run/php/c.sock\n"
    with pytest.raises(AssertionError, match="changed meanwhile"):
        for step in steps:
            now.do(step)
    for step in now.convert().steps:
        now.do(step)
    assert "[c]" in now.files[FILE] and "[a]" not in now.files[FILE]


def test_a_name_that_was_guarded_for_a_socket_that_is_no_more_is_taken_again() -> None:
    """As where a stopped site's unit began anew under an earlier release."""
    now = converted(patience_s=0)
    assert NAME in now.mounted and now.own is not None
    now.busy.clear()
    now.close(now.own)
    now.own = None
    assert now.served() is None
    for step in now.convert().steps:
        now.do(step)
    assert now.served() == "own"


def test_an_undo_that_would_cut_off_requests_asks_first() -> None:
    """The shared master has to be reloaded: that is refused, with the setting, unless it is accepted."""
    for now in (converted(), again()):
        now.patience_s = 0
        with pytest.raises(CantMove, match=r"process_control_timeout: 0s: .*--accept-cut"):
            now.undo()


def test_other_pools_of_the_same_file_stay() -> None:
    """The file is rewritten without the section, comments and all; and gets it back."""
    now = world(BOTH)
    for step in now.convert().steps:
        now.do(step)
    assert now.files[FILE] == "; years of it\n[b]\nlisten = /run/php/b.sock\n"
    for step in now.undo().steps:
        now.do(step)
    assert "[b]" in now.files[FILE] and now.listen_of(FILE) == alias_of(NAME)


def test_the_unit_has_the_pools_settings_and_its_sockets_owner() -> None:
    """Same user and workers; what the shared master set for all comes along; who may ask stays the same."""
    now = converted()
    own = now.files[CONF]
    assert "user = ana" in own and "pm = ondemand" in own and "rlimit_files = 4096" in own
    assert f"listen = /run/relevo-php/given{NAME}\n" in own and "$pool" not in own
    socket = now.files[DROP_IN]
    for said in ("SocketUser=www-data", "SocketGroup=root", "SocketMode=0660", f"Symlinks={NAME}"):
        assert f"{said}\n" in socket
    service = now.files[str(PLACES.units / "relevo-php@a.service.d/site.conf")]
    assert "Slice=user-1001.slice\n" in service


ODD: Mapping[str, str] = {
    "listen = 127.0.0.1:9000": "a port can't be handed over",
    "listen.acl_users = nginx": "listen.acl_users: nginx",
    "pm.status_listen = 9001": "pm.status_listen: 9001",
    "include = /etc/more": "include = /etc/more",
    "prefix = /srv": "prefix = /srv",
    f"listen = /run/{'x' * 90}.sock": "too long a name",
}


@pytest.mark.parametrize("line", ODD)
def test_what_cannot_be_moved_is_refused_with_its_line(line: str) -> None:
    """The setting, its value and what to do instead."""
    said = record(f"{SECTION}{line}\n", NAME)
    if line.startswith("listen ="):
        said = msgspec.structs.replace(said, name=line.removeprefix("listen = "))
    with pytest.raises(CantMove) as refused:
        refuse_odd(said, Shared(text="", siblings=("b",)), same_disk=True)
    assert len(refused.value.reasons) == 1 and ODD[line] in refused.value.reasons[0]


def test_the_last_pool_of_a_master_stays() -> None:
    """php-fpm ends without a pool; and everything that stands in the way is said at once."""
    shared = Shared(text="", siblings=(), is_running=False)
    with pytest.raises(CantMove) as refused:
        refuse_odd(record("[a]\nlisten = /srv/a.sock\n"), shared, same_disk=False)
    assert [r.split(": ")[1] for r in refused.value.reasons] == [
        "/srv/a.sock",
        "not set",
        "a",
        "not running",
    ]
    refuse_odd(record(), Shared(text="", siblings=("b",)), same_disk=True)


@pytest.mark.parametrize(
    ("said", "expected"), [("10", 10), ("30s", 30), ("2m", 120), ("1h", 3600), ("0", 0), ("x", 0)]
)
def test_php_fpm_writes_times_so(said: str, expected: int) -> None:
    """Source: php-fpm.conf, process_control_timeout."""
    assert pools.seconds(said) == expected


def test_a_pool_that_is_there_twice_is_not_cut() -> None:
    """Which one counts, php-fpm decides: a person has to tell."""
    assert pools.cut(SECTION + SECTION, "a") is None
    assert pools.cut(SECTION, "b") is None
    found = pools.cut(BOTH, "b")
    assert found is not None and not found.is_all
    assert found.section + SECTION == BOTH.removeprefix("; years of it\n")
