"""What a daemon says of a configuration that it can't use: one line, what is wrong and what helps."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.config import Service
from agent.daemon import command as agent
from controller.daemon import command as controller

START = "from controller.daemon import command; command()"


def agent_toml(folder: Path, more: str, url: str = "http://127.0.0.1:7410") -> Path:
    token, path = folder / "token", folder / "agent.toml"
    token.write_text("secret\n")
    token.chmod(0o600)
    path.write_text(
        f'host = "h1"\ntoken = "{token}"\nstate = "{folder}/state"\n{more}\n'
        f'[controllers]\nc1 = "{url}"\n'
    )
    return path


def controller_toml(folder: Path, more: str) -> Path:
    digests, path = folder / "digests.toml", folder / "controller.toml"
    digests.write_text("")
    path.write_text(f'id = "c1"\nagents = "{digests}"\nadmins = "{digests}"\n{more}\n')
    return path


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('service = { check = "http:///health" }', "names no server; give host and port"),
        ('service = { check = "http://:80/" }', "names no server; give host and port"),
        ('service = { check = "http://a:99999/" }', "names no server; give host and port"),
        ('service = { check = "http://[::1/" }', "names no server; give host and port"),
        (
            'service = { restart = ["sysctemctl", "restart", "nginx"] }',
            "service.restart[0] = 'sysctemctl': no such program here; install it",
        ),
        ('edge = { binary = "/no/haproxy" }', "edge.binary = '/no/haproxy': no such program here"),
    ],
)
def test_an_agent_refuses_what_could_never_work(more: str, said: str, tmp_path: Path) -> None:
    """A check without a server, a restart or a HAProxy that is not there: one line at the start, exit 2."""
    done = CliRunner().invoke(agent, ["--config", str(agent_toml(tmp_path, more))])
    assert (done.exit_code, len(done.output.splitlines())) == (2, 1), done.output
    assert said in done.output


@pytest.mark.parametrize(
    "url", ["https://:7410", "https://[fd00::1", "https://c1:0", "https://c1:74100", "https://c1:x"]
)
def test_an_agent_refuses_a_controller_that_is_nowhere(url: str, tmp_path: Path) -> None:
    """No host, half an address, no port that can be one: the field, its value and an example, exit 2."""
    done = CliRunner().invoke(agent, ["--config", str(agent_toml(tmp_path, "", url))])
    assert (done.exit_code, len(done.output.splitlines())) == (2, 1), done.output
    said = f'controllers.c1 = "{url}" names no server; give host and port: c1 = "https://'
    assert said in done.output


@pytest.mark.parametrize(
    "check", ["http://127.0.0.1/", "http://[::1]:8080/up?x=1", "http://localhost:80/"]
)
def test_a_check_of_a_server_is_taken(check: str) -> None:
    """Names, and addresses of both families, with or without a port."""
    assert Service(check=check).check == check


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('state = "/proc/x"', "state = /proc/x: "),
        ('state = "/dev/null"', "state = /dev/null: File exists; name a folder"),
        (
            'controllers = ["c1", "c2"]\nurls = {c1 = "https://one.example:7410"}',
            "urls says nothing of c2: give where agents and people reach each of controllers",
        ),
        (
            'controllers = ["c1", "c2"]\nurls = {c1 = "https://one.example", c2 = "https://two.example"}',
            'let them share one ([store] kind = "etcd"), or name one: controllers = ["c1"]',
        ),
    ],
)
def test_a_controller_refuses_what_could_never_work(more: str, said: str, tmp_path: Path) -> None:
    """A state that can't be made, or several controllers that share no store: one line, exit 2."""
    done = subprocess.run(  # a process of its own: it configures the log before it looks
        [sys.executable, "-c", START, "--config", str(controller_toml(tmp_path, more))],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert said in done.stderr


@pytest.mark.parametrize(("command", "name"), [(agent, "agent"), (controller, "controller")])
def test_both_daemons_know_where_their_configuration_is(command: click.Command, name: str) -> None:
    """Without --config it is /etc/relevo/NAME.toml."""
    [option] = [p for p in command.params if p.name == "path"]
    assert option.default == Path(f"/etc/relevo/{name}.toml")
