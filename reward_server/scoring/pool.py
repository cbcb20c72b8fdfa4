"""Keeps scorer processes alive: starts them, restarts them, takes back what a dead one held.

The processes take their work from the store by themselves; this pool only wakes them, passes on
which jobs changed, and kills one that holds a batch longer than its lease.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog

from reward_server.scoring.worker import worker_name
from reward_server.settings import Settings

log = structlog.get_logger()

THREADS: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
"""One thread per scorer process: throughput comes from processes, and the API stays responsive."""

FIRST_RESTART_S: Final = 0.1
LONGEST_RESTART_S: Final = 10.0
STABLE_S: Final = 30.0


class ScorerPool:
    """The scorer processes of one server.

    Args:
        settings: how many, with which scorers, on which store.
        on_scored: called with changed jobs, the reward and the number of items of each batch.
        on_death: called with the name of a dead process, to take back its leases.
    """

    def __init__(
        self,
        settings: Settings,
        on_scored: Callable[[list[str], str, int], None],
        on_death: Callable[[str], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._on_scored = on_scored
        self._on_death = on_death
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._busy_until: dict[int, float] = {}
        self._ready: set[int] = set()
        self._idle: list[int] = []  # the last one's caches are the warmest
        self._missed = False  # nobody was idle when there was work
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """True while at least one process has its scorers loaded, or none is wanted."""
        return bool(self._ready) or self._settings.scorer_processes == 0

    @property
    def pids(self) -> list[int]:
        """Process ids of the live scorer processes."""
        return [process.pid for process in self._processes.values()]

    def start(self) -> None:
        """Start the processes; returns before they are ready."""
        for slot in range(self._settings.scorer_processes):
            self._tasks.append(asyncio.create_task(self._keep(slot)))

    async def stop(self) -> None:
        """Let every process finish its batch and end; kill those that take longer than 5 s."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        processes = list(self._processes.values())
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
        for process in processes:
            try:
                await asyncio.wait_for(process.wait(), 5.0)
            except TimeoutError:
                process.kill()
                await process.wait()

    def wake(self) -> None:
        """Tell a process of new work, now or once one is idle; it says if there is more of it."""
        if self._idle:
            self._tell(self._idle.pop())
        else:
            self._missed = True

    def _tell(self, slot: int) -> None:
        stdin = self._processes[slot].stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(b".")

    def kill_hung(self, now: float) -> None:
        """Kill processes that hold a batch longer than its lease."""
        for slot, until in list(self._busy_until.items()):
            if now > until:
                log.warning("scorer_hung", pid=self._processes[slot].pid)
                del self._busy_until[slot]
                self._processes[slot].kill()

    async def _keep(self, slot: int) -> None:
        pause = FIRST_RESTART_S
        while True:
            began = time.monotonic()
            process = await self._spawn()
            self._processes[slot] = process
            await self._listen(slot, process)
            code = await process.wait()
            self._ready.discard(slot)
            self._busy_until.pop(slot, None)
            self._forget_idle(slot)
            log.warning("scorer_died", pid=process.pid, code=code, restart_s=pause)
            await self._on_death(worker_name(process.pid))
            await asyncio.sleep(pause)
            stable = time.monotonic() - began > STABLE_S
            pause = FIRST_RESTART_S if stable else min(2 * pause, LONGEST_RESTART_S)

    def _rest(self, slot: int) -> None:
        """A process found nothing to do: it looks again if there was work in the meantime."""
        if self._missed:
            self._missed = False
            self._tell(slot)
        elif slot not in self._idle:
            self._idle.append(slot)

    def _forget_idle(self, slot: int) -> None:
        if slot in self._idle:
            self._idle.remove(slot)

    async def _spawn(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "reward_server", "scorer", "--attached"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
            env=os.environ | THREADS,
        )
        assert process.stdin is not None
        process.stdin.write(self._settings.model_dump_json().encode() + b"\n")
        return process

    async def _listen(self, slot: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            message = json.loads(line)
            if message["event"] == "ready":
                self._ready.add(slot)
                log.info("scorer_ready", pid=process.pid, rewards=message["rewards"])
            elif message["event"] == "idle":
                self._rest(slot)
            elif message["event"] == "claimed":
                self._busy_until[slot] = time.monotonic() + message["lease_s"]
                self._forget_idle(slot)
                if message["more"]:
                    self.wake()
            elif message["event"] == "scored":
                self._busy_until.pop(slot, None)
                self._on_scored(message["jobs"], message["reward"], message["items"])
