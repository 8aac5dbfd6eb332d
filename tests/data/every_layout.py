"""The same four images and three boxes, written in every layout of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from .defects import noise, write_folder

HEIGHT, WIDTH = 40, 60
NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
BOXES = [(0, "person", (-10, 10, 30, 20)), (0, "dog", (50, 5, 20, 10)), (2, "dog", (70, 10, 20, 20))]
"""Image, class and xywh: across the left edge, across the right one, and outside."""


def save_images(folder: Path) -> None:
    """Writes a grey, a CMYK and a colour image, and a copy of the colour image."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("L", (WIDTH, HEIGHT), 90).save(folder / "a.jpg")
    Image.new("CMYK", (WIDTH, HEIGHT), (0, 90, 90, 0)).save(folder / "b.jpg")
    for name in NAMES[2:]:
        Image.fromarray(noise(HEIGHT, WIDTH)).save(folder / name, "PNG")


def write_as_coco(root: Path) -> Path:
    write_folder(root, [(name, noise(HEIGHT, WIDTH)) for name in NAMES], BOXES, ["person", "dog"])
    save_images(root / "train")
    return root / "train"


def boxes_of(name: str) -> Sequence[tuple[str, tuple[int, ...]]]:
    return [(label, box) for image, label, box in BOXES if NAMES[image] == name]


def write_as_yolo(root: Path) -> Path:
    save_images(root / "images" / "train")
    (root / "labels" / "train").mkdir(parents=True)
    (root / "classes.txt").write_text("person\ndog\n")
    for name in NAMES[:3]:  # The last has no file.
        lines = [
            f"{int(label == 'dog')} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n"
            for label, (x, y, w, h) in boxes_of(name)
        ]
        (root / "labels" / "train" / name.replace("jpg", "txt")).write_text("".join(lines))
    return root / "images" / "train"


def write_as_voc(root: Path) -> Path:
    save_images(root / "JPEGImages")
    (root / "Annotations").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\nc\nd\n")
    (root / "classes.txt").write_text("person\ndog\n")
    for name in NAMES[:3]:
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>"
            f"<ymax>{y + h}</ymax></bndbox></object>"
            for label, (x, y, w, h) in boxes_of(name)
        )
        (root / "Annotations" / name.replace("jpg", "xml")).write_text(f"<annotation>{objects}</annotation>")
    return root / "JPEGImages"


def write_as_widerface(root: Path) -> Path:
    save_images(root / "WIDER_train" / "images" / "0")
    lines = []
    for name in NAMES:
        faces = [f"{x} {y} {w} {h} 0 0 0 0 0 0" for _, (x, y, w, h) in boxes_of(name)]
        lines += [f"0/{name}", str(len(faces)), *faces]
    (root / "wider_face_split").mkdir()
    (root / "wider_face_split" / "wider_face_train_bbx_gt.txt").write_text("\n".join(lines) + "\n")
    return root / "WIDER_train" / "images" / "0"


WRITERS = [write_as_coco, write_as_yolo, write_as_voc, write_as_widerface]
every_layout = pytest.mark.parametrize(
    "write", WRITERS, ids=lambda write: write.__name__.removeprefix("write_as_")
)
