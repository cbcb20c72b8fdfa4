"""The stack as its operator handles it: through `docker compose` and nothing else."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "tdm-r1-test"
"""Beside whatever stack runs on this machine already, with volumes of its own."""
PORT = os.environ.get("PORT", "18000")
URL = f"http://127.0.0.1:{PORT}"
# Settings of a .env are somebody's own; the stack is tested as it is without one.
ENVIRONMENT = {**os.environ, "COMPOSE_PROJECT_NAME": PROJECT, "PORT": PORT}
COMPOSE = ("docker", "compose", "--env-file", os.devnull, "-f", f"{ROOT / 'docker-compose.yml'}")
PATIENCE_S = float(os.environ.get("COMPOSE_PATIENCE_S", "900"))
"""Longest wait for anything; only a starved machine needs more than a few seconds of it."""


class StackError(Exception):
    """A command that failed, or something that did not come true in time."""


def compose(*words: str, text: str | None = None, check: bool = True) -> str:
    """Standard output of `docker compose WORDS`, with `text` on its standard input."""
    return _run((*COMPOSE, *words), text, check)


def docker(*words: str, check: bool = True) -> str:
    """Standard output of `docker WORDS`."""
    return _run(("docker", *words), None, check)


def shell(script: str, folder: Path = ROOT) -> str:
    """Standard output of lines of the operator's manual, typed as they stand there."""
    here = script.replace("docker compose", shlex.join(COMPOSE))
    return _run(("bash", "-euo", "pipefail", "-c", here), None, True, folder)


def _run(command: tuple[str, ...], text: str | None, check: bool, folder: Path = ROOT) -> str:
    done = subprocess.run(
        command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, input=text or ""
    )
    if check and done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise StackError(f"{' '.join(command)} ended with {done.returncode}:\n{tail}")
    return done.stdout


def containers(service: str, *, running: bool = True) -> list[dict[str, Any]]:
    """What the engine knows of a service's containers."""
    flags = [] if running else ["--all"]
    ids = compose("ps", "--quiet", *flags, service).split()
    found: list[dict[str, Any]] = json.loads(docker("inspect", *ids)) if ids else []
    return found


def healthy(service: str, count: int = 1) -> bool:
    """Whether that many containers of a service are up and well."""
    states = [c["State"] for c in containers(service)]
    return len(states) == count and all(s["Health"]["Status"] == "healthy" for s in states)


def kill(container: dict[str, Any]) -> None:
    """SIGKILL to everything in a container, as a crash would end it; nothing is told."""
    docker("exec", container["Id"], "sh", "-c", "kill -9 -1", check=False)


def restarted(container: dict[str, Any]) -> bool:
    """Whether the engine has brought a killed container back, and it is well."""
    (now,) = json.loads(docker("inspect", container["Id"]))
    again = now["RestartCount"] > container["RestartCount"]
    return bool(again and now["State"]["Health"]["Status"] == "healthy")


def from_volume(volume: str, file: str) -> str:
    """A file of a named volume, read by the stack's own user; empty while it is not there."""
    if not docker("volume", "ls", "--quiet", "--filter", f"name=^{PROJECT}_{volume}$"):
        return ""  # asking for it would make it
    mount = f"{PROJECT}_{volume}:/volume:ro"
    run = ["run", "--rm", "--network=none", "--user=10001:10001", "--entrypoint=cat"]
    return docker(*run, "-v", mount, "postgres:16-bookworm", f"/volume/{file}", check=False).strip()


def admin(*words: str) -> str:
    """`python -m reward_server WORDS` in a running server's container."""
    return compose("exec", "-T", "reward-server", "python", "-m", "reward_server", *words)


def rows(run: str) -> list[dict[str, float]]:
    """The record of a run so far."""
    where = f"/var/lib/runs/{run}/metrics.jsonl"
    text = compose("exec", "-T", "trainer", "cat", where, check=False)
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def eventually(what: str, holds: Callable[[], Any], every_s: float = 1.0) -> Any:
    """The first true value of `holds`; raises if none comes."""
    end = time.monotonic() + PATIENCE_S
    while not (value := holds()):
        if time.monotonic() > end:
            raise StackError(f"did not come true within {PATIENCE_S:g} s: {what}")
        time.sleep(every_s)
    return value


def megabytes(image: str) -> float:
    """Size of an image."""
    (found,) = json.loads(docker("image", "inspect", image))
    return float(found["Size"]) / 1e6
