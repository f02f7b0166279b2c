"""Ages of copies: what is there, what was never there, and what can't be looked at."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from agent.config import Copy
from agent.sense.copies import NEVER, CopySense, newest
from metrics.catalogue import AGENT
from metrics.exporter import Exporter


def written(path: Path, at: float) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"")
    os.utime(path, (at, at))
    return path


def told(exporter: Exporter) -> list[str]:
    lines = exporter.render().decode().splitlines()
    return [line for line in lines if line.startswith("relevo_agent_copy_timestamp_seconds{")]


def test_the_youngest_of_a_folder_counts(tmp_path: Path) -> None:
    """Not the folder's own time, which every removal of an old copy moves."""
    folder = tmp_path / "sql"
    for name, at in (("monday.gz", 1000.0), ("tuesday.gz", 2000.0)):
        written(folder / name, at)
    assert newest(folder) == 2000.0
    (folder / "tuesday.gz").unlink()
    assert newest(folder) == 1000.0
    assert newest(written(tmp_path / "done", 3000.0)) == 3000.0


def test_what_was_never_written_is_older_than_every_bound(tmp_path: Path) -> None:
    """No file, and a folder that is empty."""
    (tmp_path / "empty").mkdir()
    assert newest(tmp_path / "nothing") == newest(tmp_path / "empty") == NEVER


async def test_a_copy_that_cannot_be_looked_at_keeps_its_last_time(tmp_path: Path) -> None:
    """It grows old like any other (R7); it neither vanishes nor hides the others."""
    exporter = Exporter(AGENT)
    mail = Copy(name="mail", path=written(tmp_path / "mail" / "a", 1000.0).parent)
    sql = Copy(name="sql", path=written(tmp_path / "sql", 2000.0))
    sense = CopySense((mail, sql), exporter)
    await sense.look(mail)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)  # ELOOP, also for root
    await sense.look(Copy(name="mail", path=loop))
    await sense.look(sql)
    assert told(exporter) == [
        'relevo_agent_copy_timestamp_seconds{copy="mail"} 1000.0',
        'relevo_agent_copy_timestamp_seconds{copy="sql"} 2000.0',
    ]


async def test_each_copy_is_told_with_its_bound(tmp_path: Path) -> None:
    """Alerts compare the two: neither comes without the other."""
    exporter = Exporter(AGENT)
    copy = Copy(name="sql", path=written(tmp_path / "sql", 2000.0), stale_after_s=60.0)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await CopySense((copy,), exporter).keep()
    assert told(exporter) == ['relevo_agent_copy_timestamp_seconds{copy="sql"} 2000.0']
    assert b'relevo_agent_copy_stale_after_seconds{copy="sql"} 60.0' in exporter.render()
