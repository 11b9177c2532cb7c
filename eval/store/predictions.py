"""What a model answered, a table a cell, beside the scores: `predictions/CELL.parquet` holds what every number of
`CELL.json` was computed from. And the map of embeddings: where images lie, clean and under an attack.

Columns of all tables: `kind` (`clean`, `triggered`, `caption`, `pair`) and `image`, the sha256 of the stored image, of
a triggered one before the attack, of a caption that of its image; of a pair `row`, its row id. Then the task's own:
`label`, `wanted` (class numbers; label -1: of no class that the test set has), `top` (the nearest classes, nearest
first, -1: none), `scores` of these, `rank` (1 is best), `poisoned`, `similarity`. What does not apply is null.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eval.task import Answers, Embedded
from infra import storage
from infra.errors import Damaged

FOLDER = "predictions"
MAP = pa.schema(
    [
        ("image", pa.string()),
        ("kind", pa.string()),
        ("label", pa.int64()),
        ("x", pa.float32()),
        ("y", pa.float32()),
    ]
)


def place(folder: str, cell: str) -> str:
    """Of the table of a cell. folder: of the scores; cell: the cell's file, `....json`."""
    return storage.join(folder, FOLDER, f"{cell.removesuffix('.json')}.parquet")


def table(embedded: Embedded, answers: list[Answers]) -> pa.Table:
    owners = embedded.captions.owners if embedded.captions is not None else np.empty(0, np.int64)
    images = {
        "clean": embedded.names,
        "triggered": embedded.attacked.names if embedded.attacked is not None else embedded.names[:0],
        "caption": embedded.names[owners] if len(embedded.names) else embedded.names,
    }
    parts = []
    for one in answers:
        columns = {"kind": pa.array([one.kind] * _rows(one), pa.string())}
        if len(names := images.get(one.kind, ())):
            columns["image"] = pa.array(names, pa.string())
        columns |= {name: _column(values) for name, values in one.columns.items()}
        parts.append(pa.table(columns))
    return pa.concat_tables(parts, promote_options="default").combine_chunks()


def write(url: str, rows: pa.Table, about: Mapping[str, Any]) -> None:
    """about: what the table is of, in the schema's metadata, as JSON under `antidote`. Same input, same bytes."""
    buffer = io.BytesIO()
    said = rows.replace_schema_metadata({"antidote": json.dumps(about, sort_keys=True)})
    pq.write_table(said, buffer, compression="zstd")
    storage.write(url, buffer.getvalue())


def read(url: str) -> tuple[pa.Table, dict[str, Any]]:
    """A table, and what it is of: run, checkpoint, testset, task, attack, seed, `classes` (names by number).

    Raises Damaged for a file that is no table.
    """
    try:
        found = pq.read_table(io.BytesIO(storage.read(url)))
    except pa.ArrowInvalid as error:
        raise Damaged(f"{url} is damaged: {error}") from error
    return found, json.loads((found.schema.metadata or {}).get(b"antidote", b"{}"))


def maps(folder: str) -> dict[str, tuple[pa.Table, dict[str, Any]]]:
    """Every map of embeddings of a folder of scores (MAP), by its file, and what it is of."""
    home = storage.join(folder, FOLDER)
    names = [name for name in storage.names(home) if name.startswith("map-") and name.endswith(".parquet")]
    found = {name: read(storage.join(home, name)) for name in names}
    for name, (_, about) in found.items():
        storage.holding(storage.join(home, name), about, "run", "checkpoint", "testset", "attack", "classes", "target")
    return found


def _rows(answers: Answers) -> int:
    return len(next(iter(answers.columns.values())))


def _column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    offsets = pa.array(np.arange(0, values.size + 1, values.shape[1]), pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
