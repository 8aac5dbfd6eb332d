"""A model in the form that encodes with the least work: same results, but no longer to be trained or saved."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ssdir.models.base import ObjectModel

ModuleT = TypeVar("ModuleT", bound=nn.Module)
ObjectModelT = TypeVar("ObjectModelT", bound=ObjectModel)


def inference_form(model: ModuleT) -> ModuleT:
    """A copy in evaluation mode, its batch norm folded into convolutions, its weights with channels last.

    Outputs differ by rounding only. Batch norm is folded where it directly follows its convolution in an
    `nn.Sequential`, as in the VGG and convolutional backbones. Elsewhere (timm's blocks call their layers by
    hand, in an order that their modules don't tell) it stays.

    Args:
        model: any module; it stays as it is, and the copy knows nothing of what it learns later.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(copied.modules()):
        # A subclass with a forward of its own may call its layers in another order.
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold(module)
    return copied.to(memory_format=torch.channels_last)


def in_bfloat16(model: ObjectModelT) -> ObjectModelT:
    """Makes a model encode with products in bfloat16, sums and places in single precision, in place.

    On CPUs with instructions for it and on GPUs, convolutions take about half the time.
    """
    precise = torch.autocast(model.device.type, torch.bfloat16)
    model.encode = precise(model.encode)  # type: ignore[method-assign]
    return model


def _fold(layers: nn.Sequential) -> None:
    """Folds each batch norm into the convolution before it, in place."""
    for (name, conv), (norm_name, norm) in pairwise(list(layers.named_children())):
        # Exactly these classes: timm's batch norm is a subclass that also activates.
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
            setattr(layers, name, fuse_conv_bn_eval(conv, norm))
            setattr(layers, norm_name, nn.Identity())
