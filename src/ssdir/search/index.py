"""An index of encoded objects: which are nearest to a code, by the cosine of their `z_what`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ssdir.errors import InputError, nearest
from ssdir.inference.store import StoreInfo, comparable, read_batches, read_info
from ssdir.outputs import atomic_dir

OnProgress: TypeAlias = Callable[[int, int, str], None]

FORMAT = 1
FORMAT_FILE = "ssdir.json"
TABLE = "objects"

EXACT_UP_TO = 50_000
"""Rows up to which every one is compared: that takes milliseconds, and no part of the answer is missed."""
ROWS_PER_PARTITION = 1000
PROBED_SHARE = 0.04
LEAST_PROBED = 24
"""Partitions that are looked into, where all objects count. A filter leaves fewer in each, and the nearest of them
lie further apart: as many more partitions are looked into, up to all (`benchmarks/search.py` measures recall)."""

_PLACE = ("image", "box_x1", "box_y1", "box_x2", "box_y2")
_KEPT = (
    *("image", "image_index", "image_height", "image_width", "box_x1", "box_y1", "box_x2", "box_y2"),
    *("class", "label", "score", "z_what", "z_depth"),
)


@dataclass(frozen=True)
class ObjectFilter:
    """Which objects count.

    Attributes:
        classes: names of classes; empty for all.
        min_score: least score.
        min_size: least longer side, relative to the image's longer side.
        max_size: largest.
    """

    classes: tuple[str, ...] = ()
    min_score: float | None = None
    min_size: float | None = None
    max_size: float | None = None

    def sql(self, class_names: Sequence[str]) -> str | None:
        """The filter in SQL, made of numbers only: names are looked up, and never become part of it.

        Raises:
            InputError: if there is no class of a name, a limit is not a number, or no size is within the limits.
        """
        if self.min_size is not None and self.max_size is not None and self.min_size > self.max_size:
            raise InputError(f"no size is at least {self.min_size:g} and at most {self.max_size:g}")
        parts = []
        if self.classes:
            unknown = [name for name in self.classes if name not in class_names]
            if unknown:
                raise InputError(f"the index has no class '{unknown[0]}'{nearest(unknown[0], class_names)}")
            labels = sorted(class_names.index(name) for name in self.classes)
            parts.append(f"label IN ({', '.join(map(str, labels))})")
        limits = (("score", ">=", self.min_score), ("size", ">=", self.min_size), ("size", "<=", self.max_size))
        for column, sign, limit in limits:
            if limit is not None:
                if not math.isfinite(limit):
                    raise InputError(f"the limit of {column} must be a number, got {limit}")
                parts.append(f"{column} {sign} {float(limit)!r}")
        return " AND ".join(parts) or None


@dataclass(frozen=True)
class IndexInfo:
    """What an index holds.

    Attributes:
        model: the model that made the codes, as `ssdir.load` takes it.
        class_names: its classes.
        latent_dim: size D of `z_what`.
        folder: what the images' relative paths start from.
        fingerprint: digest of the model's weights; empty where it isn't known.
    """

    model: str
    class_names: list[str]
    latent_dim: int
    folder: str
    fingerprint: str = ""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest objects of one code, nearest first.

    Attributes:
        rows: of the index, int64 (n,).
        similarity: cosines, float32 (n,), at most 1.
        read: reads rows of the index, see `ObjectIndex.rows`.
    """

    rows: NDArray[np.int64]
    similarity: NDArray[np.float32]
    read: Callable[[Sequence[int]], pa.Table] = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: NDArray[np.generic] | slice) -> Neighbours:
        """Selects some, by mask (n,), by index, or by slice."""
        return Neighbours(self.rows[index], self.similarity[index], self.read)

    @cached_property
    def table(self) -> pa.Table:
        """A row for each: image, box in pixels, class, score, size, z_depth, z_what.

        Read when it is first asked for: that takes longer than finding them.
        """
        return self.read(self.rows.tolist()).drop_columns(["row"])


