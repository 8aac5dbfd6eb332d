"""The layout of CLEVR v1.0 and of its generator.

`<root>/scenes/CLEVR_<split>_scenes.json`, the images in `<root>/images/<split>/`, and optionally
`<root>/masks/<split>/<image name>`, whose value i + 1 marks the visible pixels of object i. The scenes hold
neither boxes nor a camera: `cameras` and `geometry` compute them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import numpy as np
from msgspec import Raw, Struct
from numpy.typing import NDArray
from pydantic import Field

from ssdir.config import Record, parse
from ssdir.data.annotations import AnnotationTable
from ssdir.data.images import image_size
from ssdir.data.masks import draw_order, mask_boxes, read_mask
from ssdir.data.readers.clevr.cameras import Camera, largest_error_px, recover_camera
from ssdir.data.readers.clevr.geometry import Solids, cover_pixels, project_boxes, silhouette_areas
from ssdir.data.readers.faults import Faults
from ssdir.data.readers.file_names import InsideName
from ssdir.data.readers.json_entries import decode_document, decode_entries, read_raw_json
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.splits import find_split_file, list_splits
from ssdir.errors import InputError, nearest
from ssdir.formatting import quote

ATTRIBUTES: dict[str, list[str]] = {
    "size": ["large", "small"],
    "colour": ["gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"],
    "material": ["rubber", "metal"],
    "shape": ["cube", "sphere", "cylinder"],
}
"""The attributes and their values as the generator has them (there, `colour` is spelt `color`)."""

VOCABULARIES: dict[str, list[str]] = {
    "object": ["object"],
    "shape": ATTRIBUTES["shape"],
    "full": [" ".join(values) for values in product(*ATTRIBUTES.values())],
}
"""The category names: 1, 3, or 96 such as "large gray rubber cube"."""

_SCENES = "scenes/CLEVR_*_scenes.json"

Vocabulary: TypeAlias = Literal["object", "shape", "full"]
Extent: TypeAlias = Literal["whole", "visible"]
EXTENTS: tuple[str, ...] = get_args(Extent)

# `pixel_coords` are rounded to whole pixels: a camera that fits misses none by more than half of one.
_MAX_ERROR_PX = 1.0


Coordinate: TypeAlias = Annotated[float, Field(ge=-1e6, le=1e6)]
Point: TypeAlias = Annotated[list[Coordinate], Field(min_length=3, max_length=3)]


class _Scenes(Struct):
    """A scenes file, whose entries are decoded later."""

    scenes: list[Raw]


class _ObjectEntry(Record):
    """An object as the file has it."""

    size: str
    color: str
    material: str
    shape: str
    rotation: Coordinate
    point: Point = Field(alias="3d_coords")
    pixel_coords: Point


class _SceneEntry(Record):
    """A scene as the file has it. Index masks have no more than 65,535 values."""

    image_filename: InsideName
    objects: list[_ObjectEntry] = Field(max_length=65_535)


@dataclass(frozen=True, eq=False)
class ClevrScene:
    """An image and the objects in its scene.

    Attributes:
        image_name: relative to the root.
        camera: recovered from the objects.
        solids: the objects.
        depth: float (M,), of the objects' centres, along the viewing direction.
        attributes: int64 (M, 4), index into the values of each of `ATTRIBUTES`.
    """

    image_name: str
    camera: Camera
    solids: Solids
    depth: NDArray[np.float64]
    attributes: NDArray[np.int64]


def is_clevr(root: Path) -> bool:
    """Returns whether a folder has CLEVR's layout."""
    return (root / "images").is_dir() and bool(clevr_splits(root))


def clevr_splits(root: Path) -> list[str]:
    """The splits that have scenes."""
    return list_splits(root, _SCENES)


def read_clevr(
    root: Path, split: str, extent: Extent = "whole", vocabulary: Vocabulary = "shape"
) -> AnnotationTable:
    """Reads a split: categories, boxes, depth and attributes of all objects, and where their masks are.

    With `extent="whole"`, boxes contain the whole object, hidden parts included, clipped to the image; with
    `extent="visible"`, boxes and the `visible` share are computed from the masks. Both are whole pixels. An object
    of which nothing is visible keeps its row and has a box without area.
    `draw_order` is by depth, farthest first.

    Raises:
        InputError: if a folder, file or image is missing or outside of the data set, the JSON is invalid or not
            CLEVR's, the `pixel_coords` don't fit the images, or `extent="visible"` lacks masks. It names the
            first ten faults, and counts all.
    """
    has_masks = (root / "masks" / split).is_dir()
    if extent == "visible" and not has_masks:
        raise InputError(f"'{root}' has no masks/{split}, which extent 'visible' needs: use 'whole' instead")
    scenes = list(read_scenes(root, split))
    boxes_px, visible = zip(*(_boxes(root, scene, extent) for scene in scenes), strict=True)
    names, counts = [scene.image_name for scene in scenes], [len(scene.depth) for scene in scenes]
    attributes = np.concatenate([scene.attributes for scene in scenes])
    return AnnotationTable(
        root=root,
        sources=(_find_scenes(root, split),),
        category_names=VOCABULARIES[vocabulary],
        image_names=names,
        image_sizes=np.array([scene.camera.image_size for scene in scenes], dtype=np.int64),
        image=np.repeat(np.arange(len(names)), counts),
        category=_categories(attributes, vocabulary),
        boxes_px=np.concatenate(boxes_px),
        ignored=np.zeros(sum(counts), dtype=np.bool_),
        draw_order=np.concatenate([draw_order(scene.depth) for scene in scenes]),
        depth=np.concatenate([scene.depth for scene in scenes]),
        visible=np.concatenate(visible) if extent == "visible" else None,
        attributes=dict(zip(ATTRIBUTES, attributes.T, strict=True)),
        attribute_names=ATTRIBUTES,
        mask_names=[_mask_name(name) for name in names] if has_masks else None,
        mask_value=np.concatenate([np.arange(1, n + 1) for n in counts]) if has_masks else None,
    )


