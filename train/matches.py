"""What a run's pairs were matched with, for objectives that match: `matches/step-0001234.parquet`, by rank 0.

A part holds the matches since the part before it, up to the steps it is named after, and is written before the
checkpoint of the same name: a resumed run drops what came after its checkpoint and says it again, so that all parts
together are those of a run that went through. An objective that matches nothing leaves no folder.
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from infra import storage
from pipeline.shards import read_parquet

FOLDER = "matches"
ROWS = pa.schema(
    [
        ("step", pa.int64()),  # steps taken, as in metrics.jsonl
        ("what", pa.string()),  # it was matched with: RoCLIP's "captions", "pictures"
        ("row", pa.int64()),  # of the pair that was matched
        ("match", pa.int64()),  # the row id of the other
    ]
)


class Book:
    """The matches since the last part, where the objective left them (on a GPU, which nothing here waits for)."""

    def __init__(self, run: str, step: int) -> None:
        """Forgets the parts after `step`."""
        self.folder = storage.join(run, FOLDER)
        self.pending: list[tuple[int, str, Tensor, Tensor]] = []
        for name in storage.names(self.folder):
            if _step(name) > step:
                storage.remove(storage.join(self.folder, name))

    def add(self, step: int, rows: Tensor, matches: dict[str, Tensor]) -> None:
        """rows, and each of `matches` by what was matched: int64 (N,), of the global batch."""
        self.pending += [(step, what, rows, found) for what, found in matches.items()]

    def take(self) -> pa.Table | None:
        """What a part holds now; the next one begins empty. None: there is nothing to write."""
        taken, self.pending = self.pending, []
        if not taken:
            return None
        steps, kinds, rows, matches = zip(*taken, strict=True)
        counts = [len(each) for each in rows]
        columns = [
            np.repeat(steps, counts),
            np.repeat(kinds, counts),
            *(torch.cat(ids).cpu() for ids in (rows, matches)),
        ]
        return pa.table([pa.array(np.asarray(column)) for column in columns], schema=ROWS)

    def write(self, step: int, part: pa.Table) -> None:
        """From any thread."""
        buffer = io.BytesIO()
        pq.write_table(part, buffer, compression="zstd")
        storage.write(storage.join(self.folder, f"step-{step:07d}.parquet"), buffer.getvalue())


def read(run: str) -> pa.Table:
    """Every match of a run, a table of ROWS in the order of the steps; empty where nothing was matched."""
    folder = storage.join(run, FOLDER)
    parts = [
        read_parquet(storage.read(storage.join(folder, name))) for name in sorted(storage.names(folder), key=_step)
    ]
    return pa.concat_tables(parts) if parts else ROWS.empty_table()


def _step(name: str) -> int:
    return int(name.removeprefix("step-").removesuffix(".parquet"))
