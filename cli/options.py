"""Options that many commands share: where the controllers are, how to be let in, how to answer."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

from cli.client import Controllers
from cli.durations import Duration
from cli.failures import Exit, Failure

P = ParamSpec("P")
DEFAULT_URL = "http://127.0.0.1:7410"
# What `relevo init` writes for the admin of this machine; others make them by hand.
TOKEN = Path("~/.config/relevo/token")
URL = Path("~/.config/relevo/url")
CA = Path("~/.config/relevo/ca.pem")


def talks(
    command: Callable[Concatenate[Controllers, bool, P], None],
) -> Callable[..., None]:
    """Give a command `Controllers` and whether to print JSON, from --url, --ca and --json."""

    @click.option(
        "--url",
        "urls",
        multiple=True,
        metavar="URL",
        help=f"a controller; repeat it for more (else RELEVO_URL; {URL}; {DEFAULT_URL})",
    )
    @click.option(
        "--ca",
        envvar="RELEVO_CA",
        type=click.Path(dir_okay=False),
        help="the CA that signed the controllers' certificates "
        "(RELEVO_CA; else ~/.config/relevo/ca.pem; else the system's)",
    )
    @click.option("--json", "as_json", is_flag=True, help="print JSON, as the API gives it")
    @functools.wraps(command)
    def wrapped(
        urls: tuple[str, ...], ca: str | None, as_json: bool, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        command(controllers(urls, ca), as_json, *args, **kwargs)

    return wrapped


def controllers(urls: tuple[str, ...], ca: str | None) -> Controllers:
    said = os.environ.get("RELEVO_URL", "") or _line(URL) or DEFAULT_URL
    found = urls or tuple(url.strip() for url in said.split(",") if url.strip())
    if ca is None and CA.expanduser().is_file():
        ca = str(CA.expanduser())
    return Controllers(
        urls=tuple(url.rstrip("/") for url in found), token=_token(), ca=ca, language=_language()
    )


def _line(path: Path) -> str:
    """The first line of a file; empty where there is none."""
    try:
        return path.expanduser().read_text().strip().partition("\n")[0]
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: can't be read: {error}", Exit.USAGE) from error


def _token() -> str:
    """From the environment, else from a file; empty where there is none."""
    if token := os.environ.get("RELEVO_TOKEN", "").strip():
        return token
    named = os.environ.get("RELEVO_TOKEN_FILE", "")
    path = Path(named) if named else TOKEN.expanduser()
    try:
        token = path.read_text().strip()
    except FileNotFoundError as error:
        if not named:
            return ""
        raise Failure(f"{path}: {error.strerror}", Exit.USAGE) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: can't read the token: {error}", Exit.USAGE) from error
    if not token.isascii() or not token.isprintable() or " " in token:
        raise Failure(f"{path}: a token is one word of ASCII", Exit.USAGE)
    return token


def _language() -> str:
    """The language of the terminal's locale, for the reasons in answers."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if value := os.environ.get(name):
            return "es" if value.startswith("es") else "en"
    return "en"


reason = click.option("--reason", required=True, help="why; it is kept and shown to everybody")


def for_s(default: str, *, most_s: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    return click.option(
        "--for",
        "for_s",
        type=Duration(most_s),
        default=default,
        show_default=True,
        help="how long, such as 90s, 30m, 2h or 1d; then it ends by itself",
    )
