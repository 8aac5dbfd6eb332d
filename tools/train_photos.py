"""Trains on photographs: the shipped model `photos`, and a detector of faces.

python tools/train_photos.py photos DATA OUT
python tools/train_photos.py faces DATA OUT

DATA has the folders `voc`, `coco128`, `widerface` and `widerface-512`. The shipped model's detector is trained on
VOC's training split, whose boxes are of whole everyday things; WIDER FACE's are of parts of people, and would
contradict them. The representation, which needs no annotations, is trained on VOC's and COCO's.
Nothing is trained on a validation split, and the weights are those of the last epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import typer

from ssdir.data.annotations import AnnotationTable
from ssdir.data.dataset import fingerprint
from ssdir.data.readers.registry import read_annotations
from ssdir.data.writers.layouts import write_coco
from ssdir.outputs import atomic_dir
from ssdir.training.adoption import adopt_detector
from ssdir.training.fit import train
from ssdir.training.recipe import read_recipe
from ssdir.training.run_folder import has_ended, prepare_folder

VOC = "voc/VOCdevkit/VOC2012"
WIDERFACE = ("widerface", "widerface-512")
FIXED = ("detector.keep=last", "detector.patience=null")
"""Nothing is chosen on the validation split, on which the model is measured."""

FACES = (
    "min_side=0.04",
    "drop_empty=true",
    "model.ssd.anchors={min_sizes: [14, 36, 90], max_sizes: [36, 90, 200], aspect_ratios: [0.7]}",
    "detector.epochs=16",
)
"""Smaller anchors, for faces; faces narrower or lower than 4 % of the image are left out, as in the paper."""

Values: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]

app = typer.Typer(add_completion=False)


@app.command()
def faces(data: Path, out: Path, values: Values = None) -> None:
    """Trains a detector of faces of at least 4 % of the image's side on both parts of WIDER FACE.

    Args:
        data: folder of the data sets.
        out: folder to write `images` (the data set) and `faces` (the run) into.
        values: overrides of the preset, such as `seed=1`.
    """
    images, run = out / "images", out / "faces"
    if not images.exists():
        gather(data, images, WIDERFACE, WIDERFACE[0])
    recipe = read_recipe("photos", [*FIXED, *FACES, *(values or [])])
    train(recipe, images, run, stage="detector", resume=run.exists())


@app.command()
def photos(data: Path, out: Path, values: Values = None) -> None:
    """Trains both stages of the shipped model, or resumes the training in `out`.

    Args:
        data: folder of the data sets.
        out: folder to write `detector`, `images` and `photos` into; the last one is the run to ship.
        values: overrides of the preset, such as `seed=1`.
    """
    recipe = read_recipe("photos", [*FIXED, *(values or [])])
    detector, run, images = out / "detector", out / "photos", out / "images"
    if not has_ended(detector, "detector"):
        train(recipe, data / VOC, detector, stage="detector", resume=detector.exists())
    if not images.exists():
        gather(data, images, (VOC, "coco128"), VOC)
    if not has_ended(run, "detector"):
        prepare_folder(recipe, fingerprint(recipe.open_data(images, "train")), run, resume=False)
        adopt_detector(detector, recipe, run)
    train(recipe, images, run, stage="representation", resume=True)


def gather(data: Path, folder: Path, train_sources: Sequence[str], val_source: str) -> None:
    """Writes a COCO data set of links to the images of several data sets; all objects have one category."""
    with atomic_dir(folder) as made:
        for split, sources in (("train", train_sources), ("val", (val_source,))):
            tables = [read_annotations(data / source, split) for source in sources]
            images, names = made / "images" / split, []
            images.mkdir(parents=True)
            for number, path in enumerate(path for table in tables for path in table.image_paths):
                names.append(f"{number:05d}{path.suffix}")
                (images / names[-1]).symlink_to(path.resolve())
            write_coco(made, split, _merge(tables), names)


def _merge(tables: list[AnnotationTable]) -> AnnotationTable:
    """Formats the images and boxes of all tables, with one category, as a COCO document."""
    starts = np.cumsum([0, *(len(table.image_names) for table in tables)])
    boxes = np.concatenate([table.boxes_px for table in tables])
    return AnnotationTable(
        tables[0].root,
        (),
        ["object"],
        [name for table in tables for name in table.image_names],
        np.concatenate([table.image_sizes for table in tables]),
        np.concatenate([table.image + start for table, start in zip(tables, starts, strict=False)]),
        np.zeros(len(boxes), dtype=np.int64),
        boxes,
        np.concatenate([table.ignored for table in tables]),
    )


if __name__ == "__main__":
    app()
