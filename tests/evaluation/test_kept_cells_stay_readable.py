"""What a matrix has measured stays readable: keys may go and defaults may change, cells may end at
the same time, and the tree's own cells say what the pages say.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.ablation.kept import POINTS, Curves, KeptCell, keep_cell, read_cell, thinned
from trainer.ablation.matrix import load_ablation
from trainer.config import Config, load_config
from trainer.evaluation.results import Evaluation, EvaluationError

EMPTY = Evaluation(
    seed=0, prompts_sha256="", prompt_counts={}, weights={}, scorers={}, versions={}, rows={}
)


def cell(*overrides: str) -> KeptCell:
    return KeptCell(load_config(None, list(overrides)), EMPTY, Curves(iterations=3, minutes=1.5))


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_cell_stores_what_differs_from_the_defaults_alone(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    kept = cell("generator.rho=7", "run.seed=3")
    keep_cell(file, "a", kept)
    line = json.loads(file.read_text().splitlines()[-1])
    assert line["config"] == {"run": {"seed": 3}, "generator": {"rho": 7.0}}
    found = read_cell(file, "a")
    assert found is not None and found.config == kept.config
    assert (found.curves.iterations, found.curves.minutes) == (3, 1.5)
    assert read_cell(file, "b") is None


def test_a_key_that_is_gone_matters_only_where_it_was_set(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    keep_cell(file, "a", cell("generator.rho=7"))
    rewrite(file, '"rho":2.0', '"rho":2.0,"gone":1')  # among the defaults of then
    found = read_cell(file, "a")
    assert found is not None and found.config == cell("generator.rho=7").config
    rewrite(file, '"rho":7.0', '"rho":7.0,"gone":2')
    with pytest.raises(EvaluationError, match=r"(?s)'a'.*gone"):
        read_cell(file, "a")


def test_a_default_that_changed_since_is_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    keep_cell(file, "a", cell())
    rewrite(file, '"rho":2.0', '"rho":2.5')
    found = read_cell(file, "a")
    assert found is not None and found.config.generator.rho == 2.5
    keep_cell(file, "b", cell())  # differs from the defaults of then
    again = read_cell(file, "b")
    assert again is not None and again.config == Config()


def test_the_latest_line_of_a_cell_counts(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    for seed in (1, 2):
        keep_cell(file, "a", cell(f"run.seed={seed}"))
    found = read_cell(file, "a")
    assert found is not None and found.config.run.seed == 2


def test_curves_are_thinned_to_means_at_places_that_seeds_share() -> None:
    curve = [(float(x), float(x)) for x in range(1000)]
    thin = thinned(curve)
    assert len(thin) == POINTS
    assert thin[0] == (9, 4.5) and thin[-1] == (999, 994.5)
    late = thinned(curve[605:])
    assert {x for x, _ in late} <= {x for x, _ in thin}
    assert thinned(curve[:50]) == curve[:50] and thinned([]) == []


@pytest.mark.parametrize("name", ["paper", "sweep", "long", "longer"])
def test_the_cells_in_the_tree_are_done(name: str) -> None:
    ablation = load_ablation(Path(f"trainer/configs/ablations/{name}.toml"))
    states = [cell.state() for cell in ablation.cells]
    assert states.count("done") >= 2
    assert set(states) <= {"done", "missing"}
