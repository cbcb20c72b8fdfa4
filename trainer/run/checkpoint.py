"""Checkpoints: atomic folders of safetensors and JSON, no pickle.

A checkpoint appears under its name only when complete, so a crash or a full disk leaves the one
before it intact. Resuming under another configuration is an error that names the keys that differ.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from shared.disk import flush
from trainer.arithmetic.trajectory import Trajectory
from trainer.config import Config
from trainer.errors import CheckpointError
from trainer.processes import ALONE, Processes
from trainer.rewards.groups import Group, Prompt, ScoredGroup
from trainer.rewards.inflight import Waiting

FORMAT = 2
KEPT = 2
# May differ between the parts of one run: how long, where, how it is watched; not what it learns.
FREE_KEYS = (
    "run.iterations",
    "run.time_budget_minutes",
    "run.checkpoint_every",
    "run.images_every",
    "run.live_view",
    "run.folder",
    "server.url",
    "server.api_key_env",
    "server.patience_s",
    "server.retry_budget_s",
    "model.backbone",  # the folder says which
    "compute.device",
    "compute.threads",
    "compute.micro_batch",
    "compute.inference_batch",
    "compute.checkpointing",
    "compute.text_encoders",
    "health.stop",
    "health.baseline",
    "health.patience",
    "health.smoothing",
    "health.kl_factor",
    "health.contrast_factor",
    "health.roughness_factor",
    "health.diversity_share",
    "health.heldout_drop",
    "health.heldout_patience",
    "health.second_gap",
)


@dataclass(frozen=True)
class Progress:
    """Counters a run continues from. clock_s: seconds of training so far."""

    iteration: int = 0
    next_group: int = 0
    clock_s: float = 0.0
    cursor: tuple[int, ...] = ()
    best_score: float | None = None
    health: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PendingGroup:
    """A group that was in flight: its job at the server if accepted, its rewards if scored."""

    group: Group
    job_id: str | None
    rewards: list[float | None] | None

    @property
    def scored(self) -> ScoredGroup | None:
        """The group with its rewards, NaN where missing; None while they are awaited."""
        if self.rewards is None:
            return None
        return ScoredGroup.of(self.group, self.rewards)


@dataclass(frozen=True)
class Checkpoint:
    """What was read back."""

    progress: Progress
    tensors: dict[str, Tensor]
    pending: list[PendingGroup]
    scored: list[ScoredGroup]  # to be replayed


def save_checkpoint(
    folder: Path,
    config: Config,
    progress: Progress,
    tensors: dict[str, Tensor],
    waiting: Iterable[Waiting],
    scored: Iterable[ScoredGroup] = (),
    keep: Collection[Path | None] = (),
    processes: Processes = ALONE,
) -> Path:
    """Writes `folder/step-<iteration>` atomically; the newest two stay, and those in `keep`.

    waiting: groups in flight; scored: groups to be replayed. Of several processes each writes its
    own groups, in a folder of its own inside; what they have in common is written by the main one,
    which gives the checkpoint its name at last.
    """
    entries, used = list(waiting), list(scored)
    groups = [e.group for e in entries] + [one.group for one in used]
    final = folder / f"step-{progress.iteration:06d}"
    partial = folder / f".partial-{progress.iteration:06d}"
    try:
        if processes.is_main:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _write_tensors(partial / "state.safetensors", tensors)
        processes.wait()
        own = _own_folder(partial, processes)
        own.mkdir(exist_ok=True)
        _write_tensors(own / "groups.safetensors", _trajectories(groups))
        _write_json(own / "progress.json", _description(config, progress, entries, used))
        processes.wait()
        if processes.is_main:
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(_write_failure(folder, error)) from error
    processes.wait()
    if not processes.is_main:
        return final
    for old in _steps(folder)[:-KEPT]:
        if old not in keep:
            shutil.rmtree(old, ignore_errors=True)
    return final


def process_folder(rank: int | str) -> str:
    """Where a process other than the main one keeps its part of a run or checkpoint."""
    return f"process-{rank}"


def _own_folder(path: Path, processes: Processes) -> Path:
    return path if processes.is_main else path / process_folder(processes.rank)


def set_aside(folder: Path, good: Path | None) -> None:
    """Renames the checkpoints newer than `good` (None: all), so that none is resumed from."""
    for path in _steps(folder):
        if good is None or path.name > good.name:
            aside = path.with_name(path.name.replace("step-", "collapsed-"))
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    steps = _steps(folder)
    return steps[-1] if steps else None


def written_by(path: Path) -> int:
    """How many processes wrote a checkpoint."""
    return 1 + len(list(path.glob(process_folder("*"))))


def load_checkpoint(path: Path, config: Config, processes: Processes = ALONE) -> Checkpoint:
    """Reads a checkpoint; its configuration must be this one up to FREE_KEYS.

    Written by several processes, it is read by as many, since each has groups on their way.
    """
    count = written_by(path)
    if count != processes.count:
        raise CheckpointError(
            f"{path} was written by {count} process{'es' * (count > 1)}, and {processes.count} "
            f"would go on; resume with torchrun --nproc-per-node {count} -m trainer train, or the "
            f"demo with --processes {count}"
        )
    own = _own_folder(path, processes)
    try:
        described = json.loads((own / "progress.json").read_text(encoding="utf-8"))
        _require_format(path, described["format"])  # first: others have other files
        tensors = load_file(path / "state.safetensors")
        trajectories = load_file(own / "groups.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error
    require_same(path, described["config"], config)
    progress = Progress(
        **{**described["progress"], "cursor": tuple(described["progress"]["cursor"])}
    )
    pending = [
        PendingGroup(_group(entry, trajectories), entry["job_id"], entry["rewards"])
        for entry in described["pending"]
    ]
    scored = [
        ScoredGroup.of(_group(entry, trajectories), entry["rewards"])
        for entry in described["scored"]
    ]
    return Checkpoint(progress, tensors, pending, scored)


def _require_format(path: Path, found: int) -> None:
    if found != FORMAT:
        raise CheckpointError(
            f"{path} has format {found}, this version reads {FORMAT}; "
            "resume with the version that wrote it"
        )


def require_same(path: Path, stored: dict[str, Any], config: Config) -> None:
    """Check that the configuration stored for the run at `path` is this one up to FREE_KEYS.

    Raises:
        CheckpointError: naming the keys that differ, with both values.
    """
    # A key that is newer than the run had its default then.
    then = flatten(Config().model_dump(mode="json")) | flatten(stored)
    now = flatten(config.model_dump(mode="json"))
    different = [
        f"{key}: {then.get(key)!r} there, {now.get(key)!r} here"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and key not in FREE_KEYS
    ]
    if different:
        raise CheckpointError(
            f"{path} was trained with another configuration:\n  "
            + "\n  ".join(different)
            + "\nresume with the old values, or start a new run under another run.name"
        )


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries and lists as {"a.b.0": value}."""
    if isinstance(tree, dict):
        items: Iterable[tuple[Any, Any]] = tree.items()
    elif isinstance(tree, list):
        items = enumerate(tree)
    else:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _description(
    config: Config, progress: Progress, entries: list[Waiting], used: list[ScoredGroup]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "config": config.model_dump(mode="json"),
        "progress": {**vars(progress), "cursor": list(progress.cursor)},
        "pending": [
            {**_described(e.group), "job_id": e.job_id, "rewards": e.rewards} for e in entries
        ],
        "scored": [{**_described(one.group), "rewards": one.given} for one in used],
    }


