"""A run in progress: its parts, its counters, its record and checkpoints, and when it is stopped.

Knows the names of what it leaves in its folder. Put together in `trainer.run.opening`.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from shared.client import RewardClient
from shared.keys import api_key
from trainer.config import Config, HealthConfig
from trainer.errors import TrainingCollapsedError
from trainer.models.lora_files import write_lora
from trainer.models.texts import TextCache
from trainer.rewards.inflight import InFlight, RewardSource, to_pixels
from trainer.rewards.prompts import PromptStream
from trainer.run.checkpoint import (
    Checkpoint,
    Progress,
    load_checkpoint,
    save_checkpoint,
    set_aside,
)
from trainer.run.health import Guard
from trainer.run.heldout import Heldout, Probe, Scoring
from trainer.run.log import RunLog
from trainer.run.replay import Replay
from trainer.tdm_r1.state import Metrics, TrainState
from trainer.tdm_r1.update import FewStep

START_BUDGET_S = 20.0  # an unreachable server stops a start soon, but a running training late
CHECKPOINTS = "checkpoints"
RUN_FILE = "run.json"
CONFIG = "config.json"
BEST = "best"  # the newest generator as good as the best on held-out prompts, as a LoRA folder
PHI = "surrogate"  # phi at the end (or at the latest checkpoint), as a LoRA folder
LAST = "last"  # the generator at the end (or at the latest checkpoint), as a LoRA folder


class ScoreSource(RewardSource, Scoring, Protocol):
    """What training asks of a reward client."""


@dataclass
class Run:
    """A run in progress. `iteration` counts updates; it is also the version of the generator."""

    config: Config
    folder: Path
    method: FewStep
    texts: TextCache
    stream: PromptStream
    inflight: InFlight
    heldout: Heldout
    log: RunLog
    replay: Replay
    iteration: int = 0
    next_group: int = 0
    clock_s: float = 0.0
    best_score: float | None = None
    guard: Guard = field(default_factory=lambda: Guard(HealthConfig()))
    good: Path | None = None  # the newest checkpoint known to be well
    probed: Path | None = None  # the one a probe is about to speak for
    _last_healthy: Path | None = None  # the newest checkpoint while the images were healthy
    _tick: float = field(default_factory=time.monotonic)

    @property
    def state(self) -> TrainState:
        """Roles and optimizers."""
        return self.method.state

    @property
    def own_groups(self) -> int:
        """Groups of a batch that this process makes."""
        return self.config.groups.per_step // self.state.processes.count

    @property
    def progress(self) -> float:
        """Share of the run behind us, by iterations or by the clock, whichever is further."""
        share = self.iteration / self.config.run.iterations
        budget = self.config.run.time_budget_minutes
        return share if budget is None else max(share, self.clock_s / (60 * budget))

    def tick(self) -> None:
        """Moves the training clock up to now."""
        now = time.monotonic()
        self.clock_s += now - self._tick
        self._tick = now

    def finish_iteration(self, metrics: Metrics) -> None:
        """Records an update, counts it, judges it (by the main process's images), saves at times.

        Raises:
            TrainingCollapsedError: the images have been broken for too long.
        """
        self.write_row(metrics)
        self.iteration += 1
        if self.state.processes.is_main:
            self._watch(metrics)
        if self.iteration % self.config.run.checkpoint_every == 0:
            self.save()

    def _watch(self, metrics: Metrics) -> None:
        for warning in self.guard.warnings(metrics):
            self.log.say(f"warning: {warning}")
        collapse = self.guard.observe(metrics)
        if collapse is not None:
            self.good = self.good or self._last_healthy  # no probe has spoken yet
        self.stop_if(collapse)

    def judge(self, probe: Probe) -> None:
        """Takes in a held-out score: proof of the checkpoint it speaks for, or a step to the end.

        Raises:
            TrainingCollapsedError: the score has been too low for too long.
        """
        collapse = self.guard.observe_score(probe.score, self.best_score)
        collapse = self.guard.observe_gap(probe.gap) or collapse
        if self.guard.healthy:
            self.good = self.probed or self.good
        self.stop_if(collapse)

    def start_probe(self) -> None:
        """Measures the generator of now; its score speaks for the newest checkpoint."""
        self.probed = self._last_healthy
        self.heldout.start(self.iteration)

    def stop_if(self, collapse: str | None) -> None:
        """Ends a collapsed run at its last good checkpoint, unless told to go on regardless.

        Raises:
            TrainingCollapsedError: saying why, what was kept, and what to do.
        """
        stop = self.config.health.stop
        if stop == "auto":
            stop = "never" if self.config.model.student_lora is None else "always"
        if collapse is None or stop == "never":
            return
        set_aside(self.folder / CHECKPOINTS, self.good)
        kept = "no checkpoint was saved before"
        if self.good is not None:
            known = load_checkpoint(self.good, self.config, self.state.processes)
            self.state.load_tensors(known.tensors)
            write_lora(self.folder / LAST, self.state.networks.lora("generator_ema"))
            kept = f"kept {self.good}, from before it began"
        if (self.folder / BEST).is_dir():
            kept += f", and the generator of the best held-out score in {self.folder / BEST}"
        raise TrainingCollapsedError(
            f"training collapsed at iteration {self.iteration}: {collapse}; {kept}. Start a new "
            f"run with a lower generator.lr (now {self.config.generator.lr:g}) or generator.rho "
            f"(now {self.config.generator.rho:g}), or go on from there regardless with --resume "
            "--set health.stop=never"
        )

    def write_row(self, metrics: Metrics) -> None:
        """One row of the record, under the current iteration."""
        self.tick()
        self.clock_s = self.state.processes.from_main(self.clock_s)
        metrics["inflight/groups"] = self.inflight.count
        eta_s = self.clock_s * (1 - self.progress) / self.progress if self.progress else math.nan
        self.log.write(self.iteration, self.clock_s, eta_s, metrics)

    def save(self) -> Path:
        """Writes a checkpoint and the current generator; each process adds its own groups."""
        progress = Progress(
            self.iteration,
            self.next_group,
            self.clock_s,
            tuple(self.stream.cursor),
            self.best_score,
            self.guard.values,
        )
        processes = self.state.processes
        if processes.is_main:
            write_lora(self.folder / LAST, self.state.networks.lora("generator_ema"))
            if "surrogate" in self.state.networks.specs:
                write_lora(self.folder / PHI, self.state.networks.lora("surrogate"))
        path = save_checkpoint(
            self.folder / CHECKPOINTS,
            self.config,
            progress,
            self.state.tensors(),
            self.inflight.snapshot(),
            self.replay.groups,
            keep=(self.good, self.probed),
            processes=processes,
        )
        if self.guard.healthy:
            self._last_healthy = path
            self.good = self.good if self.heldout.enabled else path
        return path

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues where a checkpoint stopped, with its groups still in flight."""
        p = checkpoint.progress
        self.iteration, self.next_group, self.clock_s = p.iteration, p.next_group, p.clock_s
        self.best_score = p.best_score
        self.guard.values = dict(p.health)
        self.stream.seek(p.cursor)
        self.state.load_tensors(checkpoint.tensors)
        self.replay.add(checkpoint.scored)
        for pending in checkpoint.pending:
            if pending.scored is not None:
                self.inflight.add_scored(pending.scored)
            else:
                final = pending.group.trajectory.final.to(self.state.backbone.device)
                pixels = to_pixels(self.state.backbone.decode(final))
                self.inflight.add(pending.group, pixels, pending.job_id)


def read_run_id(folder: Path) -> str:
    """The name under which the reward server counts what this run sends."""
    return str(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["run_id"])


def connect(url: str, config: Config, budget_s: float = START_BUDGET_S) -> RewardClient:
    """A client of the server with the key from the environment, if there is one."""
    key = api_key(config.server.api_key_env)
    return RewardClient(url, api_key=key, budget_s=budget_s)
