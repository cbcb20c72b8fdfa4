"""`python -m trainer eval`: measures teacher and start of a model, or the generator of a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from shared.client import RewardClient
from trainer.config import Config, load_config, with_overrides
from trainer.evaluation.evaluate import EvaluationSettings
from trainer.evaluation.measure import Plan, evaluation_folder, measure, sampling
from trainer.evaluation.prompts import fingerprint, read_prompts
from trainer.evaluation.results import (
    START,
    SURROGATE,
    TEACHER,
    TRAINED,
    Evaluation,
    EvaluationError,
    load,
    require_sampling,
    require_weights,
    save,
)
from trainer.evaluation.results import table as estimates
from trainer.models.hub import model_folder
from trainer.report.tables import terminal_table
from trainer.run.folder import EVALUATION, read_config, save_shots, surrogate_lora, trained_lora
from trainer.run.state import START_BUDGET_S, connect, read_run_id
from trainer.tiny.heldout import heldout_prompts
from trainer.tiny.judge import verdict

BASE_ROWS = (TEACHER, START)
RUN_ID = "evaluation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, how much of it, and where the scores come from."""
    defaults = Config()
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="a folder, or owner/name[@revision] on the hub"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="how; with --run: as the run")
    parser.add_argument("--run", type=Path, metavar="RUN", help="a run's generator as well")
    parser.add_argument("--all-rows", action="store_true", help="with --run: every row again")
    parser.add_argument(
        "--surrogate", action="store_true", help="with --run: phi itself, sampled in many steps"
    )
    parser.add_argument(
        "--last", action="store_true", help="with --run: its last generator, not the best probed"
    )
    parser.add_argument("--server", default=defaults.server.url, metavar="URL")
    parser.add_argument(
        "--budget", type=float, default=START_BUDGET_S, metavar="S", help="seconds to retry for"
    )
    parser.add_argument("--images-per-tag", type=int, default=500, metavar="N")
    parser.add_argument("--signs", type=int, default=500, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=50, metavar="N", help="images at once")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="JSONL instead of the configured"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="instead of eval.json")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")


def main(args: argparse.Namespace) -> int:
    """Measure, store, and print the table."""
    if args.surrogate and args.run is None:
        raise EvaluationError("--surrogate needs the run that trained one; add --run RUN")
    if args.last and args.run is None:
        raise EvaluationError("--last needs the run whose last generator is meant; add --run RUN")
    if args.config and args.run:
        raise EvaluationError("a run is measured as it was trained; leave out --config")
    config, console = _config(args), Console()
    settings = EvaluationSettings(
        images_per_tag=args.images_per_tag,
        signs=args.signs,
        seed=args.seed,
        batch=args.batch,
        run_id=RUN_ID if args.run is None else evaluation_id(args.run),
    )
    plan = Plan(
        config,
        rows=(
            *rows_of(args.run, everything=args.all_rows),
            *([SURROGATE] if args.surrogate else []),
        ),
        settings=settings,
        trained=trained_lora(args.run, last=args.last) if args.run else None,
        surrogate=surrogate_lora(args.run) if args.surrogate else None,
        prompts=(
            read_prompts(args.prompts) if args.prompts else heldout_prompts(config.heldout.prompts)
        ),
        judge=verdict,
    )
    with connect(args.server, config, args.budget) as client:
        result = measure_run(plan, args.run, client, console)
    out = args.out or (args.run or evaluation_folder(config)) / EVALUATION
    save(result, out)
    console.print(terminal_table(estimates(result), result))
    console.print(f"results: {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _config(args: argparse.Namespace) -> Config:
    short = [] if args.model is None else [f'model.path="{args.model}"']
    overrides = [*args.overrides, *short]
    if args.run is not None:
        return with_overrides(read_config(args.run), overrides)
    return load_config(args.config, overrides)


def evaluation_id(run: Path) -> str:
    """Under which name the server counts a run's evaluation, apart from its training."""
    return f"{read_run_id(run)}.{RUN_ID}"


def rows_of(run: Path | None, *, everything: bool) -> tuple[str, ...]:
    """A run adds its own row; teacher and start are measured without one, or on demand."""
    if run is None:
        return BASE_ROWS
    return (*BASE_ROWS, TRAINED) if everything else (TRAINED,)


def measure_run(plan: Plan, run: Path | None, client: RewardClient, console: Console) -> Evaluation:
    """Measure the plan; rows it leaves out come from the model folder's eval.json, if it fits.

    Raises:
        EvaluationError: the stored rows belong to other weights, prompts or noise.
    """
    stored = None if set(BASE_ROWS) <= set(plan.rows) else stored_rows(plan)
    result, shots = measure(plan, client, console)
    if run is not None:
        save_shots(run, shots)
    if stored is None:
        return result
    measured = result.rows[plan.rows[0]].scores
    return stored.joined(result).first({tag: len(scores) for tag, scores in measured.items()})


def stored_rows(plan: Plan) -> Evaluation:
    """The model folder's eval.json, found comparable before anything is measured."""
    file = evaluation_folder(plan.config) / EVALUATION
    stored = load(file)
    require_weights(stored, model_folder(plan.config.model.path), file)
    require_sampling(stored, sampling(plan.config), file)
    coming = {"seed": plan.settings.seed, "prompts_sha256": fingerprint(plan.prompts), "rows": {}}
    return stored.joined(stored.model_copy(update=coming))
