"""Sums over the processes of a distributed training, so that its steps equal those of one process.

Each process has a part of the batch, and a step takes the mean of the processes' gradients. Losses that are
divided by the number of objects need the number of all processes, because the parts have different numbers of
objects.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather
from torch.nn import functional as F

Count = TypeVar("Count", int, Tensor)


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def normalizer(count: Count, device: torch.device) -> Count | Tensor:
    """Returns the divisor of a loss that is summed over the objects of a batch: their number, at least 1.

    Args:
        count: number of objects in this process's part of the batch.
        device: device for communication between processes.

    Returns:
        The count; with several processes, the mean of their counts. The mean over processes of each one's sum
        divided by it then equals the sum over the whole batch divided by its count.
    """
    if not _are_several():
        return count.clamp(min=1) if isinstance(count, Tensor) else max(1, count)
    total = torch.as_tensor(count, dtype=torch.float32, device=device).clone()
    distributed.all_reduce(total)
    return total.clamp(min=1) / distributed.get_world_size()


def smallest(count: int, device: torch.device) -> int:
    """Returns the smallest of all processes' counts."""
    if not _are_several():
        return count
    least = torch.tensor(count, device=device)
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return int(least)


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenates the rows (M, D) of all processes; gradients flow back to the process of each row."""
    if not _are_several():
        return rows
    counts = [torch.zeros((), dtype=torch.int64, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor(len(rows), device=rows.device))
    longest = int(torch.stack(counts).max())
    parts = all_gather(F.pad(rows, (0, 0, 0, longest - len(rows))))
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
