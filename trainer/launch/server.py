"""A reward server of one's own: started as a separate process, waited for, stopped cleanly.

The child is told nothing but its command line and is talked to over HTTP only. A port that is
taken is an error, so that another server already listening there is never used by accident.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.client import RewardClient, RewardError
from trainer.errors import TrainerError

READY_S = (
    240.0  # it takes seconds; only a starved machine needs minutes, and an exit is seen at once
)
STOP_S = 15.0
TAIL = 12  # lines of the log shown when the server does not start


class LocalServerError(TrainerError):
    """The reward server's process could not be started or ended by itself."""


def why_taken(host: str, port: int) -> str | None:
    """Why a TCP port cannot be listened on; None when it can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return str(error)
    return None


class Child:
    """One child process in a session of its own, so that Ctrl-C reaches the trainer alone."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def pid(self) -> int:
        """Its process id, also the id of its session."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it to end (SIGTERM), wait, and only then insist (SIGKILL to its whole session)."""
        if self.exit_code is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def tail(self) -> str:
        """The last lines it wrote."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL:])


class LocalServer:
    """`python -m reward_server` on 127.0.0.1 as a context manager; ready when entered.

    Args:
        data: folder of its database and images.
        port: TCP port to claim.
        simulate: also start simulated annotators.
        sleep, clock: seams for tests.
    """

    def __init__(
        self,
        data: Path,
        port: int,
        *,
        simulate: bool = False,
        extra: Sequence[str] = (),
        ready_s: float = READY_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._data, self._port, self._extra = data, port, list(extra)
        self._simulate = simulate
        self._ready_s = ready_s
        self._sleep = sleep
        self._children: list[Child] = []

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _start(self) -> None:
        if taken := why_taken("127.0.0.1", self._port):
            raise LocalServerError(
                f"port {self._port} cannot be taken ({taken}); stop what listens there, or take "
                f"another: --port {self._port + 1} (make run PORT={self._port + 1})"
            )
        where = ["--port", str(self._port), "--data", str(self._data)]
        command = ["reward_server", "serve", "--host", "127.0.0.1", *where, *self._extra]
        server = Child(command, self._data.with_suffix(".log"))
        self._children.append(server)
        self._wait_until_ready(server)
        if self._simulate:
            clicks = ["reward_server", "simulate", "--url", self.url, "--annotators", "2"]
            log = self._data.with_name("simulate.log")
            self._children.append(Child([*clicks, "--rate", "30"], log))

    def _wait_until_ready(self, server: Child) -> None:
        deadline = time.monotonic() + self._ready_s
        with RewardClient(self.url, budget_s=0) as client:
            while True:
                if server.exit_code is not None:
                    raise LocalServerError(
                        f"the reward server ended with exit code {server.exit_code}:\n"
                        f"{server.tail()}\n(its log: {server.log}; another port: --port N)"
                    )
                try:
                    client.readyz()
                    return
                except RewardError as error:
                    if time.monotonic() > deadline:
                        raise LocalServerError(
                            f"the reward server was not ready after {self._ready_s:g} s: {error}\n"
                            f"its log: {server.log}"
                        ) from error
                self._sleep(0.2)

    def _stop(self) -> None:
        for child in reversed(self._children):
            child.stop()
        self._children.clear()
