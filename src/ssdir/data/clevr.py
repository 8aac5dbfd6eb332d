"""CLEVR v1.0, and what its generator writes, in their own layout.

`<root>/scenes/CLEVR_<split>_scenes.json`, the images in `<root>/images/<split>/`, and optionally
`<root>/masks/<split>/<image name>`, whose value i + 1 marks the visible pixels of object i. The scenes hold
neither boxes nor a camera: `cameras` and `solids` work them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable
from ssdir.data.cameras import Camera, largest_error_px, recover_camera
from ssdir.data.images import image_size
from ssdir.data.masks import draw_order, mask_boxes, read_mask
from ssdir.data.solids import Solids, cover_pixels, project_boxes, silhouette_areas
from ssdir.data.split_files import find_split, list_splits
from ssdir.documents import stream_json
from ssdir.errors import InputError, nearest

ATTRIBUTES: dict[str, list[str]] = {
    "size": ["large", "small"],
    "colour": ["gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"],
    "material": ["rubber", "metal"],
    "shape": ["cube", "sphere", "cylinder"],
}
"""Names and values as the generator has them (there, `colour` is spelt `color`)."""

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


@dataclass(frozen=True, eq=False)
class ClevrScene:
    """One image and what stands in it.

    Attributes:
        image_name: relative to the root.
        camera: recovered from the objects.
        solids: the objects.
        depth: float (M,), of the centres, along the viewing direction.
        attributes: int64 (M, 4), index into the values of each of `ATTRIBUTES`.
    """

    image_name: str
    camera: Camera
    solids: Solids
    depth: NDArray[np.float64]
    attributes: NDArray[np.int64]


def is_clevr(root: str | Path) -> bool:
    """Whether a folder has CLEVR's layout."""
    folder = Path(root)
    return (folder / "images").is_dir() and bool(clevr_splits(root))


def clevr_splits(root: str | Path) -> list[str]:
    """The splits that have scenes."""
    return list_splits(root, _SCENES)


def read_clevr(
    root: str | Path, split: str, boxes: Extent = "whole", vocabulary: Vocabulary = "shape"
) -> AnnotationTable:
    """Reads a split: categories, boxes, depth and attributes of all objects, and where their masks are.

    `boxes="whole"` are those of the whole solid, hidden parts included, clipped to the image;
    `boxes="visible"` are read from the masks, as is then the `visible` share. Both are whole pixels. An object
    of which nothing is seen keeps its row and has a box without area. `draw_order` is by depth, farthest first.

    Raises:
        InputError: if a folder, file or image is missing, the JSON is invalid or not CLEVR's, the
            `pixel_coords` don't fit the images, or there are no masks for `boxes="visible"`.
    """
    folder = Path(root)
    has_masks = (folder / "masks" / split).is_dir()
    if boxes == "visible" and not has_masks:
        raise InputError(f"'{root}' has no masks/{split}, which visible boxes need: use boxes 'whole' instead")
    names: list[str] = []
    sizes: list[tuple[int, int]] = []
    columns: list[_Columns] = []
    for scene in read_scenes(folder, split):
        names.append(scene.image_name)
        sizes.append(scene.camera.image_size)
        columns.append(_columns(folder, scene, boxes))
    counts = [len(column.boxes) for column in columns]
    attributes = np.concatenate([column.attributes for column in columns])
    return AnnotationTable(
        root=folder,
        sources=(_find_scenes(folder, split),),
        category_names=VOCABULARIES[vocabulary],
        image_names=names,
        image_sizes=np.array(sizes, dtype=np.int64),
        image=np.repeat(np.arange(len(names)), counts),
        category=_categories(attributes, vocabulary),
        boxes_px=np.concatenate([column.boxes for column in columns]),
        ignored=np.zeros(sum(counts), dtype=np.bool_),
        draw_order=np.concatenate([column.draw_order for column in columns]),
        depth=np.concatenate([column.depth for column in columns]),
        visible=np.concatenate([column.visible for column in columns]) if boxes == "visible" else None,
        attributes=dict(zip(ATTRIBUTES, attributes.T, strict=True)),
        attribute_names=ATTRIBUTES,
        mask_names=[_mask_name(name) for name in names] if has_masks else None,
        mask_value=np.concatenate([np.arange(1, n + 1) for n in counts]) if has_masks else None,
    )


