"""Exports models as one file for other runtimes: ONNX, or a `torch.export` program."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from ssdir.data.letterbox import PADDING
from ssdir.errors import InputError, InputWarning
from ssdir.export.metadata import (
    CHECKSUM_KEY,
    DECODER_INPUTS,
    DECODER_OUTPUTS,
    DETECTOR_OUTPUTS,
    ENCODER_INPUTS,
    ENCODER_OUTPUTS,
    METADATA_KEY,
    NO_CHECKSUM,
    ExportedModel,
    Part,
    write_checksum,
)
from ssdir.models.base import ObjectModel, TemporalModel
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import weights_fingerprint
from ssdir.objects import Objects
from ssdir.ops.boxes import clip_cxcywh, decode_boxes, to_xyxy
from ssdir.ops.resize import letterbox_area, resize_area
from ssdir.ops.suppression import suppress, suppress_refined

if TYPE_CHECKING:
    import onnx

OPSET = 18
"""Version of ONNX's operators that torch's exporter writes without conversion."""

_EMBEDDING = [name for name in ENCODER_OUTPUTS if name not in DETECTOR_OUTPUTS]


class ExportedEncoder(nn.Module):
    """The `encode` method of a detector or of a VAE, from 8-bit pixels to arrays, in a form that can be traced.

    Boxes are decoded for all anchors, and suppressed in one operator; it detects the same objects as the model.

    Args:
        model: the model, in evaluation mode, on the CPU.
    """

    def __init__(self, model: SSD | DetectedVAE) -> None:
        super().__init__()
        self.model = model
        self.detector = model if isinstance(model, SSD) else model.detector

    def forward(self, images: Tensor, score_threshold: Tensor) -> tuple[Tensor, ...]:
        """Detects and embeds objects.

        Args:
            images: uint8 (B, H, W, 3), RGB, of any size.
            score_threshold: float (), minimum score.

        Returns:
            The fields `ENCODER_OUTPUTS` of `Objects`, packed; those of `DETECTOR_OUTPUTS` for a detector.
        """
        detector = self.detector
        pixels = rearrange(images, "b h w c -> b c h w").float() / 255
        if self.model.resize == "stretch":
            seen, shares = resize_area(pixels, self.model.image_size), None
        else:
            seen, shares = letterbox_area(pixels, self.model.image_size, PADDING / 255)
        maps = detector.read(seen)
        detections = detector.heads(detector.pyramid(maps))
        confidence, labels = detector.confidence(detections.class_logits)
        z_where = clip_cxcywh(decode_boxes(detections.box_deltas, detector.anchors, detector.config.variances))
        present = (confidence >= score_threshold) & (z_where[..., 2:] > 0).all(dim=-1)
        selected = suppress(
            to_xyxy(z_where),
            torch.where(present, confidence, -1.0),
            detector.config.suppress_above,
            detector.config.max_objects,
        )
        rows = image_index, anchor_index = selected.unbind(dim=1)
        B = images.shape[0]  # `len` would make it a constant of the graph.
        objects = Objects(image_index, B, z_where[rows], confidence[rows], labels[rows], anchor_index=anchor_index)
        if detector.refiner is not None:
            objects = detector.refine(maps, objects)
            objects = objects[self._keep(objects, score_threshold)]
        outputs = {name: getattr(objects, name) for name in DETECTOR_OUTPUTS}
        if isinstance(self.model, DetectedVAE):
            what_loc, depth_loc = self.model.posterior(objects, seen, maps)
            what_scale = torch.full_like(what_loc, self.model.config.encoder.what_scale)
            outputs |= dict(zip(_EMBEDDING, (what_loc, what_scale, depth_loc), strict=True))
        if shares is not None:  # The arithmetic of `Letterbox.to_image`.
            inside = (objects.z_where[:, :2] < shares).all(dim=1).nonzero()[:, 0]
            outputs["z_where"] = clip_cxcywh(objects.z_where / shares.repeat(2))
            outputs = {name: values[inside] for name, values in outputs.items()}
        return tuple(outputs.values())

    def _keep(self, objects: Objects, score_threshold: Tensor) -> Tensor:
        """Returns the rows that remain after refinement, in the order of `SSD.detect`."""
        assert objects.scores is not None
        scores = torch.where(objects.scores >= score_threshold, objects.scores, -1.0)
        threshold = self.detector.config.suppress_above
        return suppress_refined(to_xyxy(objects.z_where), scores, objects.image_index, threshold)


def export_model(
    model: ObjectModel, path: str | Path, part: Part = "encoder", description: str = "", *, pt2: bool = False
) -> None:
    """Writes a model, or its decoder, as one file.

    Args:
        model: an SSDIR, a GlimpseVAE, or a detector; it is moved to the CPU, and put in evaluation mode.
        path: file to write.
        part: `encoder`: images uint8 (B, H, W, 3) and a score threshold to `ENCODER_OUTPUTS`, the fields of
            `Objects`; `decoder`: `z_what` (M, D) to appearances (M, 3, S, S) and, where there is one, alpha
            (M, 1, S, S).
        description: one line for the metadata.
        pt2: write a `torch.export` program instead of ONNX. Loading an encoder needs `ssdir.ops.suppression` to be
            imported first.

    A memory of tracks is left out, with an `InputWarning`: the file encodes each frame alone.

    Raises:
        InputError: for other models, or if ONNX is asked for but not installed.
    """
    if not isinstance(model, (SSD, DetectedVAE)):
        raise InputError(f"{model.config.kind} can't be exported: only SSDIR, GlimpseVAE and detectors can")
    if part == "decoder" and not isinstance(model, DetectedVAE):
        raise InputError("a detector has no decoder to export: leave out the part")
    if not pt2:
        _check_onnx_installed()
    if part == "encoder" and isinstance(model, TemporalModel) and model.memory_dim:
        message = "the exported file encodes each frame alone: the model's memory of tracks is left out"
        warnings.warn(message, InputWarning, stacklevel=2)
    exported = _metadata(model, part, description)
    with torch.no_grad(), quiet():
        program = _trace(model.cpu().eval(), part)
        if pt2:
            # It is written via memory, because torch ends the whole process if it can't write a file completely.
            buffer = io.BytesIO()
            torch.export.save(program, buffer, extra_files={METADATA_KEY: exported.to_json()})
            Path(path).write_bytes(buffer.getbuffer())
        else:
            _write_onnx(_to_onnx(program, part, exported), path)


def _metadata(model: SSD | DetectedVAE, part: Part, description: str) -> ExportedModel:
    detector = model.config if isinstance(model, SSD) else model.config.ssd
    return ExportedModel(
        part=part,
        kind=type(model).__name__,
        description=description,
        class_names=model.class_names,
        image_size=model.image_size,
        resize=model.resize,
        latent_dim=model.latent_dim,
        score_threshold=model.score_threshold,
        nms_threshold=detector.suppress_above,
        max_objects=detector.max_objects,
        ssdir_version=metadata.version("ssdir"),
        fingerprint=weights_fingerprint(model),
    )


def _trace(model: SSD | DetectedVAE, part: Part) -> ExportedProgram:
    if part == "decoder":
        assert isinstance(model, DetectedVAE)
        z_what = torch.zeros(2, model.latent_dim)
        return torch.export.export(model.decoder, (z_what,), dynamic_shapes=({0: Dim.DYNAMIC},))
    # All sizes of the example differ, because the exporter would treat equal sizes as always equal.
    images = torch.zeros(2, model.image_size + 7, model.image_size + 3, 3, dtype=torch.uint8)
    threshold = torch.tensor(model.score_threshold)
    any_size = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    return torch.export.export(ExportedEncoder(model), (images, threshold), dynamic_shapes=(any_size, None))


def _to_onnx(program: ExportedProgram, part: Part, exported: ExportedModel) -> onnx.ModelProto:
    from onnx import numpy_helper

    inputs = list(ENCODER_INPUTS if part == "encoder" else DECODER_INPUTS)
    outputs = list(exported.encoder_outputs if part == "encoder" else DECODER_OUTPUTS)
    written = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=OPSET,
        input_names=inputs,
        output_names=outputs,
        custom_translation_table={
            torch.ops.ssdir.suppress.default: _suppress_in_onnx,
            torch.ops.aten.group_norm.default: _group_norm_in_onnx,
        },
        verbose=False,
    )
    assert written is not None
    proto = written.model_proto
    proto.metadata_props.add(key=METADATA_KEY, value=exported.to_json())
    proto.metadata_props.add(key=CHECKSUM_KEY, value=NO_CHECKSUM)
    if part == "encoder":
        # An initialiser with the name of an input is its default.
        default = torch.tensor(exported.score_threshold).numpy()
        proto.graph.initializer.append(numpy_helper.from_array(default, "score_threshold"))
        _name_axes(proto.graph.input[0], ("images", "height", "width"))
    else:
        _name_axes(proto.graph.input[0], ("objects",))
    for output in proto.graph.output:
        _name_axes(output, ("objects",))
    return proto


def _name_axes(value: onnx.ValueInfoProto, names: Sequence[str]) -> None:
    for axis, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
        axis.dim_param = name


def _suppress_in_onnx(boxes: Any, scores: Any, iou_threshold: float, max_objects: int) -> Any:
    """`ops.suppression.suppress` in ONNX: one operator thresholds, suppresses, limits and orders."""
    from onnxscript import opset18 as op

    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        op.Constant(value_ints=[max_objects]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[-0.5]),  # Detections that are absent have the score -1.
    )
    # Rows are (image, class, anchor), and there is one class: suppression ignores it.
    return op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)


def _group_norm_in_onnx(maps: Any, num_groups: int, weight: Any, bias: Any, eps: float, cudnn: bool) -> Any:
    """`torch.group_norm` of maps (M, C, h, w) in ONNX; torch's own translation fails for M=0."""
    from onnxscript import opset18 as op

    sizes = op.Constant(value_ints=[num_groups, weight.shape[0] // num_groups])
    shape = op.Concat(op.Shape(maps, end=1), sizes, op.Shape(maps, start=2), axis=0)
    groups, axes = op.Reshape(maps, shape, allowzero=1), op.Constant(value_ints=[2, 3, 4])
    centred = op.Sub(groups, op.ReduceMean(groups, axes))
    variance = op.ReduceMean(op.Mul(centred, centred), axes)
    normed = op.Div(centred, op.Sqrt(op.Add(variance, op.Constant(value_float=eps))))
    weight, bias = (op.Unsqueeze(each, op.Constant(value_ints=[1, 2])) for each in (weight, bias))
    return op.Add(op.Mul(op.Reshape(normed, op.Shape(maps), allowzero=1), weight), bias)


def _write_onnx(proto: onnx.ModelProto, path: str | Path) -> None:
    import onnx

    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))
    write_checksum(Path(path))


def _check_onnx_installed() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401  # int8 needs it
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(f"to export ONNX, {error.name} is missing: pip install 'ssdir[export]'") from None


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporters' warnings, which are about their internals."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


__all__ = ["OPSET", "ExportedEncoder", "export_model", "quiet"]
