"""How fast and how large an iteration is on this machine's GPU.

``python -m benchmarks.gpu`` builds full-size models with random weights (no download) and times one
iteration's phases: seconds, achieved TFLOP/s, peak memory. ``--tiny`` does the same with models of
a few layers, on a CPU in seconds: that the command works, not how fast anything is.

Beside it the same with roles switched the usual way, by PEFT's `set_adapter`. Rewards are not part
of it. Results: one table and one JSON file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.full_size import describe
from trainer.arithmetic.randomness import normal, normals
from trainer.config import Config, load_config
from trainer.models.backbones import Conditioning
from trainer.models.backbones.base import torch_device
from trainer.models.backbones.pipeline import PipelineBackbone
from trainer.models.networks import Networks, Source, build_networks
from trainer.models.rollout import sampled
from trainer.planning.plan import plan
from trainer.planning.shapes import costs, described_backbone
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.state import Batch, ScoredBatch, TrainState
from trainer.tdm_r1.surrogate import update_surrogate

FULL = ("groups.size=8", "groups.per_step=4", "compute.micro_batch=8", "model.resolution=512")
TINY = ("groups.size=2", "groups.per_step=2", "compute.micro_batch=2", "model.resolution=64")
MATMUL = 8192  # side of the matrices whose product is the machine's measured rate


@dataclass(frozen=True)
class Phase:
    """One phase of an iteration; tflops is of its planned work, 0 where none is planned."""

    model: str
    way: str
    phase: str
    seconds: float
    tflops: float
    peak_gb: float


class Toggled(Networks):
    """Roles by PEFT's `set_adapter`, which walks the modules and toggles gradients."""

    @contextmanager
    def acting_as(self, source: Source) -> Iterator[None]:
        """As the usual trainers switch."""
        for layer in self._layers.values():
            layer.enable_adapters(source != "teacher")
            if source != "teacher":
                layer.set_adapter(source)
        try:
            yield
        finally:
            for layer in self._layers.values():
                layer.enable_adapters(False)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["sd35-medium", "z-image"])
    parser.add_argument("--tiny", action="store_true", help="small models, for a CPU")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-gpu.json"))
    args = parser.parse_args()
    console = Console()
    phases: list[Phase] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            path = describe(model, Path(folder) / model, tiny=args.tiny)
            config = configured(path, tiny=args.tiny)
            for way in ("ours", "usual"):
                phases += measured(model, way, config)
    rate = matmul_rate(config, 512 if args.tiny else MATMUL)
    console.print(table(phases), f"matrix products alone: {rate:.3g} TFLOP/s")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"device": device_name(config), "matmul_tflops": rate, "tiny": args.tiny}
    rows = [asdict(phase) for phase in phases]
    args.out.write_text(json.dumps({**result, "phases": rows}, indent=1), encoding="utf-8")
    console.print(f"results: {args.out}")


def configured(path: Path, *, tiny: bool) -> Config:
    """SD3.5-M's recipe with a smaller batch."""
    size = [*(TINY if tiny else FULL), "model.max_sequence_length=16" if tiny else "run.seed=0"]
    return load_config(
        None, [f"model.path={path}", "rollout.flow_shift=3.0", "generator.warmup=0", *size]
    )


def measured(model: str, way: str, config: Config) -> list[Phase]:
    """All phases of one iteration, after one to warm up."""
    device = torch_device(config.compute)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    torch.manual_seed(0)
    backbone = described_backbone(config.model, device, dtype, text=False)
    say_what_is_missing(backbone)
    networks = build_networks(backbone, config)
    if way == "usual":
        networks.__class__ = Toggled
    state = TrainState(backbone, networks, config)
    work = plan(config, costs(config)).work
    for _ in range(2):
        found = list(iteration(state))
    return [
        Phase(model, way, name, s, work.get(name, 0.0) / s / 1e12, peak) for name, s, peak in found
    ]


def say_what_is_missing(backbone: PipelineBackbone) -> None:
    """Prompts of the greatest length in place of text encoders, which are not measured."""
    untyped: Any = backbone
    untyped.encode_unconditional = lambda: backbone.longest(1)


def iteration(state: TrainState) -> Iterator[tuple[str, float, float]]:
    """(phase, seconds, GB at most) of rollout, pictures and updates."""
    config, backbone = state.config, state.backbone
    groups, size = config.groups.per_step, config.groups.size
    condition = prompts(backbone, groups)
    keys = [(g, i) for g in range(groups) for i in range(size)]
    noise = normals(backbone.latent_shape, keys).to(backbone.device)
    network = state.networks.velocity("generator")
    rolled: list[Any] = []

    def roll_out() -> None:
        rolled[:] = [sampled(network, noise, condition.repeat(size), config.rollout)]

    yield "rollout", *timed(roll_out, backbone.device)
    batch = Batch(tuple(range(groups)), size, condition, rolled[0])
    yield "pictures", *timed(lambda: backbone.decode(rolled[0].final), backbone.device)
    rewards = normal((groups, size), "rewards").to(backbone.device)
    scored = ScoredBatch(batch, rewards, ("any",) * groups)
    updates: dict[str, Callable[[], Any]] = {
        "surrogate": lambda: update_surrogate(state, scored, 0, 0.0),
        "fake score": lambda: update_fake(state, batch, 0, 0.0),
        "generator": lambda: update_generator(state, batch, 0, 0.0, rewarded=True),
    }
    for phase, update in updates.items():
        yield phase, *timed(update, backbone.device)


def prompts(backbone: Any, count: int) -> Conditioning:
    """Random text of the greatest length."""
    longest: Conditioning = backbone.longest(count)
    drawn = {k: torch.randn_like(t) if t.ndim > 1 else t for k, t in longest.tensors.items()}
    return Conditioning(drawn, longest.lengths)


def timed(run: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Seconds, and GB at most (0 on a CPU)."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else 0.0
    return time.perf_counter() - start, peak


def matmul_rate(config: Config, side: int) -> float:
    """TFLOP/s of large products in the precision of training."""
    device = torch_device(config.compute)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    a: Tensor = torch.randn(side, side, device=device, dtype=dtype)
    timed(lambda: a @ a, device)
    seconds, _ = timed(lambda: [a @ a for _ in range(10)], device)
    return 10 * 2 * side**3 / seconds / 1e12


def device_name(config: Config) -> str:
    """Of the card, or "CPU"."""
    device = torch_device(config.compute)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def table(phases: list[Phase]) -> Table:
    """One row a phase."""
    made = Table("model", "way", "phase", "s", "TFLOP/s", "GB")
    for p in phases:
        figures = (f"{p.seconds:.3g}", f"{p.tflops:.3g}", f"{p.peak_gb:.1f}")
        made.add_row(p.model, p.way, p.phase, *figures)
    return made


if __name__ == "__main__":
    main()
