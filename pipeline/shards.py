"""A shard: a plain WebDataset tar of `KEY.jpg|png|webp`, `KEY.txt`, `KEY.json`, and an index of where each lies.

Ours are USTAR with mtime 0, so the same samples give the same bytes. Foreign ones (img2dataset, webdataset.ShardWriter)
are scanned header by header (pipeline.tars). Shards of labelled images, with `KEY.cls`, are always foreign to us.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import xxhash

from infra import storage
from infra.errors import Damaged
from pipeline.tars import scan

__all__ = ["Damaged", "Sample", "Written", "read_shard", "scan", "write_shard"]

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
SUCCESS = "success"
MAX_BYTES = {"image": 64 << 20, "text": 4 << 20, "json": 16 << 20, "label": 20}  # of one member, held in memory
MAX_DEPTH = 50  # of a KEY.json; Python gives up at 1,000, sooner or later by where it is called from
MAX_ROWS = 20_000_000  # of one parquet file; a few kilobytes can claim billions
INDEX = pa.schema(
    [
        ("row", pa.int64()),  # the row's number in its source table: the identity of a pair
        ("outcome", pa.string()),  # "success", or why the row is not in the tar
        ("key", pa.string()),
        ("caption", pa.string()),
        ("url", pa.string()),
        ("extension", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("source_sha256", pa.string()),  # of the bytes as downloaded
        ("image_sha256", pa.string()),  # of the bytes as stored
        ("image_offset", pa.int64()),
        ("image_bytes", pa.int64()),
        ("text_offset", pa.int64()),
        ("text_bytes", pa.int64()),
        ("json_offset", pa.int64()),
        ("json_bytes", pa.int64()),
    ]
)
LABELLED = INDEX.append(pa.field("label", pa.int32()))  # of labelled images, whose caption may be missing: then ""


@dataclass(frozen=True)
class Sample:
    """One pair as it is stored. image: encoded bytes; meta: the rest of KEY.json (url, sizes, hashes).

    beside: further files of it that another tool wrote (KEY.cls, KEY.npy), by ending; `read_sample` leaves them.
    """

    key: str
    row: int
    image: bytes
    extension: str
    caption: str
    meta: dict[str, Any] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """A shard on local disk, not yet committed."""

    path: Path
    index: pa.Table
    samples: int
    bytes: int
    sha256: str
    xxh3: str


def write_shard(
    path: Path,
    samples: Iterable[Sample],
    failures: Iterable[dict[str, Any]] = (),
    endings: Mapping[str, Mapping[str, str]] | None = None,
) -> Written:
    """Write samples in the order given. failures: index rows (row, outcome, caption, url) of pairs not here.

    endings: by key, other endings than ours for some files, such as {"jpg": "JPG"}.
    """
    rows: list[dict[str, Any]] = []
    count = 0
    with open(path, "wb") as file, tarfile.TarFile(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for sample in samples:
            places: dict[str, int] = {}
            caption = sample.caption.encode()
            record = json.dumps(
                sample.meta | {"row": sample.row, "key": sample.key, "caption": sample.caption},
                sort_keys=True,
                ensure_ascii=False,
            ).encode()
            members = [("image", sample.extension, sample.image), ("text", "txt", caption), ("json", "json", record)]
            named = (endings or {}).get(sample.key, {})
            for member, extension, data in [*members, *((None, *one) for one in sample.beside.items())]:
                ending = named.get(extension, extension)
                info = tarfile.TarInfo(f"{sample.key}.{ending}")  # mtime, uid and gid are 0, mode 0644
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
                if member is None:
                    continue
                padded = -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                places |= {f"{member}_offset": file.tell() - padded, f"{member}_bytes": len(data)}
            rows.append(
                {
                    "row": sample.row,
                    "outcome": SUCCESS,
                    "key": sample.key,
                    "caption": sample.caption,
                    "url": sample.meta.get("url"),
                    "extension": sample.extension,
                    "width": sample.meta.get("width"),
                    "height": sample.meta.get("height"),
                    "source_sha256": sample.meta.get("sha256"),
                    "image_sha256": hashlib.sha256(sample.image).hexdigest(),
                }
                | places
            )
            count += 1
    index = pa.Table.from_pylist([*rows, *failures], schema=INDEX)
    return describe(path, index)


def describe(path: Path, index: pa.Table) -> Written:
    """Size and hashes of a shard on disk."""
    sha256, xxh3, size = hashes(path)
    return Written(path, index, samples_of(index).num_rows, size, sha256, xxh3)


def hashes(path: Path) -> tuple[str, str, int]:
    """(sha256, xxh3-64, bytes) of a file, read once."""
    strong, quick, size = hashlib.sha256(), xxhash.xxh3_64(), 0
    with open(path, "rb") as file:
        while block := file.read(1 << 18):  # stays in the processor's cache; 4 MiB cost a seventh more
            strong.update(block)
            quick.update(block)
            size += len(block)
    return strong.hexdigest(), quick.hexdigest(), size


def quick_hash(path: Path) -> str:
    """xxh3-64 of a file: against damage, not against an adversary."""
    quick = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while block := file.read(1 << 18):
            quick.update(block)
    return quick.hexdigest()


def read_parquet(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """A parquet file in memory, or some columns of it, read in this thread alone.

    `pq.read_table` leaves the Python file object to threads of its own; one of them letting go of it while the
    interpreter ends aborts the process ("terminate called without an active exception", one run in four).
    Raises Damaged.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        if file.metadata.num_rows > MAX_ROWS:
            raise Damaged(f"a parquet file of {file.metadata.num_rows:,} rows; at most {MAX_ROWS:,} are read")
        if columns and not set(columns) <= set(file.schema_arrow.names):
            raise Damaged(f"a parquet file without the columns {', '.join(columns)}")
        return file.read(columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise Damaged(f"not a readable parquet file: {error}") from error


def read_source(url: str, kind: str) -> bytes:
    """An image's or a caption's own file, before it is in a shard. kind: "image" or "text", for how large it may be.

    Raises ValueError for a pipe, a device or a folder, where reading might not end. A link is followed, wherever it
    leads: folders of links into a store of files are common.
    """
    path = storage.local(url)
    if path is not None and path.exists() and not path.is_file():
        raise ValueError(f"{url} is not a plain file")
    if path is not None and path.exists() and (size := path.stat().st_size) > MAX_BYTES[kind]:
        raise ValueError(f"{url} has {size:,} bytes; at most {MAX_BYTES[kind]:,} are read")
    return storage.read(url)


def samples_of(index: pa.Table) -> pa.Table:
    """The rows of an index that have a sample in the tar, in tar order."""
    return index.filter(pa.compute.equal(index["outcome"], SUCCESS))


def read_shard(path: Path, index: pa.Table) -> Iterator[Sample]:
    """Samples of one shard, in tar order. The file must already be verified against its manifest."""
    with open(path, "rb") as file:
        for row in samples_of(index).to_pylist():
            yield read_sample(file, row)


def read_sample(file: BinaryIO, row: dict[str, Any]) -> Sample:
    """One sample by its index row. Raises Damaged."""
    meta = {name: value for name, value in _json_of(file, row).items() if name not in ("row", "key", "caption")}
    return Sample(row["key"], row["row"], _member(file, row, "image"), row["extension"], row["caption"], meta)


def stored_caption(file: BinaryIO, row: dict[str, Any]) -> bytes | None:
    """The caption of a sample as the tar has it: KEY.txt or, where there is none, in KEY.json. Raises Damaged."""
    if row["text_bytes"] is not None:
        return _member(file, row, "text")
    said = _json_of(file, row).get("caption")
    return said.encode() if isinstance(said, str) else None


def _json_of(file: BinaryIO, row: dict[str, Any]) -> dict[str, Any]:
    try:
        return json_object(_member(file, row, "json")) if row["json_bytes"] is not None else {}
    except ValueError as error:
        raise Damaged(f"{getattr(file, 'name', 'a shard')}: the .json of {row['key']} {error}") from error


def _member(file: BinaryIO, row: dict[str, Any], name: str) -> bytes:
    file.seek(row[f"{name}_offset"])
    data = file.read(row[f"{name}_bytes"])
    if len(data) != row[f"{name}_bytes"]:
        raise Damaged(f"{getattr(file, 'name', 'a shard')} ends inside sample {row['key']}")
    return data


def json_object(data: bytes) -> dict[str, Any]:
    """Raises ValueError, in words that follow a name, for anything else than an object of text that can be written."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"is no JSON object but of type {type(found).__name__}")
    level: list[Any] = [found]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, dict | list)]
    if level:
        raise ValueError(f"is nested over {MAX_DEPTH} deep")
    if b"\\ud" in data.lower():
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except ValueError as error:
            raise ValueError(f"holds half a letter: {error}") from error
    return found


def content_hash(index: pa.Table) -> str:
    """sha256 of what a shard says (row, outcome, caption, image, label), whatever its urls and its place."""
    digest = hashlib.sha256()
    names = ("row", "outcome", "caption", "image_sha256", "label")
    columns = (index[name].to_pylist() for name in names if name in index.column_names)
    for row in zip(*columns, strict=True):
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def outcomes(index: pa.Table) -> dict[str, int]:
    """How many rows ended how; adds up to the rows of the table this shard was made from."""
    values, counts = np.unique(np.array(index["outcome"].to_pylist(), dtype=object).astype(str), return_counts=True)
    return {str(value): int(count) for value, count in zip(values, counts, strict=True)}
