"""Images that you have: a folder on disk or S3, captions from a table, sidecar texts or folder names."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from infra import log, plugins, storage, text
from infra.seeding import rng
from pipeline import listing
from pipeline.shards import read_source
from pipeline.source import TABLE, Labelled, Source, WithCaptions

TEMPLATES = (
    "a photo of a {c}",
    "a picture of a {c}",
    "a photo of the {c}",
    "a small photo of a {c}",
    "a close-up of a {c}",
    "a blurry photo of a {c}",
    "an image of one {c}",
    "this is a {c}",
)


@dataclass(frozen=True, kw_only=True)
class Folder(Source):
    """Images (.jpg, .jpeg, .jfif, .png, .webp) in a folder and its subfolders; row id = place in the sorted paths.

    Hidden files and folders are passed over, other kinds of files counted.
    """

    kind: ClassVar[Literal["urls", "files"]] = "files"
    PATHS: ClassVar[frozenset[str]] = frozenset({"path", "captions_table"})

    path: str
    """The folder of images."""
    captions: Literal["sidecar", "folder", "table"] = "sidecar"
    """sidecar: NAME.txt beside each image; folder: its folder's name in a template; table: captions_table."""
    captions_table: str | None = None
    """With captions=table: a UTF-8 file of path TAB caption, paths relative to the folder."""
    caption_seed: int = 0
    """Draws the template of each image with captions=folder."""

    def __post_init__(self) -> None:
        if (self.captions == "table") != (self.captions_table is not None):
            raise ValueError("--captions table and --captions-table FILE go together; give both or neither")

    def table(self) -> pa.Table:
        found = listing.images(self.path)
        found.say(captions=self.captions == "sidecar")
        paths = list(found.images)
        match self.captions:
            case "sidecar":
                captions = [self._sidecar(path) for path in paths]
            case "folder":
                captions = [self._from_folder(path, row) for row, path in enumerate(paths)]
            case "table":
                captions = self._from_table(paths)
        places = [storage.join(self.path, path) for path in paths]
        return pa.table(
            {"row": pa.array(range(len(paths)), pa.int64()), "caption": captions, "url": places}, schema=TABLE
        )

    def identity(self, table: pa.Table) -> dict[str, Any]:
        """images: of their paths, sizes and times; captions: of every one of them."""
        captions = hashlib.sha256(json.dumps(table["caption"].to_pylist()).encode())
        return {"images": listing.images(self.path).digest, "captions": captions.hexdigest()}

    def numbering(self, identity: dict[str, Any]) -> dict[str, Any]:
        """The same images in the same order; a caption may be another one."""
        return {"plugin": plugins.name_of(self), "images": identity["images"]}

    def labelled(self, samples: int | None, seed: int, split: str) -> Labelled:
        """Classes are the names of the images' folders, sorted; at most `samples` images, the lowest by hash."""
        found = listing.images(self.path)
        found.say(captions=True)
        paths = list(found.images)
        classes = sorted({_folder_of(path) for path in paths})
        paths = _chosen(paths, samples, seed)

        def pictures() -> Iterator[tuple[bytes, str, int]]:
            for path in paths:
                yield *self._image(path), classes.index(_folder_of(path))

        names = tuple(name.replace("_", " ") for name in classes)
        called = [storage.join(self.path, path) for path in paths]
        return Labelled(names, TEMPLATES, pictures(), {"images": found.digest}, called.__getitem__)

    def captioned(self, samples: int | None, seed: int, split: str) -> WithCaptions:
        """sidecar: a caption a line of NAME.txt; table: a line for each caption. `samples` as for `labelled`."""
        found = listing.images(self.path)
        found.say(captions=self.captions == "sidecar")
        paths = list(found.images)
        match self.captions:
            case "sidecar":
                captions = {path: [line for line in self._sidecar(path).split("\n") if line.strip()] for path in paths}
            case "table":
                captions = {path: [caption for _, caption in lines] for path, lines in self._table(paths).items()}
            case "folder":
                raise ValueError(
                    "the names of folders are classes, not captions: --captions sidecar or table, or leave --kind out"
                )
        said = hashlib.sha256(json.dumps([captions[path] for path in paths]).encode()).hexdigest()
        paths = _chosen(paths, samples, seed)

        def pictures() -> Iterator[tuple[bytes, str, Sequence[str]]]:
            for path in paths:
                yield *self._image(path), captions[path]

        called = [storage.join(self.path, path) for path in paths]
        return WithCaptions(pictures(), {"images": found.digest, "captions": said}, called.__getitem__)

    def _image(self, path: str) -> tuple[bytes, str]:
        extension = listing.ending(path)[1:]
        return read_source(storage.join(self.path, path), "image"), {"jfif": "jpg"}.get(extension, extension)

    def _sidecar(self, path: str) -> str:
        place = storage.join(self.path, f"{listing.stem(path)}.txt")
        try:
            return text.decoded(read_source(place, "text"), place).strip()
        except FileNotFoundError as error:
            raise ValueError(f"{path} has no caption beside it ({place}); see --captions for the other ways") from error

    def _from_folder(self, path: str, row: int) -> str:
        template = TEMPLATES[rng(self.caption_seed, "template", row).integers(len(TEMPLATES))]
        return template.replace("{c}", _folder_of(path).replace("_", " "))

    def _from_table(self, paths: list[str]) -> list[str]:
        """The one caption of each."""
        known = self._table(paths)
        for path, lines in known.items():
            for number, caption in lines:
                if caption != lines[0][1]:
                    raise ValueError(
                        f"{self.captions_table}, line {number}: {path} has another caption in an earlier line; keep one"
                    )
        return [known[path][0][1] for path in paths]

    def _table(self, paths: list[str]) -> dict[str, list[tuple[int, str]]]:
        """By path the numbers of its lines, and their captions."""
        place = self.captions_table
        assert place is not None
        try:
            data = storage.read(place)
        except FileNotFoundError as error:
            raise ValueError(f"no caption table at {place}") from error
        known: dict[str, list[tuple[int, str]]] = {}
        for number, line in enumerate(text.lines(data, place), start=1):
            path, *captions = line.split("\t")
            if len(captions) != 1:
                raise ValueError(
                    f"{place}, line {number}: {len(captions) + 1} columns where path TAB caption is expected"
                )
            known.setdefault(path, []).append((number, captions[0].strip()))
        if missing := [path for path in paths if path not in known]:
            raise ValueError(f"{place} has no caption for {len(missing)} images, {missing[0]} the first")
        if unused := sorted(set(known) - set(paths)):
            log.warn(f"{place} has {len(unused):,} paths of no image in {self.path}, {unused[0]} the first")
        return {path: known[path] for path in paths}


def _chosen(paths: list[str], samples: int | None, seed: int) -> list[str]:
    """At most so many, the lowest by hash, in their order."""
    if samples is None:
        return paths
    return sorted(sorted(paths, key=lambda path: rng(seed, "testset", path).integers(1 << 62))[:samples])


def _folder_of(path: str) -> str:
    folder = path.rpartition("/")[0].rpartition("/")[2]
    if not folder:
        raise ValueError(f"{path} lies in no class folder; --captions folder and test sets need FOLDER/CLASS/PICTURE")
    return folder
