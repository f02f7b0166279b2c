"""`relevo layout`: what it prints of a made-up host, and what it refuses."""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from agent.caps.limits import FREE
from agent.caps.ours import Ours
from agent.discover.files import HostFiles
from agent.discover.host import look
from agent.discover.sites import group
from agent.layout import command as layout
from agent.layout.adopt import Adopted
from agent.layout.adoption import KEPT, WISHES
from agent.layout.command import command
from agent.layout.moves import CantMove, Places, Plan, Record
from agent.layout.running import Reader
from agent.layout.steps import PutAside, Systemd, Write
from agent.layout.survey import Host, convert, undo
from agent.layout.wishes import TAKEN_S, after_adopting, taken
from deploy.demo.plans import STANDARD
from fleet.caps import Override, Tenant
from fleet.messages import Orders
from fleet.model import Epoch, HostId, Note, SiteId
from tests.unit.hosttree import POOL, write
from tests.unit.test_layout_attach import (
    BASE,
    HUERTO,
    LIBRO,
    OWN_POOL,
    RADIO,
    TWO,
    TWO_POOLS,
    TWO_VHOSTS,
    fcgi,
    master,
    pool,
    tenant,
    vhosts,
    virtual,
)

SYSTEMD = {"/sys/fs/cgroup/cgroup.controllers": "cpu io memory pids\n", "/run/systemd/system/x": ""}
AGENT = 'host = "web7"\ntoken = "/x"\nstate = "{state}"\n[controllers]\nc1 = "https://c1:7410"\n'
ALWAYS = Note(owner="ana", reason="busy", since=0, until=4e9)
changed = msgspec.structs.replace
Relevo = Callable[..., Result]


@pytest.fixture
def relevo(tmp_path: Path) -> Relevo:
    """The command on a host with two pools in one master, whose agent has orders."""
    root = write(tmp_path / "host", BASE | TWO_VHOSTS | TWO_POOLS | SYSTEMD)
    config = tmp_path / "agent.toml"
    config.write_text(AGENT.format(state=tmp_path))

    def run(*arguments: str, tenants: dict[SiteId, Tenant] | None = TWO) -> Result:
        if tenants is not None:
            orders = Orders(
                epoch=Epoch(1, 1),
                cluster="c",
                host=HostId("web7"),
                tenants=tenants,
                plans={STANDARD.id: STANDARD.caps},
            )
            (tmp_path / "orders.json").write_bytes(msgspec.json.encode(orders))
        words = ("--config", str(config), "--root", str(root), *arguments)
        return CliRunner(env={"LC_ALL": "C.UTF-8"}).invoke(command, words)

    return run


def test_each_site_is_told_with_what_would_better_it(relevo: Relevo) -> None:
    """Attachment, what can be held, why, and the command that betters it; the count at the end."""
    said = relevo()
    assert said.exit_code == 0, said.output
    assert "huerto  pool   requests at the edges" in said.output
    assert "relevo layout convert huerto" in " ".join(said.output.split())
    assert said.output.endswith("2 sites: 2 pool\n")
    assert max(map(len, said.output.splitlines())) <= 100


def test_a_host_where_too_much_may_wait_for_its_disk_is_told_so(
    relevo: Relevo, tmp_path: Path
) -> None:
    folder = tmp_path / "host/proc/sys/vm"
    folder.mkdir(parents=True)
    for name, value in (("dirty_background_bytes", 0), ("dirty_background_ratio", 10)):
        (folder / name).write_text(f"{value}\n")
    said = relevo().output
    assert "Write vm.dirty_background_bytes = 67108864 and" in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 100


def test_a_pool_that_may_have_too_many_workers_is_told_what_to_set(relevo: Relevo) -> None:
    """What it is, what its plan says, where to write it; of one that is as its plan says, nothing."""
    said = " ".join(relevo().output.split())
    assert "The pool huerto may have 5 workers, its plan says 15" in said
    assert "set pm.max_children = 15 at /etc/php/8.2/fpm/pool.d/huerto.conf:2" in said
    override = Override(caps={"php_workers": 5}, note=ALWAYS)
    as_planned = {site: changed(tenant, override=override) for site, tenant in TWO.items()}
    rows = json.loads(relevo("--json", tenants=as_planned).output)
    assert [row["remedy"] for row in rows] == [None, None]


def test_an_adopted_pool_is_shown_with_what_holds(relevo: Relevo, tmp_path: Path) -> None:
    """By what the agent keeps; its size does not matter any more, and it is still a pool."""
    now = {HUERTO: Adopted(slice="user-1001.slice", unit="php8.2-fpm.service")}
    (tmp_path / KEPT).write_bytes(msgspec.json.encode(now))
    assert "huerto  pool   adopted: CPU, memory, tasks, I/O" in relevo().output
    huerto, libro = json.loads(relevo("--json").output)
    assert (huerto["adopted"], huerto["slice"], huerto["remedy"]) == (True, "user-1001.slice", None)
    assert (libro["adopted"], libro["slice"]) == (False, None) and libro["remedy"]


