"""Readers do not wait for a pipe in place of a file, which could block them for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ssdir.data.readers.registry import read_annotations
from ssdir.data.readers.tfrecord.multi_object import read_multi_object_images
from ssdir.errors import InputError

from .every_layout import every_layout


@every_layout
def test_pipes_are_not_waited_for(write: Callable[[Path], Path], tmp_path: Path) -> None:
    write(tmp_path)
    read = [path for path in sorted(tmp_path.rglob("*")) if path.suffix in (".json", ".txt", ".xml")]
    assert read
    for path in read:
        whole = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        with suppress(InputError):  # A label's place may be taken for an image without a label.
            read_annotations(tmp_path, "train")
        path.unlink()
        path.write_bytes(whole)


def test_a_pipe_is_no_file_of_records(tmp_path: Path) -> None:
    path = tmp_path / "tetrominoes_train.tfrecords"
    os.mkfifo(path)
    with pytest.raises(InputError, match="a pipe or a device, not a file"):
        list(read_multi_object_images(path))