def read_scenes(root: Path, split: str) -> Iterator[ClevrScene]:
    """Yields a split's scenes one by one; of the file, its bytes stay in memory, but not its values.

    Raises:
        InputError: see `read_clevr`.
    """
    path = _find_scenes(root, split)
    seen: set[str] = set()
    faults, count = Faults(str(path), of_one_file=True), 0
    document = decode_document(read_raw_json(path), _Scenes, path, "CLEVR's scenes")
    for number, values in decode_entries(document.scenes, dict[str, Any], "scene", faults):
        where, scene = f"scene {number}", None
        with faults.collecting():
            entry = parse(_SceneEntry, values, source=where)
            name = f"images/{split}/{entry.image_filename}"
            if name in seen:
                raise InputError(
                    f"{where} is for {quote(name)}, which an earlier scene is for too: remove one of them"
                )
            seen.add(name)
            scene = _parse_scene(entry, name, _size_of(root / name, where), where)
        if scene is not None:
            yield scene
        count += 1
    faults.stop_at_any()
    if not count:
        raise InputError(f"{path}: there are no scenes in it, the list 'scenes' is empty or missing")


def _size_of(image: Path, where: str) -> tuple[int, int]:
    try:
        return image_size(image)
    except InputError as error:
        raise InputError(f"{where} is for an image that can't be read: {error}") from None


def _boxes(root: Path, scene: ClevrScene, extent: Extent) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the boxes of a scene, and the visible share of each object."""
    count = len(scene.depth)
    if extent == "whole":
        return cover_pixels(project_boxes(scene.camera, scene.solids)), np.ones(count)
    path = root / _mask_name(scene.image_name)
    mask = read_mask(path, scene.camera.image_size, scene.image_name)
    if mask.max() > count:
        raise InputError(f"mask '{path}' has a value {mask.max()}, but its scene only {count} objects")
    boxes, pixels = mask_boxes(mask, count)
    return boxes, np.clip(pixels / np.maximum(silhouette_areas(scene.camera, scene.solids), 1), 0, 1)


def _categories(attributes: NDArray[np.int64], vocabulary: Vocabulary) -> NDArray[np.int64]:
    if vocabulary == "object":
        return np.zeros(len(attributes), dtype=np.int64)
    if vocabulary == "shape":
        return attributes[:, list(ATTRIBUTES).index("shape")]
    sides = [len(values) for values in ATTRIBUTES.values()]
    return np.asarray(np.ravel_multi_index(tuple(attributes.T), sides), dtype=np.int64)


def _find_scenes(root: Path, split: str) -> Path:
    return find_split_file(root, _SCENES, split, remark="CLEVR publishes none for its test split")


def _parse_scene(entry: _SceneEntry, name: str, image_size: tuple[int, int], where: str) -> ClevrScene:
    for number, item in enumerate(entry.objects):
        if item.point[2] <= 0:
            raise InputError(
                f"{where}, object {number} stands below the ground (3d_coords {item.point}): z must be above 0"
            )
    rows = [
        [_attribute(item, attribute, f"{where}, object {number}") for attribute in ATTRIBUTES]
        for number, item in enumerate(entry.objects)
    ]
    attributes = np.array(rows, dtype=np.int64).reshape(-1, len(ATTRIBUTES))
    points = np.array([item.point for item in entry.objects], dtype=np.float64).reshape(-1, 3)
    pixel_coords = np.array([item.pixel_coords for item in entry.objects], dtype=np.float64).reshape(-1, 3)
    camera = _fit_camera(points, pixel_coords, image_size, where)
    shapes = np.array(ATTRIBUTES["shape"])[attributes[:, list(ATTRIBUTES).index("shape")]]
    # Objects stand on the ground, so the height of the centre is half the size. The generator samples `rotation`
    # in degrees from [0, 360), but passes the number to Blender unconverted, which interprets it as radians.
    rotations = np.array([item.rotation for item in entry.objects], dtype=np.float64)
    solids = Solids(shapes, points, points[:, 2], rotations)
    return ClevrScene(name, camera, solids, pixel_coords[:, 2], attributes)


def _fit_camera(
    points: NDArray[np.float64], pixel_coords: NDArray[np.float64], image_size: tuple[int, int], where: str
) -> Camera:
    camera = recover_camera(points, pixel_coords, image_size)
    error = largest_error_px(camera, points, pixel_coords)
    if not error <= _MAX_ERROR_PX:
        size = f"{image_size[1]} x {image_size[0]}"
        raise InputError(
            f"{where}: its pixel_coords are not those of CLEVR's camera in an image of {size} (off by {error:.0f} "
            "pixels): use the images as they were rendered, neither resized nor cropped"
        )
    return camera


def _attribute(item: _ObjectEntry, attribute: str, place: str) -> int:
    key = "color" if attribute == "colour" else attribute
    value, known = getattr(item, key), ATTRIBUTES[attribute]
    if value not in known:
        hint = nearest(value[:100], known) or f"; CLEVR has {', '.join(known)}"
        raise InputError(f"{place}: unknown {key} {quote(value)}{hint}")
    return known.index(value)


def _mask_name(image_name: str) -> str:
    return "masks" + image_name.removeprefix("images")


LAYOUT = Layout(
    "CLEVR",
    is_clevr,
    clevr_splits,
    read_clevr,
    {"extent": EXTENTS, "vocabulary": tuple(VOCABULARIES)},
)
