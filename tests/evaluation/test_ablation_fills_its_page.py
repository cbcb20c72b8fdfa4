"""An ablation: a matrix that is checked first, resumes where it stopped, and ends in one page."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.fakes import build_sd3_folder
from tests.support.server_setup import Server, free_port
from trainer.ablation.kept import keep_base, read_base
from trainer.ablation.matrix import FAILURE, load_ablation
from trainer.ablation.results import BASE as BASE_FILE
from trainer.cli import main
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.evaluation.results import TRAINED, Evaluation, load, save
from trainer.run.log import read_metrics
from trainer.run.state import RUN_FILE
from trainer.tiny.prompt_files import path_of

MATRIX = """
name = "test"
title = "A test"
base = "{folder}/base.toml"
folder = "{folder}/runs"
page = "{folder}/results.md"
images_per_tag = 1
signs = 1
seeds = [0]
{rest}
[[variants]]
name = "one"
title = "TDM-R1"
[[variants]]
name = "two"
title = "no reward"
set = ["method=tdm_only"]
[[variants]]
name = "three"
title = "direct | RL"
set = ["method=direct_rl"]
"""
BASE = """
[run]
iterations = 3
checkpoint_every = 1
[model]
path = "{model}"
[compute]
threads = 1
[[prompts]]
file = "{prompts}"
reward = "counting"
[heldout]
every = 0
[groups]
size = 2
per_step = 2
[generator]
frozen = 0
warmup = 0
"""
EMPTY = Evaluation(
    seed=0, prompts_sha256="", prompt_counts={}, weights={}, scorers={}, versions={}, rows={}
)


def matrix(folder: Path, rest: str = "", base: str = "", model: Path = Path("m")) -> Path:
    (folder / "base.toml").write_text(
        base or BASE.format(model=model, prompts=path_of("composition", "train"))
    )
    file = folder / "matrix.toml"
    file.write_text(MATRIX.format(folder=folder, rest=rest))
    return file


def test_the_shipped_matrices_could_be_run() -> None:
    files = sorted(Path("trainer/configs/ablations").glob("*.toml"))
    assert files
    for file in files:
        ablation = load_ablation(file)
        assert ablation.base.is_file()
        assert len({cell.folder for cell in ablation.cells}) == len(ablation.cells)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seeds=[1, 1]", r"seeds: 1 occurs twice"),
        ("variants.1.name=one", r"variants: one occurs twice"),
        ('variants.2.set=["method=ppo"]', r"variant three:(?s:.)*method = 'ppo'"),
        ("varants=1", r"varants: unknown key; did you mean variants"),
        ("seeds=[]", r"seeds"),
        ("variants.1.seeds=[2, 2]", r"seeds of two: 2 occurs twice"),
        (
            'claims=[{ above = "one", below = "four" }]',
            r"claims: no variant 'four'; there are one, two, three",
        ),
    ],
)
def test_a_matrix_that_cannot_be_run_is_refused_before_anything_runs(
    tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        load_ablation(matrix(tmp_path), [override])


def test_a_variant_may_have_more_seeds_than_the_others(tmp_path: Path) -> None:
    ablation = load_ablation(matrix(tmp_path), ["variants.1.seeds=[0, 1]"])
    names = [cell.name for cell in ablation.cells]
    assert names == ["one-seed0", "two-seed0", "three-seed0", "two-seed1"]


def test_every_cell_has_its_seed_its_folder_and_its_values(tmp_path: Path) -> None:
    ablation = load_ablation(matrix(tmp_path, 'set = ["fake.lr=0.5"]'), ["seeds=[4, 5]"])
    assert [cell.name for cell in ablation.cells[:4]] == [
        "one-seed4",
        "two-seed4",
        "three-seed4",
        "one-seed5",
    ]
    config = ablation.cells[4].config("http://somewhere")
    assert (config.method, config.run.seed, config.fake.lr) == ("tdm_only", 5, 0.5)
    assert config.run.folder / config.run.name == ablation.cells[4].folder
    assert config.server.url == "http://somewhere"


def test_a_cell_of_another_configuration_is_neither_used_nor_overwritten(tmp_path: Path) -> None:
    file = matrix(tmp_path)
    cell = load_ablation(file).cells[0]
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.json").write_text(json.dumps(Config().model_dump(mode="json")))
    assert main(["ablate", str(file), "--page-only"]) == 2
    assert not (tmp_path / "results.md").exists()


def test_a_cell_that_stops_by_itself_is_recorded_and_tried_again(
    tmp_path: Path, reward_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    file = matrix(tmp_path, model=tmp_path / "no-model")
    command = ["ablate", str(file), "--server", reward_server.url, "--cell", "two-seed0"]
    assert main(command) == 2
    assert "two-seed0 stopped before the end" in capsys.readouterr().err
    (cell,) = [cell for cell in load_ablation(file).cells if cell.state() == "failed"]
    assert cell.name == "two-seed0"
    assert "no-model" in (cell.folder / FAILURE).read_text()
    assert main(["ablate", str(file), "--page-only"]) == 2
    page = (tmp_path / "results.md").read_text()
    assert re.search(r"two, seed 0: .*no-model", page)
    build_sd3_folder(tmp_path / "no-model")
    assert main(command) == 0
    assert cell.state() == "done"


def test_a_reward_server_that_is_gone_is_no_property_of_a_cell_and_stops_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = matrix(tmp_path)
    cells = load_ablation(file).cells
    cells[0].ablation.home.mkdir(parents=True)
    (cells[0].ablation.home / BASE_FILE).write_text(EMPTY.model_dump_json())
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert main(["ablate", str(file), "--server", nowhere, "--jobs", "2"]) == 2
    error = capsys.readouterr().err
    assert re.search(r"process of cell (one|two)-seed0 ended with exit code 2", error)
    assert nowhere in error
    assert {cell.state() for cell in cells} == {"missing"}


def interrupt_after_updates(folder: Path, count: int) -> threading.Thread:
    record = folder / "metrics.jsonl"

    def watch() -> None:
        while not record.is_file() or record.read_text().count("\n") < count:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_an_interrupted_ablation_goes_on_with_several_cells_at_once(
    tmp_path: Path, reward_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_sd3_folder(tmp_path / "model")
    file = matrix(tmp_path, model=model)
    cells = load_ablation(file).cells
    command = ["ablate", str(file), "--server", reward_server.url]

    # The first cell is stopped on its way (its length is overridden so that it cannot end before).
    watching = interrupt_after_updates(cells[0].folder, 1)
    assert main([*command, "--set", 'set=["run.iterations=100000"]']) == 130
    watching.join()
    assert cells[0].state() == "begun"
    assert cells[1].state() == "missing"
    run = (cells[0].folder / RUN_FILE).read_text()
    assert main(["ablate", str(file), "--page-only"]) == 0
    assert "0 of 3 cells are done" in (tmp_path / "results.md").read_text()

    enough = ["--set", f'set=["run.iterations={len(read_metrics(cells[0].folder)) + 2}"]']
    assert main([*command, *enough, "--cell", "one-seed0"]) == 0
    assert (cells[0].folder / RUN_FILE).read_text() == run
    measured = (cells[0].folder / "eval.json").stat().st_mtime_ns

    (cells[1].folder).mkdir(parents=True)
    (cells[1].folder / FAILURE).write_text("from before")
    assert main([*command, *enough, "--jobs", "2"]) == 0, capsys.readouterr()
    assert [cell.state() for cell in load_ablation(file, enough[1:]).cells] == ["done"] * 3
    assert (cells[0].folder / "eval.json").stat().st_mtime_ns == measured
    page = (tmp_path / "results.md").read_text()
    assert "3 of 3 cells are done" in page
    assert "not yet run" not in page
    assert "teacher (80 NFE)" in page
    for figure in ("curves", "signs", "time", "pictures", "scores"):
        assert (tmp_path / "images" / f"results-{figure}.svg").is_file()
    assert TRAINED in load(cells[2].folder / "eval.json").rows


def test_the_numbers_of_finished_cells_outlive_their_runs(
    tmp_path: Path, reward_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.jsonl"
    file = matrix(tmp_path, f'kept = "{kept}"', model=build_sd3_folder(tmp_path / "model"))
    command = ["ablate", str(file), "--server", reward_server.url]
    two = "variants=[{name='a', title='A'}, {name='b', title='B', set=['method=tdm_only']}]"
    assert main([*command, "--set", two]) == 0, capsys.readouterr()
    page = (tmp_path / "results.md").read_text()
    figures = sorted((p.name, p.read_bytes()) for p in (tmp_path / "images").iterdir())
    assert "2 of 2 cells are done" in page

    shutil.rmtree(tmp_path / "runs")
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert main(["ablate", str(file), "--server", nowhere, "--set", two]) == 0
    assert not (tmp_path / "runs").exists()
    assert (tmp_path / "results.md").read_text() == page
    assert sorted((p.name, p.read_bytes()) for p in (tmp_path / "images").iterdir()) == figures

    longer = ["--set", two, "--set", 'set=["run.iterations=4"]']
    assert [cell.state() for cell in load_ablation(file, longer[1::2]).cells] == ["missing"] * 2
    base = read_base(kept)
    assert base is not None
    keep_base(kept, base.model_copy(update={"weights": {"other": ""}}))
    capsys.readouterr()
    assert main([*command, *longer]) == 2
    assert f"{kept} holds cells of other weights" in capsys.readouterr().err


def test_teacher_and_start_are_taken_from_the_model_if_it_has_enough_of_them(
    tmp_path: Path, reward_server: Server
) -> None:
    model = build_sd3_folder(tmp_path / "model")
    file, base = matrix(tmp_path, model=model), tmp_path / "runs" / "test" / BASE_FILE
    command = ["ablate", str(file), "--server", reward_server.url]
    command += ["--set", "variants=[{name='a', title='A', set=['method=tdm_only']}]"]

    def labels(images_per_tag: int, iterations: int) -> set[str]:
        base.unlink(missing_ok=True)
        values = (f"images_per_tag={images_per_tag}", f'set=["run.iterations={iterations}"]')
        assert main([*command, *[word for value in values for word in ("--set", value)]]) == 0
        return {row.label for row in load(base).rows.values()}

    measured = labels(1, 1)
    known = load(base)
    rows = {n: row.model_copy(update={"label": f"known {n}"}) for n, row in known.rows.items()}
    save(known.model_copy(update={"rows": rows}), model / "eval.json")
    assert labels(1, 2) == {"known start", "known teacher"}
    assert labels(2, 3) == measured
