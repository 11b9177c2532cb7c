"""What lies where in a tar that anyone may have written: headers alone, nothing is ever extracted.

Stricter than Python's tarfile, which takes a damaged header for the end of the file; and whatever two readers of tar
could read in two ways (links, sparse files, sizes in extended headers, data behind the end) is refused.
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from infra.spread import Lost

BLOCK = tarfile.BLOCKSIZE
MAX_EXTENDED_BYTES = 1 << 20  # of a header that holds a long name or times; Python would read a gigabyte of it
MAX_NAME = 4096  # characters; the longest path of a Linux system
MAX_TAIL_BYTES = 16 << 20  # zeros behind the end of an archive; tar itself fills up 10 KiB

_OTHER_KINDS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"PAR1": "parquet",
}
_DECIDING = re.compile(rb"(size|linkpath|path|GNU\.sparse\..*|SCHILY\.realsize)")  # what a member is, not who made it


class Damaged(Lost):
    """A file that is not what its manifest says, or not what its name says: short, changed, swapped or missing."""


def scan(path: Path) -> Iterator[tuple[str, int, int]]:
    """(member name, offset, bytes) of each regular file of a tar, every header's checksum tested.

    Raises Damaged at the first byte that is not what a tar holds there, at a name that leads out of a folder, or if
    the end marker is missing.
    """
    if not path.is_file():
        raise Damaged(f"{path.name} is not a plain file")
    size = path.stat().st_size
    if size == 0:
        raise Damaged(f"{path.name} is empty")
    at, long_name = 0, None
    with open(path, "rb") as file:
        while True:
            file.seek(at)
            header = file.read(BLOCK)
            if len(header) < BLOCK:
                raise Damaged(f"{path.name} is cut off: no end-of-archive marker after byte {at}")
            if not any(header):
                if long_name is not None:
                    raise Damaged(f"{path.name} is cut off: at byte {at} it ends after an extended header")
                _check_tail(path, file, at, size)
                return
            info = _header(path, header, at)
            start, padded = at + BLOCK, -(-info.size // BLOCK) * BLOCK
            if info.size < 0 or start + padded > size:
                raise Damaged(f"{path.name} is cut off inside {info.name!r}, which starts at byte {at}")
            if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
                found = _extended(path, info, file, at)
                long_name = found if found is not None else long_name
            elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
                name = info.name if long_name is None else long_name
                long_name = None
                if trouble := unsafe(name):
                    raise Damaged(f"{path.name} holds {name[:200]!r} at byte {at}, a name that {trouble}")
                if info.type != tarfile.DIRTYPE:
                    yield name, start, info.size
                elif info.size:
                    raise Damaged(f"{path.name} holds the folder {name!r} at byte {at}, with {info.size} bytes of data")
            else:
                raise Damaged(f"{path.name} holds {info.name!r} at byte {at}, which is a link or a device, not a file")
            at = start + padded


def grouped(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """{key: {extension: (offset, bytes)}}, in the order of the keys' first files.

    Keys as webdataset has them: up to the first dot of a file's name; extensions in lower case. Unlike there, the files
    of a sample may lie apart. Raises what `scan` raises, ValueError for a file of no sample, Damaged for one twice.
    """
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    for name, offset, length in scan(path):
        if re.match(r"__[^/]*__($|/)", name):  # webdataset's own notes
            continue
        folder, slash, base = name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not stem or not dot:
            raise ValueError(f"{path.name} holds {name!r}, which belongs to no sample: files are named KEY.EXTENSION")
        members = groups.setdefault(folder + slash + stem, {})
        if extension.lower() in members:
            raise Damaged(f"{path.name} holds {name!r} twice")
        members[extension.lower()] = (offset, length)
    return groups


def unsafe(name: str) -> str | None:
    """Why a member's name, or a place below a folder, must not be used; None if it may."""
    if not name:
        return "is empty"
    if len(name) > MAX_NAME:
        return f"has over {MAX_NAME:,} characters"
    if re.search(r"[\x00-\x1f\x7f\\]", name):
        return "holds a control character or a backslash"
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "is not UTF-8"
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        return "leads out of its folder"
    return None


def _header(path: Path, header: bytes, at: int) -> tarfile.TarInfo:
    if at == 0:
        for magic, kind in _OTHER_KINDS.items():
            if header.startswith(magic):
                raise Damaged(f"{path.name} is a {kind} file, not a tar; shards are plain tars, not compressed")
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        where = f"has a damaged header at byte {at}" if at else "is no tar, or has a damaged header at byte 0"
        raise Damaged(f"{path.name} {where}: {error}") from error


def _extended(path: Path, info: tarfile.TarInfo, file: BinaryIO, at: int) -> str | None:
    """The name that an extended header gives the next member. img2dataset writes one for every file's float mtime."""
    if info.size > MAX_EXTENDED_BYTES:
        raise Damaged(f"{path.name} has an extended header of {info.size:,} bytes at byte {at}")
    data = file.read(info.size)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape")
    name = None
    for field, value in _pax(path, data, at):
        if not _DECIDING.fullmatch(field):
            continue
        if field != b"path" or info.type == tarfile.XGLTYPE:
            shown = field.decode("utf-8", "replace")
            raise Damaged(f"{path.name} sets {shown!r} in an extended header at byte {at}, which shards do not need")
        name = value.decode("utf-8", "surrogateescape")
    return name


def _pax(path: Path, data: bytes, at: int) -> Iterator[tuple[bytes, bytes]]:
    """(name, value) of each record, which is written `LENGTH NAME=VALUE\\n`."""
    while data:
        digits, _, _ = data[:20].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = data[len(digits) + 1 : length]
        if length <= len(digits) + 1 or length > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise Damaged(f"{path.name} has a damaged extended header at byte {at}")
        name, _, value = record[:-1].partition(b"=")
        yield name, value
        data = data[length:]


def _check_tail(path: Path, file: BinaryIO, at: int, size: int) -> None:
    """Behind the end there may be zeros. Tars written one after another end, for every reader, at the first's end."""
    file.seek(at)
    if size - at > MAX_TAIL_BYTES or any(file.read(MAX_TAIL_BYTES)):
        raise Damaged(
            f"{path.name} goes on behind its end-of-archive marker at byte {at}, where no reader of tar looks; "
            "keep joined tars as shards of their own"
        )
