"""Is a dataset poisoned? A run's view of it -> how suspicious every pair is, which clusters look planted.

    antidote scan --run runs/mine --dataset data/train --out data/scan
    ray job submit --working-dir . -- python defense/scan.py --run s3://b/runs/r1 --dataset s3://b/cc3m --out s3://b/scan

Best a run that learned from these very pairs: only such a model has learned what a trigger means. No ledger is opened.
"""

import sys
from collections.abc import Sequence

from defense.scanning.scanning import Scan
from infra.config import parse
from infra.errors import exit_on_loss


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Scan, argv, prog="scan", description=__doc__ or "").start)


if __name__ == "__main__":
    sys.exit(main())
