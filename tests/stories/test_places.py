"""A file where a folder is needed, or the reverse, at every entry: one line, status 2, nothing written."""

from pathlib import Path

import pytest

from eval.measuring.evaluation import Evaluation
from infra import cli
from tests.stories.test_bad_input import tree
from tests.support.eval_helpers import weights, world

POISON = "poison badnet --target car --budget 2 --backend local --dataset {root}/train"
BOTH = "--ledger {root}/ledger --dataset {root}/train --poisoned {root}/poisoned"
TRAIN = "--preset tiny --workers 0 --dataset {root}/train"
FOLDERS = {
    "prepare": "prepare picturebook --rows 5 --backend local --out {out}",
    "testset": "testset picturebook --samples 6 --out {out}",
    "poison": POISON + " --out {out} --ledger {root}/new-ledger",
    "poison, its ledger": POISON + " --out {root}/new --ledger {out}",
    "optimize": "optimize --surrogate {root}/runs/clean --dataset {root}/train --target car --size 112 --out {out}",
    "proof": f"proof {BOTH} --backend local --out {{out}}",
    "pretrain": f"pretrain clip {TRAIN} --out {{out}}",
    "adopt": "adopt {root}/weights.safetensors --model tiny-vit --out {out}",
    "finetune": f"finetune mmcl {TRAIN} --pretrained {{root}}/runs/clean --out {{out}}",
    "evaluate": "evaluate --runs {root}/runs/clean --testsets {root}/test --tasks zeroshot --backend local --out {out}",
    "report": "report --scores {root}/scores --out {out}",
    "preview": f"preview {BOTH} --out {{out}}",
}
FILES = {
    "tabulate": "tabulate --scores {root}/scores --out {out}.md",
    "frontier": "frontier --plan {root}/plan.tsv --out {out}.md",
}

PLAN = """attack method lr seed mark scores run
ledger undefended - 0 tried scores runs/poisoned
ledger floor - 0 tried scores runs/clean
""".replace(" ", "\t")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("places")
    small = world(home)
    runs = (small.run("poisoned", small.poisoned), small.run("clean", small.dataset))
    places = {"runs": runs, "testsets": (small.testset,), "ledger": (small.ledger,), "out": small.url("scores")}
    Evaluation(**places, backend="local").run()
    (home / "plan.tsv").write_text(PLAN)
    (home / "file").write_text("mine")
    (home / "weights.safetensors").write_bytes(weights(0))
    for name in ("folder.md",):
        (home / name).mkdir()
    return home


def refused(words: str, root: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The line of the refusal."""
    before = tree(root)
    try:
        status = cli.main(words.format(root=root, out=out).split())
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr().err
    assert status == 2, said
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert errors == [said.strip().splitlines()[-1]]
    assert tree(root) == before, "nothing is written"
    return errors[0]


@pytest.mark.parametrize("below", ["", "/in/it"])
@pytest.mark.parametrize("entry", FOLDERS)
def test_a_file_in_the_place_of_a_folder_is_named(entry, below, root, capsys):
    said = refused(FOLDERS[entry], root, Path(f"{root}/file{below}"), capsys)
    assert said == f"error: {root}/file is a file, where a folder is needed: choose another place, or remove it"


@pytest.mark.parametrize("entry", FILES)
def test_a_file_in_the_place_of_a_files_folder_is_named(entry, root, capsys):
    said = refused(FILES[entry], root, root / "file" / "new", capsys)
    assert said == f"error: {root}/file is a file, where a folder is needed: choose another place, or remove it"


@pytest.mark.parametrize("entry", FILES)
def test_a_folder_in_the_place_of_a_file_is_named(entry, root, capsys):
    said = refused(FILES[entry], root, root / "folder", capsys)
    assert said.startswith(f"error: {root}/folder.")
    assert "is a folder, where a file is needed" in said


@pytest.mark.parametrize("entry", FOLDERS)
def test_a_name_that_no_disk_takes_is_named(entry, root, capsys):
    assert "has a name that is too long for this disk" in refused(FOLDERS[entry], root, root / ("x" * 256), capsys)
