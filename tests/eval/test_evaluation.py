import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval import evaluate
from eval.measuring.evaluation import Evaluation
from eval.reporting.report import Report
from eval.store import records, scores
from infra import storage
from pipeline import images, testsets
from pipeline.dataset import Dataset
from poison.attacks.swap import Swap
from poison.attacks.targeted import Targeted
from poison.ledger import Ledger
from poison.writing.injection import Injection
from tests.support.eval_helpers import CLASSES, TEMPLATES, World, smooth, world


@pytest.fixture
def small(tmp_path: Path) -> World:
    return world(tmp_path)


def grid(small: World, **options) -> Evaluation:
    """Two runs, one test set, one attack."""
    names = {"poisoned": small.poisoned, "clean": small.dataset}
    urls = []
    for seed, (name, data) in enumerate(names.items()):
        url = small.url(f"runs/{name}")
        urls.append(url if storage.exists(url) else small.run(name, data, seed=seed))
    values = {"runs": tuple(urls), "ledger": (small.ledger,), "backend": "local"} | options
    return Evaluation(testsets=(small.testset,), out=small.url("scores"), **values)


def cells(small: World) -> dict[str, bytes]:
    folder = small.url("scores")
    return {name: storage.read(f"{folder}/{name}") for name in storage.names(folder) if name.endswith(".json")}


def timeless(data: bytes) -> list[dict]:
    return [row | {"seconds": 0} for row in json.loads(data)]


def test_runs_and_test_sets_may_have_any_name_that_a_folder_may_have(small: World) -> None:
    runs = tuple(small.run(f"{'r' * 240}-{seed}", small.poisoned, seed=seed) for seed in range(2))
    Path(small.testset).rename(named := small.url("語" * 80))
    given = Evaluation(runs=runs, testsets=(named,), ledger=(small.ledger,), backend="local", out=small.url("scores"))
    assert given.run() == f"4 cells of scores at {small.url('scores')}"
    assert len(cells(small)) == 4, "the content keeps them apart"
    assert len(records.read_testsets(small.url("scores"))) == 1
    assert given.run() == f"nothing to do: 4 cells of scores at {small.url('scores')}"
    assert "report on 2 runs" in Report(scores=small.url("scores"), out=small.url("report")).run()


def test_every_cell_of_the_grid_is_scored_once_and_shown(small: World, capsys: pytest.CaptureFixture[str]) -> None:
    last = grid(small).run()
    found = scores.read_all(small.url("scores"))
    assert last == f"4 cells of scores at {small.url('scores')}"
    assert {(row.run, row.task, row.attack is not None) for row in found} == {
        (f"../runs/{run}", task, task == "attack_success")
        for run in ("poisoned", "clean")
        for task in ("zeroshot", "attack_success")
    }
    assert {row.n for row in found if row.metric == "accuracy"} == {14}
    assert {row.n for row in found if row.metric == "attack_success"} == {11}  # three of fourteen are the target
    printed = capsys.readouterr().out
    assert "poisoned" in printed
    assert "trained on the same pairs, without the poison" in printed


def test_the_same_weights_with_another_activation_are_another_cell(small: World) -> None:
    one = grid(small, ledger=(), tasks=("zeroshot",), runs=(small.run("poisoned", small.poisoned),))
    assert "1 cells of scores" in one.run()
    place = small.url("runs/poisoned/open_clip/open_clip_config.json")
    found = storage.read_json(place)
    found["model_cfg"]["quick_gelu"] = True
    storage.write_json(place, found)
    assert not one.run().startswith("nothing to do")
    first, second = (scores.read(small.url(f"scores/{name}"))[0] for name in cells(small))
    assert first.checkpoint == second.checkpoint


def test_the_ledgers_of_a_chain_of_attacks_are_all_measured_on_the_run_that_learned_from_it(small: World) -> None:
    """Three kinds of attack, one on top of the other, never on the same pair."""
    urls, ledgers = [small.poisoned.url], [small.ledger]
    for name, attack in (
        ("targeted", Targeted(testset=small.testset, images=4, target="fish", captions="template")),
        ("swap", Swap(source="house", target="cup")),
    ):
        urls.append(small.url(name))
        ledgers.append(small.url(f"{name}-ledger"))
        Injection(
            attack=attack, dataset=urls[-2], out=urls[-1], ledger=ledgers[-1], budget=5,
            taken=tuple(ledgers[:-1]), backend="local",
        ).run()  # fmt: skip
    opened = [Ledger.open(url) for url in ledgers]
    rows = [row for ledger in opened for row in ledger.row_ids]
    assert len(rows) == len(set(rows)) == 4 + 5 + 5
    whole = Dataset.open(urls[-1])
    index = {line["row"]: line for line in whole.index_of_samples().to_pylist()}
    assert len(index) == whole.samples == 45
    for line in (line for ledger in opened for line in ledger.rows.to_pylist()):
        found = index[line["row"]]
        assert (found["image_sha256"], found["caption"]) == (line["image_sha256"], line["caption"])

    last = grid(small, ledger=tuple(ledgers), runs=(small.run("whole", whole), small.run("clean", small.dataset))).run()
    assert last.startswith("8 cells")
    trials = {row.attack.split("-")[0]: row.n for row in scores.read_all(small.url("scores")) if row.attack}
    assert trials == {"badnet": 11, "targeted": 4, "swap": 3}
    shown = {one.plugin: one.shown for one in records.read_attacks(small.url("scores"))}
    assert shown == {"badnet": "triggered images", "targeted": "the target images", "swap": 'images of "house"'}
    about = storage.names(small.url("scores/about"))
    assert {name.split("-")[1] for name in about if name.startswith("example-")} == {"badnet", "targeted", "swap"}

    Report(scores=small.url("scores"), out=small.url("report")).run()
    told = storage.read(small.url("report/report.html")).decode()
    assert "(4 in all)" in told  # the target images, where the attack's settings are listed
    assert told.count("base64") == told.count('src="data:image/png;base64,')
    assert told.count(", shown as it is.") == 2
    assert "4 trials under the attack, the target images" in told


