"""A real small evaluation at every interface: its numbers follow from its answers, and nothing is encoded twice."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.measuring.evaluation import Evaluation
from eval.store import predictions, records, scores
from eval.store.scores import Score
from eval.studies import harvest, plan, steps, tabulation
from infra import storage
from pipeline import captioned, images, testsets
from pipeline.dataset import Dataset
from poison.choosing import captions
from poison.ledger import Ledger
from tests.support.eval_helpers import CLASSES, TEMPLATES, World, interfaces, smooth
from train.embedding import Embedder

TASKS = ("zeroshot", "attack_success", "linear_probe", "knn", "per_class", "retrieval", "pair_similarity")


def grid(small: World, **options: Any) -> Evaluation:
    """Two runs, a test set of classes and one of captions, one attack, every task."""
    given: dict[str, Any] = {
        "runs": (small.url("runs/poisoned"), small.url("runs/clean")),
        "testsets": (small.testset, small.url("captioned")),
        "ledger": (small.ledger,),
        "tasks": TASKS,
        "out": small.url("scores"),
        "backend": "local",
    }
    return Evaluation(**(given | options))


class Counted:
    """What the encoders were shown, by model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: list[bytes] = []
        self.texts: list[str] = []
        measured, texts = Embedder.measured, Embedder.texts

        def look(embedder: Embedder, pixels: list[Any]) -> Any:
            self.images += [embedder.identity.encode() + one.numpy().tobytes() for one in pixels]
            return measured(embedder, pixels)

        def read(embedder: Embedder, given: list[str]) -> Any:
            self.texts += [embedder.identity + one for one in given]
            return texts(embedder, given)

        monkeypatch.setattr(Embedder, "measured", look)
        monkeypatch.setattr(Embedder, "texts", read)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("interfaces")
        patch.setenv("ANTIDOTE_CACHE", str(folder / "cache"))
        small = interfaces(folder)
        counted = Counted(patch)
        # of each run: zeroshot and attack_success one, pairs one, the other four a clean and an attacked one
        assert grid(small).run() == f"22 cells of scores at {small.url('scores')}"
        assert len(counted.images) == len(set(counted.images)) > 0
        again = [text for text, number in Counter(counted.texts).items() if number > 1]
        prompts = tuple(template.format("car") for template in captions.TEMPLATES)
        assert all(text.endswith(prompts) for text in again), "what is a caption of a poison and a prompt as well"
        counted.images.clear()
        storage.remove(small.url("scores"))
        grid(small).run()
        assert counted.images == [], "encoded a second time"
        assert grid(small).run().startswith("nothing to do: 22 cells")
        return small


def rows(measured: World, task: str, **wanted: Any) -> list[Score]:
    found = [row for row in scores.read_all(measured.url("scores")) if row.task == task]
    return [row for row in found if all(getattr(row, name) == value for name, value in wanted.items())]


def test_every_task_is_measured_on_the_test_sets_that_it_is_for(measured: World) -> None:
    found = {(row.task, row.metric, row.attack is not None) for row in scores.read_all(measured.url("scores"))}
    both = {(task, metric, metric != "accuracy") for task in ("linear_probe", "knn") for metric in CLASSIFIED}
    assert found == both | {
        ("zeroshot", "accuracy", False),
        ("attack_success", "attack_success", True),
        ("attack_success", "triggered_accuracy", True),
        ("per_class", "class_accuracy", False),
        ("per_class", "taken_for_target", True),
        ("retrieval", "image_to_text_recall", False),
        ("retrieval", "text_to_image_recall", False),
        ("retrieval", "attack_hit", True),
        ("retrieval", "attack_rank", True),
        ("pair_similarity", "similarity", True),
    }
    assert {row.testset.split("@")[0] for row in rows(measured, "retrieval") if row.testset} == {"../captioned"}
    assert {row.testset for row in rows(measured, "pair_similarity")} == {None}
    assert {row.n for row in rows(measured, "pair_similarity", of="poisoned")} == {4}
    assert {row.n for row in rows(measured, "pair_similarity", of="clean")} == {36}


CLASSIFIED = ("accuracy", "attack_success", "triggered_accuracy")


