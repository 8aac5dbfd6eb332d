"""What the studio's components are given to show: plain dictionaries, pictures as PNG inside them.

Every picture travels inside the page, as a data URI: there is no file for a browser to ask for.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ssdir.data.images import Image8
from ssdir.formatting import counted
from ssdir.objects import Objects, Scene
from ssdir.plots import to_png
from ssdir.plots.image_grids import BOX_COLOURS
from ssdir.studio.collection import CROP_SIDE, Collection, ObjectMap
from ssdir.studio.look import Look, depth_ranks

View: TypeAlias = dict[str, Any]
"""What the JavaScript of a component (`assets/`) reads as `props.value`; its first lines say what is in it."""

_ATLAS_COLUMNS = 48
_THUMB_SIDE = 192
_ORDINALS = {1: "nearest", 2: "2nd nearest", 3: "3rd nearest"}


def data_uri(picture: Image8) -> str:
    """A picture uint8 (H, W, 3) as a PNG inside a URI."""
    return "data:image/png;base64," + base64.b64encode(to_png(picture)).decode()


def pixels(image: Tensor) -> Image8:
    """A picture float (C, H, W) in [0, 1], C being 1 or 3, as uint8 (H, W, 3)."""
    scaled = (image.detach().clamp(0, 1) * 255).round().byte().expand(3, -1, -1)
    return np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())


def nothing(title: str, note: str) -> View:
    """A stage without a picture."""
    return {"title": title, "note": note, "picture": "", "boxes": []}


def stage(
    title: str,
    picture: Image8,
    objects: Objects,
    names: Sequence[str],
    *,
    selected: int | None = None,
    proportions: Image8 | None = None,
    editable: bool = False,
    placed: float = 0,
    note: str = "",
) -> View:
    """A picture with its objects' boxes.

    Args:
        title: above it.
        picture: uint8 (H, W, 3).
        objects: batch size 1.
        names: of the objects.
        selected: the row that stands out.
        proportions: a picture whose proportions to take; models draw squares.
        editable: whether boxes can be dragged.
        placed: when the browser sent the last place that is shown.
        note: below it.
    """
    height, width = (picture if proportions is None else proportions).shape[:2]
    boxes = [
        {"z_where": [round(number, 5) for number in z_where], "title": name, "colour": colour_of(row)}
        for row, (z_where, name) in enumerate(zip(objects.z_where.tolist(), names, strict=True))
    ]
    return {
        "title": title,
        "alt": f"{title}: {counted(len(objects), 'object')}",
        "picture": data_uri(picture),
        "width": width,
        "height": height,
        "crisp": max(picture.shape[:2]) <= 256,
        "boxes": boxes,
        "selected": selected,
        "editable": editable,
        "placed": placed,
        "note": note,
    }


def colour_of(row: int) -> str:
    """Of an object's box, wherever it is shown."""
    return BOX_COLOURS[row % len(BOX_COLOURS)]


def object_names(objects: Objects, class_names: Sequence[str]) -> list[str]:
    """`1: seven, 97 %` for each object; without the class where there is but one."""
    labels = ["object"] * len(objects)
    if objects.labels is not None:
        labels = [class_names[label] for label in objects.labels.tolist()]
    scores = [""] * len(objects)
    if objects.scores is not None:
        scores = [f", {score:.0%}" for score in objects.scores.tolist()]
    return [
        f"{row}: {label}{score}" for row, (label, score) in enumerate(zip(labels, scores, strict=True), start=1)
    ]


def object_cards(look: Look, class_names: Sequence[str], spread: Tensor, selected: int | None) -> View:
    """A card per object: drawn alone, its opacity, where it is unsure, and how near it is."""
    ranks = depth_ranks(look.objects)
    scene, cards = look.scene, []
    # One scale for all, so that a sure object looks sure; a spread of an eighth of full intensity is white.
    bright = (spread * 8).clamp(0, 1)
    for row, name in enumerate(object_names(look.objects, class_names)):
        alpha = None if scene.alpha is None else scene.alpha[row]
        pictures = [_picture(pixels(scene.appearances[row]), f"object {row + 1} decoded alone")]
        if alpha is not None:
            pictures.append(_picture(pixels(alpha), f"opacity of object {row + 1}"))
        pictures.append(_picture(pixels(bright[row][None]), f"where object {row + 1} is uncertain"))
        lines = [f"uncertainty {float(spread[row].mean()):.3f}"]
        if ranks:
            lines.insert(0, _ORDINALS.get(ranks[row], f"{ranks[row]}th nearest"))
        cards.append({"pictures": pictures, "title": name, "lines": lines, "colour": colour_of(row)})
    empty = "Nothing was found in this picture. Try another, or a model that was trained on pictures like it."
    return {"cards": cards, "selected": selected, "empty": empty}


