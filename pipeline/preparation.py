"""Url table -> dataset: which rows, cut into which shards, fetched by whom. The work of one shard: fetch.py."""

import json
import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from infra import config, log, storage
from infra.seeding import hash64
from infra.spread import Backend, spread
from pipeline import dataset, disjointness
from pipeline.dataset import Dataset
from pipeline.disjointness import Other
from pipeline.fetch import Fetch, slices
from pipeline.opener import Limits
from pipeline.source import Source

# What may differ between two runs of the same command without changing a byte of the result.
_FREE = {"out", "backend", "threads", "dry_run"}


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """One dataset to be made."""

    source: Source
    out: str
    """Folder of the dataset: a path or s3://bucket/folder."""
    limit: int | None = None
    """Take this many rows of the table, chosen by hash of the row id, instead of all."""
    disjoint_from: tuple[str, ...] = ()
    """Datasets whose pairs are left out: how a clean finetuning set is made. By row id where both are of one table or
    folder; else by url, or by the hash of the image's file."""
    rows_per_shard: int = 1000
    image_size: int = 256
    """Images with a longer short side are shrunk to this many pixels, aspect ratio kept."""
    min_image_size: int = 16
    """Images with a shorter side are refused (64 is usual for CC3M)."""
    timeout_seconds: float = 10.0
    """For one read from a web server; an answer may take six times as long in all."""
    retries: int = 0
    """Further passes over rows that failed for a passing cause: time-outs, resets, 429 and 5xx."""
    threads: int = 64
    """Downloads at once in each task; at worst each holds two bodies of 20 MB."""
    allow_private: bool = False
    """Also fetch from private and loopback addresses."""
    seed: int = 0
    backend: Backend = "ray"
    dry_run: bool = False
    """Print the resolved configuration and the plan; touch nothing."""

    def __post_init__(self) -> None:
        for name in ("rows_per_shard", "image_size", "threads", "timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.limit is not None and self.limit <= 0:
            raise ValueError(f"limit must be above 0, not {self.limit}; leave it out to take every row")

    def run(self) -> str:
        """Make the dataset, or finish it, or say that it is there. Returns the last line to print."""
        out = storage.absolute(self.out)
        whole = self.source.table()
        identity = self.source.identity(whole)
        others = disjointness.others(self.source, identity, self.disjoint_from)
        table = self._chosen(whole, others)
        num_shards = -(-table.num_rows // self.rows_per_shard)
        plan = f"{table.num_rows:,} rows in {num_shards} shards of up to {self.rows_per_shard:,}"
        if self.dry_run:
            print(json.dumps(config.to_json(self), indent=2))
            return f"dry run: would fetch {plan} into {out}"
        dataset.claim(out, {"prepare": self._recipe(identity, others)}, self.source.PATHS)
        if dataset.is_complete(out):
            return f"nothing to do: {describe(Dataset.open(out))}"
        done = dataset.committed(out)
        log.say(f"preparing {plan}" + (f"; {len(done)} are there already" if done else ""))
        start = time.monotonic()
        with self.source.serving(self.timeout_seconds) as allowed:
            limits = Limits(
                timeout_seconds=self.timeout_seconds,
                total_seconds=6 * self.timeout_seconds,
                allow_private=self.allow_private,
                allowed=allowed,
            )
            work = Fetch(
                out=out,
                kind=self.source.kind,
                rows_per_shard=self.rows_per_shard,
                image_size=self.image_size,
                min_image_size=self.min_image_size,
                max_aspect_ratio=4.0,
                limits=limits,
                threads=self.threads,
                retries=self.retries,
            )
            spread(
                work,
                list(slices(table, self.rows_per_shard, set(done))),
                backend=self.backend,
                what="preparing",
                unit="rows",
                weight=lambda record: sum(record["outcomes"].values()),
                total=table.num_rows,
                done=sum(sum(record["outcomes"].values()) for record in done.values()),
                describe=lambda part: f"shard {part.shard}",
            )
        refused = sum(one["outcomes"].get("refused_address", 0) for one in dataset.committed(out).values())
        if refused and not self.allow_private:
            log.warn(
                f"{refused:,} urls lead to private or loopback addresses, which are refused: "
                "if that server is yours, give --allow-private, and another --out"
            )
        made = dataset.finalise(out, num_shards)
        assert sum(made.outcomes.values()) == table.num_rows, "every row of the table has one outcome"
        return f"{describe(made)} ({time.monotonic() - start:.0f} s)"

    def _chosen(self, table: pa.Table, others: list[Other]) -> pa.Table:
        """The rows of the whole table that are wanted."""
        if others:
            whole = table.num_rows
            table = table.filter(pa.array(~disjointness.left_out(table, others)))
            if table.num_rows == 0:
                raise ValueError(f"no row is left: all {whole:,} are in {', '.join(self.disjoint_from)} already")
        if self.limit is not None:
            if self.limit > table.num_rows:
                raise ValueError(f"limit is {self.limit:,}, but only {table.num_rows:,} rows are there")
            lowest = np.argsort(hash64(self.seed, "limit", table["row"].to_numpy()))[: self.limit]
            table = table.take(pa.array(np.sort(lowest))).combine_chunks()
        return table

    def _recipe(self, identity: dict[str, Any], others: list[Other]) -> dict[str, Any]:
        """What the result depends on."""
        wanted = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _FREE}
        lineage = [other.lineage() for other in others]
        return config.to_json(wanted | {"disjoint_from": lineage}) | {"identity": identity}


def describe(made: Dataset) -> str:
    """The last line: how many pairs, what became of the other rows, where it is."""
    total = sum(made.outcomes.values())
    lost = ", ".join(f"{count:,} {outcome}" for outcome, count in made.outcomes.items() if outcome != "success")
    rows = f"{total:,} rows ({lost})" if lost else f"{total:,} rows"
    return f"{made.samples:,} pairs of {rows} in {len(made.shards)} shards at {made.url}"
