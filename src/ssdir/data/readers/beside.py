"""Labels that lie beside their images, as desktop tools save them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ssdir.data.folders import visible
from ssdir.data.image_files import is_image_name

# Recognising a layout must not take long, whatever folder it is.
_MAX_FOLDERS = 200
_MAX_DEPTH = 2


def labels_beside(root: Path, suffix: str) -> Iterator[Path]:
    """Yields the files of a suffix that have the name of an image beside them.

    Searches the folder, those in it, and those in them, but not all where there are very many.
    """
    folders = [(root, 0)] if root.is_dir() else []
    searched = 0
    while folders and searched < _MAX_FOLDERS:
        folder, depth = folders.pop(0)
        searched += 1
        if not os.access(folder, os.R_OK | os.X_OK):
            continue
        paths = sorted(visible(folder.iterdir()))
        stems = {path.stem for path in paths if is_image_name(path)}
        yield from (path for path in paths if path.suffix.lower() == suffix and path.stem in stems)
        if depth < _MAX_DEPTH:
            folders += [(path, depth + 1) for path in paths if path.is_dir()]
