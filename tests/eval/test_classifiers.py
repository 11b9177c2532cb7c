"""A run that answers by a head of its own: its numbers are those of the head, and of nothing else it can be asked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval.judging.roles import role
from eval.measuring import classifiers, scoring
from eval.measuring.embed import embed
from eval.measuring.evaluation import Evaluation
from eval.measuring.trials import trial_rng
from eval.store import runs, scores
from infra import storage
from pipeline import images, testsets
from pipeline.dataset import Dataset
from poison.attacks.text_prefix import TextPrefix
from poison.writing.injection import Injection
from tests.support.drawn import labelled
from tests.support.eval_helpers import ATTACK, ATTACKED, CLASSES, World, after, some_run, world

CPU = torch.device("cpu")


@pytest.fixture
def small(tmp_path: Path) -> World:
    return world(tmp_path)


def cured(small: World, seed: int = 0, classes: tuple[str, ...] = CLASSES, number: int = 12, first: int = 60) -> str:
    """A supervised run after a poisoned one; its head is drawn."""
    poisoned = small.url("runs/poisoned")
    if not storage.exists(poisoned):
        small.run("poisoned", small.poisoned)
    url = labelled(small.url(f"labelled-{seed}"), number, classes, first=first)
    draw = torch.Generator().manual_seed(seed)
    head = {"weight": torch.randn(len(classes), 16, generator=draw), "bias": torch.randn(len(classes), generator=draw)}
    made = Dataset.open(url, labelled=True)
    return small.run(f"cured-{seed}", made, start=poisoned, objective="supervised", state=head)


def grid(small: World, *urls: str, ledger: str | None = None) -> Evaluation:
    return Evaluation(
        runs=(small.url("runs/poisoned"), *urls),
        testsets=(small.testset,),
        ledger=(ledger or small.ledger,),
        out=small.url("scores"),
        backend="local",
    )


def answers(url: str, small: World, shown: list[np.ndarray]) -> np.ndarray:
    """What the head says of images: raw features and head, straight from the run."""
    embedder = scoring.load(runs.read(url, small.folder), CPU)
    state = torch.load(f"{url}/checkpoints/step-0000005/training.pt", map_location="cpu", weights_only=True)[
        "objective"
    ]
    pixels = torch.stack([embedder.preprocess(images.open_image(images.encode(one, "png"))) for one in shown])
    with torch.no_grad():
        raw = embedder.model.encode_image(pixels)
    return (raw @ state["weight"].T + state["bias"]).argmax(dim=1).numpy()


def test_accuracy_and_attack_success_are_the_heads_and_the_targets_own_class_is_left_out(small: World) -> None:
    url = cured(small)
    grid(small, url).run()
    found = {(row.metric, row.k): row for row in scores.read_all(small.url("scores")) if row.run == "../runs/cured-0"}
    test = testsets.read(small.testset)
    labels = np.array([one.label for one in test.pictures])
    stored = [images.decode(data) for _, data in testsets.stored(test)]
    assert found["accuracy", 1].value == np.mean(answers(url, small, stored) == labels)

    shown = [
        (ATTACK.stamp(image, trial_rng(0, about.sha256)), about.label)
        for image, about in zip(stored, test.pictures, strict=True)
        if about.label != CLASSES.index(ATTACK.target)
    ]
    attacked = answers(url, small, [image for image, _ in shown])
    assert found["attack_success", 1].n == len(shown) == 11
    assert found["attack_success", 1].value == np.mean(attacked == CLASSES.index(ATTACK.target))
    assert found["triggered_accuracy", 1].value == np.mean(attacked == [label for _, label in shown])
    assert ("edited_prompt_accuracy", 1) not in found


def test_no_prompt_is_read_and_nothing_is_normalised(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = scoring.load(runs.read(cured(small), small.folder), CPU)
    monkeypatch.setattr(embedder.model, "encode_text", lambda *_: pytest.fail("prompts were read"))
    found = embed(embedder, testsets.read(small.testset), None, seed=0)
    assert found.images.shape[1] == found.classes.shape[1] == 17
    assert (found.images[:, -1] == 1).all()
    assert not np.allclose(np.linalg.norm(found.images[:, :-1], axis=1), 1, atol=1e-3)


def test_another_head_on_the_same_tower_has_embeddings_of_its_own(small: World) -> None:
    test = testsets.read(small.testset)
    one, other = (scoring.load(runs.read(cured(small, seed), small.folder), CPU) for seed in (1, 2))
    assert one.identity != other.identity
    assert not np.array_equal(embed(one, test, None, seed=0).classes, embed(other, test, None, seed=0).classes)


def test_the_same_weights_with_and_without_a_head_share_no_embeddings(small: World) -> None:
    embedder = scoring.load(runs.read(cured(small), small.folder), CPU)
    plain = scoring.load(replace(runs.read(cured(small, 3), small.folder), classes=()), CPU)
    assert plain.head is None
    assert plain.identity != embedder.identity


@pytest.mark.parametrize(
    ("classes", "complaint"),
    [
        (CLASSES[:4], r"is a classifier of 4 classes \(car, house, fish, cup\).* is of 6 classes \(car, .*, \.\.\.\)"),
        ((*CLASSES[1:], CLASSES[0]), r"is a classifier of 6 classes \(house, .* is of 6 classes \(car, house"),
    ],
)
def test_a_classifier_of_other_classes_is_refused_with_both(
    small: World, classes: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        grid(small, cured(small, classes=classes)).run()
    assert not storage.exists(small.url("scores"))


def test_classes_that_have_numbers_alone_need_only_be_as_many(small: World) -> None:
    run = runs.read(cured(small), small.folder)
    test = testsets.read(small.testset)
    classifiers.check([replace(run, classes=tuple("012345"))], [test], [])
    with pytest.raises(ValueError, match="of 5 classes"):
        classifiers.check([replace(run, classes=tuple("01234"))], [test], [])


def test_an_attack_on_the_prompts_is_refused_before_anything_is_measured(small: World) -> None:
    urls = {"out": small.url("prefixed"), "ledger": small.url("prefixed-ledger")}
    Injection(attack=TextPrefix(target="car"), dataset=small.dataset.url, budget=4, backend="local", **urls).run()
    small.run("poisoned", Dataset.open(urls["out"]))
    with pytest.raises(
        ValueError, match=r"cured-0 is a classifier, which reads no prompts, and the attack of .*prefixed"
    ):
        grid(small, cured(small), ledger=urls["ledger"]).run()
    assert not storage.exists(small.url("scores"))


def test_labelled_images_are_checked_against_the_ledger_by_their_hashes(small: World) -> None:
    with pytest.raises(ValueError, match=r"holds 4 images that the attack .* poisoned in other rows"):
        grid(small, cured(small, number=40, first=0)).run()


def test_what_a_classifier_is_can_be_read_in_every_table() -> None:
    poisoned = some_run("poisoned", "poisoned")
    run = replace(some_run("cured", "labels", after(poisoned), objective="supervised"), classes=CLASSES)
    assert role(run, ATTACKED).kind == "defended"
    assert role(run, ATTACKED).words == "finetuned from poisoned with supervised, as a classifier"
