"""A real PostgreSQL of the tests' own, from the binaries in the ``pgserver`` package.

It listens on a socket in its own folder only, and trusts whoever may enter that folder.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

USER = "tests"


class Postgres:
    """One cluster in a folder of its own; may be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.find_spec("pgserver")
        assert spec is not None and spec.origin is not None, "pip install pgserver"
        self._bin = Path(spec.origin).parent / "pginstall" / "bin"
        self._folder = folder
        self._made = 0

    def create(self) -> None:
        """Make the cluster: no password, no locale of the machine, UTF-8."""
        named = ["--auth=trust", f"--username={USER}", "--encoding=UTF8", "--no-locale"]
        self._run("initdb", *named, "--no-sync", "-D", "data")

    def start(self) -> None:
        """Start and wait until it takes connections."""
        options = f"-k {self._folder} -c listen_addresses= -c max_connections=200"
        self._run("pg_ctl", "-D", "data", "-w", "-t", "300", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        """Break every connection as a crash would; what was committed is kept."""
        self._run("pg_ctl", "-D", "data", "-w", "-t", "300", "-m", "immediate", "stop")

    def database(self, template: str = "template1") -> str:
        """URL of a new database, a copy of the database ``template``."""
        self._made += 1
        name = f"tests_{self._made}"
        with psycopg.connect(
            host=str(self._folder), user=USER, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return f"postgresql+psycopg://{USER}@/{name}?host={self._folder}"

    def _run(self, program: str, *arguments: str) -> None:
        # PostgreSQL refuses to run as root.
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        with (self._folder / "said").open("ab") as log:
            done = subprocess.run(
                [str(self._bin / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=user and user.pw_uid,
                group=user and user.pw_gid,
                extra_groups=user and [],
            )
        assert done.returncode == 0, (self._folder / "said").read_text()[-3000:]


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A started cluster that is gone at the end. A socket needs a short path, hence the folder."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    cluster = Postgres(folder)
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        cluster.create()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
