"""What a run is made of, put together once: model, roles, method, prompts, server, record.

The composition root of training. Checks the server and every prompt file before the first rollout,
so that a typo costs seconds. Refuses to start over a run that already has checkpoints.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console

from shared.client import RewardClient
from shared.keys import api_key
from trainer.backbones import load_backbone
from trainer.baselines.direct_rl import DirectRl
from trainer.baselines.phi_first import DgpoThenDistil, FrozenSurrogate
from trainer.baselines.tdm import TdmOnly
from trainer.checkpoint import (
    Checkpoint,
    Progress,
    latest_checkpoint,
    load_checkpoint,
    process_folder,
    save_checkpoint,
    set_aside,
)
from trainer.config import Config, HealthConfig, HeldoutConfig
from trainer.errors import CheckpointError, ConfigError, TrainingCollapsedError
from trainer.health import Guard
from trainer.heldout import JUDGE, Heldout, Probe, Scoring
from trainer.inflight import InFlight, RewardSource, known_rewards, to_pixels
from trainer.lora_files import write_lora
from trainer.metrics import RunLog
from trainer.networks import build_networks
from trainer.processes import Processes, joined_processes
from trainer.prompts import PromptStream
from trainer.replay import Replay
from trainer.tdm_r1.state import Metrics, TrainState
from trainer.tdm_r1.update import FewStep, TdmR1
from trainer.texts import TextCache

START_BUDGET_S = 20.0  # an unreachable server stops a start soon, but a running training late
CHECKPOINTS = "checkpoints"
RUN_FILE = "run.json"
CONFIG = "config.json"
BEST = "best"  # the newest generator as good as the best on held-out prompts, as a LoRA folder
NO_PROBE = HeldoutConfig(every=0)
PHI = "surrogate"  # phi at the end (or at the latest checkpoint), as a LoRA folder
LAST = "last"  # the generator at the end (or at the latest checkpoint), as a LoRA folder


METHODS: dict[str, type[FewStep]] = {
    "tdm_r1": TdmR1,
    "tdm_only": TdmOnly,
    "direct_rl": DirectRl,
    "frozen_surrogate": FrozenSurrogate,
    "dgpo_then_distil": DgpoThenDistil,
}


class Source(RewardSource, Scoring, Protocol):
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
    _well: Path | None = None  # the newest one that is well as far as its images go
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
            self.good = self.good or self._well  # no probe has spoken yet
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
        self.probed = self._well
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
            self._well = path
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


@contextmanager
def open_run(
    config: Config, *, resume: bool, source: Source | None, console: Console
) -> Iterator[Run]:
    """Everything a run needs, opened and closed. `source` None: the configured server."""
    folder = config.run.home
    found = latest_checkpoint(folder / CHECKPOINTS)
    if found is not None and not resume:
        raise CheckpointError(
            f"{folder} already holds a run; resume it with --resume, or choose another run.name"
        )
    with ExitStack() as stack:
        processes = stack.enter_context(joined_processes())
        _require_even_shares(config, processes)
        checkpoint = load_checkpoint(found, config, processes) if found is not None else None
        stream = PromptStream(config.prompts, config.run.seed)
        source = source if source is not None else stack.enter_context(_client(config))
        wanted = {s.reward for s in (*config.prompts, *config.heldout.prompts)}
        if config.heldout.second_opinion not in (None, JUDGE):
            wanted.add(str(config.heldout.second_opinion))
        rewards = known_rewards(source, sorted(wanted))
        backbone = load_backbone(config.model, config.compute)
        state = TrainState(backbone, build_networks(backbone, config), config, processes)
        texts = TextCache(backbone)
        run_id = _run_id(folder, processes, new=checkpoint is None)
        inflight = stack.enter_context(InFlight(source, run_id, rewards, config.server.patience_s))
        # The main process probes for all, which have the same weights.
        probing = config if processes.is_main else config.model_copy(update={"heldout": NO_PROBE})
        heldout = Heldout(probing, run_id, state.networks, texts, source, rewards)
        stack.callback(heldout.close)
        first = 0 if checkpoint is None else checkpoint.progress.iteration
        log = stack.enter_context(
            RunLog(
                folder if processes.is_main else folder / process_folder(processes.rank),
                first,
                config.run.iterations,
                live=config.run.live_view and processes.is_main,
                console=console,
            )
        )
        method = METHODS[config.method](state)
        run = Run(
            config, folder, method, texts, stream, inflight, heldout, log, Replay(config.groups)
        )
        run.guard, run.good = Guard(config.health), found  # one is resumed from what was well
        if processes.is_main:
            _write_config(folder, config)
        if checkpoint is not None:
            run.restore(checkpoint)
        yield run


def read_run_id(folder: Path) -> str:
    """The name under which the reward server counts what this run sends."""
    return str(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["run_id"])


def _require_even_shares(config: Config, processes: Processes) -> None:
    """Refuses numbers that several processes cannot act on as one."""
    count, groups = processes.count, config.groups
    if groups.per_step % count:
        raise ConfigError(
            f"groups.per_step = {groups.per_step} cannot be shared out evenly to {count} "
            f"processes; use {math.ceil(groups.per_step / count) * count}, or fewer processes"
        )
    if count > 1 and groups.max_idle_updates:
        raise ConfigError(
            f"groups.max_idle_updates = {groups.max_idle_updates} would be taken by each of "
            f"{count} processes at another time; set it to 0"
        )
    if count > 1 and config.server.human_window is not None:
        raise ConfigError(
            f"server.human_window = {config.server.human_window} would let each of {count} "
            "processes choose other prompts; leave it out, or train in one process"
        )


def _run_id(folder: Path, processes: Processes, *, new: bool) -> str:
    """Unique even if a run of the same name was deleted: the server never forgets a job's key."""
    if new and processes.is_main:
        run_id = f"{folder.name}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RUN_FILE).write_text(json.dumps({"run_id": run_id}), encoding="utf-8")
    processes.wait()
    return read_run_id(folder)


def connect(url: str, config: Config, budget_s: float = START_BUDGET_S) -> RewardClient:
    """A client of the server with the key from the environment, if there is one."""
    key = api_key(config.server.api_key_env)
    return RewardClient(url, api_key=key, budget_s=budget_s)


def _client(config: Config) -> RewardClient:
    """The configured server's client, after one short look whether it is there."""
    with connect(config.server.url, config) as look:
        look.info()
    return connect(config.server.url, config, config.server.retry_budget_s)


def _write_config(folder: Path, config: Config) -> None:
    text = json.dumps(config.model_dump(mode="json"), indent=1)
    (folder / CONFIG).write_text(text, encoding="utf-8")
