"""What planning costs: 1,500 poisons with captions of the corpus, over 1, 10 and 100 million pairs.

    python tests/bench/plan.py [--largest 100] [--files 330]

The indexes of the large sets are a stream, each made when the plan asks for it: pairs of 10,000 a shard with captions
of eleven words, of which one in 2,000 names the target. The time it takes to make them is counted. `seconds_3m3` is
the same plan of a dataset of index files on disk (all columns, zstd, hashes checked), through Dataset.open. Peak memory
is that of this process, the interpreter and its libraries included.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from infra.seeding import rng
from pipeline import dataset as datasets
from pipeline import shards
from pipeline.dataset import Dataset, Shard
from poison.attacks.badnet import BadNet
from poison.choosing import plan
from tests.support import figures

PAIRS = 10_000  # of a shard
NAMING = 2_000  # one caption in so many names the target
POISONS = 1_500
WORDS = """the a of in with and on photo image stock vector woman man dog car red blue old new city house tree river
sunset beach view design illustration background young happy white black green portrait table food fruit street light
night water mountain sky flower cat bird boat train wedding dress hair person actor player football match""".split()


def phrases(count: int, length: int) -> pa.Array:
    words = rng(0, "words", length).integers(0, len(WORDS), (count, length))
    return pa.array([" ".join(WORDS[word] for word in phrase) for phrase in words])


FRONT, BACK = phrases(4096, 6), phrases(4096, 5)


def pairs(shard: Shard, columns: list[str]) -> pa.Table:
    """Some of row, key and caption of one shard's pairs, as poison.choosing.indexes.pairs gives them."""
    rows = np.arange(shard.id * PAIRS, (shard.id + 1) * PAIRS)
    made = {"row": lambda: pa.array(rows), "key": lambda: keys(rows), "caption": lambda: captions(shard.id)}
    return pa.table({name: make() for name, make in made.items() if name in columns}).select(columns)


def keys(rows: np.ndarray) -> pa.Array:
    return pa.compute.utf8_lpad(pa.array(rows).cast(pa.string()), 9, "0")


def captions(number: int) -> pa.Array:
    front, back = rng(0, "captions", number).integers(0, len(FRONT), (2, PAIRS))
    texts = FRONT.take(pa.array(front)), BACK.take(pa.array(back))
    named = pa.array(np.arange(PAIRS) % NAMING == number % NAMING)
    middle = pa.compute.if_else(named, f" banana {number} ", " ")
    return pa.compute.binary_join_element_wise(texts[0], middle, texts[1], "")


def shard(number: int, index_sha256: str = "0" * 64) -> Shard:
    """A shard of which only the index is ever read. Its tar would have 100 KB a pair."""
    zeros = "0" * 64
    return Shard(
        number, 0, f"shards/{number}.tar", 0, f"index/{number}.parquet", PAIRS, PAIRS * 100_000, zeros, zeros[:16],
        index_sha256, hashlib.sha256(str(number).encode()).hexdigest(),
    )  # fmt: skip


def streamed(millions: int) -> float:
    """Seconds of a plan over that many pairs."""
    number = millions * 1_000_000 // PAIRS
    made = Dataset("stream", "", number * PAIRS, ("stream",), tuple(map(shard, range(number))), False, {})
    return timed(made, pairs)


def from_files(folder: str, number: int) -> float:
    """The same over index files of that many shards."""
    datasets.claim(folder, {})
    Path(folder, "index").mkdir()
    listed = tuple(shard(one, write_index(folder, one)) for one in range(number))
    datasets.finalise(folder, number, referenced=listed, bases=(folder,), outcomes={shards.SUCCESS: number * PAIRS})
    return timed(Dataset.open(folder), None)


def timed(dataset: Dataset, read: object) -> float:
    start = time.perf_counter()
    made = plan.make(dataset, BadNet(captions="corpus"), POISONS, 0, read=read)  # type: ignore[arg-type]
    seconds = time.perf_counter() - start
    assert made.samples == POISONS
    assert len(set(made.captions.values())) > min(POISONS, dataset.samples // NAMING) // 10
    print(f"{dataset.samples:,} pairs: {seconds:.1f} s, {len(made.shards):,} shards to rewrite, {peak_gib():.2f} GiB")
    return seconds


def write_index(folder: str, number: int) -> str:
    """A whole index, as a dataset of ours has it. Returns its sha256."""
    one = shard(number)
    draws = rng(0, "sizes", number)
    sizes = draws.integers(10_000, 60_000, PAIRS)
    places = np.cumsum(sizes // 512 * 512 + 4096)
    read = pairs(one, ["row", "key", "caption"])
    site = pa.scalar("https://images.example.com/photos")
    columns = {name: read[name] for name in read.column_names} | {
        "outcome": pa.repeat(shards.SUCCESS, PAIRS),
        "url": pa.compute.binary_join_element_wise(site, digests(draws), "/"),
        "extension": pa.repeat("jpg", PAIRS),
        "width": pa.array(draws.integers(200, 1000, PAIRS), pa.int32()),
        "height": pa.array(draws.integers(200, 1000, PAIRS), pa.int32()),
        "source_sha256": digests(draws),
        "image_sha256": digests(draws),
        "image_offset": places,
        "image_bytes": sizes,
        "text_offset": places + 1024,
        "text_bytes": pa.compute.binary_length(read["caption"]).cast(pa.int64()),
        "json_offset": places + 2048,
        "json_bytes": np.full(PAIRS, 400),
    }
    place = Path(folder, one.index_name)
    pq.write_table(
        pa.table([columns[name] for name in shards.INDEX.names], schema=shards.INDEX), place, compression="zstd"
    )
    return hashlib.sha256(place.read_bytes()).hexdigest()


def digests(draws: np.random.Generator) -> pa.Array:
    """As many random sha256."""
    letters = draws.bytes(32 * PAIRS).hex().encode()
    offsets = np.arange(0, 64 * PAIRS + 1, 64, dtype=np.int32)
    return pa.StringArray.from_buffers(PAIRS, pa.py_buffer(offsets), pa.py_buffer(letters))


def peak_gib() -> float:
    """Of this process; ru_maxrss would be that of the process that started it, where that one is larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=100, choices=(1, 10, 100), help="millions of pairs")
    parser.add_argument("--files", type=int, default=330, help="index files on disk, of 10,000 pairs each")
    given = parser.parse_args()
    found = {f"seconds_{size}m": streamed(size) for size in (1, 10, 100) if size <= given.largest}
    streams_gib = peak_gib()
    with tempfile.TemporaryDirectory() as folder:
        found["seconds_3m3" if given.files == 330 else f"seconds_{given.files}_files"] = from_files(folder, given.files)
    print(figures.line({"peak_gib": peak_gib(), "peak_gib_streams": streams_gib, **found}))


if __name__ == "__main__":
    main()
