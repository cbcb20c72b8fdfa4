"""A run whose images fall apart stops by itself, says why, and keeps its last good checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from shared.images import Pixels
from tests.support.fakes import FunctionServer, brightness
from tests.support.small_runs import final_state, prompt_set, small_run, trained
from trainer.arithmetic.randomness import normals
from trainer.config import Config, HealthConfig
from trainer.errors import TrainingCollapsedError
from trainer.run.folder import trained_lora
from trainer.run.health import (
    CONTRAST,
    DIVERSITY,
    PULL,
    ROUGHNESS,
    SYMPTOMS,
    Guard,
    image_statistics,
)
from trainer.run.log import read_metrics
from trainer.tiny.judge import verdict
from trainer.tiny.scenes import Scene, Shape, render

PROBE = '{"prompt": "a probe"}'
WELL = {CONTRAST: 1.0, ROUGHNESS: 0.5, DIVERSITY: 0.8, PULL: 0.3}


def noise(count: int) -> torch.Tensor:
    return normals((3, 16, 16), [("image", i) for i in range(count)])


def test_statistics_tell_flat_rough_and_equal_images_from_others() -> None:
    rough = image_statistics(noise(8), size=4)
    assert rough[CONTRAST] == pytest.approx(1, abs=0.02)
    assert rough[ROUGHNESS] == pytest.approx(math.sqrt(2), abs=0.03)
    assert rough[DIVERSITY] == pytest.approx(math.sqrt(2), abs=0.03)
    ramp = torch.linspace(-1, 1, 16).expand(8, 3, 16, 16)
    smooth = image_statistics(ramp, size=4)
    assert smooth[ROUGHNESS] < 0.2
    assert smooth[DIVERSITY] == 0
    half = image_statistics(0.5 * noise(8), size=4)
    assert half[CONTRAST] == pytest.approx(0.5 * rough[CONTRAST])
    assert half[ROUGHNESS] == pytest.approx(rough[ROUGHNESS])


def test_diversity_is_that_within_groups() -> None:
    one, other = noise(2).repeat_interleave(4, 0)[:4], noise(2).repeat_interleave(4, 0)[4:]
    apart = image_statistics(torch.cat([one, other]), size=4)
    mixed = image_statistics(torch.cat([one, other])[[0, 4, 1, 5, 2, 6, 3, 7]], size=2)
    assert apart[DIVERSITY] == 0
    assert mixed[DIVERSITY] > 1


def guard_at_start(**config: float) -> Guard:
    guard = Guard(HealthConfig(baseline=3, patience=4, smoothing=0.0, **config))  # type: ignore[arg-type]
    for _ in range(5):
        assert guard.observe(WELL) is None
    return guard


@pytest.mark.parametrize(
    ("statistic", "value", "words"),
    [
        (CONTRAST, 0.3, r"contrast of the images is 0\.30 times .*at least 0\.4"),
        (CONTRAST, 3.0, r"contrast of the images is 3\.00 times .*at most 2\.5"),
        (ROUGHNESS, 1.2, r"roughness of the images is 2\.40 times .*at most 2"),
        (DIVERSITY, 0.2, r"diversity of the images is 0\.25 times .*at least 0\.35"),
        (PULL, 0.9, r"pull back to the teacher, \|g_kl\|, is 3\.00 times .*at most 2\.5"),
    ],
)
def test_images_that_stay_out_of_range_stop_the_run_and_a_moment_does_not(
    statistic: str, value: float, words: str
) -> None:
    guard = guard_at_start()
    sick = {**WELL, statistic: value}
    for _ in range(3):
        assert guard.observe(sick) is None
        assert not guard.healthy
    assert guard.observe(WELL) is None
    assert guard.healthy
    said = [guard.observe(sick) for _ in range(4)]
    assert said[:3] == [None] * 3
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(said[3])


def test_a_held_out_score_far_below_its_best_stops_the_run_the_second_time() -> None:
    guard = Guard(HealthConfig(heldout_drop=0.1))
    assert guard.observe_score(0.2, None) is None
    assert guard.observe_score(0.45, 0.5) is None
    assert guard.healthy
    assert guard.observe_score(0.39, 0.5) is None
    assert guard.observe_score(math.nan, 0.5) is None
    assert not guard.healthy
    assert "0.300" in (guard.observe_score(0.3, 0.5) or "")
    assert Guard(HealthConfig(heldout_drop=None)).observe_score(0.0, 0.9) is None


def test_scorers_that_part_stop_the_run_the_second_time() -> None:
    guard = Guard(HealthConfig(second_gap=0.1))
    assert guard.observe_gap(0.05) is None
    assert guard.observe_gap(0.14) is None
    assert guard.healthy
    assert guard.observe_gap(0.16) is None
    assert guard.observe_gap(math.nan) is None
    assert not guard.healthy
    assert "by 0.200, at the start by 0.050" in (guard.observe_gap(0.2) or "")
    assert guard.observe_gap(-0.5) is None
    assert guard.healthy
    assert Guard(HealthConfig(second_gap=None)).observe_gap(0.9) is None


@pytest.mark.parametrize("sign", SYMPTOMS, ids=lambda sign: sign.metric)
def test_a_sign_is_named_once_until_it_has_been_well_again(sign) -> None:  # type: ignore[no-untyped-def]
    guard = Guard(HealthConfig(baseline=2, smoothing=0.0))
    bad = {sign.metric: sign.limit + (-0.05 if sign.above else 0.05)}
    good = {sign.metric: sign.limit + (0.05 if sign.above else -0.05)}
    said = [guard.warnings(m) for m in (bad, bad, bad, bad, good, bad)]
    assert [len(s) for s in said] == [0, 0, 1, 0, 0, 1]
    assert sign.metric in said[2][0]
    assert guard.warnings({sign.metric: math.nan}) == []
    assert guard.healthy


def test_a_guard_goes_on_from_what_a_checkpoint_holds() -> None:
    guard = guard_at_start()
    sick = {**WELL, DIVERSITY: 0.0}
    guard.observe(sick)
    again = Guard(guard.config, json.loads(json.dumps(guard.values)))
    assert [again.observe(sick) is None for _ in range(3)] == [True, True, False]


def guarded(model: Path, folder: Path, *overrides: str) -> Config:
    run = ("run.iterations=6", "run.checkpoint_every=1", "server.window=0", "generator.lr=4e-5")
    return small_run(model, folder, *run, "health.stop=always", *overrides)


def probed(folder: Path) -> str:
    """Overrides the held-out prompts: one, "a probe"."""
    return f"heldout.prompts={prompt_set(folder / 'probe.jsonl', PROBE)}"


# Hardly any change is allowed, so that the third update is the first sick one.
STRICT = ("health.baseline=2", "health.patience=2", "health.smoothing=0")
NO_CHANGE = (*STRICT, "health.contrast_factor=1.0000001")


def test_a_collapsed_run_goes_back_to_its_last_good_checkpoint(model: Path, tmp_path: Path) -> None:
    server = FunctionServer(brightness)
    config = guarded(model, tmp_path, *NO_CHANGE)
    folder = config.run.folder / "test"
    with pytest.raises(TrainingCollapsedError, match=r"iteration 4: the contrast.*kept") as end:
        trained(config, server)
    good = folder / "checkpoints" / "step-000002"
    assert str(good) in str(end.value)
    assert "generator.lr (now 4e-05)" in str(end.value)
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert left == {"step-000002", "collapsed-000003"}
    state = final_state(folder, 2)
    for name, tensor in trained_lora(folder, last=True).tensors.items():
        assert torch.equal(tensor, state[f"lora/generator_ema/{name}"])
    regardless = guarded(model, tmp_path, *NO_CHANGE, "health.stop=never")
    trained(regardless, server, resume=True)
    assert (folder / "checkpoints" / "step-000006").is_dir()


def test_without_a_student_to_start_from_images_may_change_as_they_like(
    model: Path, tmp_path: Path
) -> None:
    config = guarded(model, tmp_path, *NO_CHANGE, "health.stop=auto")
    folder = trained(config, FunctionServer(brightness))
    assert (folder / "checkpoints" / "step-000006").is_dir()


def test_before_the_first_probe_the_images_alone_say_what_is_good(
    model: Path, tmp_path: Path
) -> None:
    server = FunctionServer(brightness)
    heldout = probed(tmp_path)
    config = guarded(model, tmp_path, *NO_CHANGE, heldout, "heldout.every=1000")
    with pytest.raises(TrainingCollapsedError, match=r"step-000002"):
        trained(config, server)


def test_a_checkpoint_is_good_only_after_a_probe_that_is_not_low(
    model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "test"

    def well() -> list[float]:
        """Iterations of the probes recorded so far that were well."""
        rows = read_metrics(folder)
        return [r["heldout/iteration"] for r in rows if r.get("heldout/score", 0) > 0.5]

    def fading(prompt: str, pixels: Pixels) -> float | None:
        if prompt == "a probe":
            return 0.9 if len(well()) < 2 else 0.1
        return brightness(prompt, pixels)

    heldout = probed(tmp_path)
    config = guarded(
        model, tmp_path, heldout, "heldout.every=2", "heldout.count=1", "run.iterations=40"
    )
    server = FunctionServer(fading)
    with pytest.raises(TrainingCollapsedError, match=r"held-out score is 0\.100.*2 times") as end:
        trained(config, server)
    assert len(well()) >= 2
    (good,) = (folder / "checkpoints").glob("step-*")
    assert good.name == f"step-{int(well()[-1]):06d}"
    assert str(good) in str(end.value)
    assert (folder / "best").is_dir()


def test_a_generator_that_may_be_collapsing_is_not_kept_as_the_best(
    model: Path, tmp_path: Path
) -> None:
    def steady(prompt: str, pixels: Pixels) -> float | None:
        return 0.5 if prompt == "a probe" else brightness(prompt, pixels)

    heldout = probed(tmp_path)
    sick = (*NO_CHANGE, "health.stop=never")
    config = guarded(model, tmp_path, *sick, heldout, "heldout.every=1", "heldout.count=1")
    folder = trained(config, FunctionServer(steady))
    best, last = trained_lora(folder), trained_lora(folder, last=True)
    assert not all(torch.equal(best.tensors[name], last.tensors[name]) for name in last.tensors)


def test_a_reward_that_rises_alone_stops_the_run(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "test"

    def rising(prompt: str, pixels: Pixels) -> float | None:
        if prompt != "a probe":
            return brightness(prompt, pixels)
        probes = [r for r in read_metrics(folder) if "heldout/score" in r]
        return 0.5 if len(probes) < 2 else 0.9

    heldout = probed(tmp_path)
    config = guarded(
        model,
        tmp_path,
        heldout,
        "heldout.second_opinion=people",
        "heldout.every=2",
        "heldout.count=1",
        "run.iterations=40",
    )
    server = FunctionServer(rising, others={"people": lambda prompt, pixels: 0.5})
    with pytest.raises(TrainingCollapsedError, match=r"second opinion by 0\.400") as end:
        trained(config, server)
    gaps = [r["heldout/second_gap"] for r in read_metrics(folder) if "heldout/second_gap" in r]
    assert gaps[0] == 0.0
    (good,) = (folder / "checkpoints").glob("step-*")
    assert str(good) in str(end.value)


def test_the_embedded_worlds_judge_gives_its_opinion_on_composition_alone() -> None:
    picture = render(Scene("white", (Shape("circle", "red", 18.0, 18.0, 6.0),)))
    one = {"include": [{"class": "circle", "count": 1, "color": "red"}]}
    two = {"include": [{"class": "circle", "count": 2, "color": "red"}]}
    assert verdict(picture, one) == 1.0
    assert verdict(picture, two) == 0.0
    assert verdict(picture, {"text": "KBQ"}) is None
    assert verdict(picture, None) is None
    assert verdict(picture[:-1], one) is None
