"""Reads MOTChallenge folders: sequences of frames, `img1/`, whose objects have tracks, `gt/gt.txt`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable
from ssdir.data.clips import frame_rates_info
from ssdir.data.folders import find_folder, visible
from ssdir.data.frame_names import frame_numbers, numbered_names
from ssdir.data.image_files import is_image_name
from ssdir.data.images import image_size
from ssdir.data.readers.faults import Faults, note_if_any
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.motchallenge.lines import MotBoxes, read_mot_boxes
from ssdir.data.readers.splits import missing_split
from ssdir.data.readers.table_builder import read_names
from ssdir.data.sequence_info import SEQUENCE_FILE, SequenceInfo, read_sequence_info
from ssdir.errors import InputError
from ssdir.formatting import counted

TRUTH = "gt/gt.txt"
CLASS_NAMES = "gt/labels.txt"
"""The names of the classes, one per line, as CVAT writes them; without it, they are `MOT_CLASSES`."""

DETECTIONS = "det/det.txt"
UNNAMED = "object"
"""The class of boxes that have none."""

MOT_CLASSES = (
    "pedestrian",
    "person_on_vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non_motorized_vehicle",
    "static_person",
    "distractor",
    "occluder",
    "occluder_on_ground",
    "occluder_full",
    "reflection",
    "crowd",
)
"""The classes of MOT16 and later, from number 1."""

_WHOLE = "all"
# MOT17 has each sequence three times, with the detections of three detectors, but the same frames and tracks.
_OF_A_DETECTOR = re.compile(r"-(DPM|FRCNN|SDP)$")
# Recognising a layout must not take long, whatever folder it is.
_MAX_FOLDERS = 200


def is_motchallenge(root: Path) -> bool:
    """Returns whether a folder is a sequence, has sequences, or has folders of sequences."""
    folders = [root, *islice(_folders(root), _MAX_FOLDERS)]
    below = (each for folder in folders[1:] for each in islice(_folders(folder), _MAX_FOLDERS))
    return any(_is_sequence(folder) for folder in (*folders, *islice(below, _MAX_FOLDERS)))


def mot_splits(root: Path) -> list[str]:
    """Lists the splits, which are folders of sequences; without such folders, the only split is `all`.

    Splits without true boxes, as published for tests, are none, unless there are no others.
    """
    return list(_annotated(_sequences(root)))


def read_mot(root: Path, split: str) -> AnnotationTable:
    """Reads the sequences of a split as clips.

    A box whose conf is 0 is ignored. Classes are those of `gt/labels.txt`, else MOT16's, as far as they occur in
    any split; boxes without one are of the only class of `gt/labels.txt`, or else of the class `object`. Pixels
    count from 0, as the usual tools read them. `visible` is 1 where only some boxes have no visibility, and None
    where none has.

    Args:
        root: a sequence, a folder of sequences, or a folder of splits.
        split: one of `mot_splits`.

    Raises:
        MissingSplitError: if there is no such split.
        InputError: if no sequence has true boxes, or frames or files are missing or broken; it names the lines.
    """
    folder = find_folder(root)
    every = _sequences(folder)
    sequences = _annotated(every)
    if split not in sequences:
        raise missing_split(root, split, list(sequences), f"it would be a folder of sequences with {TRUTH}")
    faults = Faults(f"'{root}'")
    notes = note_if_any(f"splits without {TRUTH}, left out", [name for name in every if name not in sequences])
    chosen = _with_truth(sequences[split], notes)
    read = []
    for path in chosen:
        with faults.collecting():
            read.append(_read_sequence(path))
    faults.stop_at_any()
    names = _category_names([path for paths in sequences.values() for path in paths], read)
    return _table(folder, read, names, notes)


# Folders --------------------------------------------------------------------------------------------------


def _folders(folder: Path) -> list[Path]:
    """Lists the folders in a folder that can be read, by its entries alone: it may have a million images."""
    try:
        with os.scandir(folder) as entries:
            return sorted(visible(Path(entry.path) for entry in entries if entry.is_dir()))
    except OSError:
        return []


def _is_sequence(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (SEQUENCE_FILE, TRUTH, DETECTIONS))


def _sequences(root: Path) -> dict[str, list[Path]]:
    """Returns the sequences of each split."""
    if _is_sequence(root):
        return {_WHOLE: [root]}
    folders = _folders(root)
    if direct := [path for path in folders if _is_sequence(path)]:
        return {_WHOLE: direct}
    splits = {path.name: [each for each in _folders(path) if _is_sequence(each)] for path in folders}
    return {name: paths for name, paths in splits.items() if paths}


def _annotated(sequences: Mapping[str, list[Path]]) -> Mapping[str, list[Path]]:
    """Selects the splits of which some sequence has true boxes; all splits if none has."""
    annotated = {
        name: paths for name, paths in sequences.items() if any((path / TRUTH).is_file() for path in paths)
    }
    return annotated or sequences


def _with_truth(paths: Sequence[Path], notes: list[str]) -> list[Path]:
    """Selects the sequences that have true boxes, and one of those that differ in their detections alone."""
    chosen = [path for path in paths if (path / TRUTH).is_file()]
    if not chosen:
        found = f"{DETECTIONS} has detections, which are no annotations" if _has_detections(paths) else ""
        raise InputError(f"'{paths[0]}' has no {TRUTH}, nor has another sequence" + (found and f"; {found}"))
    if len(chosen) < len(paths):
        left = next(path.name for path in paths if path not in chosen)
        notes.append(f"sequences without {TRUTH}, left out: {len(paths) - len(chosen)} ('{left}')")
    single = {_OF_A_DETECTOR.sub("", path.name): path for path in reversed(chosen)}
    if len(single) < len(chosen):
        notes.append(
            f"sequences that differ in their detections alone, of which one is read: {len(chosen) - len(single)} "
            f"left out ('{next(path.name for path in chosen if path not in single.values())}')"
        )
    return [path for path in chosen if path in single.values()]


def _has_detections(paths: Sequence[Path]) -> bool:
    return any((path / DETECTIONS).is_file() for path in paths)


# Sequences ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Sequence:
    """A sequence with n frames and N boxes.

    Attributes:
        path: its folder.
        info: its description.
        frames: the images, in the order of time.
        sizes: int64 (n, 2), height and width.
        boxes: the true boxes.
        image: int64 (N,), position of each box's frame; -1 where the frame is missing.
        notes: what is unusual, as sentences.
    """

    path: Path
    info: SequenceInfo
    frames: list[Path]
    sizes: NDArray[np.int64]
    boxes: MotBoxes
    image: NDArray[np.int64]
    notes: list[str]


def _read_sequence(path: Path) -> _Sequence:
    info = read_sequence_info(path / SEQUENCE_FILE) if (path / SEQUENCE_FILE).is_file() else SequenceInfo()
    frames = _frames(path / info.image_folder)
    boxes = read_mot_boxes(path / TRUTH)
    _check_tracks(boxes, path / TRUTH)
    numbers, notes = _frame_numbers(frames, boxes)
    if (boxes.track == 0).any():
        boxes = replace(boxes, track=boxes.track + 1)
        notes.append(f"{TRUTH}: tracks are numbered from 0, and read as numbered from 1")
    place = {number: position for position, number in enumerate(numbers)}
    image = np.array([place.get(frame, -1) for frame in boxes.frame.tolist()], dtype=np.int64)
    lost = np.flatnonzero(image < 0)
    if len(lost):
        line, frame = boxes.line[lost[0]], boxes.frame[lost[0]]
        what = f"{TRUTH}: boxes in frames that have no image: {len(lost)} (line {line} is of frame {frame})"
        if len(lost) == len(image):
            raise InputError(f"'{path}': {what}")
        notes.append(f"{what}, left out")
    if info.length is not None and info.length != len(frames):
        notes.append(f"{SEQUENCE_FILE} says {counted(info.length, 'frame')}, but there are {len(frames):,}")
    sizes = [info.size or image_size(frame) for frame in frames]
    return _Sequence(path, info, frames, np.array(sizes, dtype=np.int64), boxes, image, notes)


def _frames(folder: Path) -> list[Path]:
    """Lists the frames in the order of the numbers in their names.

    Raises:
        InputError: if there are none.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is missing: the frames of the sequence must be there")
    images = [path for path in visible(folder.iterdir()) if is_image_name(path)]
    if not images:
        raise InputError(f"'{folder}' has no images: the frames of the sequence must be there")
    return sorted(images, key=_with_numbers)


