"""One slice of a table -> one committed shard, with the outcome of every row.

The engine for urls is img2dataset's `Downloader`, one call a slice, behind `pipeline.opener`. It runs in a scratch
folder of its own; what it hands over is collected in memory and written by us, sorted by row, once the counts agree
(img2dataset swallows exceptions raised in a writer's `.write`, and its tars lie in order of completion).
"""

import contextlib
import hashlib
import importlib.util
import io
import math
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from infra.errors import Transient
from pipeline import dataset, images, opener, shards
from pipeline.shards import SUCCESS, Sample

# What img2dataset itself says of a failed row, word for word, and the code that we count it under.
_CAUSES = {
    "Use of image disallowed by X-Robots-Tag directive": "disallowed",
    "image too small": "too_small",
    "image area too large": "too_many_pixels",
    "aspect ratio too large": "bad_aspect_ratio",
}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Rows of one shard: an Arrow IPC file of pipeline.source.TABLE (a pickled Arrow slice carries its whole table)."""

    shard: int
    rows: bytes


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """The work of one task: callable on a `Slice`, returns its commit record."""

    out: str
    kind: Literal["urls", "files"]
    rows_per_shard: int
    image_size: int
    min_image_size: int
    max_aspect_ratio: float
    limits: opener.Limits
    threads: int
    retries: int

    def __call__(self, part: Slice) -> dict[str, Any]:
        table = pa.ipc.open_file(io.BytesIO(part.rows)).read_all()
        found = self._download(part.shard, table) if self.kind == "urls" else self._read(table)
        if len(found) != table.num_rows:
            raise Transient(f"shard {part.shard}: {len(found)} of {table.num_rows} rows were answered for")
        width = max(1, math.ceil(math.log10(self.rows_per_shard)))
        samples: list[Sample] = []
        failures: list[dict[str, Any]] = []
        for position, record in enumerate(table.to_pylist()):
            outcome, image, meta = found[record["row"]]
            if image is None:
                if self.kind == "urls":  # user names and passwords are not for whoever gets the dataset
                    record["url"] = re.sub("^([a-zA-Z]+://)[^/?#]*@", r"\1...@", record["url"])
                failures.append(record | {"outcome": outcome})
                continue
            key = f"{part.shard:05d}{position:0{width}d}"
            extension = meta.pop("extension")
            samples.append(
                Sample(key, record["row"], image, extension, record["caption"], meta | {"url": record["url"]})
            )
        with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
            written = shards.write_shard(Path(scratch) / "shard.tar", samples, failures)
            return dataset.commit(self.out, part.shard, written)

    def _download(self, shard: int, table: pa.Table) -> dict[int, tuple[str, bytes | None, dict[str, Any]]]:
        opener.install(self.limits)
        found: dict[int, tuple[str, bytes | None, dict[str, Any]]] = {}
        for _ in range(self.retries + 1):
            left = [row not in found or _may_pass(found[row][0]) for row in table["row"].to_pylist()]
            if not any(left):
                break
            for record, image in self._engine(shard, table.filter(pa.array(left))):
                found[record["row"]] = (_outcome(record), image, _meta(record))
        self._still_served({outcome for outcome, _, _ in found.values()})
        return found

    def _still_served(self, outcomes: set[str]) -> None:
        """Raises Transient if a corpus that its source serves went away meanwhile.

        Its server dies with the driver; a worker that outlives both would commit rows that failed for that alone.
        """
        for place in self.limits.allowed:
            host, _, port = place.rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=self.limits.timeout_seconds).close()
            except OSError as error:
                raise Transient(f"the source's own server at {place} is gone: {error}") from error
        if self.limits.allowed and "connection" in outcomes:
            raise Transient(f"the source's own server at {', '.join(self.limits.allowed)} refused a connection")

    def _engine(self, shard: int, table: pa.Table) -> list[tuple[dict[str, Any], bytes | None]]:
        """img2dataset on these rows: (its record, stored bytes or None) in order of completion."""
        downloader, resizer = _img2dataset()
        collected: list[tuple[dict[str, Any], bytes | None]] = []

        class Collect:
            def __init__(self, *_: Any) -> None: ...

            def write(self, image: bytes | None, key: str, caption: str, meta: dict[str, Any]) -> None:
                collected.append((meta, image))

            def close(self) -> None: ...

        with tempfile.TemporaryDirectory(prefix="antidote-") as scratch:
            feather = os.path.join(scratch, "rows.feather")
            with pa.OSFile(feather, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            run = downloader(
                sample_writer_class=Collect,
                resizer=resizer(
                    image_size=self.image_size,
                    resize_mode="keep_ratio",  # the default pads with white
                    resize_only_if_bigger=True,
                    min_image_size=self.min_image_size,
                    max_image_area=images.MAX_PIXELS,
                    max_aspect_ratio=self.max_aspect_ratio,
                ),
                thread_count=min(self.threads, max(1, table.num_rows)),
                save_caption=True,
                extract_exif=False,
                output_folder=scratch,
                column_list=["row", "caption", "url"],
                timeout=self.limits.timeout_seconds,
                number_sample_per_shard=max(2, table.num_rows),
                oom_shard_count=5,
                compute_hash="sha256",
                verify_hash_type=None,
                encode_format="jpg",
                retries=0,  # its own retries have no back-off and repeat a 404 as readily as a 503; see `retries` above
                user_agent_token="clip-antidote",
                disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
            )
            succeeded, _ = run((shard, feather))
        if not succeeded:
            raise Transient(f"img2dataset failed on shard {shard}; its traceback is in the worker's log")
        return collected

    def _read(self, table: pa.Table) -> dict[int, tuple[str, bytes | None, dict[str, Any]]]:
        """Images that lie on disk already: kept byte for byte unless they are larger than `image_size`, or would look
        different to other readers (pipeline.images.storable)."""
        found: dict[int, tuple[str, bytes | None, dict[str, Any]]] = {}
        for record in table.to_pylist():
            try:
                source = shards.read_source(record["url"], "image")
            except ValueError:
                found[record["row"]] = ("not_an_image", None, {})
                continue
            try:
                image, extension, sizes = images.fitted(source, self.image_size)
            except images.Unreadable as error:
                found[record["row"]] = (error.outcome, None, {})
                continue
            width, height = sizes["original_width"], sizes["original_height"]
            if min(width, height) < self.min_image_size:
                found[record["row"]] = ("too_small", None, {})
            elif max(width, height) > self.max_aspect_ratio * min(width, height):
                found[record["row"]] = ("bad_aspect_ratio", None, {})
            else:
                meta = sizes | {"extension": extension, "sha256": hashlib.sha256(source).hexdigest()}
                found[record["row"]] = (SUCCESS, image, meta)
        return found


def slices(table: pa.Table, rows_per_shard: int, done: set[int]) -> Iterator[Slice]:
    """The table cut into shards, those in `done` left out."""
    for shard in range(-(-table.num_rows // rows_per_shard)):
        if shard not in done:
            part = table.slice(shard * rows_per_shard, rows_per_shard)
            sink = io.BytesIO()
            with pa.ipc.new_file(sink, part.schema) as writer:
                writer.write_table(part)
            yield Slice(shard=shard, rows=sink.getvalue())


def _outcome(record: dict[str, Any]) -> str:
    """The code that a row is counted under. Never a server's own words: they could be anything."""
    if record["status"] == SUCCESS:
        return SUCCESS
    message = str(record["error_message"])
    code = message.partition(":")[0]
    if code in opener.OUTCOMES or code in images.OUTCOMES or re.fullmatch(r"http_\d{3}", code):
        return code
    return _CAUSES.get(message) or ("not_an_image" if record["status"] == "failed_to_resize" else "download_error")