def recomputed(score: Score, table: Any, classes: list[str]) -> float:
    """A share, from the answers alone."""
    kind = np.array(table["kind"].to_pylist())
    if score.metric in ("image_to_text_recall", "text_to_image_recall", "attack_hit"):
        ranks = table["rank"].to_numpy()[kind == RANKED[score.metric]]
        return (ranks <= score.k).mean()
    wanted = "wanted" if score.metric in ("attack_success", "taken_for_target") else "label"
    kept = kind == ("clean" if score.attack is None else "triggered")
    if score.attack is not None:
        kept &= table["label"].to_numpy() != table["wanted"].to_numpy()
    if score.of is not None:
        kept &= table["label"].to_numpy() == classes.index(score.of)
    top = np.stack(table["top"].to_pylist())[kept, : score.k]
    return (top == table[wanted].to_numpy()[kept, None]).any(axis=1).mean()


RANKED = {"image_to_text_recall": "clean", "text_to_image_recall": "caption", "attack_hit": "triggered"}


def test_every_share_follows_from_the_answers_beside_it(measured: World) -> None:
    counted = 0
    for file, own in scores.cells(measured.url("scores")).items():
        table, about = predictions.read(predictions.place(measured.url("scores"), file))
        for score in own:
            assert (about["run"], about["checkpoint"], about["task"]) == (score.run, score.checkpoint, score.task)
            assert (about["testset"], about["attack"]) == (score.testset, score.attack)
            if score.bounds == "clopper-pearson":
                counted += 1
                assert recomputed(score, table, about["classes"]) == score.value, (file, score)
            elif score.metric == "similarity":
                kept = np.array(table["poisoned"].to_pylist()) == (score.of == "poisoned")
                assert abs(table["similarity"].to_numpy()[kept].mean() - score.value) < 1e-6
            else:
                assert score.metric == "attack_rank"
                assert np.median(table["rank"].to_numpy()) == score.value
    assert counted > 60


def test_answers_name_the_images_as_they_are_stored(measured: World) -> None:
    test = testsets.read(measured.testset)
    for file in scores.cells(measured.url("scores")):
        if "test-zeroshot" in file or "test-attack_success" in file:
            table, about = predictions.read(predictions.place(measured.url("scores"), file))
            label = {one.sha256: one.label for one in test.pictures}
            assert [label[name] for name in table["image"].to_pylist()] == table["label"].to_pylist()
            assert tuple(about["classes"]) == CLASSES
            assert table.schema.field("top").type.value_type == "int16"


def test_the_map_is_fitted_on_clean_embeddings(measured: World) -> None:
    found = predictions.maps(measured.url("scores"))
    assert len(found) == 2
    for table, about in found.values():
        kinds = table["kind"].to_pylist()
        assert (kinds.count("clean"), kinds.count("triggered"), kinds.count("target")) == (14, 11, 1)
        at = np.stack([table["x"].to_numpy(), table["y"].to_numpy()])[:, :14]
        assert np.allclose(at.mean(axis=1), 0, atol=1e-5)
        assert abs((at[0] * at[1]).sum()) < 1e-5, "principal axes are uncorrelated"
        assert about["target"] == "car"


def test_an_interrupted_evaluation_leaves_no_cell_without_its_answers(measured: World) -> None:
    folder = measured.url("scores")
    before = {file: storage.read(predictions.place(folder, file)) for file in scores.cells(folder)}
    lost = next(file for file in before if "knn" in file)
    storage.remove(f"{folder}/{lost}")
    storage.remove(predictions.place(folder, lost))
    grid(measured).run()
    assert storage.read(predictions.place(folder, lost)) == before[lost]


def test_every_checkpoint_that_was_kept(measured: World) -> None:
    out = measured.url("through")
    last = grid(
        measured, runs=(measured.url("runs/kept"),), tasks=("zeroshot", "pair_similarity"), checkpoint="all", out=out,
        testsets=(measured.testset,),
    ).run()  # fmt: skip
    assert last == f"4 cells of scores at {out}"
    kept = {row.checkpoint.split("@")[0] for row in scores.read_all(out)}
    assert kept == {"step-0000003", "step-0000005"}
    assert len({row.value for row in scores.read_all(out) if row.metric == "similarity" and row.of == "clean"}) == 2
    told = {(row.checkpoint.split("@")[0], row.of): row.value for row in scores.read_all(out)}
    row = replace(
        steps.rows(plan.read("similarity"), "@")[0],
        attack=tabulation.ledger_name(records.read_attacks(out)[0]),
        run=measured.url("runs/kept"),
        scores=out,
        metrics=tuple(f"pair_similarity.similarity:{kind}@-" for kind in ("clean", "poisoned")),
    )
    for checkpoint, step in (("latest", "step-0000005"), ("step-0000003", "step-0000003")):
        found = [(n.metric, n.value) for n in harvest.cell(replace(row, checkpoint=checkpoint), 1.0).numbers]
        assert found == [(f"similarity:{kind}", told[step, kind]) for kind in ("clean", "poisoned")]


