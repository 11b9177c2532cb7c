"""Files by url: a local path, `s3://bucket/key` or `memory://name`; folders by any of their spellings.

Whole small files (`read`, `write`, `create`) and whole large ones (`download`, `upload`). Every write is
atomic: a reader sees the old file, the new file, or none. `create` is exclusive: of any number of callers, one wins.
Credentials and endpoints come from the environment's standard variables and profiles, never from a url.

S3 (infra.s3) gives the right bytes, FileNotFoundError, ValueError for what the user must change (credentials, bucket,
endpoint), or ConnectionError for what did not pass in bounded time; infra.spread tries a task with the last one again.
Never in a forked worker: read there what was downloaded before.
"""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from infra.hidden import is_hidden

FULL = (errno.ENOSPC, errno.EDQUOT)
LONGEST = 255  # bytes of a name, on the disks that there are
ATTEMPT = ".attempt-"  # files whose name contains this are unfinished writes and never listed


def filesystem(url: str) -> tuple[Any, str]:
    """(fsspec filesystem, path in it) of a url that is not on S3; `~` is the home folder, `//` and `./` are dropped.

    Raises ValueError for a scheme we cannot open.
    """
    if not url:
        raise ValueError("an empty path was given; name a folder, or a url such as s3://bucket/folder")
    scheme = url.split("://", 1)[0] if "://" in url else "file"
    if scheme not in ("file", "memory"):
        # The rest may hold a password or a token.
        raise ValueError(f"cannot store at {scheme}://...: use a local path, s3://bucket/folder or memory://name")
    if url.startswith("~") and os.path.expanduser(url) == url:
        raise ValueError(f"{url}: there is no such home folder; give a path without ~")
    fs, path = fsspec.core.url_to_fs(url)
    return (fs, str(Path(path))) if isinstance(fs, LocalFileSystem) else (fs, path)


def _s3(url: str) -> Any:
    """infra.s3.objects if the url is one of S3, else None. Raises ValueError for credentials in it."""
    if not url.startswith("s3://"):
        return None
    try:
        from infra.s3 import objects
    except ImportError as error:
        raise ValueError(
            f"s3:// needs a package that is not installed ({error}): pip install clip-antidote[s3]"
        ) from error
    objects.split(url)
    return objects


def local(url: str) -> Path | None:
    """The path of a url on this machine's disk, else None."""
    if _s3(url):
        return None
    fs, path = filesystem(url)
    return Path(path) if isinstance(fs, LocalFileSystem) else None


def join(url: str, *parts: str) -> str:
    return "/".join([url.rstrip("/") if url.rstrip("/") else url, *(part.strip("/") for part in parts)])


def absolute(url: str) -> str:
    """The same file or folder, spelled so that it means the same from any working directory; links stay, for people."""
    path = local(url)
    return str(path.absolute()) if path is not None else real(url)


# One folder has many spellings: links, `./`, `~`, a slash at the end. What is compared or stored goes by `real`.


def real(url: str) -> str:
    """The one spelling of a file or folder, links followed: two urls lead to the same one where these are equal.

    On S3, where `a//b` and `a/b` are different keys, only slashes around the key are dropped.
    """
    path = local(url)
    if path is not None:
        return os.path.realpath(path)
    if s3 := _s3(url):
        return "/".join(["s3:/", *filter(None, s3.split(url))])
    return url.rstrip("/")


def same(one: str, other: str) -> bool:
    """Whether both lead to the same file or folder."""
    return real(one) == real(other)


def within(url: str, folder: str) -> bool:
    """Whether it is that folder or lies anywhere inside."""
    return f"{real(url)}/".startswith(f"{real(folder).rstrip('/')}/")


def twice(urls: Sequence[str]) -> str | None:
    """The first of them that leads where one before it leads, as it was given; None if all are different."""
    known = [real(url) for url in urls]
    return next((url for number, url in enumerate(urls) if known[number] in known[:number]), None)


