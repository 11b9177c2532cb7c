"""Supervised finetuning against an independent computation in numpy, float64; what learns and what is refused."""

import numpy as np
import pytest
import torch

from defense.objectives.supervised import Supervised
from train.objective import Clock, Features, Setting

CLOCK = Clock(0, 0, 1, 0)
SCALE = torch.tensor(9.0, dtype=torch.float64, requires_grad=True)


def features(raw: torch.Tensor, labels: list[int]) -> Features:
    """Normalised embeddings that would give another loss, if anything read them."""
    normalised = torch.nn.functional.normalize(raw.detach() + 1, dim=1).requires_grad_()
    numbers = torch.arange(len(raw))
    return Features({"image": normalised}, {}, numbers, torch.zeros_like(numbers), torch.tensor(labels), {"image": raw})


def head(weight: np.ndarray, bias: np.ndarray) -> torch.nn.Module:
    made = Supervised().state(Setting(weight.shape[1], 10, classes=len(weight))).double()
    made.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    return made


def by_hand(raw: np.ndarray, weight: np.ndarray, bias: np.ndarray, labels: list[int]) -> tuple[float, np.ndarray]:
    """Mean over rows of log sum exp - own logit, and its gradient by the logits."""
    total, gradient = 0.0, np.zeros((len(raw), len(weight)))
    for i, label in enumerate(labels):
        logits = np.array(
            [sum(weight[c][d] * raw[i][d] for d in range(len(raw[i]))) + bias[c] for c in range(len(bias))]
        )
        total += np.log(np.exp(logits).sum()) - logits[label]
        gradient[i] = np.exp(logits) / np.exp(logits).sum()
        gradient[i, label] -= 1
    return total / len(raw), gradient / len(raw)


@pytest.mark.parametrize(("rows", "classes"), [(7, 4), (2, 3), (1, 2), (5, 1)])
def test_loss_and_gradient_are_those_of_an_independent_computation(rows, classes):
    draw = np.random.default_rng(rows)
    values, weight, bias = draw.normal(size=(rows, 6)) * 3, draw.normal(size=(classes, 6)), draw.normal(size=classes)
    labels = [i % classes for i in range(rows)]
    raw, state = torch.tensor(values, requires_grad=True), head(weight, bias)
    given = features(raw, labels)
    loss = Supervised().loss(given, SCALE, CLOCK, state)
    loss.total.backward()
    wanted, by_logit = by_hand(values, weight, bias, labels)
    assert float(loss.total.detach()) == pytest.approx(wanted, abs=1e-12)
    assert np.allclose(raw.grad.numpy(), by_logit @ weight, rtol=0, atol=1e-12)
    assert np.allclose(state.weight.grad.numpy(), by_logit.T @ values, rtol=0, atol=1e-12)
    assert np.allclose(state.bias.grad.numpy(), by_logit.sum(axis=0), rtol=0, atol=1e-12)
    assert given.images["image"].grad is None
    assert SCALE.grad is None
    assert float(loss.parts["accuracy"]) == np.mean((values @ weight.T + bias).argmax(axis=1) == labels)


def test_of_one_class_there_is_nothing_to_learn():
    raw, state = torch.randn(3, 6, dtype=torch.float64), head(np.ones((1, 6)), np.ones(1))
    assert Supervised().loss(features(raw, [0, 0, 0]), SCALE, CLOCK, state).total.item() == 0


def test_images_without_labels_are_refused_before_training():
    with pytest.raises(ValueError, match="supervised learns from labelled images, and these have no labels"):
        Supervised().state(Setting(6, 10))


def test_the_image_tower_alone_learns():
    assert Supervised().trainable(CLOCK) == {"image"}


def test_the_classifier_is_read_from_a_saved_state():
    made = head(np.eye(3, 6), np.arange(3.0))
    weight, bias = Supervised().classifier(made.state_dict())
    assert torch.equal(weight, made.weight)
    assert torch.equal(bias, made.bias)
