"""Unpacks a TFRecord file of a multi-object data set to a folder of images with masks (see `mask_folder`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from PIL import Image

from ssdir.data.images import Image8
from ssdir.data.readers.mask_folder import line_of
from ssdir.data.readers.tfrecord.multi_object import MultiObjectImage, read_multi_object_images
from ssdir.errors import InputError
from ssdir.outputs import atomic_dir


def unpack(
    path: str | Path,
    out: str | Path,
    counts: dict[str, int],
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, int]:
    """Writes the first images of a file as splits, whole or not at all. It is read once, one record at a time.

    Args:
        path: the file, under its published name.
        out: the folder to make.
        counts: the splits in the order in which they take their images from the file; those of 0 are left out.
        force: replace an earlier folder at `out`.
        progress: called with the number of images written, and of all.

    Returns:
        The number of objects in each split.

    Raises:
        InputError: as `read_multi_object_images`; if no images or too many are asked for; if `out` exists
            and must not be replaced.
    """
    counts = {split: count for split, count in counts.items() if count}
    total = sum(counts.values())
    if not total:
        raise InputError(f"no image of '{path}' is asked for: give at least one split a number")
    done, objects = 0, dict.fromkeys(counts, 0)
    with atomic_dir(out, force) as made:
        scenes = read_multi_object_images(path)
        for split, count in counts.items():
            start = done
            for scene in _write_split(made, split, islice(scenes, count)):
                objects[split] += len(scene.objects)
                done += 1
                if progress is not None:
                    progress(done, total)
            if done < start + count:
                raise InputError(f"'{path}' has {done} images, but {total} were asked for: ask for no more")
    return objects


def _write_split(root: Path, split: str, scenes: Iterator[MultiObjectImage]) -> Iterator[MultiObjectImage]:
    """Writes images, and yields each once it is written."""
    images, masks, objects = (root / name for name in ("images", "masks", "objects"))
    for folder in (images / split, masks / split, objects):
        folder.mkdir(parents=True, exist_ok=True)
    with (objects / f"{split}.jsonl").open("w", encoding="utf-8") as file:
        for number, scene in enumerate(scenes):
            name = f"{number:06d}.png"
            _save(scene.image, images / split / name)
            _save(scene.mask[..., None], masks / split / name)
            file.write(line_of(name, scene.objects))
            yield scene


def _save(pixels: Image8, path: Path) -> None:
    """Writes a PNG of one channel or three."""
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
