"""Whole runs on a random SD3 model of 32 px images: what the loop does, in seconds."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from tests.support.fakes import FunctionServer
from trainer.config import Config, load_config
from trainer.loop import train

PROMPTS = "\n".join(f'{{"prompt": "a {c} star"}}' for c in ("red", "blue", "pink", "grey", "black"))


def prompt_set(file: Path, lines: str) -> str:
    """The override value of prompts that are judged by their brightness."""
    file.write_text(lines)
    return f'[{{file="{file}", reward="brightness"}}]'


def small_run(model: Path, folder: Path, *overrides: str) -> Config:
    """Three iterations of two groups of three, all roles training from the first; in `folder`."""
    values = [
        "run.name=test",
        f"run.folder={folder / 'runs'}",
        "run.iterations=3",
        "run.live_view=false",
        f"model.path={model}",
        "lora.rank=2",
        f"prompts={prompt_set(folder / 'prompts.jsonl', PROMPTS)}",
        "groups.size=3",
        "groups.per_step=2",
        "groups.dead_std=1e-6",
        "surrogate.lr=1e-3",
        "generator.lr=1e-3",
        "generator.frozen=0",
        "generator.warmup=1",
        "heldout.every=0",
        "server.patience_s=60",
    ]
    return load_config(None, [*values, *overrides])


def cut_short(config: Config, iterations: int) -> Config:
    """The same run, stopped early: what `--resume` goes on with."""
    run = config.run.model_copy(update={"iterations": iterations})
    return config.model_copy(update={"run": run})


def quiet() -> Console:
    return Console(file=io.StringIO())


def trained(
    config: Config, server: FunctionServer, *, resume: bool = False, budget_s: float = 30.0
) -> Path:
    """The folder of the finished run; a server away for longer than `budget_s` is an error."""
    with server.client(budget_s) as client:
        return train(config, resume=resume, source=client, console=quiet())


def final_state(folder: Path, step: int = 3) -> dict[str, Tensor]:
    """All tensors of the run's checkpoint after `step` iterations."""
    file = folder / "checkpoints" / f"step-{step:06d}" / "state.safetensors"
    state: dict[str, Tensor] = load_file(file)
    return state


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """The same tensors, those that were never set (NaN) included."""
    return a.keys() == b.keys() and all(
        torch.equal(a[k].nan_to_num(), b[k].nan_to_num()) for k in a
    )
