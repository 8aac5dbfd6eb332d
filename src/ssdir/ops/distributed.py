"""Sums over the processes that train together, so that their steps are those of one process with the whole batch.

Each process has its share of a batch, and steps take the mean of the processes' gradients. What is normalised by a
number of objects, of which the shares have different ones, needs the number of all.
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
    """The divisor of a sum over the objects of a batch: their number, at least 1.

    Args:
        count: objects of this process' share of the batch.
        device: where the processes meet.

    Returns:
        Of several processes, the mean of their counts: the mean over processes of their sums divided by it is the
        sum over the whole batch divided by its count.
    """
    if not _are_several():
        return count.clamp(min=1) if isinstance(count, Tensor) else max(1, count)
    total = torch.as_tensor(count, dtype=torch.float32, device=device).clone()
    distributed.all_reduce(total)
    return total.clamp(min=1) / distributed.get_world_size()


def smallest(count: int, device: torch.device) -> int:
    """The smallest of all processes' counts."""
    if not _are_several():
        return count
    least = torch.tensor(count, device=device)
    distributed.all_reduce(least, distributed.ReduceOp.MIN)
    return int(least)


def gather_rows(rows: Tensor) -> Tensor:
    """The rows (M, D) of all processes one after another; gradients flow back to the process of each row."""
    if not _are_several():
        return rows
    counts = [torch.zeros((), dtype=torch.int64, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor(len(rows), device=rows.device))
    longest = int(torch.stack(counts).max())
    parts = all_gather(F.pad(rows, (0, 0, 0, longest - len(rows))))
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])
