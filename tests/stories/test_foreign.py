"""Shards that img2dataset wrote by itself go through poison, pretrain and evaluate, and come out readable."""

import subprocess
import sys

import numpy as np
import pytest
import webdataset

from eval.store import scores
from pipeline.dataset import Dataset
from pipeline.picturebook import server
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
