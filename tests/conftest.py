"""Fixtures that are worth sharing because they take seconds to build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser

from tests import labeling_setup
from tests.server_setup import Server, running

# How long an example takes says how busy the machine is, not whether the promise is kept.
settings.register_profile("promises", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("promises")


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
