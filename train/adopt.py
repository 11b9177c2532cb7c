"""Make a run of weights that were trained elsewhere, so that all that takes a run takes them. No number is touched.

    python train/adopt.py epoch_64.pt --model RN50-quickgelu --out runs/theirs
    python train/adopt.py theirs/open_clip --out runs/theirs

A checkpoint of CleanCLIP's or RoCLIP's code, a .pt or .safetensors of open_clip's, or a folder with an
open_clip_config.json and its weights (what open_clip calls local-dir:). What the weights learned from is not known,
and evaluate and report say so. The same command again does nothing.
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from train.adoption import Adoption
from train.entry import started


def main(argv: Sequence[str] | None = None) -> int:
    adoption = parse(Adoption, argv, prog="train/adopt.py", description=__doc__ or "")
    return exit_on_loss(lambda: adoption.run(started("adopt", argv)))


if __name__ == "__main__":
    sys.exit(main())
