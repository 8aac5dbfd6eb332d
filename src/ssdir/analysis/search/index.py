"""An index of encoded objects for nearest-neighbour search by the cosine of `z_what`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.analysis.search.files import (
    FORMAT_FILE,
    TABLE,
    IndexInfo,
    connect,
    lance,
    read_header,
    sole_writer,
    write_header,
)
from ssdir.analysis.search.rows import IDENTITY_COLUMNS, Rows, write_rows
from ssdir.console import Advance, no_progress
from ssdir.errors import InputError, nearest
from ssdir.formatting import quote
from ssdir.identity import Identity, check_comparable
from ssdir.inference.engines import load_identity
from ssdir.outputs import atomic_dir
from ssdir.store.info import StoreInfo, read_info
from ssdir.store.objects_file import find_picture

EXACT_UP_TO = 50_000
"""Number of rows up to which the search is exhaustive, which takes milliseconds and is exact."""
ROWS_PER_PARTITION = 1000
PROBED_SHARE = 0.04
LEAST_PROBED = 24
"""Partitions that are searched without a filter. A filter leaves fewer objects in each, and the nearest of them
lie further apart: as many more are searched then, up to all (`benchmarks/search.py` measures recall)."""


@dataclass(frozen=True)
class ObjectFilter:
    """A filter of objects by class, score and size.

    Attributes:
        classes: names of classes; empty for all.
        min_score: least score.
        min_size: least longer side, relative to the image's longer side.
        max_size: largest longer side.
    """

    classes: tuple[str, ...] = ()
    min_score: float | None = None
    min_size: float | None = None
    max_size: float | None = None

    def sql(self, class_names: Sequence[str]) -> str | None:
        """Returns the filter in SQL, made of numbers only: names are looked up, and never become part of it.

        Raises:
            InputError: if there is no class of a name, a limit is not a number, or no size is within the limits.
        """
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise InputError(f"no size is at least {self.min_size:g} and at most {self.max_size:g}")
        parts = []
        if self.classes:
            unknown = [name for name in self.classes if name not in class_names]
            if unknown:
                hint = nearest(unknown[0], class_names) or f"; it has {quote(', '.join(class_names), 200)}"
                raise InputError(f"the index has no class {quote(unknown[0])}{hint}")
            labels = sorted(class_names.index(name) for name in self.classes)
            parts.append(f"label IN ({', '.join(map(str, labels))})")
        limits = (("score", ">=", self.min_score), ("size", ">=", self.min_size), ("size", "<=", self.max_size))
        for column, sign, limit in limits:
            if limit is not None:
                if not math.isfinite(limit):
                    raise InputError(f"the limit of {column} must be a number, got {limit}")
                parts.append(f"{column} {sign} {float(limit)!r}")
        return " AND ".join(parts) or None


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest objects of one embedding, nearest first.

    Attributes:
        rows: int64 (n,), rows of the index.
        similarity: cosines, float32 (n,), at most 1.
        read: reads rows of the index, see `ObjectIndex.rows`.
    """

    rows: NDArray[np.int64]
    similarity: NDArray[np.float32]
    read: Callable[[Sequence[int]], pa.Table] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: NDArray[np.generic] | slice) -> Neighbours:
        """Selects neighbours by mask (n,), index or slice."""
        return Neighbours(self.rows[index], self.similarity[index], self.read)

    @cached_property
    def table(self) -> pa.Table:
        """A table with a row for each neighbour: image, box in pixels, class, score, size, z_depth, z_what.

        It is read when it is first used, because reading takes longer than the search.
        """
        return self.read(self.rows.tolist()).drop_columns(["row"])


