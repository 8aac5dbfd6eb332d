"""Exported models give the same objects, embeddings and appearances as the models, on another engine."""

from __future__ import annotations

import builtins
import dataclasses
import json
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.ops import box_iou
from typer.testing import CliRunner

import ssdir
from ssdir.cli import app
from ssdir.data.image_files import find_images
from ssdir.data.images import read_image, resize
from ssdir.data.readers.splits import SplitName
from ssdir.data.samples import sample_images
from ssdir.data.scatter.generator import ScatterConfig, image_rng, scatter_image
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.device import seeded
from ssdir.errors import InputError, InputWarning
from ssdir.export import quantize
from ssdir.export.metadata import ENCODER_OUTPUTS, ExportedModel
from ssdir.export.onnx import OPSET, export_model
from ssdir.export.runtime import PROVIDERS, OnnxEncoder
from ssdir.inference.engines import load_encoder
from ssdir.inference.files import encode_files
from ssdir.inference.predictor import Predictor
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.decoder import DecoderConfig
from ssdir.models.detected.encoders import AlignedEncoder, AlignedEncoderConfig, PyramidEncoderConfig
from ssdir.models.detected.mixture import MixturePriorConfig
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.refiner import RefinerConfig
from ssdir.models.detector.ssd import AnchorConfig, SSDConfig
from ssdir.models.glimpse_vae import GlimpseEncoderConfig, GlimpseVAE, GlimpseVAEConfig
from ssdir.models.pooled_features import PooledFeatures, PooledFeaturesConfig
from ssdir.models.ssdir import SSDIR, SSDIRConfig
from ssdir.object_arrays import ObjectArrays
from ssdir.store.objects_file import read_objects

pytestmark = pytest.mark.slow

SHIPPED = "tiny-digits"
ATOL = {"z_where": 1e-5, "scores": 1e-5, "z_what": 1e-5, "z_what_scale": 0, "z_depth": 1e-5}
"""How far single precision may drift apart between the engines; integers may not."""