def _described(group: Group) -> dict[str, Any]:
    return {
        "index": group.index,
        "version": group.version,
        "prompt": {**vars(group.prompt), "options": dict(group.prompt.options)},
        "times": list(group.trajectory.times),
    }


def _trajectories(groups: Iterable[Group]) -> dict[str, Tensor]:
    return {
        f"{group.index}/{part}": getattr(group.trajectory, part)
        for group in groups
        for part in ("states", "x0", "eps")
    }


def _group(entry: dict[str, Any], tensors: dict[str, Tensor]) -> Group:
    index, times = int(entry["index"]), tuple(entry["times"])
    trajectory = Trajectory(
        times,
        tensors[f"{index}/states"],
        tensors[f"{index}/x0"],
        tensors[f"{index}/eps"],
        nfe=len(times) - 1,
    )
    return Group(index, Prompt(**entry["prompt"]), trajectory, int(entry["version"]))


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    # Clones: safetensors refuses views that share storage, which rollouts of one batch do.
    save_file({k: t.detach().cpu().clone().contiguous() for k, t in tensors.items()}, path)
    flush(path)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    flush(path)


def _steps(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if (p / "progress.json").is_file())


def _write_failure(folder: Path, error: Exception) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    full = full or "No space left" in str(error)
    previous = latest_checkpoint(folder)
    kept = f"the checkpoint {previous} is intact" if previous else "there is no earlier checkpoint"
    if full:
        free = shutil.disk_usage(folder if folder.exists() else folder.parent).free / 1e6
        return (
            f"the disk is full: {free:.0f} MB left at {folder} hold no checkpoint; {kept}; "
            "free some space or set run.folder elsewhere, then resume"
        )
    return f"cannot write a checkpoint to {folder}: {error}; {kept}"
