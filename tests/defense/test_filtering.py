"""What is left out of a dataset after a scan, how it is told, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from defense import filter as entry
from defense.judging.verdict import Verdict, top
from defense.scanning.filtering import Filter, anywhere
from defense.scanning.folder import ScanFolder, ranking, write
from defense.scanning.scanning import Scan
from infra import storage
from pipeline import leaving, shards
from pipeline.dataset import Dataset
from pipeline.verification import Verification
from tests.support.drawn import drawn


def rows(dataset: Dataset) -> list[int]:
    return sorted(dataset.index_of_samples(["row"])["row"].to_pylist())


def filtered(scanned: Scan, out: Path, **options: object) -> Dataset:
    Filter(dataset=scanned.dataset, scan=scanned.out, out=str(out), backend="local", **options).run()  # type: ignore[arg-type]
    return Dataset.open(str(out))


@pytest.mark.parametrize("materialised", [False, True], ids=["in place", "materialised"])
def test_the_most_suspicious_are_left_out_and_lineage_says_by_which_scan(
    scanned: Scan, tmp_path: Path, materialised: bool
) -> None:
    parent, scan = Dataset.open(scanned.dataset), ScanFolder.open(scanned.out)
    made = filtered(scanned, tmp_path / "out", remove="0.1", materialise=materialised)
    worst = np.argsort(-scan.table["panel"].to_numpy(), kind="stable")[:4]
    gone = set(np.array(scan.table["row"].to_pylist())[worst].tolist())
    assert rows(made) == sorted(set(rows(parent)) - gone)
    assert made.outcomes == {"filtered": 4, "success": 36}
    assert storage.exists(str(tmp_path / "out/shards")) == materialised
    recipe = storage.read_json(str(tmp_path / "out/recipe.json"))["leave_out"]
    assert recipe["filter"]["scan"]["suspicion_sha256"] == scan.sha256
    assert leaving.ancestry(made.url) == (parent.digest,)
    assert "verified" in Verification(dataset=made.url, backend="local", decode=True).run()
    assert rows(Dataset.open(scanned.dataset)) == rows(parent)


def test_a_materialised_dataset_holds_the_same_pairs_and_nothing_of_the_others(scanned: Scan, tmp_path: Path) -> None:
    masked = filtered(scanned, tmp_path / "masked", remove="0.1")
    copied = filtered(scanned, tmp_path / "copied", remove="0.1", materialise=True)
    for one, other in zip(masked.shards, copied.shards, strict=True):
        pairs, twins = (
            list(shards.read_shard(Path(data.tar_url(shard)), data.index(shard)))
            for data, shard in ((masked, one), (copied, other))
        )
        assert [(p.key, p.row, p.image, p.caption) for p in pairs] == [
            (p.key, p.row, p.image, p.caption) for p in twins
        ]
        assert Path(copied.tar_url(other)).read_bytes().count(b".txt") == len(twins)
    assert filtered(scanned, tmp_path / "copied", remove="0.1", materialise=True).digest == copied.digest


def found(scanned: Scan, folder: Path) -> Scan:
    """The same scan, as if it had found three clusters, of which the first looks planted."""
    scan = ScanFolder.open(scanned.out)
    cluster = np.full(40, -1, np.int32)
    cluster[[3, 4, 5]], cluster[[8, 9]], cluster[[20, 21]] = 0, 1, 2
    verdict, suspects = Verdict((), cluster, cluster == 0), (cluster >= 0) | (np.arange(40) == 30)
    scores = {name: scan.table[name].to_numpy() for name in scan.detectors}
    write(str(folder), scan.table, scores, scan.table["panel"].to_numpy(), verdict, suspects, scan.about)
    return replace(scanned, out=str(folder))


def test_auto_clusters_and_rows_name_the_pairs(scanned: Scan, tmp_path: Path) -> None:
    scan, every = found(scanned, tmp_path / "scan"), set(range(40))
    (tmp_path / "rows.txt").write_text("39\n7\n\n11\n")
    for name, options, gone in (
        ("auto", {"remove": "auto"}, {3, 4, 5}),
        ("share", {"remove": "0.075"}, {3, 4, 5}),  # what looks planted first, however suspicious others are
        ("clusters", {"clusters": (2, 0)}, {3, 4, 5, 20, 21}),
        ("suspects", {"remove": "suspects"}, {3, 4, 5, 8, 9, 20, 21, 30}),
        ("rows", {"rows": str(tmp_path / "rows.txt")}, {7, 11, 39}),
    ):
        assert rows(filtered(scan, tmp_path / name, **options)) == sorted(every - gone)
    with pytest.raises(ValueError, match="has no cluster 3; it has: 0, 1, 2"):
        filtered(scan, tmp_path / "none", clusters=(3,))


def test_auto_leaves_all_where_nothing_looks_planted(scanned: Scan, tmp_path: Path) -> None:
    assert not ScanFolder.open(scanned.out).about["proposed"]
    made = filtered(scanned, tmp_path / "auto", remove="auto")
    assert made.digest == Dataset.open(scanned.dataset).digest


def test_as_many_at_random_are_the_same_for_a_seed_and_others_for_another(scanned: Scan, tmp_path: Path) -> None:
    worst = filtered(scanned, tmp_path / "worst", remove="0.1")
    made = [filtered(scanned, tmp_path / f"out{n}", remove="0.1", at_random=seed) for n, seed in enumerate((7, 7, 8))]
    assert [one.samples for one in made] == [worst.samples] * 3
    assert made[0].digest == made[1].digest
    assert len({tuple(rows(one)) for one in (worst, *made)}) == 3
    told = storage.read_json(str(tmp_path / "out2/recipe.json"))["leave_out"]["filter"]
    assert (told["remove"], told["at_random"]) == ("0.1", 8)
    assert "at_random" not in storage.read_json(str(tmp_path / "worst/recipe.json"))["leave_out"]["filter"]


def test_at_random_every_pair_is_left_out_as_often_as_any_other() -> None:
    chosen = np.arange(20) < 5
    times = np.sum([anywhere(chosen, seed) for seed in range(400)], axis=0)
    assert times.sum() == 400 * 5
    assert times.min() > 60 and times.max() < 140, "100 each, a deviation of 9"


def test_a_second_round_remembers_the_first(scanned: Scan, tmp_path: Path) -> None:
    first = filtered(scanned, tmp_path / "first", remove="0.1")
    again = replace(scanned, dataset=first.url, out=str(tmp_path / "scan"))
    again.start()
    assert ScanFolder.open(again.out).about["run"]["saw_these_pairs"] is True
    second = filtered(again, tmp_path / "second", remove="0.1")
    assert second.samples == 32
    assert leaving.ancestry(second.url) == (first.digest, Dataset.open(scanned.dataset).digest)


def test_a_list_has_keys_and_urls(scanned: Scan, tmp_path: Path, capsys) -> None:
    words = ["--dataset", scanned.dataset, "--scan", scanned.out, "--remove", "0.05"]
    assert entry.main([*words, "--list", str(tmp_path / "out.csv")]) == 0
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].replace('"', "") == "row,key,shard,url"
    assert len(lines) == 3
    assert all("http://127.0.0.1/" in line for line in lines[1:])
    assert capsys.readouterr().out.startswith("listed 2 of 40 pairs in ")


def test_a_dry_run_writes_nothing(scanned: Scan, tmp_path: Path, capsys) -> None:
    words = ["--dataset", scanned.dataset, "--scan", scanned.out, "--remove", "0.05", "--out", str(tmp_path / "new")]
    assert entry.main([*words, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "dry run: would leave out 2 of 40 pairs"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one of --remove auto"),
        ({"remove": "auto", "clusters": (0,)}, "--remove and --clusters"),
        ({"remove": "suspects"}, "shows no cluster that may be planted: there is nothing to ask"),
        ({"remove": "1.5"}, "--remove is auto, suspects or a share of all pairs between 0 and 1, not '1.5'"),
        ({"remove": "much"}, "not 'much'"),
        ({"remove": "0.01"}, "--remove 0.01 of 40 pairs is not one"),
        ({"remove": "0.999"}, "40 of 40 pairs would be left out, and none would be left"),
        ({"clusters": (77,)}, "has no cluster 77; it has: "),
        ({"rows": "no such file"}, "--rows no such file cannot be read"),
    ],
)
def test_what_cannot_be_filtered_is_refused_in_one_line(scanned: Scan, tmp_path: Path, options, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        filtered(scanned, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_not_there_and_lines_that_are_no_rows_are_named(scanned: Scan, tmp_path: Path) -> None:
    beyond = 10**19  # of an int64
    for text, said in (
        ("1\n99\n", "names row 99"),
        ("1\nx\n", "line 2 of .* is 'x'"),
        ("\n", "names no row"),
        (f"1\n{beyond}\n", f"line 2 of .* is '{beyond}', not a row id"),
    ):
        (tmp_path / "rows.txt").write_text(text)
        with pytest.raises(ValueError, match=said):
            filtered(scanned, tmp_path / "out", rows=str(tmp_path / "rows.txt"))


def test_what_would_be_written_anew_needs_a_place(scanned: Scan, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="say where, with --out"):
        Filter(dataset=scanned.dataset, scan=scanned.out, remove="auto", list=f"{tmp_path}/a.csv", materialise=True)


def test_the_scan_of_another_dataset_is_refused(scanned: Scan, tmp_path: Path) -> None:
    other = drawn(f"{tmp_path}/other", 12, 1, first=100)
    with pytest.raises(ValueError, match="is a scan of another dataset, of digest"):
        filtered(replace(scanned, dataset=other.url), tmp_path / "out", remove="auto")


def test_a_share_takes_what_looks_planted_before_what_is_more_suspicious() -> None:
    panel, proposed = np.array([5.0, 9.0, 1.0, 7.0, 2.0]), np.array([False, False, True, False, True])
    order = np.argsort(-ranking(panel, proposed), kind="stable")
    assert order.tolist() == [4, 2, 1, 3, 0], "as --remove auto, and then on"
    assert (ranking(panel, proposed & False) == panel).all()


def test_the_top_of_equal_scores_is_the_first() -> None:
    assert top(np.array([1.0, 3.0, 3.0, 3.0]), 2).tolist() == [False, True, True, False]
