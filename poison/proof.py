"""Read every poisoned pair again, as a model sees it: is it what the ledger says, and how much of the trigger is left?

    python poison/proof.py --ledger private/cc3m-badnet --dataset data/cc3m --poisoned data/cc3m-badnet \\
        --preset rn50-cc3m --out private/proof

Give all ledgers of a dataset that was poisoned several times. The result names the poisoned pairs: keep it with them.
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from poison.proving.evidence import Evidence


def main(argv: Sequence[str] | None = None) -> int:
    evidence = parse(Evidence, argv, prog="poison/proof.py", description=__doc__)
    return exit_on_loss(evidence.run)


if __name__ == "__main__":
    sys.exit(main())
