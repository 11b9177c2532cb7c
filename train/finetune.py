"""Finetune a run's model on clean pairs, under an objective: a defence such as cleanclip, or mmcl, the baseline.

    torchrun --standalone --nproc-per-node 2 train/finetune.py cleanclip --pretrained runs/r1 --dataset data/clean \\
        --out runs/r2
    torchrun --nproc-per-node 8 train/finetune.py cleanclip --pretrained s3://b/runs/r1 --dataset s3://b/clean100k \\
        --preset rn50-finetune --out s3://b/runs/r2

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
    from train.training import Finetuning


def main(argv: Sequence[str] | None = None) -> int:
    return run_entry(
        lambda: parse(
            Finetuning,
            argv,
            prog="finetune",
            description=__doc__ or "",
            plugin="objective",
            preset=presets.for_finetuning,
        ),
        started("finetune", argv),
    )


if __name__ == "__main__":
    sys.exit(main())
