"""Clean accuracy and attack success of runs on test sets -> scores, one immutable file a grid cell, on Ray.

    python eval/evaluate.py --runs runs/poisoned runs/cured --ledger ledgers/badnet --testsets data/test --out scores
    ray job submit --working-dir . -- python eval/evaluate.py --runs s3://b/runs/r1 s3://b/runs/r2 \\
        --ledger s3://private/cc3m-badnet --testsets s3://b/imagenet1k --out s3://b/scores
"""

import sys
from collections.abc import Sequence

from eval.measuring.evaluation import Evaluation
from infra.config import parse
from infra.errors import exit_on_loss


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Evaluation, argv, prog="evaluate", description=__doc__ or "").run)


if __name__ == "__main__":
    sys.exit(main())
