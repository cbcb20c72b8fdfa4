"""Training, as one reads it: prompts -> rollout -> groups -> scores -> update -> next policy.

Ctrl-C is taken between updates: the run is saved and says how to go on. The generator is updated on
rollouts of its current weights alone.
"""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console

from shared.errors import RewardError
from trainer.config import Config
from trainer.errors import UnscoredError
from trainer.evaluation.evaluate import Judge
from trainer.models.lora_files import write_lora
from trainer.rewards.inflight import to_pixels
from trainer.run.health import image_statistics
from trainer.run.heldout import Probe
from trainer.run.interrupt import Interrupt, interruptible
from trainer.run.opening import open_run
from trainer.run.replay import as_replay
from trainer.run.state import BEST, Run, ScoreSource
from trainer.run.supply import await_scores, fill_window, replayed, roll_out
from trainer.tdm_r1.state import Batch, Metrics

PROBE_TIMEOUT_S = 600.0
SHOWN = 8  # groups, and images of each: enough to see what goes on


def train(
    config: Config,
    *,
    resume: bool = False,
    source: ScoreSource | None = None,
    judge: Judge | None = None,
    console: Console | None = None,
) -> Path:
    """Trains to the end of the iterations or of the time budget; returns the run's folder.

    source: a reward client (or a stand-in); None: one for the configured server. judge: what
    `heldout.second_opinion = "judge"` asks. Raises
    KeyboardInterrupt after saving, with a message that says how to resume; otherwise the designed
    errors of `trainer.errors` and `shared.errors`.
    """
    console = console or Console()
    with open_run(config, resume=resume, source=source, judge=judge, console=console) as run:
        with interruptible() as interrupt:
            try:
                while run.progress < 1 and not interrupt.agreed(run.state.processes):
                    iterate(run, interrupt)
            except (RewardError, UnscoredError):
                run.save()  # scores that have not come are asked for again after --resume
                raise
        if run.progress < 1:
            raise KeyboardInterrupt(f"saved {run.save()}; {how_to_resume(run)}")
        _finish(run)
        return run.folder


def iterate(run: Run, interrupt: Interrupt) -> None:
    """One update: surrogate on scored groups, fake score and generator on fresh rollouts."""
    metrics: Metrics = {}
    _probe(run, metrics)
    rewarded = run.method.uses_rewards(run.iteration)
    fresh, scored = None, replayed(run) if rewarded else None
    replay = scored is not None
    if rewarded and not replay:
        fresh = fill_window(run, metrics)
        scored = await_scores(run, interrupt, metrics)
        if scored is None:
            return
    if fresh is None:
        fresh = roll_out(run, metrics, submit=False)
    if run.iteration % run.config.run.images_every == 0:
        _show(run, fresh)
    update = run.method.update(fresh, scored, run.iteration, run.progress)
    metrics |= as_replay(update) if replay else update
    if "loss/generator" in metrics:
        metrics |= image_statistics(fresh.trajectory.final, fresh.size)
    run.finish_iteration(metrics)


def how_to_resume(run: Run) -> str:
    """What to type to go on with a run."""
    return f"resume with the same command and --resume (run.name = {run.config.run.name!r})"


def _show(run: Run, fresh: Batch) -> None:
    """One row of images per group, of some groups."""
    final = fresh.trajectory.final
    final = final.view(-1, fresh.size, *final.shape[1:])[:SHOWN, :SHOWN]
    pixels = to_pixels(run.state.backbone.decode(final.flatten(0, 1)))
    run.log.images("rollouts", pixels, final.shape[1], run.iteration)


def _probe(run: Run, metrics: Metrics) -> None:
    """Takes in a finished held-out probe, starts a new one when it is due."""
    probe = run.heldout.result()
    if probe is not None:
        metrics |= _take_in(run, probe)
    if run.heldout.due(run.iteration):
        run.start_probe()


def _take_in(run: Run, probe: Probe) -> Metrics:
    """Logs a probe; the newest generator that is as good as the best leaves its LoRA in `best`.

    Not while a collapse is suspected: the average over its weights hides that for a while.
    """
    run.log.images("heldout", probe.pixels[: SHOWN**2], SHOWN, probe.iteration)
    if probe.failure:
        run.log.say(f"warning: the held-out probe was not scored: {probe.failure}")
    else:
        run.judge(probe)
    trusted = run.guard.healthy or run.best_score is None
    if trusted and probe.as_good_as(run.best_score):
        write_lora(run.folder / BEST, probe.lora)
    if math.isfinite(probe.score):
        run.best_score = max(probe.score, run.best_score or 0.0)
    scores = {f"heldout/{name}": score for name, score in probe.by_reward.items()}
    measured = {"heldout/score": probe.score, "heldout/second_gap": probe.gap}
    return {**measured, "heldout/iteration": probe.iteration, **scores}


def _finish(run: Run) -> None:
    """The last checkpoint, and a last probe for the choice of the best generator."""
    run.save()
    last: Metrics = {}
    if (probe := run.heldout.result(PROBE_TIMEOUT_S)) is not None:
        last |= _take_in(run, probe)
    if run.heldout.enabled:
        run.start_probe()
        if (probe := run.heldout.result(PROBE_TIMEOUT_S)) is not None:
            last |= _take_in(run, probe)
    if run.best_score is None and run.state.processes.is_main:
        write_lora(run.folder / BEST, run.state.networks.lora("generator_ema"))
    run.write_row(last)
