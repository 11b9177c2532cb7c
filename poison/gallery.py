"""Draw the images of the README: what each attack does to one pair of the picture book.

python poison/gallery.py --out poison/gallery
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from poison.sheets.exhibits import Gallery


def main(argv: Sequence[str] | None = None) -> int:
    gallery = parse(Gallery, argv, prog="poison/gallery.py", description=__doc__)
    return exit_on_loss(gallery.run)


if __name__ == "__main__":
    sys.exit(main())
