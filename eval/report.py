"""Scores and run folders -> report.html, tables.md, scores.csv.

python eval/report.py --scores s3://b/scores --out report/

Or a scan -> scan.html:

python eval/report.py --scan data/scan --out report/
"""

import sys
from collections.abc import Sequence

from eval.reporting.report import Report
from infra.config import parse
from infra.errors import exit_on_loss


def main(argv: Sequence[str] | None = None) -> int:
    return exit_on_loss(parse(Report, argv, prog="report", description=__doc__ or "").run)


if __name__ == "__main__":
    sys.exit(main())
