"""`python -m trainer ablate CONFIG`: a matrix of runs, resumed where it stopped, and its page.

Cells are trained one after the other in this process, or several at once in processes of their
own. A cell that stops by itself is recorded and the others go on; a reward server that is gone
stops all.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from trainer.ablation.matrix import FAILURE, Ablation, Cell, find_cell, load_ablation
from trainer.ablation.page import markdown
from trainer.ablation.plots import draw
from trainer.ablation.results import base_of, gather_results, keep, save_base
from trainer.commands.eval import BASE_ROWS, evaluation_id, stored_rows
from trainer.errors import TrainerError
from trainer.evaluation.evaluate import EvaluationSettings
from trainer.evaluation.measure import Plan, evaluation_folder, measure
from trainer.evaluation.prompts import TEXT
from trainer.evaluation.results import TRAINED, Evaluation, save, weight_hashes
from trainer.launch.server import Child, LocalServer
from trainer.loop import train
from trainer.models.hub import model_folder
from trainer.run.folder import EVALUATION, save_shots, trained_lora
from trainer.run.interrupt import terminated_like_ctrl_c
from trainer.run.state import connect
from trainer.tiny.heldout import heldout_prompts
from trainer.tiny.judge import verdict

POLL_S = 0.5


class AblationError(TrainerError):
    """Cells of an ablation that could not be finished."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which matrix, where the scores come from, and how many cells at once."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="TOML of the matrix")
    parser.add_argument("--server", metavar="URL", help="a reward server; else one is started")
    parser.add_argument("--port", type=int, default=8000, help="of the server that is started")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="cells at once")
    parser.add_argument("--cell", metavar="NAME", help="this cell alone, and no page")
    parser.add_argument("--page-only", action="store_true", help="write the page, run nothing")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")


def main(args: argparse.Namespace) -> int:
    """Run what is missing; the last line is the path of the page.

    Raises:
        AblationError: at the end, if cells stopped by themselves.
    """
    console, ablation = Console(), load_ablation(args.config, args.overrides)
    if args.jobs < 1:
        raise AblationError(f"--jobs {args.jobs} runs nothing; use 1 or more")
    chosen = ablation.cells if args.cell is None else [find_cell(ablation, args.cell)]
    todo = [] if args.page_only else [cell for cell in chosen if cell.state() != "done"]
    if todo:
        with terminated_like_ctrl_c(), _server(args, ablation) as url:
            if args.cell is not None:
                _run_one(todo[0], url, console)
            else:
                _run_all(todo, url, args, console)
    failed = [cell.name for cell in chosen if cell.state() == "failed"]
    if args.cell is None:
        page = write_page(ablation, args)
        console.print(f"results: {page}", markup=False, highlight=False, soft_wrap=True)
    if failed:
        raise AblationError(
            f"{', '.join(failed)} stopped before the end, for the reason in {FAILURE} of its "
            f"folder in {ablation.home}; the same command tries again"
        )
    return 0


def _run_one(cell: Cell, url: str, console: Console) -> None:
    """Teacher and start after it: a model that does not load is then the cell's own failure."""
    _require_same_weights(cell.ablation)
    run_cell(cell, url, console)
    if cell.state() == "done":
        _measure_base(cell.ablation, url, console)


def _run_all(todo: Sequence[Cell], url: str, args: argparse.Namespace, console: Console) -> None:
    ablation = todo[0].ablation
    _require_same_weights(ablation)
    _measure_base(ablation, url, console)
    if args.jobs > 1:
        _run_apart(todo, url, args, console)
        return
    for cell in todo:
        run_cell(cell, url, console)
        write_page(ablation, args)


def run_cell(cell: Cell, url: str, console: Console) -> None:
    """Train a cell to its end, from where it stopped, and measure its generator.

    A cell that stops by itself leaves its reason in FAILURE. Raises RewardError and
    KeyboardInterrupt: those are no property of the cell.
    """
    console.print(f"cell: {cell.name}", markup=False, highlight=False)
    config, folder = cell.config(url), cell.folder
    (folder / FAILURE).unlink(missing_ok=True)
    try:
        train(config, resume=True, judge=verdict, console=console)
        plan = Plan(
            config,
            (TRAINED,),
            heldout_prompts(config.heldout.prompts),
            _settings(cell.ablation, folder),
            trained=trained_lora(folder),
            judge=verdict,
        )
        with connect(url, config, config.server.retry_budget_s) as client:
            result, shots = measure(plan, client, console)
    except TrainerError as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILURE).write_text(f"{error}\n", encoding="utf-8")
        console.print(f"cell {cell.name} stopped: {error}", markup=False, highlight=False)
        return
    save_shots(folder, shots)
    save(result, folder / EVALUATION)
    keep(cell)


