"""Small whole inputs of every format; what is damaged is a copy of one of them."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

SIDE = 64
NAMES = ["cat", "dog", "no"]
BOXES = [
    [(4, 6, 30, 24), (36, 20, 20, 30)],
    [(10, 10, 40, 40)],
    [(2, 2, 20, 20), (30, 30, 28, 30)],
    [(8, 30, 16, 20)],
]
"""Boxes of each picture, as x, y, width and height."""
LABELS = [[0, 1], [2], [1, 0], [2]]


def pixels(seed: int, side: int = SIDE) -> NDArray[np.uint8]:
    """Makes pictures of colourful blobs, in which an untrained model detects objects."""
    coarse = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), dtype=np.uint8))


def photos(folder: Path, suffix: str = ".png", wide: bool = False) -> None:
    """Writes four pictures a … d in a file format; `wide` ones have 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate("abcd"):
        if wide:
            Image.fromarray(pixels(number)[..., 0].astype(np.uint16) * 257).save(folder / f"{name}{suffix}")
        else:
            Image.fromarray(pixels(number)).save(folder / f"{name}{suffix}")


def coco_content(prefix: str = "") -> dict[str, Any]:
    """Returns four images with six boxes, with all fields that are read."""
    images = [
        {"id": 10 + number, "file_name": f"{prefix}{name}.png", "height": SIDE, "width": SIDE}
        for number, name in enumerate("abcd")
    ]
    annotations = []
    for number, (boxes, labels) in enumerate(zip(BOXES, LABELS, strict=True)):
        for (x, y, w, h), label in zip(boxes, labels, strict=True):
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            entry = {
                "id": len(annotations),
                "image_id": 10 + number,
                "category_id": 1 + label,
                "bbox": [x, y, w, h],
            }
            annotations.append({**entry, "iscrowd": 0, "area": w * h, "segmentation": outline})
    categories = [{"id": 1 + number, "name": name} for number, name in enumerate(NAMES)]
    return {"info": {"year": 2020}, "images": images, "annotations": annotations, "categories": categories}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def coco(root: Path) -> None:
    for split in ("train", "test"):
        photos(root / split)
        write_json(root / f"annotations/instances_{split}.json", coco_content())


def coco_single(root: Path) -> None:
    photos(root / "images")
    write_json(root / "result.json", coco_content("images/"))


def coco_beside(root: Path) -> None:
    for split in ("train", "valid"):
        photos(root / split)
        write_json(root / split / "_annotations.coco.json", coco_content())


def yolo_lines(number: int) -> str:
    boxes = zip(BOXES[number], LABELS[number], strict=True)
    relative = [
        (label, [(x + w / 2) / SIDE, (y + h / 2) / SIDE, w / SIDE, h / SIDE]) for (x, y, w, h), label in boxes
    ]
    return "".join(f"{label} {' '.join(f'{value:.6f}' for value in box)}\n" for label, box in relative)


