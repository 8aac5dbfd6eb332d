"""An index of encoded objects for nearest-neighbour search by the cosine of `z_what`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.analysis.search.filters import ObjectFilter
from ssdir.analysis.search.folders import IndexFolder, LocalFolder, lance
from ssdir.analysis.search.header import IndexInfo, check_files, read_header, renew_stamps, write_header
from ssdir.analysis.search.keys import KEY, repeated
from ssdir.analysis.search.plan import SearchPlan, upkeep
from ssdir.analysis.search.remote import RemoteFolder
from ssdir.analysis.search.rows import Rows, write_rows
from ssdir.analysis.tracks import has_tracks
from ssdir.console import Advance, no_progress
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.identity import Identity, check_comparable
from ssdir.inference.engines import load_identity
from ssdir.storage import Location, to_location
from ssdir.store.info import StoreInfo, folder_around, read_info
from ssdir.store.objects_file import find_picture


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

    def __init__(self, folder: IndexFolder, info: IndexInfo) -> None:
        self._folder = folder
        with lance(folder, "opened"):
            self._table = folder.connect().open_table(info.table)
            self._use(info)

    def _use(self, info: IndexInfo) -> None:
        """Reads from the version of the table that the header names, until `add` writes another one."""
        self.info = info
        self._table.checkout(info.version)
        self._count = int(self._table.count_rows())
        self._plan = SearchPlan.of(info.partitioned, info.latent_dim)

    @classmethod
    def create(
        cls,
        path: str | Path,
        files: Sequence[str | Path],
        model: str | None = None,
        force: bool = False,
        on_progress: Advance = no_progress,
        per_view: bool = False,
    ) -> Self:
        """Makes an index of files that `ssdir encode` or `ssdir track` wrote, whole or not at all.

        Where the files have tracks, a row of the index is a track, see `ssdir.analysis.tracks`.

        Args:
            path: the folder to make, or its URI in object storage.
            files: the files, all of one model.
            model: the model, as `ssdir.load` takes it, where it has moved or the files no longer name it; it is
                loaded, and must be theirs.
            force: replace an existing index.
            on_progress: called with (objects done, all objects, what is being done).
            per_view: index every view of a track on its own.

        Raises:
            InputError: if a file is missing, damaged or of another model, or holds no objects; if some files have
                tracks and others none; if an object, the same box in the same image, is given twice; as
                `atomic_dir`.
        """
        folder = folder_of(path)
        infos = _read_infos(files, model)
        about = {name: getattr(infos[0], name) for name in Identity.model_fields}
        info = IndexInfo(
            **about,
            entries="tracks" if not per_view and any(map(has_tracks, infos)) else "objects",
            folder=str(Path.cwd()),
            table=folder.new_table(),
            version=0,
            partitioned=0,
            files={},
        )
        _check_same_model(info, infos)
        rows = Rows(infos, info)
        if not rows.total:
            raise InputError(f"'{files[0]}' holds no {info.entries}: nothing can be searched for")
        with lance(folder, "made"), folder.making(force) as new:
            table = write_rows(partial(new.connect().create_table, info.table), rows, on_progress)
            _refuse_repeated(table, rows)
            info = write_header(new, _with_partitions(table, info, on_progress))
        return cls(folder, info)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens an index.

        Its files must be there in their sizes; what is read of them is said by `check_files`.

        Raises:
            InputError: if there is none, or it is damaged.
        """
        folder = folder_of(path)
        info = read_header(folder)
        check_files(folder, info)
        return cls(folder, info)

    def check(self) -> None:
        """Reads every file of the index, and compares it with its checksum.

        In a copy of an index, whose files are of another time, later openings need not read them again.

        Raises:
            InputError: if a file is missing or has changed.
        """
        check_files(self._folder, self.info, read_all=True)
        with suppress(InputError), self._folder.sole_writer():  # where the index may be written to
            if read_header(self._folder) == self.info:
                self.info = renew_stamps(self._folder, self.info)

    @property
    def path(self) -> str:
        """The folder of the index."""
        return self._folder.name

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
        with self._folder.sole_writer(), lance(self._folder, "extended"):
            info, table = read_header(self._folder), self._table
            try:
                table.checkout_latest()
                if table.version != info.version:  # A command has not ended: its rows don't count.
                    table.restore(info.version)
                rows = Rows(infos, info, int(table.count_rows()))
                write_rows(table.add, rows, on_progress)
                _refuse_repeated(table, rows)
                if table.count_rows() != rows.first + rows.total:
                    raise InputError(f"another command is writing to '{self._folder.name}': run this one again")
                info = write_header(self._folder, _with_partitions(table, info, on_progress))
            finally:
                self._use(info)

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
            InputError: if embeddings have another size, are not finite or all zeros; as `ObjectFilter.sql`.
        """
        queries = np.atleast_2d(np.asarray(z_what, dtype=np.float32))
        if not np.isfinite(queries).all():
            raise InputError("an embedding to search for holds numbers that are not finite")
        if not queries.any(axis=1).all():
            raise InputError("an embedding to search for holds zeros alone, which is like nothing")
        if queries.shape[1] != self.info.latent_dim:
            raise InputError(
                f"embeddings of {queries.shape[1]} numbers don't fit an index of {self.info.latent_dim}: "
                "they are of another model"
            )
        condition = (where or ObjectFilter()).sql(self.info.class_names)
        with lance(self._folder, "searched"):
            share = 1.0 if condition is None else self._table.count_rows(condition) / max(1, len(self))
            return [self._nearest(query, k, condition, share) for query in queries]

    def rows(self, rows: Sequence[int]) -> pa.Table:
        """Reads the objects of some rows, in their order.

        Raises:
            InputError: if there is no such row.
        """
        count = len(self)
        for row in rows:
            if not 0 <= row < count:
                raise InputError(f"the index has rows 0 ... {count - 1}, not {row}")
        with lance(self._folder, "read"):
            if not len(rows):
                return self._table.search().limit(0).to_arrow().drop_columns([KEY])
            # Rows are only ever appended, so their numbers are their offsets, and no query is needed.
            records = self._table.take_offsets(list(rows)).to_arrow().drop_columns([KEY])
        place = {row: number for number, row in enumerate(records["row"].to_pylist())}
        return records.take([place[row] for row in rows])

    def image_path(self, image: str) -> Location:
        """Returns the file of an image, from the folder where the index was made, the current one or its own."""
        return find_picture(image, self.info.folder, ".", beside=folder_around(to_location(self.path)))

    def _nearest(self, z_what: NDArray[np.float32], k: int, condition: str | None, share: float) -> Neighbours:
        query = self._table.search(z_what, vector_column_name="z_what").distance_type("cosine").limit(k)
        if condition is not None:
            query = query.where(condition, prefilter=True)
        if self._plan.partitions:
            query = query.nprobes(self._plan.probed_of(share))
        if (factor := self._plan.refine_factor(k)) is not None:
            query = query.refine_factor(factor)
        records = query.select(["row", "_distance"]).to_arrow()
        similarity = np.minimum(1 - records["_distance"].to_numpy().astype(np.float32), 1)  # It is rounded.
        return Neighbours(records["row"].to_numpy(), similarity, self.rows)


def folder_of(path: str | Path) -> IndexFolder:
    """Returns the folder of an index, which may be in object storage."""
    location = to_location(path)
    return LocalFolder(location) if isinstance(location, Path) else RemoteFolder(location)


def _read_infos(files: Sequence[str | Path], model: str | None) -> list[StoreInfo]:
    for number, file in enumerate(files):
        if to_location(file) in map(to_location, files[:number]):
            raise InputError(f"'{file}' is given twice")
    identity = load_identity(model)
    return [read_info(file, identity) for file in files]


def _with_partitions(table: Any, info: IndexInfo, on_progress: Advance) -> IndexInfo:
    """Divides the objects of a large table into partitions, and returns the header of its new version."""
    count, partitioned = int(table.count_rows()), info.partitioned
    unassigned = sum(int(table.index_stats(index.name).num_unindexed_rows) for index in table.list_indices())
    todo = upkeep(count, partitioned, unassigned)
    if todo == "make":
        on_progress(0, count, "making partitions")
        table.create_index("z_what", config=SearchPlan.of(count, info.latent_dim).lance_config(), replace=True)
        partitioned = count
    elif todo == "assign":
        on_progress(0, count, "assigning to partitions")
        table.optimize()
    return info.model_copy(update={"version": table.version, "partitioned": partitioned})


def _refuse_repeated(table: Any, rows: Rows) -> None:
    """Raises an error if an object of the new rows is in the index twice."""
    found = repeated(table, rows.first)
    if found is None:
        return
    source, before = rows.source(found[0]), rows.source(found[1])
    assert source is not None
    path = rows.files[source[0]].path
    both = table.take_offsets([*found]).to_arrow().to_pylist()
    named = {each["row"]: quote(each["image"]) for each in both}
    image, other = (named[row] for row in found)
    if image != other:
        image += f", another name of {other}"
    if before is None:
        raise InputError(
            f"the index has objects of '{path}' already, such as one of {image}: add what is new only"
        )
    if before[0] == source[0]:
        same = f"{rows.name(*source)} is the same as {rows.name_in_file(*before)}"
        raise InputError(
            f"{same}, an object of {image}: encode each image once, or leave out rows that repeat others"
        )
    path_before = rows.files[before[0]].path
    raise InputError(
        f"'{path}' has objects of '{path_before}' again, such as one of {image}: index each image once"
    )


def _check_same_model(info: IndexInfo, others: Sequence[StoreInfo]) -> None:
    for other in others:
        name = f"'{other.path}' (model {quote(other.model)})"
        check_comparable(other, name, info, f"the index (model {quote(info.model)})")
        if list(other.class_names) != list(info.class_names):
            raise InputError(
                f"'{other.path}' has other classes than the index: make an index of its own for each detector"
            )
