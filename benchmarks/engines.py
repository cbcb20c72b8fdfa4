"""The OCR engine without any server: the yardstick of what the server costs."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from reward_server.domain.outcomes import Scored
from reward_server.scorers import ScorerItem
from reward_server.scoring.pool import THREADS
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

    def seconds(self, per_s: float, repeats: int) -> list[float]:
        """Median seconds for each picture while ``per_s`` arrive at an even pace.

        The processes take turns, so that caches and cores are as busy as under a server's load.
        """
        began = time.perf_counter() + 0.1
        for number, pipe in enumerate(self._pipes):
            pace = (began + number / per_s, len(self._pipes) / per_s)
            pipe.send(("seconds", (*pace, number, len(self._pipes), repeats)))
        found: dict[int, float] = {}
        for pipe in self._pipes:
            found |= pipe.recv()
        return [found[index] for index in sorted(found)]


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
            pipe.send(_paced(score, len(files), *amount))


def _paced(
    score: Callable[[int], None],
    files: int,
    due: float,
    pause: float,
    first: int,
    step: int,
    repeats: int,
) -> dict[int, float]:
    """Median seconds for every ``step``-th picture, one every ``pause`` seconds from ``due`` on."""
    times: defaultdict[int, list[float]] = defaultdict(list)
    for _ in range(repeats):
        for index in range(first, files, step):
            time.sleep(max(0.0, due - time.perf_counter()))
            began = time.perf_counter()
            score(index)
            times[index].append(time.perf_counter() - began)
            due += pause
    return {index: statistics.median(each) for index, each in times.items()}
