"""Whom a look believes to be a php-fpm master: the kernel's word on a process counts, not its own."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.layout import kin
from agent.layout.adopt import Seen
from agent.layout.attach import attach
from agent.layout.attached import Attached
from agent.layout.masters import place_of
from agent.layout.running import Reader
from fleet.caps import Attachment
from fleet.model import SiteId
from tests.unit.hosttree import POOL, write
from tests.unit.test_layout_adopt import OF
from tests.unit.test_layout_attach import (
    BASE,
    CGROUPS,
    HUERTO,
    LIBRO,
    OWN_POOL,
    SHARED_FPM,
    TWO,
    TWO_POOLS,
    TWO_VHOSTS,
    fcgi,
    master,
    pool,
    process,
    status,
    vhosts,
    virtual,
)

MAIN = "/etc/php/8.2/fpm/php-fpm.conf"
OWN = "/etc/relevo/php/libro.conf"
UNIT = "/user.slice/user-1004.slice/relevo-php@libro.service"
SESSION = "/user.slice/user-1001.slice/session-7.scope"
MANAGER = "/user.slice/user-1001.slice/user@1001.service/app.slice/php8.2-fpm.service"
ROOT, SETUID, SUDO = (0, 0, 0, 0), (1001, 0, 0, 0), ((0, 0, 0, 0), (1001, 0, 1001, 0))
HOST = BASE | TWO_VHOSTS | TWO_POOLS


class Look:
    """One agent's looks at one host."""

    def __init__(self, root: Path, tree: dict[str, str]) -> None:
        self.root = write(root, tree)
        self.reader = Reader(str(root))

    def __call__(self) -> dict[SiteId, Attached]:
        return attach(TWO, self.reader.look(), CGROUPS)

    def pid_of(self, main: str) -> int | None:
        """Of the master that is believed."""
        return next(one.pid for one in self.reader.look().masters if one.main == main)

    def runs(
        self,
        pid: int,
        main: str,
        cgroup: str,
        uids: tuple[int, ...] = ROOT,
        gids: tuple[int, ...] = ROOT,
        parent: int = 1,
    ) -> None:
        told = master(pid, main, cgroup) | {f"/proc/{pid}/status": status(pid, uids, gids, parent)}
        write(self.root, told)

    def ends(self, pid: int) -> None:
        for path in (self.root / f"proc/{pid}").iterdir():
            path.unlink()
        (self.root / f"proc/{pid}").rmdir()


def own_units() -> dict[str, str]:
    """`libro` in a unit of its own, `huerto` in the shared php-fpm."""
    one = BASE | TWO_VHOSTS | pool("huerto", "huerto") | pool("radio", "radio") | {OWN: OWN_POOL}
    return one | master(800, OWN, UNIT) | process(801, 1004, UNIT)


@pytest.mark.parametrize("ids", [(SETUID, ROOT), SUDO, ((0, 0, 1001, 0), ROOT)])
def test_who_is_root_only_in_part_is_no_master(
    ids: tuple[tuple[int, ...], tuple[int, ...]], tmp_path: Path
) -> None:
    """A setuid program is called what its user wants: nobody's attachment changes, while it runs or after."""
    look = Look(tmp_path, own_units() | {"/home/huerto/x.conf": OWN_POOL, "/x": OWN_POOL})
    before = look()
    assert before[LIBRO].slice == "user-1004.slice" and before[HUERTO].adoptable
    for main in (MAIN, OWN, "/x", "/home/huerto/x.conf"):
        for cgroup in (SESSION, SHARED_FPM, "/system.slice/cron.service", UNIT):
            look.runs(900, main, cgroup, *ids)
            assert look() == before, (main, cgroup)
            look.ends(900)
            assert look() == before, (main, cgroup)


@pytest.mark.parametrize("cgroup", [SESSION, MANAGER, "/user.slice/user-1001.slice"])
@pytest.mark.parametrize("main", [MAIN, OWN, "/x"])
def test_what_a_person_started_is_no_master(main: str, cgroup: str, tmp_path: Path) -> None:
    """Also as root: systemd runs masters as services of its own, in nobody's session."""
    look = Look(tmp_path, own_units() | {"/x": OWN_POOL})
    before = look()
    look.runs(900, main, cgroup)
    assert look() == before
    for pid in (700, 800):
        look.ends(pid)
    down = look()
    assert (down[HUERTO].adoptable, down[LIBRO].slice) == (before[HUERTO].adoptable, None)


def test_a_unit_of_ones_own_is_the_only_place_of_its_master(tmp_path: Path) -> None:
    """A neighbour's unit, with whatever is in it, is not the site's."""
    look = Look(tmp_path, own_units())
    before = look()
    look.runs(900, OWN, "/user.slice/user-1001.slice/relevo-php@huerto.service")
    assert look() == before
    look.ends(800)
    assert look.pid_of(OWN) is None and look()[LIBRO].slice is None


