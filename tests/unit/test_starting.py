"""The files that `relevo init` and `relevo controller add` write can be used as they are."""

import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.another import another
from controller.authority import LOOPBACK, SERVER_VALID, Authority, names_of
from controller.config import Config
from controller.starting import FLEET_YAML, controller_toml, listen_on, url_of
from fleet.documents import load
from runtime.config import BadConfig
from runtime.config import load as load_config

ETC, STATE = Path("/etc/relevo"), Path("/var/lib/relevo/controller")
addresses = st.sampled_from(["c9.example.org", "192.0.2.7", "2001:db8::7"])


@pytest.mark.parametrize("address", ["c1.example.org", "192.0.2.1", "2001:db8::1"])
def test_the_first_configuration_is_a_valid_one(address: str, tmp_path: Path) -> None:
    """It listens where it is reached, with TLS, and tells agents its address."""
    file = tmp_path / "controller.toml"
    file.write_text(controller_toml("c1", address, 7410, ETC, STATE))
    config = load_config(file, Config)
    assert config.listen.address == listen_on(address) and config.listen.ca == ETC / "ca.pem"
    assert config.urls == {"c1": url_of(address, 7410)} and config.controllers == ("c1",)


def test_the_starting_fleet_is_empty_and_its_example_a_fleet() -> None:
    """As it is it declares nothing; with the `#` taken off it declares a site that can fail over."""
    assert load(FLEET_YAML.encode(), "fleet.yaml").fleet.hosts == {}
    example = re.sub(r"(?m)^#(?=\S|  \S|    )", "", FLEET_YAML)
    found = load(example.encode(), "fleet.yaml")
    site = found.fleet.sites["huerto"]  # type: ignore[index]
    assert site.home in found.fleet.hosts and site.standbys and not found.warnings


@given(
    id=st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(lambda id: id != "c1"),
    address=addresses,
    port=st.integers(1, 65535),
    more=st.sampled_from(
        ["", "[policy]\nsettle_s = 40.0\n", '# a note\n[dns_keys.relevo]\nsecret = "/x"  # ours\n']
    ),
    before=st.sampled_from(["", "tick_s = 0.2  # slow disk\n"]),
)
def test_another_controllers_configuration_says_the_same_but_for_its_own_place(
    id: str, address: str, port: int, more: str, before: str
) -> None:
    """All else, comments too, is as it was; all controllers are in both lists; and so for a third one."""
    first = before + controller_toml("c1", "c1.example.org", 7410, ETC, STATE) + more
    made = another(first, id, address, port)
    second, lines = made.text, made.lines
    for text, own, all_ids in (
        (second, id, ["c1", id]),
        (another(second, "z9", "192.0.2.99", 7410).text, "z9", ["c1", id, "z9"]),
    ):
        read = tomllib.loads(text)
        config = msgspec.convert(
            read, Config, strict=False, dec_hook=lambda kind, value: kind(value)
        )
        assert config.id == own and list(config.controllers) == all_ids
        assert list(config.urls) == all_ids
        assert read.get("policy") == tomllib.loads(first).get("policy")
    assert tomllib.loads(second)["listen"]["address"] == listen_on(address)
    assert "# ours" in second or "# ours" not in first
    assert f'"{id}"' in lines["controllers"] and url_of(address, port) in lines["urls"]


def test_two_made_one_after_the_other_know_each_other() -> None:
    """The first one's file says nothing of the second yet: what was made is told to the third."""
    first = controller_toml("c1", "c1.example.org", 7410, ETC, STATE)
    third = another(first, "c3", "192.0.2.3", 7410, known={"c2": "https://192.0.2.2:7410"})
    urls = {
        "c1": "https://c1.example.org:7410",
        "c2": "https://192.0.2.2:7410",
        "c3": "https://192.0.2.3:7410",
    }
    read = tomllib.loads(third.text)
    assert read["controllers"] == ["c1", "c2", "c3"] and read["urls"] == urls
    assert tomllib.loads(third.lines["controllers"]) == {"controllers": ["c1", "c2", "c3"]}
    assert tomllib.loads(third.lines["urls"]) == {"urls": urls}


@pytest.mark.parametrize(
    ("old", "new"), [("192.0.2.3", "192.0.2.9"), ("2001:db8::3", "c3.coop.org")]
)
def test_one_in_anothers_place_has_its_id_and_its_own_address_everywhere(
    old: str, new: str
) -> None:
    """In the order that was, in [urls], and for the member of etcd that stood beside it; comments stay."""
    first = controller_toml("c1", "192.0.2.1", 7410, ETC, STATE)
    three = another(another(first, "c2", "192.0.2.2", 7410).text, "c3", old, 7410).text
    members = [f"https://{host}:2379" for host in ("192.0.2.1", "192.0.2.2", _bracketed(old))]
    text = (
        f'{three}\n[store]\nkind = "etcd"  # ours\nendpoints = {json.dumps(members)}\nca = "/x"\n'
    )
    made = another(text, "c3", new, 7410)
    read = tomllib.loads(made.text)
    assert read["controllers"] == ["c1", "c2", "c3"]
    assert read["urls"]["c3"] == f"https://{new}:7410" and read["listen"]["address"] == listen_on(
        new
    )
    assert read["store"]["endpoints"] == [*members[:2], f"https://{new}:2379"]
    assert tomllib.loads(made.endpoints) == {"endpoints": read["store"]["endpoints"]}
    assert "# ours" in made.text
    assert another(text, "c4", "192.0.2.4", 7410).endpoints == ""


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def test_a_configuration_that_can_not_be_rewritten_surely_is_left() -> None:
    """A list over several lines: say so, and change nothing."""
    text = controller_toml("c1", "c1.example.org", 7410, ETC, STATE)
    folded = text.replace('controllers = ["c1"]', 'controllers = [\n  "c1",\n]')
    with pytest.raises(BadConfig, match="edit it by hand"):
        another(folded, "c2", "192.0.2.2", 7410)


def test_a_certificate_is_for_its_names_and_for_loopback() -> None:
    """Both kinds of names, and it can be told from it which they were."""
    authority = Authority.make("a test")
    issued = authority.issue("c1", ("c1.example.org", "2001:db8::1", *LOOPBACK))
    assert names_of(issued.certificate) == ("c1.example.org", "2001:db8::1", *LOOPBACK)
    assert SERVER_VALID.days <= 825  # what Apple's devices accept
    again = Authority(authority.pem, authority.key)
    assert names_of(again.issue("c2", ("c2",)).certificate) == ("c2",)
    with pytest.raises(BadConfig, match="does not belong"):
        Authority(authority.pem, Authority.make("another").key)