def write_page(ablation: Ablation, args: argparse.Namespace) -> Path:
    """The page and its figures, from whatever there is."""
    results, page = gather_results(ablation), ablation.page
    page.parent.mkdir(parents=True, exist_ok=True)
    figures = draw(results, page.parent / "images", page.stem)
    shown = [(text, path.relative_to(page.parent).as_posix()) for text, path in figures]
    words = ["python", "-m", "trainer", "ablate", str(args.config)]
    words += [word for override in args.overrides for word in ("--set", override)]
    page.write_text(markdown(results, shown, shlex.join(words)), encoding="utf-8")
    return page


def _settings(ablation: Ablation, folder: Path) -> EvaluationSettings:
    return EvaluationSettings(ablation.images_per_tag, ablation.signs, run_id=evaluation_id(folder))


@contextmanager
def _server(args: argparse.Namespace, ablation: Ablation) -> Iterator[str]:
    """The named reward server, or one of our own."""
    if args.server is not None:
        yield args.server
        return
    with LocalServer(ablation.home / "server", args.port) as server:
        yield server.url


def _require_same_weights(ablation: Ablation) -> None:
    """Cells of other weights are no part of the matrix; raises AblationError."""
    base, model = base_of(ablation), ablation.cells[0].config().model.path
    if base is not None and base.weights != weight_hashes(model_folder(model)):
        raise AblationError(
            f"{ablation.kept or ablation.home} holds cells of other weights than {model}; move it "
            "away to begin the matrix anew, or restore the weights"
        )


def _measure_base(ablation: Ablation, url: str, console: Console) -> None:
    """Teacher and start, once: what every cell began with, measured or as the model has it."""
    config = ablation.cells[0].config(url)
    if base_of(ablation) is not None:
        return
    settings = EvaluationSettings(
        ablation.images_per_tag, ablation.signs, run_id=f"{ablation.name}.evaluation"
    )
    prompts = heldout_prompts(config.heldout.prompts)
    plan = Plan(config, BASE_ROWS, prompts, settings, judge=verdict)
    result = _published(plan)
    if result is None:
        with connect(url, config) as client:
            result, _ = measure(plan, client, console)
    save_base(ablation, result)


def _published(plan: Plan) -> Evaluation | None:
    """The first images of the model folder's eval.json; None: it has none, or too few.

    Raises:
        EvaluationError: it belongs to other weights or prompts.
    """
    if not (evaluation_folder(plan.config) / EVALUATION).is_file():
        return None
    stored, settings = stored_rows(plan), plan.settings
    wanted = dict.fromkeys(stored.prompt_counts, settings.images_per_tag) | {TEXT: settings.signs}
    rows = [stored.rows.get(name) for name in plan.rows]
    enough = all(row and len(row.scores.get(t, ())) >= n for row in rows for t, n in wanted.items())
    return stored.first(wanted) if enough else None


def _run_apart(todo: Sequence[Cell], url: str, args: argparse.Namespace, console: Console) -> None:
    """At most `jobs` cells at once, each a process of its own that is stopped with this one."""
    waiting = list(todo)
    running: list[tuple[Cell, Child]] = []
    try:
        while waiting or running:
            while waiting and len(running) < args.jobs:
                cell = waiting.pop(0)
                console.print(f"cell: {cell.name}", markup=False, highlight=False)
                running.append((cell, Child(_command(args, cell, url), _log(cell))))
            time.sleep(POLL_S)
            for cell, child in [pair for pair in running if pair[1].exit_code is not None]:
                running.remove((cell, child))
                write_page(cell.ablation, args)
                _require_explained(cell, child)
    finally:
        for _, child in running:
            child.stop()


def _command(args: argparse.Namespace, cell: Cell, url: str) -> list[str]:
    overrides = [word for value in args.overrides for word in ("--set", value)]
    where = ["--server", url, "--cell", cell.name]
    return ["trainer", "ablate", str(args.config), *where, *overrides]


def _log(cell: Cell) -> Path:
    return cell.folder.with_suffix(".log")


def _require_explained(cell: Cell, child: Child) -> None:
    """A cell that stopped by itself has left its reason; anything else stops the ablation."""
    if child.exit_code != 0 and cell.state() != "failed":
        raise AblationError(
            f"the process of cell {cell.name} ended with exit code {child.exit_code}:\n"
            f"{child.tail()}\n(its log: {child.log})"
        )
