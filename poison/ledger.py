"""The ledger folder: which pairs were poisoned, and how.

    recipe.json             whose folder this is: the whole recipe, of which the poisoned dataset holds only a hash
    parts/00042.parquet     the rows of one rewritten or added shard, here before it is committed; gone at the end
    ledger.parquet          ROWS, by shard and place in it
    trigger.png             the trigger in 224 geometry, where there is one fixed image of it
    attack.json             the attack by plugin name and fields, the recipe, both digests; written last: complete

Ground truth for evaluation, never for training: it lies beside the poisoned dataset and never inside.
"""

import hashlib
import io
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra import config, storage
from infra.errors import Damaged
from pipeline import images, shards
from pipeline.dataset import Dataset
from pipeline.shards import Sample
from poison.attack import Attack
from poison.geometry import Box

FORMAT = 1
ABOUT = ("attack", "trigger_sha256", "seed", "budget", "share_of_shards", "parent", "dataset", "ledger_sha256")
ROWS = pa.schema(
    [
        ("row", pa.int64()),
        ("key", pa.string()),
        ("shard", pa.int32()),
        ("action", pa.string()),  # "replaced": stands where its original stood; "added": a further pair
        ("original_caption", pa.string()),  # null for a pair of a shard of the attack's own
        ("caption", pa.string()),
        ("top", pa.int32()),  # the trigger in the stored image's pixels; null where it has no place of its own
        ("left", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("source", pa.string()),  # url of the original image, as the parent's index has it, or the attack
        (
            "original_image_sha256",
            pa.string(),
        ),  # of the stored bytes; where the image is not touched, as image_sha256
        ("image_sha256", pa.string()),
    ]
)


@dataclass(frozen=True)
class Ledger:
    """A complete ledger. budget: pairs asked for. share_of_shards: what the attacker reached. rows: table of ROWS."""

    url: str
    attack: Attack
    seed: int
    budget: int
    share_of_shards: float
    parent_url: str
    parent_digest: str
    dataset_digest: str
    rows: pa.Table

    @staticmethod
    def open(url: str) -> "Ledger":
        """Raises ValueError if there is none, it is not complete, or its attack would not draw the same trigger."""
        url = storage.absolute(url)
        if not is_complete(url):
            if storage.exists(storage.join(url, "dataset.json")):
                raise ValueError(f"no ledger at {url}: that is a dataset")
            if storage.exists(storage.join(url, "recipe.json")):
                raise ValueError(f"the ledger {url} is not complete: run the poison command that makes it once more")
            raise ValueError(f"no ledger at {url}: it has no attack.json")
        about = storage.read_object(place := storage.join(url, "attack.json"))
        if about.get("format") != FORMAT:
            raise ValueError(f"{url} has ledger format {about.get('format')!r}; this version reads format {FORMAT}")
        storage.holding(place, about, *ABOUT)
        attack = config.from_json(Attack, about["attack"])
        if about["trigger_sha256"] is not None:
            drawn, stored = attack.trigger(), images.decode(_read(url, "trigger.png", about["trigger_sha256"]))
            if drawn is None or not np.array_equal(drawn, stored):
                raise ValueError(f"the trigger that this version draws for {url} is not the one in its trigger.png")
        return Ledger(
            url=url,
            attack=attack,
            seed=about["seed"],
            budget=about["budget"],
            share_of_shards=about["share_of_shards"],
            parent_url=about["parent"]["url"],
            parent_digest=about["parent"]["digest"],
            dataset_digest=about["dataset"]["digest"],
            rows=shards.read_parquet(_read(url, "ledger.parquet", about["ledger_sha256"])),
        )

    @property
    def row_ids(self) -> frozenset[int]:
        return frozenset(self.rows["row"].to_pylist())

    def belongs_to(self, dataset: Dataset) -> None:
        """Raises ValueError unless this is the ledger of that poisoned dataset."""
        if dataset.digest == self.dataset_digest:
            return
        clean = " (its clean parent)" if dataset.digest == self.parent_digest else ""
        raise ValueError(
            f"the ledger {self.url} belongs to another dataset, of digest {self.dataset_digest[:12]}; "
            f"{dataset.url} has {dataset.digest[:12]}{clean}"
        )


def taken(ledgers: Sequence[Ledger], dataset: Dataset) -> Set[int]:
    """Rows that earlier attacks on this dataset or its ancestors took. Raises ValueError for a foreign ledger."""
    line = {dataset.digest} | {ledger.parent_digest for ledger in ledgers}
    for ledger in ledgers:
        if ledger.dataset_digest not in line and ledger.parent_digest != dataset.digest:
            raise ValueError(
                f"the ledger {ledger.url} (--taken) belongs to another dataset: neither {dataset.url} "
                "nor an earlier stage of it, by the ledgers given"
            )
    return frozenset().union(*(ledger.row_ids for ledger in ledgers))


def is_sealed(url: str) -> bool:
    """Whether its dataset was sealed (poison.sealed.sealing)."""
    return "seal" in storage.read_object(storage.join(url, "recipe.json"))


def is_complete(url: str) -> bool:
    return storage.exists(storage.join(url, "attack.json"))


# Making one: claim the folder, save a part per shard before that shard is committed, gather, seal.


def claim(url: str, recipe: dict[str, Any], *, dry_run: bool = False) -> None:
    """Reserve a folder for one recipe; dry_run: only see whether it could be. Raises ValueError if it is another's."""
    place, wanted = storage.join(url, "recipe.json"), storage.dump_json(recipe)
    if not storage.exists(place):
        if others := storage.names(url):
            raise ValueError(f"{url} exists and is no ledger (it holds {others[0]!r}): choose another --ledger")
        if dry_run:
            return
        storage.create(place, wanted)
    if storage.read(place) != wanted:
        raise ValueError(
            f"{url} exists and is the ledger of a different command (see its recipe.json): "
            "choose another --ledger, or remove that folder together with its dataset"
        )


def entry(original: dict[str, Any], result: Sample, shard_id: int, place: Box | None) -> dict[str, Any]:
    """One of ROWS. original: the index row of the pair that `result` was made from."""
    box = place._asdict() if place is not None else dict.fromkeys(Box._fields)
    return box | {
        "row": result.row,
        "key": result.key,
        "shard": shard_id,
        "action": "replaced" if result.key == original["key"] else "added",
        "original_caption": original["caption"],
        "caption": result.caption,
        "source": original["url"],
        "original_image_sha256": original["image_sha256"],
        "image_sha256": hashlib.sha256(result.image).hexdigest(),
    }


def added(pair: Sample, shard_id: int, source: str | None) -> dict[str, Any]:
    """One of ROWS for a pair of a shard of the attack's own. source: where its image, left as it is, comes from."""
    original = {"key": None, "caption": None, "url": source, "image_sha256": hashlib.sha256(pair.image).hexdigest()}
    return entry(original, pair, shard_id, None)


def save_part(url: str, shard_id: int, rows: pa.Table) -> None:
    storage.write(_part(url, shard_id), _parquet(rows))


def gather(url: str, shard_ids: Sequence[int]) -> pa.Table:
    """Join the parts of the rewritten and added shards into ledger.parquet; return its rows.

    Raises Damaged if a part is missing: what was done to that shard is no longer known.
    """
    whole = storage.join(url, "ledger.parquet")
    if not is_gathered(url):  # else an earlier attempt came that far, and may have removed parts since
        present = set(storage.names(storage.join(url, "parts")))
        for shard_id in shard_ids:
            if _part(url, shard_id).rsplit("/", 1)[-1] not in present:
                raise Damaged(
                    f"{_part(url, shard_id)} is missing: remove the dataset and its ledger, and run the command again"
                )
        parts = [shards.read_parquet(storage.read(_part(url, shard_id))) for shard_id in sorted(shard_ids)]
        storage.write(whole, _parquet(pa.concat_tables(parts)))
    return shards.read_parquet(storage.read(whole))


def is_gathered(url: str) -> bool:
    """Whether ledger.parquet holds the rows of all shards: it is written after the last of them is committed."""
    return storage.exists(storage.join(url, "ledger.parquet"))


def seal(url: str, recipe: dict[str, Any], attack: Attack, parent: Dataset, digest: str) -> None:
    """Write the trigger and, last of all, attack.json. digest: of the poisoned dataset, which must be complete."""
    drawn = attack.trigger()
    trigger = images.encode(drawn, "png") if drawn is not None else None
    if trigger is not None:
        storage.write(storage.join(url, "trigger.png"), trigger)
    storage.remove(storage.join(url, "parts"))
    about = recipe | {
        "format": FORMAT,
        "parent": {"url": parent.url, "digest": parent.digest},
        "dataset": {"digest": digest},
        "ledger_sha256": hashlib.sha256(storage.read(storage.join(url, "ledger.parquet"))).hexdigest(),
        "trigger_sha256": hashlib.sha256(trigger).hexdigest() if trigger is not None else None,
    }
    storage.write_json(storage.join(url, "attack.json"), about)


def _part(url: str, shard_id: int) -> str:
    return storage.join(url, "parts", f"{shard_id:05d}.parquet")


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _read(url: str, name: str, sha256: str) -> bytes:
    place = storage.join(url, name)
    if not storage.exists(place):
        raise Damaged(f"{place} is missing")
    data = storage.read(place)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Damaged(f"{place} is not the one that attack.json names (sha256 differs)")
    return data