def test_adopting_says_what_it_means_and_does_nothing_by_itself(
    relevo: Relevo, tmp_path: Path
) -> None:
    """Where the workers go, what is not held of them, how they end; nobody's wish is written without --yes."""
    for verb in ("adopt", "release"):
        said = relevo(verb, "huerto")
        assert said.exit_code == 0 and "relevo-pool-huerto.scope" in " ".join(said.output.split())
        assert "Nothing was done" in said.output
    assert not (tmp_path / WISHES).exists()


def test_what_can_not_be_adopted_is_refused(relevo: Relevo) -> None:
    """A site whose user others have too, with what it takes."""
    shared = {site: changed(tenant, users=("huerto",)) for site, tenant in TWO.items()}
    said = relevo("adopt", "huerto", tenants=shared)
    assert said.exit_code == 1 and "whose user no other site has" in " ".join(said.output.split())


def test_adopting_is_refused_where_no_agent_does_it(relevo: Relevo, tmp_path: Path) -> None:
    """By the agent's own configuration and host: with what is missing, and what to do; letting go never is."""
    host, config = tmp_path / "host", tmp_path / "agent.toml"
    own = tmp_path / "own"
    write(own, {"/cgroup.controllers": "memory"})
    before = config.read_text()
    subtree = f'subtree = "{own}"'
    for caps, said in (
        ('driver = "off"', "switched off in agent.toml: caps.driver"),
        (subtree, f"held in {own}"),
        (f'driver = "cgroupfs"\n{subtree}', f"held in {own}"),
        ('driver = "cgroupfs"', "caps.subtree names no directory"),
    ):
        config.write_text(f"{before}[caps]\n{caps}\n")
        refused = relevo("adopt", "huerto")
        words = " ".join(refused.output.split())
        assert refused.exit_code == 1 and said in words and "restart the agent" in words, caps
        assert relevo("adopt", "huerto", "--yes").exit_code == 1
        assert relevo("release", "huerto").exit_code == 0
    config.write_text(before)
    assert relevo("adopt", "huerto").exit_code == 0
    for path, said in (
        ("run/systemd/system/x", "systemd does not run here"),
        ("sys/fs/cgroup/cgroup.controllers", "has cgroup v1"),
    ):
        (host / path).unlink()
        (host / path).parent.rmdir()
        assert said in " ".join(relevo("adopt", "huerto").output.split())
    assert not (tmp_path / WISHES).exists()


@pytest.mark.virtual_time
async def test_done_is_what_the_agent_has_done(tmp_path: Path) -> None:
    """It says so where it keeps what is adopted; nobody there, or not yet: noted."""
    slept = asyncio.get_running_loop().time
    began = slept()
    assert await taken(tmp_path, HUERTO) is None and slept() - began == pytest.approx(TAKEN_S)
    one = Adopted(slice="user-1001.slice", unit="php8.2-fpm.service", held=False)
    failing = changed(one, trouble="refused")
    for kept, told in ((one, None), (failing, failing), (changed(one, held=True),) * 2):
        (tmp_path / KEPT).write_bytes(msgspec.json.encode({HUERTO: kept, LIBRO: one}))
        assert await taken(tmp_path, HUERTO) == told
    assert "is noted" in after_adopting(HUERTO, None) and "Done" not in after_adopting(HUERTO, None)
    assert "refused" in after_adopting(HUERTO, failing)
    assert after_adopting(HUERTO, changed(one, held=True)) == "Done: relevo layout shows it."


def test_programs_get_json(relevo: Relevo) -> None:
    """One object for each site, with the reason's code."""
    rows = json.loads(relevo("--json").output)
    assert [(row["site"], row["attachment"], row["code"]) for row in rows] == [
        ("huerto", "pool", "layout-pool"),
        ("libro", "pool", "layout-pool-silent"),
    ]


def test_without_orders_it_says_what_to_do(relevo: Relevo) -> None:
    """Neither before the host has joined, nor where the controllers do not speak of caps."""
    assert "has this host joined" in relevo(tenants=None).output
    said = relevo(tenants={})
    assert said.exit_code == 1 and "no site is at home here" in said.output


def test_a_site_of_another_host_is_refused(relevo: Relevo) -> None:
    """By its name; nothing is planned."""
    said = relevo("convert", "elsewhere")
    assert said.exit_code == 2 and "elsewhere is not at home on this host" in said.output
    assert "nothing to undo" in relevo("undo", "huerto").output