def small_cards(scene: Scene, names: Sequence[str], selected: int | None) -> View:
    """A small card per object, drawn alone."""
    cards = [
        {"pictures": [_picture(pixels(appearance), name)], "title": str(row), "colour": colour_of(row - 1)}
        for row, (appearance, name) in enumerate(zip(scene.appearances, names, strict=True), start=1)
    ]
    return {"cards": cards, "selected": selected, "empty": "No objects."}


def picture_cards(images: Sequence[Image8], names: Sequence[str], selected: int | None = None) -> View:
    """Pictures to choose from."""
    cards = [
        {"pictures": [_picture(thumbnail(image), name)], "lines": []}
        for image, name in zip(images, names, strict=True)
    ]
    return {"cards": cards, "selected": selected, "empty": ""}


def neighbour_cards(
    collection: Collection, rows: Sequence[int], notes: Sequence[str], class_names: Sequence[str]
) -> View:
    """Objects of a collection, each marked in its picture."""
    cards = []
    for row, note in zip(rows, notes, strict=True):
        index = int(collection.objects.image_index[row])
        picture = collection.picture(index)
        shown = np.full((_THUMB_SIDE, _THUMB_SIDE, 3), 200, np.uint8) if picture is None else thumbnail(picture)
        box = collection.objects.z_where[row].tolist()
        lines = [note, "picture not found"] if picture is None else [note]
        marked = {**_picture(shown, f"{collection.names[index]}, the object marked"), "box": box}
        cards.append({"pictures": [marked], "title": collection.names[index], "lines": lines})
    empty = "Click a point of the map: the objects most like it, in the whole set, appear here in their pictures."
    return {"cards": cards, "selected": None, "empty": empty}


def map_view(collection: Collection, objects_map: ObjectMap) -> View:
    """The map of a collection, with everything that a browser needs to zoom, colour and show crops by itself."""
    objects = collection.objects[torch.from_numpy(objects_map.rows)]
    names = object_names(objects, collection.class_names)
    images = [collection.names[index] for index in objects.image_index.tolist()]
    errors = [None if np.isnan(error) else float(error) for error in objects_map.errors]
    colourings: dict[str, View] = {}
    if objects.labels is not None and len(collection.class_names) > 1:
        colourings["class"] = {"values": objects.labels.tolist(), "names": list(collection.class_names)}
    clusters = [f"group {number + 1}" for number in range(int(objects_map.clusters.max()) + 1)]
    colourings["cluster"] = {"values": objects_map.clusters.tolist(), "names": clusters}
    colourings["size"] = _scale(objects_map.sides.tolist())
    if any(error is not None for error in errors):
        colourings["drawing error"] = _scale(errors)
    return {
        "points": np.round(objects_map.points, 5).tolist(),
        "titles": [f"{name.split(': ', 1)[1]} in {image}" for name, image in zip(names, images, strict=True)],
        "atlas": data_uri(_atlas(objects_map.crops)),
        "tile": CROP_SIDE,
        "columns": _ATLAS_COLUMNS,
        "colourings": colourings,
    }


def thumbnail(image: Image8) -> Image8:
    """A picture reduced to at most `_THUMB_SIDE` pixels a side; small ones stay as they are."""
    reduced = Image.fromarray(image)
    reduced.thumbnail((_THUMB_SIDE, _THUMB_SIDE))
    return np.array(reduced)


def _picture(picture: Image8, alt: str) -> View:
    return {"source": data_uri(picture), "alt": alt, "crisp": max(picture.shape[:2]) <= 128}


def _scale(values: Sequence[float | None]) -> View:
    """A continuous colouring, from the 2nd to the 98th percentile: one outlier should not grey all others."""
    known = [value for value in values if value is not None]
    low, high = np.percentile(known, [2, 98])
    return {"values": list(values), "low": float(low), "high": float(high)}


def _atlas(crops: Image8) -> Image8:
    """All crops (n, T, T, 3) in one picture, `_ATLAS_COLUMNS` in a row."""
    rows = -(-len(crops) // _ATLAS_COLUMNS)
    atlas = np.zeros((rows * _ATLAS_COLUMNS, *crops.shape[1:]), np.uint8)
    atlas[: len(crops)] = crops
    tiles = atlas.reshape(rows, _ATLAS_COLUMNS, CROP_SIDE, CROP_SIDE, 3)
    return np.ascontiguousarray(tiles.transpose(0, 2, 1, 3, 4)).reshape(rows * CROP_SIDE, -1, 3)
