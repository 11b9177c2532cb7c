"""What poisoning a shard costs, against copying it: 0.05% of the pairs get a patch, all other bytes are carried over.

    python tests/bench/rewrite.py [--samples 10000] [--rounds 5] [--folder /data/scratch]

In turns, on the same shards of 10,000 drawn photographs each, which lie in the page cache: `rewrite` as a worker of
poison/inject.py calls it (it hashes what it writes) and fsync; `cp`, `sha256sum` and `sync FILE`; the same with
Python's sha256, since many a sha256sum does without the processor's own instructions for it; and the worker's whole
task: to verify the parent's shard, read its index, rewrite, save the ledger's part, copy the shard into its folder and
fsync it there. What decodes and encodes every image is timed on fewer pairs, and compared by the byte.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from infra.seeding import rng
from pipeline import dataset as datasets
from pipeline import images, shards
from pipeline.dataset import Dataset, Shard
from pipeline.shards import Sample
from poison.attacks.badnet import BadNet
from poison.choosing import plan
from poison.writing.rewrite import rewrite
from poison.writing.work import Rewriting, Work
from tests.support import figures

PAIRS = 10_000  # of a shard
SHARE = 0.0005
DECODED = 500  # pairs of which every image is decoded and encoded
ATTACK = BadNet()


def photograph(number: int) -> bytes:
    """A JPEG of 20 to 60 KB: clouds of colour, with the grain that makes photographs large."""
    draws = rng(0, "photograph", number)
    height, width = draws.integers(240, 420, 2)
    clouds = Image.fromarray(draws.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height), 3)
    grain = draws.normal(0, draws.uniform(4, 12), (height, width, 1))
    return images.encode(np.clip(np.asarray(clouds) + grain, 0, 255).astype(np.uint8), "jpg", 90)


def drawn(folder: str, samples: int) -> Dataset:
    pictures = [photograph(number) for number in range(100)]
    datasets.claim(folder, {})
    scratch = Path(folder).with_name("scratch.tar")
    for number, start in enumerate(range(0, samples, PAIRS)):
        pairs = (
            Sample(
                f"{row:09d}",
                row,
                pictures[rng(0, "which", row).integers(len(pictures))],
                "jpg",
                f"a photo of {'a banana' if row % 2000 == 0 else 'people'} in street number {row}",
                {"url": f"https://example.com/{row}.jpg"},
            )
            for row in range(start, min(start + PAIRS, samples))
        )
        datasets.commit(folder, number, shards.write_shard(scratch, pairs))
    scratch.unlink()
    return datasets.finalise(folder, -(-samples // PAIRS))


def fsync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def rewritten(made: Dataset, chosen: plan.Plan, out: Path) -> None:
    for shard in made.shards:
        twin = out / f"{shard.id}.tar"
        rewrite(tar(made, shard), made.index(shard), shard.id, chosen.captions_in(shard.id), ATTACK, 0, twin)
        fsync(twin)


def worker(made: Dataset, chosen: plan.Plan, out: Path) -> None:
    work = Work(made, ATTACK, 0, str(out / "out"), str(out / "ledger"))
    for shard in made.shards:
        work(Rewriting(shard, chosen.captions_in(shard.id)))


def copied(made: Dataset, hashed: Callable[[Path], object], out: Path) -> None:
    for shard in made.shards:
        twin = out / f"{shard.id}.tar"
        subprocess.run(["cp", tar(made, shard), twin], check=True)
        hashed(twin)
        subprocess.run(["sync", twin], check=True)


def sha256sum(path: Path) -> None:
    subprocess.run(["sha256sum", path], check=True, stdout=subprocess.DEVNULL)


def sha256(path: Path) -> None:
    with open(path, "rb") as file:
        hashlib.file_digest(file, "sha256")


def decoded(made: Dataset, out: Path) -> None:
    """The first pairs written anew, every image decoded and encoded; write_shard hashes."""
    shard = made.shards[0]
    pairs = (
        replace(pair, image=images.encode(images.decode(pair.image), pair.extension, 95))
        for pair in shards.read_shard(tar(made, shard), made.index(shard).slice(0, DECODED))
    )
    fsync(shards.write_shard(out / "decoded.tar", pairs).path)


def tar(made: Dataset, shard: Shard) -> Path:
    return Path(made.tar_url(shard))


def seconds(run: Callable[[Path], object], folder: Path) -> float:
    out = folder / "out"
    out.mkdir()
    start = time.perf_counter()
    run(out)
    taken = time.perf_counter() - start
    shutil.rmtree(out)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000, help="pairs in all, about 40 KB each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where to write, on a local disk; else the system's temporary folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        folder = Path(place)
        made = drawn(str(folder / "set"), given.samples)
        chosen = plan.make(made, ATTACK, SHARE, 0)
        runs: dict[str, Callable[[Path], object]] = {
            "rewrite": lambda out: rewritten(made, chosen, out),
            "cp": lambda out: copied(made, sha256sum, out),
            "cp_with_fast_sha256": lambda out: copied(made, sha256, out),
            "worker": lambda out: worker(made, chosen, out),
            "decode_all": lambda out: decoded(made, out),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(given.rounds + 1):  # the first one warms up the page cache, and is not counted
            for name in list(runs) if number % 2 else reversed(runs):
                taken = seconds(runs[name], folder)
                if number:
                    times[name].append(taken)
            if number:
                print(f"round {number}: " + ", ".join(f"{name} {times[name][-1]:.2f} s" for name in runs), flush=True)
        report(times, sum(shard.bytes for shard in made.shards), of_all(made))


def of_all(made: Dataset) -> float:
    """The share of all bytes of images that the first pairs have."""
    sizes = [made.index(shard)["image_bytes"].to_numpy() for shard in made.shards]
    return float(sizes[0][:DECODED].sum() / np.concatenate(sizes).sum())


def report(times: dict[str, list[float]], size: int, share: float) -> None:
    def over(name: str, peer: str, scale: float = 1.0) -> float:
        pairs = zip(times[name], times[peer], strict=True)
        return statistics.median(one * scale / other for one, other in pairs)

    print(
        figures.line(
            {
                "mb_per_s": size / 1e6 / statistics.median(times["rewrite"]),
                "rewrite_over_cp": over("rewrite", "cp"),
                "rewrite_over_cp_with_fast_sha256": over("rewrite", "cp_with_fast_sha256"),
                "rewrite_over_decode_all": over("rewrite", "decode_all", share),
                "worker_over_cp": over("worker", "cp"),
                "megabytes": size / 1e6,
                "pairs_of_runs": len(times["rewrite"]),
            }
        )
    )


if __name__ == "__main__":
    main()
