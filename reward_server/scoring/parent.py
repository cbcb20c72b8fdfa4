"""Whom a scorer process works for: the server that started it, or whoever did so by hand.

Says how long to go on, how to wait for work, and whom to tell; what is scored is the same.
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import threading
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from reward_server.settings import Settings

log = structlog.get_logger()

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Parent(Protocol):
    """What a scorer process needs to know from whoever started it."""

    def wanted(self) -> bool:
        """Whether to go on."""
        ...

    def idle(self, seconds: float) -> bool:
        """Wait for work, or until no longer wanted; whether somebody said that there is some."""
        ...

    def report(self, event: str, **facts: Any) -> None:
        """Tell what happened."""
        ...


class ServerParent:
    """A server in the process above.

    It writes the settings to our stdin (a command line shows passwords to everybody), then a byte
    when there is work for us, and closes it when we should end; reports are JSON lines on stdout.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._channel = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def settings(self) -> Settings:
        """The first line of stdin, read without buffering what comes after it."""
        return Settings.model_validate_json(io.FileIO(0, closefd=False).readline())

    def wanted(self) -> bool:
        """True until stdin is closed."""
        while select.select([0], [], [], 0)[0]:
            if not os.read(0, 65536):
                return False
        return True

    def idle(self, seconds: float) -> bool:
        """Wait for a byte."""
        return bool(select.select([0], [], [], seconds)[0])

    def report(self, event: str, **facts: Any) -> None:
        """One JSON line."""
        try:
            self._channel.write(json.dumps({"event": event} | facts) + "\n")
            self._channel.flush()
        except BrokenPipeError:
            log.info("server_gone", note="outcomes are in the store all the same")


class Standalone:
    """Started by hand: goes on until SIGINT or SIGTERM and reports to the log.

    Touches ``heartbeat`` before every batch and every look for work: a file that grows old means
    a scorer that hangs.
    """

    def __init__(self, heartbeat: Path | None = None) -> None:
        self._heartbeat = heartbeat
        self._told = threading.Event()
        for number in SIGNALS:
            signal.signal(number, lambda *_: self._told.set())

    def wanted(self) -> bool:
        """True until told to stop."""
        if self._heartbeat is not None:
            self._heartbeat.touch()
        return not self._told.is_set()

    def idle(self, seconds: float) -> bool:
        """Wait, but no longer than until told to stop; nobody says that there is work."""
        self._told.wait(seconds)
        return False

    def report(self, event: str, **facts: Any) -> None:
        """One log line."""
        log.info(event, **facts)
