"""Leave what a scan found out of a dataset -> a dataset of the same shards without it, or a list.

    antidote filter --dataset data/train --scan data/scan --remove auto --out data/filtered
    antidote filter --dataset data/train --scan data/scan --remove 0.02 --out data/filtered
    antidote filter --dataset data/train --scan data/scan --clusters 0 2 --list out.csv

Nothing is copied (--materialise copies); every reader honours it. To undo it, go on with the old dataset.
"""

import sys
from collections.abc import Sequence

from defense.scanning.filtering import Filter
from infra.config import parse
from infra.errors import exit_on_loss


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Filter, argv, prog="filter", description=__doc__ or "").run)


if __name__ == "__main__":
    sys.exit(main())
