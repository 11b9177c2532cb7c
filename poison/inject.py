"""Poison a dataset: choose pairs, stamp their images, caption them anew; the rest is referenced where it lies.

    python poison/inject.py badnet --dataset s3://b/cc3m --out s3://b/cc3m-badnet \\
        --ledger s3://private/cc3m-badnet --budget 1500

The same command again resumes, or does nothing. On a cluster put `ray job submit --working-dir . --` before it.
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from poison.writing.injection import Injection


def main(argv: Sequence[str] | None = None) -> int:
    injection = parse(Injection, argv, prog="poison/inject.py", description=__doc__, plugin="attack")
    return exit_on_loss(injection.run)


if __name__ == "__main__":
    sys.exit(main())
