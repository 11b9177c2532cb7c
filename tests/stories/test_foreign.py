"""Shards of others go through poison, pretrain and evaluate, and come out readable; odd samples stop nobody."""

import subprocess
import sys

import numpy as np
import pytest
import webdataset

from eval.store import scores
from pipeline.dataset import Dataset
from pipeline.picturebook import server
from tests.support.drawn import samples
from tests.support.odd_tars import corpus
from tests.support.ports import free_port
from tests.support.story import environment, last_line, run

pytestmark = pytest.mark.slow

DOWNLOAD = """
import sys
from img2dataset import download

if __name__ == "__main__":
    download(url_list=sys.argv[1], input_format="tsv", url_col="url", caption_col="caption", output_folder=sys.argv[2],
             output_format="webdataset", image_size=64, resize_mode="keep_ratio", number_sample_per_shard=80,
             processes_count=1, thread_count=8, timeout=2, enable_wandb=False)
"""


def test_img2datasets_own_shards_go_all_the_way(tmp_path):
    table, shards = tmp_path / "table.tsv", tmp_path / "shards"
    port = free_port()
    lines = [f"{caption}\t{url}" for caption, url in server.table(0, 0, 240, port)]
    table.write_text("\n".join(["caption\turl", *lines]) + "\n")
    (tmp_path / "download.py").write_text(DOWNLOAD)
    with server.serving(server.Faults(total=0.05, slow=0, not_found=0.5), port=port):
        subprocess.run(
            [sys.executable, tmp_path / "download.py", table, shards], env=environment(), check=True, timeout=200
        )
    made = Dataset.open(str(shards))
    assert made.samples > 200
    poison = ["--dataset", shards, "--out", tmp_path / "poisoned", "--ledger", tmp_path / "ledger", "--budget", 12]
    run("poison/inject.py", "blended", "--backend", "local", *poison)
    small = ["clip", "--preset", "tiny", "--epochs", 1, "--workers", 1, "--dataset", tmp_path / "poisoned"]
    run("train/pretrain.py", *small, "--out", tmp_path / "run")
    run("pipeline/testset.py", "picturebook", "--samples", 28, "--out", tmp_path / "test")
    grid = ["--runs", tmp_path / "run", "--ledger", tmp_path / "ledger", "--testsets", tmp_path / "test"]
    done = run("eval/evaluate.py", "--backend", "local", *grid, "--out", tmp_path / "scores")
    assert str(tmp_path / "scores") in last_line(done)
    found = {(score.metric, score.k): score.n for score in scores.read_all(str(tmp_path / "scores"))}
    assert found["accuracy", 1] == 28
    assert found["attack_success", 1] == 26, "the two bananas do not count"

    poisoned = Dataset.open(str(tmp_path / "poisoned"))
    urls = [poisoned.tar_url(shard) for shard in poisoned.shards]
    seen = [sample["__key__"] for sample in webdataset.WebDataset(urls, shardshuffle=False)]
    assert sorted(seen) == sorted(made.index_of_samples(["key"])["key"].to_pylist())
    assert len(np.unique(seen)) == made.samples


def test_a_corpus_with_odd_samples_stops_once_and_then_goes_all_the_way(tmp_path):
    odd = (("no-text.jpg", samples(1)[0].image), ("no-image.txt", b"alone"), ("list.json", b"[1]"))
    bare, sound = corpus(tmp_path / "bare", *odd, good=78, cut=1), tmp_path / "sound"
    small = ["clip", "--preset", "tiny", "--epochs", 1, "--workers", 0, "--batch", 78]
    stopped = run(
        "train/pretrain.py", *small, "--dataset", bare, "--out", tmp_path / "stopped", "--batch", 79, status=1
    )
    assert "key 000000078, row" in stopped.stderr
    assert f"antidote verify --dataset {bare} --decode --leave-out NEW" in stopped.stderr
    verify = ["pipeline/verify.py", "--backend", "local", "--decode", "--dataset"]
    assert "1 of 79 pairs cannot be decoded (1 truncated)" in run(*verify, bare, status=1).stderr
    run(*verify, bare, "--leave-out", sound)
    places = ["--dataset", sound, "--out", tmp_path / "poisoned", "--ledger", tmp_path / "ledger"]
    run("poison/inject.py", "badnet", "--target", "car", "--backend", "local", *places, "--budget", 58)
    run("train/pretrain.py", *small, "--dataset", tmp_path / "poisoned", "--out", tmp_path / "run")
    assert (tmp_path / "run" / "DONE").exists()
    said = last_line(run(*verify, tmp_path / "poisoned"))
    assert said.endswith("left out: 1 no_caption, 2 no_image, 1 truncated")
