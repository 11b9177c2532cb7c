"""Parquet files as Hugging Face's datasets holds them: a column of images, one of labels or of captions."""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from infra import storage
from infra.seeding import rng
from pipeline import parquets
from pipeline.shards import MAX_BYTES, read_source
from pipeline.source import Labelled, Source, WithCaptions
from pipeline.sources.folder import TEMPLATES

ENDINGS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


@dataclass(frozen=True, kw_only=True)
class Parquet(Source):
    """A .parquet file, or a folder of them, as a dataset of Hugging Face's lies there: SPLIT-00000-of-00001.parquet.

    What the columns are is read from the features that `datasets` writes into the schema. For test sets alone.
    """

    kind: ClassVar[Literal["urls", "files"]] = "files"
    PATHS: ClassVar[frozenset[str]] = frozenset({"path"})

    path: str
    """A .parquet file, or a folder of them; where their names say splits, those of --split are taken."""
    image: str | None = None
    """The column of images; by default the only one of that feature, or the one that is called image."""
    label: str | None = None
    """The column of classes; by default the only one of that feature, or the one that is called label."""
    caption: str | None = None
    """With --kind captions: the column of captions, one or a list each; by default the one that is called caption."""

    def table(self) -> pa.Table:
        raise ValueError(
            "parquet files of images make test sets (antidote testset parquet); prepare takes urls or folders"
        )

    def labelled(self, samples: int | None, seed: int, split: str) -> Labelled:
        """Classes are the names in the features; else the labels themselves: texts, or numbers from 0."""
        files = parquets.files(storage.absolute(self.path), split)
        image = parquets.column(files[0], "image", self.image, "Image")
        label = parquets.column(files[0], "label", self.label, "ClassLabel")
        names, numbers = parquets.class_names(files[0], label), dict[Any, int]()
        if not names:
            found = {row[label] for file in files for row in file.read([label])}
            if not all(isinstance(one, str) for one in found) and not all(isinstance(one, int) for one in found):
                raise ValueError(f"{files[0].url}: the labels in {label!r} are neither numbers nor texts alone")
            names = tuple(map(str, sorted(found) if isinstance(next(iter(found), 0), str) else range(max(found) + 1)))
            numbers = {name: number for number, name in enumerate(names) if name in found}
        rows = self._chosen(files, samples, seed)

        def pictures() -> Iterator[tuple[bytes, str, int]]:
            for place, row in _rows(files, [image, label], rows):
                data, number = self._image(row[image], place), numbers.get(row[label], row[label])
                if not isinstance(number, int):
                    raise ValueError(f"{place}: the label is {number!r}")
                yield data, _ending(data), number

        return Labelled(names, TEMPLATES, pictures(), _identity(files), _called(files, rows), numbered=not numbers)

    def captioned(self, samples: int | None, seed: int, split: str) -> WithCaptions:
        files = parquets.files(storage.absolute(self.path), split)
        image = parquets.column(files[0], "image", self.image, "Image")
        caption = parquets.column(files[0], "caption", self.caption, None)
        rows = self._chosen(files, samples, seed)

        def pictures() -> Iterator[tuple[bytes, str, Sequence[str]]]:
            for place, row in _rows(files, [image, caption], rows):
                said = [row[caption]] if isinstance(row[caption], str) else row[caption]
                if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
                    raise ValueError(f"{place}: {caption!r} is neither a caption nor a list of captions")
                data = self._image(row[image], place)
                yield data, _ending(data), said

        return WithCaptions(pictures(), _identity(files), _called(files, rows))

    def _chosen(self, files: Sequence[parquets.Parquet], samples: int | None, seed: int) -> list[int]:
        """At most `samples` rows, counted through all files, the lowest by hash."""
        total = sum(file.rows for file in files)
        if samples is None or samples >= total:
            return list(range(total))
        return sorted(sorted(range(total), key=lambda row: rng(seed, "testset", row).integers(1 << 62))[:samples])

    def _image(self, value: Any, place: str) -> bytes:
        """Of {bytes, path}, or bytes; where there is a path alone, the file that it names from the folder on."""
        if isinstance(value, dict):
            if value.get("bytes") is None and isinstance(value.get("path"), str):
                folder = self.path.rpartition("/")[0] if self.path.endswith(".parquet") else self.path
                return read_source(storage.resolve(value["path"], folder or "."), "image")
            value = value.get("bytes")
        if not isinstance(value, bytes):
            raise ValueError(f"{place}: an image is bytes, or bytes and path, not {type(value).__name__}")
        if len(value) > MAX_BYTES["image"]:
            raise ValueError(f"{place}: the image has {len(value):,} bytes; at most {MAX_BYTES['image']:,} are read")
        return value


def _rows(
    files: Sequence[parquets.Parquet], columns: Sequence[str], chosen: Sequence[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each chosen row, with where it stands."""
    wanted, first = set(chosen), 0
    for file in files:
        for number, row in enumerate(file.read(columns)):
            if first + number in wanted:
                yield f"{file.url}, row {number}", row
        first += file.rows


def _called(files: Sequence[parquets.Parquet], chosen: Sequence[int]) -> Any:
    def called(number: int) -> str:
        row = chosen[number]
        for file in files:
            if row < file.rows:
                return f"{file.url}, row {row}"
            row -= file.rows
        raise IndexError(number)

    return called


def _identity(files: Sequence[parquets.Parquet]) -> dict[str, Any]:
    return {"images": hashlib.sha256(json.dumps([file.stamp for file in files]).encode()).hexdigest()}


def _ending(data: bytes) -> str:
    """By the file itself; whoever writes it says of another kind that it cannot be decoded."""
    try:
        return ENDINGS[Image.open(io.BytesIO(data), formats=tuple(ENDINGS)).format or ""]
    except (UnidentifiedImageError, OSError, KeyError):
        return "png"
