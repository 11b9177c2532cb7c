"""One folder by any of its names: every command takes it for the same, whichever it was made by."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eval import evaluate, report
from infra import storage
from pipeline import prepare, verify
from pipeline.dataset import Dataset
from poison import inject, optimize, proof
from tests.support.drawn import drawn, samples
from tests.support.eval_helpers import World, world
from tests.support.poison_helpers import files
from train import pretrain

# How a folder `home/NAME` may be named by one who works in `home`, which is his home folder and has links to it.
SPELLINGS: dict[str, Callable[[Path, str], str]] = {
    "plain": lambda home, name: f"{home}/{name}",
    "slash at the end": lambda home, name: f"{home}/{name}/",
    "two slashes": lambda home, name: f"{home}//{name}//",
    "dots": lambda home, name: f"{home}/./{name}/../{name.rsplit('/')[-1]}",
    "relative": lambda home, name: name,
    "relative with dots": lambda home, name: f"./{name}/",
    "home": lambda home, name: f"~/{name}",
    "file url": lambda home, name: f"file://{home}/{name}",
    "link to what holds it": lambda home, name: f"{home.parents[2]}/link/{name}",
    "link to itself": lambda home, name: f"{home.parents[2]}/links/{name}",
}
OTHERS = [name for name in SPELLINGS if name != "plain"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Photographs, datasets, runs and their scores in TOP/deep/er/home; TOP/link leads there."""
    top = tmp_path_factory.mktemp("spellings")
    home = top / "deep" / "er" / "home"
    home.mkdir(parents=True)
    (top / "link").symlink_to(home)
    (top / "links").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTIDOTE_CACHE", str(top / "cache"))
        for pair in samples(6):
            (home / "photos" / f"{pair.row}.jpg").parent.mkdir(exist_ok=True)
            (home / "photos" / f"{pair.row}.jpg").write_bytes(pair.image)
            (home / "photos" / f"{pair.row}.txt").write_text(pair.caption)
        there = world(home)
        drawn(f"{home}/big", 48, 4)
        there.run("poisoned", there.poisoned)
        there.run("clean", there.dataset, seed=1)
        yield there


