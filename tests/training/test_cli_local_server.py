"""The demo's reward server: a process of its own, ready when entered, gone when left."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from shared.client import RewardClient, ServerUnreachable
from tests.support.server_setup import free_port
from trainer.launch.server import Child, LocalServer, LocalServerError


def test_it_answers_while_entered_and_is_gone_afterwards(tmp_path: Path) -> None:
    with LocalServer(tmp_path / "server", free_port()) as server:
        with RewardClient(server.url) as client:
            assert {r.name for r in client.info().rewards} >= {"counting", "ocr", "human"}
        with (
            pytest.raises(LocalServerError, match=r"cannot be taken.*make run PORT="),
            LocalServer(tmp_path / "other", int(server.url.rsplit(":", 1)[1])),
        ):
            pytest.fail("two servers on one port")
    with RewardClient(server.url, budget_s=0) as client, pytest.raises(ServerUnreachable):
        client.healthz()
    assert not (tmp_path / "other.log").exists()


def test_a_server_that_ends_early_shows_what_it_said(tmp_path: Path) -> None:
    extra = ["--no-such-option"]
    with (
        pytest.raises(LocalServerError, match=r"exit code 2(?s:.*)no-such-option"),
        LocalServer(tmp_path / "server", free_port(), extra=extra),
    ):
        pytest.fail("it cannot have started")


def test_a_server_that_never_gets_ready_is_stopped_and_named(tmp_path: Path) -> None:
    port = free_port()
    with (
        pytest.raises(LocalServerError, match=r"not ready after 0 s(?s:.*)server\.log"),
        LocalServer(tmp_path / "server", port, ready_s=0.0),
    ):
        pytest.fail("it cannot be ready at once")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_ctrl_c_reaches_the_trainer_and_not_its_server(tmp_path: Path) -> None:
    child = Child(["http.server", "0", "--directory", str(tmp_path)], tmp_path / "child.log")
    try:
        deadline = time.monotonic() + 20
        while "Serving" not in child.tail() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert os.getpgid(child.pid) != os.getpgid(0)
        assert child.exit_code is None
    finally:
        child.stop()
    assert child.exit_code == -signal.SIGTERM
