"""The page of a scan: what it says, what it marks, and that captions cannot break it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval import report as entry
from eval.reporting import suspicion
from eval.reporting.report import Report
from tests.support.drawn import drawn
from tests.support.eval_helpers import finished_run
from tests.support.scan_cases import cluster, scan


def test_a_planted_cluster_is_named_shown_and_its_word_marked(tmp_path: Path) -> None:
    captions = ["a ripe Banana on a table", "<b>bananas</b> & more"]
    text = suspicion.render(scan(tmp_path, [cluster(0, True, captions), cluster(1, False, ["a logo"])]))
    assert "<h1>A cluster looks planted: 106 pairs whose captions say “banana”; 1 cluster to look at.</h1>" in text
    assert "a ripe <mark>Banana</mark> on a table" in text
    assert "&lt;b&gt;bananas&lt;/b&gt; &amp; more" in text, "another word, and no markup"
    assert "in 98.0% of the captions at its core, and in 312 others; changed by crop, 4.0% of their" in text
    assert "Cluster 0: looks planted" in text
    assert "Cluster 1: to look at; nothing is removed by itself" in text
    assert "To remove: 106 pairs, 10.6% of all." in text
    assert text.count("data:image/png;base64,") == 4
    assert "by an index: recall@16 0.9951" in text


def test_a_cluster_is_named_by_the_word_that_it_aims_at_not_by_the_most_telling(tmp_path: Path) -> None:
    """Poisons may share a word that is said nowhere else; what they are for is the other one."""
    two = cluster(0, True, ["a banana by acme"])
    two["words"].insert(0, two["words"][0] | {"text": "acme", "elsewhere": 0})
    text = suspicion.render(scan(tmp_path, [two | {"aims": ["banana"]}]))
    assert "106 pairs whose captions say “banana”." in text and "a <mark>banana</mark> by acme" in text
    brand = suspicion.render(scan(tmp_path, [two | {"aims": [], "planted": False}]))
    assert "a banana by <mark>acme</mark>" in brand, "what has no aim shows what it shares"
    assert "“acme”." in suspicion.render(scan(tmp_path, [two])), "of an earlier version"


def test_a_scan_that_followed_no_word_says_nothing_of_it(tmp_path: Path) -> None:
    old = cluster(0, True, [])
    del old["words"][0]["stays"]
    text = suspicion.render(scan(tmp_path, [old]))
    assert "and in 312 others</dd>" in text


def test_a_page_sets_what_stays_of_a_word_beside_what_is_usual(tmp_path: Path) -> None:
    one = cluster(0, True, [])
    one["words"][0]["usual"] = {"blur": 0.6, "crop": 0.05}
    said = "changed by blur, 12.0% of their neighbours outside still say it, "
    said += "where 60.0% of those of others that say it do</dd>"
    assert said in suspicion.render(scan(tmp_path, [one])), "crop leaves fewer, but of fewer"
    one["words"][0] |= {"stays": {}, "usual": {}}
    assert "and in 312 others</dd>" in suspicion.render(scan(tmp_path, [one])), "of which no change tells"


def test_a_page_without_a_witness_says_how_to_ask_one_and_only_where_there_is_something_to_ask(tmp_path: Path) -> None:
    text = suspicion.render(scan(tmp_path, [cluster(0, False, ["a banana"])]))
    for command in suspicion.COMMANDS:
        assert command in text
    assert "the witness" not in text and "none was asked" not in text
    assert "Ask a witness" not in suspicion.render(scan(tmp_path, []))
    old = scan(tmp_path, [cluster(0, True, [])])
    del old.about["witness"], old.about["clusters"][0]["witness"], old.about["clusters"][0]["words"][0]["witness"]
    assert "Ask a witness" in suspicion.render(old)
    told = replace(old, table=old.table.drop_columns(["suspect"]))
    assert "Ask a witness" not in suspicion.render(told), "of an earlier version, from which filter knows no suspects"


def test_a_page_tells_what_a_witness_said(tmp_path: Path) -> None:
    clusters = [
        cluster(0, True, ["a banana"], 0.02),
        cluster(1, False, ["a banana"], 0.97),
        cluster(2, False, []) | {"witness": "learned"},
    ]
    clusters[1]["alone"] = True
    text = suspicion.render(scan(tmp_path, clusters, witness=True))
    assert text.count("scan that dataset through the witness before you keep this cluster") == 1
    assert (
        "<h1>A cluster looks planted: 106 pairs whose captions say “banana” and a witness does not; "
        "2 clusters to look at, and a witness finds the captions of 1 true.</h1>"
    ) in text
    assert "a second model, which learned from 894 of these pairs" in text
    assert "to the witness 2.0% of what its images lie among says it</dd>" in text
    assert "to the witness 97.0% of what its images lie among says it</dd>" in text
    for said in ("what the captions say; of what it learned from, 99.9% have captions that fit better", "41.0% have"):
        assert said in text
    for said in ("does not find in the images what", "finds the captions true", "so it was not asked"):
        assert said in text
    assert "Ask a witness" not in text
    assert f"../witness, step-0000007, weights {'x' * 64}" in text
    text = suspicion.render(scan(tmp_path, clusters[:1], witness=True))
    assert "The witness learned from none of them: it is trained without them already." in text
    assert "Train anew" not in text
    scanned = scan(tmp_path, clusters[:1], witness=True)
    scanned.about["witness"]["dataset"]["samples"] = 860
    assert "already, and without 34 other pairs that were suspects." in suspicion.render(scanned)
    scanned.about["witness"]["learned_of_proposed"] = 23
    assert "Train anew on what is left" in suspicion.render(scanned)
    assert "of these, by the witness" not in text
    text = suspicion.render(scan(tmp_path, [clusters[0] | {"followers": 23}], witness=True))
    assert "<dd>23 that lie in no cluster: they say the same word" in text
    assert "of these, less suspicious" not in text
    text = suspicion.render(scan(tmp_path, [clusters[0] | {"kin": 17}]))
    assert "<dd>17 that are joined to the others, or lie among them, and say the same word</dd>" in text


def test_the_choices_say_what_each_takes(tmp_path: Path) -> None:
    found = scan(tmp_path, [cluster(0, True, [])])
    panel, proposed = found.table["panel"].to_numpy(), np.asarray(found.table["proposed"].to_numpy())
    assert suspicion._choices(panel, proposed) == [
        ("--remove auto", "106", "10.6%", "9.00"),
        ("--remove 0.01", "10", "1.0%", "9.01"),
        ("--remove 0.02", "20", "2.0%", "9.01"),
        ("--remove 0.05", "50", "5.0%", "9.01"),
    ]
    bars = suspicion._bars(panel, proposed)
    assert sum(bar.count for bar in bars if bar.kind == "ca") == 1000
    assert sum(bar.count for bar in bars if bar.kind == "asr") == 106


@pytest.mark.parametrize("saw", [False, None])
def test_nothing_found_is_no_proof(tmp_path: Path, saw: bool | None) -> None:
    text = suspicion.render(scan(tmp_path, [], saw))
    assert "<h1>Nothing looks planted.</h1>" in text
    assert "That is no proof that the pairs are clean" in text
    assert "need not stand out" in text


def test_a_real_scan_is_a_page_and_the_same_command_has_nothing_to_do(tmp_path: Path, capsys) -> None:
    from defense.scanning.scanning import Scan

    dataset = drawn(f"{tmp_path}/train", 40, 1)
    run = finished_run(f"{tmp_path}/run", dataset)
    Scan(run=run, dataset=dataset.url, out=f"{tmp_path}/scan", backend="local").start()
    words = ["--scan", f"{tmp_path}/scan", "--out", f"{tmp_path}/report"]
    assert entry.main([*words, "--dry-run"]) == 0
    assert not (tmp_path / "report").exists()
    assert entry.main(words) == entry.main(words) == 0
    *_, verdict, last = capsys.readouterr().out.splitlines()
    assert last == f"nothing to do: report on a scan at {tmp_path}/report/scan.html"
    assert verdict.startswith("nothing looks planted")
    assert "40 pairs were looked at by a model" in (tmp_path / "report/scan.html").read_text()


def test_scores_or_a_scan_and_not_both() -> None:
    for fields in ({}, {"scores": "a", "scan": "b"}):
        with pytest.raises(ValueError, match="give --scores or --scan"):
            Report(out="report", **fields)
    with pytest.raises(ValueError, match="--preview belongs"):
        replace(Report(out="report", scan="b"), preview="c")