def read_scenes(root: str | Path, split: str) -> Iterator[ClevrScene]:
    """Yields a split's scenes one by one, without ever holding the whole file.

    Raises:
        InputError: see `read_clevr`.
    """
    folder = Path(root)
    path = _find_scenes(folder, split)
    seen: set[str] = set()
    for number, entry in enumerate(stream_json(path, "scenes.item")):
        where = f"{path}: scene {number}"
        name = f"images/{split}/{_value(entry, 'image_filename', str, where)}"
        if name in seen:
            raise InputError(f"{where} is for {name}, which an earlier scene is for too: remove one of them")
        seen.add(name)
        try:
            size = image_size(folder / name)
        except InputError as error:
            raise InputError(f"{where} is for an image that can't be read: {error}") from None
        yield _parse_scene(entry, name, size, where)
    if not seen:
        raise InputError(f"{path}: there are no scenes in it, the list 'scenes' is empty or missing")


@dataclass(frozen=True, eq=False)
class _Columns:
    """A scene's rows of the table."""

    boxes: NDArray[np.float64]
    visible: NDArray[np.float64]
    depth: NDArray[np.float64]
    draw_order: NDArray[np.int64]
    attributes: NDArray[np.int64]


def _columns(folder: Path, scene: ClevrScene, extent: Extent) -> _Columns:
    if extent == "whole":
        boxes, visible = cover_pixels(project_boxes(scene.camera, scene.solids)), np.ones(len(scene.depth))
    else:
        path, count = folder / _mask_name(scene.image_name), len(scene.depth)
        mask = read_mask(path, scene.camera.image_size, scene.image_name)
        if mask.max() > count:
            raise InputError(f"mask '{path}' has a value {mask.max()}, but its scene only {count} objects")
        boxes, pixels = mask_boxes(mask, count)
        visible = np.clip(pixels / np.maximum(silhouette_areas(scene.camera, scene.solids), 1), 0, 1)
    return _Columns(boxes, visible, scene.depth, draw_order(scene.depth), scene.attributes)


def _categories(attributes: NDArray[np.int64], vocabulary: Vocabulary) -> NDArray[np.int64]:
    if vocabulary == "object":
        return np.zeros(len(attributes), dtype=np.int64)
    if vocabulary == "shape":
        return attributes[:, list(ATTRIBUTES).index("shape")]
    sides = [len(values) for values in ATTRIBUTES.values()]
    return np.asarray(np.ravel_multi_index(tuple(attributes.T), sides), dtype=np.int64)


def _find_scenes(root: Path, split: str) -> Path:
    return find_split(root, _SCENES, split, remark="CLEVR publishes none for its test split")


def _parse_scene(entry: dict[str, Any], name: str, image_size: tuple[int, int], where: str) -> ClevrScene:
    objects = _value(entry, "objects", list, where)
    places = [f"{where}, object {i}" for i in range(len(objects))]
    points = _vectors(objects, "3d_coords", places)
    pixel_coords = _vectors(objects, "pixel_coords", places)
    attributes = np.zeros((len(objects), len(ATTRIBUTES)), dtype=np.int64)
    rotations = np.zeros(len(objects))
    for i, (item, place) in enumerate(zip(objects, places, strict=True)):
        attributes[i] = [_attribute(item, attribute, place) for attribute in ATTRIBUTES]
        rotations[i] = _value(item, "rotation", (int, float), place)
        if points[i, 2] <= 0:
            raise InputError(
                f"{place} stands below the ground (3d_coords {points[i].tolist()}): z must be above 0"
            )
    camera = _fit_camera(points, pixel_coords, image_size, where)
    shapes = np.array(ATTRIBUTES["shape"])[attributes[:, list(ATTRIBUTES).index("shape")]]
    # Objects stand on the ground, so the height of the centre is half the size. `rotation` is drawn as degrees
    # in [0, 360), but the generator hands it to Blender as it is, which takes radians.
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


def _value(entry: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind):
        got = "it is missing" if value is None else f"got {value!r:.60}"
        raise InputError(f"{where} has no valid '{key}' ({got}): these are not CLEVR scenes")
    return value


def _vectors(objects: list[Any], key: str, places: list[str]) -> NDArray[np.float64]:
    """A key's three numbers of every object, (M, 3)."""
    vectors = np.zeros((len(objects), 3))
    for i, (item, place) in enumerate(zip(objects, places, strict=True)):
        value = _value(item, key, list, place)
        try:
            vectors[i] = np.array(value, dtype=np.float64).reshape(3)
        except (TypeError, ValueError):
            vectors[i] = np.nan
        if not np.isfinite(vectors[i]).all():
            raise InputError(f"{place}: '{key}' must be three numbers, got {value!r:.60}")
    return vectors


def _attribute(item: Any, attribute: str, place: str) -> int:
    key = "color" if attribute == "colour" else attribute
    value, known = _value(item, key, str, place), ATTRIBUTES[attribute]
    if value not in known:
        hint = nearest(value, known) or f"; CLEVR has {', '.join(known)}"
        raise InputError(f"{place}: unknown {key} '{value}'{hint}")
    return known.index(value)


def _mask_name(image_name: str) -> str:
    return "masks" + image_name.removeprefix("images")
