"""Folders of scores -> one table: a line for every attack and run, the mean over seeds, the floor beside it.

    python eval/table.py --scores attacks/s0/scores/badnet attacks/s0/scores/sig attacks/s1/scores/badnet \\
        --out table.md
"""

import sys
from collections.abc import Sequence

from eval.studies.tabulation import Tabulation
from infra.config import parse
from infra.errors import exit_on_loss


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Tabulation, argv, prog="tabulate", description=__doc__ or "").run)


if __name__ == "__main__":
    sys.exit(main())
