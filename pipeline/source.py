"""What a corpus is: where its pairs are, as urls to download or as files already on disk.

A subclass is one file in `pipeline/sources/`, a frozen dataclass whose fields are its knobs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import pyarrow as pa

from infra import config

TABLE = pa.schema([("row", pa.int64()), ("caption", pa.string()), ("url", pa.string())])


@dataclass(frozen=True)
class Labelled:
    """Images with class labels: (encoded bytes, extension, class index) one after another, and what the classes are.

    templates: prompts with `{c}` where the class name goes, as CLIP_benchmark writes them. numbered: whether labels are
    the data set's own numbers, and not only the order of names that were found. identity: what the images
    depend on beside the source's fields, as `Source.identity`. called: what to call a sample in a message, by its
    number from 0; the name of its file where it has one.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    samples: Iterator[tuple[bytes, str, int]]
    identity: dict[str, Any] = field(default_factory=dict)
    called: Callable[[int], str] = "image {}".format
    numbered: bool = False


@dataclass(frozen=True)
class WithCaptions:
    """Images with captions, one or more each: (encoded bytes, extension, captions) one after another. The rest as
    `Labelled`."""

    samples: Iterator[tuple[bytes, str, Sequence[str]]]
    identity: dict[str, Any] = field(default_factory=dict)
    called: Callable[[int], str] = "image {}".format


@dataclass(frozen=True, kw_only=True)
class Source:
    """The base of all corpora. kind "urls": `url` is fetched over http(s). kind "files": `url` is an image's file."""

    FOLDERS: ClassVar[tuple[str, ...]] = ("pipeline.sources",)
    kind: ClassVar[Literal["urls", "files"]] = "urls"
    PATHS: ClassVar[frozenset[str]] = frozenset()  # fields that name files or folders: other spellings are the same

    def table(self) -> pa.Table:
        """The pairs: TABLE, row ids ascending. Raises ValueError for a table that is missing, empty or malformed."""
        raise NotImplementedError

    def identity(self, table: pa.Table) -> dict[str, Any]:
        """What the pairs depend on beside the fields, a hash by a name that people read: so that changed input is
        noticed. table: what `table` gave."""
        return {}

    def numbering(self, identity: dict[str, Any]) -> dict[str, Any]:
        """What decides which pair a row id means: where it is equal, equal row ids of two tables are the same pair.
        identity: what `identity` gave for this source, perhaps long ago."""
        return config.to_json(self) | {"identity": identity}

    def serving(self, timeout_seconds: float) -> AbstractContextManager[tuple[str, ...]]:
        """Serve the corpus while it is downloaded; yields each `host:port` that may be reached though private."""
        return nullcontext(())

    def labelled(self, samples: int | None, seed: int, split: str) -> Labelled:
        """Images with class labels for a test set. Raises ValueError where this corpus has none."""
        raise ValueError(
            "this source has captions but no class labels; test sets are made from picturebook, folder or parquet"
        )

    def captioned(self, samples: int | None, seed: int, split: str) -> WithCaptions:
        """Images with captions for a test set of retrieval. Raises ValueError where this corpus makes none."""
        raise ValueError("test sets with captions are made from picturebook, folder or parquet")
