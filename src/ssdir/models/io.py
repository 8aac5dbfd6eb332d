"""Saves models to folders, and loads them by folder, by the name of a shipped model, or from the Hub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ssdir.config import parse, presets
from ssdir.device import seeded
from ssdir.documents import json_text
from ssdir.errors import InputError, nearest
from ssdir.formatting import first_line, quote
from ssdir.models.base import ObjectModel
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.hub import fetch_model, is_on_hub
from ssdir.models.registry import MODELS, StoredConfig, build_model, without_pretrained
from ssdir.models.shipped import CONFIG_FILE, FORMAT, WEIGHTS_FILE, ModelHeader, read_header, shipped_models
from ssdir.models.weights import check_header, load_weights
from ssdir.outputs import atomic_file


def save_model(model: ObjectModel, folder: str | Path, description: str = "", *, half: bool = False) -> None:
    """Writes `config.json` and `model.safetensors` into a folder (made if need be); never a pickle.

    Args:
        model: the model to save.
        folder: folder to write into; files of the same names are replaced.
        description: one line for `ssdir models`.
        half: store weights in half precision, at half the size; they are loaded as single precision.

    Raises:
        InputError: if a weight is not finite as it is stored, or a file can't be written, which is then as it was.
    """
    folder = Path(folder)
    header = {
        "format": FORMAT,
        "model": model.config.kind,
        "description": description,
        "ssdir_version": metadata.version("ssdir"),
        "class_names": model.class_names,
        "image_size": model.image_size,
        "latent_dim": model.latent_dim,
        "fingerprint": weights_fingerprint(model),
        "familiar_error": model.familiar_error,
        "config": model.config.model_dump(mode="json"),
    }
    weights = {
        name: (tensor.half() if half and tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in _lasting(model).items()
    }
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(
                f"the weights '{name}' are not finite{' in half precision' if half else ''}, so the model is not "
                "saved: train it anew, with a smaller learning rate"
            )
    with atomic_file(folder / WEIGHTS_FILE, force=True) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
        temporary.chmod(0o644)  # safetensors' own temporary file is private to its user
    # The config comes last: with it, the folder is a model.
    with atomic_file(folder / CONFIG_FILE, force=True) as temporary:
        temporary.write_text(json_text(header), encoding="utf-8")


def load_model(name_or_dir: str | Path, device: torch.device | str = "cpu") -> ObjectModel:
    """Loads a model by the name of a shipped one, from a folder that `save_model` wrote, or `hf://USER/NAME`.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: for an unknown name, or a folder with missing, foreign or damaged files.
    """
    folder = find_model(name_or_dir)
    header = read_header(folder)
    config = _checked_config(header, folder)
    weights_file = folder / WEIGHTS_FILE
    # The shapes are compared before memory is allocated, because the config may not match the weights.
    with torch.device("meta"):  # Tensors have shapes but no memory there.
        expected = _lasting(_build(config, header.class_names, folder / CONFIG_FILE))
    check_header(weights_file, expected, CONFIG_FILE)
    weights = load_weights(weights_file)
    model = _build(config, header.class_names, folder / CONFIG_FILE)
    model.load_state_dict(weights, strict=False)
    if header.fingerprint not in (None, weights_fingerprint(model)):
        raise InputError(
            f"'{weights_file}' holds other weights than '{CONFIG_FILE}' beside it was written for: "
            "it is damaged, or of another model"
        )
    model.familiar_error = header.familiar_error
    return model.to(device).eval()


def check_parts(config: StoredConfig, source: str | Path, class_names: Sequence[str] = ("object",)) -> None:
    """Checks that the parts of a model fit together, by building it without memory and without fetching weights.

    Raises:
        InputError: if they don't; it names `source`, the origin of the config.
    """
    with torch.device("meta"):
        _build(without_pretrained(config), list(class_names), source)


def _build(config: StoredConfig, class_names: list[str], source: str | Path) -> ObjectModel:
    """Builds a model; errors of torch's and timm's layers become one sentence."""
    try:
        return build_model(config, class_names)
    except InputError as error:
        raise InputError(f"'{source}': {error}") from None
    except (RuntimeError, ValueError, AssertionError) as error:
        raise InputError(
            f"'{source}' describes a model whose parts don't fit together ({first_line(error)})"
        ) from None


def _lasting(model: ObjectModel) -> dict[str, Tensor]:
    """Returns the weights that a finished model needs: all except the consistency term's projection head."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("projection.")}


