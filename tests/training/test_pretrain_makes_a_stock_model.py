"""Pretraining goes from nothing to a stock pipeline with its student, and goes on where it stopped.

Four stages of a few steps each, on a few hundred pictures: the model is worthless, the way is real.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import nn
from torch.nn import functional

from trainer.cli import main
from trainer.pretraining.stage import Schedule, optimise
from trainer.tiny.scenes import SIDE

CONFIG = """
bf16 = false
[data]
images = 64
[vae]
iterations = 2
batch = 4
widths = [8, 8, 8]
[captions]
iterations = 2
batch = 4
width = 16
layers = 2
[teacher]
iterations = 2
batch = 4
images = 64
width = 32
layers = 1
[student]
configs = {students}
"""

STUDENT = """
method = "tdm_only"
[run]
iterations = 2
[lora]
rank = 2
targets = ["attn.to_q"]
[groups]
per_step = 2
size = 2
[generator]
frozen = 0
warmup = 0
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two distillations, the second of which trains the fake score alone."""
    students = tmp_path / "student.toml", tmp_path / "again.toml"
    students[0].write_text(STUDENT)
    students[1].write_text(STUDENT.replace("frozen = 0", "frozen = 2"))
    path = tmp_path / "pretrain.toml"
    path.write_text(CONFIG.format(students=[str(student) for student in students]))
    return path


def pretrain(config: Path, *stages: str) -> None:
    folder = config.parent
    places = ["--work", str(folder / "work"), "--out", str(folder / "weights"), "--device", "cpu"]
    chosen = [option for stage in stages for option in ("--stage", stage)]
    assert main(["pretrain", "--config", str(config), *places, *chosen]) == 0


def test_four_stages_leave_a_stock_pipeline_and_its_student(config: Path) -> None:
    pretrain(config, "vae", "captions")
    pretrain(config, "teacher", "student")  # of what the first call left
    weights = config.parent / "weights"
    untyped: Any = diffusers
    pipeline = untyped.StableDiffusion3Pipeline.from_pretrained(
        str(weights), text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(weights / "student"))
    image = pipeline(
        "a red ring",
        sigmas=[1, 0.75, 0.5, 0.25],
        num_inference_steps=4,
        guidance_scale=1.0,
        max_sequence_length=1,
        height=SIDE,
        width=SIDE,
    ).images[0]
    assert image.size == (SIDE, SIDE)
    assert {p.name for p in weights.glob("*/pytorch_lora_weights.safetensors")} != set()


def test_a_distillation_goes_on_from_the_one_before(config: Path) -> None:
    student, fake = (f"{role}/pytorch_lora_weights.safetensors" for role in ("student", "fake"))
    weights = config.parent / "weights"
    pretrain(config)
    both = {name: (weights / name).read_bytes() for name in (student, fake)}
    config.write_text(config.read_text().replace(f", '{config.parent / 'again.toml'}'", ""))
    pretrain(config, "student")
    assert (weights / student).read_bytes() == both[student]
    assert (weights / fake).read_bytes() != both[fake]


def test_a_typo_in_the_configuration_is_named(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text("[teacher]\nitrations = 2\n")
    assert main(["pretrain", "--config", str(config), "--work", str(config.parent / "work")]) == 2
    assert "teacher.iterations" in capsys.readouterr().err


def test_a_stage_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def steps_of(iterations: int) -> int:
        model, steps = nn.Linear(4, 4), 0

        def loss() -> torch.Tensor:
            nonlocal steps
            steps += 1
            return functional.mse_loss(model(torch.ones(1, 4)), torch.zeros(1, 4))

        matrices = [p for p in model.parameters() if p.ndim == 2]
        schedule = Schedule(lr=1e-3, iterations=iterations, warmup=1)
        optimise("part", model, loss, schedule, tmp_path, seed=0, matrices=matrices)
        return steps

    assert steps_of(3) == 3
    assert steps_of(5) == 2
    assert steps_of(5) == 0
