"""The client's own book: one JSON line before and one after everything it asks of the server.

Only ever appended to, and the only thing the account at the end believes besides the server's final
answers. Events, with their facts:

- ``sending``: key, reward, votes, items as [prompt, truth] in request order
- ``accepted``: key, job; once for every answer that names the job
- ``answered``: key, job, rewards; the first final answer
- ``refused``: key, why; a request that must not be refused was
- ``misused``: key, status; the key was sent with another body
- ``clicking``: who, rows as [label_id, prompt, label]
- ``clicked``: who, rows as [label_id, outcome]
- ``forged``: label_id, outcome; a known label id was sent with another label
- ``trick``, ``fault``: kind
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class Ledger:
    """Thread-safe; a line is with the operating system before the request it announces is sent."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = path.open("x", encoding="utf-8")

    def write(self, event: str, **facts: Any) -> None:
        """Append one event."""
        line = json.dumps({"at": round(time.time(), 3), "event": event} | facts)
        with self._lock:
            self._file.write(line + "\n")
            self._file.flush()

    def close(self) -> None:
        """Nothing can be written any more."""
        self._file.close()


def read(path: Path) -> list[Event]:
    """All events, oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