def relative(url: str, folder: str) -> str:
    """`url` as a file in `folder` names it: relative where both lie on this machine's disk, so that a tree of folders
    can be moved as a whole; else as it is. `resolve` leads back, whichever spelling of the folder it is given."""
    there, here = local(url), local(folder)
    if there is None or here is None:
        return url
    names = [os.path.relpath(real(url), real(folder))]
    as_spelled = os.path.relpath(there.absolute(), here.absolute())
    if same(os.path.join(real(folder), as_spelled), url):  # by a link, which may be how the tree is laid out
        names.insert(0, as_spelled)
    return min(names, key=lambda name: name.count("/"))


def resolve(name: str, folder: str) -> str:
    """The url that `relative` made `name` of."""
    here = local(folder)
    if here is None or "://" in name:
        return name
    found = os.path.normpath(os.path.join(real(folder), name))
    as_spelled = os.path.normpath(here.absolute() / name)  # as earlier versions wrote it, who did not follow links
    return as_spelled if os.path.exists(as_spelled) and not os.path.exists(found) else found


def exists(url: str) -> bool:
    """A file, or a folder that is not empty."""
    if s3 := _s3(url):
        return bool(s3.exists(url))
    fs, path = filesystem(url)
    return bool(fs.exists(path))


def size(url: str) -> int:
    """Bytes. Raises FileNotFoundError."""
    if s3 := _s3(url):
        return int(s3.size(url))
    fs, path = filesystem(url)
    return int(fs.size(path))


def names(url: str, hidden: bool = False) -> list[str]:
    """Names directly in a folder, sorted, without unfinished writes; [] where there is no such folder.

    hidden: also those of hidden files (infra.hidden), which are nobody's data.
    Raises ValueError where a file is in its place.
    """
    if s3 := _s3(url):
        listed = set(s3.names(url))
    else:
        fs, path = filesystem(url)
        with _naming(path):
            if fs.isfile(path):
                raise NotADirectoryError(path)
            try:
                found = [entry.rstrip("/") for entry in fs.ls(path, detail=False)]
            except FileNotFoundError:
                return []
        listed = {entry.rsplit("/", 1)[-1] for entry in found if entry != path.rstrip("/")}
    return sorted(name for name in listed if name and ATTEMPT not in name and (hidden or not is_hidden(name)))


def find(url: str) -> list[str]:
    """Every file under a folder, relative to it, sorted; [] where there is none."""
    if s3 := _s3(url):
        return sorted(s3.find(url))
    fs, path = filesystem(url)
    root = path.rstrip("/")
    return sorted(found[len(root) + 1 :] for found in fs.find(root))


def stamps(url: str) -> dict[str, str]:
    """Every file under a folder, relative to it, sorted, with what changes when the file does: its size and its time,
    on S3 its size and its ETag. A link has those of the file it leads to; one that leads nowhere has none: ""."""
    if s3 := _s3(url):
        return dict(sorted(s3.stamps(url).items()))
    fs, path = filesystem(url)
    root = path.rstrip("/")
    if isinstance(fs, LocalFileSystem):
        return {found[len(root) + 1 :]: _stamp(found) for found in sorted(fs.find(root))}
    known = fs.find(root, detail=True)
    return {
        found[len(root) + 1 :]: f"{about['size']} {about.get('mtime', about.get('created'))}"
        for found, about in sorted(known.items())
    }


def _stamp(path: str) -> str:
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"


def read(url: str) -> bytes:
    """Raises FileNotFoundError."""
    if s3 := _s3(url):
        return bytes(s3.read(url))
    fs, path = filesystem(url)
    with _naming(path):
        return bytes(fs.cat_file(path))


def read_json(url: str) -> Any:
    """Raises ValueError where the file is not JSON (it was damaged, or is not what it is named)."""
    try:
        return json.loads(read(url))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{url} is not JSON: {error}") from error


def read_object(url: str, *has: str) -> dict[str, Any]:
    """A JSON object with these names. Raises ValueError where the file is something else."""
    return holding(url, read_json(url), *has)


def holding(url: str, said: Any, *has: str) -> dict[str, Any]:
    """What a file says, if it is an object with these names. Raises ValueError where it is not."""
    if not isinstance(said, dict):
        raise ValueError(f"{url} holds no JSON object: it was damaged, or is not ours")
    if lacking := [name for name in has if name not in said]:
        raise ValueError(f"{url} says nothing of {lacking[0]!r}: it was damaged, or is not ours")
    return said


