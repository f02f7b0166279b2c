"""The messages for etcd are those of rpc.proto, made by the generator that pyproject.toml names."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROTO = "controller/store/etcd/rpc.proto"
MADE = ("controller/store/etcd/rpc_pb2.py", "controller/store/etcd/rpc_pb2.pyi")


def test_making_the_messages_anew_changes_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """What is committed is what the generator makes of the proto; `--rewrite` makes it so."""
    out = REPOSITORY if request.config.getoption("--rewrite") else tmp_path
    command = ("-m", "grpc_tools.protoc", "-I.", f"--python_out={out}", f"--pyi_out={out}", PROTO)
    subprocess.run((sys.executable, *command), cwd=REPOSITORY, check=True, timeout=30)
    for path in MADE:
        assert (out / path).read_text() == (REPOSITORY / path).read_text(), path
