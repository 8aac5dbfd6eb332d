"""The files that an analysis writes: a table of the objects with added columns, and an image grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssdir.analysis.crops import crop_grid, read_crops
from ssdir.outputs import atomic_file, claim
from ssdir.plots.image_grids import to_png
from ssdir.store.objects_file import TABLE_SUFFIXES, StoredObjects, find_picture

ROWS, COLUMNS = 12, 10
"""Maximum rows and columns of an image grid."""


@dataclass(frozen=True)
class AnalysisOutput:
    """The files that an analysis writes; both paths are checked before any work is done.

    Attributes:
        table: a row per object, as `.parquet`, `.csv` or `.json`, see `StoredObjects.write`.
        image_grid: crops of objects, as `.png`; None writes none.
        force: replace existing files.

    Raises:
        InputError: as `claim`.
    """

    table: Path
    image_grid: Path | None = None
    force: bool = False

    def __post_init__(self) -> None:
        claim(self.table, self.force, TABLE_SUFFIXES)
        if self.image_grid is not None:
            claim(self.image_grid, self.force, (".png",))

    def write(
        self,
        stored: StoredObjects,
        added: Mapping[str, NDArray[np.generic]],
        grid_rows: Mapping[str, NDArray[np.int64]],
        caption: Callable[[int], str],
    ) -> None:
        """Writes the files.

        Args:
            stored: the objects.
            added: further columns, row-aligned.
            grid_rows: rows of the image grid by their title: which objects to show, the first ones of many.
            caption: what to write below an object, given its row of the table.

        Raises:
            InputError: as `atomic_file`.
        """
        stored.write(self.table, added, self.force)
        if self.image_grid is None:
            return
        folder = stored.info.around
        grid = []
        for title, members in [each for each in grid_rows.items() if len(each[1])][:ROWS]:
            shown = members[:COLUMNS]
            captions = [caption(row) for row in shown.tolist()]
            captions[0] = f"{title}: {captions[0]}"
            crops = read_crops(
                stored.table.take(shown), captions, lambda image: find_picture(image, ".", folder, beside=folder)
            )
            grid.append(crops)
        with atomic_file(self.image_grid, self.force) as temporary:
            temporary.write_bytes(to_png(crop_grid(grid, ["object"])))