def _may_pass(outcome: str) -> bool:
    return outcome in ("timeout", "connection", "truncated", "dns", "http_429") or outcome.startswith("http_5")


def _meta(record: dict[str, Any]) -> dict[str, Any]:
    names = ("width", "height", "original_width", "original_height", "sha256")
    return {name: record[name] for name in names} | {"extension": "jpg"}


@cache
def _img2dataset() -> tuple[Any, Any]:
    """(Downloader, Resizer). Imported late: it takes seconds, and asks the network for news unless told not to."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    os.environ.setdefault("WANDB_MODE", "disabled")
    try:
        with _by_the_side_door("img2dataset"):
            from img2dataset.downloader import Downloader
            from img2dataset.resizer import Resizer
    except ImportError as error:
        raise ValueError(
            f"downloading needs the extra 'download' (pip install clip-antidote[download]): {error}"
        ) from error

    class GuardedResizer(Resizer):
        """Refuses an image by its header: OpenCV would allocate all the pixels that a bomb claims. What OpenCV reads
        in another way than we do, it gets as we read it."""

        def __call__(self, img_stream: Any, blurring_bbox_list: Any = None) -> Any:
            try:
                plain = images.plain(img_stream.getvalue())
            except images.Unreadable as error:
                return None, None, None, None, None, f"{error.outcome}: {error}"
            return super().__call__(io.BytesIO(plain), blurring_bbox_list)

    return Downloader, GuardedResizer


@contextlib.contextmanager
def _by_the_side_door(package: str) -> Iterator[None]:
    """While open, modules of this package can be imported without what its `__init__` imports.

    That of img2dataset brings its command line, and so torch, ray, pandas and webdataset into every worker: 3.3 seconds
    and 700 MB instead of 1.1 and 140.
    """
    if package in sys.modules or (spec := importlib.util.find_spec(package)) is None:
        yield
        return
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:  # whoever imports it later gets it whole
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
