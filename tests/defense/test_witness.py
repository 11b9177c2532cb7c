"""A scan with a witness: which rows it learned from, what is encoded for it, and who may not be one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from defense.detectors.panel import evident
from defense.judging import testimony, verdict
from defense.judging.captions import Word
from defense.judging.verdict import Cluster, Verdict
from defense.scanning import gathering, viewer, witness
from defense.scanning.encoding import Encode
from defense.scanning.filtering import Filter
from defense.scanning.folder import ScanFolder
from defense.scanning.gathering import Pairs
from defense.scanning.scanning import Scan
from infra import storage
from infra.errors import Lost
from pipeline import leaving
from pipeline.dataset import Dataset
from tests.support.drawn import drawn
from tests.support.eval_helpers import finished_run

SUSPECTS = np.array([1, 5, 9, 20, 21, 30])  # rows; their places, too


@pytest.fixture
def suspicious(monkeypatch) -> None:
    """Every scan finds one strong cluster, of SUSPECTS but the last, that lost no agreement, and says car."""

    def judge(panel, scores, evidence, captions) -> Verdict:
        word = Word("car", 0.9, 40, 3.0, dict.fromkeys(evidence.changed, 0.9))
        rows = SUSPECTS[:-1]
        return verdict.arranged([Cluster(rows, rows[:-1], len(rows), (word,), 200.0, {"blur": 0.0})], len(captions))

    monkeypatch.setattr(verdict, "judge", judge)


@pytest.fixture
def second(scanned: Scan, suspicious: None, tmp_path: Path) -> Scan:
    """The same scan with a witness, made by the three commands; it is not begun."""
    first = replace(scanned, out=f"{tmp_path}/first")
    first.start()
    Filter(dataset=first.dataset, scan=first.out, remove="suspects", out=f"{tmp_path}/without").run()
    run = finished_run(f"{tmp_path}/witness", Dataset.open(f"{tmp_path}/without"), seed=3)
    return replace(first, witness=run, out=f"{tmp_path}/second")


def test_a_scan_removes_the_kin_of_what_it_found_planted(scanned: Scan, monkeypatch, tmp_path: Path) -> None:
    word, rows = Word("car", 0.9, 40, 3.0), SUSPECTS[:-1]
    planted = Cluster(rows, rows[:-1], len(rows), (word,), 200.0, {"blur": 0.9}, planted=True)
    monkeypatch.setattr(verdict, "judge", lambda *given: verdict.arranged([planted], 40))
    monkeypatch.setattr(verdict, "kin", lambda *given: SUSPECTS[-1:])
    (made := replace(scanned, out=f"{tmp_path}/kin")).start()
    found = ScanFolder.open(made.out)
    assert np.flatnonzero(found.table["proposed"].to_numpy()).tolist() == SUSPECTS.tolist()
    assert found.about["clusters"][0]["kin"] == 1 and found.about["proposed"] == len(SUSPECTS)


def suspects(scan: str) -> list[int]:
    """Those it tells: the cluster, and who says car and is among the four most suspicious."""
    found = np.flatnonzero(ScanFolder.open(scan).table["suspect"].to_numpy()).tolist()
    assert set(SUSPECTS[:-1].tolist()) <= set(found) and len(found) <= len(SUSPECTS) + 3
    return found


def test_a_scan_with_a_witness_tells_what_it_said(second: Scan, capsys) -> None:
    assert ScanFolder.open(f"{Path(second.out).parent}/first").about.get("witness") is None
    said = second.start()
    about = ScanFolder.open(second.out).about
    assert "and its clusters through the witness " in replace(second, out=f"{second.out}-dry", dry_run=True).start()
    assert not storage.exists(f"{second.out}-dry")
    without = Dataset.open(f"{Path(second.out).parent}/without")
    left = 40 - len(suspects(f"{Path(second.out).parent}/first"))
    assert without.samples == left
    assert about["witness"]["dataset"] == {"url": "../without", "digest": without.digest, "samples": left}
    assert about["witness"]["url"] == "../witness" and len(about["witness"]["weights_sha256"]) == 64
    (cluster,) = about["clusters"]
    aims = [word["text"] for word in cluster["words"] if word["elsewhere"] >= cluster["reached"]]
    assert cluster["aims"] == aims and aims, "by which the page and the last line name it"
    true = cluster["words"][0]["witness"] >= testimony.TRUE or cluster["better"] <= 1 - testimony.UNFIT
    assert cluster["witness"] == ("true" if true else "untrue")
    assert cluster["planted"] == (cluster["witness"] == "untrue")
    assert about["witness"]["learned_of_proposed"] == cluster["followers"]
    table = ScanFolder.open(second.out).table
    assert {"witness", "suspect"} <= set(table.column_names) and "witness" in ScanFolder.open(second.out).detectors
    first = ScanFolder.open(f"{Path(second.out).parent}/first").table["panel"].to_numpy()
    added = table["panel"].to_numpy() - first
    assert np.allclose(added, 4 * evident(table["witness"].to_numpy())) and added.max() > 0
    assert "a witness" in said
    assert f"learned from {left} of 40 pairs, and may be asked about 1 of 1 clusters" in capsys.readouterr().err
    assert "parts" not in storage.names(second.out)
    assert second.start() == f"nothing to do: {said}"
    storage.write_json(f"{second.out}/scan.json", about | {"witness": {}})
    with pytest.raises(ValueError, match=r"scan\.json says nothing of 'url'"):
        ScanFolder.open(second.out)


def test_only_what_is_asked_is_encoded_anew(second: Scan, monkeypatch) -> None:
    seen: list[int] = []
    whole = Encode._made

    def made(self, embedder, shard, samples):
        assert self.names == ("images", "texts"), "what the first scan saw is kept"
        seen.append(shard.id)
        return whole(self, embedder, shard, samples)

    monkeypatch.setattr(Encode, "_made", made)
    second.start()
    assert sorted(seen) == [0, 1, 2]
    replace(second, out=f"{second.out}-again").start()
    assert len(seen) == 3


def test_what_is_done_for_the_witness_is_not_done_again(second: Scan) -> None:
    dataset = Dataset.open(second.dataset)
    tar = Path(dataset.tar_url(dataset.shards[2]))
    whole = tar.read_bytes()
    try:
        tar.write_bytes(whole[:-2000])
        with pytest.raises(Lost, match=r"encoding for the witness: 1 of 3 have no result \(shard 2\)"):
            second.start()
    finally:
        tar.write_bytes(whole)
    parts = Path(second.out, "parts", "witness")
    assert len(list(parts.iterdir())) == 2
    first = next(parts.iterdir())
    stamp = first.stat().st_mtime_ns
    kept = Path(second.out, "kept.npz")
    kept.hardlink_to(first)
    second.start()
    assert kept.stat().st_mtime_ns == stamp


def test_what_a_witness_sees_is_what_a_scan_through_it_sees(second: Scan, tmp_path: Path) -> None:
    dataset, eyes = Dataset.open(second.dataset), viewer.read(str(second.witness))
    pairs = Pairs.of(dataset)
    every = Encode(dataset, eyes, ("blur",), f"{tmp_path}/every", 1)
    found = []
    for encode in (every, replace(every, changes=(), parts=f"{tmp_path}/plain")):
        for task in enumerate(dataset.shards):
            encode(task)
        Path(encode.parts, "scratch").mkdir()
        found.append(gathering.gather(dataset, encode, pairs, eyes.width, Path(encode.parts, "scratch")).arrays)
    assert [set(arrays) for arrays in found] == [{"images", "texts", "blur"}, {"images", "texts"}]
    assert all(np.allclose(found[0][name], found[1][name], atol=1e-6) for name in ("images", "texts"))


def test_a_cluster_of_which_it_learned_a_row_is_judged_without_it(second: Scan, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("".join(f"{row}\n" for row in SUSPECTS[1:]))
    first = f"{tmp_path}/first"
    Filter(dataset=second.dataset, scan=first, rows=f"{tmp_path}/rows.txt", out=f"{tmp_path}/most").run()
    run = finished_run(f"{tmp_path}/partial", Dataset.open(f"{tmp_path}/most"))
    scan = replace(second, witness=run, out=f"{tmp_path}/third")
    scan.start()
    (cluster,) = ScanFolder.open(scan.out).about["clusters"]
    assert (cluster["witness"], cluster["planted"], cluster["words"][0]["witness"]) == ("learned", False, None)


def test_a_copy_with_shards_of_its_own_tells_as_well_what_was_learned(second: Scan, tmp_path: Path) -> None:
    options = {"remove": "suspects", "materialise": True, "backend": "local"}
    Filter(dataset=second.dataset, scan=f"{tmp_path}/first", out=f"{tmp_path}/copied", **options).run()  # type: ignore[arg-type]
    run = finished_run(f"{tmp_path}/by-copy", Dataset.open(f"{tmp_path}/copied"))
    dataset = Dataset.open(second.dataset)
    for place in (run, str(second.witness)):
        learned = witness.read(place, dataset).learned(Pairs.of(dataset))
        assert np.flatnonzero(~learned).tolist() == suspects(f"{tmp_path}/first")


def test_who_cannot_be_a_witness_is_told_why_in_one_line(second: Scan, tmp_path: Path) -> None:
    without = Dataset.open(f"{tmp_path}/without")
    other = drawn(f"{tmp_path}/other", 12, 1, first=100)
    classes = ("car", "fish")
    for name, run, said in (
        ("itself", second.run, "learned from all pairs of .*filter --remove suspects"),
        ("other", finished_run(f"{tmp_path}/o", other), "learned from another dataset, of digest .* part of "),
        ("tuned", finished_run(f"{tmp_path}/t", without, start=second.run), "began with weights that may know"),
        ("classes", finished_run(f"{tmp_path}/c", replace(without, classes=classes)), "is a classifier"),
        ("none", f"{tmp_path}/nowhere", "no run at"),
    ):
        with pytest.raises(ValueError, match=said) as caught:
            replace(second, witness=run, out=f"{tmp_path}/scan-{name}").start()
        assert "\n" not in str(caught.value)
        assert not storage.exists(f"{tmp_path}/scan-{name}")
    with pytest.raises(ValueError, match="give --witness too"):
        replace(second, witness=None, witness_dataset=without.url)


def test_what_a_witness_learned_from_is_looked_for_where_it_is_said_to_lie(second: Scan, tmp_path: Path) -> None:
    (tmp_path / "without").rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"is not at .*without.*: give its --witness-dataset"):
        second.start()
    with pytest.raises(ValueError, match=r"learned from a dataset of digest .*: give its --witness-dataset"):
        replace(second, witness_dataset=second.dataset).start()
    assert "witness" in replace(second, witness_dataset=f"{tmp_path}/moved").start()


def test_a_run_of_weights_from_elsewhere_is_no_witness(second: Scan, tmp_path: Path) -> None:
    place = Path(str(second.witness)) / "environment.json"
    said = json.loads(place.read_bytes())
    place.write_text(json.dumps(said | {"inputs": {"dataset": None, "pretrained": {"sha256": "0" * 64}}}))
    with pytest.raises(ValueError, match="began with weights that may know the clusters already"):
        second.start()


def test_a_scan_by_another_witness_is_another_scan(second: Scan, tmp_path: Path) -> None:
    second.start()
    assert leaving.ancestry(f"{tmp_path}/without") == (Dataset.open(second.dataset).digest,)
    another = finished_run(f"{tmp_path}/another", Dataset.open(f"{tmp_path}/without"), seed=8)
    with pytest.raises(ValueError, match=r"was made by a different command.*scan\.witness"):
        replace(second, witness=another).start()
