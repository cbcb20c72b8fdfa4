"""Fixtures that are worth sharing because they take seconds to build."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser
from sqlalchemy.engine import make_url
from starlette.testclient import TestClient

from reward_server.store import Store
from tests.support import labeling_setup
from tests.support.fakes import build_sd3_folder
from tests.support.postgres_setup import Postgres, postgres
from tests.support.server_setup import HandClock, Server, inside, running

# How long an example takes says how busy the machine is, not whether the promise is kept.
settings.register_profile("promises", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("promises")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    """A real PostgreSQL; tests share it and take a database each."""
    with postgres() as started:
        yield started


@pytest.fixture(scope="session")
def migrated_postgresql(cluster: Postgres) -> str:
    """Name of a PostgreSQL database with all tables, to be copied."""
    url = cluster.database()
    _migrate(url)
    return str(make_url(url).database)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with all tables, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "queue.sqlite3"
    _migrate(f"sqlite:///{file}")
    return file


def _migrate(url: str) -> None:
    store = Store(url)
    store.migrate()
    store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without tables: what uses this promises the same on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'queue.sqlite3'}"
    cluster: Postgres = request.getfixturevalue("cluster")
    return cluster.database()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database with all tables: what uses this promises the same on both."""
    template = request.getfixturevalue(f"migrated_{request.param}")
    if request.param == "sqlite":
        return f"sqlite:///{shutil.copy(template, tmp_path)}"
    cluster: Postgres = request.getfixturevalue("cluster")
    return cluster.database(template)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A store of the test's own, on both databases."""
    opened = Store(database)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random SD3 model that stock diffusers loads; tests share it and write nothing into it."""
    return build_sd3_folder(tmp_path_factory.mktemp("sd3") / "model")


@pytest.fixture(scope="session")
def reward_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server with real scorers on a TCP port; tests share it, so they name their runs."""
    data: Path = tmp_path_factory.mktemp("reward_server") / "data"
    with running(data, "--settle", "0") as server:
        yield server


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[labeling_setup.Server]:
    """A real server of the test's own, for people alone: what one test asks, no other sees."""
    with labeling_setup.running_server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; of one file, for its event loop stands in the way of tests that run their own."""
    with labeling_setup.chromium() as browser:
        yield browser


@pytest.fixture
def clock() -> HandClock:
    """The time of `client`, moved by hand."""
    return HandClock()


@pytest.fixture
def client(tmp_path: Path, clock: HandClock, database: str) -> Iterator[TestClient]:
    """The server in this process, on either database, at the time of `clock`."""
    with inside(tmp_path, clock, database=database) as opened:
        yield opened
