"""Conceptual Captions 3M (Sharma et al., ACL 2018; ai.google.com/research/ConceptualCaptions).

`Train_GCC-training.tsv`: 3.3 million lines of caption TAB url. Captions are free to use, images are their owners'.
The web has forgotten 30 to 60 percent of them: expect 1.3 to 2.3 million pairs.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from pipeline import urltable
from pipeline.source import Source


@dataclass(frozen=True, kw_only=True)
class Cc3m(Source):
    """Conceptual Captions 3M: caption TAB url."""

    PATHS: ClassVar[frozenset[str]] = frozenset({"urls"})

    urls: str
    """The url table: a path or s3:// url of Train_GCC-training.tsv, or any table of its form; also a .csv or .parquet
    with columns url and caption (or TEXT), each as it is or as .gz."""

    def table(self) -> pa.Table:
        return urltable.read(self.urls, ("caption", "url"))

    def identity(self, table: pa.Table) -> dict[str, Any]:
        return {"urls_sha256": urltable.digest(self.urls)}

    def numbering(self, identity: dict[str, Any]) -> dict[str, Any]:
        return identity
