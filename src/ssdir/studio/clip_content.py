"""The content of the tab Clip, as plain dictionaries: frames to play, cards of tracks and of one track's views."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ssdir.analysis.crops import crop_around
from ssdir.data.images import Image8, shrink
from ssdir.formatting import counted
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.plots import to_pixels
from ssdir.studio import content
from ssdir.studio.clip import Clip
from ssdir.studio.collection import decode_alone
from ssdir.studio.content import Content

PLAYED_SIDE = 480
"""Maximum side, in pixels, of a frame that is played."""

_FRAMES_PER_SECOND = 10
_JPEG_QUALITY = 85
_AT_ONCE = 16
_CROP_SIDE = 96
_MISSING = np.full((_CROP_SIDE, _CROP_SIDE, 3), 200, dtype=np.uint8)


def player_content(clip: Clip, predictor: Predictor) -> Content:
    """Returns the frames that are played, with boxes and decoded objects: playing asks the server for nothing."""
    frames, size = [], (1, 1)
    for number, reconstruction in zip(clip.frames.tolist(), _reconstructions(clip, predictor), strict=True):
        image = clip.collection.image(number)
        if image is not None:
            size = image.shape[:2]
        frames.append(
            {
                "image": "" if image is None else _jpeg(shrink(image, PLAYED_SIDE)),
                "reconstruction": _jpeg(reconstruction),
                "title": clip.frame_title(number),
                "boxes": _boxes(clip, number),
            }
        )
    height, width = size
    return {"frames": frames, "width": width, "height": height, "rate": _FRAMES_PER_SECOND}


def summary(clip: Clip) -> str:
    """Returns how many tracks and frames there are, and which of them are shown."""
    total, missing = len(clip.collection.names), clip.collection.num_missing
    text = f"{counted(clip.num_tracks, 'track')} in {counted(total, 'frame')}."
    if clip.step > 1:
        text += (
            f" {len(clip.frames):,} of the frames are played: the clip is long, so one of every {clip.step} is."
        )
    if missing:
        text += f" {counted(missing, 'frame')} can't be read: give the folder of the clip with `--images`."
    return text


def track_cards(clip: Clip, predictor: Predictor, followed: int | None = None) -> Content:
    """Returns a card for each of the longest tracks: its clearest view, and the object decoded from it."""
    tracks = clip.longest
    lines = []
    for track in tracks:
        rows = clip.rows_of(track)
        first, last = clip.objects.image_index[rows[[0, -1]]].tolist()
        lines.append([counted(len(rows), "view"), f"{clip.frame_title(first)} to {clip.frame_title(last)}"])
    cards = _view_cards(clip, predictor, [clip.clearest(track) for track in tracks])
    for card, track, about in zip(cards, tracks, lines, strict=True):
        card |= {"title": f"track {track}", "lines": about, "colour": content.colour_of(track - 1)}
    selected = tracks.index(followed) if followed in tracks else None
    return {"cards": cards, "selected": selected, "empty": "There are no tracks."}


def view_cards(clip: Clip, predictor: Predictor, track: int | None) -> Content:
    """Returns a card for each shown view of a track: its crop, and the object decoded from its embedding."""
    empty = "Click a box or a track: the views of the object through the clip appear here."
    if track is None:
        return {"cards": [], "selected": None, "empty": empty}
    rows = clip.shown_views(track).tolist()
    cards = _view_cards(clip, predictor, rows)
    for card, row in zip(cards, rows, strict=True):
        about = [] if clip.objects.visible is None else [f"{float(clip.objects.visible[row]):.0%} visible"]
        if not clip.is_clear(row):
            about.append("not a clear view")
        card |= {"title": clip.frame_title(int(clip.objects.image_index[row])), "lines": about}
    return {"cards": cards, "selected": None, "empty": empty}


def followed_title(clip: Clip, track: int | None) -> str:
    """Returns the heading above the views of the followed track, in Markdown."""
    if track is None:
        return "#### Views of a track"
    total, shown = len(clip.rows_of(track)), len(clip.shown_views(track))
    return f"#### Track {track}: {counted(total, 'view')}" + (f", {shown} of them shown" if shown < total else "")


def path_note(clip: Clip, track: int | None, on_map: int) -> str:
    """Returns how much of a track's path is on the map, which may be of a sample of all views."""
    if track is None:
        return "Follow a track: its views are joined in the order of time, from the square to the ring."
    total = len(clip.rows_of(track))
    views = counted(total, "view") if on_map == total else f"{on_map:,} of its {counted(total, 'view')}"
    return f"Track {track}: {views} in the order of time, from the square to the ring."


def _boxes(clip: Clip, number: int) -> list[Content]:
    rows = np.flatnonzero(clip.objects.image_index.numpy() == number)
    names = content.object_names(clip.objects[torch.from_numpy(rows)], clip.collection.class_names)
    boxes = []
    for row, name in zip(rows.tolist(), names, strict=True):
        track = int(clip.track_id[row])
        z_where = [round(value, 5) for value in clip.objects.z_where[row].tolist()]
        title = f"track {track}: {name.split(': ', 1)[1]}"
        boxes.append({"z_where": z_where, "track": track, "title": title, "colour": content.colour_of(track - 1)})
    return [box for box in boxes if box["track"]]


def _view_cards(clip: Clip, predictor: Predictor, rows: Sequence[int]) -> list[Content]:
    """Returns cards with a crop and the decoded object, in the order of the rows."""
    order = np.argsort(rows, kind="stable")
    decoded = decode_alone(predictor, clip.objects[torch.as_tensor(np.asarray(rows, dtype=np.int64)[order])])
    cards: list[Content] = [{} for _ in rows]
    for place, appearance in zip(order.tolist(), decoded, strict=True):
        crop = _crop(clip, rows[place])
        cards[place] = {
            "images": [
                {"source": _jpeg(crop), "alt": "the object in its frame", "crisp": max(crop.shape[:2]) <= 48},
                {"source": content.data_uri(to_pixels(appearance)), "alt": "decoded alone", "crisp": True},
            ]
        }
    return cards


def _crop(clip: Clip, row: int) -> Image8:
    image = clip.collection.image(int(clip.objects.image_index[row]))
    if image is None:
        return _MISSING
    height, width = image.shape[:2]
    box = clip.objects.boxes[row].numpy() * np.array([width, height, width, height])
    return shrink(_square(crop_around(image, box.tolist())[0]), _CROP_SIDE)


def _square(crop: Image8) -> Image8:
    """Pads a crop with grey to a square, because cards show squares."""
    side = max(crop.shape[:2])
    square = np.full((side, side, 3), 128, dtype=np.uint8)
    top, left = (side - crop.shape[0]) // 2, (side - crop.shape[1]) // 2
    square[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return square


def _reconstructions(clip: Clip, predictor: Predictor) -> Iterator[Image8]:
    """Decodes the objects of the frames that are played, a few frames at once."""
    index = clip.objects.image_index.numpy()
    for start in range(0, len(clip.frames), _AT_ONCE):
        numbers: NDArray[np.int64] = clip.frames[start : start + _AT_ONCE]
        rows = np.flatnonzero(np.isin(index, numbers))
        part = clip.objects[torch.from_numpy(rows)]
        place = torch.from_numpy(np.searchsorted(numbers, index[rows]))
        objects: Objects = part.replace(image_index=place, batch_size=len(numbers))
        yield from (to_pixels(each) for each in predictor.decode(objects).reconstructions)


def _jpeg(image: Image8) -> str:
    """Encodes an image uint8 (H, W, 3) as a JPEG in a data URI: a clip's PNGs would be several times as large."""
    encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
