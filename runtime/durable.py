"""A file replaced as a whole: after a crash it is the old one or the new one, on disk and not in memory alone."""

import os
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Its owner alone may read it. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
