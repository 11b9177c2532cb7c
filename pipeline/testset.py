"""A labelled test set in CLIP_benchmark's WebDataset layout (images, classes, prompt templates).

    python pipeline/testset.py picturebook --samples 1400 --out data/test
    python pipeline/testset.py folder --path photos/test --captions folder --out data/photos-test

A clean split for finetuning is made by prepare: --disjoint-from DATASET takes only rows that are not in it.
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from pipeline.labelling import Labelling


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(
        parse(Labelling, argv, prog="pipeline/testset.py", description=__doc__ or "", plugin="source").run
    )


if __name__ == "__main__":
    sys.exit(main())
