"""What runs on each machine of the demo, and the files it reads."""

import base64
import hashlib
import json
import secrets
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.demo import knot, nginx
from deploy.demo.certificates import Authority
from deploy.demo.fleet import KEY, ZONES
from deploy.demo.lab import Door, Kind, Lab, Machine, Store
from deploy.demo.logind import BUS_CONFIG
from deploy.demo.packages import Tools
from deploy.demo.processes import Program
from fleet.model import Fleet

AGENT, BUS, HAPROXY, NGINX = "agent", "dbus-daemon", "haproxy", "nginx"
CONTROLLER, ETCD = "controller", "etcd"
BUS_SOCKET = "bus"
LOGIND_READY = (
    "logind.ready"  # this file is there while a stand-in for logind serves the machine's bus
)
ADMIN = "demo"
# An evening of playing with it is no bad day: the brake's default of 3 causes an hour would end the show.
CAUSES_PER_HOUR = 1000

Toml = Mapping[str, object]


class Outfit:
    """Writes every machine's files below `directory`; `token` is the administrator's, `authority` signs."""

    def __init__(self, lab: Lab, fleet: Fleet, tools: Tools, directory: Path) -> None:
        self._lab, self._fleet, self._tools, self._directory = lab, fleet, tools, directory
        self.authority = Authority(directory)
        self.token = secrets.token_urlsafe(32)
        self.policy: Toml = {"causes_per_hour": CAUSES_PER_HOUR}
        self._tokens = {machine.name: secrets.token_urlsafe(32) for machine in lab.hosts}
        self._dns_key = knot.Key(
            name=KEY, secret=base64.b64encode(secrets.token_bytes(32)).decode()
        )
        for machine in lab.machines.values():
            self.folder(machine).mkdir()

    def folder(self, machine: Machine) -> Path:
        return self._directory / machine.name

    def programs(self, machine: Machine) -> tuple[Program, ...]:
        """Write what `machine` needs, and say what it runs."""
        match machine.kind:
            case Kind.WEB:
                return (self._nginx(machine), *self._agent(machine, self._web(machine)))
            case Kind.EDGE:
                return (self._haproxy(machine), *self._agent(machine, self._edge(machine)))
            case Kind.CONTROLLER if self._lab.staff.store is Store.ETCD:
                return (self._etcd(machine), self._controller(machine))
            case Kind.CONTROLLER:
                return (self._controller(machine),)
            case Kind.PRIMARY | Kind.SECONDARY:
                return (self._knot(machine),)
            case Kind.VISITORS:
                return ()

    def _nginx(self, machine: Machine) -> Program:
        folder = self.folder(machine)
        path = folder / "nginx.conf"
        path.write_text(nginx.configuration(machine, self._fleet.sites.values(), folder))
        return Program(
            name=NGINX,
            command=(
                str(self._tools.path("nginx")),
                "-p",
                f"{folder}",
                "-c",
                f"{path}",
                "-e",
                "stderr",
            ),
            env=self._tools.env(),
            restart=True,
            stop=signal.SIGQUIT,  # as Debian's unit does: requests under way are finished
        )

    def _haproxy(self, machine: Machine) -> Program:
        """The agent writes its configuration; it starts as soon as that is there."""
        folder = self.folder(machine)
        path = folder / "haproxy" / "haproxy.cfg"
        binary, master = self._tools.path("haproxy"), folder / "master.sock"
        return Program(
            name=HAPROXY,
            command=(str(binary), "-W", "-S", str(master), "-f", str(path)),
            env=self._tools.env(),
            needs=path,
            restart=True,
            stop=signal.SIGUSR1,  # as Debian's unit does: it finishes what is under way
        )

    def _web(self, machine: Machine) -> Toml:
        return {"service": {"check": f"http://{machine.doors[0]}/"}}

    def _edge(self, machine: Machine) -> Toml:
        folder = self.folder(machine)
        return {
            "edge": {
                "directory": folder / "haproxy",
                "binary": self._tools.path("haproxy"),
                "socket": folder / "haproxy.sock",
                "master_socket": folder / "master.sock",
                "bind": [str(door) for door in machine.doors],
                "max_connections": 2000,
                "threads": 1,
            }
        }

    def _agent(self, machine: Machine, role: Toml) -> tuple[Program, ...]:
        folder = self.folder(machine)
        token = _secret(folder / "token", self._tokens[machine.name])
        config = folder / "agent.toml"
        settings: Toml = {
            "host": machine.name,
            "token": token,
            "ca": self.authority.path,
            "state": folder / "state",
            "package_locks": [],  # the machine's own package runs are not this host's
            "controllers": self._lab.apis,
            "caps": {"driver": "off"},  # its machines share this one's kernel, and its users
            "metrics": self._metrics(machine),
            **role,
        }
        config.write_text(toml(settings))
        bus = folder / BUS_SOCKET
        bus_config = folder / "bus.conf"
        bus_config.write_text(BUS_CONFIG.format(path=bus))
        return (
            Program(
                name=BUS,
                command=(
                    str(self._tools.path("dbus-daemon")),
                    f"--config-file={bus_config}",
                    "--nofork",
                    "--nopidfile",
                ),
                env=self._tools.env(),
                restart=True,
            ),
            Program(
                name=AGENT,
                command=relevo("agent", config),
                env={**self._tools.env(), "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={bus}"},
                needs=folder / LOGIND_READY,
                restart=True,
            ),
        )

    def _metrics(self, machine: Machine) -> Toml:
        # In a namespace the loopback is the machine's own; without namespaces its address tells it apart.
        own = machine.address if machine.address.startswith("127.") else "127.0.0.1"
        return {"address": own, "port": self._lab.agent_port}

    def _controller(self, machine: Machine) -> Program:
        folder = self.folder(machine)
        issued = self.authority.issue(machine.name, machine.addresses)
        agents, admins = folder / "agents.toml", folder / "admins.toml"
        agents.write_text(toml({name: _digest(token) for name, token in self._tokens.items()}))
        admins.write_text(toml({ADMIN: _digest(self.token)}))
        config = folder / "controller.toml"
        config.write_text(
            toml(
                {
                    "id": machine.name,
                    "controllers": list(self._lab.apis),
                    "urls": self._lab.apis,
                    "agents": agents,
                    "admins": admins,
                    "state": folder / "state",
                    "edge_port": self._lab.http_port,
                    "listen": {
                        "address": machine.address,
                        "port": self._lab.api_port,
                        "certificate": issued.certificate,
                        "key": issued.key,
                        "ca": self.authority.path,
                    },
                    **self._store(machine),
                    "policy": self.policy,
                    "dns_keys": {
                        KEY: {"secret": _secret(folder / "tsig", self._dns_key.secret)},
                    },
                }
            )
        )
        return Program(
            name=CONTROLLER,
            command=relevo("controller", config),
            restart=True,
        )

    def _store(self, machine: Machine) -> Toml:
        """The controller's [store]: its own machine's member first, then the others."""
        if self._lab.staff.store is Store.EMBEDDED:
            return {}
        others = (other for other in self._lab.of(Kind.CONTROLLER) if other is not machine)
        own = self.authority.issue(f"{machine.name}-store", client=True)
        return {
            "store": {
                "kind": "etcd",
                "endpoints": [self._member(one) for one in (machine, *others)],
                "ca": self.authority.path,
                "cert": own.certificate,
                "key": own.key,
            }
        }

    def _member(self, machine: Machine) -> str:
        return f"https://{machine.address}:{self._lab.etcd_port}"

    def _etcd(self, machine: Machine) -> Program:
        """A member of the cluster that the controllers share; it lets in who shows a certificate of ours."""
        own = self.authority.issue(f"{machine.name}-etcd", machine.addresses, client=True)
        peers = {
            one.name: f"https://{one.address}:{self._lab.etcd_peer_port}"
            for one in self._lab.of(Kind.CONTROLLER)
        }
        client, peer = self._member(machine), peers[machine.name]
        flags = {
            "name": machine.name,
            "data-dir": self.folder(machine) / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": ",".join(f"{name}={url}" for name, url in peers.items()),
            **{f"{side}cert-file": own.certificate for side in ("", "peer-")},
            **{f"{side}key-file": own.key for side in ("", "peer-")},
            **{f"{side}trusted-ca-file": self.authority.path for side in ("", "peer-")},
            **{f"{side}client-cert-auth": "true" for side in ("", "peer-")},
            "logger": "zap",
            "log-level": "warn",
        }
        return Program(
            name=ETCD,
            command=(
                str(self._tools.path("etcd")),
                *(f"--{flag}={value}" for flag, value in flags.items()),
            ),
            env=self._tools.env(),
            restart=True,
        )

    def _knot(self, machine: Machine) -> Program:
        primary, secondary = (
            knot.Server(
                directory=self.folder(m) / "knot", addresses=m.addresses, port=self._lab.dns_port
            )
            for m in self._lab.of(Kind.PRIMARY, Kind.SECONDARY)
        )
        if machine.kind is Kind.PRIMARY:
            own, text = primary, knot.primary(primary, self._dns_key, ZONES, [secondary])
        else:
            own, text = secondary, knot.secondary(secondary, self._dns_key, ZONES, primary)
        own.directory.mkdir()
        own.config.write_text(text)
        if machine.kind is Kind.PRIMARY:
            for zone in ZONES:
                knot.zone_file(own, zone).write_text(knot.empty_zone(zone, [primary, secondary]))
        return Program(
            name="knotd",
            command=(str(self._tools.path("knotd")), "-c", str(own.config)),
            env=self._tools.env(),
            restart=True,
        )


def relevo(daemon: str, config: Path) -> tuple[str, ...]:
    """The command that runs a daemon of this checkout."""
    return (sys.executable, "-m", "cli.main", daemon, "--config", str(config))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _secret(path: Path, text: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(f"{text}\n")
    return path


def toml(settings: Toml) -> str:
    """`settings` as TOML: what is simple first, then the tables."""
    return "\n".join(_table(settings, ())) + "\n"


def _table(settings: Toml, path: tuple[str, ...]) -> list[str]:
    simple = [f"{k} = {_value(v)}" for k, v in settings.items() if not isinstance(v, Mapping)]
    lines = [f"[{'.'.join(path)}]", *simple] if path else simple
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += _table(value, (*path, key))
    return lines


def _value(value: object) -> str:
    # Strings, numbers, booleans and arrays of them are written alike in JSON and in TOML.
    return json.dumps(str(value) if isinstance(value, Path | Door) else value)
