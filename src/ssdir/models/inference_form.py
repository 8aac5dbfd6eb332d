"""A copy of a model that encodes faster, with the same results, but cannot be trained or saved."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def inference_form(model: ModuleT) -> ModuleT:
    """Copies a model in evaluation mode, with batch norm folded into convolutions and weights channels-last.

    Outputs differ by rounding only. Batch norm is folded where it directly follows its convolution in an
    `nn.Sequential`, as in the VGG and convolutional backbones. Elsewhere it stays: timm's blocks call their layers
    in an order that their modules don't state.

    Args:
        model: any module; it is not changed, and the copy doesn't follow its later training.
    """
    copied = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(copied.modules()):
        # A subclass with a forward of its own may call its layers in another order.
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            _fold(module)
    return copied.to(memory_format=torch.channels_last)


def _fold(layers: nn.Sequential) -> None:
    """Folds each batch norm into the convolution before it, in place."""
    for (name, conv), (norm_name, norm) in pairwise(list(layers.named_children())):
        # Exactly these classes: timm's batch norm is a subclass that also activates.
        if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and norm.track_running_stats:
            setattr(layers, name, fuse_conv_bn_eval(conv, norm))
            setattr(layers, norm_name, nn.Identity())
