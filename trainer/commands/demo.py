"""`python -m trainer demo`: reward server, training, evaluation and report, as `make run` wants it.

The server is a process of its own on a TCP port and is stopped whatever happens. What can be
refused is refused before training starts: a taken port, a missing file, results of other weights.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from shared.client import Refused, RewardClient
from shared.schema.ops import RunStats
from trainer.commands.eval import (
    BASE_ROWS,
    RUN_ID,
    evaluation_id,
    measure_run,
    rows_of,
    stored_rows,
)
from trainer.commands.report import present
from trainer.config import Config, load_config, with_overrides
from trainer.evaluation.evaluate import EvaluationSettings
from trainer.evaluation.measure import Plan, evaluation_folder
from trainer.evaluation.results import save, table
from trainer.launch.server import LocalServer
from trainer.launch.together import process_count, train_together
from trainer.report.tables import terminal_table
from trainer.run.folder import EVALUATION, read_config, save_stats, trained_lora
from trainer.run.interrupt import terminated_like_ctrl_c
from trainer.run.state import connect, read_run_id
from trainer.tiny.heldout import embedded_prompts, heldout_prompts
from trainer.tiny.judge import verdict

CONFIGS = {
    "machine": Path("trainer/configs/tiny.toml"),
    "human": Path("trainer/configs/tiny-human.toml"),
    "simulated": Path("trainer/configs/tiny-human.toml"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose reward, which run, which port, and how much is measured."""
    parser.add_argument("--reward", choices=sorted(CONFIGS), default="machine")
    parser.add_argument("--config", type=Path, metavar="FILE", help="instead of the reward's own")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--name", default="demo", help="of the run; numbered if it is taken")
    parser.add_argument("--resume", action="store_true", help="go on with the run of that name")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--processes", type=int, metavar="N", help="that train as one; default: by the CPU's cores"
    )
    parser.add_argument("--images-per-tag", type=int, default=250, metavar="N")
    parser.add_argument("--signs", type=int, default=500, metavar="N")
    parser.add_argument("--all-rows", action="store_true", help="measure teacher and start as well")
    parser.add_argument(
        "--eval-only", action="store_true", help="measure teacher and start of the model, no run"
    )


def main(args: argparse.Namespace) -> int:
    """Run it all; the last line is the path of the report."""
    console = Console()
    with terminated_like_ctrl_c():
        if args.eval_only:
            return _measure_model(args, console)
        return _run(args, _config(args), console)


def _config(args: argparse.Namespace) -> Config:
    """The run's own configuration when it goes on, else the file's under a free name.

    Overrides apply to both; training refuses those that would change what a run has learned.
    """
    url = f'server.url="http://127.0.0.1:{args.port}"'
    if args.resume:
        folder = load_config(None, args.overrides).run.folder / args.name
        return with_overrides(read_config(folder), [*args.overrides, url])
    file = args.config or CONFIGS[args.reward]
    config = load_config(file, [*args.overrides, url, f'run.name="{args.name}"'])
    name = free_name(config.run.folder, args.name)
    return config.model_copy(update={"run": config.run.model_copy(update={"name": name})})


def free_name(folder: Path, name: str) -> str:
    """`name`, or the first of name-2, name-3, ... that no run has."""
    taken, number = name, 1
    while (folder / taken).exists():
        number += 1
        taken = f"{name}-{number}"
    return taken


def _run(args: argparse.Namespace, config: Config, console: Console) -> int:
    settings = EvaluationSettings(args.images_per_tag, args.signs)
    folder = config.run.home
    plan = Plan(
        config,
        rows_of(folder, everything=args.all_rows),
        heldout_prompts(config.heldout.prompts),
        settings,
        judge=verdict,
    )
    if not args.all_rows:
        stored_rows(plan)
    console.print(f"run: {folder}", markup=False, highlight=False)
    simulate = args.reward == "simulated"
    try:
        with (
            LocalServer(folder / "server", args.port, simulate=simulate) as server,
            connect(server.url, config) as client,
        ):
            _invite(args.reward, server.url, console)
            train_together(
                config,
                _processes(args, config),
                resume=args.resume,
                judge=verdict,
                console=console,
            )
            settings = replace(settings, run_id=evaluation_id(folder))
            plan = replace(plan, settings=settings, trained=trained_lora(folder))
            save(measure_run(plan, folder, client, console), folder / EVALUATION)
            save_stats(folder, _server_counts(folder, client))
    except KeyboardInterrupt:
        again = f"make run REWARD={args.reward} NAME={config.run.name} ARGS=--resume"
        console.print(f"stopped; go on with: {again}", markup=False, highlight=False)
        raise
    present(folder, console)
    return 0


def _processes(args: argparse.Namespace, config: Config) -> int:
    """As asked for, else by the cores; one where people are waited for, who are slower by far."""
    if args.processes is not None:
        return max(1, int(args.processes))
    if args.reward != "machine" and not args.resume:
        return 1
    return process_count(config, resume=args.resume)


def _invite(reward: str, url: str, console: Console) -> None:
    if reward == "human":
        console.print(
            f"\n[bold]Open {url} and click: like or dislike.[/bold]\n"
            "Training waits for your clicks and goes on as they come.\n"
        )
    else:
        console.print(f"reward server: {url}", highlight=False)


def _server_counts(folder: Path, client: RewardClient) -> dict[str, RunStats]:
    """The server's own counts by purpose, while it is still there to be asked."""
    run_id = read_run_id(folder)
    purposes = {
        "training": run_id,
        "held-out probe": f"{run_id}.heldout",
        "evaluation": evaluation_id(folder),
    }
    counts: dict[str, RunStats] = {}
    for purpose, name in purposes.items():
        try:
            counts[purpose] = client.run_stats(name)
        except Refused as error:
            if error.status != 404:  # a run without a probe never sent anything under its name
                raise
    return counts


def _measure_model(args: argparse.Namespace, console: Console) -> int:
    config = load_config(args.config or CONFIGS[args.reward], args.overrides)
    settings = EvaluationSettings(images_per_tag=500, signs=500, run_id=RUN_ID)
    with (
        tempfile.TemporaryDirectory(prefix="evaluation-") as data,
        LocalServer(Path(data) / "server", args.port) as server,
        connect(server.url, config) as client,
    ):
        plan = Plan(config, BASE_ROWS, embedded_prompts(), settings, judge=verdict)
        result = measure_run(plan, None, client, console)
    file = evaluation_folder(config) / EVALUATION
    save(result, file)
    console.print(terminal_table(table(result), result))
    console.print(f"results: {file}", markup=False, highlight=False)
    return 0
