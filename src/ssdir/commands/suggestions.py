"""What a user most likely means who types the commands and options of other tools."""

from __future__ import annotations

from collections.abc import Iterable

from ssdir.errors import nearest

_OTHER_NAMES = {
    "encode": "predict infer inference detect embed embeddings extract run",
    "train": "fit learn finetune fine-tune",
    "evaluate": "test eval val validate score metrics",
    "reconstruct": "decode render visualize visualise show plot",
    "models": "list ls presets zoo",
    "studio": "ui gui web app serve gradio",
    "demo": "quickstart tutorial example start",
    "track": "follow mot tracking trackers",
    "search": "find query nearest similar retrieve",
    "data check": "check lint inspect",
    "data scatter": "scatter generate synth",
    "bench": "benchmark profile",
    "export": "onnx",
    "fit": "train learn",
    "predict": "apply",
}
"""Names that other tools have for a command, by the command's words; those of the group at hand count."""

_TRAIN_OVERRIDES = {
    "--epochs": "detector.epochs=3 representation.epochs=3",
    "--epoch": "detector.epochs=3 representation.epochs=3",
    "--lr": "detector.lr=1e-3",
    "--learning-rate": "detector.lr=1e-3",
    "--batch-size": "detector.batch_size=16 representation.batch_size=16",
    "--batch": "detector.batch_size=16 representation.batch_size=16",
    "--seed": "seed=1",
    "--stage": "stage=detector",
    "--image-size": "model.ssd.image_size=256",
    "--imgsz": "model.ssd.image_size=256",
    "--optimizer": "detector.optimizer=adamw",
    "--weights": "model.ssd.backbone.weights=hub",
    "--classes": "classes=object",
}
"""Overrides of a recipe, by the option that other tools have for them."""


def suggest_command(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'encode'?"`` for a command that does not exist, or ``""``.

    Args:
        name: what was typed.
        known: the commands of the group.
    """
    names = list(known)
    if name == "help":
        return "; did you mean '--help'?"
    for words, others in _OTHER_NAMES.items():
        if name.lower() in others.split() and words.split()[0] in names:
            return f"; did you mean '{words}'?"
    return nearest(name, names)


def suggest_option(command: str, option: str, known: Iterable[str]) -> str:
    """Returns the end of a sentence that says what to write instead of an unknown option, or ``""``.

    Args:
        command: name of the command.
        option: what was typed.
        known: the command's options.
    """
    if command == "train" and (override := _TRAIN_OVERRIDES.get(option.partition("=")[0])):
        return f"; a recipe is changed by KEY=VALUE: {override}"
    return nearest(option, [name for name in known if name.startswith("--")], cutoff=0.7)
