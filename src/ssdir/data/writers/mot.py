"""Writes the clips of a split in the MOTChallenge layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable
from ssdir.data.clips import frame_rate
from ssdir.data.sequence_info import IMAGE_FOLDER, SEQUENCE_FILE

# Tools read the frame rate, so seqinfo.ini has one even where it is unknown.
_USUAL_FRAME_RATE = 30


def write_mot(folder: Path, split: str, table: AnnotationTable, file_names: Sequence[str]) -> None:
    """Writes `<split>/<clip>/seqinfo.ini`, `gt/gt.txt` and `gt/labels.txt` of each clip.

    A line of gt.txt is frame, track, left, top, width, height, 1 (0 if ignored), class, visible share.
    Frames, tracks and classes count from 1, pixels from 0. labels.txt has the name of a class per line, as CVAT
    writes it. seqinfo.ini has the frames' size if all have the same.

    Args:
        folder: the data set.
        split: name of the split.
        table: annotations with clips and tracks.
        file_names: the images' names relative to the split's folder: `<clip>/img1/000001.png`, ....
    """
    assert table.clip is not None
    assert table.clip_names is not None
    assert table.track_id is not None
    first, counts = np.unique(table.clip, return_index=True, return_counts=True)[1:]
    order = np.lexsort((table.track_id, table.image))
    lines = _lines(table, first)
    for clip, (start, count) in enumerate(zip(first.tolist(), counts.tolist(), strict=True)):
        made = folder / split / table.clip_names[clip]
        (made / "gt").mkdir(parents=True, exist_ok=True)
        rows = order[(table.image[order] >= start) & (table.image[order] < start + count)]
        (made / "gt" / "gt.txt").write_text("".join(f"{lines[row]}\n" for row in rows.tolist()), "utf-8")
        (made / "gt" / "labels.txt").write_text("".join(f"{name}\n" for name in table.category_names), "utf-8")
        sizes = np.unique(table.image_sizes[start : start + count], axis=0).tolist()
        suffix = PurePosixPath(file_names[start]).suffix
        info = {
            "name": table.clip_names[clip],
            "imDir": IMAGE_FOLDER,
            "frameRate": f"{frame_rate(table, table.clip_names[clip]) or _USUAL_FRAME_RATE:g}",
            "seqLength": count,
            **({"imWidth": sizes[0][1], "imHeight": sizes[0][0]} if len(sizes) == 1 else {}),
            "imExt": suffix,
        }
        text = "[Sequence]\n" + "".join(f"{key}={value}\n" for key, value in info.items())
        (made / SEQUENCE_FILE).write_text(text, "utf-8")


def frame_name(clip: str, frame: int, suffix: str = ".png") -> str:
    """Returns the name of a clip's image relative to its split; `frame` counts from 0."""
    return f"{clip}/{IMAGE_FOLDER}/{frame + 1:06d}{suffix}"


def _lines(table: AnnotationTable, first: NDArray[np.int64]) -> list[str]:
    assert table.clip is not None
    assert table.track_id is not None
    frames = table.image - first[table.clip[table.image]] + 1
    visible = np.ones(len(table.image)) if table.visible is None else table.visible
    boxes = np.concatenate([table.boxes_px[:, :2], table.boxes_px[:, 2:] - table.boxes_px[:, :2]], axis=1)
    return [
        f"{frame},{track},{','.join(f'{side:.10g}' for side in box)},{int(not ignored)},{category + 1},{share:.6g}"
        for frame, track, box, ignored, category, share in zip(
            frames.tolist(),
            table.track_id.tolist(),
            boxes.tolist(),
            table.ignored.tolist(),
            table.category.tolist(),
            visible.tolist(),
            strict=True,
        )
    ]
