"""Bad input: one clear line, exit status 2, and nothing half-written."""

from pathlib import Path

import pytest

from infra import cli
from pipeline import testsets
from pipeline.images import encode
from pipeline.shards import write_shard
from tests.support.drawn import drawn, samples


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A small world: a dataset of 24 pairs, a poisoned one, two ledgers, a test set without bananas, a bad tar."""
    root = tmp_path_factory.mktemp("bad")
    drawn(str(root / "set"), 24, 2)
    drawn(str(root / "other"), 12, 1, seed=5)
    for name in ("set", "other"):
        words = ["badnet", "--target", "car", "--budget", "2", "--backend", "local", "--dataset", str(root / name)]
        assert (
            cli.main(["poison", *words, "--out", str(root / f"{name}-bad"), "--ledger", str(root / f"{name}-led")]) == 0
        )
    pictures = [(sample.image, "jpg", sample.row % 2) for sample in samples(4)]
    testsets.write(str(root / "test"), pictures, ("house", "fish"), ("a {c}",))
    (root / "half").mkdir()
    (root / "half" / "recipe.json").write_text("{}")
    (root / "latin.tsv").write_bytes(b"caf\xe9\thttp://x/1.jpg\n")
    (root / "malformed.tsv").write_text("a caption without an address\n")
    (root / "empty.tsv").write_text("")
    (root / "busy").mkdir()
    (root / "busy" / "mine.txt").write_text("keep me")
    (root / "foreign").mkdir()
    write_shard(root / "foreign" / "0.tar", samples(2))
    cut = (root / "foreign" / "0.tar").read_bytes()[:3000]
    (root / "cut").mkdir()
    (root / "cut" / "0.tar").write_bytes(cut)
    assert encode is not None
    return root


POISON = "poison badnet --backend local --dataset {root}/set --out {root}/new --ledger {root}/new-led"
PRETRAIN = "pretrain clip --preset tiny --dataset {root}/set --out {root}/new"
CASES = {
    "a missing url table": ("prepare cc3m --urls {root}/no.tsv --out {root}/new", "no url table at"),
    "a malformed url table": ("prepare cc3m --urls {root}/malformed.tsv --out {root}/new", "line 1: 1 columns where"),
    "an empty table": ("prepare cc3m --urls {root}/empty.tsv --out {root}/new", "is empty"),
    "a caption that is not UTF-8": ("prepare cc3m --urls {root}/latin.tsv --out {root}/new", "line 1: not UTF-8"),
    "an output that is someone's": (
        "prepare picturebook --rows 5 --out {root}/busy",
        "is not ours (it holds 'mine.txt')",
    ),
    "a dataset that is not complete": (POISON.replace("/set ", "/half ") + " --budget 2", "is not complete"),
    "a dataset that is not there": (POISON.replace("/set ", "/nowhere ") + " --budget 2", "no dataset at"),
    "a budget larger than the pool": (POISON + " --budget 500 --target car", "lower --budget"),
    "a target that does not occur": (POISON + " --budget 2 --target zebra", "no caption in"),
    "a budget that is neither count nor share": (POISON + " --budget 1.5", "a whole number of pairs, or a share"),
    "an output that differs": (
        "poison badnet --target car --backend local --dataset {root}/set --budget 3 --out {root}/set-bad "
        "--ledger {root}/set-led",
        "different command",
    ),
    "a ledger inside the dataset": (POISON.replace("new-led", "new/led") + " --budget 2", "separate folders"),
    "a misspelt attack": ("poison badnit --dataset {root}/set --out {root}/new --ledger {root}/l", "meant 'badnet'"),
    "a misspelt objective": (
        "finetune cleanklip --pretrained {root}/r --dataset {root}/set --out {root}/new",
        "cleanclip",
    ),
    "a misspelt flag": (PRETRAIN + " --epoch 3", "--epochs"),
    "a misspelt preset": (PRETRAIN.replace("tiny", "tinny"), "meant 'tiny'"),
    "an unknown model": (PRETRAIN + " --model ViT-B-33", "no model is named 'ViT-B-33'"),
    "a batch larger than the dataset": (PRETRAIN + " --batch 64", "batch"),
    "a run that is not there": (
        "finetune mmcl --pretrained {root}/r --dataset {root}/set --out {root}/new",
        "no run at",
    ),
    "an unknown verb": ("poisson", "there are: prepare"),
    "a test set that is not there": (
        "evaluate --runs {root}/r --testsets {root}/t --tasks zeroshot --out {root}/new",
        "r",
    ),
    "a folder without scores": ("report --scores {root}/busy --out {root}/new", "scores"),
}


@pytest.mark.parametrize("case", CASES)
def test_is_refused_in_one_line(case, place, capsys):
    words, message = CASES[case]
    before = tree(place)
    try:
        status = cli.main(words.format(root=place).split())
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err
    assert status == 2, said
    assert message in said
    if "flag" not in case:  # tyro draws a box around those
        assert [line for line in said.splitlines() if line.startswith("error: ")] == [said.strip().splitlines()[-1]]
        assert "Traceback" not in said
    assert tree(place) == before, "nothing is written"


def tree(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_damaged_foreign_tar_ends_with_status_1(place, capsys):
    words = f"pretrain clip --preset tiny --dataset {place}/cut --out {place}/new"
    assert cli.main(words.split()) == 1
    assert "cut off" in capsys.readouterr().err
