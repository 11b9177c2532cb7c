"""What a scan's search costs: the nearest neighbours of every row of a whole set, exact, by an index, and by others.

    python tests/bench/scan.py [--sizes 10000 20000] [--width 512] [--threads 2] [--ways exact] [--device cpu]
    python tests/bench/scan.py --sizes 100000 300000 --ways approximate scan --run runs/mine --dataset data/train

Rows are isotropic unit vectors, in which no index has anything to hold on to, and `clustered` ones: a hundred rows
around each of many centres, as embeddings of images of things lie; or those of the images of --dataset, as --run sees
them. If more are asked for, or wider ones, then rows between a real one and its 16 nearest, turned into so many
dimensions, with a little noise in all of them. `scan` is all that a scan does once images are encoded, each part timed:
a search each of images, captions, changed images and images through keyholes (rows in another order, rows with noise),
every detector, the clusters.

16 neighbours are kept, and distances at powers of two up to 1,024, as a scan asks for. Beside it, with the same number
of neighbours: `blocked`, a product of blocks and a partition in numpy, and scikit-learn's NearestNeighbors (brute
force, cosine), where it is installed; for these two --others SHARE of the rows is searched and the time scaled up, as
it is the same for every row. `ivf` is FAISS's own inverted file, of as many lists as the index here, looking into so
many of them (a power of two) as give its recall@256; rows are asked for list after list, which is its best case, and
nothing is compared in float64. `keyholes` is the index as asked through a keyhole, for 16 neighbours of which 90% are
to be found, and `ivf16` that of FAISS. Each way is timed once a size, after one that warms up; CPU seconds, of all
threads, say what it costs on a machine that does other things as well. Peak memory is of this process.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from defense import detector, neighbours
from defense.changing.views import KEYHOLES
from defense.detector import Detector, Evidence, Needs
from defense.detectors.panel import Panel
from defense.judging import verdict
from defense.neighbours import How, nearest, unit
from defense.scanning import gathering, viewer
from defense.scanning.encoding import PLAIN, TEXTS, Encode
from defense.scanning.gathering import OF_KEYHOLES, Gathered, Pairs
from infra import plugins
from pipeline.dataset import Dataset
from tests.support import figures

KEEP, RANKS = 16, tuple(2**power for power in range(5, 11))
REACH = RANKS[-1]
BLOCK = 1024
NOISE = 0.03  # its length, beside rows of length 1


def isotropic(count: int, width: int) -> np.ndarray:
    return unit(np.random.default_rng(0).standard_normal((count, width), dtype=np.float32))


def clustered(count: int, width: int) -> np.ndarray:
    draw = np.random.default_rng(1)
    centres = isotropic(max(1, count // 100), width)
    around = draw.standard_normal((count, width), dtype=np.float32) * np.float32(0.5 / width**0.5)
    return unit(centres[draw.integers(0, len(centres), count)] + around)


def between(real: np.ndarray, count: int, width: int) -> np.ndarray:
    """Weighted means of a row and its 16 nearest, weights from a Dirichlet distribution of 1/2."""
    if count <= len(real) and width == real.shape[1]:
        return real[:count]
    draw, near = np.random.default_rng(2), nearest(real, 16).near.rows
    turn = np.linalg.qr(draw.standard_normal((width, real.shape[1])))[0].astype(np.float32).T
    made = np.empty((count, width), np.float32)
    for start in range(0, count, BLOCK):
        rows = draw.integers(0, len(real), min(BLOCK, count - start))
        weights = draw.dirichlet(np.full(17, 0.5), len(rows)).astype(np.float32)
        mixed = unit(np.einsum("nk,nkd->nd", weights, real[np.concatenate([rows[:, None], near[rows]], axis=1)]))
        noise = draw.standard_normal((len(rows), width), dtype=np.float32) * np.float32(NOISE / width**0.5)
        made[start : start + BLOCK] = mixed @ turn + noise
    return unit(made)


def seen(run: str, dataset: str) -> np.ndarray:
    """The images of a dataset as a run sees them: float32 (N, D), of length 1, by row id."""
    data, eyes = Dataset.open(dataset), viewer.read(run, "latest")
    with tempfile.TemporaryDirectory() as scratch:
        encode = Encode(data, eyes, (), scratch, 1)
        for task in enumerate(data.shards):
            encode(task)
        return np.array(gathering.gather(data, encode, Pairs.of(data), eyes.width, Path(scratch)).arrays[PLAIN])


def scan(rows: np.ndarray, device: str) -> None:
    """All that a scan does with embeddings, which lie in files, as there."""
    detectors = {name: detector.named(name) for name in plugins.names(Detector.FOLDERS)}
    needs, panel = detector.needs(list(detectors.values())), detectors["panel"]
    assert isinstance(panel, Panel)
    whole = tuple(name for name in needs.views if name not in KEYHOLES)
    draw, count = np.random.default_rng(3), len(rows)
    with tempfile.TemporaryDirectory() as scratch:
        arrays = {}
        for name in (PLAIN, TEXTS, *needs.views):
            place = Path(scratch) / f"{name}.npy"
            arrays[name] = np.lib.format.open_memmap(place, "w+", np.float32, rows.shape)
            for start in range(0, count, BLOCK):
                part = rows[start : start + BLOCK] if name != TEXTS else rows[::-1][start : start + BLOCK]
                moved = 0 if name in (PLAIN, TEXTS) else 0.2 / rows.shape[1] ** 0.5
                arrays[name][start : start + BLOCK] = unit(part + moved * draw.standard_normal(part.shape))
        gathered, pairs = Gathered(arrays, np.zeros(0)), Pairs(pa.table({"row": np.arange(count)}), np.arange(count))

        def evidence(needs: Needs) -> Evidence:
            """What was found for fewer needs lies in `scratch`, and is not searched for again."""
            return gathering.evidence(gathered, pairs, needs, scratch, "approximate", device)[0]

        def score() -> None:
            found = evidence(needs)
            scores = {name: one.score(found) for name, one in detectors.items()}
            captions = [f"a photo of thing {number % 1000}" for number in range(count)]
            verdict.judge(panel, scores["panel"], found, captions)

        for what, work in {
            "images": lambda: evidence(replace(needs, captions=0, views=())),
            "captions": lambda: evidence(replace(needs, views=())),
            f"images under {len(whole)} changes": lambda: evidence(replace(needs, views=whole)),
            f"images through {len(needs.views) - len(whole)} keyholes": lambda: evidence(needs),
            "detectors and clusters": score,
        }.items():
            took = seconds(work)
            print(f"{count:,} rows: of what follows, {what}: {said(took)}, {1000 * took[1] / count:.2f} ms of it a row")


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


def ivf(rows: np.ndarray, keep: int, rank: int, enough: float, recall: list[float]) -> None:
    """recall: what it is comes last, once it is enough."""
    import faiss

    lists = neighbours.lists_of(len(rows))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.niter, index.cp.spherical = 5, True
    draw = np.random.default_rng(4)
    index.train(rows[np.sort(draw.choice(len(rows), lists * neighbours.PER_LIST, replace=False))])
    index.add(rows)
    order = np.argsort(index.quantizer.search(rows, 1)[1][:, 0], kind="stable")
    sample = rows[np.sort(draw.choice(len(rows), min(1000, len(rows)), replace=False))]
    true = faiss.knn(sample, rows, rank + 1, metric=faiss.METRIC_INNER_PRODUCT)[1]
    index.nprobe = 1
    while recall[-1] < enough and index.nprobe < lists:
        index.nprobe *= 2
        found = index.search(sample, rank + 1)[1]
        recall.append(float(np.mean([len({*a} & {*b}) / (rank + 1) for a, b in zip(true, found, strict=True)])))
    for start in range(0, len(rows), BLOCK):
        index.search(rows[order[start : start + BLOCK]], keep)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """By the clock, and of the CPU."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - begun, time.process_time() - used


