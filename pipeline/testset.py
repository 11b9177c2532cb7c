"""A test set in CLIP_benchmark's WebDataset layout: images with classes and prompt templates, or with captions.

    python pipeline/testset.py picturebook --samples 1400 --out data/test
    python pipeline/testset.py folder --path photos/test --captions folder --out data/photos-test
    python pipeline/testset.py parquet --path imagenet/data --split validation --classes imagenet1k --out data/imagenet
    python pipeline/testset.py folder --path flickr --captions table --captions-table flickr.tsv --kind captions \\
        --out data/flickr

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
