"""Makes the README's pictures of the uses of embeddings, with `tiny-mnist`, and the clip of docs/video.md.

python tools/readme_pictures.py MNIST_FOLDER [--clip-model runs/video/seed0]

Test digits of MNIST are scattered over 300 images, and move through a clip; pictures show objects that the model
detects in them.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeAlias

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from sklearn.preprocessing import normalize
from torchvision.ops import box_iou

import ssdir
from ssdir.analysis.classifier import Classifier
from ssdir.analysis.clusters import cluster_embeddings
from ssdir.analysis.crops import crop_around
from ssdir.analysis.outliers import knn_distances
from ssdir.data.image_files import find_images
from ssdir.data.images import Image8, read_image, resize
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.clip_writer import write_moving
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.moving import Difficulty, MovingConfig, moving_values
from ssdir.data.scatter.writer import write_scatter
from ssdir.data.video import open_frames
from ssdir.evaluation.matching import match_greedy
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.plots.image_grids import BOX_COLOURS, BoxedImage, box_grid, to_pixels, to_png
from ssdir.tracking.output import TrackFiles
from ssdir.tracking.track import stream_tracks, track_clip

IMAGES_FOLDER = Path(__file__).parent.parent / "docs" / "images"
OUT, CLIP = IMAGES_FOLDER / "uses", IMAGES_FOLDER / "video" / "tracks.webp"
CLIP_SEEDS, CLIP_SIDE = {"standard": 3, "hard": 8}, 320
IMAGES, LABELS_PER_CLASS = 300, 10
COLUMNS, CELL, LEGEND_HEIGHT = 6, 96, 18
LEGEND = [("", colour) for colour in BOX_COLOURS]

Cells: TypeAlias = list[BoxedImage]


def main(
    mnist: Annotated[Path, typer.Argument(help="Folder of MNIST's files.")],
    clip_model: Annotated[
        str | None, typer.Option(help="Trained on clips: makes the clip of docs/video.md too, with this model.")
    ] = None,
) -> None:
    """Writes a PNG per use to `docs/images/uses`."""
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_scatter(data, "mnist", ScatterConfig(train=1, val=1, test=IMAGES, seed=3), root=mnist)
        paths = find_images([str(data / "test")])
        model = ssdir.load("tiny-mnist", "cpu")
        objects = model.encode(paths)
        images = [read_image(path) for path in paths]
        digits = _digits(objects, data)
        crops = _Crops(images, objects)
        pictures = {
            "search": _search(objects, digits, crops),
            "cluster": _clusters(objects, crops),
            "outliers": _outliers(objects, crops),
            "classify": _classify(objects, model.fingerprint, digits, crops),
            "edit": _edit(model, objects),
            "track": _track(model, _moving_digits(mnist, data, "standard", 30)),
        }
        if clip_model is not None:
            _write_clip(ssdir.load(clip_model, "cpu"), _moving_digits(mnist, data, "hard", 60), CLIP)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, cells in pictures.items():
        (OUT / f"{name}.png").write_bytes(to_png(box_grid(cells, LEGEND, COLUMNS, CELL)[LEGEND_HEIGHT:]))


class _Crops:
    """Makes crops of objects, each with a caption."""

    def __init__(self, images: list[Image8], objects: Objects) -> None:
        self.images, self.objects = images, objects

    def of(self, row: int, caption: str = "", group: int = 0) -> BoxedImage:
        """Crops an object around its box."""
        image = self.images[int(self.objects.image_index[row])]
        sides = np.array([image.shape[1], image.shape[0]] * 2)
        crop, box = crop_around(image, (self.objects.boxes[row].numpy() * sides).tolist())
        return BoxedImage(crop, box, np.array([group]), caption)


def _moving_digits(mnist: Path, data: Path, difficulty: Difficulty, frames: int) -> Path:
    """Generates a clip of test digits, and returns its folder."""
    values = {
        **moving_values(difficulty),
        "frames": frames,
        "train": 0,
        "val": 0,
        "test": 1,
        "seed": CLIP_SEEDS[difficulty],
    }
    folder = data.with_name(difficulty)
    write_moving(folder, "mnist", MovingConfig.model_validate(values), root=mnist)
    return next((folder / "test").iterdir())


def _digits(objects: Objects, data: Path) -> NDArray[np.str_]:
    """Returns the digit that each object overlaps, or an empty string."""
    truth = open_dataset(data, "test").all_objects()
    matched, labels = match_greedy(objects, truth).numpy(), truth.labels.numpy()
    return np.where(matched >= 0, labels[np.maximum(matched, 0)].astype(str), "")


def _directions(objects: Objects) -> NDArray[np.float64]:
    return normalize(objects.z_what.double().numpy())


def _large(objects: Objects) -> NDArray[np.int64]:
    """Returns the rows of objects that are large enough to be recognised in a small picture."""
    return np.flatnonzero((objects.z_where[:, 2:].amax(1) > 0.15).numpy())


def _search(objects: Objects, digits: NDArray[np.str_], crops: _Crops) -> Cells:
    directions, cells = _directions(objects), []
    for digit in "379":
        row = next(row for row in _large(objects).tolist() if digits[row] == digit)
        cosines = directions @ directions[row]
        near = np.argsort(-cosines)[1:COLUMNS].tolist()
        cells += [crops.of(row, "query", 1), *(crops.of(other, f"{cosines[other]:.2f}") for other in near)]
    return cells


def _clusters(objects: Objects, crops: _Crops) -> Cells:
    clusters = cluster_embeddings(objects.z_what.numpy(), 10)
    large, cells = set(_large(objects).tolist()), []
    for number in (0, 3, 6):
        rows = [row for row in np.argsort(clusters.distances) if clusters.labels[row] == number and row in large]
        cells += [crops.of(row, f"cluster {number}", number) for row in rows[:COLUMNS]]
    return cells


def _outliers(objects: Objects, crops: _Crops) -> Cells:
    distances = knn_distances(objects.z_what.numpy())
    return [crops.of(row, f"{distances[row]:.2f}") for row in np.argsort(-distances)[: 3 * COLUMNS].tolist()]


def _classify(objects: Objects, fingerprint: str, digits: NDArray[np.str_], crops: _Crops) -> Cells:
    z_what, random = objects.z_what.numpy(), np.random.default_rng(0)
    labelled = np.concatenate(
        [random.permutation(np.flatnonzero(digits == digit))[:LABELS_PER_CLASS] for digit in "0123456789"]
    )
    classifier = Classifier.fit(z_what[labelled], digits[labelled].tolist(), fingerprint)
    classes, certainty = classifier.predict(z_what)
    rows = random.permutation(np.setdiff1d(_large(objects), labelled))[: 3 * COLUMNS].tolist()
    return [crops.of(row, f"“{classes[row]}” {certainty[row]:.0%}") for row in rows]


def _scene(objects: Objects) -> Objects:
    """Returns the number of the first image whose three or four objects are large and apart."""
    for scene in objects.split():
        if 3 <= len(scene) <= 4 and float(scene.z_where[:, 2:].max(1).values.min()) > 0.2:
            overlaps = box_iou(scene.boxes, scene.boxes) - torch.eye(len(scene))
            if float(overlaps.max()) <= 0:
                return scene
    raise SystemExit("no image has three or four large objects that are apart: take another seed")


def _edit(model: Predictor, objects: Objects) -> Cells:
    first, cells = _scene(objects), []
    start, end = 0, 1
    inwards = 0.5 - first.z_where[start, :2]
    for row, name in enumerate(("move", "resize", "change")):
        for step in np.linspace(0, 1, COLUMNS):
            where, what = first.z_where.clone(), first.z_what.clone()
            if name == "move":
                where[start, :2] += step * inwards
            elif name == "resize":
                where[start, 2:] *= 1 - 0.6 * step
            else:
                what[start] = (1 - step) * what[start] + step * what[end]
            changed = first.replace(z_where=where, z_what=what)
            picture = to_pixels(model.decode(changed).reconstructions[0])
            boxes = changed.boxes[start : start + 1].numpy().astype(float)
            cells.append(BoxedImage(picture, boxes, np.array([row]), f"{name} {step:.0%}"))
    return cells


def _track(model: Predictor, clip: Path) -> Cells:
    """Makes frames of a clip with the tracks of their objects."""
    cells = []
    for frame in stream_tracks(model, open_frames(clip), keep_pixels=True):
        if len(cells) < 3 * COLUMNS:
            assert frame.pixels is not None
            boxes = frame.objects.boxes.numpy().astype(float)
            groups = frame.objects.track_id.numpy() % len(BOX_COLOURS)
            cells.append(BoxedImage(frame.pixels, boxes, groups, f"frame {frame.index}"))
    return cells


def _write_clip(model: Predictor, clip: Path, out: Path) -> None:
    """Writes an animation of a clip: its frames with tracks, beside what the embeddings decode to."""
    with TemporaryDirectory() as folder:
        video = Path(folder) / "tracks.mp4"
        track_clip(model, clip, TrackFiles(video=video))
        annotated = [frame.pixels for frame in open_frames(video)]
    decoded = [
        resize(to_pixels(model.decode(frame.objects).reconstructions[0]), CLIP_SIDE, CLIP_SIDE)
        for frame in stream_tracks(model, open_frames(clip))
    ]
    gap = np.full((CLIP_SIDE, 4, 3), 255, np.uint8)
    frames = [
        Image.fromarray(np.hstack([resize(left, CLIP_SIDE, CLIP_SIDE), gap, right]))
        for left, right in zip(annotated, decoded, strict=True)
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=100, loop=0, quality=60, method=6)


if __name__ == "__main__":
    typer.run(main)