@pytest.mark.parametrize("elsewhere", ["/system.slice/evil.service", "/docker/abc", "/"])
def test_of_several_masters_nobody_new_is_believed(elsewhere: str, tmp_path: Path) -> None:
    """The one in the unit that it belongs to counts; else the one that was known, also by its unit; else none."""
    look = Look(tmp_path / "a", HOST)
    before = look()
    look.runs(900, MAIN, elsewhere)
    assert look() == before
    at_first = Look(tmp_path / "b", HOST | master(900, MAIN, elsewhere))
    assert at_first() == before and at_first.pid_of(MAIN) == 700
    own = {"/srv/php/libro.conf": POOL.format(user="libro")}
    coop = "/user.slice/user-1004.slice/php@libro.service"
    look = Look(tmp_path / "c", BASE | TWO_VHOSTS | own | master(800, "/srv/php/libro.conf", coop))
    assert look()[LIBRO].slice == "user-1004.slice"
    look.runs(900, "/srv/php/libro.conf", elsewhere)
    assert look()[LIBRO].slice == "user-1004.slice"
    look.ends(800)
    look.runs(810, "/srv/php/libro.conf", coop)
    assert look()[LIBRO].slice == "user-1004.slice"
    assert look.pid_of("/srv/php/libro.conf") == 810
    look.ends(810)
    look.runs(820, "/srv/php/libro.conf", "/yet/another")
    assert look()[LIBRO].slice == "user-1004.slice", "neither: what was known stays"
    blind = Look(tmp_path / "d", BASE | TWO_VHOSTS | own)
    for pid, cgroup in ((800, coop), (900, elsewhere)):
        blind.runs(pid, "/srv/php/libro.conf", cgroup)
    assert blind()[LIBRO].attachment is Attachment.POOL


def test_a_worker_that_has_not_named_itself_yet_is_no_second_master(tmp_path: Path) -> None:
    """Between its fork and its title it is called what its parent is."""
    look = Look(tmp_path, HOST)
    look.runs(900, MAIN, SHARED_FPM, parent=700)
    assert look.pid_of(MAIN) == 700
    look.runs(901, MAIN, SHARED_FPM)
    assert look.pid_of(MAIN) == 700, "known before"
    assert Reader(str(look.root)).look().masters[0].pid is None, "at first nobody knows which"


def test_a_co_ops_own_master_may_be_down_while_it_is_looked_at(tmp_path: Path) -> None:
    """At any path, however short: its sites stay where they were, and so does the agent."""
    for n, main in enumerate(("/x", "/x.conf", "/etc/php-fpm.conf", "/srv/php/fpm/libro.conf")):
        own = {main: POOL.format(user="libro")}
        unit = "/user.slice/user-1004.slice/php@libro.service"
        look = Look(tmp_path / str(n), BASE | TWO_VHOSTS | own | master(800, main, unit))
        before = look()
        look.ends(800)
        assert look() == before and before[LIBRO].slice == "user-1004.slice"


@given(main=st.text() | st.text().map("/{}".format), slice=st.none() | st.just("user-1.slice"))
def test_every_configuration_has_a_unit(main: str, slice: str | None) -> None:
    """Whatever its path: one name, a service, in a folder of slices."""
    *slices, unit = place_of(main, slice).removeprefix("/").split("/")
    assert unit.endswith(".service") and all(part.endswith(".slice") for part in slices)


PATHS = st.sampled_from(
    ["/", "/x", "//", "/etc", "/etc/passwd", "/proc/1/status", MAIN, OWN, "/etc/relevo/php/"]
)
TOLD = (st.text(max_size=20).map("/{}".format) | PATHS | st.text(max_size=20)).map(
    "php-fpm: master process ({})".format
)
ODD = st.binary(max_size=40) | st.builds(str.encode, TOLD | st.text(max_size=40))


@given(
    title=ODD,
    cgroup=PATHS | st.just(SHARED_FPM) | st.just(SESSION),
    uids=st.sampled_from([ROOT, SETUID]),
)
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nothing_that_a_process_says_of_itself_ends_a_look(
    title: bytes, cgroup: str, uids: tuple[int, ...], look: Look
) -> None:
    """Of root's processes too, with any title: while it runs, when it has gone, and for who adopts."""
    look.runs(900, "/x", cgroup, uids)
    (look.root / "proc/900/cmdline").write_bytes(title + b"\0")
    while_it_runs = look()
    write(look.root, {f"/sys/fs/cgroup{SHARED_FPM}/cgroup.procs": "700\n701\n900\n"})
    kin.see({HUERTO: OF}, look.root / "sys/fs/cgroup", look.root / "proc")
    look.ends(900)
    assert look() == look() and while_it_runs.keys() == TWO.keys()


@pytest.fixture
def look(tmp_path: Path) -> Look:
    return Look(tmp_path, own_units())


def test_adoption_believes_no_other_master(tmp_path: Path) -> None:
    """Nor does it stop for one: a setuid program in php-fpm's own cgroup, or a worker that has no title yet."""
    look = Look(tmp_path, HOST)
    procs = f"/sys/fs/cgroup{SHARED_FPM}/cgroup.procs"
    look.runs(900, MAIN, SHARED_FPM, *SUDO)
    look.runs(901, MAIN, SHARED_FPM, SETUID)
    look.runs(902, MAIN, SHARED_FPM, parent=700)
    write(look.root, {procs: "700\n701\n900\n901\n902\n"})
    (seen,) = kin.see({HUERTO: OF}, look.root / "sys/fs/cgroup", look.root / "proc").values()
    assert isinstance(seen, Seen) and seen.master == 700
    look.runs(903, MAIN, SHARED_FPM)
    write(look.root, {procs: "700\n701\n903\n"})
    (odd,) = kin.see({HUERTO: OF}, look.root / "sys/fs/cgroup", look.root / "proc").values()
    assert isinstance(odd, kin.Odd)


def test_a_neighbours_socket_in_a_made_up_configuration_is_nobodys(tmp_path: Path) -> None:
    """Attributing libro's visitors to huerto takes a master that is root's."""
    tree = HOST | {"/home/huerto/x.conf": "[x]\nuser = huerto\nlisten = /run/php/libro.sock\n"}
    look = Look(tmp_path, tree | vhosts(virtual("libro.example", fcgi("libro"))))
    before = look()
    look.runs(900, "/home/huerto/x.conf", SESSION, SETUID)
    assert look() == before
