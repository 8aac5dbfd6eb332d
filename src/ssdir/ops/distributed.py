"""What the processes of a distributed training compute together, so that its steps equal those of one process.

Each process has a part of the batch, and a step takes the mean of the processes' gradients. Losses that are
divided by the number of objects or images need the number of all processes, because their parts differ. Random
numbers are those that one process would draw for the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

Count = TypeVar("Count", int, Tensor)
T = TypeVar("T")


def are_several() -> bool:
    """Returns whether several processes have a part each of what is computed."""
    return (
        not _has_whole_batch
        and distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


def process_numbers() -> tuple[int, int]:
    """Returns the number of this process, and how many there are."""
    return (distributed.get_rank(), distributed.get_world_size()) if are_several() else (0, 1)


def is_first() -> bool:
    """Returns whether this is the first process, or the only one."""
    return process_numbers()[0] == 0


_has_whole_batch = False
_images: Rows | None = None
_group: tuple[Any, Any] = (None, None)


@contextmanager
def batch_of(images: int, total: int, device: torch.device) -> Iterator[None]:
    """Within the block, this process has its part of a batch.

    Args:
        images: number of its images.
        total: number of images of the batch; if the process has all of them, it exchanges nothing with others.
        device: where it computes.
    """
    global _has_whole_batch, _images
    _has_whole_batch = images == total
    if are_several():
        start, end = part_of(total, distributed.get_rank(), distributed.get_world_size())
        assert end - start == images
        _images = Rows(start, images, total, device)
    try:
        yield
    finally:
        _has_whole_batch, _images = False, None


def part_of(total: int, rank: int, processes: int) -> tuple[int, int]:
    """Returns the part [start, end) of a batch of `total` images that a process has.

    Of a batch with fewer images than processes, each has all.
    """
    if total < processes:
        return 0, total
    return total * rank // processes, total * (rank + 1) // processes


def batch_group() -> Any:
    """Returns the process group of what processes exchange within a step.

    It is not that of the gradients, whose sums begin while losses still exchange theirs.
    """
    global _group
    world = distributed.group.WORLD
    if _group[0] is not world:
        _group = (world, distributed.new_group())
    return _group[1]


def normalizer(count: Count, device: torch.device) -> Count | Tensor:
    """Returns the divisor of a loss that is summed over a batch's objects or images: their number, at least 1.

    Args:
        count: number of objects or images in this process's part of the batch.
        device: device for communication between processes.

    Returns:
        The count; with several processes, the mean of their counts. The mean over processes of each one's sum
        divided by it then equals the sum over the whole batch divided by its count.
    """
    if not are_several():
        return count.clamp(min=1) if isinstance(count, Tensor) else max(1, count)
    total = torch.as_tensor(count, dtype=torch.float32, device=device).clone()
    distributed.all_reduce(total, group=batch_group())
    return total.clamp(min=1) / distributed.get_world_size()


def image_mean(values: Tensor) -> Tensor:
    """Returns the mean of values (B, ...) of images; its mean over processes is that of the whole batch."""
    if not are_several():
        return values.mean()
    return values.sum() / (values.shape[1:].numel() * normalizer(len(values), values.device))


def totals(counts: Sequence[int], device: torch.device) -> list[int]:
    """Returns the sums of counts over all processes."""
    if not are_several():
        return list(counts)
    sums = torch.tensor(counts, device=device)
    distributed.all_reduce(sums, group=batch_group())
    return [int(total) for total in sums.tolist()]


def _counts_of(count: int, device: torch.device) -> list[int]:
    """Returns each process's count."""
    counts = [torch.zeros((), dtype=torch.int64, device=device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(counts, torch.tensor(count, device=device), group=batch_group())
    each: list[int] = torch.stack(counts).tolist()
    return each


def gather_rows(rows: Tensor) -> Tensor:
    """Concatenates the rows (M, ...) of all processes; gradients flow back to the process of each row."""
    if not are_several():
        return rows
    gathered: Tensor = _Gather.apply(rows, _counts_of(len(rows), rows.device))
    return gathered


class _Gather(torch.autograd.Function):
    """Concatenates the rows of all processes, which have `counts` each."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int]) -> Tensor:
        ctx.start, ctx.count = sum(counts[: distributed.get_rank()]), len(rows)
        padding = rows.new_zeros(max(counts) - len(rows), *rows.shape[1:])
        padded = torch.cat([rows.detach(), padding])
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded, group=batch_group())
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=batch_group())
        return total[ctx.start : ctx.start + ctx.count], None


def gather_values(value: T) -> list[T]:
    """Returns the values of all processes, in their order; they are pickled, and may be large on CPUs only."""
    if not are_several():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


# Random numbers -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """The rows, of images or objects, that this process has of those of the whole batch.

    A process draws the random numbers of all rows and keeps its own. So they are those that one process draws for
    the whole batch, and the generators of all processes stay equal.

    Attributes:
        start: the number of rows of the processes before this one.
        count: the number of its own rows.
        total: the number of rows of all processes.
        device: where random numbers are drawn.
    """

    start: int
    count: int
    total: int
    device: torch.device

    def rand(self, *shape: int) -> Tensor:
        """Samples (count, *shape) uniformly from [0, 1)."""
        return self._own(torch.rand(self.total, *shape, device=self.device))

    def randn(self, *shape: int) -> Tensor:
        """Samples (count, *shape) from the standard normal distribution."""
        return self._own(torch.randn(self.total, *shape, device=self.device))

    def randn_of_copies(self, copies: int, *shape: int) -> Tensor:
        """Samples (copies · count, *shape): all rows, then all of them again, and so on."""
        every = torch.randn(copies * self.total, *shape, device=self.device).view(copies, self.total, *shape)
        return every[:, self.start : self.start + self.count].flatten(0, 1)

    def rand_like(self, values: Tensor) -> Tensor:
        """Samples what `torch.rand_like` samples for the values (total, ...) of all rows."""
        return self._own(self._of_all(values).uniform_())

    def randn_like(self, values: Tensor) -> Tensor:
        """Samples what `torch.randn_like` samples for the values (total, ...) of all rows."""
        return self._own(self._of_all(values).normal_())

    def permutation(self) -> Tensor:
        """Returns this process's part, int64 (count,), of a random order of all rows."""
        return self._own(torch.randperm(self.total, device=self.device))

    def times(self, factor: int) -> Rows:
        """Returns the rows of a table with `factor` rows for each of these."""
        return Rows(self.start * factor, self.count * factor, self.total * factor, self.device)

    def _of_all(self, values: Tensor) -> Tensor:
        """Makes an empty tensor (total, ...) laid out in memory like these rows: generators fill in that order."""
        like = torch.empty_like(values.detach())
        if self.count == self.total:
            return like
        shape = like.shape[1:]
        strides = (shape.numel(), *like.stride()[1:])
        return torch.empty_strided((self.total, *shape), strides, dtype=like.dtype, device=like.device)

    def _own(self, values: Tensor) -> Tensor:
        return values[self.start : self.start + self.count]


def image_rows(count: int, device: torch.device) -> Rows:
    """Returns the rows of this process's `count` images among those of the whole batch."""
    return rows_of(count, device) if _images is None else _images  # See `batch_of`.


def rows_of(count: int, device: torch.device) -> Rows:
    """Returns this process's `count` rows among those of all processes, which all have to ask."""
    if not are_several():
        return Rows(0, count, count, device)
    counts = _counts_of(count, device)
    return Rows(sum(counts[: distributed.get_rank()]), count, sum(counts), device)
