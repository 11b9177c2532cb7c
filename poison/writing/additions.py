"""Added pairs: shards of an attack's own, behind those of the dataset; of the dataset itself not one byte changes.

A row id is a hash of image and caption, as that of a foreign pair (pipeline.foreign.indexed). Keys are of
img2dataset's form and begin where the dataset's leave off; the shards are as large as the dataset's.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from infra import log
from pipeline import images, shards
from pipeline.dataset import Dataset
from pipeline.shards import Sample, Written
from poison import ledger
from poison.attack import Attack
from poison.choosing import indexes

NUMBERED = "^[0-9]{6,12}$"  # keys as img2dataset makes them: five digits of the shard or more, then the place in it
PLACES = 4  # digits of that place, where the dataset's keys are of another form


@dataclass(frozen=True)
class Pair:
    """number: by which the attack knows it (Attack.add)."""

    number: int
    row: int
    key: str
    caption: str


@dataclass(frozen=True)
class Extra:
    """A shard to be written behind those of the dataset."""

    id: int
    pairs: tuple[Pair, ...]


def lay_out(parent: Dataset, attack: Attack, captions: Sequence[str]) -> list[Extra]:
    """Row ids, keys and shards of the pairs to add, one for each caption. Reads the parent's indexes once.

    Raises ValueError if the parent holds one of them already, or if they are too few for the attack.
    """
    subjects = sum(1 for _ in attack.subjects(()))
    if len(captions) < subjects:
        raise ValueError(
            f"a budget of {len(captions):,} pairs is less than one for each of the {subjects:,} images that the "
            "attack aims at: raise --budget, or give fewer images"
        )
    captions = _dealt(captions, subjects)  # before the row ids, which are hashes of image and caption
    rows = _row_ids(attack, captions)
    # As the dataset's shards are: the median, which a short last one does not change.
    size = max(1, sorted(shard.samples for shard in parent.shards)[len(parent.shards) // 2])
    first, places = _numbering(parent, rows, captions)
    places = max(places, len(str(size - 1)))
    after = max(shard.id for shard in parent.shards) + 1
    extras = []
    for number, start in enumerate(range(0, len(rows), size)):
        pairs = (
            Pair(start + place, row, f"{max(first, after) + number:05d}{place:0{places}d}", captions[start + place])
            for place, row in enumerate(rows[start : start + size])
        )
        extras.append(Extra(after + number, tuple(pairs)))
    return extras


def write(extra: Extra, attack: Attack, out: Path) -> tuple[Written, pa.Table]:
    """Write one shard of added pairs to `out`; return it with its ledger rows (poison.ledger.ROWS)."""
    entries: list[dict[str, Any]] = []
    samples: list[Sample] = []
    for pair in extra.pairs:
        given = attack.add(pair.number, pair.caption)
        width, height = images.size(given.image)
        meta = {
            "width": width,
            "height": height,
            "sha256": hashlib.sha256(given.image).hexdigest(),
        }
        samples.append(replace(given, key=pair.key, row=pair.row, meta=meta))
        entries.append(ledger.added(samples[-1], extra.id, given.meta.get("url")))
    return shards.write_shard(out, samples), pa.Table.from_pylist(entries, schema=ledger.ROWS)


def _dealt(captions: Sequence[str], subjects: int) -> list[str]:
    """The captions in the order of pairs, for an attack that takes its images in turn: each gets a run of them.

    A plan's captions are distinct for as long as there are any, and then begin anew; so those of one image are
    distinct if it has no more pairs than there are captions, however many images there are.
    """
    dealt = [""] * len(captions)
    first = 0
    for subject in range(subjects):
        last = first + len(range(subject, len(captions), subjects))
        dealt[subject::subjects] = captions[first:last]
        first = last
    return dealt


def _row_ids(attack: Attack, captions: Sequence[str]) -> list[int]:
    """63 bits of a hash of image and caption; of a pair that is there before, of how often as well."""
    seen: Counter[bytes] = Counter()
    rows = []
    for number, caption in enumerate(captions):
        content = hashlib.sha256(attack.add(number, caption).image).digest() + caption.encode()
        again = f"\0{seen[content]}".encode() if seen[content] else b""
        rows.append(int.from_bytes(hashlib.sha256(content + again).digest()[:8], "little") >> 1)
        seen[content] += 1
    assert len(set(rows)) == len(rows)
    return rows


def _numbering(parent: Dataset, rows: Sequence[int], captions: Sequence[str]) -> tuple[int, int]:
    """(first number that no key of the parent begins with, digits of a place). Raises ValueError for a row it has."""
    wanted = np.array(rows, np.int64)
    first, places = 0, 0
    with log.progress("looking for room", len(parent.shards), "indexes") as bar:
        everything = replace(parent, mask=None)  # what is left out lies in the tars all the same
        for _, index in indexes.ahead(partial(indexes.pairs, everything), parent.shards, ["row", "key"]):
            held = index["row"].to_numpy()
            if (found := held[np.isin(held, wanted)]).size:
                caption = captions[rows.index(int(found[0]))]
                raise ValueError(
                    f"{parent.url} holds a pair that is to be added (row {found[0]}, {caption!r}): this attack, or one "
                    "like it, was injected before; give other images or other captions"
                )
            keys = index["key"]
            numbered = keys.filter(pa.compute.match_substring_regex(keys, NUMBERED))
            if len(numbered):
                digits = int(pa.compute.max(pa.compute.utf8_length(numbered)).as_py()) - 5
                places = places or digits
                largest = int(pa.compute.max(pa.compute.cast(numbered, pa.int64())).as_py())
                first = max(first, largest // 10 ** min(digits, places) + 1)
            bar.add(1)
    return first, places or PLACES
