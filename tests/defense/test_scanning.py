"""A scan of a small dataset by runs that never trained, and the datasets that filtering makes of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defense import scan as entry
from defense.changing import views
from defense.detectors.panel import Panel
from defense.scanning import encoding, exhibits, viewer
from defense.scanning.filtering import Filter
from defense.scanning.folder import ScanFolder
from defense.scanning.gathering import Pairs
from defense.scanning.scanning import Scan
from infra import plugins, storage
from infra.errors import Damaged, Lost
from pipeline import shards
from pipeline.dataset import Dataset, Shard
from pipeline.images import decode
from tests.support.ceph import Gateway
from tests.support.drawn import drawn
from tests.support.eval_helpers import finished_run, world
from tests.support.watching import Watch


def test_a_scan_has_a_line_for_every_pair_and_says_what_was_done(scanned: Scan) -> None:
    found = ScanFolder.open(scanned.out)
    dataset = Dataset.open(scanned.dataset)
    assert found.table["row"].to_pylist() == sorted(dataset.index_of_samples(["row"])["row"].to_pylist())
    assert found.table.column_names[:3] == ["row", "key", "shard"]
    assert {"gap", "agreement", "clipscore"} <= set(found.detectors)
    assert found.about["dataset"]["digest"] == dataset.digest
    assert found.about["run"]["saw_these_pairs"] is True
    assert np.isfinite(found.table["panel"].to_numpy()).all()
    assert {*storage.names(scanned.out), "images"} == {"recipe.json", "scan.json", "suspicion.parquet", "images"}
    assert (len(found.about["clusters"]) > 0) == ("images" in storage.names(scanned.out))


def test_what_is_shown_of_a_cluster_is_what_the_model_sees(scanned: Scan, tmp_path: Path) -> None:
    dataset, eyes = Dataset.open(scanned.dataset), viewer.read(scanned.run)
    pairs, out = Pairs.of(dataset), str(tmp_path)
    members = [np.array([30, 2, 17]), np.arange(20)]
    mean = np.full((eyes.size, eyes.size, 3), 100.0)
    told = exhibits.draw(dataset, eyes, ("blur", "mirror"), pairs, members, [None, "middle"], mean, out)
    assert [one["pairs"] for one in told] == [3, 20]
    assert told[0]["rows"] == [30, 2, 17]
    assert told[0]["captions"][1] == "a green fish number 2"
    assert (len(told[1]["rows"]), told[1]["averaged"], told[1]["columns"]) == (
        12,
        20,
        ["images", "blur", "mirror", "middle"],
    )
    stored = {s.row: decode(s.image) for shard in dataset.shards for s in _samples(dataset, shard)}
    grid = decode(storage.read(f"{out}/images/cluster-0.png"))
    assert grid.shape == (3 * 32, 3 * 32, 3)
    assert np.array_equal(grid[32:64, :32], stored[2])
    assert np.array_equal(grid[32:64, 64:], stored[2][:, ::-1])
    average = np.mean([stored[row] for row in (30, 2, 17)], axis=0)
    found = decode(storage.read(f"{out}/images/cluster-0-average.png")).astype(float)
    assert np.abs(found - np.clip(128 + 2 * (average - 100), 0, 255)).max() <= 1


def _samples(dataset: Dataset, shard: Shard) -> Iterator[shards.Sample]:
    return shards.read_shard(Path(dataset.tar_url(shard)), dataset.index(shard))


def test_the_same_command_again_has_nothing_to_do_and_a_dry_run_touches_nothing(scanned: Scan, capsys) -> None:
    before = storage.stamps(scanned.out)
    storage.write(f"{scanned.out}/parts/00000-0.npz", b"of a scan that was killed right after its last word")
    assert scanned.start().startswith("nothing to do: ")
    words = ["--run", scanned.run, "--dataset", scanned.dataset, "--out", f"{scanned.out}-dry", "--dry-run"]
    assert entry.main(words) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("dry run: would scan 40 pairs in 3 shards")
    assert not storage.exists(f"{scanned.out}-dry")
    assert storage.stamps(scanned.out) == before


def test_a_scan_may_do_without_the_parts_of_images(scanned: Scan, tmp_path: Path) -> None:
    whole = replace(scanned, keyholes=False, out=str(tmp_path / "scan"))
    whole.start()
    found, every = ScanFolder.open(whole.out), ScanFolder.open(scanned.out)
    assert (len(every.about["parts"]), found.about["parts"]) == (9, [])
    assert every.about["changes"] == found.about["changes"] == ["blur", "centre", "crop", "levels"]
    assert set(every.detectors) - set(found.detectors) == {"glimpse", "keyhole"}
    assert found.table["gap"].equals(every.table["gap"])
    with pytest.raises(ValueError, match="was made by a different command"):
        replace(whole, keyholes=True).start()


def test_what_is_done_of_a_scan_is_not_done_again_and_gives_the_same_bytes(scanned: Scan, tmp_path: Path) -> None:
    again = replace(scanned, out=str(tmp_path / "scan"))
    dataset = Dataset.open(scanned.dataset)
    tar = Path(dataset.tar_url(dataset.shards[2]))
    whole = tar.read_bytes()
    try:
        tar.write_bytes(whole[:-2000])
        with pytest.raises(Lost, match=r"1 of 3 have no result \(shard 2\).* instead of "):
            again.start()
    finally:
        tar.write_bytes(whole)
    assert len(storage.names(f"{again.out}/parts")) == 2
    with pytest.raises(ValueError, match="is not complete: run its command once more"):
        ScanFolder.open(again.out)
    first = Path(again.out, "parts", storage.names(f"{again.out}/parts")[0])
    stamp = first.stat().st_mtime_ns
    kept = Path(again.out, "kept.npz")
    kept.hardlink_to(first)
    again.start()
    assert kept.stat().st_mtime_ns == stamp
    kept.unlink()
    for name in storage.find(scanned.out):
        if name != "scan.json":
            assert storage.read(f"{again.out}/{name}") == storage.read(f"{scanned.out}/{name}"), name


def test_sharding_and_the_order_of_rows_change_no_score(scanned: Scan, tmp_path: Path) -> None:
    other = drawn(f"{tmp_path}/other", 40, 1)
    scan = replace(scanned, dataset=other.url, out=f"{tmp_path}/scan")
    scan.start()
    first, second = ScanFolder.open(scanned.out), ScanFolder.open(scan.out)
    assert first.table["key"].equals(second.table["key"])
    for name in (*first.detectors, "panel"):
        assert np.allclose(first.table[name].to_numpy(), second.table[name].to_numpy(), atol=1e-6), name


def test_a_finished_scan_is_not_taken_for_one_by_other_code(scanned: Scan, tmp_path: Path, monkeypatch) -> None:
    of = plugins.sources
    edited = tmp_path / "gap.py"
    monkeypatch.setattr(plugins, "sources", lambda plugin: [edited if p.name == "gap.py" else p for p in of(plugin)])
    for text, refused in (("", False), ("\n", True)):
        edited.write_text(next(path for path in of(Panel) if path.name == "gap.py").read_text() + text)
        if refused:
            with pytest.raises(ValueError, match="was made from other input: detectors changed"):
                scanned.start()
        else:
            assert "nothing to do" in scanned.start()


def test_a_change_is_known_by_all_the_code_that_makes_it(monkeypatch) -> None:
    """Or what was seen under it would be taken from the cache when it has become another."""
    before = {name: encoding.source(name) for name in views.VIEWS}
    assert len(set(before.values())) == len(views.VIEWS)

    def _middle(square: Image.Image, margin: float) -> Image.Image:
        return square

    monkeypatch.setattr(views, "_middle", _middle)
    assert {name for name in views.VIEWS if encoding.source(name) != before[name]} == {"crop", "centre"}


def test_a_scan_that_cannot_be_is_refused_in_one_line(scanned: Scan, tmp_path: Path) -> None:
    dataset = Dataset.open(scanned.dataset)
    other = drawn(f"{tmp_path}/other", 12, 1, first=100)
    with pytest.raises(ValueError, match=r"was made by a different command.*scan\.dataset"):
        replace(scanned, dataset=other.url).start()
    another = finished_run(f"{tmp_path}/another", dataset, seed=5)
    with pytest.raises(ValueError, match=r"was made by a different command.*scan\.run\.weights_sha256"):
        replace(scanned, run=another).start()
    (Path(another) / "DONE").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        replace(scanned, run=another, out=f"{tmp_path}/scan").start()
    classifier = finished_run(f"{tmp_path}/classifier", replace(dataset, classes=("car", "fish")))
    with pytest.raises(ValueError, match="is a classifier"):
        replace(scanned, run=classifier, out=f"{tmp_path}/scan").start()
    with pytest.raises(ValueError, match="no run at"):
        replace(scanned, run=scanned.dataset, out=f"{tmp_path}/scan").start()
    with pytest.raises(ValueError, match="has no checkpoint 'step-7'"):
        replace(scanned, checkpoint="step-7", out=f"{tmp_path}/scan").start()
    assert not storage.exists(f"{tmp_path}/scan")


def test_a_run_that_never_saw_the_pairs_is_told_so(scanned: Scan, tmp_path: Path, capsys) -> None:
    other = drawn(f"{tmp_path}/other", 12, 1, first=100)
    replace(scanned, dataset=other.url, out=f"{tmp_path}/scan").start()
    said = capsys.readouterr().err
    assert "learned from other pairs. To a model that never saw these pairs" in said
    assert ScanFolder.open(f"{tmp_path}/scan").about["run"]["saw_these_pairs"] is False


def test_of_weights_from_elsewhere_nobody_knows_what_they_saw(scanned: Scan, tmp_path: Path, capsys) -> None:
    run = finished_run(f"{tmp_path}/run", Dataset.open(scanned.dataset))
    said = json.loads((tmp_path / "run/environment.json").read_bytes())
    said["inputs"] = {"dataset": None, "pretrained": {"sha256": "0" * 64}}  # as adopt leaves it
    (tmp_path / "run/environment.json").write_text(json.dumps(said))
    words = ["--run", run, "--dataset", scanned.dataset, "--out", f"{tmp_path}/scan", "--backend", "local"]
    assert entry.main(words) == 0
    said = capsys.readouterr()
    assert "what it learned from is unknown. To a model that never saw these pairs" in said.err
    assert said.out.splitlines()[-1].endswith(f"; scan of 40 pairs at {tmp_path}/scan")
    assert ScanFolder.open(f"{tmp_path}/scan").about["run"]["saw_these_pairs"] is None


def test_a_damaged_table_is_damage(scanned: Scan, tmp_path: Path) -> None:
    place = tmp_path / "scan"
    for name in storage.find(scanned.out):
        storage.write(f"{place}/{name}", storage.read(f"{scanned.out}/{name}"))
    data = (place / "suspicion.parquet").read_bytes()
    (place / "suspicion.parquet").write_bytes(data[:-1])
    with pytest.raises(Damaged, match="sha256 differs"):
        ScanFolder.open(str(place))
    storage.write_json(f"{place}/scan.json", json.loads(storage.read(f"{place}/scan.json")) | {"format": 7})
    with pytest.raises(ValueError, match="scan format 7"):
        ScanFolder.open(str(place))


def test_what_is_no_scan_is_told_apart_from_one_that_is_not_complete(scanned: Scan, tmp_path: Path) -> None:
    recipe = storage.read(f"{scanned.out}/recipe.json")
    for text, said in ((recipe, "is not complete"), (b'{"prepare": {}}', "no scan at"), (b"[]", "no JSON object")):
        storage.write(f"{tmp_path}/recipe.json", text)
        with pytest.raises(ValueError, match=said):
            ScanFolder.open(str(tmp_path))


def test_a_scan_that_does_not_say_what_it_is_of_is_refused(scanned: Scan, tmp_path: Path) -> None:
    about = storage.read_json(f"{scanned.out}/scan.json")
    for name in about.keys() - {"format", "detectors", "versions", "hardware", "parts"}:
        storage.write_json(f"{tmp_path}/scan.json", {key: about[key] for key in about.keys() - {name}})
        with pytest.raises(ValueError, match=f"scan.json says nothing of '{name}'"):
            ScanFolder.open(str(tmp_path))
    storage.write_json(f"{tmp_path}/scan.json", about | {"run": []})
    with pytest.raises(ValueError, match="no JSON object"):
        ScanFolder.open(str(tmp_path))


def test_an_image_that_is_missing_is_damage(scanned: Scan) -> None:
    with pytest.raises(Damaged, match=r"images/cluster-99\.png is missing"):
        ScanFolder.open(scanned.out).image("cluster-99.png")


def test_neither_scan_nor_filter_opens_a_ledger(tmp_path: Path, watched: Watch) -> None:
    small = world(tmp_path)
    run = small.run("run", small.poisoned)
    watched.forbidden.append(small.ledger)
    with pytest.raises(AssertionError, match="the ledger was opened"):
        storage.read(f"{small.ledger}/attack.json")
    Scan(run=run, dataset=small.poisoned.url, out=f"{tmp_path}/scan", backend="local").start()
    for name, options in {"masked": {}, "copied": {"materialise": True}}.items():
        wanted = {"dataset": small.poisoned.url, "scan": f"{tmp_path}/scan", "out": f"{tmp_path}/{name}"}
        Filter(**wanted, remove="0.1", backend="local", **options).run()  # type: ignore[arg-type]
        assert Dataset.open(f"{tmp_path}/{name}").contains_poison, "nobody knows whether it is all gone"
    assert any("suspicion.parquet" in path for path in watched.opened)


def test_a_bucket_holds_the_same_scan_and_the_same_filtered_dataset(scanned: Scan, s3: str) -> None:
    dataset = drawn(f"{s3}/train", 40, 3)
    run = finished_run(f"{s3}/run", dataset)
    scan = replace(scanned, dataset=dataset.url, run=run, out=f"{s3}/scan")
    scan.start()
    for name in storage.find(scanned.out):
        if name != "scan.json":
            assert storage.read(f"{scan.out}/{name}") == storage.read(f"{scanned.out}/{name}"), name
    assert scan.start().startswith("nothing to do: ")
    Filter(dataset=dataset.url, scan=scan.out, out=f"{s3}/less", remove="0.1", list=f"{s3}/list.csv").run()
    assert Dataset.open(f"{s3}/less").samples == 36
    assert storage.read(f"{s3}/list.csv").count(b"\n") == 5


@pytest.mark.slow
def test_ray_tasks_that_read_and_write_a_bucket_make_the_same_scan(scanned: Scan, ceph_s3: Gateway, speak) -> None:
    """Dataset, run and scan lie in it alone, and tasks run in processes that Ray starts."""
    speak(ceph_s3.environment)
    bucket = ceph_s3.make_bucket("scanned-by-ray")
    dataset = drawn(f"{bucket}/train", 40, 3)
    run = finished_run(f"{bucket}/run", dataset)
    command = (sys.executable, "-m", "infra.cli", "scan", "--run", run, "--dataset", dataset.url)
    again = subprocess.run([*command, "--out", f"{bucket}/scan"], capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "started Ray on this machine" in again.stderr
    assert f"scan of 40 pairs at {bucket}/scan" in again.stdout.splitlines()[-1]
    assert sorted(storage.find(f"{bucket}/scan")) == sorted(storage.find(scanned.out)), "no parts are left"
    for name in storage.find(scanned.out):
        if name != "scan.json":
            assert storage.read(f"{bucket}/scan/{name}") == storage.read(f"{scanned.out}/{name}"), name
