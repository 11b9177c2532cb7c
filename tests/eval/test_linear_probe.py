import numpy as np
import pytest
import torch

from eval import logistic
from eval.task import Embedded, Labelled
from eval.tasks.linear_probe import LinearProbe
from train.embedding import normalised


def names(count: int) -> np.ndarray:
    return np.array([f"{number * 7919 % 9973:064x}" for number in range(count)])


def clouds(count: int, classes: int = 3, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    return normalised(np.eye(classes, 8)[labels] + noise * generator.normal(size=(count, 8))), labels


def test_the_minimum_is_that_of_gradient_descent_in_torch() -> None:
    rows, labels = clouds(30)
    found = logistic.fit(rows, labels, 3, 0.1)
    weight = torch.tensor(found.weight, requires_grad=True)
    bias = torch.tensor(found.bias, requires_grad=True)
    scores = torch.from_numpy(rows.astype(np.float64)) @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels)) + 0.05 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None
    assert bias.grad is not None
    assert weight.grad.abs().max() < 1e-6
    assert bias.grad.abs().max() < 1e-6


def test_a_class_that_was_never_seen_is_never_the_answer() -> None:
    rows, labels = clouds(30)
    assert (logistic.fit(rows, labels + 1, 5, 0.1).scores(rows)[:, [0, 4]] == -np.inf).all()


def test_one_class_is_the_answer_to_everything() -> None:
    rows, _ = clouds(10)
    given = Embedded(
        rows, np.array([1] * 5 + [0] * 5), np.zeros((2, 8)), train=Labelled(rows, np.ones(10, int), names(10))
    )
    assert [one.value for one in LinearProbe().measure(given).measures] == [0.5]


def test_of_every_class_one_image_of_five_is_held_out_by_its_name() -> None:
    labels = np.array([0] * 10 + [1] * 4 + [2] * 5)
    held = logistic.held_out(labels, names(19))
    assert [held[labels == label].sum() for label in range(3)] == [2, 0, 1]
    order = np.random.default_rng(0).permutation(19)
    assert (logistic.held_out(labels[order], names(19)[order]) == held[order]).all()


def test_the_strength_is_the_one_under_which_held_out_images_are_likeliest() -> None:
    rows, labels = clouds(200, noise=1.5)
    held = logistic.held_out(labels, names(200))

    def loss(strength: float) -> float:
        scores = logistic.fit(rows[~held], labels[~held], 3, strength).scores(rows[held])
        return float(torch.nn.functional.cross_entropy(torch.from_numpy(scores), torch.from_numpy(labels[held])))

    losses = [loss(strength) for strength in logistic.STRENGTHS]
    best = logistic.STRENGTHS[int(np.argmin(losses))]
    assert best not in (logistic.STRENGTHS[0], logistic.STRENGTHS[-1]), "the noise asks for one in between"
    assert logistic.chosen(rows, labels, names(200), 3) == best
    assert logistic.chosen(rows[:3], labels[:3], names(3), 3) == logistic.UNCHOSEN


def test_no_test_image_has_a_say_in_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is tested, what is learned is the same: scores of one image do not depend on the others."""
    monkeypatch.setattr("eval.tasks.linear_probe._LAST", {})
    (rows, labels), (shown, wanted) = clouds(60), clouds(12, seed=1)
    train = Labelled(rows, labels, names(60))
    whole = LinearProbe().measure(Embedded(shown, wanted, np.zeros((3, 8)), train=train)).answers[0].columns
    monkeypatch.setattr("eval.tasks.linear_probe._LAST", {})
    alone = LinearProbe().measure(Embedded(shown[:1], 2 - wanted[:1], np.zeros((3, 8)), train=train)).answers[0].columns
    assert np.allclose(alone["scores"], whole["scores"][:1], atol=1e-6)


@pytest.mark.parametrize("recipe", ["regularised", "papers"])
def test_either_recipe_tells_clouds_apart(recipe: str) -> None:
    (rows, labels), (shown, wanted) = clouds(120, noise=0.1), clouds(30, noise=0.1, seed=1)
    task = LinearProbe(recipe=recipe, epochs=400)  # type: ignore[arg-type]
    long = np.full(120, 3.0, np.float32)
    given = Embedded(shown, wanted, np.zeros((3, 8)), lengths=long[:30], train=Labelled(rows, labels, names(120), long))
    assert task.measure(given).measures[0].value == 1.0
    assert task.measure(given).measures == task.measure(given).measures
    assert task.called == ("linear_probe" if recipe == "regularised" else "linear_probe-papers")


def test_the_papers_probe_sees_embeddings_as_long_as_they_are() -> None:
    rows, labels = clouds(20)
    task = LinearProbe(recipe="papers", epochs=1)
    short, long = (task.fit(Labelled(rows, labels, names(20), np.full(20, one)), 3) for one in (1.0, 9.0))
    assert not np.allclose(short.weight, long.weight, atol=1e-3)