def test_what_a_penalty_stops_is_not_put_back(relevo: Relevo, tmp_path: Path) -> None:
    """The shared php-fpm would serve it again; by whom it may be lifted is said."""
    units = ("relevo-php@huerto.service", "relevo-php@huerto.socket")
    stopped = Ours(sites=(HUERTO,), limits=FREE, stopped=units)
    (tmp_path / "caps.json").write_bytes(msgspec.json.encode({"user-1001.slice": stopped}))
    said = relevo("undo", "huerto")
    assert said.exit_code == 1 and "huerto: stopped by a penalty" in said.output
    assert "relevo site release huerto" in said.output
    assert "nothing to undo" in relevo("undo", "libro").output
    (tmp_path / "caps.json").write_text("no JSON")
    assert "nothing to undo" in relevo("undo", "huerto").output


def test_one_conversion_at_a_time(
    relevo: Relevo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one waits for nobody: it says so. Who only looks is in nobody's way."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with (tmp_path / layout.LOCK).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = relevo("undo", "huerto", "--yes")
        assert refused.exit_code == 1 and "Another relevo layout is at work" in refused.output
        assert "nothing to undo" in relevo("undo", "huerto").output
    assert "nothing to undo" in relevo("undo", "huerto", "--yes").output


def planned(root: Path, tree: dict[str, str], tenants: dict[SiteId, Tenant], site: SiteId) -> Plan:
    host = str(write(root, BASE | tree))
    running = Reader(host).look()
    return convert(Host(running=running, tenants=tenants, files=HostFiles(host)), site)


REFUSED: dict[str, tuple[dict[str, str], dict[SiteId, Tenant], SiteId]] = {
    "no pool of php-fpm": (
        vhosts(virtual("radio.example")),
        {RADIO: tenant("radio.example", "radio")},
        RADIO,
    ),
    "serves libro too": (
        vhosts(virtual("huerto.example", fcgi("www")), virtual("libro.example", fcgi("www")))
        | pool("www", "www-data"),
        TWO,
        HUERTO,
    ),
    "several pools": (
        vhosts(virtual("huerto.example", fcgi("a")), virtual("huerto.example", fcgi("b")))
        | pool("a", "huerto")
        | pool("b", "huerto"),
        TWO,
        HUERTO,
    ),
    "write each pool once": (
        TWO_VHOSTS | TWO_POOLS | pool("libro", "libro", POOL.format(user="libro")),
        TWO,
        LIBRO,
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_one_pool_of_one_site_is_refused(why: str, tmp_path: Path) -> None:
    """With what stands in the way."""
    tree, tenants, site = REFUSED[why]
    with pytest.raises(CantMove, match=why):
        planned(tmp_path, tree, tenants, site)


def test_a_pool_is_planned_into_its_users_slice(short_path: Path) -> None:
    """Found by its virtual host's socket; refused only where that is on another file system than the unit's."""
    listen = short_path / "run" / "libro.sock"
    handler = f'"proxy:unix:{listen}|fcgi://localhost"'
    tree = vhosts(virtual("libro.example", handler))
    tree |= pool("huerto", "huerto") | pool("libro", "libro", f"listen = {listen}\n")
    host = str(write(short_path / "host", BASE | tree))
    running = Reader(host).look()
    with pytest.raises(CantMove, match="not on the file system of /run"):
        convert(Host(running=running, tenants=TWO, files=HostFiles(host)), LIBRO)
    listen.parent.mkdir()
    places = Places(run=short_path / "run" / "relevo-php")
    plan = convert(Host(running=running, tenants=TWO, files=HostFiles(host), places=places), LIBRO)
    texts = {str(step.path): step.text for step in plan.steps if isinstance(step, Write)}
    drop_in = texts["/etc/systemd/system/relevo-php@libro.service.d/site.conf"]
    assert "Slice=user-1004.slice\n" in drop_in and "/usr/sbin/php-fpm8.2" in drop_in
    assert "[Socket]" in texts["/etc/systemd/system/relevo-php@.socket"]
    aside = [str(step.path) for step in plan.steps if isinstance(step, PutAside)]
    assert "/etc/php/8.2/fpm/pool.d/libro.conf" in aside


def test_sites_of_one_user_are_planned_into_its_slice(tmp_path: Path) -> None:
    """All of them, so that one cap holds them; the person who agrees is told, and one that is elsewhere moves."""
    listen = {site: tmp_path / f"{site}.sock" for site in TWO}
    tenants = {site: changed(tenant, users=("libro",)) for site, tenant in TWO.items()}
    tree = vhosts(
        *(
            virtual(f"{s}.example", f'"proxy:unix:{at}|fcgi://localhost"')
            for s, at in listen.items()
        )
    )
    for site, at in listen.items():
        tree |= pool(site, "libro", f"listen = {at}\n")
    host = str(write(tmp_path / "host", BASE | tree))
    places = Places(run=tmp_path / "relevo-php", conf=tmp_path / "conf")
    here = Host(running=Reader(host).look(), tenants=tenants, files=HostFiles(host), places=places)
    for site, other in ((HUERTO, LIBRO), (LIBRO, HUERTO)):
        plan = convert(here, site)
        note = next(s for s in plan.steps if isinstance(s, Write) and s.path.suffix == ".json")
        assert msgspec.json.decode(note.text, type=Record).slice == "user-1004.slice"
        assert any(f"user whom {other} have too: one cap" in said for said in plan.notes)
        before = changed(msgspec.json.decode(note.text, type=Record), slice=f"site-{site}.slice")
        write(tmp_path, {f"/conf/{site}.json": msgspec.json.encode(before).decode()})
        again = convert(here, site).steps
        assert Systemd("restart", (f"relevo-php@{site}.service",)) in again
    # systemd leaves a unit where it is while something of it still runs: what is noted is not yet so.
    noted = changed(before, slice="user-1004.slice")
    conf, unit = (
        f"{places.conf}/libro.conf",
        "/site.slice/site-libro.slice/relevo-php@libro.service",
    )
    write(tmp_path, {"/conf/libro.json": msgspec.json.encode(noted).decode()})
    for there in (unit, unit.replace("/site.slice/site-libro", "/user.slice/user-1004")):
        write(Path(host), master(800, conf, there))
        plan = convert(replace(here, running=Reader(host).look()), LIBRO)
        moves = Systemd("restart", ("relevo-php@libro.service",)) in plan.steps
        assert moves is (there == unit)
    write(tmp_path, {"/conf/libro.json": msgspec.json.encode(before).decode()})
    alone = msgspec.structs.replace(tenants[LIBRO], users=("libro", "radio"))
    apart = convert(replace(here, tenants={LIBRO: alone}), LIBRO)
    assert not any(step.verb == "restart" for step in apart.steps if isinstance(step, Systemd))


LONG_AGO, LATER = 1, 4_000_000_000  # Unix s; the files of a made-up host are of now


@pytest.mark.parametrize(("booted", "reloads"), [(LONG_AGO, False), (LATER, True)])
def test_a_timeout_that_php_fpm_has_not_read_yet_is_not_counted_on(
    booted: int, reloads: bool, tmp_path: Path
) -> None:
    """Set in the file after the master was started: its reload would still cut requests off, so there is none."""
    listen = tmp_path / "libro.sock"
    main = "/etc/php/8.2/fpm/php-fpm.conf"
    tree = vhosts(virtual("libro.example", f'"proxy:unix:{listen}|fcgi://localhost"'))
    tree |= pool("huerto", "huerto") | pool("libro", "libro", f"listen = {listen}\n")
    tree[main] = f"{BASE[main]}process_control_timeout = 30\n"
    tree["/proc/stat"] = f"cpu 1\nbtime {booted}\n"
    tree["/proc/700/stat"] = f"700 (php-fpm8.2) S{' 0' * 18} 100 0\n"
    host = str(write(tmp_path / "host", BASE | tree))
    places = Places(run=tmp_path / "relevo-php")
    here = Host(running=Reader(host).look(), tenants=TWO, files=HostFiles(host), places=places)
    plan = convert(here, LIBRO)
    assert (Systemd("reload", ("php8.2-fpm.service",)) in plan.steps) is reloads
    assert any("changed after php-fpm was started" in note for note in plan.notes) is not reloads


def test_a_site_with_a_unit_of_its_own_is_discovered_as_before(tmp_path: Path) -> None:
    """`relevo discover` reads the unit's pool too, by the name that the web server knows: its user is still known."""
    shared, own = tmp_path / "shared", tmp_path / "own"
    write(shared, BASE | TWO_VHOSTS | TWO_POOLS)
    conf = {"/etc/relevo/php/libro.conf": OWN_POOL}
    write(own, BASE | TWO_VHOSTS | pool("huerto", "huerto") | conf)
    before, after = (group(look(str(root))).sites for root in (shared, own))
    assert before == after and [site.users for site in after] == [("huerto",), ("libro",)]


def test_what_was_not_converted_is_not_undone(tmp_path: Path) -> None:
    """The note of the conversion is what it goes by."""
    with pytest.raises(CantMove, match="nothing to undo"):
        undo(Host(running=Reader(str(tmp_path)).look(), tenants=TWO), LIBRO, accept_cut=False)
