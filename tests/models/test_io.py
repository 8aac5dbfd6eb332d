from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ssdir
from ssdir.cli import app
from ssdir.device import seeded
from ssdir.errors import InputError
from ssdir.models.detected.consistency import ConsistencyConfig
from ssdir.models.detector.refiner import RefinerConfig
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import (
    load_model,
    random_encoder,
    save_model,
    weights_fingerprint,
)
from ssdir.models.shipped import model_cards, model_source, shipped_models

from .tiny import NAMES, SIZE, assert_same_objects, detector_config, noise, tiny_detector, tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo") / "model"
    save_model(tiny_model(), folder, "a test")
    return folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": False, "clone_backbone": True},
        {"encoder": {"kind": "aligned", "samples": 4}, "clone_backbone": True},
        {"encoder": {"kind": "aligned", "samples": 4, "levels": "all"}, "clone_backbone": True},
        {"consistency": ConsistencyConfig(weight=1)},
        {"background": "learned"},
    ],
)
def test_a_saved_model_comes_back_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    model, images = tiny_model(**options), noise(2)
    save_model(model, tmp_path / "deep" / "model")
    loaded = load_model(tmp_path / "deep" / "model")
    assert not loaded.training
    assert loaded.class_names == NAMES
    assert loaded.config == model.config
    header = json.loads((tmp_path / "deep" / "model" / "config.json").read_text())
    assert (header["image_size"], header["latent_dim"]) == (model.image_size, model.latent_dim)
    objects = model.encode(images)
    assert len(objects) > 0
    assert_same_objects(loaded.encode(images), objects, atol=0)
    assert torch.equal(loaded.decode(objects).reconstructions, model.decode(objects).reconstructions)


def test_a_detector_is_a_model_that_has_no_embeddings(tmp_path: Path) -> None:
    detector = tiny_detector(score_threshold=0.1, refiner=RefinerConfig(size=3, channels=4, hidden=4))
    save_model(detector, tmp_path / "ssd")
    loaded = load_model(tmp_path / "ssd")
    assert isinstance(loaded, SSD)
    assert (loaded.config, loaded.class_names) == (detector.config, NAMES)
    objects = loaded.encode(noise(2))
    assert len(objects) > 0
    assert objects.z_what is None
    assert_same_objects(objects, detector.encode(noise(2)), atol=0)
    predictor = ssdir.load(tmp_path / "ssd", "cpu")
    assert_same_objects(predictor.encode(noise(2)), objects)
    with pytest.raises(InputError, match="the model is a detector: it gives no embeddings of boxes"):
        predictor.encode(noise(1), boxes=objects[:0].replace(batch_size=1))
    with pytest.raises(InputError, match="SSD has no decoder"):
        predictor.decode(objects)
    Image.new("RGB", (SIZE, SIZE)).save(tmp_path / "a.png")
    options = [str(tmp_path / "ssd"), str(tmp_path / "a.png"), "--out", str(tmp_path / "o.parquet")]
    refusal = CliRunner().invoke(app, ["encode", *options]).stderr
    assert "ssd' is a detector, whose objects have no embeddings" in refusal
    assert refusal.count("\n") == 1


def test_half_precision_halves_the_file_and_hardly_changes_the_model(saved: Path, tmp_path: Path) -> None:
    model, images = tiny_model(), noise(2)
    save_model(model, tmp_path, half=True)
    small, large = ((folder / "model.safetensors").stat().st_size for folder in (tmp_path, saved))
    assert small < 0.55 * large
    loaded = load_model(tmp_path)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} <= {torch.float32, torch.int64}
    assert_same_objects(loaded.encode(images), model.encode(images), atol=0.02)


def test_the_fingerprint_is_that_of_the_weights_in_either_precision(saved: Path, tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "half", half=True)
    model = load_model(saved)
    assert weights_fingerprint(model) == weights_fingerprint(load_model(tmp_path / "half"))
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    assert weights_fingerprint(model) != weights_fingerprint(load_model(saved))


def test_files_are_json_and_safetensors_alone(saved: Path) -> None:
    assert {file.name for file in saved.iterdir()} == {"config.json", "model.safetensors"}
    header = json.loads((saved / "config.json").read_text())
    assert header["class_names"] == NAMES
    assert header["description"] == "a test"


def test_the_message_for_what_is_no_model_states_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    with pytest.raises(InputError, match="is a file: give a model's folder"):
        load_model(tmp_path / "model.onnx")
    for stage in ("detector", "representation"):  # SPAIR's and SPACE's have the latter alone
        (tmp_path / stage / stage).mkdir(parents=True)
        with pytest.raises(
            InputError, match="is a training that has not ended: go on with ssdir train and --resume"
        ):
            load_model(tmp_path / stage)


def test_a_run_folder_is_taken_for_the_model_in_it(saved: Path) -> None:
    assert load_model(saved.parent).class_names == NAMES


