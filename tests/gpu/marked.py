"""All tests that are marked `gpu`, and what became of each, with the reasons of those that were skipped.

    python -m tests.gpu.marked [--device cuda]

Only the files that have such tests are loaded: the others need packages that a machine with a GPU may lack. On a CPU
(`--device cpu`) each runs its code there where it can (tests/support/gpu.py).
"""

import argparse
import json
import os
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import pytest

from tests.support import gpu

ROOT = Path(__file__).parents[2]
MARK = "@pytest.mark." + "gpu"  # this file has none


def files(root: Path = ROOT) -> list[str]:
    return sorted(str(path) for path in (root / "tests").rglob("test_*.py") if MARK in path.read_text())


def outcomes(report: Path) -> dict[str, dict[str, Any]]:
    """By test {"outcome", "why", "seconds"}, from pytest's junit file."""
    found: dict[str, dict[str, Any]] = {}
    for case in xml.parse(report).iter("testcase"):
        bad = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        why = "" if bad is None else " ".join((bad.get("message") or "").split())[:300]
        outcome = "passed" if bad is None else "skipped" if bad.tag == "skipped" else "failed"
        name = f"{(case.get('classname') or '').rpartition('.')[2]}::{case.get('name')}".removeprefix("::")
        found[name] = {"outcome": outcome, "why": why, "seconds": round(float(case.get("time") or 0), 1)}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    os.environ[gpu.INSTEAD] = "cpu" if given.device == "cpu" else ""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-m", "gpu", "-p", "no:cacheprovider", f"--basetemp={folder}/made", f"--junitxml={report}"]
        status = pytest.main([*words, "--rootdir", str(ROOT), *files()])
        found = outcomes(report) if report.exists() else {}
    tally = {kind: sum(one["outcome"] == kind for one in found.values()) for kind in ("passed", "failed", "skipped")}
    print(json.dumps(tally | {"tests": found}))
    return int(status != 0)


if __name__ == "__main__":
    sys.exit(main())
