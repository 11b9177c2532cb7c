"""Parquet files as Hugging Face's `datasets` writes them: of which split, what their columns are, their rows."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage
from pipeline.shards import MAX_ROWS

BATCH = 64  # rows held in memory
_OF_A_SPLIT = re.compile(r"(?:.*/)?(\w+)-\d{5}-of-\d{5}(?:-\w+)?\.parquet")


@dataclass(frozen=True)
class Parquet:
    """One file. stamp: what changes when the file does. Every method raises ValueError for a damaged one."""

    url: str
    stamp: str

    @cached_property
    def schema(self) -> pa.Schema:
        return self._opened().schema_arrow

    @cached_property
    def rows(self) -> int:
        count: int = self._opened().metadata.num_rows
        if count > MAX_ROWS:
            raise ValueError(f"{self.url} has {count:,} rows; at most {MAX_ROWS:,} are read")
        return count

    def read(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Row by row, a few at a time in memory."""
        try:  # in this thread alone: see shards.read_parquet
            for batch in self._opened().iter_batches(BATCH, columns=list(columns), use_threads=False):
                yield from batch.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _opened(self) -> pq.ParquetFile:
        path = storage.local(self.url)
        try:
            source = pa.memory_map(str(path)) if path is not None else pa.BufferReader(storage.read(self.url))
            return pq.ParquetFile(source, pre_buffer=False)
        except FileNotFoundError as error:
            raise ValueError(f"no parquet file at {self.url}") from error
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ValueError:
        return ValueError(f"{self.url} is not a readable parquet file: {str(error).splitlines()[0]}")


def files(url: str, split: str) -> list[Parquet]:
    """One file, or those of a folder; where their names say splits, those of `split`. All have the same columns.

    Raises ValueError where there are none, or of other splits alone.
    """
    folder, _, name = url.rpartition("/") if url.endswith(".parquet") else (url, "", "")
    stamps = {found: stamp for found, stamp in storage.stamps(folder or ".").items() if found.endswith(".parquet")}
    names = [found for found in stamps if not name or found == name]
    if not names:
        raise ValueError(f"no parquet file at {url}")
    splits = {found: _OF_A_SPLIT.fullmatch(found) for found in names}
    there = {match[1] for match in splits.values() if match}
    if not name and there:
        names = [found for found, match in splits.items() if match and match[1] == split]
        if not names:
            raise ValueError(
                f"{url} has no files of the split {split!r}: choose --split from {', '.join(sorted(there))}"
            )
    found = [Parquet(storage.join(folder or ".", one), stamps[one]) for one in names]
    for other in found[1:]:
        if other.schema.names != found[0].schema.names:
            raise ValueError(f"{other.url} has other columns than {found[0].url}")
    return found


def features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What `datasets` says of each column; {} where it says nothing."""
    try:
        told = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (ValueError, LookupError, TypeError):
        return {}
    return {name: about for name, about in told.items() if isinstance(about, dict)} if isinstance(told, dict) else {}


def column(file: Parquet, what: str, given: str | None, kind: str | None) -> str:
    """The column that a flag names, else the only one of that kind of feature, else the one named `what`.

    Raises ValueError that lists the choice.
    """
    there = file.schema.names
    of_kind = [name for name, about in features(file.schema).items() if kind and about.get("_type") == kind]
    found = given or (of_kind[0] if len(of_kind) == 1 else what)
    if found not in there:
        raise ValueError(f"{file.url} has no column {found!r}: choose --{what} from {', '.join(of_kind or there)}")
    return found


def class_names(file: Parquet, label: str) -> tuple[str, ...]:
    """Of a column of class labels; () where the file does not say them."""
    names = features(file.schema).get(label, {}).get("names")
    told = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if told else ()  # type: ignore[arg-type]
