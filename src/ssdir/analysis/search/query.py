"""The objects of a picture, encoded by the model of an index."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.analysis.search.table import IndexInfo
from ssdir.errors import InputError
from ssdir.identity import check_comparable
from ssdir.inference.engines import load_encoder
from ssdir.inference.files import encode_files
from ssdir.store.objects_file import ObjectWriter


def encode_query(
    info: IndexInfo,
    image: str,
    model: str | None = None,
    score_threshold: float | None = None,
    device: str | None = None,
) -> pa.Table:
    """The objects of a picture, by falling score, with the columns of stored ones and their `number`, from 0.

    Args:
        info: of the index, which names the model.
        image: path of the picture; `#K` at its end takes the Kth object only, from 0.
        model: where the model is now; None if it is where the index says.
        score_threshold: least score; None takes the model's.
        device: see `load_encoder`.

    Raises:
        InputError: if the picture can't be read, it has no such object, or the model is gone or another.
    """
    path, number = split_query(image)
    if not path.is_file():
        problem = "is a folder: give one picture of it" if path.is_dir() else "does not exist"
        raise InputError(f"picture '{path}' {problem}")
    try:
        encoder = load_encoder(model or info.model, None, device)
    except InputError as error:
        raise InputError(
            f"the model of the index can't be loaded ({error}): say where it is with --model"
        ) from error
    check_comparable(encoder, f"'{model or info.model}'", info, "the index")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "query.parquet"
        with ObjectWriter(file, info.model, encoder.class_names, info.latent_dim, encoder.fingerprint) as writer:
            for batch in encode_files(encoder, [path], strict=True, score_threshold=score_threshold):
                writer.write(batch.objects, batch.paths, batch.sizes)
        found = pq.read_table(file).sort_by([("score", "descending")])
    found = found.append_column("number", pa.array(range(len(found)), pa.int64()))
    if number is None:
        return found
    if number >= len(found):
        raise InputError(f"'{path}' has {len(found)} objects, there is no #{number}")
    return found.slice(number, 1)


def split_query(image: str) -> tuple[Path, int | None]:
    """`IMAGE#K` as path and number; a `#` of the file's own name is left alone."""
    if Path(image).exists():
        return Path(image), None
    path, mark, number = image.rpartition("#")
    return (Path(path), int(number)) if mark and number.isdecimal() else (Path(image), None)
