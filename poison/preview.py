"""What an attack did to some pairs: clean | poisoned | difference x8, with the captions, as a contact sheet.

    python poison/preview.py --ledger private/cc3m-badnet --dataset data/cc3m --poisoned data/cc3m-badnet \\
        --out preview

All three folders are needed: only the ledger knows which pairs to show. The sheet is preview/sheet.png, and its single
images lie beside it; report --preview shows them too.
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from poison.sheets.sheet import Sheet


def main(argv: Sequence[str] | None = None) -> int:
    sheet = parse(Sheet, argv, prog="poison/preview.py", description=__doc__)
    return exit_on_loss(sheet.run)


if __name__ == "__main__":
    sys.exit(main())
