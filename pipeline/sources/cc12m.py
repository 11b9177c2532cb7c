"""Conceptual 12M (Changpinyo et al., CVPR 2021): `cc12m.tsv`, 12.4 million lines of url TAB caption."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from pipeline import urltable
from pipeline.source import Source


@dataclass(frozen=True, kw_only=True)
class Cc12m(Source):
    """Conceptual 12M: url TAB caption."""

    PATHS: ClassVar[frozenset[str]] = frozenset({"urls"})

    urls: str
    """The url table: a path or s3:// url of cc12m.tsv, or any table of its form; also a .csv or .parquet with
    columns url and caption (or TEXT), each as it is or as .gz."""

    def table(self) -> pa.Table:
        return urltable.read(self.urls, ("url", "caption"))

    def identity(self, table: pa.Table) -> dict[str, Any]:
        return {"urls_sha256": urltable.digest(self.urls)}

    def numbering(self, identity: dict[str, Any]) -> dict[str, Any]:
        return identity
