"""How the runbook replaces a controller: its machine is lost, and another one at another address takes its place."""

import asyncio
import dataclasses
import re
import shlex
import shutil
import signal
import tarfile
from collections.abc import Mapping
from pathlib import Path

from bench.stage import rest, until
from controller.install import Places
from deploy.demo.client import client
from deploy.demo.lab import Kind, Machine
from deploy.demo.network import NAMESPACES, Namespaces
from deploy.demo.processes import Program
from deploy.demo.programs import AGENT, CONTROLLER, Outfit
from deploy.demo.programs import relevo as daemon
from deploy.demo.show import Show
from tests.etcds import control
from tests.integration.typed import Relevo, commands

LOST = "c3"
ADDRESSES = ("10.77.0.99", "fd00:77::99")
READ_S = 5.0  # whoever does this has read the page first; etcd has elected another leader by then
CONFIG = "controller.toml"
IN_THE_BOOK = "203.0.113.14"  # of the new machine


class WithTheCA(Outfit):
    """The first controller has the CA, as `relevo init` and two `relevo controller add` leave it."""

    def programs(self, machine: Machine) -> tuple[Program, ...]:
        programs = super().programs(machine)
        if machine.kind is Kind.CONTROLLER:
            places = Places(self.folder(machine))
            issued = self.authority.issue(machine.name, machine.addresses)
            own = {
                places.ca: self.authority.path,
                places.directory / "controller.crt": issued.certificate,
                places.directory / "controller.key": issued.key,
            }
            text = places.config.read_text()
            for path, made in own.items():
                shutil.copy(made, path)
                text = text.replace(str(made), str(path))
            places.config.write_text(text)
            if machine.name == "c1":
                self._keep_the_ca(places)
        return programs

    def _keep_the_ca(self, places: Places) -> None:
        places.issued("c1").parent.mkdir(parents=True)
        places.ca_key.write_bytes(self.authority.key)
        for one in self._lab.of(Kind.CONTROLLER):
            issued = self.authority.issue(one.name, one.addresses)
            places.issued(one.name).write_bytes(issued.certificate.read_bytes())
            places.reached(one.name).write_text(f"{self._lab.apis[one.name]}\n")

    def elsewhere(self, machine: Machine) -> Program:
        """A member of etcd that joins a cluster that exists, on `machine` in place of the one of its name."""
        before, self._lab = (
            self._lab,
            dataclasses.replace(self._lab, machines={**self._lab.machines, machine.name: machine}),
        )
        try:
            program = self._etcd(machine)
        finally:
            self._lab = before
        command = (*program.command, "--initial-cluster-state=existing")
        return dataclasses.replace(program, command=command)


async def replaced(it: Show, relevo: Relevo, text: str) -> None:
    """Lose c3, then do what the runbook says; nothing moves. Raises AssertionError."""
    outfit, lab = it.outfit, it.stage.lab
    assert isinstance(outfit, WithTheCA)
    first, lost = lab.machines["c1"], lab.machines[LOST]
    places = {site.id: site.host for site in await it.client.sites()}
    it.stage.powers[LOST].kill()
    shutil.rmtree(outfit.folder(lost))
    await asyncio.sleep(READ_S)
    new = await _another_machine(it, lost)
    store = outfit.authority.issue("a-person", client=True)
    # What stands in the book, and what it is here.
    here = {
        IN_THE_BOOK: new.address,
        "203.0.113.12": lost.address,
        "203.0.113.10": first.address,
        ":2379": f":{lab.etcd_port}",
        ":2380": f":{lab.etcd_peer_port}",
        "/etc/relevo/etcd-ca.pem": str(outfit.authority.path),
        "/etc/relevo/etcd-client.crt": str(store.certificate),
        "/etc/relevo/etcd-client.key": str(store.key),
    }
    etcd, add, loop, ask = _steps(list(commands(text, "console")))
    relevo.programs["etcdctl"] = control()
    for line in etcd:
        said = await relevo.run(_with(line, here))
        if line == "etcdctl member list":
            (id,) = re.findall(rf"^(\w+), started, {LOST},", said, re.M)
            here["8211f1d0f64f3269"] = id
    config = outfit.folder(new) / CONFIG
    controller = Program(name=CONTROLLER, command=daemon("controller", config), needs=config)
    it.stage.place(new, (outfit.elsewhere(new), controller), outfit.folder(new))
    it.stage.powers[LOST].start()
    bundle = outfit.folder(new).with_suffix(".tar")
    folder = outfit.folder(first)
    said = await relevo.run(f"{_with(add, here)} --directory {folder} --bundle {bundle}")
    _unpack(bundle, said, folder, outfit.folder(new))
    bundle.unlink()
    await _tell_the_others(it, said, lost, new)
    (edit,) = re.findall(r"sed -i (\S+) /etc/relevo/agent.toml", _with(loop, here))
    await _tell_the_hosts(it, edit, new)
    async with client(
        [f"https://{new.address}:{lab.api_port}"], ca=outfit.authority.path, token=outfit.token
    ) as desk:
        await until(desk.ready)
    assert LOST in await relevo.run(_with(ask, here))
    await rest(it)

    async def one_of_three() -> bool:
        seen = await relevo.run("relevo host show web1")
        return seen.count("last beat") == 3

    await until(one_of_three)
    assert {site.id: site.host for site in await it.client.sites()} == places


