"""Everything runs on a device that is not the CPU, and waits for it a few times an iteration.

The device is simulated (`tests.support.second_device`): it raises where CUDA would.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

import pytest

from tests.support.fakes import FunctionServer, brightness, build_sd3_folder
from tests.support.second_device import SecondDevice, second_device
from tests.support.small_runs import cut_short, small_run, trained
from tests.support.tiny_pipelines import FAMILIES, SIDE, TEXT, Family, written
from trainer.config import Config
from trainer.export import export
from trainer.models.lora_files import read_lora
from trainer.run.state import Run

PHI_FIRST = ("dgpo.iterations=1", "dgpo.steps=2")
VARIANTS = {
    "micro-batches": ("compute.micro_batch=3", "fake.updates=2", "groups.advantage_std=batch"),
    "stochastic, replays, moving reference": (
        "rollout.mode=stochastic",
        "groups.replays=1",
        "reference.kind=ema",
        "surrogate.ema=0",
    ),
    "direct": ("method=direct_rl",),
    "by norm, muon": (
        "generator.ratio=norm_ema",
        "generator.optimizer=muon",
    ),
    "frozen surrogate": ("method=frozen_surrogate", *PHI_FIRST),
    "dgpo then distil": ("method=dgpo_then_distil", *PHI_FIRST),
    "tdm": ("method=tdm_only",),
    "the authors'": (
        "recipe=authors-preference",
        "groups.size=2",
        "groups.per_step=2",
        "lora.rank=4",
        "compute.micro_batch=3",
    ),
    "as printed": (
        "surrogate.clip=0.001",
        "target.kind=bridge",
    ),
}
# What an iteration may wait for, whatever its size: the metrics, and the pictures.
BUDGET = 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_sd3_folder(tmp_path_factory.mktemp("device") / "model")


def on_device(model: Path, folder: Path, *overrides: str) -> Config:
    fixed = ("compute.device=simgpu", "compute.dtype=fp32", "run.iterations=2")
    return small_run(model, folder, *fixed, *overrides)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_method_trains(model: Path, tmp_path: Path, variant: str) -> None:
    with second_device():
        trained(on_device(model, tmp_path, *VARIANTS[variant]), FunctionServer(brightness))


def test_a_run_is_probed_resumed_and_exported(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    probed = ("heldout.every=1", "heldout.count=2", f"heldout.prompts={_prompts(tmp_path)}")
    config = on_device(model, tmp_path, *probed)
    with second_device():
        trained(cut_short(config, 1), server)
        folder = trained(config, server, resume=True)
        export(read_lora(folder / "best"), config, tmp_path / "lora")


def _prompts(folder: Path) -> str:
    file = folder / "heldout.jsonl"
    file.write_text('{"prompt": "a green star"}\n{"prompt": "a white star"}')
    return f'[{{file="{file}", reward="brightness"}}]'


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_backbone_trains(family: Family, tmp_path: Path) -> None:
    folder = written(family, tmp_path / "model")
    size = (f"model.resolution={SIDE}", f"model.max_sequence_length={TEXT}")
    with second_device():
        trained(on_device(folder, tmp_path, *size), FunctionServer(brightness))


# What brings two devices together, by where it stands in the code.
MEETINGS = {
    "trainer.tdm_r1.state:TrainState._look": r"\.to\(device\)",
    "trainer.run.supply:_noise": r"\.to\(backbone\.device\)",
    "trainer.run.supply:scored_batch": r"\.to\(device\)",
    "trainer.rewards.inflight:to_pixels": r"\.cpu\(\)",
    "trainer.models.rollout:own_fresh_noise": r"\.cpu\(\)",
}


def function(place: str) -> FunctionType:
    module, name = place.split(":")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert isinstance(found, FunctionType)
    return found


def meetings() -> Iterator[tuple[str, str]]:
    """Every function above with one of its meetings taken away."""
    for place, pattern in MEETINGS.items():
        source = inspect.cleandoc("\n" + inspect.getsource(function(place)))
        found = list(re.finditer(pattern, source))
        assert found, f"{place} brings no devices together any more"
        for match in found:
            yield place, source[: match.start()] + source[match.end() :]


@pytest.mark.parametrize(("place", "source"), [*meetings()])
def test_a_forgotten_move_is_found(
    model: Path, tmp_path: Path, place: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful = function(place)
    compiled: dict[str, FunctionType] = {}
    annotated = "from __future__ import annotations\n" + source
    exec(compile(annotated, place, "exec"), forgetful.__globals__, compiled)
    monkeypatch.setattr(forgetful, "__code__", compiled[forgetful.__name__].__code__)
    config = on_device(
        model,
        tmp_path,
        "rollout.mode=stochastic",
        "groups.replays=1",
        "heldout.every=1",
        f"heldout.prompts={_prompts(tmp_path)}",
    )
    with second_device(), pytest.raises((RuntimeError, TypeError)):
        trained(config, FunctionServer(brightness))


@pytest.mark.parametrize("size", [(), ("groups.size=4", "compute.micro_batch=2")])
def test_an_iteration_waits_for_the_device_a_few_times(
    model: Path, tmp_path: Path, size: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Counter[str]] = []
    finish = Run.finish_iteration

    def noting(run: Run, metrics: dict[str, float]) -> None:
        counted.append(SecondDevice.waits.copy())
        finish(run, metrics)
        SecondDevice.waits.clear()

    monkeypatch.setattr(Run, "finish_iteration", noting)
    with second_device():
        trained(on_device(model, tmp_path, *size), FunctionServer(brightness))
    last = counted[-1]
    assert 0 < last.total() <= BUDGET, last.most_common()