class ObjectIndex:
    """An index of encoded objects in a folder (LanceDB, embedded: no server).

    Use `create` or `open`.
    """

    def __init__(self, path: Path, info: IndexInfo, table: Any) -> None:
        self.path, self.info, self._table = path, info, table
        self._count = int(table.count_rows())

    @classmethod
    def create(
        cls,
        path: str | Path,
        files: Sequence[str | Path],
        model: str | None = None,
        force: bool = False,
        on_progress: Advance = no_progress,
    ) -> Self:
        """Makes an index of files that `ssdir encode` wrote, whole or not at all.

        Args:
            path: the folder to make.
            files: the files, all of one model.
            model: the model, as `ssdir.load` takes it, where it has moved or the files no longer name it; it is
                loaded, and must be theirs.
            force: replace an existing index.
            on_progress: called with (objects done, all objects, what is being done).

        Raises:
            InputError: if a file is missing, damaged or of another model, or holds no objects; if an object, the
                same box in the same image, is given twice; as `atomic_dir`.
        """
        path = Path(path)
        infos = _read_infos(files, model)
        about = {name: getattr(infos[0], name) for name in Identity.model_fields}
        info = IndexInfo(**about, folder=str(Path.cwd()), checksums={})
        _check_same_model(info, infos)
        if not sum(each.objects for each in infos):
            raise InputError(f"'{files[0]}' holds no objects: nothing can be searched for")
        replaced = sole_writer(path) if force and (path / FORMAT_FILE).is_file() else nullcontext()
        with replaced, lance(path, "made"), atomic_dir(path, force) as folder:
            database = connect(folder)
            table = write_rows(partial(database.create_table, TABLE), Rows(infos, info), on_progress)
            _sort_into_partitions(table, on_progress)
            info = write_header(folder, info)
        return cls._of(path, info)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens an index.

        Raises:
            InputError: if there is none, or it is damaged.
        """
        return cls._of(Path(path), read_header(Path(path)))

    @classmethod
    def _of(cls, path: Path, info: IndexInfo) -> Self:
        with lance(path, "opened"):
            return cls(path, info, connect(path).open_table(TABLE))

    def __len__(self) -> int:
        return self._count

    def add(
        self, files: Sequence[str | Path], on_progress: Advance = no_progress, model: str | None = None
    ) -> None:
        """Adds the objects of more files of the same model.

        Args:
            files: files that `ssdir encode` wrote.
            on_progress: see `create`.
            model: see `create`.

        Raises:
            InputError: as `create`; if the index has an object already; if another command is writing to it.
        """
        infos = _read_infos(files, model)
        _check_same_model(self.info, infos)
        with sole_writer(self.path), lance(self.path, "extended"):
            self._table.checkout_latest()
            version, first = self._table.version, int(self._table.count_rows())
            rows = Rows(infos, self.info, first)
            indexed = self._table.search().select(list(IDENTITY_COLUMNS)).to_arrow()
            rows.note_indexed(indexed, self.image_path)
            try:
                write_rows(self._table.add, rows, on_progress)
                _sort_into_partitions(self._table, on_progress)
            except BaseException:
                self._table.restore(version)
                raise
            self.info = write_header(self.path, self.info)
            self._count = int(self._table.count_rows())

    def nearest(
        self, z_what: NDArray[np.floating[Any]], k: int = 10, where: ObjectFilter | None = None
    ) -> list[Neighbours]:
        """Searches for the `k` nearest objects of each embedding.

        Up to 50,000 objects, all are compared; in larger indexes, those in the partitions around the embedding.

        Args:
            z_what: float (D,) or (n, D).
            k: maximum number of neighbours.
            where: filter of the objects to search; None for all.

        Returns:
            The neighbours of each embedding, fewer than `k` where fewer objects pass the filter.

        Raises:
            InputError: if the embeddings have another size, or are not finite; as `ObjectFilter.sql`.
        """
        queries = np.atleast_2d(np.asarray(z_what, dtype=np.float32))
        if not np.isfinite(queries).all():
            raise InputError("an embedding to search for holds numbers that are not finite")
        if queries.shape[1] != self.info.latent_dim:
            raise InputError(
                f"embeddings of {queries.shape[1]} numbers don't fit an index of {self.info.latent_dim}: "
                "they are of another model"
            )
        condition = (where or ObjectFilter()).sql(self.info.class_names)
        with lance(self.path, "searched"):
            probed = self._probed(condition)
            return [self._nearest(query, k, condition, probed) for query in queries]

    def rows(self, rows: Sequence[int]) -> pa.Table:
        """Reads the objects of some rows, in their order.

        Raises:
            InputError: if there is no such row.
        """
        count = len(self)
        for row in rows:
            if not 0 <= row < count:
                raise InputError(f"the index has rows 0 ... {count - 1}, not {row}")
        with lance(self.path, "read"):
            if not len(rows):
                return self._table.search().limit(0).to_arrow()
            # Rows are only ever appended, so their numbers are their offsets, and no query is needed.
            records = self._table.take_offsets(list(rows)).to_arrow()
        place = {row: number for number, row in enumerate(records["row"].to_pylist())}
        return records.take([place[row] for row in rows])

    def image_path(self, image: str) -> Path:
        """Returns the file of an image, from the folder where the index was made or from the current one."""
        return find_picture(image, self.info.folder, ".")

    def _probed(self, condition: str | None) -> int | None:
        """Returns how many partitions to search, so that a filter leaves about as many objects to compare."""
        if len(self) <= EXACT_UP_TO:
            return None
        partitions = _partitions(len(self))
        probed = max(LEAST_PROBED, round(partitions * PROBED_SHARE))
        if condition is not None:
            probed = math.ceil(probed * len(self) / max(1, self._table.count_rows(condition)))
        return min(partitions, probed)

    def _nearest(
        self, z_what: NDArray[np.float32], k: int, condition: str | None, probed: int | None
    ) -> Neighbours:
        query = self._table.search(z_what, vector_column_name="z_what").distance_type("cosine").limit(k)
        if condition is not None:
            query = query.where(condition, prefilter=True)
        if probed is not None:
            query = query.nprobes(probed)
        records = query.select(["row", "_distance"]).to_arrow()
        similarity = 1 - records["_distance"].to_numpy().astype(np.float32)
        return Neighbours(records["row"].to_numpy(), similarity, self.rows)


def _read_infos(files: Sequence[str | Path], model: str | None) -> list[StoreInfo]:
    for number, file in enumerate(files):
        if Path(file) in map(Path, files[:number]):
            raise InputError(f"'{file}' is given twice")
    identity = load_identity(model)
    return [read_info(file, identity) for file in files]


def _partitions(count: int) -> int:
    return max(1, count // ROWS_PER_PARTITION)


def _sort_into_partitions(table: Any, on_progress: Advance) -> None:
    """Builds the search index of a large table; without it, all rows are compared."""
    count = table.count_rows()
    if count > EXACT_UP_TO:
        on_progress(0, count, "sorting into partitions")
        # Embeddings stay as they are, in partitions (IVF_FLAT): quantising them would lower recall, to save memory
        # that a million of them does not need.
        table.create_index(
            metric="cosine", vector_column_name="z_what", index_type="IVF_FLAT", num_partitions=_partitions(count)
        )


def _check_same_model(info: IndexInfo, others: Sequence[StoreInfo]) -> None:
    for other in others:
        name = f"'{other.path}' (model {quote(other.model)})"
        check_comparable(other, name, info, f"the index (model {quote(info.model)})")
        if list(other.class_names) != list(info.class_names):
            raise InputError(
                f"'{other.path}' has other classes than the index: make an index of its own for each detector"
            )