def _steps(lines: list[str]) -> tuple[list[str], str, str, str]:
    """Those for etcd, the one for relevo's files, the one for all hosts, and the last one, which looks."""
    (at,) = (number for number, line in enumerate(lines) if line.startswith("relevo controller"))
    add, loop, ask = lines[at:]
    return lines[:at], add, loop, ask


def _with(line: str, here: Mapping[str, str]) -> str:
    for old, new in here.items():
        line = line.replace(old, new)
    return line


async def _another_machine(it: Show, lost: Machine) -> Machine:
    """Its network, by other addresses, and an empty disk."""
    network = it.stage.network
    assert isinstance(network, Namespaces)
    inside = ("nsenter", f"--net={NAMESPACES / network.name(lost.name)}", "--", "ip", "address")
    for old, fresh, mask in zip(lost.addresses, ADDRESSES, ("16", "64"), strict=True):
        nodad = ("nodad",) if ":" in fresh else ()
        for words in (("del", f"{old}/{mask}"), ("add", f"{fresh}/{mask}", *nodad)):
            process = await asyncio.create_subprocess_exec(*inside, *words, "dev", "eth0")
            async with asyncio.timeout(10):
                assert await process.wait() == 0, words
    new = dataclasses.replace(lost, addresses=ADDRESSES)
    it.outfit.folder(new).mkdir()
    return new


async def _tell_the_others(it: Show, said: str, lost: Machine, new: Machine) -> None:
    """What was printed for all controllers; one after the other is restarted."""
    printed = {f'{LOST} = "https://{new.address}:', "endpoints = ["}
    assert all(line in said for line in printed), said
    for name in ("c1", "c2"):
        _told(it.outfit.folder(it.stage.lab.machines[name]) / CONFIG, lost, new)
        await _restarted(it, name, CONTROLLER)
        await until(it.client.ready)
        await rest(it)


async def _tell_the_hosts(it: Show, edit: str, new: Machine) -> None:
    """The line for all hosts, without ssh."""
    for host in it.stage.lab.hosts:
        config = it.outfit.folder(host) / "agent.toml"
        process = await asyncio.create_subprocess_exec("sed", "-i", edit, config)
        async with asyncio.timeout(10):
            assert await process.wait() == 0, edit
        assert new.address in config.read_text()
        await _restarted(it, host.name, AGENT)
    await rest(it)


def _told(config: Path, lost: Machine, new: Machine) -> None:
    text = config.read_text()
    assert lost.address in text
    config.write_text(re.sub(rf"{re.escape(lost.address)}\b", new.address, text))


async def _restarted(it: Show, machine: str, program: str) -> None:
    power = it.stage.powers[machine]
    old = power.signal(program, signal.SIGTERM)

    async def another() -> bool:
        return power.pid(program) not in (None, old)

    await until(another)


def _unpack(bundle: Path, said: str, source: Path, folder: Path) -> None:
    """On the new machine, with the other files that were named; /etc/relevo is `source` here and `folder` there."""
    with tarfile.open(bundle) as archive:
        for about in archive:
            content = archive.extractfile(about)
            assert content is not None
            made = folder / (f"{about.name}.new" if about.name == CONFIG else about.name)
            made.write_bytes(content.read())
            made.chmod(about.mode)
    (names,) = re.findall(r"tar -C / -cf - (.*) \| ssh", said)
    for path in (Path("/", name) for name in shlex.split(names)):
        if path.is_relative_to(source):
            shutil.copy(path, folder / path.relative_to(source))
    config = folder / f"{CONFIG}.new"
    config.write_text(config.read_text().replace(str(source), str(folder)))
    config.rename(folder / CONFIG)  # the last one: with it the controller starts
