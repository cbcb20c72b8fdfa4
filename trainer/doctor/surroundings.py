"""`python -m trainer doctor`: looks for what would stop a run, each finding with its remedy.

Looks only: starts nothing, changes nothing, and says "warn" for what a run can do without.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import torch

from shared.client import RewardClient, RewardError, ServerUnreachable, Unauthorized
from trainer.errors import TrainerError
from trainer.evaluation.results import load, require_weights
from trainer.launch.server import why_taken
from trainer.models.hub import HubName, hub_name, is_here

Status = Literal["ok", "warn", "fail"]
Versions = Callable[[str], str]

NEEDED = {"torch": "2.11", "diffusers": "0.42", "transformers": "5.0", "peft": "0.21"}
PYTHON = (3, 11)
DISK_FAIL, DISK_WARN = 0.3e9, 2e9  # bytes: a run writes about 0.1 GB, an installation 2 GB
REWARDS = ("counting", "ocr", "human")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    status: Status
    what: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What is examined."""

    model: Path
    runs: Path
    url: str
    api_key: str | None = None


def examine(place: Surroundings, client: RewardClient) -> list[Finding]:
    """Every check, in the order a newcomer meets the problems."""
    server = server_findings(client, place)
    return [
        python_finding(sys.version_info[:2]),
        *package_findings(version),
        torchvision_finding(),
        device_finding(),
        weights_finding(place.model),
        disk_finding(place.runs),
        *server,
        *([] if server[0].status == "ok" else [port_finding(place.url)]),
        browser_finding(shutil.which),
    ]


def worst(findings: Iterable[Finding]) -> Status:
    """The gravest status among the findings."""
    order: tuple[Status, ...] = ("ok", "warn", "fail")
    return max((finding.status for finding in findings), key=order.index, default="ok")


def python_finding(running: Sequence[int]) -> Finding:
    """Whether this Python is recent enough."""
    text = f"{'.'.join(map(str, running))} ({platform.system()} {platform.machine()})"
    if tuple(running) >= PYTHON:
        return Finding("ok", "python", text)
    remedy = "install Python 3.11 or newer, then: make PYTHON=python3.11 setup"
    return Finding("fail", "python", text, remedy)


def package_findings(version_of: Versions) -> list[Finding]:
    """Whether the packages that decide the pixels are there and recent enough."""
    return [_package(name, minimum, version_of) for name, minimum in NEEDED.items()]


def _package(name: str, minimum: str, version_of: Versions) -> Finding:
    install = f"pip install -c constraints.txt '{name}>={minimum}'"
    try:
        found = version_of(name)
    except PackageNotFoundError:
        return Finding("fail", name, "not installed", install)
    if _numbers(found) < _numbers(minimum):
        return Finding("fail", name, f"{found}, older than {minimum}", install)
    return Finding("ok", name, found)


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split("+")[0].split(".")
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts[:3])


def torchvision_finding() -> Finding:
    """A torchvision that does not fit torch breaks transformers although nothing needs it."""
    try:
        found = version("torchvision")
    except PackageNotFoundError:
        return Finding("ok", "torchvision", "absent, and not needed")
    try:
        import_module("torchvision")
    except (RuntimeError, ImportError, OSError) as error:
        remedy = "pip uninstall torchvision (nothing here needs it)"
        return Finding("fail", "torchvision", f"{found} does not load: {error}", remedy)
    return Finding("ok", "torchvision", f"{found}, not needed")


def device_finding() -> Finding:
    """What training would run on."""
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        return Finding("ok", "device", f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GB")
    threads = torch.get_num_threads()
    text = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    if threads < 2:
        return Finding("warn", "device", text, "free a second core: training shares one with OCR")
    return Finding("ok", "device", text)


def _on_hub(model: Path, name: HubName) -> Finding:
    """A model of the hub: whether it was downloaded."""
    if not is_here(model):
        remedy = f"training downloads it, or: {name.command}"
        return Finding("warn", "weights", f"{model} is not in the hub's cache yet", remedy)
    return Finding("ok", "weights", f"{model}, in the hub's cache")


def weights_finding(model: Path) -> Finding:
    """Whether the model is there and is the one its stored evaluation was made with."""
    if (name := hub_name(model)) is not None:
        return _on_hub(model, name)
    if not (model / "model_index.json").is_file():
        remedy = "restore the folder, or make it with: python -m trainer pretrain"
        return Finding("fail", "weights", f"{model} is no pipeline folder", remedy)
    stored = model / "eval.json"
    if not stored.is_file():
        remedy = f"python -m trainer eval --model {model} --config FILE"
        return Finding("warn", "weights", f"{model}, not evaluated yet", remedy)
    try:
        evaluation = load(stored)
        require_weights(evaluation, model, stored)
    except TrainerError as error:
        return Finding("fail", "weights", str(error))
    return Finding("ok", "weights", f"{model}, {len(evaluation.weights)} files as evaluated")


def disk_finding(folder: Path) -> Finding:
    """Whether a run's checkpoints and images will fit."""
    existing = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 1e9:.1f} GB free for {folder}"
    if free >= DISK_WARN:
        return Finding("ok", "disk", text)
    remedy = "free some space, or write elsewhere with --set run.folder=DIR"
    return Finding("fail" if free < DISK_FAIL else "warn", "disk", text, remedy)


def server_findings(client: RewardClient, place: Surroundings) -> list[Finding]:
    """Whether the reward server answers, accepts the key, and knows the rewards."""
    try:
        info = client.info()
    except ServerUnreachable:
        parts = urlsplit(place.url)
        start = f"python -m reward_server --port {parts.port or 8000} --data DIR"
        text = f"nothing answers at {place.url}"
        return [Finding("warn", "server", text, f"make run starts its own; otherwise: {start}")]
    except Unauthorized as error:
        given = "the API key given is not accepted" if place.api_key else "it asks for an API key"
        remedy = "export REWARD_API_KEY=... (made by: python -m reward_server keys create)"
        return [Finding("fail", "server", f"{place.url}: {given} ({error.status})", remedy)]
    except RewardError as error:
        return [Finding("fail", "server", str(error))]
    known = {reward.name: reward.model for reward in info.rewards}
    return [
        Finding("ok", "server", f"{place.url}, version {info.server_version}"),
        _rewards(known),
    ]


def _rewards(known: Mapping[str, str]) -> Finding:
    missing = [name for name in REWARDS if name not in known]
    text = ", ".join(sorted(known)) or "none"
    if missing:
        remedy = "start a server of this version; prompt sets may only name rewards it knows"
        return Finding("warn", "rewards", f"{text} (missing: {', '.join(missing)})", remedy)
    return Finding("ok", "rewards", text)


def port_finding(url: str) -> Finding:
    """Whether a server could be started where none answers."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 8000
    if taken := why_taken(host, port):
        remedy = f"stop what listens there, or take another: make run PORT={port + 1}"
        return Finding("fail", "port", f"{host}:{port} cannot be taken ({taken})", remedy)
    return Finding("ok", "port", f"{host}:{port} is free")


def browser_finding(which: Callable[[str], str | None]) -> Finding:
    """Whether the browser tests can run; labeling works in any browser."""
    found = next((path for name in BROWSERS if (path := which(name))), None)
    if found:
        return Finding("ok", "browser", found)
    remedy = "apt install chromium (for the browser tests; labeling works from any machine)"
    return Finding("warn", "browser", "no Chromium", remedy)
