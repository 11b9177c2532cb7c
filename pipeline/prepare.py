"""Url table -> dataset: download image-caption pairs into shards, each row accounted for.

    python pipeline/prepare.py picturebook --out data/train
    ray job submit --working-dir . -- python pipeline/prepare.py cc3m --urls Train_GCC-training.tsv --out s3://b/cc3m

The same command again resumes, or says that there is nothing to do.
"""

import sys
from collections.abc import Sequence

from infra.config import parse
from infra.errors import exit_on_loss
from pipeline.preparation import Preparation


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(
        parse(Preparation, argv, prog="pipeline/prepare.py", description=__doc__ or "", plugin="source").run
    )


if __name__ == "__main__":
    sys.exit(main())
