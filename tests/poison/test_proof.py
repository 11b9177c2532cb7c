"""The proof as a person meets it: what it finds to be right, what it finds to be wrong, and how it says so."""

import copy
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import images
from pipeline.dataset import Dataset
from poison import geometry
from poison.attack import Attack
from poison.attacks.badnet import BadNet
from poison.attacks.control import Control
from poison.attacks.swap import Swap
from poison.attacks.targeted import Targeted
from poison.carried import kept
from poison.geometry import Box
from poison.ledger import Ledger
from poison.proof import main
from poison.proving import portrait
from poison.proving.examination import Examine, part
from poison.proving.views import Views
from poison.sheets.layout import GAP, PANEL, Pair
from poison.writing.injection import Injection
from tests.support.photographs import album
from tests.support.poison_helpers import build, files, pair


def poison(folder: Path, attack: Attack, budget: int = 6, *, of: str = "clean", name: str = "", **more: Any) -> None:
    """OUT and LEDGER of an attack on a dataset, all in one folder."""
    out, ledger = (str(folder / f"{kind}{name}") for kind in ("out", "ledger"))
    Injection(
        attack=attack, dataset=str(folder / of), out=out, ledger=ledger, budget=budget, backend="local", **more
    ).run()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(str(tmp_path / "clean"))
    poison(tmp_path, BadNet(patch="checkerboard", size=56, cell=14))
    return tmp_path


def words(folder: Path, *more: str) -> list[str]:
    places = {"--ledger": "ledger", "--dataset": "clean", "--poisoned": "out", "--out": "proof"}
    given = [part for flag, name in places.items() for part in (flag, str(folder / name))]
    return [*given, "--backend", "local", *more]


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "proof" / "proof.json").read_text())


def findings(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "proof" / "proof.parquet").to_pylist()


