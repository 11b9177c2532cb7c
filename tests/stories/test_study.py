"""Studies of the repository, small: they run, resume, end in tables, and their cells are enough on another machine."""

import json
import shutil
from pathlib import Path

import pytest

from eval.studies import plan, steps
from eval.studies.runner import Studying
from infra import cli
from tests.support import story
from tests.support.ports import free_port

SMALL = ("rows=420", "images=56", "preset=tiny", "epochs=1")


@pytest.mark.slow
def test_a_study_runs_resumes_and_goes_on_from_its_cells_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out, only = tmp_path / "study", ("attack=badnet",)
    words = ["eval/study.py", "attacks", "--out", str(out), "--only", *only, "--set", *SMALL, f"port={free_port()}"]
    with story.Running([*words, "--jobs", "1"], tmp_path / "said") as running:
        running.until(lambda: list((out / "steps").glob("*.json")))  # the pairs are there
        running.process.terminate()
        assert running.status() == 1
        assert "told to end (SIGTERM)" in running.text().splitlines()[-1]
        assert not running.family(), "nothing of it is left"
    done = story.run(*words)
    assert "2 of 2 rows of attacks have cells in" in story.last_line(done)
    assert "pairs small-s0/train" not in done.stderr, "it had ended before"
    table = (out / "attacks.md").read_text()
    row = next(line for line in table.splitlines() if line.startswith("| badnet |"))
    assert row.startswith("| badnet | badnet: cell 7, patch checkerboard, size 42 | ") and row.endswith("| 0 |")
    assert "| - |" not in row
    cell = json.loads((out / "cells/badnet.undefended.s0.json").read_text())
    assert [number["task"] for number in cell["numbers"]] == ["zeroshot", "attack_success"]
    assert cell["seconds"] > 1 and cell["read_back"] is None and "x86_64" in cell["machine"]

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(out / "cells", elsewhere / "cells")
    there = Studying(name="attacks", out=str(elsewhere), only=only, given=SMALL)
    assert there.run().startswith("nothing to do: 2 of 2 rows")
    assert (elsewhere / "attacks.md").read_text() == table
    assert not list(elsewhere.glob("small-s0"))
    (elsewhere / "cells/badnet.floor.s0.json").unlink()
    assert cli.main(["study", "attacks", "--out", str(elsewhere), "--only", *only, "--set", *SMALL, "--dry-run"]) == 0
    said = capsys.readouterr().out
    floor = next(row for row in steps.rows(plan.read("attacks", SMALL), "/o") if row.name == "badnet.floor.s0")
    assert "badnet.undefended.s0                    there" in said
    assert said.count(" min\n") == len(floor.steps)

    _scanned_and_trained_anew(out, words)


def _scanned_and_trained_anew(out: Path, words: list[str]) -> None:
    """In the same folder, on the same pairs: the study whose poisoned pairs are sealed, scanned and filtered."""
    kept = out / "found"
    more = ["--scores", str(kept), "--only", "seed=0", "attack=badnet", "method=undefended,filtered", "value=-,0.02"]
    start = words.index("--only")
    done = story.run(words[0], "detected", *words[2:start], *more, *words[words.index("--set") :])
    assert "2 of 2 rows of detected have cells in" in story.last_line(done)
    assert "pairs small-s0/train" not in done.stderr, "they were there"
    cells = [json.loads((kept / f"badnet.{name}.s0.json").read_text()) for name in ("undefended", "filtered.0.02")]
    tasks = [{number["task"] for number in cell["numbers"]} for cell in cells]
    assert tasks == [{"zeroshot", "attack_success", "scan"}, {"zeroshot", "attack_success"}]
    lines = [line for line in (out / "detected.md").read_text().splitlines() if line.startswith("| badnet | ")]
    assert " - " not in lines[0]
    assert "| badnet | 2% | " in lines[2] and lines[2].endswith(" | - | - | - | - | 0 |"), "beside what is not measured"