def said(took: tuple[float, float]) -> str:
    return f"{took[0]:,.1f} s, {took[1]:,.1f} s of the CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 20_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--ways", nargs="+", default=["exact", "approximate"], choices=["exact", "approximate", "keyholes", "scan"]
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run", help="with --dataset: rows are its images as this run sees them, the first ones")
    parser.add_argument("--dataset")
    parser.add_argument(
        "--others", type=float, default=0.1, help="share of the rows that the other ways search; 0: none"
    )
    given = parser.parse_args()
    if bool(given.run) != bool(given.dataset):
        parser.error("--run and --dataset belong together")
    import faiss
    import torch

    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    peers = {"blocked": blocked, "scikit_learn": scikit_learn}
    real = seen(given.run, given.dataset) if given.run else None
    kinds = (
        {"real": lambda count, width: between(real, count, width)}
        if real is not None
        else {"clustered": clustered, "isotropic": isotropic}
    )
    nearest(isotropic(2000, given.width), KEEP, RANKS, device=given.device)
    told: dict[str, float] = {"threads": given.threads, "width": given.width}
    for count in given.sizes:
        for kind, make in kinds.items():
            rows = make(count, given.width)
            for way in given.ways:
                if way == "scan" and kind != "isotropic":
                    took = seconds(lambda rows=rows: scan(rows, given.device))
                    print(f"{count:,} rows, {kind}, scan: {said(took)}")
                    told[f"{kind}_scan_seconds_{count}"] = took[0]
                elif way != "scan":
                    told |= _ours(rows, kind, way, given.device)
                if way in IVF and given.others and kind != "isotropic":
                    told |= _ivf(rows, kind, way)
            for name, peer in peers.items() if given.others and kind != "isotropic" else ():
                some = max(BLOCK, int(given.others * count)) // BLOCK * BLOCK
                wall, cpu = seconds(lambda peer=peer, rows=rows, some=some: peer(rows, some))
                took = wall * count / some, cpu * count / some
                print(f"{count:,} rows, {kind}, {name}: {said(took)} (from {some:,} of them)")
                told[f"{name}_seconds_{count}"] = took[0]
    told["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(figures.line(told))


IVF = {"approximate": ("ivf", REACH + 1, 256, neighbours.ENOUGH), "keyholes": ("ivf16", KEEP + 1, KEEP, OF_KEYHOLES)}


def _ivf(rows: np.ndarray, kind: str, way: str) -> dict[str, float]:
    """Asked for as much as `way` of ours."""
    (name, keep, rank, enough), recall = IVF[way], [0.0]
    took, count = seconds(lambda: ivf(rows, keep, rank, enough, recall)), len(rows)
    print(f"{count:,} rows, {kind}, {name}: {said(took)}, recall@{rank} {recall[-1]:.3f}", flush=True)
    return {f"{kind}_{name}_seconds_{count}": took[0], f"{kind}_{name}_recall_{rank}_{count}": recall[-1]}


def _ours(rows: np.ndarray, kind: str, way: str, device: str) -> dict[str, float]:
    how: How = "exact" if way == "exact" else "approximate"
    ranks, enough = ((), OF_KEYHOLES) if way == "keyholes" else (RANKS, neighbours.ENOUGH)
    recall: dict[int, float] = {}
    took = seconds(
        lambda: recall.update(
            nearest(rows, KEEP, ranks, how=how, device=device, what=f"{kind} rows", enough=enough).recall
        )
    )
    count = len(rows)
    asked = kind if ranks else f"{kind}_keyholes"
    named = {f"{asked}_recall_{rank}_{count}": share for rank, share in recall.items()}
    print(f"{count:,} rows, {kind}, {way}: {said(took)} {named or ''}", flush=True)
    return {f"{kind}_{way}_seconds_{count}": took[0]} | named


if __name__ == "__main__":
    main()
