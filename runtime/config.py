"""Configuration: TOML into a frozen struct, every error with its file, field, value and remedy."""

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


class BadConfig(Exception):
    """The configuration can't be used; the message says where and why."""


def load(path: Path, kind: type[T]) -> T:
    """Read `path` as `kind`. Raises BadConfig."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: not TOML: {error}") from error
    try:
        return msgspec.convert(data, kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise BadConfig(f"{path}: {error}") from error


def _path(kind: type[object], value: object) -> object:
    """The one type of ours that TOML lacks."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def secret(path: Path) -> str:
    """The one line of a secret's file. Raises BadConfig, never showing what it read."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: can't read the secret: {type(error).__name__}") from error
    if not text or "\n" in text:
        raise BadConfig(f"{path}: a secret is one line that is not empty")
    if path.stat().st_mode & 0o077:
        raise BadConfig(f"{path}: others can read this secret; run: chmod 600 {path}")
    return text
