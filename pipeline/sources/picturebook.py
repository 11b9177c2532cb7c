"""The picture book: drawn from a seed, served over http on this machine, with the web's faults mixed in.

The default corpus: nothing to fetch from outside, and yet the very path that CC3M takes.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from infra import config, plugins
from infra.seeding import digest64, rng
from pipeline.picturebook import captions, catalogue, draw, scenes, server, web
from pipeline.source import TABLE, Labelled, Source, WithCaptions

SAYINGS = 5  # captions of an image, as in the well-known sets for retrieval


@dataclass(frozen=True, kw_only=True)
class Picturebook(Source):
    """Images of everyday things with alt-text captions, drawn as they are asked for."""

    rows: int = 12_000
    """Rows of the url table."""
    start: int = 0
    """Its first row: a table from row 12000 on shares no image with one of rows 0 to 11999."""
    picture_size: int = 32
    """Side in pixels of the served images."""
    faults: float = 0.1
    """Share of rows that fail as on the web: missing, slow, cut off, HTML, tiny, server error."""
    book_seed: int = 0
    """Another seed is another book."""
    port: int = server.PORT
    """Port of the server on 127.0.0.1; part of the urls, so the same port gives the same shards."""
    things: int = config.later(catalogue.USUAL)
    """How many kinds of things there are, 2 to 217; more than 14 adds signs, flags and letters as well."""

    def __post_init__(self) -> None:
        if self.rows <= 0 or self.start < 0:
            raise ValueError(f"rows must be above 0 and start not below it, not {self.rows} and {self.start}")
        if not draw.SMALLEST <= self.picture_size <= draw.LARGEST:
            raise ValueError(f"picture_size is {draw.SMALLEST} to {draw.LARGEST} pixels, not {self.picture_size}")
        catalogue.names(self.things)
        # Refused here, not where the server starts or answers: a plan that cannot be carried out is none.
        if self.start + self.rows > web.ROWS or abs(self.book_seed) > web.SEEDS:
            raise ValueError(
                f"rows end below {web.ROWS:,} and book_seed lies within {web.SEEDS:,}, not {self.start + self.rows:,} "
                f"and {self.book_seed:,}"
            )
        if not 0 <= self.faults <= 1:
            raise ValueError(f"faults is a share, 0 to 1, not {self.faults}")

    def table(self) -> pa.Table:
        captions, urls = zip(*server.table(self.book_seed, self.start, self.rows, self.port, self.things), strict=True)
        rows = pa.array(range(self.start, self.start + self.rows), pa.int64())
        return pa.table({"row": rows, "caption": captions, "url": urls}, schema=TABLE)

    def numbering(self, identity: dict[str, Any]) -> dict[str, Any]:
        """A row is a number in the book, whichever of its rows a table holds, and how large they are drawn."""
        book = {"plugin": plugins.name_of(self), "book_seed": self.book_seed}
        return book if self.things == catalogue.USUAL else book | {"things": self.things}

    def serving(self, timeout_seconds: float) -> AbstractContextManager[tuple[str, ...]]:
        @contextmanager
        def running() -> Iterator[tuple[str, ...]]:
            with server.serving(
                server.Faults(total=self.faults),
                size=self.picture_size,
                port=self.port,
                timeout_seconds=timeout_seconds,
            ):
                yield (f"127.0.0.1:{self.port}",)

        return running()

    def labelled(self, samples: int | None, seed: int, split: str) -> Labelled:
        """Images of one thing each, classes in turn; `seed` and `split` make other images of the same book."""
        book, count = self._book(samples, seed, split)

        def pictures() -> Iterator[tuple[bytes, str, int]]:
            for index in range(count):
                label, _ = scenes.labelled(book, index, self.things)
                yield draw.jpeg(draw.labelled_picture(book, index, self.picture_size, self.things)), "jpg", label

        return Labelled(catalogue.names(self.things), scenes.TEMPLATES, pictures())

    def captioned(self, samples: int | None, seed: int, split: str) -> WithCaptions:
        """The images of `labelled`, each put into words several times; no two of its captions are the same."""
        book, count = self._book(samples, seed, split)

        def pictures() -> Iterator[tuple[bytes, str, Sequence[str]]]:
            for index in range(count):
                _, view = scenes.labelled(book, index, self.things)
                draws = (
                    rng(book, *scenes.labels(self.things), "test captions", index, number) for number in range(SAYINGS)
                )
                said = list(dict.fromkeys(captions.describe(view, r) for r in draws))
                yield draw.jpeg(draw.labelled_picture(book, index, self.picture_size, self.things)), "jpg", said

        return WithCaptions(pictures())

    def _book(self, samples: int | None, seed: int, split: str) -> tuple[int, int]:
        """Which book's test images, and how many of them."""
        if samples is None:
            raise ValueError("the picture book has no end: say how many images with --samples")
        return self.book_seed if (seed, split) == (0, "test") else digest64(self.book_seed, seed, split) >> 1, samples
