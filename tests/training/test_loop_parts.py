"""The loop's small parts: schedule, optimizer state, text cache, keyed numbers, record, stop."""

from __future__ import annotations

import io
import math
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from trainer.arithmetic.randomness import integer, normal, normals, uniform
from trainer.config import OptimizerConfig, OptimizerKind
from trainer.errors import ConfigError, TrainingDivergedError
from trainer.models.backbones import Backbone, Conditioning
from trainer.models.texts import TextCache
from trainer.optim.optimizers import RoleOptimizer, schedule_factor
from trainer.run.interrupt import interruptible
from trainer.run.log import RunLog, grid, read_metrics


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", (1, 1, 1)), ("linear", (1, 0.55, 0.1)), ("cosine", (1, 0.55, 0.1))],
)
def test_the_learning_rate_follows_the_share_of_the_run(
    schedule: Any, factors: tuple[float, ...]
) -> None:
    config = OptimizerConfig(schedule=schedule, final_lr=0.1)
    got = [schedule_factor(config, p) for p in (0.0, 0.5, 1.0)]
    assert got == pytest.approx(factors)
    assert schedule_factor(config, 1.7) == pytest.approx(factors[2])


def steps(optimizer: RoleOptimizer, weight: torch.Tensor, count: int) -> None:
    for _ in range(count):
        torch.autograd.backward((weight**2).sum())
        optimizer.step(0.0)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_optimizer_goes_on_from_its_saved_state(kind: OptimizerKind) -> None:
    def fresh() -> tuple[torch.Tensor, RoleOptimizer]:
        weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]], requires_grad=True)
        config = OptimizerConfig()
        return weight, RoleOptimizer("generator", [weight], 0.1, (0.9, 0.99), config, kind)

    whole, one = fresh()
    steps(one, whole, 5)
    first, two = fresh()
    steps(two, first, 2)
    second, three = fresh()
    second.data.copy_(first.data)
    three.load_state({k: v.clone() for k, v in two.state().items()})
    steps(three, second, 3)
    assert torch.equal(whole, second)


def test_muon_moves_every_direction_of_a_matrix_alike() -> None:
    weight = torch.zeros(8, 32, requires_grad=True)
    config = OptimizerConfig(weight_decay=0)
    optimizer = RoleOptimizer("generator", [weight], 0.1, (0, 0.99), config, "muon")
    scales = torch.logspace(0, -2, 8)
    rows = torch.linalg.qr(torch.randn(32, 8, generator=torch.Generator().manual_seed(0))).Q.T
    weight.grad = scales[:, None] * rows
    optimizer.step(0.0)
    moved = torch.linalg.svdvals(weight.detach()) / 0.1
    assert float(moved.max() / moved.min()) < 5  # of a gradient that spans 100
    assert 0.5 < float(moved.mean()) < 1.3


def test_muon_refuses_what_is_no_matrix_and_says_what_to_do() -> None:
    convolution = torch.zeros(4, 3, 1, 1, requires_grad=True)
    with pytest.raises(ConfigError, match=r"\(4, 3, 1, 1\); use 'adamw'"):
        RoleOptimizer("generator", [convolution], 0.1, (0, 0.99), OptimizerConfig(), "muon")


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_is_applied() -> None:
    weight = torch.tensor([1.0], requires_grad=True)
    optimizer = RoleOptimizer("surrogate", [weight], 0.1, (0.9, 0.99), OptimizerConfig())
    weight.grad = torch.tensor([math.nan])
    with pytest.raises(TrainingDivergedError, match=r"gradient of the surrogate is nan.*lower"):
        optimizer.step(0.0)
    assert weight.item() == 1.0


def test_keyed_numbers_depend_on_their_key_alone() -> None:
    keys = [(0, 5, 3, i, "fake") for i in range(4)]
    batch = normals((2, 3), keys)
    for row, key in zip(batch, keys, strict=True):
        assert torch.equal(row, normal((2, 3), *key))
    assert not torch.equal(normal((2, 3), 0, 1), normal((2, 3), 0, "1"))
    assert torch.equal(normals((2, 3), keys[::-1]), batch.flip(0))
    many = normals((1000,), [("n", i) for i in range(50)])
    assert abs(float(many.mean())) < 0.02
    assert abs(float(many.std()) - 1) < 0.02
    shares = [uniform("u", i) for i in range(4000)]
    assert 0 <= min(shares) < 0.01
    assert 0.99 < max(shares) < 1
    assert {integer(1, 4, "i", i) for i in range(200)} == {1, 2, 3, 4}


