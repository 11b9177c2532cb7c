"""The entry as a person meets it: flags, last line, exit status, and one clear line for what cannot be."""

import subprocess
import sys
from pathlib import Path

import pytest

from poison.inject import main
from tests.support.poison_helpers import build, files, labelled


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    build(str(tmp_path / "clean"))
    return command(tmp_path, "--budget", "5")


def command(folder: Path, *more: str, attack: str = "badnet") -> list[str]:
    places = [
        part
        for name in ("clean", "out", "ledger")
        for part in (f"--{name}".replace("clean", "dataset"), str(folder / name))
    ]
    return [attack, *places, "--backend", "local", *more]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run it; it must say one line, and end with status 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(words)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    complaints = [line for line in said.err.splitlines() if not line.startswith("warning:")]
    assert len(complaints) == 1
    return complaints[0]


def test_the_last_line_says_where_the_result_is(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"{tmp_path / 'out'} (ledger: {tmp_path / 'ledger'})")
    assert main(words) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_the_plugins_own_knobs_are_flags(words: list[str], tmp_path: Path):
    assert main([*words, "--patch", "checkerboard", "--size", "42", "--cell", "7", "--place", "random"]) == 0
    about = (tmp_path / "ledger" / "attack.json").read_text()
    assert '"patch": "checkerboard"' in about
    assert '"size": 42' in about


def test_a_loss_is_exit_status_1(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for path in (tmp_path / "clean" / "shards").iterdir():
        path.write_bytes(path.read_bytes()[:-512])
    assert main(words) == 1
    assert "run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--budget", "2000"], "a budget of 2,000 pairs is more than can be poisoned: of 86 pairs"),
        (["--budget", "0"], "a budget is a whole number of pairs, or a share"),
        (["--budget", "0.0001"], "is not even one"),
        (["--target", "zebra"], "names the target 'zebra'"),
        (["--share-of-shards", "1.5"], "--share-of-shards is above 0 and at most 1, not 1.5"),
        (["--size", "300"], "size is the patch's side"),
        (["--dataset", "nowhere"], "no dataset at"),
        (["--taken", "nowhere"], "no ledger at"),
        (["--out", "ftp://host/x"], "cannot store at ftp://"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: list[str], more: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    before = files(tmp_path)
    assert complaint in refused([*words, *more], capsys)
    assert files(tmp_path) == before


def test_a_misspelt_attack_lists_the_right_ones(words: list[str], capsys: pytest.CaptureFixture[str]):
    said = refused(["badnett", *words[1:]], capsys)
    assert "perhaps you meant 'badnet'" in said
    assert "blended" in said


def test_an_incomplete_dataset_is_refused(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "clean" / "dataset.json").unlink()
    assert "is not complete" in refused(words, capsys)


def test_an_output_that_differs_is_refused_and_kept(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main(words)
    before = files(tmp_path)
    assert "is the ledger of a different command" in refused([*words, "--seed", "1"], capsys)
    elsewhere = ["--ledger", str(tmp_path / "ledger2")]
    assert "was made by a different command" in refused([*words, *elsewhere, "--seed", "1"], capsys)
    assert "was made by a different command" in refused([*words, *elsewhere, "--trigger-seed", "1"], capsys)
    assert files(tmp_path) == before


@pytest.mark.parametrize("flag", ["--out", "--ledger"])
def test_a_folder_with_something_else_in_it_is_refused(
    words: list[str], flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "diary.txt").write_text("dear diary")
    before = files(tmp_path)
    assert "diary.txt" in refused([*words, flag, str(tmp_path / "full")], capsys)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("flag", "place"),
    [
        ("--ledger", "out/ledger"),
        ("--ledger", "out"),
        ("--out", "ledger/out"),
        ("--ledger", "clean/ledger"),
        ("--out", "clean"),
    ],
)
def test_dataset_output_and_ledger_never_lie_inside_one_another(
    words: list[str], flag: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "must be separate folders" in refused([*words, flag, str(tmp_path / place)], capsys)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    assert "must be separate folders" in refused([*words, flag, str(tmp_path / "link" / place)], capsys)


def test_folders_that_only_begin_alike_are_separate(tmp_path: Path):
    build(str(tmp_path / "clean"))
    assert main(command(tmp_path, "--budget", "5", "--out", str(tmp_path / "clean-badnet"))) == 0


def test_a_ledger_of_another_dataset_is_refused_as_taken(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main(words)
    (tmp_path / "b").mkdir()
    build(str(tmp_path / "b" / "clean"), rows=50)
    assert "belongs to another dataset" in refused(
        command(tmp_path / "b", "--budget", "5", "--taken", str(tmp_path / "ledger")), capsys
    )


def test_poisoning_what_is_poisoned_already_says_so(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    main(words)
    (tmp_path / "b").mkdir()
    assert main(command(tmp_path / "b", "--budget", "5", "--dataset", str(tmp_path / "out"))) == 0
    assert "contains poison already" in capsys.readouterr().err


def test_run_as_a_script_it_needs_neither_torch_nor_ray_for_its_help():
    script = (
        "import runpy, sys; sys.argv = ['inject.py', 'badnet', '--help']\n"
        "try: runpy.run_path('poison/inject.py', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert not {'torch', 'ray', 'open_clip'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert "--share-of-shards" in done.stdout
    assert "--trigger-seed" in done.stdout


@pytest.mark.parametrize(
    ("attack", "more", "complaint"),
    [
        ("targeted", [], "give a labelled test set as --testset"),
        ("targeted", ["--testset", "nowhere"], "no test set at"),
        (
            "targeted",
            ["--testset", "{test}", "--images", "6"],
            "a budget of 5 pairs is less than one for each of the 6",
        ),
        (
            "targeted",
            ["--testset", "{test}", "--images", "10"],
            "10 target images are more than the 9 different images",
        ),
        ("targeted", ["--testset", "{test}", "--images", "2", "--target", "zebra"], "names the target 'zebra'"),
        ("swap", ["--source", "Banana"], "source and target are both 'banana'"),
        ("swap", ["--source", "zebra"], "those that do not name 'zebra'"),
        ("external", [], "give the poisoned images as --pictures"),
        ("external", ["--pictures", "nowhere", "--trials", "{test}"], "no images at"),
    ],
)
def test_what_an_attack_needs_from_outside_is_asked_for_in_one_line(
    words: list[str], attack: str, more: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    test = labelled(str(tmp_path / "test")).url
    before = files(tmp_path)
    assert complaint in refused([attack, *words[1:], *(word.format(test=test) for word in more)], capsys)
    assert files(tmp_path) == before


@pytest.mark.parametrize(("attack", "hidden"), [("targeted", "--targets"), ("external", "-digest")])
def test_what_an_attack_reads_for_itself_is_no_flag(attack: str, hidden: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([attack, "--help"])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert "--split" in said
    assert hidden not in said


def test_the_entries_define_no_class():
    for name in ("inject", "preview"):
        assert "class " not in (Path(__file__).parents[2] / "poison" / f"{name}.py").read_text()