def write(url: str, data: bytes) -> None:
    """Replace a whole file in one step."""
    if s3 := _s3(url):
        return s3.write(url, data)  # type: ignore[no-any-return]
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    with _naming(path):
        attempt = _attempt(path)
        try:
            _write_durably(attempt, data)
            os.replace(attempt, path)
            _settle(path)
        finally:
            _forget(attempt)


def create(url: str, data: bytes) -> bool:
    """Write a file only if none is there. False: there is one with other bytes, and it stands.

    Where equal bytes are there it is True: on S3 nobody can tell his own write, whose reply was lost, from a twin's.
    """
    if s3 := _s3(url):
        return bool(s3.create(url, data))
    fs, path = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        try:
            fs.pipe_file(path, data, mode="create")
            return True
        except FileExistsError:
            return read(url) == data
    with _naming(path):
        attempt = _attempt(path)
        try:
            _write_durably(attempt, data)
            os.link(attempt, path)  # atomic and exclusive, also on NFS; O_EXCL would show a half-written file
            _settle(path)
            return True
        except FileExistsError:
            return read(url) == data
        finally:
            _forget(attempt)


def dump_json(value: Any) -> bytes:
    """The one spelling of JSON in files: sorted keys, two spaces, a closing newline."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def write_json(url: str, value: Any) -> None:
    write(url, dump_json(value))


def download(url: str, path: Path) -> None:
    """A whole file to disk, under its name only once complete. Raises FileNotFoundError."""
    with _naming(str(path)):
        attempt = _attempt(str(path))
        try:
            if s3 := _s3(url):
                s3.download(url, attempt)
            else:
                fs, source = filesystem(url)
                fs.get_file(source, str(attempt))
            os.replace(attempt, path)
        finally:
            _forget(attempt)


def upload(path: Path, url: str) -> None:
    """A whole file from disk, visible only once complete."""
    if s3 := _s3(url):
        return s3.upload(path, url)  # type: ignore[no-any-return]
    fs, target = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        fs.put_file(str(path), target)
        return
    with _naming(target):
        attempt = _attempt(target)
        try:
            shutil.copyfile(path, attempt)
            with open(attempt, "rb") as file:
                os.fsync(file.fileno())
            os.replace(attempt, target)
            _settle(target)
        finally:
            _forget(attempt)


def remove(url: str) -> None:
    """Remove a file or a whole folder; nothing happens where there is none. Interrupted, it is simply called again."""
    if s3 := _s3(url):
        return s3.remove(url)  # type: ignore[no-any-return]
    fs, path = filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def file_name(words: Sequence[str], ending: str) -> str:
    """`RUN-TESTSET-...ENDING`. Words are cut where the name would be too long for a disk: one of them must tell it from
    others by itself, and be short."""
    name = "-".join(words) + ending
    if len(name.encode()) <= LONGEST:
        return name
    return "-".join(_cut(word, LONGEST // (len(words) + 1)) for word in words) + ending


def _cut(word: str, most: int) -> str:
    """At most so many bytes of it, whole characters."""
    return word.encode()[:most].decode(errors="ignore")


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """A full disk is said with the file that did not fit: the system's own error names none, or the attempt.

    A file in the place of a folder, the reverse, and a name that is too long are the user's to mend: ValueError.
    """
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        if os.path.isdir(path):
            raise ValueError(f"{path} is a folder, where a file is needed: choose another place") from error
        file = next((str(part) for part in (Path(path), *Path(path).parents) if part.is_file()), path)
        raise ValueError(f"{file} is a file, where a folder is needed: choose another place, or remove it") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(f"{path} has a name that is too long for this disk: choose a shorter one") from error
        if error.errno in FULL:
            raise OSError(error.errno, os.strerror(error.errno), path) from error
        raise


def _attempt(path: str) -> Path:
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f"{ATTEMPT}{uuid.uuid4().hex}-{_cut(target.name, 100)}")


def _write_durably(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _settle(path: str) -> None:
    """A name outlives a power cut only with its folder synchronised: else a commit might be there without its shard."""
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _forget(attempt: Path) -> None:
    attempt.unlink(missing_ok=True)
