"""Measures the agreement of boxes computed from CLEVR's scenes with those of its masks.

python benchmarks/clevr_boxes.py ../shared/data/clevr-mini --out results/clevr/boxes.json
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable
from ssdir.data.readers.clevr.cameras import NOMINAL_POSITION, Camera, recover_camera
from ssdir.data.readers.clevr.geometry import BEVELS, cover_pixels, project_boxes
from ssdir.data.readers.clevr.reader import ClevrScene, read_clevr, read_scenes

SPLITS = ("train", "val")
GRIDS = {"cube": np.arange(0.0, 0.31, 0.01), "cylinder": np.arange(0.0, 0.1501, 0.005)}


def pair_iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Computes the IoU (N,) of row-aligned boxes."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1)
    return np.asarray(shared / (areas - shared))


def summary(iou: NDArray[np.float64]) -> dict[str, float]:
    low, fifth, half = np.percentile(iou, [1, 5, 50])
    return {
        "objects": len(iou),
        "mean": float(iou.mean()),
        "p1": float(low),
        "p5": float(fifth),
        "median": float(half),
    }


def by_shape(
    table: AnnotationTable, masks: AnnotationTable, boxes: NDArray[np.float64], visible: float
) -> dict[str, Any]:
    """Computes statistics of the IoU of `boxes` with the masks', over objects visible to at least this share."""
    chosen = masks.visible >= visible  # type: ignore[operator]
    iou = pair_iou(boxes, masks.boxes_px)
    names = table.category_names
    return {"all": summary(iou[chosen])} | {
        name: summary(iou[chosen & (table.category == i)]) for i, name in enumerate(names)
    }


def all_boxes(scenes: list[ClevrScene], bevels: dict[str, float]) -> NDArray[np.float64]:
    return np.concatenate([project_boxes(scene.camera, scene.solids, bevels) for scene in scenes])


def variants(scenes: list[ClevrScene]) -> dict[str, NDArray[np.float64]]:
    """Computes the boxes, and variants that leave out one step of the geometry each."""
    sharp = {"cube": 0.0, "sphere": 1.0, "cylinder": 0.0}
    nominal = [replace(scene, camera=Camera(NOMINAL_POSITION, scene.camera.image_size)) for scene in scenes]
    degrees = [
        replace(scene, solids=replace(scene.solids, rotations=np.deg2rad(scene.solids.rotations)))
        for scene in scenes
    ]
    boxes = all_boxes(scenes, BEVELS)
    return {
        "as read": cover_pixels(boxes),
        "not in whole pixels": boxes,
        "sharp edges": cover_pixels(all_boxes(scenes, sharp)),
        "sharp edges, not in whole pixels": all_boxes(scenes, sharp),
        "rotation in degrees": cover_pixels(all_boxes(degrees, BEVELS)),
        "camera without its jitter": cover_pixels(all_boxes(nominal, BEVELS)),
    }


def measure_bevels(scenes: list[ClevrScene], masks: AnnotationTable) -> dict[str, Any]:
    """Computes the RMS distance (pixels) of box edges from the masks', over visible objects, by bevel."""
    shapes = np.concatenate([scene.solids.shapes for scene in scenes])
    sweep: dict[str, Any] = {}
    for shape, grid in GRIDS.items():
        chosen = (shapes == shape) & (masks.visible > 0.98)  # type: ignore[operator]
        errors = []
        for bevel in grid:
            edges = all_boxes(scenes, BEVELS | {shape: bevel})[chosen]
            errors.append(float(np.sqrt(((edges - masks.boxes_px[chosen]) ** 2).mean())))
        sweep[shape] = {
            "objects": int(chosen.sum()),
            "best": round(float(grid[np.argmin(errors)]), 3),
            "rms_px": {f"{bevel:.3f}": round(error, 4) for bevel, error in zip(grid, errors, strict=True)},
        }
    return sweep


def camera_errors(scenes: list[ClevrScene], pixel_coords: list[NDArray[np.float64]]) -> dict[str, Any]:
    """Computes the error of a camera from the first n objects: in position, and for all boxes of its scene."""
    errors = {}
    for n in (0, 1, 2, 3):
        shifts, ious = [], []
        for scene, seen in zip(scenes, pixel_coords, strict=True):
            camera = recover_camera(scene.solids.centers[:n], seen[:n], scene.camera.image_size)
            shifts.append(np.linalg.norm(camera.position - scene.camera.position))
            boxes = [project_boxes(each, scene.solids) for each in (camera, scene.camera)]
            ious.append(pair_iou(*boxes))
        errors[f"{n} objects"] = {
            "position_median": float(np.median(shifts)),
            "position_max": float(np.max(shifts)),
            "box_iou_mean": float(np.concatenate(ious).mean()),
            "box_iou_p5": float(np.percentile(np.concatenate(ious), 5)),
        }
    return errors


def read_pixel_coords(root: Path, split: str) -> list[NDArray[np.float64]]:
    scenes = json.loads((root / "scenes" / f"CLEVR_{split}_scenes.json").read_text(encoding="utf-8"))["scenes"]
    return [np.array([item["pixel_coords"] for item in scene["objects"]], dtype=np.float64) for scene in scenes]


def measure(root: Path) -> dict[str, Any]:
    started = time.perf_counter()
    scenes = {split: list(read_scenes(root, split)) for split in SPLITS}
    seconds = time.perf_counter() - started
    content: dict[str, Any] = {"data": root.name, "scenes": {split: len(scenes[split]) for split in SPLITS}}
    content["scenes_per_s"] = sum(content["scenes"].values()) / seconds
    for split in SPLITS:
        whole, masks = read_clevr(root, split), read_clevr(root, split, extent="visible")
        content[split] = {
            "iou_90_percent_visible": by_shape(whole, masks, whole.boxes_px, 0.9),
            "iou_all_objects": by_shape(whole, masks, whole.boxes_px, 0.0),
            "iou_90_percent_visible_of_variants": {
                name: by_shape(whole, masks, boxes, 0.9) for name, boxes in variants(scenes[split]).items()
            },
        }
    seen = {split: read_pixel_coords(root, split) for split in SPLITS}
    residuals = np.concatenate(
        [
            scene.camera.project(scene.solids.centers) - coords
            for split in SPLITS
            for scene, coords in zip(scenes[split], seen[split], strict=True)
        ]
    )
    content["pixel_coords_residual"] = {
        "x_mean": float(residuals[:, 0].mean()),
        "y_mean": float(residuals[:, 1].mean()),
        "xy_std": float(residuals[:, :2].std()),
        "xy_max": float(np.abs(residuals[:, :2]).max()),
        "depth_max": float(np.abs(residuals[:, 2]).max()),
    }
    content["bevels"] = measure_bevels(scenes["train"], read_clevr(root, "train", extent="visible"))
    content["camera_from_few_objects"] = camera_errors(scenes["train"], seen["train"])
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="a CLEVR folder with masks")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    content = measure(arguments.root)
    print(json.dumps(content, indent=2))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
