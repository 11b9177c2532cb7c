"""A planned grid of runs and attacks: what of it is missing is run, and the tables that it makes.

    python eval/study.py exposure --dry-run
    python eval/study.py exposure --out studies --only seed=0 --jobs 2
    python eval/study.py exposure --tables

Plans are data: eval/studies/plans/NAME.toml. A row whose scores are in eval/studies/scores needs no run. The same
command again does what is missing.
"""

import sys
from collections.abc import Sequence

from eval.studies.runner import Studying
from infra.config import parse
from infra.errors import exit_on_loss


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Studying, argv, prog="study", description=__doc__ or "").run)


if __name__ == "__main__":
    sys.exit(main())
