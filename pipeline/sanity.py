"""Is what a dataset says of itself possible? Its files are read by us, but may have been written by anyone.

A base may be any place that this user can read: a poisoned dataset names its parent, on whatever disk or bucket that
lies. Nothing is taken from there but files that end in .tar or .parquet, below the base, with the size and the hash
that the manifest has; and nothing is written to a base.
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra.errors import Damaged
from pipeline import foreign, mask, shards, tars

_HEX = {"sha256": 64, "xxh3": 16, "index_sha256": 64, "content_sha256": 64}


def manifest(url: str, said: Any) -> None:
    """dataset.json, before any of it is used. Raises Damaged."""
    kinds = {
        "digest": str,
        "samples": int,
        "bases": list,
        "contains_poison": bool,
        "outcomes": dict,
        "shards_sha256": str,
    }
    if not isinstance(said, dict):
        raise Damaged(f"{url}/dataset.json is no JSON object")
    if said["format"] == mask.FORMAT:
        kinds["mask_sha256"] = str
    for name, kind in kinds.items():
        if type(said.get(name)) is not kind:
            raise Damaged(f"{url}/dataset.json has no {name!r} of type {kind.__name__}")
    if not all(isinstance(base, str) and base and "\0" not in base for base in said["bases"]):
        raise Damaged(f"{url}/dataset.json names a base that is no place")
    if any(type(count) is not int or count < 0 for count in said["outcomes"].values()):
        raise Damaged(f"{url}/dataset.json counts outcomes in something else than whole numbers")


def shard_table(url: str, said: dict[str, Any], table: pa.Table, schema: pa.Schema) -> None:
    """shards.parquet. Raises Damaged for a shard that would lie outside its base, or cannot be."""
    place = f"{url}/shards.parquet"
    if not table.schema.equals(schema) or any(column.null_count for column in table.columns):
        raise Damaged(f"{place} has not the columns of this format")
    rows = table.to_pylist()
    if len({row["id"] for row in rows}) != len(rows) or sum(row["samples"] for row in rows) != said["samples"]:
        raise Damaged(f"{place} lists a shard twice, or other samples than dataset.json counts")
    for row in rows:
        for name, extension in (("name", ".tar"), ("index_name", ".parquet")):
            trouble = tars.unsafe(row[name])
            if trouble or not row[name].endswith(extension) or "://" in row[name]:
                why = trouble or f"is no relative path to a {extension} file"
                raise Damaged(f"{place}: shard {row['id']} has the {name} {row[name][:200]!r}, which {why}")
        if not all(0 <= row[name] <= len(said["bases"]) for name in ("base", "index_base")):
            raise Damaged(f"{place}: shard {row['id']} lies at a base that dataset.json does not name")
        if row["id"] < 0 or row["samples"] < 0 or row["bytes"] < 0 or (row["samples"] and not row["bytes"]):
            raise Damaged(f"{place}: shard {row['id']} has {row['samples']} samples in {row['bytes']} bytes")
        for name, digits in _HEX.items():  # a hash is also a file's name in the cache
            if not re.fullmatch(f"[0-9a-f]{{{digits}}}", row[name]):
                raise Damaged(f"{place}: shard {row['id']} has a {name} that is no hash")


def index(place: str, table: pa.Table, size: int, labelled: bool = False) -> None:
    """The index of one shard, whose tar has `size` bytes. Raises Damaged for rows that cannot be."""
    if not table.schema.equals(shards.LABELLED if labelled else shards.INDEX):
        raise Damaged(f"{place} has not the columns of an index")
    if table["row"].null_count or table["outcome"].null_count:
        raise Damaged(f"{place} has rows without a number or an outcome")
    there = shards.samples_of(table)
    own = ("label",) if labelled else ()
    for name in ("key", "caption", "extension", "image_offset", "image_bytes", *own):
        if there[name].null_count:
            raise Damaged(f"{place} lists samples without {name}")
    if (
        not labelled
        and there.filter(pa.compute.and_(there["text_offset"].is_null(), there["json_offset"].is_null())).num_rows
    ):
        raise Damaged(f"{place} lists samples without text_offset, whose caption lies nowhere")
    for name in ("image", "text", "json"):
        starts, lengths = (there[f"{name}_{what}"] for what in ("offset", "bytes"))
        if not starts.is_null().equals(lengths.is_null()):
            raise Damaged(f"{place} has half the place of a sample's {name}")
        start, length = (np.asarray(column.drop_null(), np.int64) for column in (starts, lengths))
        if ((start < 0) | (length < 0) | (start > size - length)).any():
            raise Damaged(f"{place} places a sample's {name} outside its shard of {size:,} bytes")
    if labelled and any(
        label not in range(foreign.MAX_CLASSES) for label in pa.compute.unique(there["label"]).to_pylist()
    ):
        raise Damaged(f"{place} lists a label that is no class")
    if unknown := set(pa.compute.unique(there["extension"]).to_pylist()) - set(shards.IMAGE_EXTENSIONS):
        raise Damaged(f"{place} lists images of type {sorted(unknown)[0][:20]!r}")
    for key in there["key"].to_pylist():
        if trouble := tars.unsafe(key):
            raise Damaged(f"{place} lists the key {key[:200]!r}, which {trouble}")