class ObjectIndex:
    """Encoded objects in a folder of their own (LanceDB, embedded: no server), to be made, extended and asked.

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
        on_progress: OnProgress | None = None,
    ) -> Self:
        """Makes an index of files that `ssdir encode` wrote, whole or not at all.

        Args:
            path: the folder to make.
            files: of one model.
            model: the model, as `ssdir.load` takes it; by default as the files say.
            force: replace an existing index.
            on_progress: called with objects done, of how many, and what is being done.

        Raises:
            InputError: if a file is missing, damaged, of another model or given twice, or holds no objects; as
                `atomic_dir`.
        """
        _check_given_once(files)
        infos = [read_info(file) for file in files]
        one = infos[0]
        info = IndexInfo(model or one.model, one.class_names, one.latent_dim, str(Path.cwd()), one.fingerprint)
        _check_same_model(info, infos, files)
        if not sum(each.objects for each in infos):
            raise InputError(f"'{files[0]}' holds no objects: nothing can be searched for")
        with atomic_dir(path, force) as folder:
            database = _connect(folder)
            table = _write(partial(database.create_table, TABLE), files, info.latent_dim, 0, on_progress)
            _sort_into_partitions(table, on_progress)
            header = {"format": FORMAT, **asdict(info)}
            (folder / FORMAT_FILE).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Opens an index.

        Raises:
            InputError: if there is none, or it is damaged.
        """
        path = Path(path)
        file = path / FORMAT_FILE
        if not file.is_file():
            problem = "is not an index" if path.exists() else "does not exist"
            raise InputError(f"'{path}' {problem}: make one with ssdir index OBJECTS.parquet --out {path}")
        try:
            header = json.loads(file.read_text(encoding="utf-8"))
            if header.pop("format") != FORMAT:
                raise InputError(f"'{path}' is of another ssdir: make it again with ssdir index --force")
            return cls(path, IndexInfo(**header), _connect(path).open_table(TABLE))
        except (ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"'{path}' is damaged: make it again with ssdir index --force") from error

    def __len__(self) -> int:
        return self._count

    def add(self, files: Sequence[str | Path], on_progress: OnProgress | None = None) -> None:
        """Adds the objects of more files of the same model.

        Args:
            files: that `ssdir encode` wrote.
            on_progress: as of `create`.

        Raises:
            InputError: as `create`; if the index has objects of a file already: of the same box in the same image.
        """
        _check_same_model(self.info, [read_info(file) for file in files], files)
        _check_given_once(files)
        self._check_new(files)
        version = self._table.version
        try:
            _write(self._table.add, files, self.info.latent_dim, len(self), on_progress)
            _sort_into_partitions(self._table, on_progress)
        except BaseException:
            self._table.restore(version)
            raise
        self._count = int(self._table.count_rows())

    def _check_new(self, files: Sequence[str | Path]) -> None:
        """Refuses objects that the index has already: each would be nearest to its double."""
        had = self._table.search().select(list(_PLACE)).to_arrow()
        for file in files:
            for batch in read_batches(file):
                same_images = had.filter(pc.is_in(had["image"], batch.column("image")))
                double = _places(same_images) & _places(pa.Table.from_batches([batch]))
                if double:
                    raise InputError(
                        f"the index has objects of '{file}' already, such as one of '{min(double)[0]}': "
                        "add what is new only"
                    )

    def nearest(
        self, z_what: NDArray[np.floating[Any]], k: int = 10, where: ObjectFilter | None = None
    ) -> list[Neighbours]:
        """The `k` nearest objects of each code.

        Up to 50,000 objects every one is compared; beyond, those in the partitions around the code.

        Args:
            z_what: float (D,) or (n, D).
            k: how many at most.
            where: which count; None for all.

        Returns:
            One for each code, with fewer than `k` rows where fewer count.

        Raises:
            InputError: if the codes have another size; as `ObjectFilter.sql`.
        """
        codes = np.atleast_2d(np.asarray(z_what, dtype=np.float32))
        if codes.shape[1] != self.info.latent_dim:
            raise InputError(
                f"codes of {codes.shape[1]} numbers don't fit an index of {self.info.latent_dim}: "
                "they are of another model"
            )
        condition = (where or ObjectFilter()).sql(self.info.class_names)
        probed = self._probed(condition)
        return [self._nearest(code, k, condition, probed) for code in codes]

    def rows(self, rows: Sequence[int]) -> pa.Table:
        """The objects of some rows, in their order.

        Raises:
            InputError: if there is no such row.
        """
        count = len(self)
        for row in rows:
            if not 0 <= row < count:
                raise InputError(f"the index has rows 0 ... {count - 1}, not {row}")
        if not len(rows):
            return self._table.search().limit(0).to_arrow()
        # Rows are only ever appended, so that their numbers are where they lie: none is searched for.
        found = self._table.take_offsets(list(rows)).to_arrow()
        place = {row: number for number, row in enumerate(found["row"].to_pylist())}
        return found.take([place[row] for row in rows])

    def image_path(self, image: str) -> Path:
        """Where a picture should be: as it was given, or from the folder where the index was made."""
        path = Path(image)
        return path if path.exists() else Path(self.info.folder) / path

    def _probed(self, condition: str | None) -> int | None:
        """Partitions to look into, so that about as many objects are compared with a filter as without."""
        if len(self) <= EXACT_UP_TO:
            return None
        partitions = _partitions(len(self))
        probed = max(LEAST_PROBED, round(partitions * PROBED_SHARE))
        if condition is not None:
            probed = math.ceil(probed * len(self) / max(1, self._table.count_rows(condition)))
        return min(partitions, probed)

    def _nearest(self, code: NDArray[np.float32], k: int, condition: str | None, probed: int | None) -> Neighbours:
        query = self._table.search(code, vector_column_name="z_what").distance_type("cosine").limit(k)
        if condition is not None:
            query = query.where(condition, prefilter=True)
        if probed is not None:
            query = query.nprobes(probed)
        found = query.select(["row", "_distance"]).to_arrow()
        similarity = 1 - found["_distance"].to_numpy().astype(np.float32)
        return Neighbours(found["row"].to_numpy(), similarity, self.rows)


