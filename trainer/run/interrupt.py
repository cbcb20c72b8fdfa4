"""Ctrl-C as a request that training answers between updates; a second one stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from trainer.processes import Processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ECHO_S = 0.5  # a launcher hands a Ctrl-C on to processes that had it from the terminal already


@dataclass
class Interrupt:
    """Whether someone asked to stop."""

    requested: bool = False
    since: float = 0.0

    def agreed(self, processes: Processes) -> bool:
        """Whether any process was asked to stop; all are told the same."""
        return processes.any(self.requested)


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Inside the block the first SIGINT or SIGTERM only sets `requested`.

    Outside the main thread, where Python allows no handlers, nothing is ever requested.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def request(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if interrupt.requested and now - interrupt.since > ECHO_S:
            raise KeyboardInterrupt("stopped at once, without saving")
        if not interrupt.requested:
            interrupt.requested, interrupt.since = True, now

    before = {number: signal.signal(number, request) for number in SIGNALS}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminated_like_ctrl_c() -> Iterator[None]:
    """Inside the block SIGTERM is a KeyboardInterrupt, so that the server is stopped as well."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
