"""Files of an edited scene: the reconstruction as PNG, the objects as Parquet or JSON."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdir.documents import json_text
from ssdir.identity import Identity
from ssdir.objects import Objects, Scene
from ssdir.plots import to_pixels, to_png
from ssdir.store.writer import ObjectWriter

SCALE = 4
"""Factor by which a PNG is larger than the model's image: 128 pixels are few for a slide."""


def scene_png(scene: Scene) -> bytes:
    """Returns the reconstruction of one image as a PNG, enlarged by `SCALE`."""
    image = to_pixels(scene.reconstructions[0])
    return to_png(np.ascontiguousarray(image.repeat(SCALE, axis=0).repeat(SCALE, axis=1)))


def scene_parquet(objects: Objects, name: str, size: tuple[int, int], identity: Identity) -> bytes:
    """Returns the objects as `ssdir encode` writes them, for the image `name` of `size` = (height, width)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.parquet"
        about = (identity.model, identity.class_names, identity.latent_dim, identity.fingerprint)
        with ObjectWriter(path, *about) as writer:
            writer.write(objects, [name], [size])
        return path.read_bytes()


def scene_json(objects: Objects, name: str, size: tuple[int, int], class_names: Sequence[str]) -> bytes:
    """Returns the objects as JSON, each with its box in pixels (xyxy), class, score, depth and embedding."""
    rows: list[dict[str, Any]] = []
    fields = {
        field: getattr(objects, field) for field in ("scores", "labels", "z_depth", "z_what", "z_what_scale")
    }
    values = {field: tensor.tolist() for field, tensor in fields.items() if tensor is not None}
    boxes = objects.boxes_px(size).tolist()
    for row in range(len(objects)):
        entry: dict[str, Any] = {"box": boxes[row], "z_where": objects.z_where[row].tolist()}
        if "labels" in values:
            entry["class"] = class_names[values["labels"][row]]
        entry |= {field.removesuffix("s"): each[row] for field, each in values.items() if field != "labels"}
        rows.append(entry)
    scene = {"image": name, "height": size[0], "width": size[1], "objects": rows}
    return json_text(scene).encode()