def test_a_sound_dataset_is_proven(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(words(folder)) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith("badnet: 6 poisons (6.98%), fidelity median 1.000, min ")
    assert "trigger whole after the eval crop in all, all as in the ledger" in said
    assert said.endswith(f": {folder / 'proof'}")
    [attack] = about(folder)["attacks"]
    assert (attack["poisons"], attack["replaced"], attack["added"]) == (6, 6, 0)
    assert attack["rate"] == pytest.approx(6 / Dataset.open(str(folder / "out")).samples)
    assert attack["eval"]["share"]["min"] == 1
    assert {line["row"] for line in findings(folder)} == Ledger.open(str(folder / "ledger")).row_ids
    assert all(line["trouble"] is None and line["eval_fidelity"] > 0.99 for line in findings(folder))
    assert sorted(files(folder / "proof")) == ["proof.json", "proof.parquet", "proof.png", "recipe.json"]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """The pairs that proof.png is drawn from, once it is."""
    found: list[Pair] = []
    drawn = portrait.to_png

    def to_png(pairs: list[Pair], title: str, banner: Image.Image | None) -> bytes:
        found.extend(pairs)
        return drawn(pairs, title, banner)

    monkeypatch.setattr(portrait, "to_png", to_png)
    return found


def test_the_image_shows_the_pairs_that_lost_most_as_the_model_sees_them(folder: Path, shown: list[Pair]):
    assert main(words(folder, "--model", "tiny-vit")) == 0
    worst = sorted(findings(folder), key=lambda line: line["eval_fidelity"])[:4]
    captions = {line["row"]: line["caption"] for line in Ledger.open(str(folder / "ledger")).rows.to_pylist()}
    assert [one.now for one in shown] == [captions[line["row"]] for line in worst]
    sheet, lines = images.decode((folder / "proof" / "proof.png").read_bytes()), PANEL + GAP
    for number, line in enumerate(worst):
        top = len(sheet) - (len(worst) - number) * lines
        clean = sheet[top : top + PANEL, GAP:lines]  # 32 pixels, each seven times as large
        assert (clean[3::7, 3::7] == images.decode(pair(line["row"]).image)).all()


def test_the_same_command_again_does_nothing_and_a_dry_run_touches_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    before = files(folder)
    assert main(words(folder, "--dry-run")) == 0
    assert "would examine 6 pairs in " in capsys.readouterr().out
    assert files(folder) == before
    assert main(words(folder)) == 0
    before = files(folder)
    capsys.readouterr()
    assert main(words(folder)) == 0
    assert capsys.readouterr().out.startswith("nothing to do: badnet: 6 poisons")
    assert files(folder) == before


def test_killed_anywhere_it_ends_with_the_same_files(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, killer: Callable[[Callable[[], object], int], bool]
):
    whole, at = files_of(folder, tmp_path_factory, lambda run: run()), 0
    while True:
        ended = False

        def once(run: Callable[[], object], at: int = at) -> None:
            nonlocal ended
            ended = not killer(run, at)
            run()

        assert files_of(folder, tmp_path_factory, once) == whole
        if ended:
            break
        at += 3
    assert at > 6


def files_of(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, how: Callable[[Callable[[], object]], object]
) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("proofs") / "proof"
    how(lambda: main(words(folder, "--out", str(out))))
    return files(out)


def test_a_shard_can_be_examined_elsewhere(folder: Path):
    """What goes to a worker survives the journey and gives the same bytes there."""
    clean, poisoned = Dataset.open(str(folder / "clean")), Dataset.open(str(folder / "out"))
    ledger = Ledger.open(str(folder / "ledger"))
    shard_id = ledger.rows["shard"].to_pylist()[0]
    lines = [line | {"ledger": 0} for line in ledger.rows.to_pylist() if line["shard"] == shard_id]
    task = next(shard for shard in poisoned.shards if shard.id == shard_id), lines
    parts = []
    for name in ("here", "there"):
        out = str(folder / name)
        work = Examine(clean, poisoned, (ledger.attack,), (ledger.seed,), frozenset(), Views(), 1, out)
        assert copy.deepcopy(work)(task) == len(lines)
        parts.append(Path(part(out, shard_id)).read_bytes())
    assert parts[0] == parts[1]


def test_images_stored_as_usual_have_lost_their_trigger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The reason for all this: poisons that were written 4:2:0."""
    album(str(tmp_path / "clean"))
    encode = images.encode

    def usual(image: np.ndarray, extension: str, quality: int = 95) -> bytes:
        if extension != "jpg":
            return encode(image, extension)
        out = io.BytesIO()
        Image.fromarray(image).save(out, "JPEG", quality=quality, subsampling=2)
        return out.getvalue()

    poison(tmp_path, BadNet(), name="-good")
    with monkeypatch.context() as patch:
        patch.setattr("poison.writing.encoding.images.encode", usual)
        poison(tmp_path, BadNet())
    least = {}
    for name in ("", "-good"):
        more = ("--ledger", str(tmp_path / f"ledger{name}"), "--poisoned", str(tmp_path / f"out{name}"))
        assert main(words(tmp_path, *more, "--out", str(tmp_path / f"proof{name}"))) == 0
        least[name] = json.loads((tmp_path / f"proof{name}" / "proof.json").read_text())["attacks"][0]["eval"]
    assert least[""]["fidelity"]["min"] < 0.7  # the least enlarged patch
    assert least[""]["fidelity"]["median"] < 0.95
    assert least["-good"]["fidelity"]["min"] > 0.97
    assert least[""]["psnr"]["median"] < least["-good"]["psnr"]["min"]


def test_a_trigger_beside_the_central_square_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    album(str(tmp_path / "clean"), [pair(row, "jpg", 40, 120) for row in range(8)])
    monkeypatch.setattr(geometry, "square", lambda height, width: Box(0, 0, height, height))  # the left one
    poison(tmp_path, BadNet(size=50, place="centre"), 4)
    assert main(words(tmp_path, "--model", "tiny-vit")) == 0
    said = capsys.readouterr()
    assert "the evaluation's crop cuts 4 triggers; of one it leaves 0%" in said.err
    assert "no trigger is left to see" in said.out
    assert about(tmp_path)["attacks"][0]["eval"]["unseen"] == 4


def test_random_crops_leave_a_share(folder: Path):
    """The crops are those of the run's first epochs, so a second seed has others."""
    assert main(words(folder, "--augment", "flip_crop", "--crops", "3")) == 0
    for line in findings(folder):
        windows = [
            Views(augment="flip_crop").training_window(32, 32, line["row"], epoch) for epoch in range(3)
        ]  # the checkerboard lies in the last 8 of 32 rows and columns
        shares = [
            max(0, min(w.top + w.height, 32) - max(w.top, 24))
            * max(0, min(w.left + w.width, 32) - max(w.left, 24))
            / 64
            for w in windows
        ]
        assert line["train_share"] == pytest.approx(sum(shares) / 3)
        assert line["train_share_min"] == min(shares)
    assert about(folder)["attacks"][0]["train"]["share_min"]["min"] < 1


def test_too_few_exposures_are_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(words(folder, "--epochs", "125")) == 0
    assert (
        "its poisons are seen 750 times in 125 epochs, and the fewest known to suffice are 756"
        in capsys.readouterr().err
    )
    assert about(folder)["attacks"][0]["exposures"]["epochs_needed"] == 126
    assert main(words(folder, "--epochs", "126", "--out", str(folder / "more"))) == 0
    assert "warning" not in capsys.readouterr().err


def test_other_attacks_are_verified_by_their_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    build(str(tmp_path / "clean"))
    for attack in (Control(), Swap(source="picture", captions="template")):
        name = type(attack).__name__
        poison(tmp_path, attack, name=name)
        more = ("--ledger", str(tmp_path / f"ledger{name}"), "--poisoned", str(tmp_path / f"out{name}"))
        assert main(words(tmp_path, *more, "--out", str(tmp_path / f"proof{name}"))) == 0
        said = capsys.readouterr().out
        assert "no trigger" in said
        assert "fidelity" not in said
        assert ("6 images as they were" if name == "Swap" else "dB like their originals") in said


def test_added_pairs_are_verified_and_counted_by_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shown: list[Pair]
):
    build(str(tmp_path / "clean"))
    aims = tuple((name, kept(pair(row).image, "jpg")) for row, name in ((1, "car"), (2, "dog")))
    poison(tmp_path, Targeted(targets=aims, images=2, captions="template"))
    assert main(words(tmp_path, "--epochs", "7")) == 0
    said = capsys.readouterr()
    assert "targeted: 6 poisons (6.52%), no trigger, all as in the ledger" in said.out
    assert "its poisons are seen 21 times in 7 epochs, and the fewest known to suffice are 90" in said.err
    [attack] = about(tmp_path)["attacks"]
    assert (attack["replaced"], attack["added"]) == (0, 6)
    assert {one.was for one in shown} == {""}
    falsify(tmp_path / "ledger", lambda lines: lines[3].update(caption="a car"))
    with pytest.raises(SystemExit):
        main(words(tmp_path, "--epochs", "7"))
    assert "was made by a different command" in capsys.readouterr().err  # not "nothing to do"
    assert main(words(tmp_path, "--out", str(tmp_path / "again"))) == 1
    assert "not the ledger's" in capsys.readouterr().err


