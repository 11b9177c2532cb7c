"""What a start costs on a large dataset whose index is at hand: from the first import to the first batch.

    python tests/bench/startup.py [--samples 3300000 400000000] [--batches 8]

The index is of the right size and of zeros, in sparse files, so every pair is the same image; all else is the way of a
run with one worker. A process of its own for each size. Beside seconds (by the clock and of the processor, of both
processes together) it says what memory worker and main process own; pages of mapped files, which the kernel takes
back when it needs room, are not among it. Checking the shards comes on top: it goes by bytes, not by pairs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.support import figures

BATCH, SIZE, CAPTION_BYTES = 1024, 64, 60


def sparse(folder: Path, samples: int) -> None:
    from train.cache import COLUMNS

    for name in COLUMNS:
        kind = np.int32 if name == "shards" else np.int64
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (samples,))
    with open(folder / "captions.bin", "wb") as file:
        file.truncate(samples * CAPTION_BYTES)


def own_gib(process: int) -> float:
    """Of a process, those shared with the one it was forked from included."""
    said = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return sum(int(said[name].split()[0]) for name in ("RssAnon", "RssShmem")) / 2**20


def started(index: str, batches: int) -> None:
    """What the process of its own does. index: the folder that `sparse` has filled."""
    begun = time.perf_counter()
    import multiprocessing

    import torch

    from pipeline.picturebook import draw
    from train import model
    from train.cache import Local
    from train.objectives.clip import Clip
    from train.stream import Pairs, Stream

    image = draw.encoded(0, 0, SIZE)

    class Same(Pairs):
        def stored(self, sample: int) -> tuple[bytes, str]:
            return super().stored(sample)[0] or image, "a drawn thing"

    torch.set_num_threads(1)
    tokenize = model.tokenizer(model.architecture("picturebook-resnet"))
    local = Local((__file__,), index, "sparse files", ("sparse files",))  # any file that can be mapped
    pairs = Same(local, Clip(), tokenize, size=SIZE, augment="none", seed=0)
    epoch = Stream(pairs, seed=0, batch=BATCH, workers=1).epoch(0)
    next(epoch)
    took = time.perf_counter() - begun
    for _ in range(batches - 1):
        next(epoch)
    [worker] = multiprocessing.active_children()
    assert worker.pid is not None
    found = {"seconds": took, "worker_gib": own_gib(worker.pid), "main_gib": own_gib(os.getpid())}
    found["main_peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[3_300_000, 400_000_000])
    parser.add_argument("--batches", type=int, default=8, help="before memory is looked at")
    parser.add_argument("--index", help="be the process that starts, on this index")
    given = parser.parse_args()
    if given.index:
        started(given.index, given.batches)
        return
    known: dict[str, float] = {}
    for samples in given.samples:
        with tempfile.TemporaryDirectory() as folder:
            sparse(Path(folder), samples)
            before = os.times()
            command = [sys.executable, __file__, "--index", folder, "--batches", str(given.batches)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            after = os.times()
        found = json.loads(out.splitlines()[-1])
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        print(f"{samples:,} samples: {found} and {cpu:.1f} s of the processor, {given.batches} batches included")
        known |= {f"{name}_{samples}": value for name, value in (found | {"cpu_seconds": cpu}).items()}
    print(figures.line(known))


if __name__ == "__main__":
    main()