def refused(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 2, result.output
    line = result.stderr.strip()
    assert "\n" not in line
    return str(line)


def assert_same_objects(objects: ObjectArrays, expected: ObjectArrays) -> None:
    assert objects.batch_size == expected.batch_size
    for name in ("image_index", "labels", "anchor_index"):
        np.testing.assert_array_equal(getattr(objects, name), getattr(expected, name), err_msg=name)
        assert getattr(objects, name).dtype == np.int64
    for name, atol in ATOL.items():
        np.testing.assert_allclose(getattr(objects, name), getattr(expected, name), 0, atol, err_msg=name)


@pytest.fixture(scope="session")
def shipped_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / f"{SHIPPED}.onnx"
    result = CliRunner().invoke(app, ["export", SHIPPED, "--out", str(path)])
    assert result.exit_code == 0, result.output
    assert f"next: ssdir encode {path}" in result.stdout
    return path


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Writes scattered digits at four sizes, two of them in frames that aren't square, and a blank image."""
    folder, glyphs = tmp_path_factory.mktemp("digits"), load_glyphs("digits", "test")
    paths = []
    for index, (canvas, frame) in enumerate(
        [(128, (128, 128)), (96, (96, 96)), (200, (200, 260)), (128, (400, 150))]
    ):
        config = ScatterConfig(canvas=canvas, grids=(2, 3))
        scattered = scatter_image(glyphs, config, image_rng(0, "test", index)).image
        framed = np.zeros((*frame, 3), dtype=np.uint8)
        framed[:canvas, :canvas] = scattered if scattered.ndim == 3 else scattered[..., None]
        paths.append(folder / f"{index}.png")
        Image.fromarray(framed).save(paths[-1])
    paths.append(folder / "blank.png")
    Image.new("RGB", (70, 50)).save(paths[-1])
    return paths


# Encoders ------------------------------------------------------------------------------------------------


def test_onnx_detects_what_torch_detects(shipped_onnx: Path, digits: list[Path]) -> None:
    (batch,) = encode_files(OnnxEncoder(shipped_onnx, "cpu"), digits)
    expected = ssdir.load(SHIPPED, "cpu").encode([str(path) for path in digits]).to_arrays()
    assert (expected.counts[:4] >= 2).all()
    assert expected.counts[4] == 0
    assert_same_objects(batch.objects, expected)


def test_images_of_any_size_are_resized_inside(shipped_onnx: Path, digits: list[Path]) -> None:
    encoder, model = OnnxEncoder(shipped_onnx, "cpu"), ssdir.load(SHIPPED, "cpu")
    assert encoder.device == "cpu"
    for path in digits:
        objects = encoder.encode_pixels(read_image(path)[None])
        expected = model.encode(path).to_arrays()
        np.testing.assert_array_equal(objects.anchor_index, expected.anchor_index)
        # The reader's pixels differ by up to 1/255.
        np.testing.assert_allclose(objects.boxes, expected.boxes, 0, 0.005)


def test_batches_of_every_size(shipped_onnx: Path, digits: list[Path]) -> None:
    encoder = OnnxEncoder(shipped_onnx, "cpu")
    pixels = np.stack([resize(read_image(path), 128, 128) for path in digits])
    together = encoder.encode_pixels(pixels)
    alone = [encoder.encode_pixels(image[None]) for image in pixels]
    assert together.counts.tolist() == [len(objects) for objects in alone]
    z_what = [objects.z_what for objects in alone if objects.z_what is not None]
    assert together.z_what is not None
    np.testing.assert_allclose(together.z_what, np.concatenate(z_what), 0, 1e-5)
    assert len(encoder.encode_pixels(pixels[-1:])) == 0
    assert encoder.encode_pixels(pixels[:0]).batch_size == 0


def test_threshold_is_the_models_unless_given(shipped_onnx: Path, digits: list[Path]) -> None:
    encoder, predictor = OnnxEncoder(shipped_onnx, "cpu"), ssdir.load(SHIPPED, "cpu")
    pixels = resize(read_image(digits[0]), 128, 128)[None]
    default = encoder.encode_pixels(pixels)
    assert default.scores is not None
    assert_same_objects(encoder.encode_pixels(pixels, predictor.model.score_threshold), default)
    least = float(default.scores.min())  # An object has a score of at least the threshold.
    assert len(encoder.encode_pixels(pixels, least)) == len(default)
    assert len(encoder.encode_pixels(pixels, np.nextafter(np.float32(least), np.float32(1)))) == len(default) - 1
    for threshold in (0.0, 0.02, 1.0):
        expected = predictor.encode_pixels(pixels, threshold)
        assert len(encoder.encode_pixels(pixels, threshold)) == len(expected)


def detector_config(**changes: Any) -> SSDConfig:
    return SSDConfig(
        image_size=64,
        backbone=ConvConfig(channels=(8, 16, 16), num_levels=2, top_down=16),
        anchors=AnchorConfig(min_sizes=(8, 24), max_sizes=(24, 56)),
        score_threshold=0.6,
    ).model_copy(update=changes)


def per_cell() -> SSDIR:
    """Builds the paper's model: it has a latent per cell, and no suppression."""
    detector = detector_config(nms=False, max_objects=7)
    decoder = DecoderConfig(stem=16, channels=(16, 8, 8), alpha=False)
    encoder = PyramidEncoderConfig(latent_dim=8, num_hidden=1, hidden_channels=16)
    return SSDIR(SSDIRConfig(ssd=detector, encoder=encoder, decoder=decoder), ["cat", "dog", "eel"])


def all_levels() -> SSDIR:
    """Builds a model that embeds objects from every stage of a copied backbone, with the interpolating decoder."""
    encoder = AlignedEncoderConfig(
        latent_dim=8, samples=8, levels="all", num_downsamples=2, hidden_channels=8, mlp_channels=16
    )
    decoder = DecoderConfig(upsampling="bilinear", stem=16, grid=2, channels=(16, 8), alpha=True, norm=True)
    config = SSDIRConfig(ssd=detector_config(), clone_backbone=True, encoder=encoder, decoder=decoder)
    return SSDIR(config, ["cat", "dog", "eel"])


def refined() -> SSDIR:
    """Builds a model whose refiner moves, enlarges and labels boxes, so that some are suppressed.

    Embeddings read the refiner's features, too.
    """
    decoder = DecoderConfig(stem=16, channels=(16, 8, 8), alpha=True)
    encoder = AlignedEncoderConfig(
        latent_dim=8, samples=4, refiner_features=True, hidden_channels=8, mlp_channels=16
    )
    detector = detector_config(refiner=RefinerConfig(size=3, channels=8, hidden=8))
    model = SSDIR(SSDIRConfig(ssd=detector, encoder=encoder, decoder=decoder), ["cat", "dog", "eel"])
    assert model.detector.refiner is not None
    last = model.detector.refiner.net[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        nn.init.normal_(last.weight)
        last.weight[4:] *= 8  # of classes; some become too unsure to stay
        nn.init.constant_(last.bias, 3.0)
    return model


def glimpses() -> GlimpseVAE:
    encoder = GlimpseEncoderConfig(latent_dim=8, glimpse_size=16, channels=(8, 8), mlp_channels=16)
    decoder = DecoderConfig(stem=16, channels=(16, 8, 8), alpha=True)
    config = GlimpseVAEConfig(ssd=detector_config(), encoder=encoder, decoder=decoder)
    return GlimpseVAE(config, ["cat", "dog", "eel"])


def mixture() -> GlimpseVAE:
    """Builds a model with a mixture prior.

    The prior is not part of the file: its classes follow from the embeddings and the model's folder.
    """
    model = glimpses()
    prior = MixturePriorConfig(kind="mixture", components=3, heads=2)
    return GlimpseVAE(model.config.model_copy(update={"prior": prior}), model.class_names)


def normalised() -> SSDIR:
    """Builds a model on a partly frozen network of timm with its own normalisation."""
    backbone = TimmConfig(name="test_resnet", frozen_stages=2, frozen_norm=True, num_levels=2, top_down=16)
    encoder = AlignedEncoderConfig(latent_dim=8, samples=4, hidden_channels=8, mlp_channels=16)
    decoder = DecoderConfig(stem=16, channels=(16, 8, 8), alpha=True)
    config = SSDIRConfig(
        ssd=detector_config(backbone=backbone, score_threshold=0.4), encoder=encoder, decoder=decoder
    )
    return SSDIR(config, ["cat", "dog", "eel"])


def pretrained_stages() -> SSDIR:
    """Builds a model that embeds objects from frozen stages of a network, by RoIAlign and a linear map, too."""
    backbone = TimmConfig(name="test_efficientnet", num_levels=2, top_down=16, neck_depth=1)
    encoder = AlignedEncoderConfig(
        latent_dim=8, features="pretrained", samples=4, hidden_channels=8, mlp_channels=16
    )
    decoder = DecoderConfig(stem=16, channels=(16, 8, 8), alpha=True)
    ssd = detector_config(backbone=backbone, score_threshold=0.3)
    model = SSDIR(SSDIRConfig(ssd=ssd, encoder=encoder, decoder=decoder), ["cat", "dog", "eel"])
    assert isinstance(model.encoder, AlignedEncoder)
    assert model.encoder.pooled is not None
    return model


def loud(build: Callable[[], DetectedVAE]) -> DetectedVAE:
    """Builds an untrained model whose class scores are large enough to detect objects in noise."""
    with seeded(0):
        model = build()
    with torch.no_grad():
        for head in model.detector.class_heads:
            assert isinstance(head, nn.Conv2d)
            head.weight *= 8
    return model.eval()


@pytest.mark.parametrize(
    "build", [per_cell, all_levels, refined, glimpses, mixture, normalised, pretrained_stages]
)
def test_every_kind_and_option(
    build: Callable[[], DetectedVAE], picture: NDArray[np.uint8], tmp_path: Path
) -> None:
    model, path = loud(build), tmp_path / "m.onnx"
    export_model(model, path)
    pixels = np.stack([resize(image, 64, 64) for image in (picture, np.zeros_like(picture), picture[::-1])])
    expected = Predictor(model).encode_pixels(pixels).to_arrays()
    assert expected.counts.max() > 1
    if model.detector.refiner is not None:
        seen = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        assert len(expected.scores) < len(model.detector.select(model.detector(seen)[1]))
    if not model.config.ssd.nms:
        assert expected.counts.max() == 7
    assert_same_objects(OnnxEncoder(path, "cpu").encode_pixels(pixels), expected)


def test_the_file_has_metadata_of_the_model(shipped_onnx: Path) -> None:
    exported = OnnxEncoder(shipped_onnx).exported
    model = ssdir.load(SHIPPED, "cpu").model
    assert exported == ExportedModel(
        part="encoder",
        kind="SSDIR",
        description="class-agnostic, scattered scikit-learn digits at 128x128",
        class_names=["object"],
        image_size=128,
        latent_dim=256,
        score_threshold=model.score_threshold,
        nms_threshold=0.45,
        max_objects=200,
        ssdir_version=ssdir.__version__,
        fingerprint=ssdir.load(SHIPPED, "cpu").fingerprint,
    )
    proto = onnx.load(shipped_onnx)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": OPSET}
    axes = [axis.dim_param or axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["images", "height", "width", 3]


def test_torch_program(tmp_path: Path, picture: NDArray[np.uint8]) -> None:
    model, path = loud(glimpses), tmp_path / "m.pt2"
    export_model(model, path, pt2=True)
    extra = {"ssdir": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["ssdir"])["kind"] == "GlimpseVAE"
    images = np.stack([resize(image, 64, 64) for image in (picture, picture[::-1], picture[:, ::-1])])
    for count in (1, 3):
        outputs = program.module()(torch.from_numpy(images[:count]), torch.tensor(0.6))
        expected = Predictor(model).encode_pixels(images[:count])
        assert len(expected) > count
        for name, values in zip(ENCODER_OUTPUTS, outputs, strict=True):
            torch.testing.assert_close(values, getattr(expected, name), msg=name)


# Eight bits ----------------------------------------------------------------------------------------------


def scatter(split: SplitName, count: int) -> NDArray[np.uint8]:
    glyphs, config = load_glyphs("digits", split), ScatterConfig(canvas=128)
    grey = [scatter_image(glyphs, config, image_rng(0, split, index)).image for index in range(count)]
    return np.stack([read_image(image) for image in grey])


def weights_of_convolutions(path: Path) -> int:
    """Returns the bytes of the weights of all convolutions in single precision."""
    graph = onnx.load(path).graph
    names = {name for node in graph.node if node.op_type == "Conv" for name in node.input}
    return 4 * sum(math.prod(each.dims) for each in graph.initializer if each.name in names)


def test_int8_stays_close(shipped_onnx: Path, tmp_path: Path) -> None:
    for index, image in enumerate(scatter("train", 24)):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    path = tmp_path / "int8.onnx"
    quantize.quantize_encoder(shipped_onnx, path, find_images([tmp_path]))
    saved = shipped_onnx.stat().st_size - path.stat().st_size
    assert saved > 0.7 * weights_of_convolutions(shipped_onnx), "int8 saves three of four bytes, less the scales"
    single, eight = OnnxEncoder(shipped_onnx, "cpu"), OnnxEncoder(path, "cpu")
    assert eight.exported == single.exported.model_copy(update={"precision": "int8"})

    pixels = scatter("test", 12)
    expected, quantised = single.encode_pixels(pixels), eight.encode_pixels(pixels)
    assert len(expected) > 50
    assert abs(len(quantised) - len(expected)) <= 0.02 * len(expected)
    same_image = expected.image_index[:, None] == quantised.image_index
    iou = box_iou(torch.from_numpy(expected.boxes), torch.from_numpy(quantised.boxes)).numpy() * same_image
    match, overlap = iou.argmax(axis=1), iou.max(axis=1)
    assert (overlap > 0.5).mean() > 0.98
    assert overlap.mean() > 0.95
    assert expected.z_what is not None
    assert quantised.z_what is not None
    difference = np.linalg.norm(expected.z_what - quantised.z_what[match], axis=1)
    relative = difference / np.linalg.norm(expected.z_what, axis=1)
    assert 0 < np.median(relative) < 0.1


class Clamped(nn.Module):
    """Two convolutions around a ReLU6, one channel of whose inputs reaches far beyond 6."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)
        self.first.weight.data[0] *= 1000

    def forward(self, images: Tensor) -> Tensor:
        return self.second(nn.functional.relu6(self.first(images.permute(0, 3, 1, 2) / 255)))  # type: ignore[no-any-return]


def test_int8_scales_by_the_range_after_relu6(shipped_onnx: Path, tmp_path: Path) -> None:
    single, eight = tmp_path / "single.onnx", tmp_path / "int8.onnx"
    with seeded(0):
        batch = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8)
        torch.onnx.export(Clamped().eval(), (batch,), str(single), input_names=["images"], dynamo=True)
    quantize._quantize(single, eight, [batch.numpy()], OnnxEncoder(shipped_onnx, "cpu").exported, 0)
    expected, quantised = (
        onnxruntime.InferenceSession(path).run(None, {"images": batch.numpy()})[0] for path in (single, eight)
    )
    assert 0 < np.linalg.norm(quantised - expected) < 0.05 * np.linalg.norm(expected)


def test_int8_leaves_first_convolutions_until_the_objects_agree(
    shipped_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(scatter("train", 1)[0]).save(tmp_path / "a.png")
    answers = iter([False, True])
    monkeypatch.setattr(quantize, "agree", lambda *objects: next(answers))
    path = shutil.copyfile(shipped_onnx, tmp_path / "m.onnx")
    images = find_images([tmp_path])
    assert quantize.quantize_encoder(path, path, images) == quantize.Quantized(2, agrees=True)
    # A convolution in int8 has its weights dequantised.
    nodes = onnx.load(path).graph.node
    eight = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
    single = [node.name for node in nodes if node.op_type == "Conv" and node.input[1] not in eight]
    assert single == [node.name for node in onnx.load(shipped_onnx).graph.node if node.op_type == "Conv"][:2]
    monkeypatch.setattr(quantize, "agree", lambda *objects: False)
    path = shutil.copyfile(shipped_onnx, tmp_path / "m.onnx")
    assert quantize.quantize_encoder(path, path, images) == quantize.Quantized(4, agrees=False)


def test_what_agrees_in_int8() -> None:
    def detections(boxes: list[list[float]], images: list[int]) -> ObjectArrays:
        return ObjectArrays(np.array(images), 2, np.array(boxes, np.float32).reshape(-1, 4))

    none, one = detections([], []), detections([[0.5, 0.5, 0.4, 0.4]], [0])
    assert quantize.agree([one, none], [one, none])
    assert quantize.agree([none], [none])
    assert not quantize.agree([none], [one])
    assert not quantize.agree([one], [none])
    assert not quantize.agree([one], [detections([[0.5, 0.5, 0.4, 0.4]], [1])])  # in another image
    assert not quantize.agree(
        [one], [detections([[0.5, 0.5, 0.4, 0.4], [0.2, 0.2, 0.1, 0.1]], [0, 0])]
    )  # a phantom
    assert not quantize.agree([one], [detections([[0.52, 0.5, 0.4, 0.4]], [0])])  # 0.90 IoU
    assert quantize.agree([one], [detections([[0.501, 0.5, 0.4, 0.4]], [0])])
    cat, dog = (dataclasses.replace(one, labels=np.array([label])) for label in (0, 1))
    assert quantize.agree([cat], [cat])
    assert not quantize.agree([cat], [dog])


def test_int8_refusals(tmp_path: Path, shipped_onnx: Path) -> None:
    out = tmp_path / "m.onnx"
    assert "--calibrate go together" in refused("export", SHIPPED, "--out", out, "--int8")
    assert "--calibrate go together" in refused("export", SHIPPED, "--out", out, "--calibrate", tmp_path)
    eight = ("--int8", "--calibrate", tmp_path)
    assert "for encoders in ONNX" in refused("export", SHIPPED, "--out", out, *eight, "--part", "decoder")
    assert "contains no images" in refused("export", SHIPPED, "--out", out, *eight)
    Image.new("RGB", (64, 64)).save(tmp_path / "blank.png")
    with pytest.raises(InputError, match="detects nothing in the 1 images to calibrate by"):
        quantize.quantize_encoder(shipped_onnx, out, [tmp_path / "blank.png"])
    assert not out.exists()


# Decoders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [per_cell, all_levels, glimpses])
def test_decoder(build: Callable[[], DetectedVAE], tmp_path: Path) -> None:
    model, path = loud(build), tmp_path / "decoder.onnx"
    export_model(model, path, "decoder")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (0, 1, 5):
        z_what = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = [tensor for tensor in model.decoder(z_what) if tensor is not None]
        decoded = session.run(None, {"z_what": z_what.numpy()})
        assert [output.name for output in session.get_outputs()] == ["appearances", "alpha"][: len(expected)]
        for picture, tensor in zip(decoded, expected, strict=True):
            np.testing.assert_allclose(picture, tensor.numpy(), 0, 1e-5)
    with pytest.raises(InputError, match="holds a decoder"):
        OnnxEncoder(path)


# The command line ----------------------------------------------------------------------------------------


def test_encoding_by_onnx_needs_no_torch(shipped_onnx: Path, digits: list[Path], tmp_path: Path) -> None:
    by_onnx, by_torch = tmp_path / "onnx.parquet", tmp_path / "torch.parquet"
    code = (
        "import sys\n"
        "from ssdir.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'onnx', 'onnxscript'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    arguments = ["encode", shipped_onnx, *digits, "--device", "cpu", "--out", by_onnx]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result = CliRunner().invoke(
        app, ["encode", SHIPPED, *map(str, digits), "--device", "cpu", "--out", str(by_torch)]
    )
    assert result.exit_code == 0, result.output
    assert pq.read_schema(by_onnx).equals(pq.read_schema(by_torch))
    objects, images = read_objects(by_onnx)
    expected, same_images = read_objects(by_torch)
    assert images == same_images == [str(path) for path in digits]
    assert_same_objects(objects.to_arrays(), expected.to_arrays())


@pytest.mark.parametrize("build", [per_cell, refined])
def test_a_detector_alone(build: Callable[[], DetectedVAE], picture: NDArray[np.uint8], tmp_path: Path) -> None:
    detector = loud(build).detector
    export_model(detector, tmp_path / "detector.onnx")
    pixels = resize(picture, 64, 64)[None]
    expected = Predictor(detector).encode_pixels(pixels).to_arrays()
    objects = OnnxEncoder(tmp_path / "detector.onnx", "cpu").encode_pixels(pixels)
    assert len(expected) > 1
    assert objects.z_what is None
    np.testing.assert_array_equal(objects.anchor_index, expected.anchor_index)
    np.testing.assert_allclose(objects.z_where, expected.z_where, 0, 1e-5)
    np.testing.assert_allclose(objects.scores, expected.scores, 0, 1e-5)
    with pytest.raises(InputError, match="a detector has no decoder to export"):
        export_model(detector, tmp_path / "decoder.onnx", "decoder")


def test_models_that_cannot_be_exported(tmp_path: Path) -> None:
    model = PooledFeatures(PooledFeaturesConfig(ssd=detector_config()), ["object"])
    with pytest.raises(
        InputError, match="PooledFeatures can't be exported: only SSDIR, GlimpseVAE and detectors can"
    ):
        export_model(model, tmp_path / "m.onnx")


def test_wrong_suffix(tmp_path: Path) -> None:
    assert "must end in .onnx" in refused("export", SHIPPED, "--out", tmp_path / "m.pt2")
    assert "must end in .pt2" in refused("export", SHIPPED, "--format", "torch", "--out", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_packages(
    package: str, shipped_onnx: Path, digits: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == package:
            raise ImportError(name=name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    command: list[object] = (
        ["export", SHIPPED, "--out", tmp_path / "m.onnx"]
        if package == "onnx"
        else ["encode", shipped_onnx, digits[0], "--out", tmp_path / "o.parquet"]
    )
    assert "pip install 'ssdir[export]'" in refused(*command)
    assert list(tmp_path.iterdir()) == []


def test_wrong_files(tmp_path: Path, digits: list[Path], tiny_model_dir: Path) -> None:
    def complaint(model: object, *options: object) -> str:
        return refused("encode", model, digits[0], "--out", tmp_path / "o.parquet", *options)

    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    foreign = onnx.helper.make_model(
        onnx.helper.make_graph([node], "foreign", [x], [y]),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    onnx.save(foreign, tmp_path / "foreign.onnx")
    assert "ssdir did not write" in complaint(tmp_path / "foreign.onnx")
    foreign.metadata_props.add(key="ssdir", value='{"format": 1}')
    onnx.save(foreign, tmp_path / "headless.onnx")
    assert "its metadata: 'part' is missing" in complaint(tmp_path / "headless.onnx")
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "foreign.onnx").read_bytes()[:40])
    assert "damaged or not an ONNX file" in complaint(tmp_path / "cut.onnx")
    assert "does not exist" in complaint(tmp_path / "none.onnx")
    assert "make one with ssdir export" in complaint(tiny_model_dir, "--engine", "onnx")
    assert "leave out --engine torch" in complaint(tmp_path / "foreign.onnx", "--engine", "torch")
    assert "device 'toaster'" in complaint(tmp_path / "foreign.onnx", "--device", "toaster")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        sentence = complaint(tmp_path / "foreign.onnx", "--device", "cuda")
        assert "'cuda' is not available to ONNX Runtime: use cpu, or install onnxruntime-gpu" in sentence
    assert not (tmp_path / "o.parquet").exists()


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_is_not_there_is_not_said_to_be_used(
    shipped_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime lists the providers that it was built with, whether or not they can be loaded."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    if (
        PROVIDERS["cuda"]
        in onnxruntime.InferenceSession(shipped_onnx, providers=[PROVIDERS["cuda"]]).get_providers()
    ):
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"ONNX Runtime can't use the device 'cuda': use cpu, or"):
        OnnxEncoder(shipped_onnx, "cuda")
    assert OnnxEncoder(shipped_onnx).device == "cpu"


def test_engine_is_inferred(shipped_onnx: Path, tiny_model_dir: Path) -> None:
    assert isinstance(load_encoder(str(shipped_onnx)), OnnxEncoder)
    assert isinstance(load_encoder(str(tiny_model_dir), device="cpu"), Predictor)


@pytest.mark.parametrize("in_eight_bits", [False, True])
def test_a_file_that_has_changed_is_remarked_on(shipped_onnx: Path, tmp_path: Path, in_eight_bits: bool) -> None:
    path = tmp_path / "model.onnx"
    if in_eight_bits:
        Image.fromarray(sample_images(1)[0].image).save(tmp_path / "a.png")
        quantize.quantize_encoder(shipped_onnx, path, [tmp_path / "a.png"])
    else:
        shutil.copy(shipped_onnx, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OnnxEncoder(path)
    raw = bytearray(path.read_bytes())
    weights = next(each for each in onnx.load(path).graph.initializer if len(each.raw_data) > 10_000).raw_data
    raw[raw.index(weights) + 1000] ^= 1
    path.write_bytes(raw)
    with pytest.warns(InputWarning, match=r"model\.onnx' has changed since ssdir export wrote it"):
        OnnxEncoder(path)