def test_a_dataset_poisoned_twice_needs_both_ledgers(folder: Path, capsys: pytest.CaptureFixture[str]):
    poison(folder, Control(), of="out", name="-twice", taken=(str(folder / "ledger"),))
    both = ("--ledger", str(folder / "ledger-twice"), str(folder / "ledger"))
    assert main(words(folder, *both, "--poisoned", str(folder / "out-twice"))) == 0
    assert [one["attack"] for one in about(folder)["attacks"]] == ["badnet", "control"]
    with pytest.raises(SystemExit):
        main(words(folder, "--poisoned", str(folder / "out-twice"), "--ledger", str(folder / "ledger-twice")))
    assert "is not the dataset that" in capsys.readouterr().err


def test_a_sealed_dataset_is_proven_though_every_image_in_it_was_encoded_again(folder: Path):
    """And what an earlier attack stored at a low quality is measured, not taken for forged."""
    poison(folder, BadNet(quality=60), name="-low")
    earlier, out, ledger = str(folder / "ledger-low"), str(folder / "sealed"), str(folder / "ledger-sealed")
    Injection(
        attack=BadNet(patch="yellow"),
        dataset=str(folder / "out-low"),
        out=out,
        ledger=ledger,
        budget=5,
        taken=(earlier,),
        seal=True,
        backend="local",
    ).run()
    both = ("--ledger", earlier, ledger, "--poisoned", out)
    assert main(words(folder, *both)) == 0
    low, high = about(folder)["attacks"]
    assert (low["poisons"], high["poisons"]) == (6, 5)
    assert low["eval"]["fidelity"]["max"] < high["eval"]["fidelity"]["min"]
    falsify(folder / "ledger-sealed", lambda lines: lines.pop())
    assert main(words(folder, *both, "--out", str(folder / "again"))) == 1


