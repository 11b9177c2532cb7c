"""What scans were worth, against the ledgers of what they scanned -> a table, kept beside the scores.

    antidote assess --scans data/scan --ledger data/ledger --out data/scores

A verb of its own, beside evaluate: a scan is of a dataset, and has no test set and no task.
"""

import sys
from collections.abc import Sequence

from eval.measuring.assessing import Assessment
from infra.config import parse
from infra.errors import exit_on_loss


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Assessment, argv, prog="assess", description=__doc__ or "").run)


if __name__ == "__main__":
    sys.exit(main())
