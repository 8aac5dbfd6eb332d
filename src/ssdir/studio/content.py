"""The content of the studio's components, as plain dictionaries.

Every image is part of the page, as a data URI: the browser has no file to ask for.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ssdir.data.images import Image8, shrink
from ssdir.formatting import counted
from ssdir.objects import Objects, Scene
from ssdir.plots import to_pixels, to_png
from ssdir.plots.image_grids import BOX_COLOURS
from ssdir.studio.collection import CROP_SIDE, Collection, ObjectMap
from ssdir.studio.images import EncodedImage, depth_ranks

Content: TypeAlias = dict[str, Any]
"""The `props.value` of a component, which the first lines of its JavaScript (`assets/`) describe."""

EMPTY_MAP: Content = {"points": [], "titles": [], "atlas": "", "tile": 1, "columns": 1, "colourings": {}}
"""A map before its content is known."""

_ATLAS_COLUMNS = 48
_THUMB_SIDE = 192
_ORDINALS = {1: "nearest", 2: "2nd nearest", 3: "3rd nearest"}


def data_uri(image: Image8) -> str:
    """Encodes an image uint8 (H, W, 3) as a PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(to_png(image)).decode()


def introduction(about: str, samples: str) -> str:
    """Returns what the model and the samples are, and what to try, as HTML."""
    # Descriptions begin with what kind of model it is, or with the name of its recipe.
    data = about.partition(", ")[2]
    model = f"The model is trained on {data.removeprefix('trained on ')}. " if data else about
    hints = "Click a box to see its object alone, drag it in Edit, look for similar ones in Explore."
    return f"<p>{html.escape(model + samples)} {hints}</p>"


def warning(sentence: str) -> str:
    """Returns a sentence as a warning in Markdown."""
    return f"⚠ {html.escape(sentence[:1].upper() + sentence[1:])}"


def placeholder(title: str, note: str) -> Content:
    """Returns a boxed image without an image."""
    return {"title": title, "note": note, "image": "", "boxes": []}


def image_with_boxes(
    title: str,
    image: Image8,
    objects: Objects,
    names: Sequence[str],
    *,
    shape_of: Image8 | None = None,
    selected: int | None = None,
    moved_at: float | None = None,
    note: str = "",
) -> Content:
    """Returns an image with the boxes of its objects.

    Args:
        title: the text above it.
        image: uint8 (H, W, 3).
        objects: batch size 1.
        names: names of the objects.
        shape_of: the image whose proportions it is shown in: models reconstruct squares.
        selected: the highlighted row.
        moved_at: when the browser sent the last move that is shown; None if boxes can't be moved.
        note: the text below it.
    """
    height, width = (image if shape_of is None else shape_of).shape[:2]
    boxes = [
        {"z_where": [round(number, 5) for number in z_where], "title": name, "colour": colour_of(row)}
        for row, (z_where, name) in enumerate(zip(objects.z_where.tolist(), names, strict=True))
    ]
    return {
        "title": title,
        "alt": f"{title}: {counted(len(objects), 'object')}",
        "image": data_uri(image),
        "width": width,
        "height": height,
        "crisp": max(image.shape[:2]) <= 256,
        "boxes": boxes,
        "selected": selected,
        "moved_at": moved_at,
        "note": note,
    }


def colour_of(row: int) -> str:
    """Returns the colour of an object's box, the same wherever it is shown."""
    return BOX_COLOURS[row % len(BOX_COLOURS)]


def object_names(objects: Objects, class_names: Sequence[str]) -> list[str]:
    """Names each object, such as `1: seven, 97%`."""
    labels = ["object"] * len(objects)
    if objects.labels is not None:
        labels = [class_names[label] for label in objects.labels.tolist()]
    scores = [""] * len(objects)
    if objects.scores is not None:
        scores = [f", {score:.0%}" for score in objects.scores.tolist()]
    return [
        f"{row}: {label}{score}" for row, (label, score) in enumerate(zip(labels, scores, strict=True), start=1)
    ]


def object_cards(encoded: EncodedImage, class_names: Sequence[str], selected: int | None) -> Content:
    """Returns a card per object: decoded alone, its opacity, and its rank in depth.

    Args:
        encoded: the image.
        class_names: the classes of the model.
        selected: the highlighted row.
    """
    ranks = depth_ranks(encoded.objects)
    scene, cards = encoded.scene, []
    for row, name in enumerate(object_names(encoded.objects, class_names)):
        images = [_image(to_pixels(scene.appearances[row]), f"object {row + 1} decoded alone")]
        if scene.alpha is not None:
            images.append(_image(to_pixels(scene.alpha[row]), f"opacity of object {row + 1}"))
        lines = [_ORDINALS.get(ranks[row], f"{ranks[row]}th nearest")] if ranks else []
        cards.append({"images": images, "title": name, "lines": lines, "colour": colour_of(row)})
    empty = "No objects were detected in this image. Try another one, or a model trained on similar images."
    return {"cards": cards, "selected": selected, "empty": empty}