def weights_fingerprint(model: ObjectModel) -> str:
    """Computes a digest of the weights, 16 hex digits: embeddings of models with different digests aren't
    comparable.

    Weights count in half precision, in which models ship, so that a model has the same digest before and after.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(_lasting(model).items()):
        values = tensor.half() if tensor.is_floating_point() else tensor
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def find_model(name_or_dir: str | Path) -> Path:
    """Returns the folder of a model, given a shipped model's name, a folder, a training run, or a name on the Hub.

    Raises:
        InputError: if there is none; as `fetch_model` for names that begin with `hf://`.
    """
    shipped = shipped_models()
    if str(name_or_dir) in shipped:
        return shipped[str(name_or_dir)]
    folder = fetch_model(str(name_or_dir)) if is_on_hub(str(name_or_dir)) else Path(name_or_dir)
    # Unlike Path's, these take names that are too long for any file.
    if os.path.isfile(folder):
        raise InputError(
            f"'{name_or_dir}' is a file: give a model's folder (exported files are for ssdir encode and evaluate)"
        )
    if not os.path.isdir(folder) and (name := str(name_or_dir)) in presets():
        raise InputError(
            f"'{name}' is a preset, which must be trained first: ssdir train {name} --data DATA --out runs/{name}"
            f", then give runs/{name}; trained models: {', '.join(shipped)}"
        )
    if not os.path.isdir(folder):
        hint = nearest(str(name_or_dir), shipped)
        names = ", ".join(shipped) or "none"
        raise InputError(
            f"no model folder {quote(str(name_or_dir), 200)}, nor a shipped model of that name{hint}; "
            f"shipped: {names}"
        )
    if not (folder / CONFIG_FILE).exists() and (folder / "model" / CONFIG_FILE).exists():
        folder = folder / "model"
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if missing and any((folder / stage).is_dir() for stage in ("detector", "representation", "memory")):
        raise InputError(f"'{folder}' is a training that has not ended: go on with ssdir train and --resume")
    if missing:
        raise InputError(
            f"'{folder}' is not a model folder: it has no {' and no '.join(missing)}; give the folder of a run of "
            f"ssdir train, or one of {', '.join(shipped)}"
        )
    return folder


def read_description(name_or_dir: str | Path) -> str:
    """Reads the description that `save_model` was given; for the argument see `load_model`."""
    return read_header(find_model(name_or_dir)).description


def _checked_config(header: ModelHeader, folder: Path) -> StoredConfig:
    source = str(folder / CONFIG_FILE)
    if header.model not in MODELS:
        raise InputError(f"'{source}' is not the config of an ssdir model: 'model' is {quote(header.model)}")
    config = without_pretrained(parse(MODELS[header.model][1], header.config, source=source))
    sizes = (config.image_size, config.latent_dim)
    if sizes != (header.image_size, header.latent_dim):
        raise InputError(
            f"{source}: image_size and latent_dim are {header.image_size} and {header.latent_dim}, but "
            f"{sizes[0]} and {sizes[1]} in its 'config'"
        )
    return config


def random_encoder(model: ObjectModel, seed: int = 0) -> DetectedVAE | None:
    """Builds a floor for the embeddings: the same detector with untrained what and depth encoders.

    None for models without a separate detector (SPACE, SPAIR), and for models whose encoder has no trained
    weights.
    """
    if not isinstance(model, DetectedVAE):
        return None
    with seeded(seed):
        fresh = type(model)(model.config, model.class_names, detector=model.detector)
    return fresh.to(model.device).eval()
