"""Finds the label files of YOLO's images."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from ssdir.data.folders import files_below, is_there
from ssdir.data.image_files import only_images
from ssdir.data.readers.faults import note_if_any
from ssdir.data.readers.file_names import common_end

# The files in which tools write the classes' names: LabelImg, CVAT, Roboflow.
NAMES_FILES = ("classes.txt", "obj.names", "_darknet.labels")


def label_file(image: Path, base: Path) -> Path:
    """Returns the label file of an image.

    It has the image's path with the last folder `images` replaced by `labels`; if only a text file beside the
    image exists, it is that one. Folders above the data set are ignored.
    """
    parts, beside = list(image.parent.parts), image.parent / f"{image.stem}.txt"
    absolute = image.parent.absolute().parts
    shared = common_end(absolute[::-1], base.absolute().parts[::-1])
    above = max(0, shared - (len(absolute) - len(parts)))
    if "images" not in parts[above:]:
        return beside
    parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    apart = Path(*parts) / beside.name
    return beside if is_there(beside) and not is_there(apart) else apart


def passed_over(places: Iterable[Path], base: Path, labels: Collection[Path]) -> list[str]:
    """Makes notes that count the text files in some folders which are the labels of no image.

    Args:
        places: folders of images.
        base: see `label_file`.
        labels: the files that are read.
    """
    read = {*labels}
    lone, second = list[Path](), list[Path]()
    for place in places:
        if not place.is_dir():
            continue
        files = files_below(place)
        images = only_images(files)
        known = read | {label_file(image, base) for image in images}
        folder = label_file(place / "any.jpg", base).parent
        texts = {path for path in (*files, *files_below(folder)) if _is_text(path) and path not in known}
        beside = texts & {image.with_suffix(".txt") for image in images}
        second += sorted(beside)
        lone += sorted(path for path in texts - beside if path.is_relative_to(folder))
    return [
        *note_if_any("label files without an image, passed over", lone),
        *note_if_any("text files beside images that have their labels elsewhere, passed over", second),
    ]


def _is_text(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and path.name not in NAMES_FILES and not path.name.startswith(".")
