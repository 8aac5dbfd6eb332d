"""COCO folders made for tests, with every defect that a user's own may have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_folder(
    root: Path, images: Sequence[Any], boxes: Sequence[Any], categories: Sequence[str], split: str = "train"
) -> Path:
    """Writes images (name, pixels[, annotated height, width]) and boxes (image, category, xywh[, more keys])."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    entries = []
    for i, (name, pixels, *size) in enumerate(images):
        Image.fromarray(pixels).save(root / split / name)
        height, width = size or pixels.shape[:2]
        entries.append({"id": i, "file_name": name, "height": height, "width": width})
    annotations = [
        {"id": i, "image_id": image, "category_id": categories.index(category), "bbox": box, **dict(*more)}
        for i, (image, category, box, *more) in enumerate(boxes)
    ]
    content = {
        "categories": [{"id": i, "name": name} for i, name in enumerate(categories)],
        "images": entries,
        "annotations": annotations,
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def write_defects(root: Path) -> Path:
    """Writes an image without fault, and one image for each kind of defect."""
    good = noise(60, 90)
    images = [
        ("good.png", good),
        ("copy.bmp", good),
        ("gone.png", noise(60, 90, 1)),
        ("cut.png", noise(60, 90, 2)),
        ("text.png", noise(60, 90, 3)),
        ("turned.png", noise(90, 60, 4), 60, 90),
        ("small.png", noise(30, 45, 5), 60, 90),
        ("wide.png", noise(200, 400, 6)),
    ]
    boxes = [
        (0, "dog", (30, 20, 30, 30)),
        (0, "cat", (10, 10, 0, 20)),
        (0, "cat", (float("nan"), 10, 20, 20)),
        (0, "dog", (200, 10, 20, 20)),
        (0, "dog", (-10, 40, 30, 30)),
        (0, "dog", (30, 20, 30, 30)),
        (0, "cat", (40, 0, 40, 10)),
        *((i, "dog", (30, 20, 30, 30)) for i in range(1, 7)),
        (7, "cat", (100, 100, 4, 30)),
    ]
    write_folder(root, images, boxes, ["cat", "dog", "eel"])
    (root / "train" / "gone.png").unlink()
    whole = (root / "train" / "cut.png").read_bytes()
    (root / "train" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "train" / "text.png").write_text("no image")
    return root