class CountingEncoder:
    """What of a backbone texts need."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.freed = False

    def free_text_encoders(self) -> None:
        self.freed = True

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        self.asked += prompts
        value = float(len(prompts[0]))
        return Conditioning(
            {"tokens": torch.full((1, 2, 3), value), "pooled": torch.full((1, 2), value)}
        )


def test_texts_are_encoded_beforehand_where_their_encoders_go() -> None:
    encoder = CountingEncoder()
    backbone: Backbone = encoder  # type: ignore[assignment]
    texts = TextCache(backbone, max_bytes=1)
    texts.settle(["a", "bb", "a"])
    assert encoder.freed
    assert texts.encode(["bb", "a"])["pooled"][:, 0].tolist() == [2.0, 1.0]
    assert encoder.asked == ["a", "bb"]


def test_each_text_is_encoded_once_and_the_oldest_is_dropped() -> None:
    encoder = CountingEncoder()
    backbone: Backbone = encoder  # type: ignore[assignment]
    row_bytes = (2 * 3 + 2) * 4
    texts = TextCache(backbone, max_bytes=2 * row_bytes)
    first = texts.encode(["a", "bb", "a"])
    assert first["pooled"][:, 0].tolist() == [1.0, 2.0, 1.0]
    texts.encode(["ccc", "a"])
    assert encoder.asked == ["a", "bb", "ccc"]
    texts.encode(["bb"])
    assert encoder.asked == ["a", "bb", "ccc", "bb"]


def log(folder: Path, first: int, out: io.StringIO) -> RunLog:
    return RunLog(folder, first, 10, live=True, console=Console(file=out, width=200))


def test_the_record_drops_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    out = io.StringIO()
    with log(tmp_path, 0, out) as record:
        for i in range(4):
            record.write(i, float(i), 9.0, {"reward/mean": i / 10, "bad": math.nan})
    with log(tmp_path, 2, out) as record:
        record.write(2, 2.5, 9.0, {"reward/mean": 0.9})
    rows = read_metrics(tmp_path)
    assert [(r["iteration"], r["reward/mean"]) for r in rows] == [(0, 0.0), (1, 0.1), (2, 0.9)]
    assert "bad" not in rows[0]


def test_without_a_terminal_the_last_line_still_says_how_it_went(tmp_path: Path) -> None:
    out = io.StringIO()
    with log(tmp_path, 0, out) as record:
        record.write(9, 1.0, 0.0, {"reward/mean": 0.5, "force/ratio": 0.3})
    assert "iteration 10/10: reward 0.500, |rho g_r| / |g_kl| 0.300" in out.getvalue()


def test_on_a_terminal_the_live_view_shows_what_matters(tmp_path: Path) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with RunLog(tmp_path, 0, 10, live=True, console=console) as record:
        row = {
            "reward/mean": 0.5,
            "heldout/score": 0.61,
            "surrogate/ranking_accuracy": 0.7,
            "force/ratio": 0.3,
            "force/cosine": -0.1,
            "inflight/groups": 8.0,
        }
        record.write(4, 1.0, 90.0, row)
    shown = out.getvalue()
    for words in ("5 of 10", "held-out score", "0.61", "groups in flight", "8", "1.5 min"):
        assert words in shown, words


def test_a_grid_is_laid_out_row_by_row() -> None:
    images = [np.full((2, 3, 3), i, dtype=np.uint8) for i in range(5)]
    sheet = grid(images, columns=2)
    assert sheet.shape == (3 * 3 - 1, 2 * 4 - 1, 3)
    assert (sheet[0:2, 4:7] == 1).all()
    assert (sheet[6:8, 0:3] == 4).all()
    assert (sheet[2] == 255).all()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_stop_is_a_request_and_the_second_is_obeyed(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with interruptible() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        assert interrupt.requested
        os.kill(os.getpid(), number)  # the echo of the same Ctrl-C, by a launcher
        interrupt.since -= 1
        with pytest.raises(KeyboardInterrupt, match="without saving"):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