def small_cards(scene: Scene, names: Sequence[str], selected: int | None) -> Content:
    """Returns a small card per object, decoded alone."""
    cards = [
        {"images": [_image(to_pixels(appearance), name)], "title": str(row), "colour": colour_of(row - 1)}
        for row, (appearance, name) in enumerate(zip(scene.appearances, names, strict=True), start=1)
    ]
    return {"cards": cards, "selected": selected, "empty": "No objects."}


def end_cards(appearances: Tensor, end: float) -> Content:
    """Returns two small cards: an object at both ends of a component, float (2, 3, S, S)."""
    titles = (f"−{end:g}σ", f"+{end:g}σ")
    cards = [
        {"images": [_image(to_pixels(each), f"the object at {title}")], "title": title}
        for each, title in zip(appearances, titles, strict=True)
    ]
    return {"cards": cards, "selected": None, "empty": ""}


def image_cards(
    images: Sequence[Image8], names: Sequence[str], edited: Sequence[bool], selected: int | None = None
) -> Content:
    """Returns a card per image, to choose from; a line below those with edits says so."""
    cards = [
        {"images": [_image(shrink(_middle(image), _THUMB_SIDE), name)], "lines": ["edited"] if changed else []}
        for image, name, changed in zip(images, names, edited, strict=True)
    ]
    return {"cards": cards, "selected": selected, "empty": ""}


def neighbour_cards(collection: Collection, rows: Sequence[int], notes: Sequence[str]) -> Content:
    """Returns a card per object of a collection, each marked in its image."""
    cards = []
    for row, note in zip(rows, notes, strict=True):
        index = int(collection.objects.image_index[row])
        image = collection.image(index)
        shown = (
            np.full((_THUMB_SIDE, _THUMB_SIDE, 3), 200, np.uint8) if image is None else shrink(image, _THUMB_SIDE)
        )
        box = collection.objects.z_where[row].tolist()
        lines = [note, "image not found"] if image is None else [note]
        marked = {**_image(shown, f"{collection.names[index]}, the object marked"), "box": box}
        cards.append({"images": [marked], "title": collection.names[index], "lines": lines})
    empty = "Click a point of the map: its nearest neighbours in the whole data set appear here, in their images."
    return {"cards": cards, "selected": None, "empty": empty}


def map_content(collection: Collection, objects_map: ObjectMap) -> Content:
    """Returns the map of a collection with all crops and colourings, so that the browser need not ask again."""
    objects = collection.objects[torch.from_numpy(objects_map.rows)]
    names = object_names(objects, collection.class_names)
    images = [collection.names[index] for index in objects.image_index.tolist()]
    errors = [None if np.isnan(error) else float(error) for error in objects_map.errors]
    colourings: dict[str, Content] = {}
    if objects.labels is not None and len(collection.class_names) > 1:
        colourings["class"] = {"values": objects.labels.tolist(), "names": list(collection.class_names)}
    clusters = [f"cluster {number + 1}" for number in range(int(objects_map.clusters.max()) + 1)]
    colourings["cluster"] = {"values": objects_map.clusters.tolist(), "names": clusters}
    colourings["size"] = _scale(objects_map.sides.tolist())
    if any(error is not None for error in errors):
        colourings["reconstruction error"] = _scale(errors)
    return {
        "points": np.round(objects_map.points, 5).tolist(),
        "titles": [f"{name.split(': ', 1)[1]} in {image}" for name, image in zip(names, images, strict=True)],
        "atlas": data_uri(_atlas(objects_map.crops)),
        "tile": CROP_SIDE,
        "columns": _ATLAS_COLUMNS,
        "colourings": colourings,
    }


def _middle(image: Image8) -> Image8:
    """Returns the square in the middle of an image."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _image(image: Image8, alt: str) -> Content:
    return {"source": data_uri(image), "alt": alt, "crisp": max(image.shape[:2]) <= 128}


def _scale(values: Sequence[float | None]) -> Content:
    """Returns a continuous colouring from the 2nd to the 98th percentile, so that outliers don't flatten it."""
    known = [value for value in values if value is not None]
    low, high = np.percentile(known, [2, 98])
    return {"values": list(values), "low": float(low), "high": float(high)}


def _atlas(crops: Image8) -> Image8:
    """Arranges all crops (n, T, T, 3) in one image, `_ATLAS_COLUMNS` in a row."""
    rows = -(-len(crops) // _ATLAS_COLUMNS)
    atlas = np.zeros((rows * _ATLAS_COLUMNS, *crops.shape[1:]), np.uint8)
    atlas[: len(crops)] = crops
    tiles = atlas.reshape(rows, _ATLAS_COLUMNS, CROP_SIDE, CROP_SIDE, 3)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4)).reshape(rows * CROP_SIDE, -1, 3)
