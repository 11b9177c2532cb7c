"""Url tables: tab-separated text without a header, as CC3M and CC12M are published."""

import hashlib
import re

import pyarrow as pa

from infra import storage
from pipeline.source import TABLE


def read(url: str, columns: tuple[str, str]) -> pa.Table:
    """Row id = line number from 0. columns: the order of "caption" and "url" in a line.

    Raises ValueError that names the first line which is not two columns of UTF-8 with an http(s) address.
    """
    try:
        data = storage.read(url)
    except FileNotFoundError as error:
        raise ValueError(f"no url table at {url}") from error
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"the url table {url} is empty")
    found: dict[str, list[str]] = {"caption": [], "url": []}
    wanted = " TAB ".join(columns)
    for number, line in enumerate(lines, start=1):
        try:
            cells = line.decode().rstrip("\r").split("\t")
        except UnicodeDecodeError as error:
            raise ValueError(f"{url}, line {number}: not UTF-8 ({error.reason} at byte {error.start})") from error
        if len(cells) != 2:
            raise ValueError(f"{url}, line {number}: {len(cells)} columns where {wanted} is expected")
        for name, cell in zip(columns, cells, strict=True):
            found[name].append(cell.strip())
        if not found["url"][-1][:8].lower().startswith(("http://", "https://")):
            shown = without_secrets(found["url"][-1])[:200]
            raise ValueError(f"{url}, line {number}: {shown!r} is not an http(s) address (columns: {wanted})")
    return pa.table({"row": pa.array(range(len(lines)), pa.int64()), **found}, schema=TABLE)


def without_secrets(address: str) -> str:
    """An address as a log may show it: without user, password and query (signatures and tokens stand there)."""
    return re.sub("//.*@", "//...@", address).partition("?")[0]


def digest(url: str) -> str:
    """sha256 of the table's file."""
    try:
        return hashlib.sha256(storage.read(url)).hexdigest()
    except FileNotFoundError as error:
        raise ValueError(f"no url table at {url}") from error