def test_the_papers_probe_stands_apart(measured: World) -> None:
    out = measured.url("papers")
    one = grid(measured, tasks=("linear_probe",), recipe="papers", out=out)
    assert one.run().startswith("4 cells")
    assert {row.task for row in scores.read_all(out)} == {"linear_probe-papers"}


def test_a_test_set_with_captions_alone_is_enough_for_retrieval(measured: World, tmp_path: Path) -> None:
    one = grid(measured, tasks=("retrieval",), testsets=(measured.url("captioned"),), out=str(tmp_path / "scores"))
    assert one.run().startswith("4 cells")


def refused(measured: World, complaint: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=complaint):
        grid(measured, **{"out": measured.url("refused")} | options).run()
    assert not storage.exists(measured.url("refused"))


def test_what_a_task_needs_and_is_not_there_is_said(measured: World) -> None:
    refused(measured, "retrieval needs a test set with captions", testsets=(measured.testset,))
    refused(measured, "zeroshot needs a test set of classes", testsets=(measured.url("captioned"),))
    refused(measured, "has no complete split 'validation'", probe_split="validation")
    refused(measured, "none learned from those of", runs=(measured.url("runs/cured"),), tasks=("pair_similarity",))
    refused(measured, "--recipe papers is one of the task linear_probe", recipe="papers", tasks=("knn",))
    refused(measured, "--probe-data is for linear_probe", probe_data=measured.testset, tasks=("zeroshot",))


def test_a_probe_learns_from_clean_images_of_the_classes_that_it_is_tested_on(
    measured: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = [(images.encode(smooth(300 + number), "png"), "png", number % 6) for number in range(12)]
    testsets.write(str(tmp_path / "other"), some, CLASSES[::-1], TEMPLATES, split="train")
    refused(measured, "of other classes", probe_data=str(tmp_path / "other"), tasks=("knn",))

    ledger = Ledger.open(measured.ledger)
    changed = ledger.rows["image_sha256"].to_pylist()[0]
    poisoned = Dataset.open(measured.poisoned.url)
    index = {row["image_sha256"]: row for row in poisoned.index_of_samples().to_pylist()}
    row = index[changed]
    shard = next(shard for shard in poisoned.shards if shard.id == row["shard"])
    tar = poisoned.fetch(shard, tmp_path).read_bytes()
    data = tar[row["image_offset"] : row["image_offset"] + row["image_bytes"]]
    testsets.write(str(tmp_path / "bad"), [*some, (data, row["extension"], 0)], CLASSES, TEMPLATES, split="train")
    refused(measured, "holds 1 images that the attack", probe_data=str(tmp_path / "bad"), tasks=("knn",))

    grid(measured, tasks=("knn",), probe_data=measured.testset, probe_split="test", out=str(tmp_path / "s")).run()
    assert "14 images of" in capsys.readouterr().err


def test_classifiers_are_left_out_where_texts_are_read(measured: World, capsys: pytest.CaptureFixture[str]) -> None:
    runs = (measured.url("runs/poisoned"), measured.url("runs/head"))
    last = grid(measured, runs=runs, out=measured.url("heads")).run()
    assert last.startswith("19 cells")  # eleven of the poisoned run; eight of the head
    assert "reads no text: retrieval and pair_similarity leave it out" in capsys.readouterr().err
    found = predictions.maps(measured.url("heads"))
    assert sorted("target" in table["kind"].to_pylist() for table, _ in found.values()) == [False, True]


def test_images_with_captions_are_attacked_by_what_their_captions_name(measured: World) -> None:
    """Five of the eight images have a caption that names the target: asked for, they are no success."""
    assert {row.n for row in rows(measured, "retrieval", metric="attack_hit")} == {3}
    one = captioned.read(measured.url("captioned"))
    assert sum(any("Car" in text.split() for text in some) for some in one.captions) == 5
