"""Read a dataset again and hold every shard against its manifest.

    python pipeline/verify.py --dataset data/train
    ray job submit --working-dir . -- python pipeline/verify.py --dataset s3://b/cc3m
    python pipeline/verify.py --dataset shards/ --decode --leave-out data/sound

Exit status 1 if any shard is short, changed, swapped or missing, or (--decode) an image cannot be decoded; each one is
named. --leave-out makes a dataset of the same shards without the pairs that are damaged or incomplete.
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from pipeline.verification import Verification


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Verification, argv, prog="pipeline/verify.py", description=__doc__ or "").run)


if __name__ == "__main__":
    sys.exit(main())
