"""How a run is put together: model, roles, method, prompts, server, record.

The composition root of training. Checks the server and every prompt file before the first rollout,
so that a typo costs seconds. A folder that holds a run already is an error unless it is resumed.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from shared.client import RewardClient
from trainer.baselines import METHODS
from trainer.config import Config, HeldoutConfig
from trainer.errors import CheckpointError, ConfigError
from trainer.evaluation.evaluate import Judge
from trainer.models.backbones import load_backbone
from trainer.models.networks import build_networks
from trainer.models.texts import TextCache, frees_text
from trainer.processes import Processes, joined_processes
from trainer.rewards.inflight import InFlight, known_rewards
from trainer.rewards.prompts import PromptStream, read_prompt_set
from trainer.run.checkpoint import latest_checkpoint, load_checkpoint, process_folder
from trainer.run.health import Guard
from trainer.run.heldout import JUDGE, Heldout
from trainer.run.log import RunLog
from trainer.run.replay import Replay
from trainer.run.state import CHECKPOINTS, CONFIG, RUN_FILE, Run, ScoreSource, connect, read_run_id
from trainer.tdm_r1.state import TrainState

NO_PROBE = HeldoutConfig(every=0)


@contextmanager
def open_run(
    config: Config,
    *,
    resume: bool,
    source: ScoreSource | None,
    judge: Judge | None,
    console: Console,
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
        heldout = Heldout(probing, run_id, state.networks, texts, source, rewards, judge)
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
        if frees_text(config.compute, backbone.device.type):
            # A resumed run's groups may be of prompts that their file has lost meanwhile.
            stored = [e.group for e in inflight.snapshot()] + [s.group for s in run.replay.groups]
            texts.settle([*_all_prompts(config), *(group.prompt.text for group in stored)])
        yield run


def _all_prompts(config: Config) -> list[str]:
    """The texts that the run can ask for."""
    sets = (*config.prompts, *config.heldout.prompts)
    return [prompt.text for one in sets for prompt in read_prompt_set(one)]


def _require_even_shares(config: Config, processes: Processes) -> None:
    """Check that several processes can act on the configuration's numbers as one.

    Raises:
        ConfigError: naming the key, its value and the remedy.
    """
    count, groups = processes.count, config.groups
    if groups.per_step % count:
        raise ConfigError(
            f"groups.per_step = {groups.per_step} cannot be shared out evenly to {count} "
            f"processes; use {math.ceil(groups.per_step / count) * count}, or fewer processes"
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


def _client(config: Config) -> RewardClient:
    """The configured server's client, after one short look whether it is there."""
    with connect(config.server.url, config) as look:
        look.info()
    return connect(config.server.url, config, config.server.retry_budget_s)


def _write_config(folder: Path, config: Config) -> None:
    text = json.dumps(config.model_dump(mode="json"), indent=1)
    (folder / CONFIG).write_text(text, encoding="utf-8")
