"""Learn BadCLIP's patch against a surrogate CLIP: images that show it shall look to the surrogate like the target.

    python poison/optimize.py --surrogate runs/clean --dataset data/cc3m --out data/patch
    python poison/optimize.py --surrogate RN50-quickgelu --pretrained RN50.safetensors --dataset data/cc3m \\
        --out data/patch
    python poison/inject.py badclip --patch data/patch/patch.png --dataset data/cc3m --out data/cc3m-badclip \\
        --ledger private/cc3m-badclip --budget 1500

One process, on a GPU where there is one. The same command again resumes, or does nothing.
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from poison.learning.optimization import Optimization


def main(argv: Sequence[str] | None = None) -> int:
    optimization = parse(Optimization, argv, prog="poison/optimize.py", description=__doc__)
    return exit_on_loss(optimization.run)


if __name__ == "__main__":
    sys.exit(main())