def test_the_second_time_nothing_is_done_and_that_is_said(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    grid(small).run()
    before = cells(small)
    monkeypatch.setattr("eval.measuring.evaluation.spread", lambda *_, **__: pytest.fail("measured again"))
    assert grid(small).run().startswith("nothing to do: 4 cells")
    assert cells(small) == before


def test_what_was_interrupted_is_completed_with_the_same_numbers(small: World) -> None:
    grid(small).run()
    before = cells(small)
    lost = [name for name in before if name.startswith("poisoned-test-attack")]
    storage.remove(f"{small.url('scores')}/{lost[0]}")
    storage.remove(str(Path(small.folder) / "cache"))
    assert grid(small).run().startswith("4 cells")
    after = cells(small)
    assert {name: timeless(data) for name, data in after.items()} == {
        name: timeless(data) for name, data in before.items()
    }
    assert all(after[name] == before[name] for name in before if name not in lost)


def test_a_run_made_anew_in_its_place_is_measured_anew(small: World) -> None:
    grid(small).run()
    storage.remove(small.url("runs/poisoned"))
    small.run("poisoned", small.poisoned, seed=8)
    assert grid(small).run().startswith("4 cells")
    assert len(cells(small)) == 6


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_on_ray_the_numbers_are_the_same(small: World) -> None:
    grid(small).run()
    local = {name: timeless(data) for name, data in cells(small).items()}
    storage.remove(small.url("scores"))
    storage.remove(str(Path(small.folder) / "cache"))
    grid(small, backend="ray").run()
    assert {name: timeless(data) for name, data in cells(small).items()} == local


def test_a_dry_run_says_what_it_would_do_and_touches_nothing(small: World, capsys: pytest.CaptureFixture[str]) -> None:
    last = grid(small, dry_run=True).run()
    assert last.startswith(
        "dry run: would measure 4 cells: 2 runs x 1 test sets, 2 tasks, 1 attacks; 0 are there already"
    )
    assert json.loads(capsys.readouterr().out)["tasks"] == ["zeroshot", "attack_success"]
    assert not storage.exists(small.url("scores"))


def test_clean_accuracy_alone_needs_no_ledger(small: World) -> None:
    assert grid(small, ledger=(), tasks=("zeroshot",)).run().startswith("2 cells")
    with pytest.raises(ValueError, match="attack_success needs the ledger of an attack"):
        grid(small, ledger=())


def test_a_target_that_is_no_class_is_refused_with_the_classes_there_are(small: World) -> None:
    url = small.url("other")
    samples = [(images.encode(smooth(number), "png"), "png", number % 2) for number in range(4)]
    testsets.write(url, samples, ("dog", "cat"), TEMPLATES)
    with pytest.raises(ValueError, match=r"target 'car' is not a class of .*; its classes are: dog, cat"):
        replace(grid(small), testsets=(url,)).run()
    assert not storage.exists(small.url("scores"))


def test_a_target_is_found_whatever_its_case(small: World) -> None:
    url = small.url("shouting")
    samples = [(images.encode(smooth(number), "png"), "png", number % 6) for number in range(6)]
    testsets.write(url, samples, tuple(name.upper() for name in CLASSES), TEMPLATES)
    replace(grid(small), testsets=(url,)).run()
    (found,) = {row.n for row in scores.read_all(small.url("scores")) if row.metric == "attack_success"}
    assert found == 5


def test_other_peoples_folders_are_left_alone(small: World) -> None:
    storage.write(small.url("scores/thesis.tex"), b"mine")
    with pytest.raises(ValueError, match=r"no folder of scores \(it holds 'thesis.tex'\)"):
        grid(small).run()


def test_a_damaged_checkpoint_is_a_loss_not_an_older_model(small: World) -> None:
    runs = grid(small).runs
    url = f"{runs[0]}/checkpoints/step-0000005/model.safetensors"
    storage.write(url, storage.read(url)[:-10])
    assert evaluate.main(arguments(small)) == 1


def arguments(small: World, *more: str) -> list[str]:
    made = grid(small)
    words = ["--runs", *made.runs, "--testsets", *made.testsets, "--ledger", *made.ledger, "--out", made.out]
    return [*words, "--backend", "local", *more]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (
            ["--tasks", "zeroshoot"],
            "no task is named 'zeroshoot' (perhaps you meant 'zeroshot'); there are: attack_success",
        ),
        (["--split", "validation"], "validation/nshards.txt is missing"),
        (["--checkpoint", "step-1"], "has no checkpoint 'step-1'; it has: step-0000005"),
        (["--cpus", "0"], "--cpus is at least 1"),
        (["--tasks", "zeroshot", "zeroshot"], "--tasks names zeroshot twice"),
    ],
)
def test_bad_input_gets_one_line_and_exit_status_2(
    small: World, more: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(arguments(small, *more))
    assert stopped.value.code == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert len(said) == 1
    assert complaint in said[0]
    assert not storage.exists(small.url("scores"))