def edit_header(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return edit


def edit_config(folder: Path) -> None:
    file = folder / "config.json"
    header = json.loads(file.read_text())
    header["config"]["encoder"]["latent_dims"] = 3
    file.write_text(json.dumps(header))


def cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def drop_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    del weights["decoder.stem.weight"]
    save_file(weights, file)


def add_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), "foreign": torch.zeros(2)}, file)


def reshape_weight(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["decoder.stem.bias"] = torch.zeros(5)
    save_file(weights, file)


def one_level_too_few(folder: Path) -> None:
    file = folder / "config.json"
    header = json.loads(file.read_text())
    header["config"]["ssd"]["anchors"].update(min_sizes=[8], max_sizes=[24])
    file.write_text(json.dumps(header))


def set_in_config(path: str, value: Any) -> Callable[[Path], None]:
    """Changes one value of the config, by its dotted path."""

    def edit(folder: Path) -> None:
        file = folder / "config.json"
        header = json.loads(file.read_text())
        *parents, last = path.split(".")
        inner = header
        for part in parents:
            inner = inner[part]
        inner[last] = value
        file.write_text(json.dumps(header))

    return edit


CHANNELS, MIN_SIZES = "config.ssd.backbone.channels", "config.ssd.anchors.min_sizes"


def spoil_weight(value: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        weights = load_file(file)
        weights["decoder.stem.bias"][1] = value
        save_file(weights, file)

    return spoil


def whole_numbers(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["decoder.stem.bias"] = weights["decoder.stem.bias"].long()
    save_file(weights, file)


def rewrite_weights_header(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Changes the JSON at the beginning of the safetensors file, and none of the weights."""

    def rewrite(folder: Path) -> None:
        file = folder / "model.safetensors"
        raw = file.read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + size])
        change(header)
        text = json.dumps(header).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + size :])

    return rewrite


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "cut weights": (cut_weights, "is damaged or not a safetensors file"),
    "garbage weights": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 999), "is damaged or not"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "is damaged or not"),
    "missing tensor": (drop_weight, "does not fit.*decoder.stem.weight"),
    "foreign tensor": (add_weight, "does not fit.*foreign"),
    "other shape": (reshape_weight, "does not fit.*decoder.stem.bias"),
    "garbage config": (lambda f: (f / "config.json").write_text("{"), "not valid JSON at line 1"),
    "binary config": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "is not UTF-8 text"),
    "list config": (lambda f: (f / "config.json").write_text("[]"), "is not the config of an ssdir model"),
    "other model": (edit_header(model="BERT"), "is not the config of an ssdir model"),
    "number for config": (edit_header(config=3), "config"),
    "later format": (edit_header(format=99), "has format 99, this ssdir reads 1: update ssdir"),
    "no class names": (edit_header(class_names=[]), "must be from 1 to 65,536 class names, got 0"),
    "unknown option": (edit_config, "unknown key 'encoder.latent_dims'; did you mean 'latent_dim'"),
    "deep config": (
        lambda f: (f / "config.json").write_text('{"a":' * 200_000),
        "not valid JSON .*too deep",
    ),
    "empty config": (lambda f: (f / "config.json").write_text(""), "not valid JSON"),
    "number for a class": (edit_header(class_names=["cat", 3, "eel"]), "class_names.1' must be text, got 3"),
    "one class twice": (edit_header(class_names=["cat", "eel", "cat"]), "two classes are called 'cat'"),
    "half a character": (edit_header(class_names=["cat", "d\ud83d", "eel"]), "half of a surrogate pair"),
    "long class name": (edit_header(class_names=["cat", "d" * 5000, "eel"]), "1,000 characters, got 'ddd.{1,60}$"),
    "no class": (edit_header(class_names=["", "dog", "eel"]), "class names must have from 1 to"),
    "fewer classes": (edit_header(class_names=["cat", "dog"]), "does not fit.*class_heads"),
    "other image size": (edit_header(image_size=32), "image_size and latent_dim are 32 and 6, but 64 and 6"),
    "true for a size": (edit_header(image_size=True), "image_size' must be a whole number"),
    "ten million latents": (
        set_in_config("config.encoder.latent_dim", 10**7),
        "latent_dim' must be at most",
    ),
    "negative channels": (
        set_in_config(CHANNELS, [8, -12, 16]),
        "must be at least 1, got -12",
    ),
    "no channels": (set_in_config(CHANNELS, []), "must have at least 1 entry"),
    "ten thousand stages": (set_in_config(CHANNELS, [8] * 10_000), "must have at most 32 entries"),
    "other channels": (set_in_config(CHANNELS, [8, 12, 16_000]), "does not fit"),
    "huge images": (set_in_config("config.ssd.image_size", 10**9), "image_size' must be at most 4096"),
    "huge feature maps": (
        set_in_config("config.ssd", {"image_size": 4096, "backbone": {"kind": "conv", "channels": [9000]}}),
        "more than 268,435,456 values",
    ),
    "huge decoded objects": (
        set_in_config("config.decoder.channels", [12] * 20),
        "objects of 1048576 pixels would be decoded, at most 1024 can be",
    ),
    "anchors that are no number": (
        set_in_config(MIN_SIZES, [float("nan"), 8]),
        "finite",
    ),
    "weight that is no number": (
        spoil_weight(float("nan")),
        "holds NaN or infinity .in tensor 'decoder.st",
    ),
    "infinite weight": (spoil_weight(float("inf")), "holds NaN or infinity .in tensor 'decoder.st"),
    "whole numbers for weights": (whole_numbers, "does not fit.*decoder.stem.bias' is of type I64"),
    "shape beyond the file": (
        rewrite_weights_header(lambda header: header["decoder.stem.bias"].update(shape=[10**12])),
        "is damaged or not a safetensors file",
    ),
    "offsets beyond the file": (
        rewrite_weights_header(lambda header: header["decoder.stem.bias"].update(data_offsets=[0, 10**15])),
        "is damaged or not a safetensors file",
    ),
    "no type": (
        rewrite_weights_header(lambda header: header["decoder.stem.bias"].update(dtype="F31")),
        "is damaged or not a safetensors file",
    ),
    "length beyond the file": (
        lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}"),
        "is damaged or not a safetensors file",
    ),
    "fewer anchors": (one_level_too_few, "one per pyramid level"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_foreign_files_are_one_sentence(damage: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    do, message = DAMAGES[damage]
    do(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_sizes_are_compared_before_anything_is_built(saved: Path, tmp_path: Path) -> None:
    """The config asks for 2 GB of channels, within its bounds; the file has none of them."""
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    set_in_config(CHANNELS, [8, 12, 16_384])(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="does not fit"):
        load_model(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_class_names_are_checked_before_a_training() -> None:
    with pytest.raises(InputError, match="two classes are called 'cat': rename one of them"):
        SSD(detector_config(), ["cat", "dog", "cat"])


def test_unknown_names_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model folder 'nowhere', nor a shipped model of that name"):
        load_model("nowhere")
    with pytest.raises(
        InputError, match="'tiny' is a preset, which must be trained first: ssdir train tiny --data DATA"
    ):
        load_model("tiny")
    with pytest.raises(InputError, match=r"has no config\.json and no model\.safetensors"):
        load_model(tmp_path)


def test_a_shipped_model_keeps_its_name_beside_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [*shipped_models(), "mine"]:
        Path(name).mkdir()
        assert model_source(name) == (name if name != "mine" else str(tmp_path.resolve() / "mine"))
    assert model_source("hf://someone/model") == "hf://someone/model"


def test_shipped_models_load() -> None:
    for card in model_cards():
        model = load_model(card.name)
        used = {name: tensor.numel() for name, tensor in model.state_dict().items()}
        assert sum(n for name, n in used.items() if not name.startswith("projection")) == card.parameters
        assert model.class_names == card.classes
        assert (model.image_size, model.latent_dim) == (card.image_size, card.latent_dim)


@pytest.mark.parametrize("encoder", [{}, {"kind": "aligned", "samples": 4}])
@pytest.mark.parametrize("clone", [False, True])
def test_random_encoder_keeps_the_detector_alone(clone: bool, encoder: dict[str, Any]) -> None:
    model, images = tiny_model(clone_backbone=clone, encoder=encoder), noise(2)
    if model.backbone is not None:
        with torch.no_grad():  # as if trained
            for parameter in model.backbone.parameters():
                parameter.add_(0.1)
    floor, again = random_encoder(model, seed=3), random_encoder(model, seed=3)
    baseline_objects, objects = floor.encode(images), model.encode(images)
    assert torch.equal(baseline_objects.z_where, objects.z_where)
    assert baseline_objects.z_what is not None
    assert not torch.allclose(baseline_objects.z_what, objects.z_what)  # type: ignore[arg-type]
    assert_same_objects(baseline_objects, again.encode(images), atol=0)


def test_seeding_leaves_the_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with seeded(7):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(7):
        assert torch.equal(torch.rand(3), inside)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        next(iter(model.parameters())).flatten()[0] = 1e5
    save_model(model, tmp_path / "single")
    with pytest.raises(InputError, match="not finite in half precision, so the model is not saved"):
        save_model(model, tmp_path / "half", half=True)
    with torch.no_grad():
        next(iter(model.parameters())).flatten()[0] = float("nan")
    with pytest.raises(InputError, match=r"not finite, so the model is not saved"):
        save_model(model, tmp_path / "none")
    assert not (tmp_path / "none" / "model.safetensors").exists()


def test_a_flipped_bit_of_the_weights_is_noticed(saved: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(saved, tmp_path / "model")
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-2] ^= 1  # of the last weight's upper bits
    file.write_bytes(raw)
    with pytest.raises(InputError, match=r"holds other weights than 'config\.json' beside it was written for"):
        load_model(folder)