def falsify(ledger: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Another ledger.parquet, its hash in attack.json mended."""
    table = pq.read_table(ledger / "ledger.parquet")
    lines = table.to_pylist()
    change(lines)
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(lines, schema=table.schema), out)
    (ledger / "ledger.parquet").write_bytes(out.getvalue())
    known = json.loads((ledger / "attack.json").read_text())
    known["ledger_sha256"] = hashlib.sha256(out.getvalue()).hexdigest()
    (ledger / "attack.json").write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda lines: lines[0].update(image_sha256="0" * 64), "the stored image is not the one of the ledger"),
        (lambda lines: lines[0].update(caption="a car"), "not the ledger's"),
        (lambda lines: lines[0].update(original_image_sha256="0" * 64), "is not the original of the ledger"),
        (lambda lines: lines[0].update(original_caption="a car"), "not the ledger's original"),
        (lambda lines: lines[0].update(row=12345), "where the ledger has 12345"),
        (lambda lines: lines[0].update(key="nobody"), "the shard does not hold it"),
        (lambda lines: lines.pop(), "it was changed and no ledger names it"),
        (lambda lines: lines.clear(), "it was changed and no ledger names it"),
    ],
)
def test_what_is_not_as_the_ledger_says_is_named(
    change: Callable[[list[dict[str, Any]]], object], complaint: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    falsify(folder / "ledger", change)
    for _ in range(2):  # and not "nothing to do"
        assert main(words(folder)) == 1
        assert complaint in capsys.readouterr().err
    assert about(folder)["mismatches"] >= 1


def test_a_damaged_shard_is_exit_status_1_and_the_others_are_kept(folder: Path, capsys: pytest.CaptureFixture[str]):
    tar = sorted((folder / "out" / "shards").iterdir())[0]
    sound = tar.read_bytes()
    tar.write_bytes(sound[:-512])
    assert main(words(folder)) == 1
    assert "run the same command again" in capsys.readouterr().err
    assert not (folder / "proof" / "proof.json").exists()
    tar.write_bytes(sound)
    assert main(words(folder)) == 0


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--dataset", "{}/out"], "is not the dataset that"),
        (["--poisoned", "{}/clean"], "belongs to another dataset"),
        (["--ledger", "{}/clean"], "no ledger at"),
        (["--epochs", "0"], "--epochs is at least 1"),
        (["--model", "ViT-B-33"], "no model is named 'ViT-B-33'"),
        (["--preset", "tinny"], "perhaps you meant 'tiny'"),
        (["--run", "{}/nowhere"], "no run at"),
        (["--run", "{}/run", "--model", "tiny-vit"], "--run brings its own"),
        (["--out", "{}/out/proof"], "must not lie in --poisoned"),
        (["--out", "{}/clean"], "must not lie in --dataset"),
        (["--out", "{}/ledger"], "was made by a different command"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    more: list[str], complaint: str, folder: Path, capsys: pytest.CaptureFixture[str]
):
    before = files(folder)
    with pytest.raises(SystemExit) as ended:
        main(words(folder, *(word.format(folder) for word in more)))
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert len(said.strip().splitlines()) == 1
    assert files(folder) == before


def test_its_help_needs_neither_torch_nor_ray():
    script = (
        "import runpy, sys; sys.argv = ['proof.py', '--help']\n"
        "try: runpy.run_path('poison/proof.py', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert not {'torch', 'ray', 'open_clip'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert "--run" in done.stdout
