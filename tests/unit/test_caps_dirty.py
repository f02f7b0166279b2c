"""What `relevo layout` says of writes that wait in memory: the kernel's own bound, and the docs' in its place."""

from pathlib import Path

import pytest

from agent.caps.dirty import BACKGROUND_BYTES, FOLDER, MOST_BYTES, unbounded
from runtime.words import explain

DOCS = Path(__file__).parents[2] / "docs" / "caps.md"


def host(root: Path, **values: str) -> Path:
    (root / FOLDER).mkdir(parents=True)
    for name, value in values.items():
        (root / FOLDER / name).write_text(f"{value}\n")
    return root


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_share_of_memory_is_told_with_both_lines_of_the_remedy(
    tmp_path: Path, language: str
) -> None:
    why = unbounded(host(tmp_path, dirty_background_bytes="0", dirty_background_ratio="10"))
    assert why is not None
    told = explain(why, language)
    assert "10 %" in told
    for line in (
        f"vm.dirty_background_bytes = {BACKGROUND_BYTES}",
        f"vm.dirty_bytes = {MOST_BYTES}",
    ):
        assert line in told
        assert f"\n{line}\n" in DOCS.read_text()


def test_what_an_admin_has_set_is_an_admins(tmp_path: Path) -> None:
    set_by_hand = host(tmp_path, dirty_background_bytes="4096", dirty_background_ratio="0")
    assert unbounded(set_by_hand) is None


def test_of_files_that_are_not_there_nothing_is_said(tmp_path: Path) -> None:
    assert unbounded(tmp_path) is None
    assert unbounded(host(tmp_path, dirty_background_bytes="x")) is None
