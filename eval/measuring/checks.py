"""What must hold before numbers mean anything: the attack belongs to the runs, and no cure learned from poisons."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from eval.judging import roles
from eval.store.records import AttackRecord
from eval.store.runs import Run
from infra import log
from pipeline.dataset import Dataset
from pipeline.testsets import TestSet
from poison.ledger import Ledger


def lineage(runs: Sequence[Run], ledger: Ledger, attack: AttackRecord, known: Sequence[AttackRecord]) -> None:
    """Raises ValueError if no run learned from the poisons of this ledger: it belongs to another dataset.

    A run of which that is not known may have, or not: what it does under an attack is the question, whoever asks it.
    """
    if all(roles.role(run, attack, known).kind == "floor" for run in runs):
        datasets = "; ".join(f"{run.name}: {run.dataset} ({run.dataset_digest[:12]})" for run in runs)
        raise ValueError(
            f"the ledger {ledger.url} belongs to another dataset, of digest {ledger.dataset_digest[:12]}, "
            f"than any of the runs learned from: {datasets}; to measure what its attack does to these, name a run that "
            "learned from it in --runs as well"
        )


def disjointness(
    runs: Sequence[Run], ledger: Ledger, attack: AttackRecord, known: Sequence[AttackRecord], twins_allowed: int
) -> None:
    """Clean data for finetuning shares no pair with the ledger, by row id and by image hash.

    Raises ValueError that says how many are shared, or that the data cannot be read. A run that was finetuned on the
    poisoned pairs themselves is meant to be so, and its role says it.
    """
    for run in runs:
        if not run.ancestors or roles.saw(run, attack, known):
            continue
        unknown = f"whether {run.url} was finetuned on poisoned pairs cannot be checked"
        try:
            clean = Dataset.open(run.dataset, labelled=bool(run.classes))
        except ValueError as error:
            raise ValueError(f"{unknown}: {error}") from error
        if clean.digest != run.dataset_digest:
            raise ValueError(f"{unknown}: {clean.url} is not the dataset that it learned from (digests differ)")
        poisons, twins = shared(clean.index_of_samples(["row", "url", "image_sha256", "caption"]), ledger.rows)
        if poisons:
            other = "draw other images with testset" if run.classes else "make a clean set with prepare --disjoint-from"
            raise ValueError(
                f"{run.url} was finetuned on {clean.url}, which shares {poisons:,} pairs with the ledger {ledger.url}: "
                f"{other}"
            )
        if twins > twins_allowed:
            raise ValueError(
                f"{run.url} was finetuned on {clean.url}, which holds {twins:,} images that the attack {ledger.url} "
                f"poisoned in other rows; if the source has them twice, accept that with --twins-allowed {twins}"
            )


def probe(train: TestSet, test: TestSet, ledgers: Sequence[Ledger]) -> None:
    """Labelled images to learn from are clean, and of the test set's classes; that some are test images is said.

    Raises ValueError.
    """
    if train.classes != test.classes:
        raise ValueError(
            f"{train.url} is of other classes than the test set {test.url} ({len(train.classes)} and "
            f"{len(test.classes)}, or in another order): a probe learns the classes that it is tested on"
        )
    own = {one.sha256 for one in train.pictures}
    for ledger in ledgers:
        changed = ledger.rows.filter(pc.not_equal(ledger.rows["image_sha256"], ledger.rows["original_image_sha256"]))
        if poisons := own & set(changed["image_sha256"].to_pylist()):
            raise ValueError(
                f"{train.url} holds {len(poisons):,} images that the attack {ledger.url} made: a probe learns from "
                "clean images only; choose another --probe-data"
            )
    if both := len(own & {one.sha256 for one in test.pictures}):
        log.warn(f"{both:,} images of {train.url}, split {train.split}, are in the test set {test.url} as well")


def shared(clean: pa.Table, poisons: pa.Table) -> tuple[int, int]:
    """How many poisoned pairs a clean set holds, and how many images, as they were before, in pairs of its own.

    clean: columns row, url, image_sha256, caption. poisons: poison.ledger.ROWS. A row id counts the rows of one table,
    so it is the same pair only if the url agrees as well (foreign shards have none; there the row id is a hash of
    content). An image that the attack changed is a poison wherever it lies; one that it left as it was only with the
    poison caption, for without it is as clean as any other. The same image in a pair of its own is known by its bytes,
    and by its web address, as `prepare --disjoint-from` knows the rows of another table.
    """
    urls = dict(zip(clean["row"].to_pylist(), clean["url"].to_pylist(), strict=True))
    images = set(clean["image_sha256"].to_pylist())
    addresses = {url for url in urls.values() if url is not None and url.lower().startswith(("http://", "https://"))}
    known = poisons.select(["row", "source", "original_image_sha256", "image_sha256", "caption"]).to_pylist()
    pairs = _pairs(clean, {pair["image_sha256"] for pair in known})
    same, twins = 0, set()
    for pair in known:
        row, url, before, after = (pair[name] for name in ("row", "source", "original_image_sha256", "image_sha256"))
        elsewhere = after in images if after != before else (after, pair["caption"]) in pairs
        if (row in urls and (url is None or urls[row] in (None, url))) or elsewhere:
            same += 1
        elif before in images or url in addresses:
            twins.add(before)
    return same, len(twins)


def _pairs(clean: pa.Table, images: set[str]) -> set[tuple[str, str]]:
    """(image_sha256, caption) of the pairs with one of these images: few, where a corpus may hold many."""
    found = clean.filter(pc.is_in(clean["image_sha256"], pa.array(sorted(images), pa.string())))
    return set(zip(found["image_sha256"].to_pylist(), found["caption"].to_pylist(), strict=True))
