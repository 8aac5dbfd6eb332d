"""CUDA graphs: the parts of a training step that are always the same are launched at once, not kernel by kernel.

A graph stands in for a module wherever a model calls it, so the module's `forward` is replaced for the time of a
stage: an argument would have to pass through every model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map

from ssdir.models.backbones.base import Backbone
from ssdir.models.detected.encoders import PyramidEncoder
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.objects import Objects
from ssdir.training.loading import Batch
from ssdir.training.steps import Objective

Capture: TypeAlias = Callable[[nn.Module, tuple[Any, ...]], Callable[..., Any]]


def _capture(part: nn.Module, args: tuple[Any, ...]) -> Callable[..., Any]:
    replay: Callable[..., Any] = torch.cuda.make_graphed_callables(part, args, allow_unused_input=True)
    return replay


def has_graphs(device: torch.device) -> bool:
    """Returns whether a device replays graphs."""
    return device.type == "cuda"


class DenseGraphs:
    """Graphs of the parts of a stage whose shapes depend on nothing but the batch size.

    A training step is hundreds of kernels, which the host launches more slowly than a GPU runs them. Those of
    backbones, heads and the encoder over all cells can be launched as one; the rest has a row per object. Batches
    of another size than the captured one, and those of validation, run without graphs.

    Args:
        capture: makes the graph of a module for given arguments, and returns a function that replays it.

    Attributes:
        parts: modules whose `forward` is replaced until `release`.
    """

    def __init__(self, capture: Capture = _capture) -> None:
        self._capture = capture
        self.parts: list[nn.Module] = []

    def capture(self, objective: Objective, batch_size: int) -> None:
        """Captures a stage's objective in training, for batches of `batch_size` images.

        Call it on the device and in the precision of the steps, while no other thread uses the GPU. It leaves
        weights, statistics of batch norm and the state of random numbers as they were.

        Raises:
            RuntimeError: torch's, where a module does something that no graph can hold, such as reading a value,
                or where memory is lacking. Nothing is captured then.
        """
        device = next(objective.parameters()).device
        buffers = [buffer.clone() for buffer in objective.buffers()]
        try:
            with torch.random.fork_rng([device] if device.type == "cuda" else []), _without_cache(device.type):
                objective.train()
                for call in _calls_of(objective, _blank_batch(objective, batch_size, device)):
                    with torch.set_grad_enabled(call.learns):
                        replay = _Replay(call, self._capture)
                    call.module.forward = replay
                    self.parts.append(call.module)
        except RuntimeError:
            self.release()
            raise
        finally:
            with torch.no_grad():
                for buffer, before in zip(objective.buffers(), buffers, strict=True):
                    buffer.copy_(before)

    def release(self) -> None:
        """Restores the modules' own `forward`, and frees the graphs' memory."""
        for module in self.parts:
            del module.forward  # the class's again
        self.parts.clear()


@dataclass(frozen=True)
class _Call:
    """A call of a module in a step; `learns` says whether it has gradients."""

    module: nn.Module
    args: tuple[Any, ...]
    options: dict[str, Any]
    learns: bool


class _Replay:
    """Replays a module's forward as a graph, for inputs like those of the call that it was captured with."""

    def __init__(self, call: _Call, capture: Capture) -> None:
        self.module, self.plain = call.module, call.module.forward
        self.wanted = self._signature(call.args, call.options)
        sample = tree_map(lambda each: each.detach().clone().requires_grad_(each.requires_grad), call.args)
        self.replay = capture(_Part(call.module, call.options), sample)

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._signature(args, options) != self.wanted:
            return self.plain(*args, **options)
        outputs = self.replay(*args)
        # Each replay writes into the same memory; outputs with gradients are used up within their step.
        return outputs if torch.is_grad_enabled() else tree_map(torch.clone, outputs)

    def _signature(self, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
        device_type = next(self.module.parameters()).device.type
        tensors = tree_leaves(args)
        return (
            self.module.training,
            torch.is_grad_enabled(),
            torch.is_autocast_enabled(device_type),
            options,
            [(tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad) for tensor in tensors],
        )


class _Part(nn.Module):
    """A module with the options that it is called with."""

    def __init__(self, module: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.module, self.plain, self.options = module, module.forward, options
        self.training = module.training

    def forward(self, *args: Any) -> Any:
        return self.plain(*args, **self.options)


def _dense_parts(objective: Objective) -> Sequence[nn.Module]:
    """Returns the modules to capture, of which none contains another."""
    if isinstance(objective.model, SSD):
        return [objective.model]
    return [part for part in objective.modules() if isinstance(part, (Backbone, PyramidEncoder))]


def _calls_of(objective: Objective, batch: Any) -> list[_Call]:
    """Returns the first call in a step of each part to capture, in order."""
    calls: dict[nn.Module, _Call] = {}

    def note(module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        calls.setdefault(module, _Call(module, args, options, torch.is_grad_enabled()))

    hooks = [part.register_forward_pre_hook(note, with_kwargs=True) for part in _dense_parts(objective)]
    try:
        if hooks:
            objective(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return list(calls.values())


def _blank_batch(objective: Objective, batch_size: int, device: torch.device) -> Batch:
    """Makes black images with an object each."""
    model = objective.model
    images = torch.zeros(batch_size, 3, model.image_size, model.image_size, device=device)
    every = torch.arange(batch_size, device=device)
    boxes = torch.tensor([[0.5, 0.5, 0.3, 0.3]], device=device).expand(batch_size, -1).contiguous()
    scores, labels = torch.ones(batch_size, device=device), torch.zeros_like(every)
    objects = Objects(every, batch_size, boxes, scores=scores, labels=labels)
    if isinstance(model, DetectedVAE):
        objects = objects.replace(anchor_index=model.detector.assign(boxes))
    return Batch(images.contiguous(memory_format=torch.channels_last), objects)


@contextmanager
def _without_cache(device_type: str) -> Iterator[None]:
    """Turns off autocast's cache of weights in half precision: a graph has to convert them in each replay."""
    with torch.autocast(
        device_type,
        torch.get_autocast_dtype(device_type),
        enabled=torch.is_autocast_enabled(device_type),
        cache_enabled=False,
    ):
        yield
