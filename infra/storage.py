"""Files by url: a local path, `s3://bucket/key` or `memory://name`, over fsspec.

Whole small files (`read`, `write`, `create`) and whole large ones (`download`, `upload`). Every write is
atomic: a reader sees the old file, the new file, or none. `create` is exclusive: of any number of callers, one wins.
Credentials and endpoints come from the environment's standard variables and profiles, never from a url.
"""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

ATTEMPT = ".attempt-"  # files whose name contains this are unfinished writes and never listed


def filesystem(url: str) -> tuple[Any, str]:
    """(fsspec filesystem, path in it). Raises ValueError for a scheme that nothing here can open."""
    if not url:
        raise ValueError("an empty path was given; name a folder, or a url such as s3://bucket/folder")
    scheme = url.split("://", 1)[0] if "://" in url else "file"
    if scheme not in ("file", "s3", "memory"):
        raise ValueError(f"cannot store at {url!r}: use a local path, s3://bucket/folder or memory://name")
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ValueError(f"{url!r} needs a package that is not installed: {error}") from error


def local(url: str) -> Path | None:
    """The path of a url on this machine's disk, else None."""
    fs, path = filesystem(url)
    return Path(path) if isinstance(fs, LocalFileSystem) else None


def join(url: str, *parts: str) -> str:
    return "/".join([url.rstrip("/") if url.rstrip("/") else url, *(part.strip("/") for part in parts)])


def absolute(url: str) -> str:
    """The same place, spelled so that it means the same from any working directory."""
    path = local(url)
    return str(path.absolute()) if path is not None else url.rstrip("/")


def exists(url: str) -> bool:
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def size(url: str) -> int:
    """Bytes. Raises FileNotFoundError."""
    fs, path = filesystem(url)
    return int(fs.size(path))


def names(url: str) -> list[str]:
    """Names directly in a folder, sorted, without unfinished writes; [] where there is no such folder."""
    fs, path = filesystem(url)
    fs.invalidate_cache(path)  # s3fs remembers listings: another machine's commit would stay unseen
    try:
        found = fs.ls(path, detail=False)
    except FileNotFoundError:
        return []
    own = path.rstrip("/")
    listed = {entry.rstrip("/").rsplit("/", 1)[-1] for entry in found if entry.rstrip("/") != own}
    return sorted(name for name in listed if name and ATTEMPT not in name)


def read(url: str) -> bytes:
    fs, path = filesystem(url)
    return bytes(fs.cat_file(path))


def read_json(url: str) -> Any:
    """Raises ValueError where the file is not JSON (it was damaged, or is not what it is named)."""
    try:
        return json.loads(read(url))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{url} is not JSON: {error}") from error


def write(url: str, data: bytes) -> None:
    """Replace a whole file in one step."""
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    attempt = _attempt(path)
    try:
        _write_durably(attempt, data)
        os.replace(attempt, path)
    finally:
        _forget(attempt)


def create(url: str, data: bytes) -> bool:
    """Write a file only if none is there. True: this call made it. False: it was there before."""
    fs, path = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        attempt = _attempt(path)
        try:
            _write_durably(attempt, data)
            os.link(attempt, path)  # atomic and exclusive, also on NFS; O_EXCL would show a half-written file
            return True
        except FileExistsError:
            return False
        finally:
            _forget(attempt)
    try:
        fs.pipe_file(path, data, mode="create")
        return True
    except FileExistsError:
        pass
    except OSError as error:
        # Ceph answers 412 without the Condition field from which s3fs makes a FileExistsError.
        code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
        if code not in ("PreconditionFailed", "412"):
            raise
    # A retried PUT whose first reply was lost also ends here; equal bytes mean that the winner was us or our twin.
    return read(url) == data


def dump_json(value: Any) -> bytes:
    """The one spelling of JSON in files: sorted keys, two spaces, a closing newline."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json(url: str, value: Any) -> None:
    write(url, dump_json(value))


def download(url: str, path: Path) -> None:
    """A whole file to disk, under its name only once complete. The caller checks size and hash."""
    fs, source = filesystem(url)
    attempt = _attempt(str(path))
    try:
        fs.get_file(source, str(attempt))
        os.replace(attempt, path)
    finally:
        _forget(attempt)


def upload(path: Path, url: str) -> None:
    """A whole file from disk, visible only once complete."""
    fs, target = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        fs.put_file(str(path), target)
        return
    attempt = _attempt(target)
    try:
        shutil.copyfile(path, attempt)
        with open(attempt, "rb") as file:
            os.fsync(file.fileno())
        os.replace(attempt, target)
    finally:
        _forget(attempt)


def remove(url: str) -> None:
    """Remove a file or a whole folder; nothing happens where there is none."""
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def _attempt(path: str) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{ATTEMPT}{uuid.uuid4().hex}-{target.name}")


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _forget(attempt: Path) -> None:
    attempt.unlink(missing_ok=True)