def _connect(folder: Path) -> Any:
    try:
        import lancedb
    except ImportError as error:
        raise InputError("to search, LanceDB is needed: pip install 'ssdir[search]'") from error
    return lancedb.connect(folder)


def _schema(latent_dim: int) -> pa.Schema:
    kinds = {
        **dict.fromkeys(("row", "image_index"), pa.int64()),
        **dict.fromkeys(("image", "class"), pa.string()),
        **dict.fromkeys(("image_height", "image_width", "label"), pa.int32()),
        **dict.fromkeys(("box_x1", "box_y1", "box_x2", "box_y2", "score", "size", "z_depth"), pa.float32()),
        "z_what": pa.list_(pa.float32(), latent_dim),
    }
    return pa.schema([pa.field(name, kinds[name]) for name in ("row", *_KEPT, "size")])


def _write(
    write: Callable[[pa.RecordBatchReader], Any],
    files: Sequence[str | Path],
    latent_dim: int,
    first: int,
    on_progress: OnProgress | None,
) -> Any:
    """Gives the files' objects to one of LanceDB's writers, as the index holds them, numbered from `first`.

    Raises:
        InputError: as `read_batches`.
    """
    total = sum(read_info(file).objects for file in files)
    raised: list[InputError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        try:
            for batch in _batches(files, first):
                yield batch
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, total, "reading objects")
        except InputError as error:  # LanceDB makes an error of its own of it.
            raised.append(error)
            raise

    try:
        return write(pa.RecordBatchReader.from_batches(_schema(latent_dim), batches()))
    except RuntimeError:
        if raised:
            raise raised[0] from None
        raise


def _batches(files: Sequence[str | Path], first: int) -> Iterator[pa.RecordBatch]:
    for file in files:
        for batch in read_batches(file):
            number = pa.array(np.arange(first, first + len(batch)))
            columns = [batch.column(name) for name in _KEPT]
            fields = _schema(batch.schema.field("z_what").type.list_size)
            yield pa.RecordBatch.from_arrays([number, *columns, _sizes(batch)], schema=fields)
            first += len(batch)


def _check_given_once(files: Sequence[str | Path]) -> None:
    for number, file in enumerate(files):
        if Path(file) in map(Path, files[:number]):
            raise InputError(f"'{file}' is given twice")


def _places(table: pa.Table) -> set[tuple[Any, ...]]:
    """Image and box of each object."""
    return set(zip(*(table[name].to_pylist() for name in _PLACE), strict=True))


def _sizes(batch: pa.RecordBatch) -> pa.Array:
    """The boxes' longer sides, relative to the images' longer sides."""
    sides = [pc.subtract(batch.column(f"box_{axis}2"), batch.column(f"box_{axis}1")) for axis in "xy"]
    image = pc.max_element_wise(batch.column("image_height"), batch.column("image_width"))
    return pc.divide(pc.max_element_wise(*sides), image.cast(pa.float32()))


def _partitions(count: int) -> int:
    return max(1, count // ROWS_PER_PARTITION)


def _sort_into_partitions(table: Any, on_progress: OnProgress | None) -> None:
    """Prepares a large table for search; without it, all rows are compared."""
    count = table.count_rows()
    if count > EXACT_UP_TO:
        if on_progress is not None:
            on_progress(0, count, "sorting into partitions")
        # The codes stay as they are, in partitions (IVF_FLAT): quantised ones would cost recall, and save memory
        # that a million of them does not need.
        table.create_index(
            metric="cosine", vector_column_name="z_what", index_type="IVF_FLAT", num_partitions=_partitions(count)
        )


def _check_same_model(info: IndexInfo, others: Sequence[StoreInfo], files: Sequence[str | Path]) -> None:
    for other, file in zip(others, files, strict=True):
        if not comparable(other, info):
            raise InputError(
                f"'{file}' is of the model '{other.model}', the index of '{info.model}': "
                "codes of different models can't be compared, nor those of one that was trained again"
            )
        if list(other.class_names) != list(info.class_names):
            raise InputError(
                f"'{file}' has other classes than the index: make an index of its own for each detector"
            )
