"""Several training processes that act as one: each owns whole groups, sums are over all of them.

Started with `torchrun --nproc-per-node N -m trainer train ...` (torch.distributed, gloo on CPUs and
nccl on GPUs); one process alone takes part in nothing. Every process holds all roles and applies
the same steps, since each adds its share of the loss and gradients are summed. Images and
trajectories stay with the process that made them; only rewards, names and gradients travel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE: Final = timedelta(days=30)
"""One process may wait for people while the others wait for it; who dies is noticed by torchrun."""


@dataclass(frozen=True)
class Processes:
    """This process among all. The methods are collective: all processes must call them alike."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, prints and decides."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of `count` things, which are shared out evenly."""
        each = count // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in the place of `values`."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def totals(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.count == 1:
            return list(values)
        return [float(v) for v in self.sum(torch.tensor(values, dtype=torch.float64))]

    def any(self, flag: bool) -> bool:
        """Whether any process says so."""
        return self.totals(float(flag))[0] > 0

    def from_main(self, value: float) -> float:
        """The main process's value."""
        return self.totals(value if self.is_main else 0.0)[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()

    def all_gather(self, rows: Tensor) -> Tensor:
        """All processes' rows in the order of ranks; they may differ in number."""
        if self.count == 1:
            return rows
        sizes = torch.zeros(self.count, dtype=torch.int64)
        sizes[self.rank] = len(rows)
        lengths = [int(n) for n in self.sum(sizes)]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)])

    def all_gather_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """All processes' names in the order of ranks; a name holds no line break."""
        if self.count == 1:
            return tuple(names)
        text = "".join(f"{name}\n" for name in names)
        raw = self.all_gather(torch.tensor(list(text.encode()), dtype=torch.uint8))
        return tuple(bytes(raw.tolist()).decode().splitlines())

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Every gradient becomes its sum over all processes; a missing one counts as zero."""
        if self.count == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum(torch.cat([g.flatten() for g in gradients]))
        parts = torch.split(flat, [p.numel() for p in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter)


ALONE = Processes()


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """The processes torchrun started, or this one alone; each takes the GPU of its local rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Both: what is summed lies on the GPU for gradients, in main memory for plain numbers.
    kinds = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(kinds, timeout=PATIENCE)
    processes = Processes(dist.get_rank(), dist.get_world_size())
    try:
        processes.wait()  # who leaves while another connects breaks its connection, and hides why
        yield processes
    finally:
        dist.destroy_process_group()
