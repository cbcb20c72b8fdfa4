"""The OCR engine without any server: the yardstick of what the server costs."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from reward_server.pool import THREADS
from reward_server.scorers import Scored, ScorerItem
from shared.images import decode

GROUP = 24


class Engines:
    """As many processes as the server has scorers, each with an engine, at rest between rounds."""

    def __init__(self, processes: int, files: list[bytes], words: list[str]) -> None:
        # One thread each, as the server's scorers have it.
        os.environ.update(THREADS)
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, files, words), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)
        for pipe in self._pipes:
            pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join(60)

    def rate(self, seconds: float) -> float:
        """Items a second of all processes together, decoding and reading without a pause."""
        for pipe in self._pipes:
            pipe.send(("rate", seconds))
        return float(sum(pipe.recv() for pipe in self._pipes))

    def seconds(self, repeats: int) -> list[float]:
        """Median seconds for each picture, in a process that has the machine to itself."""
        self._pipes[0].send(("seconds", repeats))
        return list(self._pipes[0].recv())


def _serve(pipe: Connection, files: list[bytes], words: list[str]) -> None:
    from reward_server.scorers.ocr import OcrOptions, OcrScorer, OcrTarget

    scorer = OcrScorer()

    def score(index: int) -> None:
        index %= len(files)
        image, target = decode(files[index]), OcrTarget(text=words[index])
        (outcome,) = scorer.score([ScorerItem(words[index], image, target, OcrOptions())])
        assert isinstance(outcome, Scored) and outcome.reward == 1.0, outcome

    for index in range(len(files)):
        score(index)
    pipe.send("ready")
    while (ask := pipe.recv()) is not None:
        what, amount = ask
        if what == "rate":
            began, done = time.perf_counter(), 0
            while time.perf_counter() - began < amount:
                for index in range(done, done + GROUP):
                    score(index)
                done += GROUP
            pipe.send(done / (time.perf_counter() - began))
        else:
            pipe.send([_median(partial(score, index), amount) for index in range(len(files))])


def _median(work: Callable[[], None], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
