"""Reads `seqinfo.ini`, the description of a sequence in MOTChallenge's layout."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path

from ssdir.documents import read_text
from ssdir.errors import InputError

SEQUENCE_FILE = "seqinfo.ini"
IMAGE_FOLDER = "img1"
"""The folder of a sequence's frames, where its description names no other."""


@dataclass(frozen=True)
class SequenceInfo:
    """A sequence's description; a value is None where it is not given.

    Attributes:
        image_folder: name of the folder of its frames.
        frame_rate: frames per second.
        length: number of frames.
        size: height and width of the frames.
    """

    image_folder: str = IMAGE_FOLDER
    frame_rate: float | None = None
    length: int | None = None
    size: tuple[int, int] | None = None


def read_sequence_info(path: Path) -> SequenceInfo:
    """Reads a description; names of keys may be in any case.

    Raises:
        InputError: if the file can't be read, has no section `[Sequence]`, a value is no positive number, or the
            frames would lie elsewhere.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path))
    except configparser.Error as error:
        raise InputError(f"{path}: not the description of a sequence ({' '.join(str(error).split())})") from None
    if "Sequence" not in parser:
        raise InputError(f"{path}: not the description of a sequence (it has no section [Sequence])")
    about = parser["Sequence"]

    def positive(key: str) -> float | None:
        text = about.get(key)
        try:
            value = None if text is None else float(text)
        except ValueError:
            value = 0.0
        if value is not None and not 0 < value < 1 << 31:
            raise InputError(f"{path}: {key} is '{text}', expected a number above 0")
        return value

    image_folder = about.get("imDir", IMAGE_FOLDER).strip("/")
    if ".." in Path(image_folder).parts:
        raise InputError(f"{path}: imDir is '{image_folder}', expected a folder within the sequence")
    length, height, width = positive("seqLength"), positive("imHeight"), positive("imWidth")
    return SequenceInfo(
        image_folder,
        positive("frameRate"),
        None if length is None else int(length),
        None if height is None or width is None else (int(height), int(width)),
    )
