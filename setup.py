"""The one thing about building that pyproject.toml can't say: catalogues are compiled with whatever is built."""

from datetime import UTC, datetime
from pathlib import Path

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from setuptools import setup
from setuptools.command.build_py import build_py

CATALOGUES = "runtime/locale/*/LC_MESSAGES/*.po"
# Babel writes the minute of the build into what has no date: the same tree would make another package each minute.
UNDATED = datetime.fromtimestamp(0, UTC)


class Build(build_py):  # type: ignore[misc] # setuptools has no types
    """Into the wheel; where the installation is editable, beside the sources."""

    def run(self) -> None:
        super().run()
        root = Path() if self.editable_mode else Path(self.build_lib)
        for source in Path().glob(CATALOGUES):
            compiled = (root / source).with_suffix(".mo")
            compiled.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as po, compiled.open("wb") as mo:
                catalogue = read_po(po, source.parts[2])
                catalogue.creation_date = catalogue.revision_date = UNDATED
                write_mo(mo, catalogue)


setup(cmdclass={"build_py": Build})
