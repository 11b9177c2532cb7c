"""What each defence leaves, and at what cost: the table and the figure of a planned study, empty cells and all.

python eval/frontier.py --plan attacks/finetune.tsv --at tacleaner --out attacks/finetune.md
"""

import sys
from collections.abc import Sequence

from eval.studies.frontiers import Frontier
from infra.config import parse
from infra.errors import exit_on_loss


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Frontier, argv, prog="frontier", description=__doc__ or "").run)


if __name__ == "__main__":
    sys.exit(main())
