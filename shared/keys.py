"""An API key from the environment: from a variable, or from the file that another one names.

Containers get secrets as files, since a variable is shown to whoever may look at the container.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from shared.errors import RewardError


class KeyFileUnreadable(RewardError):
    """The file that should hold the API key cannot be read, or is empty."""


def api_key(name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """The key in variable ``name``, else in the file that ``name``_FILE names; None if neither.

    Raises:
        KeyFileUnreadable: naming the variable and the file.
    """
    if key := environment.get(name):
        return key
    file = environment.get(f"{name}_FILE")
    if not file:
        return None
    try:
        key = Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise KeyFileUnreadable(f"{name}_FILE = {file!r}: {error.strerror or error}") from error
    if not key:
        raise KeyFileUnreadable(f"{name}_FILE = {file!r}: the file is empty")
    return key
