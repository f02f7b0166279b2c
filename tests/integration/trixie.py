"""HAProxy of Debian 13 on a machine of whatever release: run by its own loader, with its own libraries."""

from pathlib import Path

import pytest

from deploy.demo.packages import NotBrought, Tools, bring_from

# `bring_from` takes packages alone: these are what it needs, and what those need.
PACKAGES = (
    "haproxy", "libc6", "libcap2", "libcrypt1", "libgcc-s1", "libjemalloc2", "liblua5.4-0",
    "libopentracing-c-wrapper0t64", "libopentracing1", "libpcre2-8-0", "libssl3t64", "libstdc++6", "libsystemd0",
    "libzstd1", "zlib1g",
)  # fmt: skip


def haproxy_of_trixie(folder: Path) -> Tools:
    """A HAProxy 3.0 that starts itself anew by the same way; skips where none can be had."""
    try:
        root = bring_from("trixie", PACKAGES)
    except NotBrought as error:
        pytest.skip(str(error))
    libraries = sorted({str(path.parent) for path in root.rglob("*.so.*")})
    wrapper = folder / "usr" / "sbin" / "haproxy"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(
        "#!/bin/sh\n"
        "unset LD_LIBRARY_PATH\n"
        f"exec {root}/usr/lib64/ld-linux-x86-64.so.2 --argv0 {wrapper}"
        f' --library-path {":".join(libraries)} {root}/usr/sbin/haproxy "$@"\n'
    )
    wrapper.chmod(0o755)
    tools = Tools(folder)
    if tools.path("haproxy") != wrapper:
        pytest.skip("this machine's own HAProxy comes first")
    return tools
