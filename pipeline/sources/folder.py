"""Images that you have: a folder on disk or S3, captions from a table, sidecar texts or folder names."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

from infra import storage
from infra.seeding import rng
from pipeline.shards import IMAGE_EXTENSIONS, read_source
from pipeline.source import TABLE, Labelled, Source

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
    """Images (.jpg, .jpeg, .png, .webp) in a folder and its subfolders; row id = place in the sorted paths."""

    kind: ClassVar[Literal["urls", "files"]] = "files"

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
        paths = self._paths()
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

    def identity(self) -> dict[str, Any]:
        return {"paths_sha256": hashlib.sha256("\n".join(self._paths()).encode()).hexdigest()}

    def labelled(self, samples: int | None, seed: int, split: str) -> Labelled:
        """Classes are the names of the images' folders, sorted; at most `samples` images, the lowest by hash."""
        paths = self._paths()
        classes = sorted({_folder_of(path) for path in paths})
        if samples is not None:
            paths = sorted(sorted(paths, key=lambda path: rng(seed, "testset", path).integers(1 << 62))[:samples])

        def pictures() -> Iterator[tuple[bytes, str, int]]:
            for path in paths:
                data = read_source(storage.join(self.path, path), "image")
                yield data, path.rsplit(".", 1)[1].lower(), classes.index(_folder_of(path))

        names = tuple(name.replace("_", " ") for name in classes)
        return Labelled(names, TEMPLATES, pictures(), lambda number: storage.join(self.path, paths[number]))

    def _paths(self) -> list[str]:
        paths = [path for path in storage.find(self.path) if path.rsplit(".", 1)[-1].lower() in IMAGE_EXTENSIONS]
        if not paths:
            raise ValueError(f"no images ({', '.join(IMAGE_EXTENSIONS)}) under {self.path}")
        return paths

    def _sidecar(self, path: str) -> str:
        place = storage.join(self.path, path.rsplit(".", 1)[0] + ".txt")
        try:
            return read_source(place, "text").decode().strip()
        except FileNotFoundError as error:
            raise ValueError(f"{path} has no caption beside it ({place}); see --captions for the other ways") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{place} is not UTF-8") from error

    def _from_folder(self, path: str, row: int) -> str:
        template = TEMPLATES[rng(self.caption_seed, "template", row).integers(len(TEMPLATES))]
        return template.replace("{c}", _folder_of(path).replace("_", " "))

    def _from_table(self, paths: list[str]) -> list[str]:
        assert self.captions_table is not None
        try:
            lines = storage.read(self.captions_table).decode().splitlines()
        except FileNotFoundError as error:
            raise ValueError(f"no caption table at {self.captions_table}") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.captions_table} is not UTF-8") from error
        known: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            path, tab, caption = line.partition("\t")
            if not tab:
                raise ValueError(f"{self.captions_table}, line {number}: expected path TAB caption")
            known[path] = caption.strip()
        if missing := [path for path in paths if path not in known]:
            raise ValueError(f"{self.captions_table} has no caption for {len(missing)} images, {missing[0]} the first")
        return [known[path] for path in paths]


def _folder_of(path: str) -> str:
    folder = path.rpartition("/")[0].rpartition("/")[2]
    if not folder:
        raise ValueError(f"{path} lies in no class folder; --captions folder and test sets need FOLDER/CLASS/PICTURE")
    return folder
