"""The report: one file that shows what was measured and recorded, and nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from shared.images import encode_png
from shared.schema.ops import RunStats, Traffic
from trainer.commands.report import present
from trainer.config import Config
from trainer.evaluation.prompts import TEXT
from trainer.evaluation.results import (
    START,
    TEACHER,
    TRAINED,
    Evaluation,
    EvaluationError,
    Row,
    save,
)
from trainer.evaluation.shots import Shot
from trainer.report.charts import smoothed
from trainer.report.gather import gather, seconds_per_iteration
from trainer.report.page import page
from trainer.run.folder import (
    CONFIG,
    EVALUATION,
    RunFolderError,
    read_shots,
    save_shots,
    save_stats,
    trained_lora,
)
from trainer.run.health import SYMPTOMS
from trainer.run.log import FILE_NAME
from trainer.tiny.heldout import COLUMNS

ITERATIONS = 20
HOSTILE = "<script>alert('a sign')</script>"


def _row(label: str, nfe: int, passed: int, ocr: float) -> Row:
    verdicts: list[float | None] = [float(i < passed) for i in range(50)]
    tags = {tag: verdicts for tag in COLUMNS if tag != TEXT}
    second: dict[str, list[float | None]] = {tag: [*v[:-1], 1.0] for tag, v in tags.items()}
    return Row(label=label, nfe=nfe, scores={**tags, TEXT: [ocr] * 50}, second=second)


def _evaluation() -> Evaluation:
    return Evaluation(
        seed=0,
        prompts_sha256="p",
        prompt_counts=dict.fromkeys(COLUMNS, 50),
        weights={"transformer/model.safetensors": "c0ffee"},
        scorers={"counting": "counting/shapes@1", "ocr": "ocr/PP-OCRv6"},
        versions={"torch": "2.13.0"},
        rows={
            TEACHER: _row("teacher", 80, 33, 0.8),
            START: _row("start", 4, 32, 0.8),
            TRAINED: _row("TDM-R1", 4, 43, 0.82),
        },
    )


def _shots() -> list[Shot]:
    png = encode_png(np.full((8, 8, 3), 200, np.uint8))
    return [Shot(name, "colors", 0, HOSTILE, png) for name in (TEACHER, START, TRAINED)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a finished run."""
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(Config().model_dump(mode="json")))
    rows = [
        {
            "iteration": i,
            "clock_s": 10 + 3.0 * i,
            "reward/mean": 0.5 + i / 100,
            "time/rollout": 1.0,
            "time/generator": 1.5,
            **({"heldout/score": 0.6 + i / 100} if i % 5 == 0 else {}),
        }
        for i in range(ITERATIONS)
    ]
    rows.append({"iteration": ITERATIONS, "clock_s": 70.0, "heldout/score": 0.8})  # the last probe
    (folder / FILE_NAME).write_text("".join(json.dumps(row) + "\n" for row in rows))
    save(_evaluation(), folder / EVALUATION)
    save_shots(folder, _shots())
    traffic = Traffic(requests=320, items=2560, bytes=5_500_000)
    stats = RunStats(
        run_id="demo",
        **traffic.model_dump(),
        by_reward={"counting": traffic},
        by_status={"ok": 2559, "error": 1},
    )
    save_stats(folder, {"training": stats})
    return folder


class _Links(HTMLParser):
    """Everything a page would load, and whether its tags close."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"


def test_the_page_is_one_file_that_loads_nothing(run: Path) -> None:
    links = _Links()
    html = page(gather(run))
    links.feed(html)
    assert links.open == []
    assert len(links.sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in links.sources)
    assert "@import" not in html and "url(" not in html


def test_it_shows_the_measured_numbers_with_their_intervals(run: Path) -> None:
    text = _text(page(gather(run)))
    assert "0.860" in text  # 43 of 50
    assert "+0.220" in text  # 43 - 32 of 50
    assert "86 %" in text
    assert "20 times as many network evaluations" in text
    assert "2,560" in text and "320" in text and "5.50 MB" in text
    assert "ok 2,559" in text
    assert "98.0 %" in text  # one of fifty verdicts differs
    assert "20 iterations in 1.2 minutes" in text


def test_prompts_stand_under_their_pictures_and_cannot_inject(run: Path) -> None:
    html = page(gather(run))
    assert HOSTILE not in html
    assert "&lt;script&gt;alert(&#39;a sign&#39;)" in html
    assert re.search(r"teacher <b>✓</b>", html)


def test_pictures_carry_the_servers_scores_by_index(run: Path) -> None:
    shots = read_shots(run, _evaluation())
    assert [shot.score for shot in shots] == [1.0, 1.0, 1.0]
    assert [shot.score for shot in read_shots(run, None)] == [None] * 3


def test_what_was_not_recorded_is_said_to_be_missing(run: Path) -> None:
    for name in (EVALUATION, "gallery.json", "server.json"):
        (run / name).unlink()
    text = _text(page(gather(run)))
    assert "No held-out evaluation was made" in text
    assert "not recorded in this run" in text  # no ranking accuracy in the record
    assert "Held-out results" not in text
    assert "reward server counted" not in text


def test_the_same_table_stands_on_the_terminal_and_the_path_comes_last(run: Path) -> None:
    console = Console(width=80, record=True, file=(run / "terminal").open("w"))
    path = present(run, console)
    lines = [line for line in console.export_text().splitlines() if line.strip()]
    overall = next(line for line in lines if "overall" in line)
    assert re.findall(r"[+-]?\d\.\d{3}", overall)[:4] == ["0.660", "0.640", "0.860", "+0.220"]
    assert "…" not in "".join(lines[:-1]), "the table does not fit 80 columns"
    assert lines[-1].endswith(str(path))
    assert path.read_text().startswith("<!doctype html>")
    console.file.close()


def test_time_is_split_into_its_parts_and_the_rest(run: Path) -> None:
    parts = gather(run).times
    assert parts["rollout"] == pytest.approx(1.0)
    assert parts["generator update"] == pytest.approx(1.5)
    assert sum(parts.values()) == pytest.approx(3.0)
    assert seconds_per_iteration([]) == {}


def test_folders_without_a_run_are_named_with_their_neighbours(run: Path) -> None:
    with pytest.raises(RunFolderError, match=r"nothing holds no run.*runs in .*: demo"):
        gather(run.with_name("nothing"))
    with pytest.raises(RunFolderError, match="no trained generator yet"):
        trained_lora(run)


def test_damaged_results_are_an_error_and_not_an_empty_report(run: Path) -> None:
    (run / EVALUATION).write_text('{"format": 1}')
    with pytest.raises(EvaluationError, match="no evaluation"):
        gather(run)


def test_the_words_on_training_are_the_limits_that_it_warns_at(run: Path) -> None:
    text = _text(page(gather(run)))
    limits = {one.metric: one.limit for one in SYMPTOMS}
    assert f"the force exceeds {limits['force/ratio']:g}" in text
    assert f"the KL direction falls below {limits['force/cosine']:g}".replace("-", "−") in text


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value() -> None:
    assert smoothed([(0, 2.0), (1, 2.0), (2, 2.0)])[-1][1] == pytest.approx(2.0)
    assert smoothed([(0, 5.0), (1, 0.0)])[0][1] == pytest.approx(5.0)


def _text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))
