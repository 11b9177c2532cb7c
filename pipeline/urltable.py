"""Url tables: tab-separated text without a header, as CC3M and CC12M are published; csv and parquet with one.

Any of them may be compressed by gzip. Row id: the number of the line, or of the record, from 0.
"""

import csv
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from infra import storage, text
from infra.errors import Damaged
from pipeline import shards
from pipeline.source import TABLE

# What a column is called where there is a header (LAION: URL, TEXT; DataComp: url, text), in lower case.
NAMES = {"caption": ("caption", "text"), "url": ("url",)}
NAMED = "one column is called url (or URL), one caption (or TEXT, text)"
_PACKED = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}

Row = tuple[str, str | None, str | None]  # where it stands, caption, url


def read(url: str, columns: tuple[str, str]) -> pa.Table:
    """columns: the order of "caption" and "url" in a line of a table without a header.

    Raises ValueError that names the first line which is not two columns of UTF-8 with an http(s) address.
    """
    data, name = _unpacked(_read(url), url), url.lower().removesuffix(".gz")
    if data.startswith(b"PAR1") or name.endswith(".parquet"):
        rows = _of_parquet(data, url)
    elif name.endswith(".csv"):
        rows = _of_csv(data, url)
    else:
        rows = _of_lines(data, url, columns)
    found: dict[str, list[str]] = {"caption": [], "url": []}
    for place, caption, address in rows:
        found["caption"].append((caption or "").strip())
        found["url"].append((address or "").strip())
        if not found["url"][-1][:8].lower().startswith(("http://", "https://")):
            shown = without_secrets(found["url"][-1])[:200]
            wanted = " TAB ".join(columns)
            header = f"; a table with a header is a .csv or .parquet: {NAMED}" if _is_header(caption, address) else ""
            raise ValueError(f"{url}, {place}: {shown!r} is not an http(s) address (columns: {wanted}){header}")
    if not found["url"]:
        raise ValueError(f"the url table {url} is empty")
    return pa.table({"row": pa.array(range(len(found["url"])), pa.int64()), **found}, schema=TABLE)


def _of_lines(data: bytes, url: str, columns: tuple[str, str]) -> Iterator[Row]:
    wanted, first = " TAB ".join(columns), columns.index("caption")
    for number, line in enumerate(text.lines(data, url), start=1):
        cells = line.split("\t")
        if len(cells) != 2:
            raise ValueError(f"{url}, line {number}: {len(cells)} columns where {wanted} is expected")
        yield f"line {number}", cells[first], cells[1 - first]


def _of_csv(data: bytes, url: str) -> Iterator[Row]:
    """Cells may hold commas, quotes and newlines, as RFC 4180 quotes them."""
    records = csv.reader((f"{line}\n" for line in text.lines(data, url)), strict=True)
    try:
        header = next(records, None)
        if header is None:
            return
        caption, address = (header.index(name) for name in _named(header, url))
        blank = None
        for record in records:
            if not record:
                blank = blank or records.line_num
                continue
            if blank or len(record) != len(header):
                number, width = (blank, 0) if blank else (records.line_num, len(record))
                raise ValueError(f"{url}, line {number}: {width} columns where the header has {len(header)}")
            yield f"line {records.line_num}", record[caption], record[address]
    except csv.Error as error:
        raise ValueError(f"{url}, line {records.line_num}: not readable as csv ({error})") from error


def _of_parquet(data: bytes, url: str) -> Iterator[Row]:
    try:
        names = _named(pq.read_schema(pa.BufferReader(data)).names, url)
        columns = [shards.read_parquet(data, [name])[name].cast(pa.string()).to_pylist() for name in names]
    except (pa.ArrowException, OSError, Damaged) as error:
        raise ValueError(f"{url}: {error}") from error
    for number, (caption, address) in enumerate(zip(*columns, strict=True)):
        yield f"row {number}", caption, address


def _named(header: Iterable[str], url: str) -> tuple[str, str]:
    """The columns of caption and url. Raises ValueError unless there is one of each."""
    names = list(header)
    found = [[name for name in names if name.strip().lower() in known] for known in NAMES.values()]
    if any(len(some) != 1 for some in found):
        shown = ", ".join(name[:50] for name in names[:20])
        raise ValueError(f"{url} has the columns {shown}; of a table with a header {NAMED}: rename or drop columns")
    return found[0][0], found[1][0]


def _is_header(*cells: str | None) -> bool:
    return {(cell or "").strip().lower() for cell in cells} <= {name for known in NAMES.values() for name in known}


def _read(url: str) -> bytes:
    if (path := storage.local(url)) is not None and path.is_dir():
        raise ValueError(f"{url} is a folder: --urls names one file")
    try:
        return storage.read(url)
    except FileNotFoundError as error:
        raise ValueError(f"no url table at {url}") from error


def _unpacked(data: bytes, url: str) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{url} is a damaged gzip file: {error}") from error
    for magic, kind in _PACKED.items():
        if data.startswith(magic):
            raise ValueError(
                f"{url} is a {kind} file: unpack it; a url table is tab-separated text, .csv or .parquet, also as .gz"
            )
    return data


def without_secrets(address: str) -> str:
    """An address as a log may show it: without user, password and query (signatures and tokens stand there)."""
    return re.sub("//.*@", "//...@", address).partition("?")[0]


def digest(url: str) -> str:
    """sha256 of the table's file."""
    return hashlib.sha256(_read(url)).hexdigest()
