"""phi is a many-step model of its own, and can be measured as one beside its teacher."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fakes import FunctionServer, brightness
from tests.support.small_runs import quiet, small_run, trained
from trainer.config import Config
from trainer.evaluation.evaluate import EvaluationSettings
from trainer.evaluation.measure import Plan, measure
from trainer.evaluation.results import SURROGATE, TEACHER
from trainer.run.folder import RunFolderError, surrogate_lora
from trainer.tiny.heldout import embedded_prompts


def run_of(model: Path, folder: Path, *overrides: str) -> tuple[Config, Path]:
    """A short run, and where it is."""
    config = small_run(model, folder, "run.iterations=2", "generator.teacher_cfg=2", *overrides)
    return config, trained(config, FunctionServer(brightness))


@pytest.mark.parametrize(("lr", "same"), [(1e-30, True), (0.05, False)])
def test_phi_samples_as_its_teacher_until_it_learns(
    model: Path, tmp_path: Path, lr: float, same: bool
) -> None:
    config, folder = run_of(model, tmp_path, f"surrogate.lr={lr}")
    plan = Plan(
        config,
        (TEACHER, SURROGATE),
        embedded_prompts(),
        EvaluationSettings(images_per_tag=1, signs=1),
        surrogate=surrogate_lora(folder),
    )
    server = FunctionServer(brightness, rewards=("counting", "ocr"))
    with server.client() as client:
        result, shots = measure(plan, client, quiet())
    assert [row.nfe for row in result.rows.values()] == [80, 80]
    assert result.rows[SURROGATE].label == "surrogate"
    of = {name: [s.png for s in shots if s.policy == name] for name in (TEACHER, SURROGATE)}
    assert len(of[TEACHER]) == 7
    assert (of[TEACHER] == of[SURROGATE]) is same


def test_a_run_without_phi_says_so(model: Path, tmp_path: Path) -> None:
    _, folder = run_of(model, tmp_path, "method=tdm_only")
    with pytest.raises(RunFolderError, match=r"no surrogate \(method = .tdm_only.\)"):
        surrogate_lora(folder)