def _with_numbers(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"([0-9]+)", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _frame_numbers(frames: Sequence[Path], boxes: MotBoxes) -> tuple[list[int], list[str]]:
    """Returns the number of each frame in gt.txt, see `frame_numbers`, and notes."""
    numbers = frame_numbers(frames, {*boxes.frame.tolist()})
    named, notes = numbered_names(frames), list[str]()
    if named is None:
        return numbers, notes
    if numbers != named:
        if numbers[0] - named[0] == numbers[-1] - named[-1] == 1:
            notes.append(f"images are numbered from 0, and taken for frames from 1 ('{frames[0].name}')")
        else:
            notes.append(f"images are taken in the order of their names, whose numbers {TRUTH} does not use")
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    if missing:
        first = next(number + 1 for number, after in pairwise(numbers) if after != number + 1)
        notes.append(
            f"frames that are missing: {missing} (the first is {first}); those around count as neighbours"
        )
    return numbers, notes


def _check_tracks(boxes: MotBoxes, path: Path) -> None:
    """Checks that each box has a track, and that no track has two boxes in a frame, but ignored ones."""
    faults = Faults(str(path), of_one_file=True)
    seen: dict[tuple[int, int], int] = {}
    columns = (column.tolist() for column in (boxes.line, boxes.frame, boxes.track, boxes.conf))
    for line, frame, track, conf in zip(*columns, strict=True):
        if track < 0:
            faults.add(f"line {line} has track {track}: true boxes need one, from 1")
        elif conf != 0 and (first := seen.setdefault((frame, track), line)) != line:
            faults.add(f"line {line} has another box of track {track} in frame {frame}, beside line {first}")
    faults.stop_at_any()


# The table ------------------------------------------------------------------------------------------------


def _category_names(paths: Sequence[Path], read: Sequence[_Sequence]) -> list[str]:
    """Returns the names of the classes of all splits, which must be the same for each."""
    known = {sequence.path: sequence.boxes for sequence in read}
    numbers: dict[Path, set[int]] = {path / CLASS_NAMES: set() for path in paths}
    for path in paths:
        if (path / TRUTH).is_file():
            boxes = known[path] if path in known else read_mot_boxes(path / TRUTH)
            numbers[path / CLASS_NAMES] = {*boxes.category.tolist()}
    return mot_class_names(numbers)


def mot_class_names(numbers: Mapping[Path, Set[int]]) -> list[str]:
    """Returns the names of the classes of sequences: those that are listed, then those of MOT16 by their numbers.

    Args:
        numbers: the classes that each sequence's boxes have, by the file that lists names, which may not be there.
    """
    labels = {path: read_names(path) for path in numbers if path.is_file()}
    unlabelled = {number for path, own in numbers.items() if path not in labels for number in own}
    names = [
        *(name for own in labels.values() for name in own),
        *(_class_name(number, MOT_CLASSES) for number in sorted(unlabelled - {0})),
        *(_class_name(0, labels.get(path, MOT_CLASSES)) for path, own in numbers.items() if 0 in own),
    ]
    return list(dict.fromkeys(names)) or [UNNAMED]


def _class_name(number: int, names: Sequence[str]) -> str:
    """Returns the name of a class from its number; one that has no name is called by its number.

    A box without a class is of the only class that there is, if there is one.
    """
    if number == 0:
        return names[0] if len(names) == 1 else UNNAMED
    return names[number - 1] if number <= len(names) else str(number)


def mot_categories(boxes: MotBoxes, text: Path, listed: Path, names: Sequence[str]) -> NDArray[np.int64]:
    """Returns the position of each box's class among `names`.

    Args:
        boxes: the boxes.
        text: their file, for errors.
        listed: the file with the names of the classes; where it is not there, they are `MOT_CLASSES`.
        names: the names, see `mot_class_names`.

    Raises:
        InputError: if there is such a file, and it does not name a class.
    """
    own = read_names(listed) if listed.is_file() else MOT_CLASSES
    unnamed = np.flatnonzero(boxes.category > len(own))
    if listed.is_file() and len(unnamed):
        line, number = boxes.line[unnamed[0]], boxes.category[unnamed[0]]
        raise InputError(f"{text}: line {line} has class {number}, but '{listed}' names {len(own)}")
    place = {number: _class_name(number, own) for number in {*boxes.category.tolist()}}
    return np.array([names.index(place[number]) for number in boxes.category.tolist()], dtype=np.int64)


def _categories(sequence: _Sequence, names: Sequence[str]) -> NDArray[np.int64]:
    path = sequence.path
    return mot_categories(sequence.boxes, path / TRUTH, path / CLASS_NAMES, names)


def _table(root: Path, read: Sequence[_Sequence], names: list[str], notes: list[str]) -> AnnotationTable:
    starts = np.cumsum([0, *(len(sequence.frames) for sequence in read)])
    found = [sequence.image >= 0 for sequence in read]
    image = [sequence.image + start for sequence, start in zip(read, starts[:-1].tolist(), strict=True)]
    columns = {
        name: np.concatenate([getattr(each.boxes, name)[kept] for each, kept in zip(read, found, strict=True)])
        for name in ("track", "boxes_px", "conf", "visible")
    }
    # A sequence may be a link to a folder whose name others have; only the root may be "." or "..".
    clip_names = [(root.resolve() / sequence.path.relative_to(root)).name for sequence in read]
    return AnnotationTable(
        root=root,
        sources=tuple(sequence.path / TRUTH for sequence in read),
        category_names=names,
        image_names=[frame.relative_to(root).as_posix() for sequence in read for frame in sequence.frames],
        image_sizes=np.concatenate([sequence.sizes for sequence in read]),
        image=np.concatenate([rows[kept] for rows, kept in zip(image, found, strict=True)]),
        category=np.concatenate([_categories(each, names)[kept] for each, kept in zip(read, found, strict=True)]),
        boxes_px=columns["boxes_px"],
        ignored=columns["conf"] == 0,
        visible=None if np.isnan(columns["visible"]).all() else np.nan_to_num(columns["visible"], nan=1.0),
        track_id=columns["track"],
        clip=np.repeat(np.arange(len(read)), [len(sequence.frames) for sequence in read]),
        clip_names=clip_names,
        info=frame_rates_info({name: each.info.frame_rate for name, each in zip(clip_names, read, strict=True)}),
        notes=(*notes, *(f"{each.path.name}: {note}" for each in read for note in each.notes)),
        sizes_from_files=all(sequence.info.size is None for sequence in read),
    )


LAYOUT = Layout("MOTChallenge", is_motchallenge, mot_splits, read_mot)
