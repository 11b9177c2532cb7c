"""What a corpus is: where its pairs are, as urls to download or as files already on disk.

A subclass is one file in `pipeline/sources/`, a frozen dataclass whose fields are its knobs.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pyarrow as pa

TABLE = pa.schema([("row", pa.int64()), ("caption", pa.string()), ("url", pa.string())])


@dataclass(frozen=True)
class Labelled:
    """Images with class labels: (encoded bytes, extension, class index) one after another, and what the classes are.

    templates: prompts with `{c}` where the class name goes, as CLIP_benchmark writes them. called: what to call a
    sample in a message, by its number from 0; the name of its file where it has one.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    samples: Iterator[tuple[bytes, str, int]]
    called: Callable[[int], str] = "image {}".format


@dataclass(frozen=True, kw_only=True)
class Source:
    """The seam. kind "urls": `url` is fetched over http(s). kind "files": `url` is the place of an image's file."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("pipeline.sources",)
    kind: ClassVar[Literal["urls", "files"]] = "urls"

    def table(self) -> pa.Table:
        """The pairs: TABLE, row ids ascending. Raises ValueError for a table that is missing, empty or malformed."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """What the table depends on beside the fields (a hash of a file), so that a changed input is noticed."""
        return {}

    def serving(self, timeout_seconds: float) -> AbstractContextManager[tuple[str, ...]]:
        """Serve the corpus while it is downloaded; yields each `host:port` that may be reached though private."""
        return nullcontext(())

    def labelled(self, samples: int | None, seed: int, split: str) -> Labelled:
        """Images with class labels for a test set. Raises ValueError where this corpus has none."""
        raise ValueError("this source has captions but no class labels; test sets are made from picturebook or folder")