@pytest.fixture(autouse=True)
def at_home(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("HOME", made.folder)


@pytest.fixture(params=OTHERS)
def spelled(request: pytest.FixtureRequest, made: World) -> Callable[[str], str]:
    """The folder of a name as the test's spelling has it."""
    home = Path(made.folder)

    def one(name: str) -> str:
        if request.param == "link to itself":
            link, target = home.parents[2] / "links" / name, home / name
            link.parent.mkdir(parents=True, exist_ok=True)
            target.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(target)
        elif request.param == "dots":
            (home / name).mkdir(parents=True, exist_ok=True)  # else there is nothing for .. to lead out of
        return SPELLINGS[request.param](home, name)

    return one


@pytest.fixture
def word(request: pytest.FixtureRequest) -> str:
    """What the test may call its own folders: of one test and one spelling."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


def said(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """Run a command, which must end with `status`. Returns its last line, or its complaint."""
    capsys.readouterr()
    try:
        ended = main(list(words))
    except SystemExit as stop:
        ended = int(stop.code or 0)
    heard = capsys.readouterr()
    assert ended == status, heard
    return (heard.err if status else heard.out).strip().splitlines()[-1]


HERE = ("--backend", "local")
SMALL = ("--preset", "tiny", "--batch", "8", "--warmup-steps", "1")


def test_prepare_finds_its_own_folder_and_its_own_source(made, spelled, word, capsys):
    plain = ("folder", "--path", made.url("photos"), *HERE, "--out", made.url(word))
    assert "6 pairs of 6 rows" in said(prepare.main, capsys, *plain)
    again = ("folder", f"--path={spelled('photos')}", *HERE, f"--out={spelled(word)}")
    assert said(prepare.main, capsys, *again).startswith("nothing to do")
    assert said(prepare.main, capsys, *plain).startswith("nothing to do")


def test_prepare_begun_by_another_spelling_is_the_same_command(made, spelled, word, capsys):
    said(prepare.main, capsys, "folder", f"--path={spelled('photos')}", *HERE, f"--out={spelled(word)}")
    plain = ("folder", "--path", made.url("photos"), *HERE, "--out", made.url(word))
    assert said(prepare.main, capsys, *plain).startswith("nothing to do")
    changed = said(prepare.main, capsys, *plain, "--image-size", "16", status=2)
    assert "made by a different command" in changed


def poisoning(where: Callable[[str], str], word: str, source: Callable[[str], str] | None = None) -> list[str]:
    dataset = (source or where)("big")
    folders = (f"--dataset={dataset}", f"--out={where(f'{word}-out')}", f"--ledger={where(f'{word}-ledger')}")
    return ["badnet", "--target", "car", *folders, "--budget", "3", *HERE]


@pytest.mark.parametrize("source", ["spelled so", "spelled plainly"])
def test_a_dataset_poisoned_by_one_name_is_whole_by_every_other(made, spelled, word, source, capsys):
    said(inject.main, capsys, *poisoning(spelled, word, spelled if source == "spelled so" else made.url))
    for name in (made.url(f"{word}-out"), spelled(f"{word}-out")):
        assert said(verify.main, capsys, f"--dataset={name}", *HERE).startswith("verified: 48 pairs in 4 shards")
        dry = said(pretrain.main, capsys, "clip", f"--dataset={name}", f"--out={spelled('r')}", "--dry-run", *SMALL)
        assert dry.startswith("dry run: would take")
    assert said(inject.main, capsys, *poisoning(made.url, word)).startswith("nothing to do")


def test_a_dataset_poisoned_plainly_is_whole_by_every_other_name(made, spelled, word, capsys):
    said(inject.main, capsys, *poisoning(made.url, word, spelled))
    assert said(verify.main, capsys, f"--dataset={spelled(f'{word}-out')}", *HERE).startswith("verified: 48 pairs")
    assert said(verify.main, capsys, f"--dataset={made.url(f'{word}-out')}", *HERE).startswith("verified: 48 pairs")
    assert said(inject.main, capsys, *poisoning(spelled, word)).startswith("nothing to do")
    stacked = ["badnet", "--target", "car", "--budget", "2", f"--dataset={spelled(f'{word}-out')}", *HERE]
    more = (
        f"--out={spelled(f'{word}-2')}",
        f"--ledger={spelled(f'{word}-l2')}",
        f"--taken={spelled(f'{word}-ledger')}",
    )
    said(inject.main, capsys, *stacked, *more)
    assert said(verify.main, capsys, "--dataset", made.url(f"{word}-2"), *HERE).startswith("verified: 48 pairs")
    assert len(Dataset.open(made.url(f"{word}-2")).bases) == len(Dataset.open(spelled(f"{word}-2")).bases) <= 3


def test_the_digest_does_not_know_how_the_folders_were_spelled(made, spelled, word, capsys):
    said(inject.main, capsys, *poisoning(spelled, word))
    said(inject.main, capsys, *poisoning(made.url, f"{word}-plain"))
    assert Dataset.open(spelled(f"{word}-out")).digest == Dataset.open(made.url(f"{word}-plain-out")).digest
    recipes = [Path(made.url(name), "recipe.json").read_bytes() for name in (f"{word}-out", f"{word}-plain-out")]
    assert recipes[0] == recipes[1]


def test_one_folder_is_not_two_for_poison(made, spelled, word, capsys):
    plain = ["badnet", "--budget", "3", *HERE, f"--dataset={made.url('big')}", f"--ledger={made.url(word)}"]
    for out in (spelled("big"), storage.join(spelled("big"), "inside"), storage.join(spelled(word), "inside")):
        assert "must be separate folders" in said(inject.main, capsys, *plain, f"--out={out}", status=2)
    words = (f"--surrogate={made.url('runs/clean')}", f"--dataset={made.url('big')}", f"--out={spelled('big')}")
    assert "must be separate folders" in said(optimize.main, capsys, *words, status=2)
    folders = (f"--dataset={made.url('train')}", f"--poisoned={made.url('poisoned')}")
    inside = f"--out={storage.join(spelled('poisoned'), 'x')}"
    ends = said(proof.main, capsys, f"--ledger={made.ledger}", *folders, inside, status=2)
    assert "must not lie in --poisoned" in ends


def test_one_folder_is_not_two_for_training(made, spelled, capsys):
    words = ("clip", f"--dataset={made.url('big')}", f"--out={spelled('big')}", "--dry-run")
    assert "out and dataset are the same folder" in said(pretrain.main, capsys, *words, status=2)


def grid(where: Callable[[str], str], out: str) -> list[str]:
    runs = [where(f"runs/{name}") for name in ("poisoned", "clean")]
    ledger, testset = where("ledger"), where("test")
    return ["--runs", *runs, "--ledger", ledger, "--testsets", testset, "--out", out, *HERE]


def test_what_was_measured_by_one_name_is_not_measured_again(made, spelled, word, capsys):
    def at_home(name: str) -> str:  # a shell puts the home folder in after a space
        return os.path.expanduser(spelled(name))

    assert said(evaluate.main, capsys, *grid(at_home, made.url(word))).startswith("4 cells of scores")
    there = files(made.url(word))
    assert said(evaluate.main, capsys, *grid(made.url, made.url(word))).startswith("nothing to do: 4 cells")
    assert files(made.url(word)) == there
    for scores, out in ((made.url(word), made.url(f"{word}-r")), (spelled(word), spelled(f"{word}-s"))):
        assert said(report.main, capsys, f"--scores={scores}", f"--out={out}").startswith("report on 2 runs")
    assert files(made.url(f"{word}-r")) == files(made.url(f"{word}-s"))


def test_a_folder_given_twice_is_noticed(made, spelled, word, capsys):
    for flag, name in (("--runs", "runs/poisoned"), ("--testsets", "test"), ("--ledger", "ledger")):
        words = grid(made.url, made.url(word))
        words.insert(words.index(flag) + 1, os.path.expanduser(spelled(name)))
        assert f"{flag} names {made.url(name)} twice" in said(evaluate.main, capsys, *words, status=2)
