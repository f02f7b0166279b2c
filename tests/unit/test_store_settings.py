"""What the controller says of a [store] that it can't use, and that it takes one that it can."""

import subprocess
import sys
from pathlib import Path

import pytest

from controller.config import Config
from controller.stores import Embedded, Etcd
from runtime.config import BadConfig, load

TLS = 'ca = "/etc/relevo/ca.pem"\n'
REMOTE = 'endpoints = ["https://10.0.0.1:2379", "https://10.0.0.2:2379"]\n'
LOCAL = 'endpoints = ["http://127.0.0.1:2379"]\n'


def config(folder: Path, store: str) -> Config:
    path = folder / "controller.toml"
    path.write_text(f'id = "c1"\n{store}')
    return load(path, Config)


def test_without_settings_the_store_is_embedded(tmp_path: Path) -> None:
    """A configuration of before, or one that says so."""
    assert config(tmp_path, "").store == Embedded()
    assert config(tmp_path, '[store]\nkind = "embedded"\n').store == Embedded()


@pytest.mark.parametrize(
    "more",
    [
        LOCAL,
        'endpoints = ["http://[::1]:2379", "http://localhost:2380"]\n',
        REMOTE + TLS,
        REMOTE + TLS + 'cert = "/c.pem"\nkey = "/c.key"\nprefix = "coop1/"\n',
        REMOTE + TLS + 'user = "relevo"\npassword_file = "/etc/relevo/etcd.password"\n',
    ],
)
def test_a_cluster_is_taken(more: str, tmp_path: Path) -> None:
    """On loopback in the clear, elsewhere by TLS; with a certificate or a user of our own, or neither."""
    assert isinstance(config(tmp_path, f'[store]\nkind = "etcd"\n{more}').store, Etcd)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("", "missing required field `endpoints`"),
        ("endpoints = []\n", "length >= 1"),
        ('endpoints = ["10.0.0.1:2379"]\n', "names no member; give scheme, host and port"),
        ('endpoints = ["https://10.0.0.1"]\n', "names no member"),
        ('endpoints = ["https://10.0.0.1:2379/"]\n', "names no member"),
        ('endpoints = ["https://u:p@10.0.0.1:2379"]\n', "names no member"),
        ('endpoints = ["https://[::1:2379"]\n', "give scheme, host and port"),
        ('endpoints = ["http://10.0.0.1:2379"]\n', "is not loopback and has no TLS"),
        ('endpoints = ["http://127.0.0.1:1", "http://127.0.0.1:1"]\n', "is named twice"),
        ('endpoints = ["http://127.0.0.1:1", "https://127.0.0.1:2"]\n' + TLS, "without TLS"),
        (REMOTE, "ca and https:// endpoints come together"),
        (LOCAL + TLS, "ca and https:// endpoints come together"),
        (REMOTE + TLS + 'cert = "/c.pem"\n', "cert and key come together"),
        (LOCAL + 'cert = "/c.pem"\nkey = "/c.key"\n', "cert and key come together"),
        (REMOTE + TLS + 'user = "relevo"\n', "user and password_file come together"),
        (LOCAL + 'prefix = "a b"\n', "prefix"),
        (LOCAL + 'password = "x"\n', "unknown field `password`"),
    ],
)
def test_a_cluster_that_can_not_be_is_refused(more: str, said: str, tmp_path: Path) -> None:
    """The message names the field, its value where it's no secret, and the remedy."""
    with pytest.raises(BadConfig) as refusal:
        config(tmp_path, f'[store]\nkind = "etcd"\n{more}')
    assert said in str(refusal.value)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """There are two."""
    with pytest.raises(BadConfig, match="kind"):
        config(tmp_path, '[store]\nkind = "consul"\n')


def test_a_lone_controller_does_not_load_grpc() -> None:
    """The settings are known without it: what a co-op does not use costs it nothing."""
    code = "import sys, controller.daemon; sys.exit('grpc' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", code), check=False, timeout=30).returncode == 0
