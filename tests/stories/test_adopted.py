"""Somebody else's checkpoint, adopted: measured under an attack that no run here learned, cured, and reported on."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.measuring.evaluation import Evaluation
from eval.store import scores
from infra import cli, rundir
from pipeline import images, testsets
from tests.support.elsewhere import MODEL, cleanclip_layout, trained
from tests.support.eval_helpers import world
from train import checkpoint
from train.model import load_run


def antidote(words: str, status: int = 0) -> None:
    assert cli.main(words.split()) == status


@pytest.mark.parametrize("name", [MODEL, pytest.param("RN50-quickgelu", marks=pytest.mark.slow)])
def test_a_cleanclip_checkpoint_is_adopted_measured_and_cured(name: str, tmp_path: Path, capsys) -> None:
    small, clip = world(tmp_path), trained(name)
    file, theirs, cured = cleanclip_layout(clip, tmp_path / "epoch_64.pt"), tmp_path / "theirs", tmp_path / "cured"
    antidote(f"adopt {file} --model {name} --out {theirs}")

    # every number as it was: embeddings, batch statistics
    saved = checkpoint.whole(str(theirs))[0]
    ours = load_run(str(theirs), saved.name)
    test = testsets.read(small.testset)
    shown = [ours.preprocess(images.open_image(data)) for _, data in testsets.stored(test)]
    texts = ours.tokenizer(["a photo of a car", "a tree"])
    with torch.inference_mode():
        assert torch.equal(ours.model.encode_image(torch.stack(shown)), clip.encode_image(torch.stack(shown)))
        assert torch.equal(ours.model.encode_text(texts), clip.encode_text(texts))
    kept, wanted = ours.model.state_dict(), clip.state_dict()
    statistics = [key for key in wanted if "running" in key or "batches" in key]
    assert statistics and all(torch.equal(kept[key], wanted[key]) for key in statistics)

    # measured under an attack that no other run learned from
    places = f"--ledger {small.ledger} --testsets {small.testset} --out {tmp_path}/scores --backend local"
    antidote(f"evaluate --runs {theirs} {places}")
    found = {row.metric: row for row in scores.read_all(f"{tmp_path}/scores") if row.k == 1}
    assert found["attack_success"].n == 11
    assert {row.dataset for row in found.values()} == {"unknown"}

    # cured in two steps, and measured beside it
    antidote(
        f"finetune cleanclip --preset tiny --pretrained {theirs} --dataset {small.clean_set.url} --out {cured} "
        "--batch 6 --epochs 1 --workers 0"
    )
    assert rundir.done(str(cured))["steps"] == 2
    export = cured / "open_clip" / "open_clip_model.safetensors"
    assert rundir.done(str(cured))["sha256"] == hashlib.sha256(export.read_bytes()).hexdigest()
    assert rundir.environment(str(cured))["inputs"]["pretrained"]["inputs"]["dataset"] is None
    capsys.readouterr()
    antidote(f"evaluate --runs {theirs} {cured} {places}")
    table = capsys.readouterr().out
    assert "weights from elsewhere; what it learned from is not known" in table
    assert "finetuned from theirs with cleanclip; what that learned from is not known" in table
    antidote(f"report --scores {tmp_path}/scores --out {tmp_path}/report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "epoch_64.pt (sha256 " in page
    assert "Without this poison" not in page and "Never poisoned" not in page


@pytest.fixture(scope="module")
def adopted(tmp_path_factory):
    home = tmp_path_factory.mktemp("adopted")
    small = world(home)
    file = cleanclip_layout(trained("tiny-vit"), home / "epoch_64.pt")
    antidote(f"adopt {file} --model tiny-vit --out {home}/theirs")
    return small, file, home / "theirs"


def test_finetuning_data_that_hold_the_poisons_are_found_out_all_the_same(adopted, tmp_path):
    small, _, theirs = adopted
    late = small.run("finetuned on all", small.dataset, start=str(theirs), objective="cleanclip")
    places = {"testsets": (small.testset,), "ledger": (small.ledger,), "out": str(tmp_path / "scores")}
    with pytest.raises(ValueError, match="which shares 4 pairs with the ledger"):
        Evaluation(runs=(late,), **places, backend="local").run()


@pytest.mark.parametrize(
    "words",
    [
        "finetune mmcl --preset tiny --dataset {clean} --out {out} --pretrained {file}",
        "evaluate --testsets {test} --tasks zeroshot --out {out} --runs {file}",
        "optimize --dataset {clean} --target car --size 112 --out {out} --surrogate {file}",
    ],
)
def test_a_file_where_a_run_is_needed_names_the_way_to_make_one(adopted, tmp_path, capsys, words):
    small, file, _ = adopted
    given = words.format(clean=small.clean_set.url, test=small.testset, file=file, out=tmp_path / "out").split()
    try:
        status = cli.main(given)
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert f"antidote adopt {file} --model NAME --out RUN" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adopted_run_is_a_surrogate_and_a_view(adopted, tmp_path):
    from poison.learning import surrogates
    from poison.proving import views

    _, _, theirs = adopted
    found = surrogates.load(str(theirs), None)
    assert torch.equal(found.encoder.clip.state_dict()["logit_scale"], trained("tiny-vit").state_dict()["logit_scale"])
    assert views.of(None, str(theirs), None, None, None) == views.Views(32)


@pytest.mark.parametrize("file", ["model.safetensors", "complete.json"])
def test_a_byte_flipped_in_the_weights_is_damage(adopted, tmp_path, capsys, file):
    small, source, _ = adopted
    run = tmp_path / "theirs"
    antidote(f"adopt {source} --model tiny-vit --out {run}")
    place = run / "checkpoints" / "step-0000000" / file
    if file == "complete.json":  # the weights of another model, and a list of files that fits them
        about = json.loads(place.read_bytes())
        place.write_text(json.dumps(about | {"model.safetensors": about["training.pt"]}))
    else:
        data = np.frombuffer(place.read_bytes(), np.uint8).copy()
        data[-100] ^= 1
        place.write_bytes(data.tobytes())
    out = f"--testsets {small.testset} --tasks zeroshot --out {tmp_path}/scores --backend local"
    antidote(f"evaluate --runs {run} {out}", status=1)
    assert "differs)" in capsys.readouterr().err
