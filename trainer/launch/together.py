"""Several training processes on this machine, this one among them: torchrun's work from within.

A small network gains little from a second core in one pass and nearly all of it from a second
process. The others are children that end with this one; console, Ctrl-C and what comes after
training stay here. Should one of them end early, all end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from rich.console import Console

from shared.errors import RewardError
from trainer.config import Config
from trainer.errors import OtherProcessError, TrainerError
from trainer.evaluation.evaluate import Judge
from trainer.loop import train
from trainer.models.backbones.base import torch_device
from trainer.run.checkpoint import latest_checkpoint, process_folder, written_by
from trainer.run.state import CHECKPOINTS

MOST = 4  # each takes 0.8 GB of memory
PATIENCE_S = 20.0  # for processes that were told to end


class ProcessError(TrainerError):
    """A training process that ended before the run did."""


def process_count(config: Config, *, resume: bool) -> int:
    """How many processes a run takes here: what a resumed one had, 1 on a GPU, else by the cores.

    Groups are shared out evenly, so the count divides `groups.per_step`.
    """
    found = latest_checkpoint(config.run.home / CHECKPOINTS)
    if resume and found is not None:
        return written_by(found)
    if torch_device(config.compute).type != "cpu":
        return 1
    room = min(MOST, torch.get_num_threads() // (config.compute.threads or 1))
    return max(n for n in range(1, max(room, 1) + 1) if config.groups.per_step % n == 0)


def train_together(
    config: Config,
    count: int,
    *,
    resume: bool,
    judge: Judge | None = None,
    console: Console,
) -> Path:
    """`trainer.loop.train` in `count` processes; returns the run's folder.

    Raises:
        ProcessError: one of the others ended early, with what it said.
    """
    if count == 1:
        return train(config, resume=resume, judge=judge, console=console)
    with _others(config, count, resume) as others:
        try:
            return train(config, resume=resume, judge=judge, console=console)
        # torch.distributed's, when a connection breaks, or what another has been told.
        except (RuntimeError, OtherProcessError) as error:
            if (reason := others.reason()) is None:
                raise
            raise ProcessError(
                f"{reason}; go on from the last checkpoint with --resume, or start anew with "
                "--processes 1"
            ) from error


@dataclass
class _Other:
    process: SpawnProcess
    log: Path

    @property
    def failure(self) -> str | None:
        """Why it ended early; None if it did not."""
        code = self.process.exitcode
        if not code:
            return None
        text = self.log.read_text(encoding="utf-8") if self.log.is_file() else ""
        last = text.splitlines()[-1:] or ["without a word"]
        return f"{self.process.name} ended with exit code {code}: {last[0]} (its log: {self.log})"


@dataclass
class _Others:
    """All but this process, in the order of ranks."""

    members: list[_Other]

    def reason(self) -> str | None:
        """Why one of them ended early; None if all are well."""
        for other in self.members:
            other.process.join(PATIENCE_S / len(self.members))
        return next((o.failure for o in self.members if o.failure is not None), None)

    def stop(self) -> None:
        """Waits for them, then insists."""
        for other in self.members:
            other.process.join(PATIENCE_S)
            if other.process.exitcode is None:
                other.process.kill()
                other.process.join()


@contextmanager
def _others(config: Config, count: int, resume: bool) -> Iterator[_Others]:
    """Ranks 1 to count - 1 as children, this process as rank 0, the cores shared out."""
    before, threads = dict(os.environ), torch.get_num_threads()
    own = config.compute.threads or max(1, threads // count)
    spawning = multiprocessing.get_context("spawn")
    os.environ |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    os.environ |= {"MASTER_PORT": str(_free_port()), "RANK": "0", "LOCAL_RANK": "0"}
    if sys.platform == "linux":  # a laptop's own name may lead to a network that is down
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(own)
    others = _Others([])
    try:
        with _ctrl_c_ignored():  # inherited, so that a Ctrl-C while they start is this process's
            for rank in range(1, count):
                log = config.run.home / process_folder(rank) / "log.txt"
                child = spawning.Process(
                    target=_take_part,
                    args=(rank, own, config, resume, log),
                    name=f"training process {rank + 1} of {count}",
                    daemon=True,
                )
                child.start()
                others.members.append(_Other(child, log))
        yield others
    finally:
        others.stop()
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ |= before


def _take_part(rank: int, threads: int, config: Config, resume: bool, log: Path) -> None:
    """Trains as process `rank`; the main process speaks for all, errors go to `log`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(threads)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        train(config, resume=resume, console=Console(quiet=True))
    except KeyboardInterrupt:
        return
    except (TrainerError, RewardError) as error:
        sys.exit(f"error: {error}")


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
