"""A scan held against the ledger that it never saw."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from defense.scanning.filtering import Filter
from defense.scanning.folder import ScanFolder
from defense.scanning.scanning import Scan
from eval import assess as entry
from eval.judging import detection
from eval.measuring.assessing import Assessment, assess, truth
from eval.reporting import page
from eval.reporting import scans as tables
from eval.reporting.page import Material
from eval.store import records, scans
from eval.studies.tabulation import ledger_name
from pipeline.dataset import Dataset
from poison.ledger import Ledger
from tests.support.eval_helpers import World, world


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> World:
    """A poisoned dataset and its scan."""
    made = world(tmp_path_factory.mktemp("assessed"))
    run = made.run("run", made.poisoned)
    Scan(run=run, dataset=made.poisoned.url, out=made.url("scan"), backend="local").start()
    return made


def test_what_a_scan_was_worth_is_kept_beside_the_scores(small: World, tmp_path: Path, capsys) -> None:
    out = str(tmp_path / "scores")
    assert entry.main(["--scans", small.url("scan"), "--ledger", small.ledger, "--out", out]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == f"1 assessed scan at {out}"
    assert "is not sealed" in said.err
    (record,) = scans.read(out)
    (attack,) = records.read_attacks(out)
    assert (attack.key, attack.poisons, attack.samples) == (record.attack, 4, 40), "as evaluate writes it"
    assert ledger_name(attack) == small.ledger.rsplit("/", 1)[-1] and attack.trigger
    scan, ledger = ScanFolder.open(small.url("scan")), Ledger.open(small.ledger)
    poisoned = np.isin(scan.table["row"].to_numpy(), ledger.rows["row"].to_numpy())
    assert (record.pairs, record.poisons, record.plugin) == (40, 4, "badnet")
    assert record.worth.keys() == {"panel", *scan.detectors}
    for name, worth in record.worth.items():
        assert worth.auroc == detection.auroc(scan.table[name].to_numpy(), poisoned), name
        assert worth.recall["0.1"] == detection.recall_at(scan.table[name].to_numpy(), poisoned, 0.1), name
    assert record.proposed == scan.about["proposed"]
    assert "| scan | badnet | panel |" in tables.markdown([record])
    assert "| scan | badnet | 4 of 40 |" in said.out
    text = page.render(Material([], {}, {}, [], [], scans=[record]))
    assert "<h2>What scans found</h2>" in text
    assert f"<td>{record.worth['panel'].auroc:.3f}</td>" in text


def test_a_share_counts_what_looks_planted_first_as_the_filter_that_removes_it(small: World, tmp_path: Path) -> None:
    scan, ledger = ScanFolder.open(small.url("scan")), Ledger.open(small.ledger)
    poisoned = truth(scan, ledger)
    table = scan.table.set_column(scan.table.column_names.index("panel"), "panel", pa.array(-1.0 * poisoned))
    table = table.set_column(table.column_names.index("proposed"), "proposed", pa.array(poisoned))
    worth = assess(replace(scan, table=table), ledger, str(tmp_path)).worth["panel"]
    assert (worth.auroc, worth.recall["0.1"]) == (0.0, 1.0), "the least suspicious are the four that are proposed"


def test_a_scan_in_the_place_of_another_takes_its_row_and_two_of_one_name_are_told_apart(
    small: World, tmp_path: Path
) -> None:
    Assessment(scans=(small.url("scan"),), ledger=(small.ledger,), out=str(tmp_path / "scores")).run()
    (record,) = scans.read(str(tmp_path / "scores"))
    again, other = (replace(record, suspicion_sha256="1" * 64, place=place) for place in (record.place, "../b/scan"))
    scans.write(str(tmp_path / "scores"), again)
    assert scans.read(str(tmp_path / "scores")) == [again]
    scans.write(str(tmp_path / "scores"), replace(other, suspicion_sha256="2" * 64))
    scans.write(str(tmp_path / "scores"), replace(again, attack="blended-1", suspicion_sha256="3" * 64))
    text = tables.markdown(scans.read(str(tmp_path / "scores")))
    assert text.count(f"| {record.place} | badnet | panel |") == 2 and text.count("| ../b/scan | badnet | panel |") == 1
    assert "| scan | badnet" not in text


def test_what_is_left_after_a_filter_is_assessed_by_the_same_ledger(small: World, tmp_path: Path) -> None:
    ledger = Ledger.open(small.ledger)
    (tmp_path / "rows").write_text("\n".join(map(str, sorted(ledger.row_ids)[1:])))
    less = str(tmp_path / "less")
    Filter(dataset=small.poisoned.url, scan=small.url("scan"), out=less, rows=str(tmp_path / "rows")).run()
    Scan(run=small.url("runs/run"), dataset=less, out=str(tmp_path / "scan"), backend="local").start()
    scan = ScanFolder.open(str(tmp_path / "scan"))
    assert scan.table["row"].to_numpy()[truth(scan, ledger)].tolist() == sorted(ledger.row_ids)[:1]
    Assessment(scans=(scan.url,), ledger=(small.ledger,), out=str(tmp_path / "scores")).run()
    (record,) = scans.read(str(tmp_path / "scores"))
    assert (record.pairs, record.poisons) == (37, 1)
    assert not records.read_attacks(str(tmp_path / "scores")), "how many pairs it poisoned is not known from a part"


def test_a_scan_of_another_dataset_is_refused(small: World, tmp_path: Path) -> None:
    clean = str(tmp_path / "scan")
    Scan(run=small.url("runs/run"), dataset=small.clean_set.url, out=clean, backend="local").start()
    with pytest.raises(ValueError, match="to which no ledger given belongs"):
        Assessment(scans=(clean,), ledger=(small.ledger,), out=str(tmp_path / "scores")).run()
    with pytest.raises(ValueError, match=r"--scans names .* twice"):
        Assessment(scans=(clean, clean), ledger=(small.ledger,), out=str(tmp_path / "scores"))
    assert not (tmp_path / "scores").exists()


def test_a_dry_run_writes_nothing(small: World, tmp_path: Path, capsys) -> None:
    words = ["--scans", small.url("scan"), "--ledger", small.ledger, "--out", str(tmp_path / "scores"), "--dry-run"]
    assert entry.main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("dry run: would assess 1 scans")
    assert not (tmp_path / "scores").exists()
    assert Dataset.open(small.poisoned.url).contains_poison
