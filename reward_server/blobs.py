"""Images on disk, named by their SHA-256: written once, atomically, never changed.

Knows bytes and hashes only; what is an image and who may see it is decided elsewhere.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from shared.disk import flush
from shared.images import sha256_hex


class Blobs:
    """A folder of content-addressed files; ``sync`` flushes each to the disk before it counts."""

    def __init__(self, root: Path, *, sync: bool = False) -> None:
        self.root = root
        self._sync = sync
        root.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where the image of that hash is, or would be.

        Raises:
            ValueError: not a lower-case hex SHA-256, hence not a path either.
        """
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError(f"{sha256!r} is no SHA-256 in lower-case hex")
        return self.root / sha256[:2] / sha256

    def put(self, data: bytes) -> str:
        """Store ``data`` and return its hash; the same bytes again cost nothing.

        Raises:
            OSError: the disk is full or not writable; nothing is left behind.
        """
        sha256 = sha256_hex(data)
        if self.touch(sha256, len(data)):
            return sha256
        path = self.path(sha256)
        path.parent.mkdir(exist_ok=True)
        handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                if self._sync:
                    file.flush()
                    os.fsync(file.fileno())
            Path(scratch).replace(path)
            if self._sync:
                # Its name, and that of its folder, which may be new.
                flush(path.parent)
                flush(self.root)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
        return sha256

    def touch(self, sha256: str, size: int) -> bool:
        """Whether an image of ``size`` bytes is stored whole.

        If so it counts as new, and ``remove`` leaves it alone. A power failure may leave a file
        that was not flushed empty or cut short: that one is to be put again.
        """
        path = self.path(sha256)
        try:
            os.utime(path)
            return path.stat().st_size == size
        except FileNotFoundError:
            return False

    def remove(self, sha256: str, unused_s: float) -> bool:
        """Delete an image that was neither put nor touched for ``unused_s`` seconds."""
        path = self.path(sha256)
        aside = path.with_name(f".old-{sha256}")
        try:
            path.rename(aside)
        except FileNotFoundError:
            return False
        # Looked at only now: whoever touches it from here on finds it gone, and writes it anew.
        if time.time() - aside.stat().st_mtime < unused_s:
            aside.rename(path)
            return False
        aside.unlink()
        return True

    def get(self, sha256: str) -> bytes:
        """Bytes stored under a hash.

        Raises:
            FileNotFoundError: nothing is.
        """
        return self.path(sha256).read_bytes()
