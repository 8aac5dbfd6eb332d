"""Batch norm over the parts of a batch that several processes have, on any device.

torch's `SyncBatchNorm` computes the same, but on GPUs alone, and it replaces modules, so that a model would have
others after its training than before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ssdir.ops.distributed import are_several, batch_group
from ssdir.ops.precision import at_least_single

_KNOWN = (_BatchNorm.forward, BatchNormAct2d.forward)


@contextmanager
def shared_batch_norm(model: nn.Module) -> Iterator[None]:
    """Within the block, batch norm of a model in training normalises by the statistics of all processes.

    Raises:
        TypeError: if a layer is a kind of batch norm that computes something else besides.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        if type(norm).forward not in _KNOWN:
            raise TypeError(f"{type(norm).__name__} can't be shared among processes: train on one device")
    for norm in norms:
        norm.forward = partial(_forward, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the class's again


def _forward(norm: _BatchNorm, inputs: Tensor) -> Tensor:
    if not (norm.training and are_several()):
        return type(norm).forward(norm, inputs)
    output, mean, var, count = _Normalize.apply(inputs, norm.weight, norm.bias, norm.eps)
    if norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean.to(norm.running_mean), share)
            unbiased = var * count / (count - 1).clamp(min=1)
            norm.running_var.lerp_(unbiased.to(norm.running_var), share)
    if isinstance(norm, BatchNormAct2d):  # timm's batch norm can also activate.
        output = norm.act(norm.drop(output))
    normalized: Tensor = output
    return normalized


class _Normalize(torch.autograd.Function):
    """Normalises the part (B, C, ...) of a batch by the mean and the variance of all processes' parts.

    Returns the normalised part; mean (C,) and variance (C,), without correction, of the whole; and its number of
    values per channel.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var, count = _statistics(inputs)
        ctx.save_for_backward(inputs, weight, mean, (var + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, var, count)
        return F.batch_norm(inputs, mean, var, weight, bias, False, 0.0, eps), mean, var, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        inputs, weight, mean, scale, count = ctx.saved_tensors
        axes, shape = _axes(inputs)
        slope = at_least_single(gradient)
        standard = (at_least_single(inputs) - mean.view(shape)) * scale.view(shape)
        of_bias, of_weight = slope.sum(axes), (slope * standard).sum(axes)
        # Each input moved the mean and the variance of all processes.
        sums = torch.stack([of_bias, of_weight])
        distributed.all_reduce(sums, group=batch_group())
        shift, stretch = (sums / count).view(2, *shape)
        factor = scale if weight is None else scale * weight
        of_inputs = (slope - shift - standard * stretch) * factor.view(shape)
        if weight is None:
            return of_inputs.to(inputs.dtype), None, None, None
        return of_inputs.to(inputs.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _axes(inputs: Tensor) -> tuple[list[int], tuple[int, ...]]:
    """Returns the axes that are averaged, and the shape in which a value per channel is beside inputs."""
    return [0, *range(2, inputs.dim())], (1, -1, *[1] * (inputs.dim() - 2))


def _statistics(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Computes mean and variance of all processes' values per channel (C,), and the number of these values."""
    values, (axes, shape) = at_least_single(inputs), _axes(inputs)
    own_count = values.new_full((1,), values.numel() / values.shape[1])
    own_mean = values.sum(axes) / own_count.clamp(min=1)
    spread = (values - own_mean.view(shape)).square().sum(axes)
    own = torch.cat([own_mean, spread, own_count])
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own, group=batch_group())
    means, spreads, counts = torch.stack(parts).split([len(own_mean), len(own_mean), 1], dim=1)
    count = counts.sum().clamp(min=1)
    mean = (means * counts).sum(dim=0) / count
    var = (spreads.sum(dim=0) + (counts * (means - mean).square()).sum(dim=0)) / count
    return mean, var, count
