"""Pretrain a CLIP on a dataset, under an objective: plain CLIP, or a robust one.

    torchrun --standalone --nproc-per-node 2 train/pretrain.py clip --dataset data/train --out runs/r1
    torchrun --nproc-per-node 8 train/pretrain.py clip --dataset s3://b/cc3m --preset rn50-cc3m --out s3://b/runs/r1

Without torchrun it runs on one process. The same command again resumes, or says that there is nothing to do.
"""

import sys
from collections.abc import Sequence

from infra import memory

if __name__ == "__main__":
    memory.large_pages()
if __name__ != "__mp_main__":  # the process that fetches shards is spawned: it imports this file, and needs none of it
    from infra.config import parse
    from train import presets
    from train.entry import run_entry, started
    from train.training import Pretraining


def main(argv: Sequence[str] | None = None) -> int:
    return run_entry(
        lambda: parse(
            Pretraining,
            argv,
            prog="pretrain",
            description=__doc__ or "",
            plugin="objective",
            preset=presets.for_pretraining,
        ),
        started("pretrain", argv),
    )


if __name__ == "__main__":
    sys.exit(main())
