"""What a scan's search costs: the nearest neighbours of every row of a whole set, exact, by an index, and by others.

    python tests/bench/scan.py [--sizes 10000 20000] [--width 512] [--threads 2] [--ways exact] [--device cpu]
    python tests/bench/scan.py --sizes 100000 300000 1000000 --ways approximate --rows embeddings.npy

Rows are isotropic unit vectors, in which no index has anything to hold on to, and `clustered` ones: a hundred rows
around each of many centres, as embeddings of images of things lie; or those of --rows, a float32 .npy of a real run.
16 neighbours are kept, and distances at powers of two up to 1,024, as a scan asks for. Beside it, with the same number
of neighbours: `blocked`, a product of blocks and a partition in numpy, and scikit-learn's NearestNeighbors (brute
force, cosine), where it is installed; for these two --others SHARE of the rows is searched and the time scaled up, as
it is the same for every row. Each way is timed once a size, after one that warms up. Peak memory is of this process.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np

from defense.neighbours import How, nearest, unit

KEEP, RANKS = 16, tuple(2**power for power in range(5, 11))
REACH = RANKS[-1]
BLOCK = 1024


def isotropic(count: int, width: int) -> np.ndarray:
    return unit(np.random.default_rng(0).standard_normal((count, width), dtype=np.float32))


def clustered(count: int, width: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    centres = isotropic(max(1, count // 100), width)
    around = draw.standard_normal((count, width), dtype=np.float32) * np.float32(0.5 / width**0.5)
    return unit(centres[draw.integers(0, len(centres), count)] + around)


def blocked(rows: np.ndarray, count: int) -> None:
    """The first `count` rows' neighbours among all."""
    for start in range(0, count, BLOCK):
        products = rows[start : min(start + BLOCK, count)] @ rows.T
        most = min(REACH, len(rows) - 2)
        some = np.argpartition(-products, most, axis=1)[:, : most + 1]
        np.sort(np.take_along_axis(products, some, axis=1), axis=1)


def scikit_learn(rows: np.ndarray, count: int) -> None:
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=min(REACH, len(rows) - 2) + 1, algorithm="brute", metric="cosine").fit(rows)
    for start in range(0, count, BLOCK):
        found.kneighbors(rows[start : min(start + BLOCK, count)])


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 20_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=["exact", "approximate"], choices=["exact", "approximate"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", help="a float32 .npy of embeddings, of which the first of every size are taken")
    parser.add_argument(
        "--others", type=float, default=0.1, help="share of the rows that the other ways search; 0: none"
    )
    given = parser.parse_args()
    import faiss
    import torch

    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    peers = {"blocked": blocked, "scikit_learn": scikit_learn}
    real = unit(np.load(given.rows, mmap_mode="r")) if given.rows else None
    kinds = (
        {"real": lambda count, _: real[:count]}
        if real is not None
        else {"clustered": clustered, "isotropic": isotropic}
    )
    nearest(isotropic(2000, given.width), KEEP, RANKS, device=given.device)
    told: dict[str, float] = {"threads": given.threads, "width": given.width}
    for count in given.sizes:
        for kind, make in kinds.items():
            rows = make(count, given.width)
            for way in given.ways:
                told |= _ours(rows, kind, way, given.device)
            for name, peer in peers.items() if given.others and kind != "isotropic" else ():
                some = max(BLOCK, int(given.others * count)) // BLOCK * BLOCK
                took = seconds(lambda peer=peer, rows=rows, some=some: peer(rows, some)) * count / some
                print(f"{count:,} rows, {kind}, {name}: {took:,.1f} s (from {some:,} of them)")
                told[f"{name}_seconds_{count}"] = round(took, 2)
    told["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps(told))


def _ours(rows: np.ndarray, kind: str, way: How, device: str) -> dict[str, float]:
    begun = time.perf_counter()
    recall = nearest(rows, KEEP, RANKS, how=way, device=device, what=f"{kind} rows").recall
    took, count = time.perf_counter() - begun, len(rows)
    named = {f"{kind}_recall_{rank}_{count}": round(share, 4) for rank, share in recall.items()}
    print(f"{count:,} rows, {kind}, {way}: {took:,.1f} s {named or ''}")
    return {f"{kind}_{way}_seconds_{count}": round(took, 2)} | named


if __name__ == "__main__":
    main()