def yolo(root: Path) -> None:
    for split in ("train", "val"):
        photos(root / "images" / split)
        (root / "labels" / split).mkdir(parents=True)
        for number, name in enumerate("abcd"):
            (root / "labels" / split / f"{name}.txt").write_text(yolo_lines(number))
    names = "".join(f"  {number}: '{name}'\n" for number, name in enumerate(NAMES))
    (root / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\nnc: 3\nnames:\n{names}")


def darknet(root: Path) -> None:
    photos(root / "obj_train_data")
    for number, name in enumerate("abcd"):
        (root / "obj_train_data" / f"{name}.txt").write_text(yolo_lines(number))
    (root / "obj.names").write_text("".join(f"{name}\n" for name in NAMES))
    (root / "obj.data").write_text(
        "classes = 3\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )
    (root / "train.txt").write_text("".join(f"data/obj_train_data/{name}.png\n" for name in "abcd"))


def voc(root: Path) -> None:
    photos(root / "JPEGImages")
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate("abcd"):
        objects = "".join(
            f"<object><name>{NAMES[label]}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}"
            f"</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>\n"
            for (x, y, w, h), label in zip(BOXES[number], LABELS[number], strict=True)
        )
        size = f"<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>"
        text = f"<annotation><filename>{name}.png</filename>{size}\n{objects}</annotation>\n"
        (root / "Annotations" / f"{name}.xml").write_text(text)
    (root / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    (root / "ImageSets/Main/val.txt").write_text("d\n")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in NAMES))


def widerface(root: Path) -> None:
    for split in ("train", "val"):
        photos(root / f"WIDER_{split}/images/0--Parade")
        lines = []
        for number, name in enumerate("abcd"):
            faces = [f"{x} {y} {w} {h} 0 0 0 0 0 0 " for x, y, w, h in BOXES[number]]
            lines += [f"0--Parade/{name}.png", str(len(faces)), *faces]
        (root / "wider_face_split").mkdir(exist_ok=True)
        (root / f"wider_face_split/wider_face_{split}_bbx_gt.txt").write_text("\n".join(lines) + "\n")


def clevr(root: Path) -> None:
    """Writes two scenes of two objects each, in pictures of CLEVR's shape, with masks."""
    from ssdir.data.readers.clevr.cameras import NOMINAL_POSITION, Camera

    size = (80, 120)
    camera = Camera(NOMINAL_POSITION, size)
    for split in ("train", "val"):
        scenes = []
        for number in range(3):
            name = f"CLEVR_{split}_{number:06d}.png"
            objects = []
            for shape, x, y in (("cube", 1.5, -1.9), ("sphere", -0.5, 0.4 * number)):
                point = np.array([x, y, 0.7])
                column, row, depth = camera.project(point[None])[0]
                entry = {"shape": shape, "size": "large", "color": "red", "material": "metal", "rotation": 20.5}
                place = {"3d_coords": point.tolist(), "pixel_coords": [round(column), round(row), depth]}
                objects.append({**entry, **place})
            scenes.append(
                {
                    "image_index": number,
                    "image_filename": name,
                    "split": split,
                    "objects": objects,
                    "relationships": {"left": [[1], []]},
                    "directions": {"left": [0.1, 0.2, 0.3]},
                }
            )
            (root / "images" / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.resize(pixels(number), (*size, 3))).save(root / "images" / split / name)
        write_json(root / f"scenes/CLEVR_{split}_scenes.json", {"info": {"split": split}, "scenes": scenes})


def index_mask(number: int) -> NDArray[np.uint8]:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for value, (x, y, w, h) in enumerate(BOXES[number], start=1):
        mask[y : y + h, x : x + w] = value
    return mask


def clevrtex(root: Path) -> None:
    folder = root / "clevrtex_full" / "0"
    folder.mkdir(parents=True)
    for number in range(10):
        stem = folder / f"CLEVRTEX_full_{number:06d}"
        objects = [
            {
                "shape": ("cube", "sphere")[label % 2],
                "size": "small",
                "material": "brick",
                "rotation": 3.5,
                "3d_coords": [0.0, 1.0, 0.4],
                "pixel_coords": [x + w // 2, y + h // 2, 12.0],
                "index": place,
            }
            for place, ((x, y, w, h), label) in enumerate(
                zip(BOXES[number % 4], LABELS[number % 4], strict=True), start=1
            )
        ]
        Image.fromarray(pixels(number)).save(f"{stem}.png")
        Image.fromarray(index_mask(number % 4)).save(f"{stem}_flat.png")
        write_json(Path(f"{stem}.json"), {"image_index": number, "objects": objects})


def mask_folder(root: Path) -> None:
    for split in ("train", "val"):
        photos(root / "images" / split)
        for folder in (root / "masks" / split, root / "objects"):
            folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for number, name in enumerate("abcd"):
            Image.fromarray(index_mask(number)).save(root / "masks" / split / f"{name}.png")
            objects = [
                {
                    "value": place,
                    "category": NAMES[label],
                    "attributes": {"colour": "red"},
                    "depth": 3.5,
                    "box": [x, y, x + w, y + h],
                }
                for place, ((x, y, w, h), label) in enumerate(
                    zip(BOXES[number], LABELS[number], strict=True), start=1
                )
            ]
            lines.append(json.dumps({"image": f"{name}.png", "objects": objects}))
        (root / "objects" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


# TFRecord and MNIST -----------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _feature(value: bytes | list[float]) -> bytes:
    if isinstance(value, bytes):
        return _field(1, b"".join(_field(1, value[i : i + 1]) for i in range(len(value))))
    return _field(2, _field(1, struct.pack(f"<{len(value)}f", *value)))


def records(root: Path) -> None:
    """Writes four records of Tetrominoes, in the wire format of TFRecord."""
    from ssdir.data.readers.tfrecord.records import masked_crc32c

    root.mkdir(parents=True, exist_ok=True)
    framed = b""
    for number in range(4):
        masks = np.zeros((3, 35, 35), np.uint8)
        masks[1, 3:12, 4:15], masks[2, 15:30, 10:30] = 255, 255
        masks[0] = 255 - masks.max(axis=0)
        values: dict[str, bytes | list[float]] = {
            "image": pixels(number)[:35, :35].tobytes(),
            "mask": masks.tobytes(),
            "visibility": [1.0] * 3,
            "shape": [0.0, 2.0, 10.0],
            "color": [0.0, 0.0, 0.0, 255.0, 0.0, 0.0, 0.0, 255.0, 0.0],
        }
        entries = (_field(1, _field(1, key.encode()) + _field(2, _feature(each))) for key, each in values.items())
        record = _field(1, b"".join(entries))
        length = struct.pack("<Q", len(record))
        checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, record))
        framed += length + next(checks) + record + next(checks)
    (root / "tetrominoes_train.tfrecords").write_bytes(gzip.compress(framed))


def mnist(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 120), ("t10k", 60)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 6:22, 8:20] = np.random.default_rng(0).integers(90, 256, (count, 16, 12))
        labels = (np.arange(count) % 10).astype(np.uint8)
        for values, name in ((images, "images-idx3"), (labels, "labels-idx1")):
            header = bytes([0, 0, 8, values.ndim]) + b"".join(struct.pack(">I", side) for side in values.shape)
            (root / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))


def glyphs(root: Path) -> None:
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(pixels(number, 16)[..., 0]).save(root / label / f"{number}.png")


# Tables of boxes --------------------------------------------------------------------------------------------


def box_rows() -> dict[str, list[Any]]:
    rows = [
        (f"{name}.png", *(float(value) for value in (x, y, x + w, y + h)), 0.9, NAMES[label], 7)
        for number, name in enumerate("abcd")
        for (x, y, w, h), label in zip(BOXES[number], LABELS[number], strict=True)
    ]
    columns = ("image", "x1", "y1", "x2", "y2", "score", "class", "track")
    return {name: [row[place] for row in rows] for place, name in enumerate(columns)}


def box_tables(root: Path) -> None:
    photos(root / "photos")
    rows = box_rows()
    lines = [",".join(rows), *(",".join(str(value) for value in row) for row in zip(*rows.values(), strict=True))]
    (root / "boxes.csv").write_text("\n".join(lines) + "\n")
    pq.write_table(pa.table(rows), root / "boxes.parquet")
    write_json(root / "boxes.json", coco_content())
    write_json(root / "annotations.json", coco_content())
    results = [
        {"image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": entry["bbox"], "score": 0.5}
        for entry in coco_content()["annotations"]
    ]
    write_json(root / "results.json", results)
