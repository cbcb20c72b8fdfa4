"""Fixtures that are worth sharing because they take seconds to build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.server_setup import Server, running

# How long an example takes says how busy the machine is, not whether the promise is kept.
settings.register_profile(
    "promises", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("promises")


@pytest.fixture(scope="session")
def reward_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server with real scorers on a TCP port; tests share it, so they name their runs."""
    data: Path = tmp_path_factory.mktemp("reward_server") / "data"
    with running(data, "--settle", "0") as server:
        yield server
