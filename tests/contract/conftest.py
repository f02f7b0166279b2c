"""Every contract test runs once per store."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import pytest

from controller.store import Store
from tests.contract.stores import FACTORIES, Subject, etcd
from tests.etcds import NEW, OLD, Cluster, laid_out, removed

PATIENCE_S = 20.0


@contextmanager
def running(version: str) -> Iterator[Cluster]:
    """Three members, for as long as there are tests."""
    cluster = laid_out(version)
    try:
        cluster.start()
        asyncio.run(cluster.ready())
        yield cluster
    finally:
        cluster.stop()
        removed(cluster)


@pytest.fixture(scope="session")
def etcd_old() -> Iterator[Cluster]:
    with running(OLD) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def etcd_new() -> Iterator[Cluster]:
    with running(NEW) as cluster:
        yield cluster


ETCDS = {"etcd-3.4": "etcd_old", "etcd-3.5": "etcd_new"}


@pytest.fixture(
    params=[*FACTORIES, *(pytest.param(name, marks=pytest.mark.integration) for name in ETCDS)]
)
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Subject]:
    """What opens the store; not async, for starting a cluster needs a loop of its own."""
    name: str = request.param
    if fixture := ETCDS.get(name):
        return etcd(request.getfixturevalue(fixture))
    return FACTORIES[name](tmp_path)


@pytest.fixture
async def subject(
    factory: AbstractAsyncContextManager[Subject],
) -> AsyncGenerator[Subject, None]:
    async with factory as subject, asyncio.timeout(PATIENCE_S):
        yield subject


@pytest.fixture
def store(subject: Subject) -> Store:
    return subject.store
